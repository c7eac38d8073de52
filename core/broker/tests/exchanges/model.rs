//! The real topology against a slow model of it, over random exchanges, bindings and keys.

use std::collections::BTreeSet;

use polymq_contract::{BindExchange, Command};
use polymq_model::{
    Table, Value,
    topic::{Pattern, Syntax},
};
use proptest::prelude::*;

use crate::{
    bind, declare, drain, table, text,
    world::{Client, World, publish_of, with_headers},
};

const KINDS: [&str; 8] = [
    "direct",
    "fanout",
    "topic",
    "headers",
    "x-consistent-hash",
    "x-modulus-hash",
    "x-random",
    "x-local-random",
];
const KEYS: [&str; 7] = ["a", "b", "a.b", "a.*", "#", "*.b", "1"];
const QUEUES: usize = 4;

#[derive(Debug, Clone)]
struct Exchange {
    kind: &'static str,
    alternate: Option<usize>,
    bindings: Vec<Binding>,
}

#[derive(Debug, Clone, PartialEq)]
struct Binding {
    to: To,
    key: &'static str,
    /// The header a binding of a headers exchange wants.
    header: (&'static str, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Queue(usize),
    Exchange(usize),
}

#[derive(Debug, Clone)]
struct Sent {
    exchange: usize,
    keys: Vec<&'static str>,
    header: (&'static str, i64),
}

/// Everywhere a message may end, one set for each way in which the exchanges that choose by hash
/// or chance can have chosen.
fn outcomes(exchanges: &[Exchange], sent: &Sent) -> Vec<BTreeSet<usize>> {
    let mut done = Vec::new();
    let mut open = vec![(vec![sent.exchange], BTreeSet::new(), BTreeSet::new())];
    while let Some((mut next, mut seen, mut queues)) = open.pop() {
        let Some(at) = next.pop() else {
            done.push(queues);
            continue;
        };
        if !seen.insert(at) {
            open.push((next, seen, queues));
            continue;
        }
        let exchange = &exchanges[at];
        let takers: Vec<_> =
            exchange.bindings.iter().filter(|binding| takes(exchange, binding, sent)).collect();
        if takers.is_empty() {
            next.extend(exchange.alternate);
            open.push((next, seen, queues));
        } else if exchange.kind.starts_with("x-") {
            for taker in takers {
                let (mut next, mut queues) = (next.clone(), queues.clone());
                go(taker.to, &mut next, &mut queues);
                open.push((next, seen.clone(), queues));
            }
        } else {
            takers.iter().for_each(|taker| go(taker.to, &mut next, &mut queues));
            open.push((next, seen, queues));
        }
    }
    done
}

fn go(to: To, next: &mut Vec<usize>, queues: &mut BTreeSet<usize>) {
    match to {
        To::Queue(queue) => {
            queues.insert(queue);
        }
        To::Exchange(exchange) => next.push(exchange),
    }
}

fn takes(exchange: &Exchange, binding: &Binding, sent: &Sent) -> bool {
    match exchange.kind {
        "direct" => sent.keys.contains(&binding.key),
        "topic" => {
            let pattern = Pattern::stored(binding.key, Syntax::Dot).unwrap();
            sent.keys.iter().any(|key| pattern.matches(key))
        }
        "headers" => binding.header == sent.header,
        _ => true,
    }
}

fn exchanges() -> impl Strategy<Value = Vec<Exchange>> {
    let count = 1..6_usize;
    count.prop_flat_map(|count| {
        let to = prop_oneof![
            3 => (0..QUEUES).prop_map(To::Queue),
            2 => (0..count).prop_map(To::Exchange),
        ];
        let header = (prop::sample::select(vec!["h", "i"]), 0..2_i64);
        let binding = (to, prop::sample::select(KEYS.to_vec()), header)
            .prop_map(|(to, key, header)| Binding { to, key, header });
        let exchange = (
            prop::sample::select(KINDS.to_vec()),
            prop::option::of(0..count),
            prop::collection::vec(binding, 0..5),
        );
        let exchange = exchange.prop_map(|(kind, alternate, mut bindings)| {
            if kind == "x-consistent-hash" {
                bindings.iter_mut().for_each(|binding| binding.key = "1");
            }
            Exchange { kind, alternate, bindings }
        });
        prop::collection::vec(exchange, count)
    })
}

fn messages() -> impl Strategy<Value = Vec<Sent>> {
    let sent = (
        0..6_usize,
        prop::collection::vec(prop::sample::select(vec!["a", "b", "a.b", "c", ""]), 1..3),
        (prop::sample::select(vec!["h", "i"]), 0..2_i64),
    );
    prop::collection::vec(
        sent.prop_map(|(exchange, keys, header)| Sent { exchange, keys, header }),
        1..8,
    )
}

fn arguments(exchange: &Exchange, binding: &Binding) -> Vec<(&'static str, Value)> {
    let (name, value) = binding.header;
    if exchange.kind == "headers" { vec![(name, Value::I64(value))] } else { Vec::new() }
}

fn build(client: &mut Client, exchanges: &[Exchange]) {
    for queue in 0..QUEUES {
        client.queue(&format!("q{queue}"));
    }
    for (at, exchange) in exchanges.iter().enumerate() {
        let alternate: Vec<_> = exchange
            .alternate
            .map(|other| ("alternate-exchange", text(&format!("e{other}"))))
            .into_iter()
            .collect();
        declare(client, &format!("e{at}"), exchange.kind, &alternate).unwrap();
    }
    for (at, exchange) in exchanges.iter().enumerate() {
        for binding in &exchange.bindings {
            let arguments = arguments(exchange, binding);
            let source = format!("e{at}");
            match binding.to {
                To::Queue(queue) => {
                    bind(client, &source, &format!("q{queue}"), binding.key, &arguments).unwrap();
                }
                To::Exchange(other) => {
                    bind_exchange(client, &source, other, binding.key, table(&arguments));
                }
            }
        }
    }
}

fn bind_exchange(client: &mut Client, source: &str, to: usize, key: &str, arguments: Table) {
    client.ask(|request| {
        Command::BindExchange(Box::new(BindExchange {
            request,
            destination: format!("e{to}"),
            source: source.to_owned(),
            key: key.to_owned(),
            arguments,
        }))
    });
}

/// Publishes a message and says which queues it came to.
fn reached(client: &mut Client, sent: &Sent) -> BTreeSet<usize> {
    let (name, value) = sent.header;
    let exchange = format!("e{}", sent.exchange);
    let message = with_headers(&exchange, sent.keys[0], &[(name, Value::I64(value))]);
    let more = sent.keys[1..].iter().map(|key| (*key).into()).collect();
    client.send(publish_of(message.with_extra_keys(more), 0));
    let got = |queue: &usize| match drain(client, &format!("q{queue}")).len() {
        0 => false,
        1 => true,
        more => panic!("q{queue} got the message {more} times"),
    };
    (0..QUEUES).filter(got).collect()
}

fn is_random(exchanges: &[Exchange]) -> bool {
    exchanges.iter().any(|exchange| exchange.kind.ends_with("random"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn messages_go_where_the_model_says(exchanges in exchanges(), messages in messages()) {
        let world = World::new();
        let mut client = world.connect();
        build(&mut client, &exchanges);
        let messages: Vec<_> =
            messages.into_iter().filter(|sent| sent.exchange < exchanges.len()).collect();
        let mut places = Vec::new();
        for sent in &messages {
            let place = reached(&mut client, sent);
            prop_assert!(outcomes(&exchanges, sent).contains(&place), "{sent:?}: {place:?}");
            places.push(place);
        }
        // Again on what was stored, and with the routes of another connection.
        drop(client);
        let world = world.restart();
        let mut client = world.connect();
        for (sent, before) in messages.iter().zip(places) {
            let place = reached(&mut client, sent);
            prop_assert!(outcomes(&exchanges, sent).contains(&place), "{sent:?}: {place:?}");
            if !is_random(&exchanges) {
                prop_assert_eq!(place, before);
            }
        }
    }
}

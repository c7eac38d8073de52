//! What exchanges of each type do, one test for each rule.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hashes;
mod model;
#[path = "../world/mod.rs"]
mod world;

use polymq_contract::{
    Answer, BindExchange, BindQueue, Command, DeclareExchange, Outcome, Refusal, RefusalKind,
};
use polymq_model::{RequestId, Table, Value};
use world::{Client, World, kind_of, publish_of, with_headers};

fn table(pairs: &[(&str, Value)]) -> Table {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn declaration(request: RequestId, name: &str, kind: &str, arguments: Table) -> DeclareExchange {
    DeclareExchange {
        request,
        exchange: name.to_owned(),
        kind: kind.to_owned(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments,
    }
}

fn declare(
    client: &mut Client,
    name: &str,
    kind: &str,
    arguments: &[(&str, Value)],
) -> Result<Answer, Refusal> {
    let arguments = table(arguments);
    client.try_ask(|request| {
        Command::DeclareExchange(Box::new(declaration(request, name, kind, arguments)))
    })
}

fn binding(
    request: RequestId,
    exchange: &str,
    queue: &str,
    key: &str,
    arguments: &[(&str, Value)],
) -> Box<BindQueue> {
    let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
    Box::new(BindQueue { request, queue, exchange, key, arguments: table(arguments) })
}

fn bind(
    client: &mut Client,
    exchange: &str,
    queue: &str,
    key: &str,
    arguments: &[(&str, Value)],
) -> Result<Answer, Refusal> {
    client.try_ask(|request| Command::BindQueue(binding(request, exchange, queue, key, arguments)))
}

fn unbind(client: &mut Client, exchange: &str, queue: &str, key: &str) -> Answer {
    client.ask(|request| Command::UnbindQueue(binding(request, exchange, queue, key, &[])))
}

fn bind_exchanges(client: &mut Client, source: &str, destination: &str) -> Result<Answer, Refusal> {
    client.try_ask(|request| {
        Command::BindExchange(Box::new(BindExchange {
            request,
            destination: destination.to_owned(),
            source: source.to_owned(),
            key: String::new(),
            arguments: Table::new(),
        }))
    })
}

fn drain(client: &mut Client, queue: &str) -> Vec<String> {
    std::iter::from_fn(|| client.get(queue)).collect()
}

/// Declares an exchange of `kind` with queues `q0` to `q<n>`, bound with these keys.
fn spread(client: &mut Client, kind: &str, arguments: &[(&str, Value)], keys: &[&str]) {
    declare(client, "x", kind, arguments).unwrap();
    for (at, key) in keys.iter().enumerate() {
        client.queue(&format!("q{at}"));
        bind(client, "x", &format!("q{at}"), key, &[]).unwrap();
    }
}

#[test]
fn a_direct_exchange_takes_every_binding_whose_key_equals_the_routing_key() {
    let world = World::new();
    let mut client = world.connect();
    spread(&mut client, "direct", &[], &["a", "a", "b"]);
    client.publish("x", "a", "m");
    assert_eq!(["q0", "q1", "q2"].map(|queue| drain(&mut client, queue).len()), [1, 1, 0]);
    unbind(&mut client, "x", "q0", "a");
    client.publish("x", "a", "m");
    assert_eq!(["q0", "q1", "q2"].map(|queue| drain(&mut client, queue).len()), [0, 1, 0]);
}

#[test]
fn a_fanout_exchange_takes_every_binding() {
    let world = World::new();
    let mut client = world.connect();
    spread(&mut client, "fanout", &[], &["a", "", "b"]);
    client.publish("x", "other", "m");
    assert_eq!(["q0", "q1", "q2"].map(|queue| drain(&mut client, queue).len()), [1, 1, 1]);
}

#[test]
fn a_topic_exchange_takes_every_binding_whose_pattern_matches_the_topic_levels() {
    let world = World::new();
    let mut client = world.connect();
    spread(&mut client, "topic", &[], &["a.*", "#.c", "a.b.c"]);
    client.publish("x", "a.b.c", "m");
    assert_eq!(["q0", "q1", "q2"].map(|queue| drain(&mut client, queue).len()), [0, 1, 1]);
    unbind(&mut client, "x", "q1", "#.c");
    client.publish("x", "a.c", "m");
    assert_eq!(["q0", "q1", "q2"].map(|queue| drain(&mut client, queue).len()), [1, 0, 0]);
}

#[test]
fn a_binding_says_with_x_topic_syntax_which_wildcards_it_means() {
    let world = World::new();
    let mut client = world.connect();
    for queue in ["dot", "mqtt"] {
        client.queue(queue);
        bind(&mut client, "amq.topic", queue, "a.+", &[("x-topic-syntax", text(queue))]).unwrap();
    }
    client.publish("amq.topic", "a.b", "wild");
    client.publish("amq.topic", "a.+", "plain");
    assert_eq!(drain(&mut client, "dot"), ["plain"]);
    assert_eq!(drain(&mut client, "mqtt"), ["wild", "plain"]);
    for wrong in [text("regex"), Value::I32(1)] {
        let refused = bind(&mut client, "amq.topic", "dot", "a", &[("x-topic-syntax", wrong)]);
        assert_eq!(kind_of(refused), RefusalKind::Invalid);
    }
}

#[test]
fn header_values_compare_by_type_class_and_value_and_void_means_present() {
    let world = World::new();
    let mut client = world.connect();
    let bindings = [
        ("number", Value::I64(1)),
        ("text", Value::Symbol("1".into())),
        ("bytes", Value::LongString(b"1".to_vec())),
        ("present", Value::Null),
    ];
    for (queue, value) in &bindings {
        client.queue(queue);
        bind(&mut client, "amq.headers", queue, "", &[("h", value.clone())]).unwrap();
    }
    let cases = [
        (Value::U8(1), ["number", "present"].as_slice()),
        (Value::F64(1.0), &["number", "present"]),
        (text("1"), &["text", "present"]),
        (Value::Bytes(b"1".to_vec()), &["bytes", "present"]),
        (Value::Bool(true), &["present"]),
    ];
    for (sent, takers) in cases {
        client.send(publish_of(with_headers("amq.headers", "", &[("h", sent.clone())]), 0));
        for (queue, _) in &bindings {
            let count = usize::from(takers.contains(queue));
            assert_eq!(drain(&mut client, queue).len(), count, "{sent:?} in {queue}");
        }
    }
}

#[test]
fn x_match_is_all_unless_it_says_any_or_counts_names_with_x() {
    let world = World::new();
    let mut client = world.connect();
    let wanted = [("a", Value::I32(1)), ("x-b", Value::I32(2))];
    for mode in ["all", "any", "all-with-x", "any-with-x"] {
        client.queue(mode);
        let arguments = [&wanted[..], &[("x-match", text(mode))]].concat();
        bind(&mut client, "amq.match", mode, "", &arguments).unwrap();
    }
    let cases = [
        (&wanted[..], ["all", "any", "all-with-x", "any-with-x"].as_slice()),
        (&wanted[..1], &["all", "any", "any-with-x"]),
        (&wanted[1..], &["any-with-x"]),
        (&[], &[]),
    ];
    for (headers, takers) in cases {
        client.send(publish_of(with_headers("amq.match", "", headers), 0));
        for mode in ["all", "any", "all-with-x", "any-with-x"] {
            let count = usize::from(takers.contains(&mode));
            assert_eq!(drain(&mut client, mode).len(), count, "{headers:?} in {mode}");
        }
    }
    client.queue("q");
    let refused = bind(&mut client, "amq.match", "q", "", &[("x-match", text("most"))]);
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
}

#[test]
fn cc_and_bcc_add_routing_keys_and_dead_letters_use_those_of_cc_only() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-dead-letter-exchange", text("amq.direct"))]);
    for queue in ["key", "cc", "bcc"] {
        client.queue(queue);
        client.bind("amq.direct", queue, queue);
    }
    let cc = Value::List(vec![text("cc")]);
    let sent = with_headers("amq.direct", "key", &[("CC", cc.clone())]);
    let sent = sent.with_extra_keys(vec!["cc".into(), "bcc".into()]);
    client.send(publish_of(sent, 0));
    assert_eq!(["key", "cc", "bcc"].map(|queue| drain(&mut client, queue).len()), [1, 1, 1]);

    client.bind("amq.direct", "q", "key");
    let sent = with_headers("amq.direct", "key", &[("CC", cc)]);
    client.send(publish_of(sent.with_extra_keys(vec!["cc".into(), "bcc".into()]), 0));
    for queue in ["key", "cc", "bcc"] {
        drain(&mut client, queue);
    }
    unbind(&mut client, "amq.direct", "q", "key");
    client.consume("q", 7, 0);
    client.deliveries();
    client.settle(7, 1, 1, Outcome::Rejected);
    assert_eq!(["key", "cc", "bcc"].map(|queue| drain(&mut client, queue).len()), [1, 1, 0]);
}

#[test]
fn x_alternate_exchange_is_another_name_of_alternate_exchange() {
    let world = World::new();
    let mut client = world.connect();
    declare(&mut client, "main", "direct", &[("x-alternate-exchange", text("amq.fanout"))])
        .unwrap();
    client.queue("q");
    client.bind("amq.fanout", "q", "");
    client.publish("main", "nobody", "m");
    assert_eq!(drain(&mut client, "q"), ["m"]);
    declare(&mut client, "main", "direct", &[("alternate-exchange", text("amq.fanout"))]).unwrap();
    let both = [("x-alternate-exchange", text("a")), ("alternate-exchange", text("b"))];
    for arguments in [&both[..], &[("alternate-exchange", Value::I32(1))]] {
        let refused = declare(&mut client, "other", "direct", arguments);
        assert_eq!(kind_of(refused), RefusalKind::Invalid);
    }
}

#[test]
fn an_alternate_exchange_that_is_missing_drops_and_counts() {
    let world = World::new();
    let mut client = world.connect();
    declare(&mut client, "main", "direct", &[("alternate-exchange", text("gone"))]).unwrap();
    let unrouted = || {
        let counters = world.broker.counters().protocol("amqp");
        counters.messages_unrouted.load(std::sync::atomic::Ordering::Relaxed)
    };
    let before = unrouted();
    client.publish("main", "nobody", "m");
    assert_eq!(unrouted(), before + 1);
}

#[test]
fn alternates_in_a_circle_end() {
    let world = World::new();
    let mut client = world.connect();
    declare(&mut client, "a", "direct", &[("alternate-exchange", text("b"))]).unwrap();
    declare(&mut client, "b", "direct", &[("alternate-exchange", text("a"))]).unwrap();
    client.publish("a", "nobody", "m");
}

#[test]
fn an_internal_exchange_refuses_client_publishes() {
    let world = World::new();
    let mut client = world.connect();
    client.ask(|request| {
        let declare = declaration(request, "inside", "fanout", Table::new());
        Command::DeclareExchange(Box::new(DeclareExchange { internal: true, ..declare }))
    });
    client.queue("q");
    client.bind("inside", "q", "");
    client.publish("inside", "", "direct");
    assert_eq!(drain(&mut client, "q").len(), 0);
    bind_exchanges(&mut client, "amq.fanout", "inside").unwrap();
    client.publish("amq.fanout", "", "through");
    assert_eq!(drain(&mut client, "q"), ["through"]);
}

#[test]
fn deleting_with_if_unused_is_refused_while_bound() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("x", "fanout");
    client.queue("q");
    client.bind("x", "q", "");
    let delete = |client: &mut Client| {
        client.try_ask(|request| Command::DeleteExchange {
            request,
            exchange: "x".into(),
            if_unused: true,
        })
    };
    assert_eq!(kind_of(delete(&mut client)), RefusalKind::Conflict);
    unbind(&mut client, "x", "q", "");
    delete(&mut client).unwrap();
    delete(&mut client).unwrap();
}

#[test]
fn the_default_exchange_is_neither_bound_nor_declared() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let refusals = [
        bind(&mut client, "", "q", "k", &[]),
        client.try_ask(|request| Command::UnbindQueue(binding(request, "", "q", "q", &[]))),
        bind_exchanges(&mut client, "", "amq.fanout"),
        bind_exchanges(&mut client, "amq.fanout", ""),
        declare(&mut client, "", "direct", &[]),
    ];
    for refused in refusals {
        assert_eq!(kind_of(refused), RefusalKind::Reserved);
    }
}

#[test]
fn an_unknown_type_is_invalid_and_a_planned_one_not_available() {
    let world = World::new();
    let mut client = world.connect();
    for (kind, wanted) in
        [("fancy", RefusalKind::Invalid), ("x-recent-history", RefusalKind::NotAvailable)]
    {
        assert_eq!(kind_of(declare(&mut client, "x", kind, &[])), wanted);
    }
}

#[test]
fn binding_to_something_missing_is_not_found_and_unbinding_it_succeeds() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let refusals = [
        bind(&mut client, "none", "q", "", &[]),
        bind(&mut client, "amq.fanout", "none", "", &[]),
        bind_exchanges(&mut client, "none", "amq.fanout"),
        bind_exchanges(&mut client, "amq.fanout", "none"),
    ];
    for refused in refusals {
        assert_eq!(kind_of(refused), RefusalKind::NotFound);
    }
    for (exchange, queue) in [("none", "q"), ("amq.fanout", "none"), ("amq.fanout", "q")] {
        unbind(&mut client, exchange, queue, "");
    }
}

#[test]
fn the_control_exchange_exists_and_takes_no_orders_yet() {
    let world = World::new();
    let mut client = world.connect();
    declare(&mut client, "amq.control", "direct", &[]).unwrap();
    client.queue("q");
    for refused in [
        bind(&mut client, "amq.control", "q", "extend", &[]),
        bind_exchanges(&mut client, "amq.fanout", "amq.control"),
    ] {
        assert_eq!(kind_of(refused), RefusalKind::NotAvailable);
    }
    client.publish("amq.control", "extend", "m");
    let refused = client.events().into_iter().any(|event| {
        matches!(event, polymq_contract::Event::PublishRefused { refusal, .. }
            if refusal.kind == RefusalKind::NotAvailable)
    });
    assert!(refused);
}

#[test]
fn thousands_of_bindings_of_one_key_come_and_go() {
    let world = World::new();
    let mut client = world.connect();
    for exchange in ["amq.direct", "amq.topic", "amq.fanout"] {
        client.queue("q");
        // One queue, and so many bindings that anything quadratic would be felt.
        for number in 0..2000 {
            bind(&mut client, exchange, "q", "k", &[("n", Value::I32(number))]).unwrap();
        }
        client.publish(exchange, "k", "m");
        assert_eq!(drain(&mut client, "q"), ["m"]);
        client.ask(|request| Command::DeleteQueue {
            request,
            queue: "q".into(),
            if_unused: false,
            if_empty: false,
        });
    }
}

//! Section 7.3: all of a transaction takes effect, or nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use polymq_contract::{
    Command, DeliveryRange, Event, Outcome, Publish, Refusal, RefusalKind, Settlement, Transaction,
};
use polymq_model::{ConsumerId, RequestId, Value};
use polymq_store::StoreError;

use crate::{
    dead_letters_to, drain, in_transaction, ready, text, view,
    world::{Client, World, publish},
};

/// Commits, and returns why nothing happened if so.
fn commit(
    client: &mut Client,
    publishes: Vec<Publish>,
    settled: &[(u64, Outcome)],
) -> Option<Refusal> {
    let settlements = settled.iter().map(|(number, outcome)| {
        let deliveries = DeliveryRange { first: *number, last: *number };
        Settlement::new(ConsumerId(1), deliveries, *outcome)
    });
    let settlements = settlements.collect();
    let request = RequestId(1_000_001);
    client.send(Command::Commit(Box::new(Transaction { request, publishes, settlements })));
    client.events().into_iter().find_map(|event| match event {
        Event::PublishRefused { refusal, .. } => Some(*refusal),
        Event::Answered { answer, .. } => answer.err(),
        _ => None,
    })
}

const LIMITED: [(&str, Value); 1] = [("x-max-length", Value::I32(2))];

fn limited(client: &mut Client, overflow: &str) {
    client.queue_with("limited", &[LIMITED[0].clone(), ("x-overflow", text(overflow))]);
    client.queue("q");
}

#[test]
fn a_commit_takes_effect_in_all_queues_and_lasts() {
    let world = World::new();
    let mut client = world.connect();
    for queue in ["in", "a", "b", "dead"] {
        client.queue(queue);
    }
    client.queue_with("q", &dead_letters_to("dead"));
    for body in ["1", "2", "3"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 0);
    client.deliveries();
    let publishes = vec![in_transaction("", "a", "m"), in_transaction("", "b", "m")];
    let settled = [(1, Outcome::Accepted), (2, Outcome::Rejected), (3, Outcome::Returned)];
    assert_eq!(commit(&mut client, publishes, &settled), None);
    let world = world.restart();
    let mut client = world.connect();
    assert_eq!(drain(&mut client, "q"), ["3"]);
    for (queue, bodies) in [("a", ["m"]), ("b", ["m"]), ("dead", ["2"])] {
        assert_eq!(drain(&mut client, queue), bodies, "{queue}");
    }
}

#[test]
fn a_full_queue_refuses_a_transaction_whole() {
    for overflow in ["reject-publish", "reject-publish-dlx"] {
        let world = World::new();
        let mut client = world.connect();
        limited(&mut client, overflow);
        client.publish("", "q", "out");
        client.consume("q", 1, 1);
        client.deliveries();
        let publishes = ["q", "limited", "limited", "limited"];
        let publishes = publishes.map(|queue| in_transaction("", queue, "m")).into();
        let refusal = commit(&mut client, publishes, &[(1, Outcome::Accepted)]).expect("refused");
        assert_eq!(refusal.kind, RefusalKind::Full);
        assert!(refusal.text.contains("'limited'"), "{}", refusal.text);
        assert_eq!(ready(&world, "limited"), 0);
        let counts = view(&world, "q").counts;
        assert_eq!((counts.ready, counts.unsettled), (0, 1), "what was out is out again");
    }
}

#[test]
fn room_is_not_kept_when_a_transaction_is_over() {
    let world = World::new();
    let mut client = world.connect();
    limited(&mut client, "reject-publish");
    let many = (0..3).map(|_| in_transaction("", "limited", "m")).collect();
    assert!(commit(&mut client, many, &[]).is_some());
    let fits = (0..2).map(|_| in_transaction("", "limited", "m")).collect();
    assert_eq!(commit(&mut client, fits, &[]), None);
    client.publish("", "limited", "too much");
    assert_eq!(drain(&mut client, "limited"), ["m", "m"]);
    client.send(publish("", "limited", "fits again", 0));
    assert_eq!(drain(&mut client, "limited"), ["fits again"]);
}

#[test]
fn a_transaction_over_the_bytes_of_a_queue_is_refused() {
    let world = World::new();
    let mut client = world.connect();
    let bytes = [("x-max-length-bytes", Value::I32(5)), ("x-overflow", text("reject-publish"))];
    client.queue_with("limited", &bytes);
    let publishes =
        vec![in_transaction("", "limited", "abc"), in_transaction("", "limited", "def")];
    assert!(commit(&mut client, publishes, &[]).is_some());
    assert_eq!(ready(&world, "limited"), 0);
}

#[test]
fn drop_head_refuses_no_transaction() {
    let world = World::new();
    let mut client = world.connect();
    limited(&mut client, "drop-head");
    let publishes = ["1", "2", "3"].map(|body| in_transaction("", "limited", body)).into();
    assert_eq!(commit(&mut client, publishes, &[]), None);
    assert_eq!(drain(&mut client, "limited"), ["2", "3"]);
}

#[test]
fn a_missing_exchange_refuses_a_transaction_whole() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let publishes = vec![in_transaction("", "q", "m"), in_transaction("missing", "k", "m")];
    let refusal = commit(&mut client, publishes, &[]).expect("refused");
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert_eq!(ready(&world, "q"), 0);
}

#[test]
fn a_message_that_is_too_large_refuses_a_transaction_whole() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.queue_with("small", &[("x-max-message-size", Value::I32(1))]);
    let publishes = vec![in_transaction("", "q", "m"), in_transaction("", "small", "mm")];
    let refusal = commit(&mut client, publishes, &[]).expect("refused");
    assert_eq!(refusal.kind, RefusalKind::TooLarge);
    assert_eq!(ready(&world, "q"), 0);
}

#[test]
fn returns_come_before_the_answer() {
    let world = World::new();
    let mut client = world.connect();
    let mut lost = in_transaction("amq.direct", "nobody", "m");
    lost.mandatory = true;
    client.events();
    let request = RequestId(1_000_001);
    let (publishes, settlements) = (vec![lost], Vec::new());
    client.send(Command::Commit(Box::new(Transaction { request, publishes, settlements })));
    let events = client.events();
    assert!(matches!(&events[..], [Event::Returned { .. }, Event::Answered { .. }]), "{events:?}");
}

#[test]
fn a_transaction_that_the_store_refuses_is_not_answered_as_done() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.events();
    world.store.faults().fail_all(Some(StoreError::Full));
    let refused = client.try_ask(|request| {
        let publishes = vec![in_transaction("", "q", "m")];
        Command::Commit(Box::new(Transaction { request, publishes, settlements: Vec::new() }))
    });
    assert_eq!(refused.unwrap_err().kind, RefusalKind::StoreFailed);
}

#[test] // Section 8, rule 5.
fn messages_of_a_transaction_are_adjacent_and_in_order_in_each_queue() {
    const ROUNDS: usize = 8;
    let world = World::new();
    let mut client = world.connect();
    let mut other = world.connect();
    client.queue("a");
    client.queue("b");
    // Two places in turn, and more to one of them than a run holds.
    let queue_of = |index: usize| if index < 200 { ["a", "b"][index % 2] } else { "a" };
    let body_of = |round: usize, index: usize| format!("{round}.{index}");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..10_000 {
                for queue in ["a", "b"] {
                    other.send(publish("", queue, "other", 0));
                }
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for round in 0..ROUNDS {
            let publishes = (0..1000)
                .map(|index| in_transaction("", queue_of(index), &body_of(round, index)))
                .collect();
            assert_eq!(commit(&mut client, publishes, &[]), None);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    for queue in ["a", "b"] {
        let found = drain(&mut client, queue);
        for round in 0..ROUNDS {
            let wanted: Vec<_> = (0..1000)
                .filter(|index| queue_of(*index) == queue)
                .map(|index| body_of(round, index))
                .collect();
            let start = found.iter().position(|body| *body == wanted[0]).expect("it is there");
            assert_eq!(found[start..start + wanted.len()], wanted, "{queue}, round {round}");
        }
    }
}

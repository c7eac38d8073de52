//! A disk without room: publishes are refused, and what has been confirmed before stays, wherever
//! it was going.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_contract::{Command, Outcome, Publish, Settlement, Transaction};
use polymq_model::{ConsumerId, PublisherId, RequestId, Value};
use polymq_store::StoreError;
use world::{Client, World, message};

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn full(world: &World, is_full: bool) {
    world.store.faults().fail_all(is_full.then_some(StoreError::Full));
    world.broker.committer().kick();
}

fn work(world: &World) -> Client {
    let mut client = world.connect();
    client.queue("dead");
    let to_dead =
        [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    client.queue_with("q", &to_dead);
    for body in ["one", "two"] {
        client.publish("", "q", body);
    }
    world.broker.committer().kick();
    client.consume("q", 1, 2);
    assert_eq!(client.bodies(), ["one", "two"]);
    client
}

#[test]
fn a_dead_letter_that_meets_a_full_disk_is_in_one_of_its_two_queues() {
    let mut world = World::new();
    let mut client = work(&world);
    world.store.faults().fail_all(Some(StoreError::Full));
    // The first finds out that the disk is full; the second waits for room where it is.
    client.settle(1, 1, 1, Outcome::Rejected);
    world.broker.committer().kick();
    client.settle(1, 2, 2, Outcome::Rejected);
    full(&world, false);
    world.pass(2000);
    let world = world.restart();
    let mut client = world.connect();
    assert_eq!(client.get("q"), None);
    assert_eq!(client.get("dead").as_deref(), Some("one"));
    assert_eq!(client.get("dead").as_deref(), Some("two"));
}

#[test]
fn a_transaction_that_meets_a_full_disk_happens_as_a_whole_or_not_at_all() {
    let world = World::new();
    let mut client = work(&world);
    client.queue("next");
    world.broker.committer().kick();
    world.store.faults().fail_all(Some(StoreError::Full));
    let moved = message("", "next", "one, worked on").build(&mut Vec::new());
    let publish = Publish {
        publisher: PublisherId(1),
        number: 0,
        mandatory: false,
        received: None,
        delay: None,
        message: moved,
    };
    let deliveries = polymq_contract::DeliveryRange { first: 1, last: 1 };
    let settlement = Settlement::new(ConsumerId(1), deliveries, Outcome::Accepted);
    client.send(Command::Commit(Box::new(Transaction {
        request: RequestId(77),
        publishes: vec![publish],
        settlements: vec![settlement],
    })));
    world.broker.committer().kick();
    assert!(client.answer_to(RequestId(77)).unwrap().is_err());
    full(&world, false);
    let world = world.restart();
    let mut client = world.connect();
    let left: Vec<_> = std::iter::from_fn(|| client.get("q")).collect();
    let made: Vec<_> = std::iter::from_fn(|| client.get("next")).collect();
    match made.len() {
        1 => assert_eq!(left, ["two"]),
        _ => assert_eq!(left, ["one", "two"]),
    }
}

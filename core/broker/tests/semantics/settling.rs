//! Sections 4.1 and 4.2: how deliveries end, what counts, and where messages go back to.

use polymq_contract::{Command, Delivery, Outcome};
use polymq_model::{ConsumerId, Value};

use crate::{
    cancel, publish_for, ready,
    world::{Client, World, body_of},
};

/// A queue with one message that is out to consumer 1.
fn out(client: &mut Client) -> Delivery {
    client.queue("q");
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.deliveries().remove(0)
}

/// Redelivered, acquired and failed of the next delivery.
fn counts(client: &mut Client) -> (bool, u16, u16) {
    let deliveries = client.deliveries();
    let delivery = deliveries.first().expect("the message is delivered again");
    (delivery.redelivered, delivery.acquired, delivery.failed)
}

#[test]
fn the_redelivered_flag_is_set_from_the_second_delivery_on() {
    let world = World::new();
    let mut client = world.connect();
    let first = out(&mut client);
    assert_eq!((first.redelivered, first.acquired, first.failed), (false, 0, 0));
    for number in 1..=2 {
        client.settle(1, number, number, Outcome::Returned);
        assert_eq!(counts(&mut client), (true, u16::try_from(number).unwrap(), 0));
    }
}

#[test]
fn a_plain_return_counts_as_acquired_and_a_failed_one_as_both() {
    let world = World::new();
    let mut client = world.connect();
    out(&mut client);
    client.settle(1, 1, 1, Outcome::Returned);
    assert_eq!(counts(&mut client), (true, 1, 0));
    client.settle(1, 2, 2, Outcome::Failed);
    assert_eq!(counts(&mut client), (true, 2, 1));
}

#[test]
fn a_lost_channel_or_connection_returns_as_failed() {
    let world = World::new();
    let mut client = world.connect();
    out(&mut client);
    client.send(Command::Release { consumers: vec![ConsumerId(1)] });
    client.consume("q", 2, 0);
    assert_eq!(counts(&mut client), (true, 1, 1));
    client.disconnect();
    let mut other = world.connect();
    other.consume("q", 1, 0);
    assert_eq!(counts(&mut other), (true, 2, 2));
}

#[test]
fn a_cancelled_consumer_keeps_what_it_has_and_may_settle_it() {
    let world = World::new();
    let mut client = world.connect();
    out(&mut client);
    cancel(&mut client, 1);
    assert_eq!(client.get("q"), None);
    client.settle(1, 1, 1, Outcome::Returned);
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

#[test]
fn both_counts_survive_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    out(&mut client);
    client.settle(1, 1, 1, Outcome::Failed);
    client.settle(1, 2, 2, Outcome::Returned);
    let world = world.restart();
    let mut client = world.connect();
    client.consume("q", 1, 0);
    assert_eq!(counts(&mut client), (true, 2, 1));
}

#[test]
fn a_rejected_message_without_a_dead_letter_exchange_is_dropped_and_counted() {
    let world = World::new();
    let mut client = world.connect();
    out(&mut client);
    client.settle(1, 1, 1, Outcome::Rejected);
    assert_eq!((ready(&world, "q"), crate::counter(&world, "dropped_rejected")), (0, 1));
}

#[test]
fn a_returned_message_is_delivered_before_everything_that_was_behind_it() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for body in ["a", "b", "c", "d"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 2);
    assert_eq!(client.bodies(), ["a", "b"]);
    client.settle(1, 1, 1, Outcome::Returned);
    assert_eq!(client.bodies(), ["a"]);
    client.settle(1, 2, 3, Outcome::Accepted);
    assert_eq!(client.bodies(), ["c", "d"]);
}

#[test]
fn messages_returned_together_keep_their_order_whoever_had_them() {
    let world = World::new();
    let (mut first, mut second) = (world.connect(), world.connect());
    first.queue("q");
    first.consume("q", 1, 0);
    second.consume("q", 1, 0);
    for number in 0..10 {
        first.publish("", "q", &number.to_string());
    }
    assert_eq!((first.bodies().len(), second.bodies().len()), (5, 5));
    second.disconnect();
    first.disconnect();
    let wanted: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(crate::drain(&mut world.connect(), "q"), wanted);
}

#[test]
fn a_return_does_not_change_the_expiry() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I32(100))]);
    client.publish("", "q", "of the queue");
    publish_for(&world, &mut client, "q", "its own", 50);
    client.consume("q", 1, 0);
    client.deliveries();
    world.pass(60);
    cancel(client.at(&world), 1);
    client.settle(1, 1, 2, Outcome::Returned);
    world.pass(0);
    assert_eq!(ready(&world, "q"), 2, "the expired one is behind one that is not");
    world.pass(41);
    assert_eq!(ready(&world, "q"), 0);
}

#[test]
fn a_delivery_that_is_out_does_not_expire() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I32(50))]);
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    let delivery = client.deliveries().remove(0);
    assert_eq!(body_of(&delivery.message), "m");
    world.pass(1000);
    client.at(&world).settle(1, 1, 1, Outcome::Accepted);
    assert_eq!(crate::counter(&world, "dropped_expired"), 0);
}

#[test]
fn a_range_settles_everything_in_it_that_still_waits() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 0);
    for number in 0..5 {
        client.publish("", "q", &number.to_string());
    }
    client.deliveries();
    client.settle(1, 2, 2, Outcome::Accepted);
    client.settle(1, 1, 4, Outcome::Returned);
    assert_eq!(client.bodies(), ["0", "2", "3"]);
}

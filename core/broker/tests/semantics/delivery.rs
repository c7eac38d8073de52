//! Section 3.3: who gets which message, and the single active consumer of 3.2.

use polymq_contract::{Command, Consume, Event, Outcome, Refusal, RefusalKind};
use polymq_model::{ConsumerId, RequestId, Value};

use crate::{
    cancel, text,
    world::{self, Client, World, consume_of, kind_of},
};

fn try_consume(
    client: &mut Client,
    queue: &str,
    consumer: u32,
    change: impl FnOnce(&mut Consume),
) -> Result<(), Refusal> {
    let mut consume = consume_of(queue, consumer, 1);
    change(&mut consume);
    let asked =
        client.try_ask(|request| Command::Consume(Box::new(Consume { request, ..consume })));
    asked.map(drop)
}

fn consume_with_priority(client: &mut Client, consumer: u32, priority: Value) {
    let arguments = vec![("x-priority".to_owned(), priority)];
    try_consume(client, "q", consumer, |consume| consume.arguments = arguments).unwrap();
}

fn single_active(client: &mut Client) {
    client.queue_with("q", &[("x-single-active-consumer", Value::Bool(true))]);
}

fn takers(client: &mut Client) -> Vec<u32> {
    client.deliveries().iter().map(|delivery| delivery.consumer.0).collect()
}

#[test]
fn the_highest_x_priority_is_first_and_a_blocked_one_does_not_hold_messages_back() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    consume_with_priority(&mut client, 1, Value::I32(0));
    consume_with_priority(&mut client, 2, Value::I32(10));
    for _ in 0..2 {
        client.publish("", "q", "m");
    }
    assert_eq!(takers(&mut client), [2, 1]);
    client.settle(2, 1, 1, Outcome::Accepted);
    client.settle(1, 1, 1, Outcome::Accepted);
    client.publish("", "q", "m");
    assert_eq!(takers(&mut client), [2]);
}

#[test]
fn among_equals_messages_go_round_over_those_that_have_room() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for (consumer, priority) in [(1, 5), (2, 5), (3, 5), (4, 0)] {
        consume_with_priority(&mut client, consumer, Value::I32(priority));
    }
    for _ in 0..4 {
        client.publish("", "q", "m");
    }
    assert_eq!(takers(&mut client), [1, 2, 3, 4]);
    client.settle(2, 1, 1, Outcome::Accepted);
    client.publish("", "q", "m");
    assert_eq!(takers(&mut client), [2]);
}

#[test]
fn x_priority_is_a_whole_number() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    consume_with_priority(&mut client, 1, text("-3"));
    let refused = try_consume(&mut client, "q", 2, |consume| {
        consume.arguments = vec![("x-priority".to_owned(), text("high"))];
    });
    assert_eq!(refused.unwrap_err().kind, RefusalKind::Invalid);
}

#[test]
fn of_single_active_consumers_one_receives() {
    let world = World::new();
    let mut client = world.connect();
    single_active(&mut client);
    client.consume("q", 1, 1);
    client.consume("q", 2, 1);
    for body in ["a", "b"] {
        client.publish("", "q", body);
    }
    assert_eq!(takers(&mut client), [1]);
    client.settle(1, 1, 1, Outcome::Accepted);
    assert_eq!(takers(&mut client), [1]);
}

#[test]
fn the_next_active_consumer_is_the_next_in_priority_then_age() {
    let world = World::new();
    let mut client = world.connect();
    single_active(&mut client);
    for (consumer, priority) in [(1, 0), (2, 0), (3, 7), (4, 7)] {
        consume_with_priority(&mut client, consumer, Value::I32(priority));
    }
    for turn in [1, 3, 4, 2] {
        client.publish("", "q", "m");
        assert_eq!(takers(&mut client), [turn]);
        cancel(&mut client, turn);
    }
}

#[test]
fn a_consumer_that_takes_over_begins_behind_what_the_last_one_still_has() {
    let world = World::new();
    let mut client = world.connect();
    single_active(&mut client);
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 2);
    assert_eq!(client.bodies(), ["a", "b"]);
    client.consume("q", 2, 2);
    client.send(Command::Cancel { request: RequestId(50), consumer: ConsumerId(1) });
    assert_eq!(client.bodies(), ["c"]);
    client.settle(1, 1, 1, Outcome::Returned);
    assert_eq!(client.bodies(), ["a"], "what comes back goes to the active one");
}

#[test]
fn a_single_active_consumer_that_is_lost_hands_over_what_it_had() {
    let world = World::new();
    let (mut first, mut second) = (world.connect(), world.connect());
    single_active(&mut first);
    first.consume("q", 1, 0);
    second.consume("q", 1, 0);
    for body in ["a", "b"] {
        first.publish("", "q", body);
    }
    assert!(second.bodies().is_empty());
    first.disconnect();
    assert_eq!(second.bodies(), ["a", "b"]);
}

#[test]
fn get_on_a_single_active_consumer_queue_is_locked() {
    let world = World::new();
    let mut client = world.connect();
    single_active(&mut client);
    let refused = client.try_ask(|request| Command::Get {
        request,
        queue: "q".to_owned(),
        no_ack: true,
        consumer: ConsumerId(9),
    });
    assert_eq!(kind_of(refused), RefusalKind::Locked);
}

#[test]
fn a_second_consumer_beside_an_exclusive_one_is_denied_and_an_exclusive_one_in_use() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    try_consume(&mut client, "q", 1, |consume| consume.exclusive = true).unwrap();
    let refused = try_consume(&mut client, "q", 2, |_| ());
    assert_eq!(refused.unwrap_err().kind, RefusalKind::Denied);
    cancel(&mut client, 1);
    try_consume(&mut client, "q", 3, |_| ()).unwrap();
    let refused = try_consume(&mut client, "q", 4, |consume| consume.exclusive = true);
    assert_eq!(refused.unwrap_err().kind, RefusalKind::Denied);
}

#[test]
fn a_message_is_dispatched_as_soon_as_it_is_routed_and_confirmed_when_it_is_on_disk() {
    let world = World::new();
    let (mut publisher, mut consumer) = (world.connect(), world.connect());
    publisher.queue("q");
    consumer.consume("q", 1, 0);
    publisher.events();
    world.store.faults().delay_replies(true);
    publisher.send(world::publish("", "q", "m", 1));
    assert_eq!(consumer.bodies(), ["m"]);
    assert!(publisher.events().is_empty());
    world.store.release();
    assert!(matches!(publisher.events()[..], [Event::Confirmed { first: 1, last: 1, .. }]));
}

#[test]
fn prefetch_0_means_no_limit_of_messages() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 0);
    for _ in 0..1000 {
        client.publish("", "q", "m");
    }
    assert_eq!(client.deliveries().len(), 1000);
}

#[test]
fn prefetch_of_a_consumer_counts_apart_from_that_of_others() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 1);
    client.consume("q", 2, 3);
    for _ in 0..9 {
        client.publish("", "q", "m");
    }
    let mut counts = [0, 0];
    takers(&mut client).iter().for_each(|taker| counts[*taker as usize - 1] += 1);
    assert_eq!(counts, [1, 3]);
}

#[test]
fn negotiated_auto_ack_settles_when_sent() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "m");
    try_consume(&mut client, "q", 1, |consume| consume.no_ack = true).unwrap();
    client.send(Command::Release { consumers: vec![ConsumerId(1)] });
    assert_eq!(client.get("q"), None);
}

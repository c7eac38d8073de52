//! Section 8: what comes before what.

use polymq_contract::{Command, Outcome, Transaction};
use polymq_model::Value;

use crate::{
    drain, in_transaction, publish_at, text,
    world::{World, publish},
};

#[test]
fn messages_of_one_channel_enter_each_queue_in_publishing_order() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("x", "fanout");
    for queue in ["a", "b"] {
        client.queue(queue);
        client.bind("x", queue, "");
    }
    let commands = (0..50).map(|number| {
        let exchange = if number % 3 == 0 { "" } else { "x" };
        publish(exchange, "a", &number.to_string(), 0)
    });
    client.send_all(commands.collect());
    let all: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    let some: Vec<_> = (0..50).filter(|n| n % 3 != 0).map(|number| number.to_string()).collect();
    assert_eq!((drain(&mut client, "a"), drain(&mut client, "b")), (all, some));
}

#[test]
fn a_queue_delivers_in_order_of_level_and_sequence_also_what_came_back() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-priority", Value::I32(2))]);
    for (body, level) in [("1a", 1), ("0a", 0), ("2a", 2), ("1b", 1), ("0b", 0), ("2b", 2)] {
        publish_at(&mut client, "q", body, Some(level));
    }
    client.consume("q", 1, 4);
    assert_eq!(client.bodies(), ["2a", "2b", "1a", "1b"]);
    client.settle(1, 1, 4, Outcome::Returned);
    assert_eq!(client.bodies(), ["2a", "2b", "1a", "1b"]);
}

#[test]
fn with_one_consumer_and_returns_in_order_no_message_overtakes_another() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for number in 0..10 {
        client.publish("", "q", &number.to_string());
    }
    client.consume("q", 1, 1);
    let mut done = Vec::new();
    for number in 1..=20 {
        let body = client.bodies().remove(0);
        if number % 2 == 1 {
            client.settle(1, number, number, Outcome::Failed);
        } else {
            client.settle(1, number, number, Outcome::Accepted);
            done.push(body);
        }
    }
    assert_eq!(done, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn retry_delay_lets_others_pass_and_released_retries_reenter_at_their_place() {
    let mut world = World::new();
    let mut client = world.connect();
    let hold = [("x-delayed-retry-type", text("all")), ("x-delayed-retry-min", Value::I32(10))];
    client.queue_with("q", &hold);
    for body in ["a", "b", "c", "d"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 2);
    assert_eq!(client.bodies(), ["a", "b"]);
    client.settle(1, 1, 2, Outcome::Returned);
    assert_eq!(client.bodies(), ["c", "d"]);
    world.pass(10);
    client.at(&world).settle(1, 3, 4, Outcome::Accepted);
    assert_eq!(client.bodies(), ["a", "b"]);
}

#[test]
fn messages_of_a_transaction_are_adjacent_and_in_order_in_each_queue() {
    let world = World::new();
    let (mut client, mut other) = (world.connect(), world.connect());
    for queue in ["a", "b"] {
        client.queue(queue);
    }
    other.publish("", "a", "before");
    let bodies: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    let publishes = bodies
        .iter()
        .enumerate()
        .map(|(at, body)| in_transaction("", if at % 2 == 0 { "a" } else { "b" }, body));
    client.ask(|request| {
        let publishes = publishes.collect();
        Command::Commit(Box::new(Transaction { request, publishes, settlements: Vec::new() }))
    });
    other.publish("", "a", "behind");
    let even = bodies.iter().step_by(2).cloned();
    let wanted: Vec<_> =
        ["before".to_owned()].into_iter().chain(even).chain(["behind".to_owned()]).collect();
    assert_eq!(drain(&mut client, "a"), wanted);
    let odd: Vec<_> = bodies.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(drain(&mut client, "b"), odd);
}

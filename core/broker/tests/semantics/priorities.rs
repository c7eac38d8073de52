//! Section 6: priorities.

use polymq_broker::PolicyKind;
use polymq_contract::{Outcome, RefusalKind};
use polymq_model::Value;

use crate::{
    drain, policy_on, publish_at, put_policy,
    world::{World, kind_of},
};

const LEVELS: [(&str, Value); 1] = [("x-max-priority", Value::I32(5))];

#[test]
fn a_higher_level_is_always_delivered_first() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &LEVELS);
    for (body, priority) in [("1a", 1), ("5a", 5), ("0", 0), ("1b", 1), ("5b", 5), ("3", 3)] {
        publish_at(&mut client, "q", body, Some(priority));
    }
    client.consume("q", 1, 0);
    assert_eq!(client.bodies(), ["5a", "5b", "3", "1a", "1b", "0"]);
}

#[test]
fn a_message_without_priority_is_level_0_and_above_the_highest_counts_as_the_highest() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &LEVELS);
    for (body, priority) in [("none", None), ("0", Some(0)), ("5", Some(5)), ("9", Some(9))] {
        publish_at(&mut client, "q", body, priority);
    }
    assert_eq!(drain(&mut client, "q"), ["5", "9", "none", "0"]);
}

#[test]
fn the_levels_cannot_come_from_a_policy() {
    let world = World::new();
    let policy = policy_on(".*", &[("max-priority", Value::I32(5))]);
    let refusal = put_policy(&world, PolicyKind::User, "p", policy).expect_err("refused");
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    assert!(refusal.text.contains("'max-priority'"), "{}", refusal.text);
}

#[test]
fn drop_head_removes_from_the_head_of_the_lowest_level_that_is_not_empty() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[LEVELS[0].clone(), ("x-max-length", Value::I32(3))]);
    for (body, priority) in [("5", 5), ("1a", 1), ("1b", 1), ("3", 3), ("1c", 1), ("5b", 5)] {
        publish_at(&mut client, "q", body, Some(priority));
    }
    assert_eq!(drain(&mut client, "q"), ["5", "5b", "3"]);
}

#[test]
fn returned_messages_keep_their_level_also_after_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &LEVELS);
    for (body, priority) in [("1", 1), ("5", 5), ("3", 3)] {
        publish_at(&mut client, "q", body, Some(priority));
    }
    client.consume("q", 1, 2);
    assert_eq!(client.bodies(), ["5", "3"]);
    client.settle(1, 1, 2, Outcome::Returned);
    assert_eq!(client.bodies(), ["5", "3"]);
    client.disconnect();
    let world = world.restart();
    assert_eq!(drain(&mut world.connect(), "q"), ["5", "3", "1"]);
}

#[test]
fn without_the_argument_priority_is_carried_and_has_no_effect() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    publish_at(&mut client, "q", "low", Some(0));
    publish_at(&mut client, "q", "high", Some(9));
    client.consume("q", 1, 0);
    let priorities: Vec<_> = client.deliveries().iter().map(|d| d.message.priority()).collect();
    assert_eq!(priorities, [Some(0), Some(9)]);
}

#[test]
fn levels_are_0_to_255() {
    let world = World::new();
    let mut client = world.connect();
    for (queue, max) in [("none", 0), ("most", 255)] {
        client.queue_with(queue, &[("x-max-priority", Value::I32(max))]);
        for priority in [0, 255] {
            publish_at(&mut client, queue, &priority.to_string(), Some(priority));
        }
    }
    assert_eq!(drain(&mut client, "none"), ["0", "255"]);
    assert_eq!(drain(&mut client, "most"), ["255", "0"]);
    let refused =
        crate::try_declare(&mut client, "r", &[("x-max-priority", Value::I32(256))], |_| ());
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
}

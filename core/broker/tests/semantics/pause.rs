//! Section 15: paused queues.

use polymq_contract::{Event, Outcome, PublishOutcome, RefusalKind};
use polymq_model::{Durability, Value};

use crate::{
    dead_letters_to, drain, ready, root, view, with,
    world::{Client, World, publish},
};

fn pause(world: &World, paused: bool) {
    world.broker.pause_queue(&root(), "q", paused, world.now()).unwrap();
}

fn bodies(client: &mut Client) -> Vec<String> {
    client.bodies()
}

#[test]
fn a_paused_queue_accepts_publishes_and_delivers_nothing() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 0);
    client.events();
    pause(&world, true);
    client.send(publish("", "q", "m", 1));
    let routed = PublishOutcome::Routed(Durability::Memory);
    let events = client.events();
    assert!(matches!(events[..], [Event::Confirmed { outcome, .. }] if outcome == routed));
    assert!(view(&world, "q").paused);
    pause(&world, false);
    assert_eq!(bodies(&mut client), ["m"]);
}

#[test]
fn get_on_a_paused_queue_is_empty() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "m");
    pause(&world, true);
    assert_eq!(client.get("q"), None);
    assert_eq!(ready(&world, "q"), 1);
    pause(&world, false);
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

#[test]
fn expiry_limits_and_dead_lettering_go_on_while_a_queue_is_paused() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    let both = [("x-max-length", Value::I32(2)), ("x-message-ttl", Value::I32(100))];
    client.queue_with("q", &with(&both, &dead_letters_to("dead")));
    pause(&world, true);
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    assert_eq!(drain(&mut client, "dead"), ["a"]);
    world.pass(100);
    assert_eq!(drain(client.at(&world), "dead"), ["b", "c"]);
}

#[test]
fn what_is_out_may_be_settled_while_a_queue_is_paused_and_waits_when_it_returns() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for body in ["a", "b"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 0);
    assert_eq!(bodies(&mut client), ["a", "b"]);
    pause(&world, true);
    client.settle(1, 1, 1, Outcome::Accepted);
    client.settle(1, 2, 2, Outcome::Returned);
    assert!(bodies(&mut client).is_empty());
    pause(&world, false);
    assert_eq!(bodies(&mut client), ["b"]);
}

#[test]
fn the_state_survives_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "m");
    pause(&world, true);
    let world = world.restart();
    let mut client = world.connect();
    client.consume("q", 1, 0);
    assert!(bodies(&mut client).is_empty());
    pause(&world, false);
    assert_eq!(bodies(&mut client), ["m"]);
    let world = world.restart();
    assert!(!view(&world, "q").paused);
}

#[test]
fn a_new_queue_of_the_same_name_is_not_paused() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    pause(&world, true);
    crate::delete(&mut client, "q");
    client.queue("q");
    let world = world.restart();
    assert!(!view(&world, "q").paused);
}

#[test]
fn pausing_what_is_missing_is_not_found() {
    let world = World::new();
    let refused = world.broker.pause_queue(&root(), "q", true, world.now()).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::NotFound);
}

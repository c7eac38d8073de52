//! Section 3.2: lengths and what happens beyond them.

use polymq_contract::{Event, Outcome, PublishOutcome, RefusalKind};
use polymq_model::{Durability, Value};

use polymq_model::Limits;

use crate::{
    dead_letters_to, deaths, drain, publish_of_bytes, ready, text, with,
    world::{Client, World, publish},
};

/// How publishes ended, by number.
fn outcomes(client: &mut Client) -> Vec<(u64, PublishOutcome)> {
    let confirmed = client.events().into_iter().filter_map(|event| match event {
        Event::Confirmed { first, last, outcome, .. } => Some((first, last, outcome)),
        _ => None,
    });
    let each = confirmed
        .flat_map(|(first, last, outcome)| (first..=last).map(move |number| (number, outcome)));
    let mut all: Vec<_> = each.collect();
    all.sort_by_key(|(number, _)| *number);
    all
}

const FULL: PublishOutcome = PublishOutcome::Refused(RefusalKind::Full);
const ROUTED: PublishOutcome = PublishOutcome::Routed(Durability::Memory);

#[test]
fn the_limits_of_messages_and_of_body_bytes_both_apply() {
    let world = World::new();
    let mut client = world.connect();
    let both = [("x-max-length", Value::I32(2)), ("x-max-length-bytes", Value::I32(10))];
    client.queue_with("q", &both);
    for body in ["1", "2", "3"] {
        client.publish("", "q", body);
    }
    assert_eq!(drain(&mut client, "q"), ["2", "3"]);
    for body in ["123456", "7890", "a"] {
        client.publish("", "q", body);
    }
    assert_eq!(drain(&mut client, "q"), ["7890", "a"]);
}

#[test]
fn a_message_larger_than_the_bytes_of_the_queue_pushes_everything_out_and_leaves_itself() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length-bytes", Value::I32(10))]);
    client.publish("", "q", "small");
    publish_of_bytes(&mut client, "q", 11, 0);
    assert_eq!(ready(&world, "q"), 0);
}

#[test]
fn a_length_of_0_takes_only_what_a_consumer_waits_for() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I32(0))]);
    client.publish("", "q", "nobody waits");
    assert_eq!(client.get("q"), None);
    client.consume("q", 1, 1);
    client.publish("", "q", "somebody waits");
    client.publish("", "q", "and has no room");
    assert_eq!(client.bodies(), ["somebody waits"]);
    client.settle(1, 1, 1, Outcome::Accepted);
    assert!(client.bodies().is_empty());
}

#[test]
fn only_ready_messages_count() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I32(1))]);
    client.publish("", "q", "a");
    client.consume("q", 1, 1);
    assert_eq!(client.bodies(), ["a"]);
    client.publish("", "q", "b");
    assert_eq!(ready(&world, "q"), 1);
}

#[test]
fn the_limit_is_never_passed() {
    let world = World::new();
    let mut client = world.connect();
    for overflow in ["drop-head", "reject-publish", "reject-publish-dlx"] {
        let limits = [("x-max-length", Value::I32(3)), ("x-overflow", text(overflow))];
        client.queue_with(overflow, &limits);
        client.send_all((0..100).map(|_| publish("", overflow, "m", 0)).collect());
        assert_eq!(ready(&world, overflow), 3, "{overflow}");
    }
}

#[test]
fn drop_head_dead_letters_what_it_drops_with_reason_maxlen() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    let one = [("x-max-length", Value::I32(1))];
    client.queue_with("q", &with(&one, &dead_letters_to("dead")));
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    client.consume("dead", 1, 0);
    let letters = client.deliveries();
    assert!(letters.iter().all(|letter| deaths(letter)[0].reason == "maxlen"));
    let bodies: Vec<_> = letters.iter().map(|d| crate::world::body_of(&d.message)).collect();
    assert_eq!(bodies, ["a", "b"]);
}

#[test]
fn reject_publish_refuses_and_does_not_dead_letter() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    let full = [("x-max-length", Value::I32(1)), ("x-overflow", text("reject-publish"))];
    client.queue_with("q", &with(&full, &dead_letters_to("dead")));
    client.events();
    client.send_all(vec![publish("", "q", "a", 1), publish("", "q", "b", 2)]);
    assert_eq!(outcomes(&mut client), [(1, ROUTED), (2, FULL)]);
    assert_eq!(drain(&mut client, "q"), ["a"]);
    assert_eq!(drain(&mut client, "dead"), [""; 0]);
}

#[test]
fn reject_publish_dlx_refuses_and_dead_letters() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    let full = [("x-max-length", Value::I32(1)), ("x-overflow", text("reject-publish-dlx"))];
    client.queue_with("q", &with(&full, &dead_letters_to("dead")));
    client.events();
    client.send_all(vec![publish("", "q", "a", 1), publish("", "q", "b", 2)]);
    assert_eq!(outcomes(&mut client), [(1, ROUTED), (2, FULL)]);
    client.consume("dead", 1, 0);
    let letters = client.deliveries();
    assert_eq!((letters.len(), deaths(&letters[0])[0].reason.as_str()), (1, "maxlen"));
}

#[test]
fn a_queue_that_refuses_what_is_too_much_hands_over_what_a_consumer_waits_for() {
    let world = World::new();
    for (queue, limit) in [("q", ("x-max-length", 0)), ("b", ("x-max-length-bytes", 3))] {
        let mut client = world.connect();
        let full = [(limit.0, Value::I32(limit.1)), ("x-overflow", text("reject-publish"))];
        client.queue_with(queue, &full);
        client.events();
        client.send(publish("", queue, "nobody waits", 1));
        assert_eq!(outcomes(&mut client), [(1, FULL)]);
        let mut consumer = world.connect();
        consumer.consume(queue, 1, 1);
        client.send(publish("", queue, "somebody waits", 2));
        client.send(publish("", queue, "and has no room", 3));
        assert_eq!(outcomes(&mut client), [(2, ROUTED), (3, FULL)]);
        assert_eq!(consumer.bodies(), ["somebody waits"]);
        assert_eq!(ready(&world, queue), 0);
    }
}

#[test]
fn one_refusal_makes_a_confirm_negative_while_the_other_queues_keep_their_copy() {
    let world = World::new();
    let mut client = world.connect();
    let full = [("x-max-length", Value::I32(0)), ("x-overflow", text("reject-publish"))];
    client.queue_with("full", &full);
    client.queue("free");
    client.exchange("x", "fanout");
    client.bind("x", "full", "");
    client.bind("x", "free", "");
    client.events();
    client.send(publish("x", "", "m", 1));
    assert_eq!(outcomes(&mut client), [(1, FULL)]);
    assert_eq!(drain(&mut client, "free"), ["m"]);
}

#[test]
fn room_that_comes_free_is_used_again() {
    let world = World::new();
    let mut client = world.connect();
    let full = [("x-max-length", Value::I32(1)), ("x-overflow", text("reject-publish"))];
    client.queue_with("q", &full);
    client.events();
    client.send(publish("", "q", "a", 1));
    client.send(publish("", "q", "b", 2));
    assert_eq!(outcomes(&mut client), [(1, ROUTED), (2, FULL)]);
    assert_eq!(client.get("q").as_deref(), Some("a"));
    client.send(publish("", "q", "c", 3));
    assert_eq!(outcomes(&mut client), [(3, ROUTED)]);
}

#[test]
fn the_limit_holds_after_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I32(2))]);
    for body in ["a", "b"] {
        client.publish("", "q", body);
    }
    let world = world.restart();
    let mut client = world.connect();
    client.publish("", "q", "c");
    assert_eq!(drain(&mut client, "q"), ["b", "c"]);
}

#[test]
fn what_is_left_by_a_lower_limit_expires_in_time() {
    let few = Limits { queue_messages_in_memory_max: 8, ..Limits::default() };
    let mut world = World::with_limits(few);
    let mut client = world.connect();
    client.queue("q");
    let message = |body: &str, durable| {
        let mut new = crate::world::message("", "q", body);
        new.durable = durable;
        new.deadline_ms = if body == "brief" { 1_000_050 } else { 0 };
        crate::world::publish_of(new.build(&mut Vec::new()), 0)
    };
    client.send(message("m", false));
    client.send_all((0..3).map(|_| message("m", false)).collect());
    client.send_all((0..5).map(|_| message("m", true)).collect());
    let last = ["m", "m", "m", "brief", "m"];
    client.send_all(last.iter().map(|body| message(body, true)).collect());
    crate::set_policy(&world, &[("max-length", Value::I32(2))]);
    assert_eq!(ready(&world, "q"), 2);
    world.pass(50);
    assert_eq!(ready(&world, "q"), 1, "nobody has touched the queue since");
}

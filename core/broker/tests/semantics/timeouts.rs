//! Section 3.4: how long a consumer may take.

use std::time::Duration;

use polymq_broker::PolicyKind;
use polymq_contract::{CancelReason, Command, Consume, Event, Outcome, RefusalKind};
use polymq_model::{ConsumerId, Limits, Value};

use crate::{
    exists, policy_on, put_policy, ready, set_policy, text, try_declare,
    world::{Client, World, consume_of, kind_of, session},
};

const SECOND: [(&str, Value); 1] = [("x-consumer-timeout", Value::I32(1000))];

fn consume_for(client: &mut Client, timeout: Value) {
    let mut consume = consume_of("q", 1, 0);
    consume.arguments = vec![("x-consumer-timeout".to_owned(), timeout)];
    client.ask(|request| Command::Consume(Box::new(Consume { request, ..consume })));
}

fn is_cancelled(client: &mut Client) -> bool {
    client.events().iter().any(|event| {
        matches!(event, Event::ConsumerCancelled { reason: CancelReason::Timeout, .. })
    })
}

/// Publishes one message to a consumer, and lets time pass twice; returns whether the consumer was
/// cancelled after each.
fn cancelled_after(
    world: &mut World,
    client: &mut Client,
    first_ms: u64,
    more_ms: u64,
) -> [bool; 2] {
    client.at(world).publish("", "q", "m");
    world.pass(first_ms);
    let early = is_cancelled(client);
    world.pass(more_ms);
    [early, is_cancelled(client)]
}

#[test]
fn a_delivery_not_settled_in_time_returns_as_acquired_and_its_consumer_is_cancelled() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &SECOND);
    client.consume("q", 1, 0);
    assert_eq!(cancelled_after(&mut world, &mut client, 900, 300), [false, true]);
    let mut other = world.connect();
    other.consume("q", 1, 0);
    let again = other.deliveries().remove(0);
    assert_eq!((again.acquired, again.failed), (1, 0));
}

#[test]
fn a_timeout_comes_in_time_though_something_else_is_due_much_later() {
    let mut world = World::new();
    let mut client = world.connect();
    let lasting = [("x-consumer-timeout", Value::I32(1000)), ("x-message-ttl", Value::I32(60_000))];
    client.queue_with("q", &lasting);
    for body in ["delivered", "waiting for a minute"] {
        client.at(&world).publish("", "q", body);
    }
    client.consume("q", 1, 1);
    world.pass(900);
    assert!(!is_cancelled(&mut client));
    world.pass(300);
    assert!(is_cancelled(&mut client));
}

#[test]
fn settling_in_time_keeps_the_consumer() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &SECOND);
    client.consume("q", 1, 0);
    for number in 1..=5 {
        client.at(&world).publish("", "q", "m");
        world.pass(700);
        client.at(&world).settle(1, number, number, Outcome::Accepted);
        assert!(!is_cancelled(&mut client));
    }
    world.pass(60_000);
    assert!(!is_cancelled(&mut client), "an idle consumer owes nothing");
}

#[test]
fn the_timeout_is_off_for_classic_queues_and_30_minutes_for_quorum_queues() {
    let minute = 60_000;
    for (kind, wanted) in [("classic", [false, false]), ("quorum", [false, true])] {
        let mut world = World::new();
        let mut client = world.connect();
        client.queue_with("q", &[("x-queue-type", text(kind))]);
        client.consume("q", 1, 0);
        let found = cancelled_after(&mut world, &mut client, 29 * minute, 2 * minute);
        assert_eq!(found, wanted, "{kind}");
    }
}

fn with_global(consumer_timeout: Option<Duration>) -> Limits {
    Limits { consumer_timeout, ..Limits::default() }
}

#[test]
fn the_global_timeout_holds_where_nobody_says_another() {
    let minute = 60_000;
    let (short, off) = (Some(Duration::from_secs(1)), Some(Duration::ZERO));
    for (kind, global, own, wanted) in [
        ("classic", short, None, [false, true]),
        ("quorum", short, None, [false, true]),
        ("quorum", off, None, [false, false]),
        ("classic", off, None, [false, false]),
        ("classic", short, Some(0), [false, false]),
        ("quorum", off, Some(1000), [false, true]),
    ] {
        let mut world = World::with_limits(with_global(global));
        let mut client = world.connect();
        let own = own.map(|ms| ("x-consumer-timeout", Value::I32(ms)));
        let arguments: Vec<_> = own.into_iter().chain([("x-queue-type", text(kind))]).collect();
        client.queue_with("q", &arguments);
        client.consume("q", 1, 0);
        let found = cancelled_after(&mut world, &mut client, 900, 31 * minute);
        assert_eq!(found, wanted, "{kind} {global:?} {arguments:?}");
    }
}

#[test]
fn another_global_timeout_counts_for_what_is_out_and_after_a_restart() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 0);
    assert_eq!(cancelled_after(&mut world, &mut client, 10_000, 0), [false, false]);
    let short = with_global(Some(Duration::from_secs(1)));
    world.broker.set_limits(short.clone().into());
    world.pass(900);
    assert!(!is_cancelled(&mut client));
    world.pass(300);
    assert!(is_cancelled(&mut client));
    world.broker.set_limits(Limits::default().into());
    client.consume("q", 2, 0);
    assert_eq!(cancelled_after(&mut world, &mut client, 10_000, 0), [false, false]);
    let mut world = world.restart_with(short);
    let mut client = world.connect();
    client.at(&world).consume("q", 1, 0);
    assert_eq!(cancelled_after(&mut world, &mut client, 900, 300), [false, true]);
}

#[test]
fn a_client_session_keeps_what_its_client_has_not_finished() {
    let mut world = World::with_limits(with_global(Some(Duration::from_secs(1))));
    let mut client = world.connect();
    client.open(session("s", true, 0));
    client.subscribe("a", 1);
    client.at(&world).publish("amq.topic", "a", "m");
    assert_eq!(client.bodies(), ["m"]);
    world.pass(10_000);
    assert!(!is_cancelled(&mut client));
}

#[test]
fn a_timeout_of_0_is_off() {
    let mut world = World::new();
    let mut client = world.connect();
    let off = [("x-queue-type", text("quorum")), ("x-consumer-timeout", Value::I32(0))];
    client.queue_with("q", &off);
    client.consume("q", 1, 0);
    assert_eq!(cancelled_after(&mut world, &mut client, 10_000_000, 0), [false, false]);
}

#[test]
fn a_consumer_may_ask_for_a_timeout_of_its_own() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    consume_for(&mut client, Value::I32(1000));
    assert_eq!(cancelled_after(&mut world, &mut client, 900, 300), [false, true]);

    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &SECOND);
    consume_for(&mut client, text("5000"));
    assert_eq!(cancelled_after(&mut world, &mut client, 4900, 300), [false, true]);

    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &SECOND);
    consume_for(&mut client, Value::I32(0));
    assert_eq!(cancelled_after(&mut world, &mut client, 900_000, 0), [false, false]);
}

#[test]
fn an_operator_bounds_the_timeout_of_consumers_and_of_queues_that_turn_it_off() {
    for own in [None, Some(0), Some(50_000)] {
        let mut world = World::new();
        let mut client = world.connect();
        client.queue_with("q", &[("x-consumer-timeout", Value::I32(0))]);
        let record = policy_on(".*", &[("consumer-timeout", Value::I32(1000))]);
        put_policy(&world, PolicyKind::Operator, "o", record).unwrap();
        match own {
            None => client.consume("q", 1, 0),
            Some(ms) => consume_for(&mut client, Value::I32(ms)),
        }
        assert_eq!(cancelled_after(&mut world, &mut client, 900, 300), [false, true], "{own:?}");
    }
}

#[test]
fn a_timeout_that_is_set_while_a_delivery_is_out_counts_from_then_on() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 0);
    client.publish("", "q", "m");
    world.pass(5000);
    set_policy(&world, &[("consumer-timeout", Value::I32(1000))]);
    world.pass(900);
    assert!(!is_cancelled(&mut client));
    world.pass(300);
    assert!(is_cancelled(&mut client));
}

#[test]
fn what_was_got_is_taken_back_in_time_too() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &SECOND);
    client.publish("", "q", "m");
    client.ask(|request| Command::Get {
        request,
        queue: "q".to_owned(),
        no_ack: false,
        consumer: ConsumerId(5),
    });
    assert_eq!(ready(&world, "q"), 0);
    world.pass(1200);
    assert_eq!(ready(&world, "q"), 1);
}

#[test]
fn the_next_consumer_takes_over_and_an_auto_delete_queue_without_one_goes() {
    let mut world = World::new();
    let mut client = world.connect();
    try_declare(&mut client, "q", &SECOND, |declare| declare.auto_delete = true).unwrap();
    client.consume("q", 1, 0);
    client.publish("", "q", "m");
    world.pass(1200);
    assert!(!exists(&world, "q"));
}

#[test]
fn a_timeout_of_a_consumer_is_a_number_of_0_or_more() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for wrong in [Value::I32(-1), text("soon")] {
        let mut consume = consume_of("q", 1, 0);
        consume.arguments = vec![("x-consumer-timeout".to_owned(), wrong)];
        let refused =
            client.try_ask(|request| Command::Consume(Box::new(Consume { request, ..consume })));
        assert_eq!(kind_of(refused), RefusalKind::Invalid);
    }
}

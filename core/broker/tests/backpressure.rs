//! Publishers that have to wait: for the disk, for memory, for their virtual host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::VhostLimits;
use polymq_contract::{Command, Event, Outcome, PublishOutcome, RefusalKind, Transaction};
use polymq_model::{RequestId, VhostName};
use world::{World, message, publish, publish_of};

#[test]
fn a_publisher_without_confirms_waits_for_the_disk_too() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    world.store.faults().delay_replies(true);
    let body = "x".repeat(64 * 1024);
    let mut sent = 0;
    while client.may_read() {
        let large = message("", "q", &body).build(&mut Vec::new());
        client.send(publish_of(large, 0));
        sent += 1;
        assert!(sent < 100, "nothing bounds the publisher");
    }
    client.events();
    world.store.release();
    assert!(client.outbox.take_nudge(), "the task is asked to look again");
    assert!(client.may_read());
}

fn blocked(event: &Event) -> Option<&str> {
    match event {
        Event::Blocked { reason } => Some(reason),
        _ => None,
    }
}

#[test]
fn an_alarm_blocks_all_that_publish_and_lets_consumers_go_on() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "before");
    client.consume("q", 1, 1);
    assert_eq!(client.bodies(), ["before"]);
    world.broker.set_alarm(Some("no space"));
    // The alarm is told once, however often somebody publishes.
    client.send(publish("", "q", "parked", 1));
    client.send(publish("", "q", "parked too", 2));
    let events = client.events();
    assert_eq!(events.iter().filter_map(blocked).collect::<Vec<_>>(), ["no space"]);
    assert_eq!(events.len(), 1, "{events:?}");
    // A client that publishes and consumes on one connection can make room.
    assert!(client.may_read());
    client.settle(1, 1, 1, Outcome::Accepted);
    assert!(client.events().is_empty());
    world.broker.set_alarm(None);
    world.pass(100);
    let events = client.events();
    assert!(matches!(events[0], Event::Unblocked), "{events:?}");
    let delivered = events.iter().find_map(|event| match event {
        Event::Delivered(delivery) => Some(world::body_of(&delivery.message)),
        _ => None,
    });
    assert_eq!(delivered.as_deref(), Some("parked"));
    let confirmed = events.iter().any(|event| matches!(event, Event::Confirmed { .. }));
    assert!(confirmed, "{events:?}");
    client.settle(1, 2, 2, Outcome::Accepted);
    assert_eq!(client.bodies(), ["parked too"]);
}

#[test]
fn a_blocked_publisher_is_not_read_from_beyond_its_budget() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    world.broker.set_alarm(Some("no space"));
    let body = "x".repeat(64 * 1024);
    let mut sent = 0;
    while client.may_read() {
        client.send(publish_of(message("", "q", &body).build(&mut Vec::new()), 0));
        sent += 1;
        assert!(sent < 100, "nothing bounds the publisher");
    }
    world.broker.set_alarm(None);
    world.pass(100);
    client.events();
    assert!(client.may_read());
    assert_eq!(world.broker.queues()[0].counts.ready, sent);
}

#[test]
fn a_publish_that_is_blocked_for_too_long_is_refused() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    world.broker.set_alarm(Some("no space"));
    client.send(publish("", "q", "with a confirm", 1));
    client.send(publish("", "q", "without", 0));
    client.events();
    world.pass(29_999);
    assert!(client.at(&world).events().is_empty());
    world.pass(1);
    let mut events = client.at(&world).events();
    events.extend(client.events());
    let refused = PublishOutcome::Refused(RefusalKind::Full);
    let is_nack =
        |event: &Event| matches!(event, Event::Confirmed { outcome, .. } if *outcome == refused);
    assert!(events.iter().any(is_nack), "{events:?}");
    let refusal = events.iter().find_map(|event| match event {
        Event::PublishRefused { refusal, number: 0, .. } => Some(refusal.text.clone()),
        _ => None,
    });
    assert_eq!(refusal.as_deref(), Some("the publish was blocked for 30 s: no space"));
    world.broker.set_alarm(None);
    world.pass(100);
    assert_eq!(client.get("q"), None);
}

#[test]
fn a_blocked_publisher_that_goes_away_leaves_nothing() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    world.broker.set_alarm(Some("no space"));
    client.publish("", "q", "m");
    client.disconnect();
    world.broker.set_alarm(None);
    world.pass(100);
    assert_eq!(world.broker.queues()[0].counts.ready, 0);
}

#[test]
fn a_vhost_above_its_high_mark_blocks_its_own_publishers_until_a_lower_one() {
    let mut world = World::new();
    let vhost = VhostName::new("/").unwrap();
    let mut client = world.connect();
    client.queue("q");
    let limits = VhostLimits { bytes_high: Some(1000), ..VhostLimits::default() };
    world.broker.set_vhost_limits(&vhost, limits).unwrap();
    let hundred = "x".repeat(100);
    for _ in 0..11 {
        client.publish("", "q", &hundred);
    }
    world.pass(1000);
    let events = client.at(&world).events();
    let reason = events.iter().find_map(blocked).expect("it is told");
    assert_eq!(reason, "vhost '/' holds 1100 bytes, its high mark is 1000");
    client.publish("", "q", "parked");
    let mut consumer = world.connect();
    // 1000 bytes are below the mark, but not below the one at which publishers go on.
    consumer.get("q");
    world.pass(1000);
    assert_eq!(world.broker.queues()[0].counts.ready, 10);
    assert!(client.events().is_empty());
    consumer.get("q");
    world.pass(1000);
    world.pass(100);
    assert!(matches!(client.events()[0], Event::Unblocked));
    assert_eq!(world.broker.queues()[0].counts.ready, 10);
}

#[test]
fn a_transaction_waits_as_a_whole() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    world.broker.set_alarm(Some("no space"));
    let Command::Publish(first) = publish("", "q", "m", 0) else { panic!() };
    client.send(Command::Commit(Box::new(Transaction {
        request: RequestId(500),
        publishes: vec![first],
        settlements: Vec::new(),
    })));
    assert!(client.answer_to(RequestId(500)).is_none());
    world.broker.set_alarm(None);
    world.pass(100);
    client.events();
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

//! How many retained messages a virtual host keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::{RetainedAmount, VhostLimits};
use polymq_contract::{Command, Event, RefusalKind, Transaction};
use polymq_model::{RequestId, VhostName};
use world::{Client, World, message, publish_of, session, will};

fn root() -> VhostName {
    VhostName::new("/").unwrap()
}

fn limit(world: &World, count: Option<u64>, bytes: Option<u64>) {
    let limits = VhostLimits {
        retained_count_max: count,
        retained_bytes_max: bytes,
        ..VhostLimits::default()
    };
    world.broker.set_vhost_limits(&root(), limits).unwrap();
}

fn retained(key: &str, body: &str, deadline_ms: u64) -> Command {
    let mut kept = message("amq.topic", key, body);
    (kept.retain, kept.deadline_ms) = (true, deadline_ms);
    publish_of(kept.build(&mut Vec::new()), 1)
}

/// Why a retained message was refused.
fn refusal(client: &mut Client, key: &str, body: &str) -> Option<String> {
    client.events();
    client.send(retained(key, body, 0));
    refused(client)
}

fn refused(client: &mut Client) -> Option<String> {
    client.events().into_iter().find_map(|event| match event {
        Event::PublishRefused { refusal, .. } => {
            assert_eq!(refusal.kind, RefusalKind::Limit);
            Some(refusal.text)
        }
        _ => None,
    })
}

fn held(world: &World) -> RetainedAmount {
    world.broker.vhosts()[0].retained
}

/// The keys and bodies that a new subscription is sent.
fn kept(world: &World) -> Vec<(String, String)> {
    let mut client = world.connect();
    client.open(session("reader", true, 0));
    client.subscribe("#", 0);
    let deliveries = client.deliveries();
    let found = deliveries.iter().map(|d| (d.message.key().to_owned(), world::body_of(&d.message)));
    let found = found.collect();
    client.disconnect();
    found
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, body)| ((*key).to_owned(), (*body).to_owned())).collect()
}

#[test]
fn a_retained_message_beyond_the_count_is_refused_and_goes_nowhere() {
    let world = World::new();
    limit(&world, Some(2), None);
    let mut client = world.connect();
    client.queue("q");
    client.bind("amq.topic", "q", "#");
    assert_eq!(refusal(&mut client, "a", "1"), None);
    assert_eq!(refusal(&mut client, "b", "1"), None);
    let text = refusal(&mut client, "c", "1").unwrap();
    assert!(text.contains("retained-max-count is 2") && text.contains("'/'"), "{text}");
    assert_eq!(kept(&world), pairs(&[("a", "1"), ("b", "1")]));
    assert_eq!(world.broker.queues()[0].counts.ready, 2);
    let counted = world.broker.counters().refusals().find(|(kind, _)| *kind == RefusalKind::Limit);
    assert_eq!(counted.unwrap().1, 1);
}

#[test]
fn what_replaces_or_removes_a_value_is_not_one_more() {
    let world = World::new();
    limit(&world, Some(1), None);
    let mut client = world.connect();
    for (key, body) in [("a", "1"), ("a", "2"), ("none", ""), ("a", ""), ("b", "1")] {
        assert_eq!(refusal(&mut client, key, body), None, "{key} {body}");
    }
    assert_eq!(kept(&world), pairs(&[("b", "1")]));
    assert_eq!(held(&world).count, 1);
}

#[test]
fn bytes_of_values_count_as_they_come_and_go() {
    let mut world = World::new();
    let mut client = world.connect();
    assert_eq!(refusal(&mut client, "a", &"m".repeat(10_000)), None);
    let one = held(&world).bytes;
    assert!((10_000..11_000).contains(&one), "{one}");
    limit(&world, None, Some(one));
    let text = refusal(&mut client, "b", "1").unwrap();
    assert!(text.contains(&format!("retained-max-bytes is {one}")), "{text}");
    assert!(refusal(&mut client, "a", &"m".repeat(10_001)).is_some());
    assert_eq!(refusal(&mut client, "a", &"n".repeat(10_000)), None);
    // Below what is there, values may still shrink.
    limit(&world, Some(0), Some(0));
    assert_eq!(refusal(&mut client, "a", &"o".repeat(9_000)), None);
    assert!(refusal(&mut client, "a", &"o".repeat(9_001)).is_some());
    assert_eq!(refusal(&mut client, "a", ""), None);
    assert_eq!(held(&world), RetainedAmount::default());
    limit(&world, Some(2), None);
    client.send(retained("short", "m", world.now().unix_ms + 5));
    let who = world.log_in("guest").unwrap();
    assert_eq!(refusal(&mut client, "b", "1"), None);
    world.broker.forget_retained(&who, &root(), "b", world.now()).unwrap();
    world.pass(10);
    world.broker.publish_statistics(1, "0", world.now());
    assert_eq!(held(&world), RetainedAmount::default());
}

#[test]
fn statistics_of_the_broker_count_against_no_limit() {
    let world = World::new();
    limit(&world, Some(1), Some(10_000));
    world.broker.publish_statistics(1, "0", world.now());
    assert_eq!(held(&world), RetainedAmount::default());
    let mut client = world.connect();
    assert_eq!(refusal(&mut client, "a", "1"), None);
    assert!(refusal(&mut client, "$SYS.mine", "1").is_some());
    assert!(world.broker.session_counts().1 > 1);
}

#[test]
fn values_and_their_limits_come_back_whole_after_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    for key in ["a", "b", "c"] {
        assert_eq!(refusal(&mut client, key, "1"), None);
    }
    limit(&world, Some(2), None);
    let before = held(&world);
    let world = world.restart();
    assert_eq!(held(&world), before);
    let mut client = world.connect();
    assert!(refusal(&mut client, "d", "1").is_some());
    assert_eq!(kept(&world), pairs(&[("a", "1"), ("b", "1"), ("c", "1")]));
}

#[test]
fn a_transaction_keeps_all_its_values_or_none() {
    let world = World::new();
    limit(&world, Some(2), None);
    let mut client = world.connect();
    client.queue("q");
    client.bind("amq.topic", "q", "#");
    assert_eq!(refusal(&mut client, "a", "1"), None);
    let mut commit = |values: &[(&str, &str)]| {
        let publishes = values.iter().map(|(key, body)| match retained(key, body, 0) {
            Command::Publish(publish) => publish,
            _ => unreachable!("a publish"),
        });
        let publishes = publishes.collect();
        client
            .try_ask(|request: RequestId| {
                let settlements = Vec::new();
                Command::Commit(Box::new(Transaction { request, publishes, settlements }))
            })
            .err()
            .map(|refusal| refusal.kind)
    };
    let ready = || world.broker.queues()[0].counts.ready;
    assert_eq!(commit(&[("a", "2"), ("b", "2"), ("c", "2")]), Some(RefusalKind::Limit));
    assert_eq!((kept(&world), ready()), (pairs(&[("a", "1")]), 1));
    assert_eq!(commit(&[("b", "3"), ("a", ""), ("c", "3"), ("b", "4")]), None);
    let wanted = pairs(&[("b", "4"), ("c", "3")]);
    assert_eq!((kept(&world), ready()), (wanted.clone(), 5));
    assert_eq!(kept(&world.restart()), wanted);
}

#[test]
fn a_will_beyond_the_limit_is_delivered_and_not_kept() {
    let mut world = World::new();
    limit(&world, Some(0), None);
    let mut watcher = world.connect();
    watcher.open(session("w", true, 0));
    watcher.subscribe("will", 0);
    let mut gone = message("amq.topic", "will", "gone");
    gone.retain = true;
    let mut open = session("s", true, 0);
    open.will = will(gone.build(&mut Vec::new()), 0);
    let mut client = world.connect();
    client.open(open);
    client.disconnect();
    world.pass(1);
    assert_eq!(watcher.bodies(), ["gone"]);
    assert_eq!(kept(&world), []);
}

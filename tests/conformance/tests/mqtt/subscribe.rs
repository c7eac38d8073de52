use polymq_contract::{Answer, Command, RefusalKind, Subscription, SubscriptionTarget};
use polymq_model::{ConsumerId, Limits};

use crate::world::*;

fn subscriptions(world: &mut World) -> Vec<(Subscription, bool)> {
    let only = |command| match command {
        Command::Subscribe { subscription, resume, .. } => (*subscription, resume),
        other => panic!("{other:?}"),
    };
    world.commands().into_iter().map(only).collect()
}

fn topic(exchange: &str, pattern: &str) -> SubscriptionTarget {
    SubscriptionTarget::Topic { exchange: exchange.to_owned(), pattern: pattern.to_owned() }
}

#[test] // [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-6]
fn suback_has_a_code_per_filter_in_order() {
    let mut world = World::v4();
    world.send(&subscribe_4(7, &[("a/+", 2), ("b.c/#", 0), ("$queue/a%2Fb", 1)]));
    assert_eq!(world.sent(), [0x90, 5, 0, 7, 2, 0, 1]);
    let made = subscriptions(&mut world);
    assert_eq!(made[0].0.target, topic("amq.topic", "a.+"));
    assert_eq!(made[1].0.target, topic("amq.topic", "b/c.#"));
    assert_eq!(made[2].0.target, SubscriptionTarget::Queue { queue: "a/b".to_owned() });
    let consumers: Vec<_> = made.iter().map(|(made, _)| made.consumer.0).collect();
    assert_eq!(consumers, [0, 0, 2]);
}

#[test]
fn suback_waits_for_the_broker_and_later_packets_wait_for_suback() {
    let mut world = World::v5();
    world.obliging = false;
    world.send(&[subscribe_5(7, &[], &[("a", 0), ("b", 1)]), vec![0xC0, 0]].concat());
    let requests: Vec<_> = world
        .commands()
        .iter()
        .map(|command| match command {
            Command::Subscribe { request, .. } => *request,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(world.sent().is_empty());
    world.answer(requests[0], Ok(Answer::Subscribed { existed: false }));
    assert!(world.sent().is_empty());
    world.refuse(requests[1], RefusalKind::Denied);
    assert_eq!(world.sent(), [0x90, 5, 0, 7, 0, 0, 0x87, 0xD0, 0]);
}

#[test] // Section 3.9.3, and the older versions.
fn refused_filters_have_the_code_of_their_version() {
    for (kind, code) in [(RefusalKind::NotFound, 0x8F), (RefusalKind::Limit, 0x97)] {
        let mut world = World::v5();
        world.obliging = false;
        world.send(&subscribe_5(7, &[], &[("a", 0)]));
        let Command::Subscribe { request, .. } = world.commands().remove(0) else { panic!() };
        world.refuse(request, kind);
        assert_eq!(world.sent(), [0x90, 4, 0, 7, 0, code]);
    }
    let mut world = World::v4();
    world.send(&subscribe_4(7, &[("$other/x", 0), ("a", 1)]));
    assert_eq!(world.sent(), [0x90, 4, 0, 7, 0x80, 1]);
    let mut world = v31();
    world.send(&subscribe_4(7, &[("$other/x", 0)]));
    world.expect_close();
}

#[test] // Section 3.8.3.1
fn options_reach_the_broker() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[0x0B, 0x80, 0x01], &[("a", 0x2E)]));
    let (made, resume) = subscriptions(&mut world).remove(0);
    assert_eq!((made.qos, made.no_local, made.retain_as_published), (2, true, true));
    assert_eq!((made.retain_handling, made.id, resume), (2, Some(128), false));
}

#[test] // [MQTT-3.8.3-2], [MQTT-3.8.3-4], [MQTT-3.8.3-5], section 3.8.3.1
fn malformed_subscribes_end_the_connection() {
    let no_filter = packet(0x82, &[0, 7, 0]);
    for (bytes, reason) in [
        (no_filter, 0x82),
        (subscribe_5(0, &[], &[("a", 0)]), 0x82),
        (subscribe_5(7, &[], &[("a", 3)]), 0x82),
        (subscribe_5(7, &[], &[("a", 0x30)]), 0x82),
        (subscribe_5(7, &[], &[("a", 0x40)]), 0x81),
        (subscribe_5(7, &[], &[("$share/g/a", 4)]), 0x82),
        (subscribe_5(7, &[0x0B, 0], &[("a", 0)]), 0x82),
        (subscribe_5(7, &[0x0B, 1, 0x0B, 2], &[("a", 0)]), 0x82),
        (subscribe_5(7, &[], &[("", 0)]), 0x81),
        (packet(0x80, &[&[0, 7, 0][..], &text("a"), &[0]].concat()), 0x81),
    ] {
        let mut world = World::v5();
        world.send(&bytes);
        world.expect_disconnect(reason);
    }
}

#[test] // [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
fn malformed_filters_end_the_connection() {
    for filter in ["a/#/b", "a#", "a+/b", "$share/g", "$share//a", "$share/g+/a", "$share/g/"] {
        let mut world = World::v5();
        world.send(&subscribe_5(7, &[], &[(filter, 0)]));
        world.expect_disconnect(0x81);
        let mut world = World::v4();
        world.send(&subscribe_4(7, &[(filter, 0)]));
        world.expect_close();
    }
}

#[test]
fn filters_of_the_server_are_told_apart() {
    let mut world = World::v5();
    let filters = [("$SYS/#", 0), ("$exchange/logs/app/#", 1), ("$delayed/1/a", 0), ("$x", 0)];
    world.send(&subscribe_5(7, &[], &filters));
    assert_eq!(world.sent(), [0x90, 7, 0, 7, 0, 0, 1, 0x8F, 0x8F]);
    let made = subscriptions(&mut world);
    assert_eq!(made[0].0.target, topic("amq.topic", "$SYS.#"));
    assert_eq!(made[1].0.target, topic("logs", "app.#"));
}

#[test] // share_is_a_queue
fn share_is_a_queue_named_by_its_text() {
    let mut world = World::v5();
    let long = format!("$share/g/{}", "x".repeat(300));
    world.send(&subscribe_5(7, &[], &[("$share/g/jobs/#", 1), (&long[..], 1)]));
    let made = subscriptions(&mut world);
    let SubscriptionTarget::Share { queue, exchange, pattern } = &made[0].0.target else {
        panic!()
    };
    assert_eq!(
        (&queue[..], &exchange[..], &pattern[..]),
        ("$share/g/jobs/#", "amq.topic", "jobs.#")
    );
    let SubscriptionTarget::Share { queue, .. } = &made[1].0.target else { panic!() };
    assert!(queue.starts_with("$share/g/sha256-"));
    assert_eq!(queue.len(), "$share/g/sha256-".len() + 64);
    assert_eq!((made[0].0.consumer, made[1].0.consumer), (ConsumerId(2), ConsumerId(3)));
}

#[test] // [MQTT-3.8.4-3]
fn same_filter_replaces_its_subscription() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[], &[("$queue/q", 1)]));
    world.send(&subscribe_5(8, &[], &[("$queue/q", 0)]));
    let consumers: Vec<_> = subscriptions(&mut world).iter().map(|(s, _)| s.consumer.0).collect();
    assert_eq!(consumers, [2, 2]);
}

#[test]
fn subscriptions_are_limited() {
    let mut world = World::with_limits(Limits { subscriptions_max: 2, ..Limits::default() });
    world.connect_5(&[]);
    world.send(&subscribe_5(7, &[], &[("a", 0), ("b", 0), ("c", 0), ("a", 1)]));
    assert_eq!(world.sent(), [0x90, 7, 0, 7, 0, 0, 0, 0x97, 1]);
}

#[test] // [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.10.4-6]
fn unsuback_has_a_code_per_filter_in_version_5() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[], &[("a", 0)]));
    world.sent();
    world.send(&packet(0xA2, &[vec![0, 8, 0], text("a"), text("b")].concat()));
    assert_eq!(world.sent(), [0xB0, 5, 0, 8, 0, 0, 0x11]);
    let mut world = World::v4();
    world.send(&packet(0xA2, &[vec![0, 8], text("a"), text("b")].concat()));
    assert_eq!(world.sent(), [0xB0, 2, 0, 8]);
}

#[test] // [MQTT-3.10.3-2], [MQTT-3.10.1-1]
fn malformed_unsubscribes_end_the_connection() {
    let reserved = packet(0xA0, &[vec![0, 8, 0], text("a")].concat());
    let no_id = packet(0xA2, &[vec![0, 0, 0], text("a")].concat());
    for (bytes, reason) in [(packet(0xA2, &[0, 8, 0]), 0x82), (reserved, 0x81), (no_id, 0x82)] {
        let mut world = World::v5();
        world.send(&bytes);
        world.expect_disconnect(reason);
    }
}

#[test]
fn queues_and_shares_of_an_earlier_connection_go_on() {
    let mut first = World::v5();
    first.send(&subscribe_5(7, &[], &[("a", 1), ("$queue/q", 1), ("$share/g/b", 1)]));
    let subscriptions_then: Vec<_> = subscriptions(&mut first).into_iter().map(|s| s.0).collect();
    let mut world = World::new();
    world.remembered.present = true;
    world.remembered.subscriptions = subscriptions_then.clone();
    world.send(&connect_5("c", &[]));
    let resumed: Vec<_> = world
        .commands()
        .into_iter()
        .filter_map(|command| match command {
            Command::Subscribe { subscription, resume: true, .. } => Some(*subscription),
            _ => None,
        })
        .collect();
    assert_eq!(resumed, subscriptions_then[1..]);
    // New consumers do not collide with the old ones.
    world.send(&subscribe_5(8, &[], &[("$queue/r", 1)]));
    assert_eq!(subscriptions(&mut world)[0].0.consumer, ConsumerId(4));
}

#[test]
fn subscription_that_cannot_go_on_ends_one_connection_only() {
    let mut first = World::v5();
    first.send(&subscribe_5(7, &[], &[("$queue/q", 1)]));
    let subscription = subscriptions(&mut first).remove(0).0;
    let mut world = World::new();
    world.refuses_resumed = Some(RefusalKind::NotFound);
    world.remembered.present = true;
    world.remembered.subscriptions = vec![subscription];
    world.send(&connect_5("c", &[]));
    let forgotten = |command: &Command| match command {
        Command::Unsubscribe { filter, .. } => filter == "$queue/q",
        _ => false,
    };
    assert!(world.commands().iter().any(forgotten));
    let sent = world.sent();
    assert_eq!(sent[0], 0x20);
    let disconnect = usize::from(sent[1]) + 2;
    assert_eq!((sent[disconnect], sent[disconnect + 2]), (0xE0, 0x98));
    assert!(world.is_closed());
}

#[test] // [MQTT-3.1.2-24]
fn an_answer_that_the_client_cannot_take_ends_the_connection() {
    let filters = vec![("a", 0); 59];
    let mut world = World::v5_with(&[0x27, 0, 0, 0, 63]);
    world.send(&subscribe_5(7, &[], &filters));
    world.expect_disconnect(0x95);
    let mut world = World::v5_with(&[0x27, 0, 0, 0, 63]);
    let names: Vec<u8> = filters.iter().flat_map(|(filter, _)| text(filter)).collect();
    world.send(&packet(0xA2, &[&[0, 7, 0][..], &names].concat()));
    world.expect_disconnect(0x95);
    let mut world = World::v5_with(&[0x27, 0, 0, 0, 64]);
    world.send(&subscribe_5(7, &[], &filters));
    assert_eq!(world.sent().len(), 64);
}

#[test] // Section 3.8 of MQTT 3.1
fn a_subscription_that_mqtt_3_1_is_not_permitted_is_acknowledged() {
    let mut world = v31();
    world.obliging = false;
    world.send(&subscribe_4(7, &[("a", 1)]));
    let Command::Subscribe { request, .. } = world.commands().remove(0) else { panic!() };
    world.refuse(request, RefusalKind::Denied);
    assert_eq!(world.sent(), [0x90, 3, 0, 7, 0]);
}

use std::time::Duration;

use polymq_contract::{Command, Event, PublishOutcome::*, Refusal, RefusalKind};
use polymq_model::{Durability, Limits, PublisherId, delay::Delay};

use crate::world::*;

#[test]
fn publish_becomes_a_message() {
    let mut world = World::v4();
    world.send(&publish_4(1, "a.b/c", 0, b"hi"));
    let publish = world.publishes().remove(0);
    assert_eq!((publish.number, publish.received), (0, None));
    let message = publish.message;
    assert_eq!((message.exchange(), message.key()), ("amq.topic", "a/b.c"));
    assert_eq!((message.body(), message.qos(), message.retain()), (&b"hi"[..], 0, true));
    assert!(!message.is_durable());
    assert_eq!(message.format().name, "mqtt311");
}

#[test] // Long payloads take another way through the read buffer.
fn long_publish_between_short_ones_keeps_its_place() {
    let mut world = World::v4();
    let long = vec![9; 10_000];
    let bytes =
        [publish_4(0, "a", 0, b"1"), publish_4(0, "a", 0, &long), publish_4(0, "a", 0, b"2")];
    world.send(&bytes.concat());
    let bodies: Vec<_> = world.publishes().iter().map(|p| p.message.body().len()).collect();
    assert_eq!(bodies, [1, 10_000, 1]);
}

#[test] // [MQTT-4.6.0-2], [MQTT-4.6.0-3]
fn acknowledgements_go_out_in_the_order_of_arrival() {
    let mut world = World::v5();
    world.send(&publish_5(2, "a", 10, &[], b""));
    world.send(&publish_5(4, "a", 11, &[], b""));
    world.send(&publish_5(2, "a", 12, &[], b""));
    world.confirm(2, 3, Routed(Durability::Sync));
    assert!(world.sent().is_empty());
    world.confirm(1, 1, Routed(Durability::Sync));
    assert_eq!(world.sent(), [0x40, 2, 0, 10, 0x50, 2, 0, 11, 0x40, 2, 0, 12]);
}

#[test] // Section 3.4.2.1
fn outcomes_have_reason_codes() {
    let mut world = World::v5_with(&[0x17, 0]);
    for (number, outcome, reason) in [
        (1, Unrouted, 0x10),
        (2, Refused(RefusalKind::Full), 0x97),
        (3, Refused(RefusalKind::Denied), 0x87),
        (4, Refused(RefusalKind::StoreFailed), 0x80),
    ] {
        world.send(&publish_5(2, "a", 7, &[], b""));
        world.confirm(number, number, outcome);
        assert_eq!(world.sent(), [0x40, 3, 0, 7, reason]);
    }
}

#[test]
fn refused_publish_carries_its_reason() {
    let mut world = World::v5();
    world.send(&publish_5(4, "a", 7, &[], b""));
    let refusal = Box::new(Refusal::new(RefusalKind::Denied, "no"));
    world.event(Event::PublishRefused { publisher: PublisherId(0), number: 1, refusal });
    assert_eq!(world.sent(), [0x50, 9, 0, 7, 0x87, 5, 0x1F, 0, 2, b'n', b'o']);
    // [MQTT-4.3.3-9]: after such a PUBREC the packet identifier is free.
    world.commands();
    world.send(&publish_5(4, "a", 7, &[], b""));
    assert_eq!(world.publishes().len(), 1);
}

#[test] // MQTT 3.1.1 [MQTT-3.3.5-2]
fn version_3_closes_when_a_publish_is_not_permitted() {
    let mut world = World::v4();
    world.send(&publish_4(2, "a", 7, b""));
    let refusal = Box::new(Refusal::new(RefusalKind::Denied, "no"));
    world.event(Event::PublishRefused { publisher: PublisherId(0), number: 1, refusal });
    world.expect_close();
}

#[test]
fn version_3_stops_reading_when_there_is_no_room_and_closes_later() {
    let refused_publish_wait = Duration::from_secs(5);
    let mut world = World::with_limits(Limits { refused_publish_wait, ..Limits::default() });
    world.send(&connect_4("c"));
    world.sent();
    world.send(&publish_4(2, "a", 7, b""));
    world.confirm(1, 1, Refused(RefusalKind::Full));
    assert!(world.effects.waiting);
    assert!(world.sent().is_empty());
    world.wait(Duration::from_secs(4));
    assert!(!world.is_closed());
    world.wait(Duration::from_secs(1));
    world.expect_close();
}

#[test] // [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12]
fn message_of_quality_2_is_published_once() {
    let mut world = World::v4();
    world.send(&publish_4(4, "a", 7, b"x"));
    assert_eq!(world.publishes()[0].received, Some(7));
    // A repeat before PUBREC is answered by that PUBREC.
    world.send(&publish_4(12, "a", 7, b"x"));
    assert_eq!((world.sent(), world.publishes().len()), (vec![], 0));
    world.confirm(1, 1, Routed(Durability::Sync));
    assert_eq!(world.sent(), [0x50, 2, 0, 7]);
    world.send(&publish_4(12, "a", 7, b"x"));
    assert_eq!((world.sent(), world.publishes().len()), (vec![0x50, 2, 0, 7], 0));
    world.send(&[0x62, 2, 0, 7]);
    assert_eq!(world.sent(), [0x70, 2, 0, 7]);
    assert!(matches!(world.commands()[..], [Command::ReleaseReceived { packet_id: 7, .. }]));
    world.send(&publish_4(4, "a", 7, b"x"));
    assert_eq!(world.publishes().len(), 1);
}

#[test] // [MQTT-4.4.0-1]: the state of a session outlives its connection.
fn repeat_after_a_reconnect_is_known() {
    let mut world = World::new();
    world.remembered.received = vec![7];
    world.connect_5(&[]);
    world.send(&publish_5(12, "a", 7, &[], b"x"));
    assert_eq!((world.sent(), world.publishes().len()), (vec![0x50, 2, 0, 7], 0));
    world.send(&[0x62, 2, 0, 7]);
    assert_eq!(world.sent(), [0x70, 2, 0, 7]);
}

#[test] // Section 3.6.2.1
fn pubrel_for_an_unknown_packet_is_answered() {
    let mut world = World::v5();
    world.send(&[0x62, 2, 0, 9]);
    assert_eq!(world.sent(), [0x70, 3, 0, 9, 0x92]);
    let mut world = World::v4();
    world.send(&[0x62, 2, 0, 9]);
    assert_eq!(world.sent(), [0x70, 2, 0, 9]);
}

#[test] // [MQTT-3.3.4-9], section 4.9
fn receive_maximum_is_enforced() {
    let mut world = World::with_limits(Limits { receive_max: 2, ..Limits::default() });
    world.connect_5(&[]);
    world.send(&publish_5(2, "a", 1, &[], b""));
    world.send(&publish_5(4, "a", 2, &[], b""));
    world.confirm(1, 2, Routed(Durability::Sync));
    world.sent();
    // The publish of quality of service 1 is done, the other one only after PUBCOMP.
    world.send(&publish_5(2, "a", 3, &[], b""));
    assert!(!world.is_closed());
    world.send(&publish_5(2, "a", 4, &[], b""));
    world.expect_disconnect(0x93);
}

#[test] // Section 3.3.2.3.4
fn topic_aliases_stand_for_topics() {
    let mut world = World::v5();
    world.send(&publish_5(0, "a/b", 0, &[0x23, 0, 1], b"1"));
    world.send(&publish_5(0, "c", 0, &[0x23, 0, 2], b"2"));
    world.send(&publish_5(0, "", 0, &[0x23, 0, 1], b"3"));
    world.send(&publish_5(0, "d", 0, &[0x23, 0, 1], b"4"));
    world.send(&publish_5(0, "", 0, &[0x23, 0, 1], b"5"));
    let publishes = world.publishes();
    let keys: Vec<_> = publishes.iter().map(|p| p.message.key()).collect();
    assert_eq!(keys, ["a.b", "c", "a.b", "d", "d"]);
    assert!(publishes.iter().all(|p| p.message.native_props().is_empty()));
}

#[test] // [MQTT-3.3.2-8], [MQTT-3.3.2-9], section 3.3.2.3.4
fn wrong_topic_aliases_end_the_connection() {
    for (topic, alias, reason) in [("a", 0, 0x94), ("a", 33, 0x94), ("", 1, 0x82)] {
        let mut world = World::v5();
        world.send(&publish_5(0, topic, 0, &[0x23, 0, alias], b""));
        world.expect_disconnect(reason);
    }
    let mut world = World::v5();
    world.send(&publish_5(0, "", 0, &[], b""));
    world.expect_disconnect(0x82);
}

#[test] // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
fn topic_names_have_no_wildcards_and_are_not_empty() {
    for topic in ["a/#", "+/b", "a+"] {
        let mut world = World::v5();
        world.send(&publish_5(0, topic, 0, &[], b""));
        world.expect_disconnect(0x90);
        let mut world = World::v4();
        world.send(&publish_4(0, topic, 0, b""));
        world.expect_close();
    }
    let mut world = World::v4();
    world.send(&publish_4(0, "", 0, b""));
    world.expect_close();
}

#[test] // [MQTT-1.5.4-3], [MQTT-4.7.3-4]: nothing is normalised or left out.
fn topics_are_taken_as_they_are() {
    let mut world = World::v5();
    for (topic, key) in [
        ("\u{FEFF}a", "\u{FEFF}a"),
        ("/a/", ".a."),
        ("a.b/c", "a/b.c"),
        ("e\u{301}", "e\u{301}"),
        ("\u{E9}", "\u{E9}"),
        ("A//a", "A..a"),
    ] {
        world.send(&publish_5(0, topic, 0, &[], b""));
        assert_eq!(world.publishes()[0].message.key(), key);
    }
}

#[test] // [MQTT-3.3.1-2], [MQTT-3.3.1-4], [MQTT-2.2.1-2]
fn publish_flags_and_packet_ids_are_checked() {
    for (flags, id, reason) in [(8, 0, 0x81), (6, 1, 0x81), (2, 0, 0x82), (4, 0, 0x82)] {
        let mut world = World::v5();
        world.send(&publish_5(flags, "a", id, &[], b""));
        world.expect_disconnect(reason);
    }
}

#[test] // [MQTT-3.3.2-6]: a client's PUBLISH has no subscription identifier, [MQTT-3.3.4-6].
fn publish_properties_are_checked() {
    for (properties, reason) in [
        (&[0x0B, 1][..], 0x82),
        (&[0x01, 2], 0x82),
        (&[0x01, 1, 0x01, 1], 0x82),
        (&[0x08, 0, 3, b'a', b'/', b'#'], 0x82),
        (&[0x11, 0, 0, 0, 1], 0x82),
        (&[0x02, 0, 0], 0x81),
    ] {
        let mut world = World::v5();
        world.send(&publish_5(0, "a", 0, properties, b""));
        world.expect_disconnect(reason);
    }
}

#[test] // Section 3.3.2.3.2
fn payload_format_is_checked() {
    let mut world = World::v5_with(&[0x17, 0]);
    world.send(&publish_5(2, "a", 3, &[0x01, 1], &[0xFF]));
    assert_eq!(world.sent(), [0x40, 3, 0, 3, 0x99]);
    world.send(&publish_5(0, "a", 0, &[0x01, 1], &[0xFF]));
    world.expect_disconnect(0x99);
}

#[test]
fn topics_of_the_server_are_refused() {
    for topic in ["$SYS/x", "$other", "$share/g/a", "$queue", "$queue/a/b", "$exchange/x"] {
        let mut world = World::v5_with(&[0x17, 0]);
        world.send(&publish_5(2, topic, 3, &[], b""));
        assert_eq!(world.sent(), [0x40, 3, 0, 3, 0x90], "{topic}");
        world.send(&publish_5(0, topic, 0, &[], b""));
        assert_eq!((world.publishes().len(), world.counter("publishes_dropped")), (0, 2));
        let mut world = World::v4();
        world.send(&publish_4(4, topic, 3, b""));
        assert_eq!((world.sent(), world.publishes().len()), (vec![0x50, 2, 0, 3], 0));
        assert_eq!(world.counter("publishes_dropped"), 1);
    }
}

#[test]
fn a_topic_of_delayed_publishing_says_how_long_and_where_to() {
    for (topic, exchange, key) in
        [("$delayed/5/a/b", "amq.topic", "a.b"), ("$delayed/5/$queue/q", "", "q")]
    {
        let mut world = World::v4();
        world.send(&publish_4(2, topic, 3, b""));
        let publish = world.publishes().remove(0);
        assert_eq!(publish.delay, Some(Delay::For(5000)), "{topic}");
        assert_eq!((publish.message.exchange(), publish.message.key()), (exchange, key));
    }
}

#[test] // exchange_topic
fn queues_and_exchanges_are_reached() {
    for (topic, exchange, key) in [
        ("$queue/a%2Fb", "", "a/b"),
        ("$exchange/logs/app/error", "logs", "app.error"),
        ("/a//b/", "amq.topic", ".a..b."),
    ] {
        let mut world = World::v4();
        world.send(&publish_4(0, topic, 0, b""));
        let message = world.publishes().remove(0).message;
        assert_eq!((message.exchange(), message.key()), (exchange, key));
    }
}

#[test]
fn expiry_becomes_a_deadline() {
    let mut world = World::v5();
    world.send(&publish_5(0, "a", 0, &[0x02, 0, 0, 0, 5], b""));
    let now = world.now.unix_ms;
    assert_eq!(world.publishes()[0].message.deadline_ms(), now + 5000);
    let carried = [&[0x02, 0, 0, 0, 2][..], &user("x-mq-ttl", "1500")].concat();
    world.send(&publish_5(0, "a", 0, &carried, b""));
    assert_eq!(world.publishes()[0].message.deadline_ms(), now + 1500);
}

#[test] // forged_death, user_mismatch
fn reserved_names_and_foreign_users_are_removed() {
    let mut world = World::v5();
    let forged =
        [user("x-death", "1"), user("k", "v"), user("x-death", "2"), user("x-mq-user", "u1")];
    world.send(&publish_5(0, "a", 0, &forged.concat(), b""));
    let message = world.publishes().remove(0).message;
    assert_eq!(message.native_props(), user("k", "v"));
    assert_eq!((world.counter("reserved"), world.counter("not_allowed")), (2, 1));
    let own = user("x-mq-user", "anonymous");
    world.send(&publish_5(0, "a", 0, &own, b""));
    assert_eq!(world.publishes()[0].message.native_props(), own);
}

#[test]
fn carried_priority_is_known_to_the_broker() {
    let mut world = World::v5();
    world.send(&publish_5(0, "a", 0, &user("x-mq-priority", "7"), b""));
    assert_eq!(world.publishes()[0].message.priority(), Some(7));
}

#[test]
fn topics_beyond_the_limits_are_refused() {
    let long = "a/".repeat(250);
    let mut world = World::v5_with(&[0x17, 0]);
    world.send(&publish_5(2, &long, 3, &[], b""));
    assert_eq!(world.sent(), [0x40, 3, 0, 3, 0x90]);
    let mut world = World::v4();
    world.send(&publish_4(2, &long, 3, b""));
    world.expect_close();
}

#[test] // [MQTT-3.2.2-15]
fn message_over_the_limit_ends_the_connection() {
    let mut world = World::with_limits(Limits { message_bytes_max: 10, ..Limits::default() });
    world.connect_5(&[]);
    world.send(&publish_5(0, "a", 0, &[], &[0; 11]));
    world.expect_disconnect(0x95);
}

#[test] // Section 3.3 of MQTT 3.1
fn a_publish_that_mqtt_3_1_is_not_permitted_is_acknowledged() {
    let mut world = v31();
    world.send(&publish_4(4, "a", 1, b"x"));
    world.confirm(1, 1, Refused(RefusalKind::Denied));
    assert_eq!(world.sent(), [0x50, 2, 0, 1]);
    world.send(&[0x62, 2, 0, 1]);
    assert_eq!(world.sent(), [0x70, 2, 0, 1]);
}

#[test] // [MQTT-4.3.3-4], [MQTT-4.3.3-12]
fn pubrel_that_comes_before_its_pubrec_is_answered_after_it() {
    let mut world = World::v5();
    world.send(&publish_5(4, "a", 1, &[], b"x"));
    world.send(&[0x62, 2, 0, 1]);
    assert!(world.sent().is_empty());
    world.confirm(1, 1, Routed(Durability::Sync));
    assert_eq!(world.sent(), [0x50, 2, 0, 1, 0x70, 2, 0, 1]);
    // The packet identifier is free.
    world.send(&publish_5(4, "a", 1, &[], b"y"));
    world.confirm(2, 2, Routed(Durability::Sync));
    assert_eq!(world.sent(), [0x50, 2, 0, 1]);
}

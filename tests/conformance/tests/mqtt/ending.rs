use std::time::Duration;

use polymq_contract::{CancelReason, Command, Event};
use polymq_model::ConsumerId;

use crate::world::*;

/// The order to leave the client session: will, expiry.
fn left(commands: Vec<Command>) -> (bool, Option<u32>) {
    match commands.as_slice() {
        [Command::CloseClientSession { will, expiry_secs, .. }] => (*will, *expiry_secs),
        other => panic!("{other:?}"),
    }
}

#[test] // [MQTT-3.14.4-1] to [MQTT-3.14.4-3]
fn disconnect_drops_the_will_unless_it_asks_for_it() {
    for (bytes, will) in [
        (&[0xE0, 0][..], false),
        (&[0xE0, 1, 0], false),
        (&[0xE0, 2, 0, 0], false),
        (&[0xE0, 1, 4], true),
        (&[0xE0, 1, 0x80], true),
    ] {
        let mut world = World::v5();
        world.send(bytes);
        assert_eq!(left(world.commands()), (will, None), "{bytes:x?}");
        world.expect_close();
        assert_eq!(world.drop_connection().len(), 0);
    }
    let mut world = World::v4();
    world.send(&[0xE0, 0, 0xC0, 0]);
    assert_eq!(left(world.commands()), (false, None));
    world.expect_close();
}

#[test] // Section 3.14.2.2.2
fn disconnect_may_change_an_expiry_but_not_begin_one() {
    let change = [0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9];
    let mut world = World::v5_with(&[0x11, 0, 0, 0, 60]);
    world.send(&change);
    assert_eq!(left(world.commands()), (false, Some(9)));
    let mut world = World::v5();
    world.send(&change);
    world.expect_disconnect(0x82);
    assert_eq!(left(world.drop_connection()), (true, None));
}

#[test] // [MQTT-3.14.1-1], section 3.14.2
fn malformed_disconnects_are_refused() {
    for (bytes, reason) in [
        (&[0xE1, 0][..], 0x81),
        (&[0xE0, 1, 0x8E], 0x82),
        (&[0xE0, 4, 0, 2, 0x1F, 0], 0x81),
        (&[0xE0, 5, 0, 3, 0x1C, 0, 0], 0x82),
    ] {
        let mut world = World::v5();
        world.send(bytes);
        world.expect_disconnect(reason);
    }
    let mut world = World::v4();
    world.send(&[0xE0, 1, 0]);
    world.expect_close();
    assert_eq!(left(world.drop_connection()), (true, None));
}

#[test] // [MQTT-3.1.2-8]: the will is published when the connection is lost.
fn broken_socket_publishes_the_will() {
    let mut world = World::v4();
    assert_eq!(left(world.drop_connection()), (true, None));
}

#[test]
fn connection_without_a_session_leaves_nothing() {
    let mut world = World::new();
    assert_eq!(world.drop_connection().len(), 0);
}

#[test] // [MQTT-3.1.2-22]
fn silent_client_is_disconnected_after_one_and_a_half_intervals() {
    let mut world = World::v5();
    world.wait(Duration::from_secs(89));
    world.send(&[0xC0, 0]);
    assert_eq!(world.sent(), [0xD0, 0]);
    world.wait(Duration::from_secs(89));
    assert!(!world.is_closed());
    world.wait(Duration::from_secs(1));
    world.expect_disconnect(0x8D);
    let mut world = World::v4();
    world.wait(Duration::from_secs(90));
    world.expect_close();
}

#[test] // Section 3.1.2.10
fn keep_alive_of_zero_never_ends() {
    let mut world = World::new();
    world.send(&packet(0x10, &[text("MQTT"), vec![4, 2, 0, 0], text("c")].concat()));
    assert!(!world.has_timeout());
}

#[test] // [MQTT-3.2.2-22]
fn keep_alive_of_the_server_counts() {
    let limits = polymq_model::Limits { keep_alive_max_secs: 10, ..Default::default() };
    let mut world = World::with_limits(limits);
    world.connect_5(&[]);
    world.wait(Duration::from_secs(15));
    world.expect_disconnect(0x8D);
}

#[test]
fn paused_client_is_not_silent() {
    let mut world = World::v4();
    world.event(Event::Blocked { reason: "full".into() });
    world.wait(Duration::from_secs(1000));
    assert!(!world.is_closed());
    world.event(Event::Unblocked);
    world.wait(Duration::from_secs(90));
    world.expect_close();
}

#[test]
fn client_whose_publishes_are_unconfirmed_is_not_silent() {
    let mut world = World::v4();
    world.send(&publish_4(2, "a", 1, b""));
    world.wait(Duration::from_secs(90));
    assert!(!world.is_closed());
}

#[test] // [MQTT-3.1.4-3]
fn taken_over_client_is_told() {
    let mut world = World::v5();
    world.event(Event::TakenOver);
    world.wait(Duration::ZERO);
    world.expect_disconnect(0x8E);
    assert_eq!(left(world.drop_connection()), (true, None));
    let mut world = World::v4();
    world.event(Event::TakenOver);
    world.wait(Duration::ZERO);
    world.expect_close();
}

#[test] // [MQTT-3.14.4-3]: a client that says good-bye and comes back at once has said good-bye.
fn what_has_arrived_counts_before_a_takeover() {
    let mut world = World::v4();
    world.event(Event::TakenOver);
    world.send(&[publish_4(0, "a", 0, b"x"), vec![0xE0, 0]].concat());
    world.wait(Duration::ZERO);
    world.expect_close();
    let mut commands = world.commands();
    assert!(matches!(commands.remove(0), Command::Publish(_)));
    assert_eq!(left(commands), (false, None));
}

#[test]
fn closing_server_tells_why() {
    for (shutdown, reason) in [(true, 0x8B), (false, 0x98)] {
        let mut world = World::v5();
        world.event(Event::Closing { reason: "bye".into(), shutdown });
        world.expect_disconnect(reason);
        let mut world = World::v4();
        world.event(Event::Closing { reason: "bye".into(), shutdown });
        world.expect_close();
    }
}

#[test]
fn deleted_queue_ends_its_subscriber() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[], &[("$queue/q", 1)]));
    world.sent();
    let (consumer, reason) = (ConsumerId(2), CancelReason::QueueDeleted);
    world.event(Event::ConsumerCancelled { consumer, reason });
    world.expect_disconnect(0x98);
}

#[test]
fn lost_right_to_topics_ends_their_subscriber() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[], &[("a/#", 1)]));
    world.sent();
    let (consumer, reason) = (ConsumerId(0), CancelReason::Denied);
    world.event(Event::ConsumerCancelled { consumer, reason });
    world.expect_disconnect(0x87);
}

#[test] // Section 3.14.2.2.3: no reason string when the client wants none.
fn disconnect_is_bare_when_the_client_wants_no_reasons() {
    let mut world = World::v5_with(&[0x17, 0]);
    world.event(Event::TakenOver);
    world.wait(Duration::ZERO);
    assert_eq!(world.sent(), [0xE0, 1, 0x8E]);
}

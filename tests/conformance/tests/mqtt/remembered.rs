//! Deliveries that the broker remembers before they are sent: sections 4.1, 4.3.3 and 4.4.

use polymq_contract::{
    Answer, Command, Effects, Event, EventBatch, InFlight, PublishOutcome, RefusalKind,
};
use polymq_model::{Durability, RequestId};

use crate::world::*;

/// A connected client whose session outlives the connection, and a broker that has not answered.
fn lasting() -> World {
    let mut world = World::v5_with(&[0x11, 0, 0, 1, 0]);
    world.obliging = false;
    world
}

#[track_caller]
fn kept(world: &mut World) -> (RequestId, Vec<InFlight>) {
    let commands = world.commands();
    let asked = commands.into_iter().find_map(|command| match command {
        Command::KeepInFlight { request, in_flight } => Some((request, in_flight)),
        _ => None,
    });
    asked.expect("the broker is asked to remember")
}

#[test] // [MQTT-4.3.3-1..-6], [MQTT-4.1.0-1]
fn a_packet_id_of_quality_2_is_remembered_before_it_is_used() {
    let mut world = lasting();
    world.deliver(delivery(0, 1, message("a", 2, b"x")));
    world.deliver(delivery(0, 2, message("a", 1, b"y")));
    assert_eq!(world.sent(), publish_5(2, "a", 2, &[], b"y"), "quality 1 need not wait");
    let (request, in_flight) = kept(&mut world);
    assert_eq!(in_flight.len(), 1);
    assert_eq!((in_flight[0].packet_id, in_flight[0].qos, in_flight[0].released), (1, 2, false));
    world.answer(request, Ok(Answer::Done));
    assert_eq!(world.sent(), publish_5(4, "a", 1, &[], b"x"));
    // What the client has received is remembered before its message goes and PUBREL is sent.
    world.send(&[0x50, 2, 0, 1]);
    assert!(world.sent().is_empty());
    assert!(matches!(world.commands[..], [Command::KeepInFlight { .. }, Command::Settle(_)]));
    let (request, in_flight) = kept(&mut world);
    assert!(in_flight[0].released);
    world.answer(request, Ok(Answer::Done));
    assert_eq!(world.sent(), [0x62, 2, 0, 1]);
    world.send(&[0x70, 2, 0, 1]);
    assert!(matches!(world.commands()[..], [Command::ForgetInFlight { packet_id: 1 }]));
}

#[test]
fn deliveries_of_one_turn_are_remembered_together() {
    let mut world = lasting();
    let mut events = EventBatch::default();
    for number in 1..=3 {
        events.push(Event::Delivered(delivery(0, number, message("a", 2, b"x"))));
    }
    let (now, mut effects) = (world.now, Effects::default());
    world.session().on_events(&mut events, now, &mut effects);
    let [Command::KeepInFlight { in_flight, .. }] = &effects.commands[..] else {
        panic!("{:?}", effects.commands)
    };
    assert_eq!(in_flight.iter().map(|f| f.packet_id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_delivery_that_cannot_be_remembered_is_not_sent() {
    let mut world = lasting();
    world.deliver(delivery(0, 1, message("a", 2, b"x")));
    let (request, _) = kept(&mut world);
    world.refuse(request, RefusalKind::StoreFailed);
    world.expect_disconnect(0x80);
}

#[test]
fn what_was_not_sent_is_not_in_flight() {
    let mut world = lasting();
    world.deliver(delivery(0, 1, message("a", 2, b"x")));
    let left = world.drop_connection();
    let [Command::CloseClientSession { in_flight, .. }] = &left[..] else { panic!("{left:?}") };
    assert!(in_flight.is_empty());
}

#[test] // [MQTT-4.1.0-1]: a session that ends with its connection has nothing to remember.
fn a_session_without_expiry_sends_at_once() {
    let mut world = World::v5();
    world.obliging = false;
    world.deliver(delivery(0, 1, message("a", 2, b"x")));
    assert_eq!(world.sent(), publish_5(4, "a", 1, &[], b"x"));
}

#[test] // [MQTT-3.3.1-1]
fn what_a_crashed_broker_may_have_sent_is_marked_as_a_repeat() {
    let mut world = World::new();
    world.remembered.present = true;
    world.remembered.unsure_before = polymq_model::Seq(102);
    world.connect_5(&[0x11, 0, 0, 1, 0]);
    for number in 1..=2 {
        world.deliver(delivery(0, number, message("a", 1, b"")));
    }
    let sent = [publish_5(10, "a", 1, &[], b""), publish_5(2, "a", 2, &[], b"")].concat();
    assert_eq!(world.sent(), sent);
}

#[test] // [MQTT-4.8.2-4]
fn a_share_is_told_what_the_client_has_begun() {
    let mut world = World::v5_with(&[0x11, 0, 0, 1, 0]);
    world.send(&subscribe_5(7, &[], &[("$share/g/a", 2), ("$queue/q", 2)]));
    world.deliver(delivery(2, 1, message("a", 2, b"x")));
    world.deliver(delivery(3, 1, message("a", 2, b"x")));
    let left = world.drop_connection();
    let [Command::CloseClientSession { in_flight, .. }] = &left[..] else { panic!("{left:?}") };
    let begun: Vec<_> = in_flight.iter().map(|f| (f.consumer.0, f.qos)).collect();
    assert_eq!(begun, [(2, 2), (3, 2)]);
    // The next connection ends before the broker has sent anything again.
    let mut world = World::new();
    world.remembered.present = true;
    world.remembered.in_flight.clone_from(in_flight);
    world.connect_5(&[0x11, 0, 0, 1, 0]);
    world.send(&subscribe_5(7, &[], &[("$share/g/a", 2), ("$queue/q", 2)]));
    let left = world.drop_connection();
    let [Command::CloseClientSession { in_flight, .. }] = &left[..] else { panic!("{left:?}") };
    let begun: Vec<_> = in_flight.iter().map(|f| (f.consumer.0, f.qos)).collect();
    assert_eq!(begun, [(2, 2)], "a plain queue has given it to others");
}

#[test] // [MQTT-4.3.3-11], [MQTT-4.3.3-12]
fn pubcomp_waits_until_the_packet_id_is_free_for_good() {
    let mut world = World::v5_with(&[0x11, 0, 0, 1, 0]);
    world.send(&publish_5(4, "a", 9, &[], b"x"));
    world.confirm(1, 1, PublishOutcome::Routed(Durability::Sync));
    assert_eq!(world.sent(), [0x50, 2, 0, 9]);
    world.commands();
    world.obliging = false;
    world.send(&[0x62, 2, 0, 9]);
    assert!(world.sent().is_empty());
    let [Command::ReleaseReceived { request: Some(request), packet_id: 9 }] = world.commands()[..]
    else {
        panic!()
    };
    world.answer(request, Ok(Answer::Done));
    assert_eq!(world.sent(), [0x70, 2, 0, 9]);
}

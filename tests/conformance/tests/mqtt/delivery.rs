use std::time::Duration;

use polymq_contract::{Delivery, Matched, Outcome, SubscriptionIds};
use polymq_model::{NewMessage, format::PLAIN_FORMAT, message::Body};
use polymq_mqtt::{MQTT3, MQTT5};

use crate::world::*;

fn matched(qos: u8) -> Matched {
    Matched { qos, ..Matched::default() }
}

fn outcomes(world: &mut World) -> Vec<(u64, u64, Outcome)> {
    let outcome =
        |s: polymq_contract::Settlement| (s.deliveries.first, s.deliveries.last, s.outcome);
    world.settlements().into_iter().map(outcome).collect()
}

#[test] // Section 4.3.1
fn quality_0_is_settled_when_written() {
    let mut world = World::v4();
    for number in 1..=3 {
        world.deliver(delivery(0, number, message("a.b", 0, b"x")));
    }
    assert_eq!(world.sent(), publish_4(0, "a/b", 0, b"x").repeat(3));
    assert_eq!(outcomes(&mut world).iter().map(|o| o.1 - o.0 + 1).sum::<u64>(), 3);
}

#[test] // [MQTT-4.3.2-1] to [MQTT-4.3.2-3], [MQTT-2.2.1-4]
fn quality_1_is_settled_by_puback() {
    let mut world = World::v4();
    world.deliver(delivery(0, 1, message("a", 1, b"x")));
    world.deliver(delivery(0, 2, message("a", 2, b"y")));
    let sent = [publish_4(2, "a", 1, b"x"), publish_4(4, "a", 2, b"y")].concat();
    assert_eq!(world.sent(), sent);
    assert!(world.commands().is_empty());
    world.send(&[0x40, 2, 0, 1]);
    assert_eq!(outcomes(&mut world), [(1, 1, Outcome::Accepted)]);
}

#[test] // [MQTT-4.3.3-1] to [MQTT-4.3.3-7]
fn quality_2_is_settled_by_pubrec_and_ends_with_pubcomp() {
    let mut world = World::v5();
    world.deliver(delivery(0, 1, message("a", 2, b"x")));
    assert_eq!(world.sent(), publish_5(4, "a", 1, &[], b"x"));
    world.send(&[0x50, 2, 0, 1]);
    assert_eq!(world.sent(), [0x62, 2, 0, 1]);
    assert_eq!(outcomes(&mut world), [(1, 1, Outcome::Accepted)]);
    world.send(&[0x50, 2, 0, 1]);
    assert_eq!(world.sent(), [0x62, 2, 0, 1]);
    world.send(&[0x70, 2, 0, 1]);
    assert!(world.sent().is_empty());
    world.send(&[0x50, 2, 0, 1]);
    assert_eq!(world.sent(), [0x62, 3, 0, 1, 0x92]);
}

#[test]
fn acknowledgements_of_one_read_settle_together() {
    let mut world = World::v5();
    for number in 1..=3 {
        world.deliver(delivery(0, number, message("a", 1, b"")));
    }
    world.send(&[0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x40, 2, 0, 3]);
    assert_eq!(outcomes(&mut world), [(1, 3, Outcome::Accepted)]);
}

#[test] // [MQTT-3.8.4-8]
fn quality_is_the_lower_of_publish_and_subscription() {
    for (published, wanted, sent) in [(2, 1, 2), (1, 2, 2), (2, 0, 0), (0, 2, 0), (2, 2, 4)] {
        let mut world = World::v4();
        let mut delivery = delivery(0, 1, message("a", published, b""));
        delivery.matched.qos = wanted;
        world.deliver(delivery);
        assert_eq!(world.sent()[0], 0x30 | sent);
    }
}

#[test] // [MQTT-3.3.4-7], section 4.9
fn receive_maximum_of_the_client_is_kept() {
    let mut world = World::v5_with(&[0x21, 0, 2]);
    for number in 1..=4 {
        world.deliver(delivery(0, number, message("a", 2, b"")));
    }
    world.deliver(delivery(0, 5, message("a", 0, b"zero")));
    let now = [
        publish_5(4, "a", 1, &[], b""),
        publish_5(4, "a", 2, &[], b""),
        publish_5(0, "a", 0, &[], b"zero"),
    ];
    assert_eq!(world.sent(), now.concat());
    // PUBREC frees nothing; PUBCOMP and a failing PUBREC do.
    world.send(&[0x50, 2, 0, 1]);
    assert_eq!(world.sent(), [0x62, 2, 0, 1]);
    world.send(&[0x70, 2, 0, 1]);
    assert_eq!(world.sent(), publish_5(4, "a", 3, &[], b""));
    world.send(&[0x50, 3, 0, 2, 0x80]);
    assert_eq!(world.sent(), publish_5(4, "a", 4, &[], b""));
}

#[test] // mqtt_rejects
fn puback_codes_settle_messages_of_plain_queues() {
    for (code, outcome) in [
        (0x00, Outcome::Accepted),
        (0x10, Outcome::Accepted),
        (0x97, Outcome::Returned),
        (0x80, Outcome::Failed),
        (0x83, Outcome::Failed),
        (0x87, Outcome::Rejected),
        (0x90, Outcome::Rejected),
        (0x99, Outcome::Rejected),
        (0x91, Outcome::Accepted),
    ] {
        let mut world = World::v5();
        world.send(&subscribe_5(7, &[], &[("$queue/q", 1)]));
        world.commands();
        world.deliver(delivery(2, 1, message("a", 1, b"")));
        world.send(&[0x40, 3, 0, 1, code]);
        assert_eq!(outcomes(&mut world), [(1, 1, outcome)], "{code:x}");
        // Topics have no way back.
        world.deliver(delivery(0, 1, message("a", 1, b"")));
        world.send(&[0x40, 3, 0, 2, code]);
        assert_eq!(outcomes(&mut world), [(1, 1, Outcome::Accepted)]);
    }
}

#[test] // Section 4.3: each flow has its own acknowledgements.
fn wrong_acknowledgements_are_protocol_errors() {
    for (qos, ack) in [(2, 0x40), (1, 0x50), (2, 0x70), (1, 0x70)] {
        let mut world = World::v5();
        world.deliver(delivery(0, 1, message("a", qos, b"")));
        world.sent();
        world.send(&[ack, 2, 0, 1]);
        world.expect_disconnect(0x82);
    }
    let mut world = World::v5();
    world.send(&[0x40, 2, 0, 99, 0x70, 2, 0, 99]);
    assert!(!world.is_closed() && world.sent().is_empty());
}

#[test] // [MQTT-3.3.1-8] to [MQTT-3.3.1-13]
fn retain_flag_follows_the_subscription() {
    let retained = || {
        NewMessage {
            format: &MQTT3,
            exchange: "amq.topic",
            key: "a",
            props: &[],
            body: Body::Slice(b""),
            durable: false,
            priority: None,
            qos: 0,
            retain: true,
            deadline_ms: 0,
            arrived_ms: 1,
            extra_keys: Vec::new(),
        }
        .build(&mut Vec::new())
    };
    for (retained_match, as_published, shown) in
        [(false, false, 0), (true, false, 1), (false, true, 1)]
    {
        let mut matched = matched(0);
        (matched.retained, matched.retain_as_published) = (retained_match, as_published);
        let mut world = World::v5();
        world.deliver(Delivery { matched: matched.clone(), ..delivery(0, 0, retained()) });
        world.broadcast(matched, vec![retained()]);
        assert_eq!(world.sent(), publish_5(shown, "a", 0, &[], b"").repeat(2));
        assert!(world.commands().is_empty());
    }
}

#[test] // [MQTT-3.3.4-3] to [MQTT-3.3.4-5]
fn subscription_identifiers_are_shown() {
    let mut world = World::v5();
    let ids = SubscriptionIds::Many([3, 200].into());
    let matched = Matched { ids, ..matched(0) };
    world.broadcast(matched, vec![message("a", 0, b"x")]);
    assert_eq!(world.sent(), publish_5(0, "a", 0, &[0x0B, 3, 0x0B, 0xC8, 1], b"x"));
}

#[test] // [MQTT-3.3.2-5], [MQTT-3.3.2-6]
fn expiry_counts_down_and_ends() {
    let mut world = World::v5();
    let deadline = world.now.unix_ms + 2500;
    let props = [&[0x02, 0, 0, 0, 60][..], &user("k", "v")].concat();
    let make = || with_deadline(&MQTT5, "amq.topic", "a", 0, &props, b"x", deadline);
    world.broadcast(matched(0), vec![make()]);
    let shown = [&[0x02, 0, 0, 0, 3][..], &user("k", "v")].concat();
    assert_eq!(world.sent(), publish_5(0, "a", 0, &shown, b"x"));
    world.wait(Duration::from_millis(2500));
    world.broadcast(matched(0), vec![make()]);
    world.deliver(delivery(0, 1, make()));
    assert!(world.sent().is_empty());
    assert_eq!(outcomes(&mut world), [(1, 1, Outcome::Accepted)]);
}

#[test] // [MQTT-3.1.2-26], [MQTT-3.1.2-27], section 3.3.2.3.4
fn topic_aliases_are_first_come_first_served() {
    let mut world = World::v5_with(&[0x22, 0, 1]);
    let batch = || vec![message("a.b", 0, b"1"), message("c", 0, b"2"), message("a.b", 0, b"3")];
    world.broadcast(matched(0), batch());
    let sent = [
        publish_5(0, "a/b", 0, &[0x23, 0, 1], b"1"),
        publish_5(0, "c", 0, &[], b"2"),
        publish_5(0, "", 0, &[0x23, 0, 1], b"3"),
    ];
    assert_eq!(world.sent(), sent.concat());
}

#[test] // [MQTT-3.1.2-24], [MQTT-3.1.2-25]; packet_too_large
fn packets_over_the_clients_maximum_are_not_sent() {
    let mut world = World::v5_with(&[0x27, 0, 0, 0, 60]);
    world.sent();
    world.deliver(delivery(0, 1, message("a", 1, &[0; 100])));
    world.broadcast(matched(0), vec![message("a", 0, &[0; 100]), message("a", 0, b"x")]);
    assert_eq!(world.sent(), publish_5(0, "a", 0, &[], b"x"));
    assert_eq!(outcomes(&mut world), [(1, 1, Outcome::TooLarge)]);
    assert_eq!(world.counter("too_large"), 2);
}

#[test]
fn broadcasts_are_the_same_bytes_for_all_neighbours() {
    let batch = std::sync::Arc::new(polymq_contract::Broadcast::new(vec![
        message("a.b", 0, b"1"),
        native(&MQTT5, "amq.topic", "c", 0, &user("k", "v"), b"2"),
    ]));
    let mut worlds = [World::v4(), World::v5(), World::v4()];
    let sent: Vec<_> = worlds
        .iter_mut()
        .map(|world| {
            let consumer = polymq_model::ConsumerId(1);
            let (matched, batch) = (matched(0), std::sync::Arc::clone(&batch));
            world.event(polymq_contract::Event::Broadcast { consumer, matched, batch });
            world.sent()
        })
        .collect();
    assert_eq!(sent[0], [publish_4(0, "a/b", 0, b"1"), publish_4(0, "c", 0, b"2")].concat());
    let with_property = publish_5(0, "c", 0, &user("k", "v"), b"2");
    assert_eq!(sent[1], [publish_5(0, "a/b", 0, &[], b"1"), with_property].concat());
    assert_eq!(sent[2], sent[0]);
    // The user property had no place, and was looked at once.
    assert_eq!(worlds[0].counter("no_place") + worlds[2].counter("no_place"), 1);
}

#[test] // mqtt_reads_queue
fn queue_messages_are_shown_under_the_queue() {
    for (filter, topic) in
        [("$queue/a%2Fb/#", "$queue/a%2Fb/k/1"), ("$queue/a%2fb", "$queue/a%2fb")]
    {
        let mut world = World::v4();
        world.send(&subscribe_4(7, &[(filter, 0)]));
        world.sent();
        world.deliver(delivery(2, 1, native(&MQTT3, "x", "k.1", 0, &[], b"m")));
        assert_eq!(world.sent(), publish_4(0, topic, 0, b"m"));
    }
}

#[test]
fn queue_messages_tell_their_origin_in_version_5() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[], &[("$queue/q", 0)]));
    world.sent();
    let delivery = Delivery { acquired: 2, failed: 1, ..delivery(2, 1, message("k.1", 0, b"m")) };
    world.deliver(delivery);
    let properties = [
        user("x-acquired-count", "2"),
        user("x-delivery-count", "1"),
        user("x-source-queue", "q"),
        user("x-exchange", "amq.topic"),
        user("x-routing-key", "k.1"),
    ];
    assert_eq!(world.sent(), publish_5(0, "$queue/q", 0, &properties.concat(), b"m"));
}

#[test]
fn topics_of_other_exchanges_are_shown_as_the_filter_names_them() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[], &[("$exchange/l%6Fgs/#", 0), ("#", 0)]));
    world.sent();
    let batch = [("logs", "a.b"), ("amq.topic", "a.b"), ("other", "a.b")]
        .map(|(exchange, key)| native(&MQTT3, exchange, key, 0, &[], b""));
    world.broadcast(matched(0), batch.to_vec());
    let topics = ["$exchange/l%6Fgs/a/b", "a/b", "a/b"];
    let sent: Vec<_> = topics.iter().map(|topic| publish_5(0, topic, 0, &[], b"")).collect();
    assert_eq!(world.sent(), sent.concat());
}

#[test] // [MQTT-3.3.1-1], [MQTT-4.4.0-1], [MQTT-4.6.0-1]
fn unfinished_deliveries_go_on_after_a_reconnect() {
    let mut first = World::v5_with(&[0x11, 0, 0, 1, 0]);
    for number in 1..=3 {
        first.deliver(delivery(0, number, message("a", 2, b"")));
    }
    first.send(&[0x50, 2, 0, 1]);
    let left = first.drop_connection();
    let polymq_contract::Command::CloseClientSession { in_flight, .. } = &left[0] else { panic!() };
    let stages: Vec<_> = in_flight.iter().map(|f| (f.packet_id, f.seq.0, f.released)).collect();
    assert_eq!(stages, [(1, 101, true), (2, 102, false), (3, 103, false)]);

    let mut world = World::new();
    world.remembered.present = true;
    world.remembered.in_flight = in_flight.clone();
    world.send(&connect_5("c", &[]));
    let sent = world.sent();
    assert_eq!(sent[sent.len() - 4..], [0x62, 2, 0, 1]);
    world.commands();
    // Numbers are those of the new connection; positions are those of the queue.
    for (number, seq) in [(1, 102), (2, 103), (3, 104)] {
        let seq = polymq_model::Seq(seq);
        world.deliver(Delivery { seq, ..delivery(0, number, message("a", 2, b"")) });
    }
    let again = [
        publish_5(12, "a", 2, &[], b""),
        publish_5(12, "a", 3, &[], b""),
        publish_5(4, "a", 4, &[], b""),
    ];
    assert_eq!(world.sent(), again.concat());
    world.send(&[0x70, 2, 0, 1]);
    let done = world.commands();
    assert!(matches!(done[..], [polymq_contract::Command::ForgetInFlight { packet_id: 1 }]));
    world.send(&[0x50, 2, 0, 2]);
    world.commands.retain(|c| !matches!(c, polymq_contract::Command::KeepInFlight { .. }));
    assert_eq!(outcomes(&mut world), [(1, 1, Outcome::Accepted)]);
}

#[test] // [MQTT-4.3.3-7]
fn deliveries_that_an_earlier_connection_began_do_not_expire() {
    let mut world = World::new();
    world.remembered.present = true;
    world.remembered.in_flight = vec![polymq_contract::InFlight {
        packet_id: 1,
        consumer: polymq_model::ConsumerId(0),
        seq: polymq_model::Seq(101),
        qos: 2,
        released: false,
    }];
    world.connect_5(&[0x11, 0, 0, 1, 0]);
    let expired = || with_deadline(&PLAIN_FORMAT, "amq.topic", "a", 2, &[], b"x", 2);
    world.deliver(delivery(0, 1, expired()));
    let sent = world.sent();
    assert_eq!((sent[0], &sent[4..7]), (0x3C, &[b'a', 0, 1][..]));
    world.commands();
    world.deliver(delivery(0, 2, expired()));
    assert!(world.sent().is_empty());
}

#[test]
fn output_is_bounded() {
    use polymq_contract::{Event, EventBatch};
    let limits = polymq_model::Limits { output_bytes_max: 1000, ..Default::default() };
    let mut world = World::with_limits(limits);
    world.connect_5(&[]);
    let mut events = EventBatch::default();
    for number in 1..=10 {
        events.push(Event::Delivered(delivery(0, number, message("a", 0, &[0; 500]))));
    }
    let now = world.now;
    world.session().on_events(&mut events, now, &mut polymq_contract::Effects::default());
    assert_eq!(events.len(), 8);
}

#[test] // [MQTT-3.8.4-8], [MQTT-4.8.2-3], for messages that come through a real queue.
fn shares_and_queues_keep_what_their_subscription_asked_for() {
    let mut world = World::v5();
    world.send(&subscribe_5(7, &[0x0B, 5], &[("$share/g/a/#", 1)]));
    world.sent();
    world.deliver(delivery(2, 1, message("a.b", 2, b"x")));
    assert_eq!(world.sent(), publish_5(2, "a/b", 1, &[0x0B, 5], b"x"));
}

#[test]
fn remembered_deliveries_that_are_gone_are_forgotten() {
    let mut world = World::new();
    world.remembered.present = true;
    let remember = |packet_id, seq| polymq_contract::InFlight {
        packet_id,
        consumer: polymq_model::ConsumerId(0),
        seq: polymq_model::Seq(seq),
        qos: 1,
        released: false,
    };
    world.remembered.in_flight = vec![remember(1, 101), remember(2, 102)];
    world.connect_5(&[0x11, 0, 0, 1, 0]);
    // Position 101 has expired meanwhile; the queue goes on with 102 and then a new one.
    world.deliver(Delivery { seq: polymq_model::Seq(102), ..delivery(0, 1, message("a", 1, b"")) });
    world.deliver(Delivery { seq: polymq_model::Seq(103), ..delivery(0, 2, message("a", 1, b"")) });
    let sent = [publish_5(10, "a", 2, &[], b""), publish_5(2, "a", 1, &[], b"")].concat();
    assert_eq!(world.sent(), sent);
    let left = world.drop_connection();
    let polymq_contract::Command::CloseClientSession { in_flight, .. } = &left[0] else { panic!() };
    assert_eq!(in_flight.iter().map(|f| f.seq.0).collect::<Vec<_>>(), [102, 103]);
}

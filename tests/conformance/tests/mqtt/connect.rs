use std::{sync::Arc, time::Duration};

use polymq_contract::{Command, Login, RefusalKind, TlsPeer};
use polymq_model::Limits;

use crate::world::*;

/// CONNECT with flags, a client id `c` and what follows it.
fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let properties = if level == 5 { vec![0] } else { vec![] };
    let body = [text("MQTT"), vec![level, flags, 0, 0], properties, text("c"), rest.to_vec()];
    packet(0x10, &body.concat())
}

fn login(world: &mut World) -> Login {
    match world.commands().remove(0) {
        Command::Authenticate { login, .. } => *login,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connection_is_accepted_after_login_vhost_and_session() {
    let mut world = World::new();
    world.send(&connect_4("c"));
    let commands = world.commands();
    assert!(matches!(commands[0], Command::Authenticate { .. }));
    assert!(matches!(&commands[1], Command::Introduce(_)));
    assert!(matches!(&commands[2], Command::OpenVhost { vhost: None, .. }));
    let opened = world.opened.take().unwrap();
    assert_eq!(opened.client_id.as_deref(), Some("c"));
    assert_eq!((opened.clean_start, opened.expiry_secs), (true, 0));
    assert_eq!(world.sent(), [0x20, 2, 0, 0]);
    assert!(world.effects.logged_in);
}

#[test] // Every packet may arrive in any number of pieces.
fn conversation_split_at_every_byte_is_the_same() {
    let talk = [
        connect_5("c", &[0x22, 0, 4]),
        subscribe_5(1, &[0x0B, 9], &[("a/+", 2), ("$queue/q", 1)]),
        publish_5(2, "a/b", 5, &user("k", "v"), b"one"),
        publish_5(4, "a/b", 6, &[0x23, 0, 1], b"two"),
        publish_5(0, "", 0, &[0x23, 0, 1], &[7; 200]),
        packet(0xA2, &[vec![0, 2, 0], text("a/+")].concat()),
        vec![0xC0, 0],
        vec![0xE0, 0],
    ]
    .concat();
    let run = |cuts: &[usize]| {
        let mut world = World::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([talk.len()]) {
            world.send(&talk[from..cut]);
            from = cut;
        }
        let commands: Vec<_> = world.commands().iter().map(|c| format!("{c:?}")).collect();
        (world.sent(), commands, world.effects.close.take())
    };
    let whole = run(&[]);
    assert_eq!(whole.2.as_ref().unwrap().cause, "client");
    for cut in 1..talk.len() {
        assert_eq!(run(&[cut]), whole, "cut at {cut}");
    }
    assert_eq!(run(&(1..talk.len()).collect::<Vec<_>>()), whole);
}

#[test] // [MQTT-3.1.0-1]
fn first_packet_must_be_connect() {
    for bytes in [vec![0xC0, 0], publish_4(0, "a", 0, b""), vec![0xE0, 0]] {
        let mut world = World::new();
        world.send(&bytes);
        world.expect_close();
    }
}

#[test] // [MQTT-3.1.0-2]
fn second_connect_is_a_protocol_error() {
    let mut world = World::v5();
    world.send(&connect_5("c", &[]));
    world.expect_disconnect(0x82);
    let mut world = World::v4();
    world.send(&connect_4("c"));
    world.expect_close();
}

#[test] // MQTT 3.1.1 [MQTT-3.1.2-2]; MQTT 5 section 3.1.2.2
fn unsupported_version_is_told() {
    let mut world = World::new();
    world.send(&packet(0x10, &[text("MQTT"), vec![3, 2, 0, 0], text("c")].concat()));
    assert_eq!(world.sent(), [0x20, 2, 0, 1]);
    let mut world = World::new();
    world.send(&packet(0x10, &[text("MQTT"), vec![6, 2, 0, 0, 0], text("c")].concat()));
    let sent = world.sent();
    assert_eq!((sent[0], sent[2], sent[3]), (0x20, 0, 0x84));
    let mut world = World::new();
    world.send(&packet(0x10, &[text("NATS"), vec![4, 2, 0, 0], text("c")].concat()));
    world.expect_close();
}

#[test] // MQTT 3.1: protocol name `MQIsdp`, level 3; the answer has no flag for a present session.
fn version_3_1_is_spoken() {
    let mut world = World::new();
    world.remembered.present = true;
    world.send(&packet(0x10, &[text("MQIsdp"), vec![3, 0, 0, 0], text("c")].concat()));
    assert_eq!(world.sent(), [0x20, 2, 0, 0]);
    assert_eq!(world.opened.unwrap().expiry_secs, u32::MAX);
}

#[test] // MQTT 3.1: a client id has at least one character.
fn version_3_1_needs_a_client_id() {
    let mut world = World::new();
    world.send(&packet(0x10, &[text("MQIsdp"), vec![3, 2, 0, 0], text("")].concat()));
    assert_eq!(world.sent(), [0x20, 2, 0, 2]);
    assert!(world.is_closed());
}

#[test] // MQTT 3.1.1 [MQTT-3.1.3-8]
fn empty_client_id_needs_a_clean_session_in_3_1_1() {
    let mut world = World::new();
    world.send(&packet(0x10, &[text("MQTT"), vec![4, 0, 0, 0], text("")].concat()));
    assert_eq!(world.sent(), [0x20, 2, 0, 2]);
    assert!(world.is_closed());
    let mut world = World::new();
    world.send(&connect_4(""));
    assert_eq!(world.sent(), [0x20, 2, 0, 0]);
    assert_eq!(world.opened.unwrap().client_id, None);
}

#[test] // [MQTT-3.1.3-7]
fn assigned_client_id_is_told() {
    let mut world = World::new();
    world.send(&connect_5("", &[]));
    let sent = world.sent();
    let property = [vec![0x12], text("made")].concat();
    assert!(sent.windows(property.len()).any(|bytes| bytes == property), "{sent:x?}");
}

#[test] // [MQTT-3.1.2-3]
fn reserved_connect_flag_is_malformed() {
    let mut world = World::new();
    world.send(&connect(4, 3, &[]));
    world.expect_close();
    let mut world = World::new();
    world.send(&connect(5, 3, &[]));
    assert_eq!(world.sent()[3], 0x81);
}

#[test] // MQTT 3.1.1 [MQTT-3.1.2-22]; MQTT 5 permits it.
fn password_without_user_name_is_for_version_5_only() {
    let mut world = World::new();
    world.send(&connect(4, 0x42, &text("pw")));
    world.expect_close();
    let mut world = World::new();
    world.obliging = false;
    world.send(&connect(5, 0x42, &text("pw")));
    let Login::Password { user, password } = login(&mut world) else { panic!() };
    assert_eq!((user.as_str(), password.expose()), ("", &b"pw"[..]));
}

#[test] // [MQTT-3.1.2-11], [MQTT-3.1.2-12], [MQTT-3.1.2-13]
fn will_flags_must_fit_together() {
    for flags in [0x0A, 0x22, 0x1E] {
        let mut world = World::new();
        world.send(&connect(4, flags, &[text("w"), text("x")].concat()));
        world.expect_close();
    }
}

#[test] // [MQTT-3.1.3-1]: nothing may follow the payload.
fn bytes_after_connect_are_malformed() {
    let mut world = World::new();
    world.send(&connect(4, 2, &[0]));
    world.expect_close();
}

#[test]
fn will_is_handed_over_with_its_properties() {
    let mut world = World::new();
    let will_properties = [&[0x18, 0, 0, 0, 9, 0x01, 1][..], &user("k", "v")].concat();
    let rest = [props(&will_properties), text("last/word"), text("bye")].concat();
    world.send(&connect(5, 0x36, &rest));
    let will = world.opened.unwrap().will.unwrap();
    assert_eq!(will.delay_secs, 9);
    let message = will.message;
    assert_eq!((message.exchange(), message.key()), ("amq.topic", "last.word"));
    assert_eq!((message.qos(), message.retain(), message.body()), (2, true, &b"bye"[..]));
    assert_eq!(message.native_props(), [&[0x01, 1][..], &user("k", "v")].concat());
}

#[test] // Section 3.1.3.2.3: a will that says it is text must be text.
fn will_with_a_wrong_payload_format_is_refused() {
    let mut world = World::new();
    let rest = [props(&[0x01, 1]), text("w"), vec![0, 1, 0xFF]].concat();
    world.send(&connect(5, 6, &rest));
    assert_eq!(world.sent()[3], 0x99);
    assert!(world.is_closed());
}

#[test] // Section 3.1.3.3: a will topic is a topic name.
fn will_topic_with_a_wildcard_is_refused() {
    let mut world = World::new();
    world.send(&connect(5, 6, &[props(&[]), text("w/#"), text("x")].concat()));
    assert_eq!(world.sent()[3], 0x90);
    let mut world = World::new();
    world.send(&connect(4, 6, &[text("w/#"), text("x")].concat()));
    world.expect_close();
}

#[test] // Section 2.2.2.2 and 3.1.2.11
fn connect_properties_must_be_allowed_single_and_in_range() {
    for (properties, reason) in [
        (&[0x21, 0, 0][..], 0x82),
        (&[0x27, 0, 0, 0, 0], 0x82),
        (&[0x17, 2], 0x82),
        (&[0x19, 2], 0x82),
        (&[0x21, 0, 1, 0x21, 0, 1], 0x82),
        (&[0x23, 0, 1], 0x82),
        (&[0x16, 0, 0], 0x82),
        (&[0x7F, 0], 0x81),
        (&[0x21, 0], 0x81),
    ] {
        let mut world = World::new();
        world.send(&connect_5("c", properties));
        assert_eq!(world.sent()[3], reason, "{properties:x?}");
        assert!(world.is_closed());
    }
}

#[test]
fn reason_string_is_left_out_when_the_client_wants_none() {
    let mut world = World::new();
    world.obliging = false;
    world.send(&connect_5("c", &[0x17, 0]));
    let Command::Authenticate { request, .. } = world.commands().remove(0) else { panic!() };
    world.refuse(request, RefusalKind::LoginFailed);
    assert_eq!(world.sent(), [0x20, 3, 0, 0x86, 0]);
}

#[test] // Section 3.2.2.3: what the server grants.
fn connack_tells_the_limits() {
    let limits = Limits {
        receive_max: 5,
        topic_alias_max: 7,
        keep_alive_max_secs: 30,
        session_expiry_max_secs: 100,
        message_bytes_max: 1000,
        ..Limits::default()
    };
    let mut world = World::with_limits(limits);
    world.send(&connect_5("c", &[0x11, 0, 0, 1, 0, 0x19, 1]));
    let properties = [
        &[0x11, 0, 0, 0, 100, 0x21, 0, 5, 0x27, 0, 2, 3, 0xE8, 0x22, 0, 7, 0x13, 0, 30][..],
        &[0x28, 1, 0x29, 1, 0x2A, 1, 0x1A],
        &text("response/c"),
    ]
    .concat();
    let expected = packet(0x20, &[vec![0, 0], props(&properties)].concat());
    assert_eq!(world.sent(), expected);
    assert_eq!(world.opened.unwrap().expiry_secs, 100);
}

#[test] // [MQTT-3.2.2-2], [MQTT-3.2.2-3]
fn present_session_is_told() {
    let mut world = World::new();
    world.remembered.present = true;
    world.send(&packet(0x10, &[text("MQTT"), vec![4, 0, 0, 0], text("c")].concat()));
    assert_eq!(world.sent(), [0x20, 2, 1, 0]);
}

#[test] // [MQTT-3.1.2-24]
fn connack_is_never_larger_than_the_client_permits() {
    let mut world = World::new();
    world.send(&connect_5("c", &[0x27, 0, 0, 0, 24, 0x19, 1]));
    assert!(world.sent().len() <= 24);
    let mut world = World::new();
    world.send(&connect_5("c", &[0x27, 0, 0, 0, 4]));
    world.expect_close();
}

#[test] // [MQTT-3.2.2-19]
fn refusing_connack_is_never_larger_than_the_client_permits() {
    let mut connect = vec![0x10, 27, 0, 4];
    connect.extend_from_slice(b"MQTT\x05\x06\0\0");
    connect.extend_from_slice(&[5, 0x27, 0, 0, 0, 12]);
    // A will to a topic with a wildcard.
    connect.extend_from_slice(b"\0\x01c\0\0\x03a/#\0\0");
    let mut world = World::new();
    world.send(&connect);
    assert_eq!(world.sent(), [0x20, 3, 0, 0x90, 0]);
    assert!(world.is_closed());
}

#[test]
fn refused_logins_have_the_codes_of_their_version() {
    let cases = [
        (RefusalKind::LoginFailed, 4, 0x86),
        (RefusalKind::TooManyLogins, 3, 0x9F),
        (RefusalKind::Denied, 5, 0x87),
        (RefusalKind::Limit, 3, 0x97),
        (RefusalKind::StoreFailed, 3, 0x88),
    ];
    for (kind, code_3, code_5) in cases {
        for (connect, code) in [(connect_4("c"), code_3), (connect_5("c", &[]), code_5)] {
            let mut world = World::new();
            world.obliging = false;
            world.send(&connect);
            let Command::Authenticate { request, .. } = world.commands().remove(0) else {
                panic!()
            };
            world.refuse(request, kind);
            assert_eq!(world.sent()[3], code);
            assert!(world.is_closed());
        }
    }
}

#[test]
fn user_name_may_name_the_vhost() {
    let mut world = World::new();
    world.send(&connect(4, 0xC2, &[text("blue:u:x"), text("pw")].concat()));
    let commands = world.commands();
    let Command::Authenticate { login, .. } = &commands[0] else { panic!() };
    assert!(matches!(&**login, Login::Password { user, .. } if user == "u:x"));
    let Command::OpenVhost { vhost, .. } = &commands[2] else { panic!() };
    assert_eq!(vhost.as_deref(), Some("blue"));
}

#[test]
fn certificate_counts_when_no_user_is_named() {
    let tls = TlsPeer { certificate_user: Some("u".to_owned()), ..TlsPeer::default() };
    let mut world = World::with_peer(Limits::default(), Some(Arc::new(tls)));
    world.send(&connect_4("c"));
    assert!(matches!(login(&mut world), Login::Certificate { identity } if identity.is_empty()));
}

#[test]
fn packets_after_connect_wait_for_the_broker() {
    let mut world = World::new();
    world.obliging = false;
    world.send(&[connect_4("c"), vec![0xC0, 0]].concat());
    assert!(world.effects.waiting);
    assert!(world.sent().is_empty());
}

#[test]
fn login_has_its_time() {
    let mut world = World::new();
    world.wait(Duration::from_secs(10));
    world.expect_close();
}

#[test]
fn clients_are_recognised_by_their_first_bytes() {
    use polymq_contract::{Protocol, Recognised};
    let mqtt = polymq_mqtt::Mqtt::default();
    for whole in [connect_4("c"), connect_5("c", &[])] {
        for end in 0..8 {
            assert_eq!(mqtt.recognise(&whole[..end]), Recognised::Unsure, "{end}");
        }
        assert_eq!(mqtt.recognise(&whole), Recognised::Yes);
    }
    assert_eq!(mqtt.recognise(b"AMQP\0\0\x09\x01"), Recognised::No);
    assert_eq!(mqtt.recognise(b"\x10\x0c\0\x04HTTP"), Recognised::No);
}

#[test] // Section 3.1 of MQTT 3.1
fn mqtt_3_1_may_leave_out_what_its_flags_announce() {
    for flags in [0x82, 0xC2] {
        let mut world = World::new();
        let body = [text("MQIsdp"), vec![3, flags, 0, 0], text("c")].concat();
        world.send(&packet(0x10, &body));
        assert_eq!(world.sent(), [0x20, 2, 0, 0]);
    }
}

#[test]
fn a_newcomer_that_another_newcomer_replaces_is_told() {
    let mut world = World::new();
    world.obliging = false;
    world.send(&connect_5("c", &[]));
    world.event(polymq_contract::Event::TakenOver);
    let connack = world.sent();
    assert_eq!((connack[0], connack[3]), (0x20, 0x88));
    assert!(world.is_closed());
}

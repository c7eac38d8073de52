use polymq_contract::{Answer, Command, Login, Mechanisms, Offer, RefusalKind};
use polymq_model::{Limits, RequestId, UserName};

use crate::world::*;

const METHOD: &str = "SCRAM-SHA-256";

fn properties(data: &str) -> Vec<u8> {
    [vec![0x15], text(METHOD), vec![0x16], text(data)].concat()
}

fn auth(reason: u8, data: &str) -> Vec<u8> {
    packet(0xF0, &[vec![reason], props(&properties(data))].concat())
}

fn step(world: &mut World) -> (RequestId, Login) {
    match world.commands().remove(0) {
        Command::Authenticate { request, login } => (request, *login),
        other => panic!("{other:?}"),
    }
}

fn authenticated(server_final: &str) -> Answer {
    Answer::Authenticated {
        user: UserName::new("u").unwrap(),
        impersonator: false,
        server_final: server_final.as_bytes().to_vec(),
    }
}

fn scram() -> World {
    let mut world = World::new();
    world.obliging = false;
    world.send(&connect_5("c", &properties("first")));
    let (request, login) = step(&mut world);
    assert!(matches!(login, Login::ScramFirst { message, .. } if message.expose() == b"first"));
    world.answer(request, Ok(Answer::Challenge(b"server-first".to_vec())));
    assert_eq!(world.sent(), auth(0x18, "server-first"));
    world.send(&auth(0x18, "final"));
    let (request, login) = step(&mut world);
    assert!(matches!(login, Login::ScramFinal { message } if message.expose() == b"final"));
    world.obliging = true;
    world.answer(request, Ok(authenticated("server-final")));
    world
}

#[test] // [MQTT-4.12.0-2] to [MQTT-4.12.0-5]
fn scram_login_ends_with_connack() {
    let mut world = scram();
    let sent = world.sent();
    let last = properties("server-final");
    assert_eq!(sent[3], 0);
    assert!(sent.windows(last.len()).any(|bytes| bytes == last), "{sent:x?}");
}

#[test] // Section 4.12
fn a_method_that_is_switched_off_is_refused_at_once() {
    for properties in [properties("first"), [vec![0x15], text(METHOD)].concat()] {
        let offer = Offer::new(Mechanisms { scram_sha_256: false, ..Mechanisms::ALL });
        let mqtt = polymq_mqtt::Mqtt::new("amq.topic", offer);
        let mut world = World::speaking(mqtt, Limits::default(), None);
        world.send(&connect_5("c", &properties));
        assert_eq!(world.sent()[3], 0x8C);
        assert!(world.is_closed());
        assert!(world.commands().is_empty(), "nobody is asked");
    }
}

#[test]
fn first_message_may_come_in_auth() {
    let mut world = World::new();
    world.obliging = false;
    world.send(&connect_5("c", &[vec![0x15], text(METHOD)].concat()));
    let bare = packet(0xF0, &[vec![0x18], props(&[vec![0x15], text(METHOD)].concat())].concat());
    assert_eq!(world.sent(), bare);
    world.send(&auth(0x18, "first"));
    assert!(matches!(step(&mut world).1, Login::ScramFirst { .. }));
}

#[test] // [MQTT-4.12.0-1]
fn unknown_method_is_refused() {
    let mut world = World::new();
    world.send(&connect_5("c", &[vec![0x15], text("X")].concat()));
    assert_eq!(world.sent()[3], 0x8C);
    assert!(world.is_closed());
}

#[test] // [MQTT-3.1.2-30]
fn only_auth_and_disconnect_may_come_during_a_login() {
    for (bytes, reason) in [
        (vec![0xC0, 0], 0x82),
        (publish_5(0, "a", 0, &[], b""), 0x82),
        (auth(0x19, "x"), 0x82),
        (auth(0x00, "x"), 0x82),
        (packet(0xF0, &[0x18, 4, 0x15, 0, 1, b'X']), 0x82),
    ] {
        let mut world = World::new();
        world.obliging = false;
        world.send(&connect_5("c", &properties("first")));
        let (request, _) = step(&mut world);
        world.answer(request, Ok(Answer::Challenge(b"server-first".to_vec())));
        world.sent();
        world.send(&bytes);
        assert_eq!(world.sent()[3], reason);
        assert!(world.is_closed());
    }
}

#[test] // [MQTT-4.12.1-1], [MQTT-4.12.1-2]
fn client_may_log_in_again() {
    let mut world = scram();
    (world.obliging, world.commands) = (false, Vec::new());
    world.sent();
    world.send(&auth(0x19, "first"));
    let (request, login) = step(&mut world);
    assert!(matches!(login, Login::ScramFirst { .. }));
    world.answer(request, Ok(Answer::Challenge(b"again".to_vec())));
    assert_eq!(world.sent(), auth(0x18, "again"));
    // Other packets may come in between.
    world.send(&[0xC0, 0]);
    assert_eq!(world.sent(), [0xD0, 0]);
    world.send(&auth(0x18, "final"));
    let (request, _) = step(&mut world);
    world.answer(request, Ok(authenticated("done")));
    assert_eq!(world.sent(), auth(0x00, "done"));
}

#[test] // [MQTT-4.12.1-2]
fn failed_second_login_ends_the_connection() {
    let mut world = scram();
    (world.obliging, world.commands) = (false, Vec::new());
    world.sent();
    world.send(&auth(0x19, "first"));
    let (request, _) = step(&mut world);
    world.refuse(request, RefusalKind::LoginFailed);
    world.expect_disconnect(0x87);
}

#[test] // Section 3.15: AUTH needs a method in CONNECT, and comes in turn.
fn auth_out_of_turn_is_a_protocol_error() {
    let mut world = World::v5();
    world.send(&auth(0x19, "x"));
    world.expect_disconnect(0x82);
    let mut world = scram();
    world.sent();
    world.send(&auth(0x18, "x"));
    world.expect_disconnect(0x82);
}

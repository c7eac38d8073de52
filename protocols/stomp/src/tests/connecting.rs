//! CONNECT, CONNECTED, heart-beats, DISCONNECT.

use super::*;

fn login(world: &mut World) -> Login {
    match world.orders.remove(0) {
        Command::Authenticate { login, .. } => *login,
        other => panic!("{other:?}"),
    }
}

#[test] // 1.2, CONNECT or STOMP Frame, CONNECTED Frame.
fn highest_common_version_is_agreed_upon() {
    for (accepted, version) in [("1.0,1.1,1.2", "1.2"), ("1.1", "1.1"), ("1.0", "1.0")] {
        for command in ["CONNECT", "STOMP"] {
            let mut world = World::new();
            world.send(&format!("{command}\naccept-version:{accepted}\nhost:/\n\n\0"));
            let connected = world.one();
            assert_eq!(connected.command, "CONNECTED");
            assert_eq!(connected.get("version"), Some(version));
            assert!(connected.get("server").unwrap().starts_with("PolyMQ/"));
            assert!(connected.get("session").is_some());
            assert!(world.effects.logged_in);
        }
    }
}

#[test] // 1.1, Protocol Negotiation.
fn unknown_version_is_answered_with_the_known_ones() {
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.9,2.0\nhost:/\n\n\0");
    let error = world.error();
    assert_eq!(error.get("version"), Some("1.0,1.1,1.2"));
    assert!(error.text().contains("1.9,2.0"));
}

#[test] // 1.0: there is no accept-version, and a space behind the colon means nothing.
fn client_of_1_0_logs_in() {
    let mut world = World::new();
    world.send("CONNECT\nlogin: guest\npasscode: secret\n\n\0\n");
    let login = login(&mut world);
    let password = polymq_contract::Secret::new("secret");
    assert_eq!(login, Login::Password { user: "guest".to_owned(), password });
    assert_eq!(world.one().get("version"), Some("1.0"));
}

#[test] // 1.2, Value Encoding: CONNECT has no escapes.
fn login_is_taken_as_it_stands() {
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.2\nhost:/\nlogin:a\\b\npasscode: p:\\c \n\n\0");
    let password = polymq_contract::Secret::new(" p:\\c ");
    assert_eq!(login(&mut world), Login::Password { user: "a\\b".to_owned(), password });
}

#[test]
fn client_without_login_is_anonymous() {
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    assert_eq!(login(&mut world), Login::Anonymous);
}

#[test]
fn host_is_the_virtual_host() {
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.2\nhost:shop\n\n\0");
    let asked = world.orders.iter().find_map(|order| match order {
        Command::OpenVhost { vhost, .. } => vhost.as_deref(),
        _ => None,
    });
    assert_eq!(asked, Some("shop"));
}

#[test]
fn host_that_names_the_machine_is_the_listeners_unless_it_must_be_one() {
    let connect = "CONNECT\naccept-version:1.2\nhost:broker.example.org\n\n\0";
    let mut world = World::new();
    world.refuse("open", RefusalKind::NotFound);
    world.send(connect);
    assert_eq!(world.one().command, "CONNECTED");
    let settings = Settings { strict_host: true, ..Settings::default() };
    let mut world = World::with(settings, Limits::default());
    world.refuse("open", RefusalKind::NotFound);
    world.send(connect);
    assert_eq!(world.error().get("message"), Some("not found"));
    let mut world = World::new();
    world.refuse("open", RefusalKind::Denied);
    world.send(connect);
    assert_eq!(world.error().get("message"), Some("access refused"));
}

#[test]
fn wrong_login_is_an_error() {
    let mut world = World::new();
    world.refuse("authenticate", RefusalKind::LoginFailed);
    world.send("CONNECT\naccept-version:1.2\nhost:/\nlogin:x\npasscode:y\n\n\0");
    assert_eq!(world.error().get("message"), Some("login refused"));
    assert!(!world.effects.logged_in);
}

#[test]
fn first_frame_must_be_connect_and_there_is_one() {
    let mut world = World::new();
    world.send("SEND\ndestination:/queue/q\n\nx\0");
    assert_eq!(world.error().get("message"), Some("unexpected frame"));
    let mut world = World::connected("1.2");
    world.send("CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    assert_eq!(world.error().get("message"), Some("unexpected frame"));
}

#[test] // 1.2, Heart-beating.
fn heart_beats_go_both_ways() {
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:1000,500\n\n\0");
    assert_eq!(world.one().get("heart-beat"), Some("500,1000"));
    world.pass(300);
    assert_eq!(&world.effects.out.take_all()[..], b"\n");
    for _ in 0..10 {
        world.pass(900);
        world.send("\n");
        assert!(!world.is_closed());
    }
    world.pass(1999);
    assert!(!world.is_closed());
    world.pass(2);
    assert_eq!(world.effects.close.as_ref().unwrap().cause, "heart_beat");
}

#[test]
fn silence_while_nothing_is_read_proves_nothing() {
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:1000,0\n\n\0");
    world.event(Event::Blocked { reason: "memory".into() });
    for _ in 0..10 {
        world.pass(2000);
    }
    assert!(!world.is_closed());
    world.event(Event::Unblocked);
    world.pass(2001);
    assert!(world.is_closed());
}

#[test]
fn heart_beat_must_be_two_numbers_and_may_be_absent() {
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:5\n\n\0");
    assert_eq!(world.error().get("message"), Some("malformed frame"));
    let mut world = World::new();
    world.send("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:1,1\n\n\0");
    assert_eq!(world.one().get("heart-beat"), Some("100,100"));
    let world = World::connected("1.2");
    assert_eq!(world.session.next_timeout(), None);
}

#[test] // A1
fn login_has_an_end() {
    let mut world = World::new();
    world.send("CONN");
    world.pass(10_000);
    assert_eq!(world.effects.close.as_ref().unwrap().cause, "login_timeout");
}

#[test] // A2
fn login_has_the_limits_of_strangers() {
    let mut world = World::new();
    world.send(&format!("CONNECT\nlogin:{}", "x".repeat(9000)));
    assert!(world.error().text().contains("8192"));
    let mut world = World::new();
    world.send(&format!("CONNECT\n{}\n\0", "a:b\n".repeat(33)));
    assert!(world.error().text().contains("32 headers"));
}

#[test] // 1.2, DISCONNECT: everything before its receipt has been dealt with.
fn receipt_of_disconnect_comes_last() {
    let mut world = World::connected("1.2");
    world.holds_confirms = true;
    world.holds_commits = true;
    world.send("SEND\ndestination:/topic/t\nreceipt:1\n\nx\0DISCONNECT\nreceipt:2\n\n\0");
    assert!(world.said().is_empty());
    let request = world.commit().request;
    world.event(Event::Answered { request, answer: Box::new(Ok(Answer::Done)) });
    assert!(world.said().is_empty() && !world.is_closed());
    world.event(confirmed(1, PublishOutcome::Routed(Durability::Sync)));
    assert_eq!(world.receipts(), ["1", "2"]);
    assert!(world.is_closed());
}

#[test]
fn disconnect_without_receipt_closes() {
    let mut world = World::connected("1.1");
    world.send("DISCONNECT\n\n\0SEND\ndestination:/topic/t\n\nx\0");
    assert_eq!(world.effects.close.as_ref().unwrap().cause, "client");
    assert!(world.publishes().is_empty());
}

#[test]
fn closing_of_the_server_is_told() {
    let mut world = World::connected("1.2");
    world.event(Event::Closing { reason: "the server stops".into(), shutdown: true });
    assert_eq!(world.error().text(), "the server stops");
}

#[test]
fn strangers_of_other_protocols_are_told_apart() {
    use polymq_contract::Recognised::{No, Unsure, Yes};
    for (bytes, recognised) in [
        (&b"CONNECT\n"[..], Yes),
        (b"STOMP\r\n", Yes),
        (b"\nCONNECT\n", Yes),
        (b"CONN", Unsure),
        (b"", Unsure),
        (b"CONNECT", Unsure),
        (b"CONNECT example.org:443 HTTP/1.1", No),
        (b"AMQP\0\0\x09\x01", No),
        (b"\x10\x0c\0\x04MQTT", No),
        (b"GET /", No),
    ] {
        assert_eq!(Stomp::default().recognise(bytes), recognised, "{bytes:?}");
    }
}

#[test]
fn long_token_logs_in_and_a_longer_one_is_told_the_setting() {
    let connect = |bytes: usize| {
        let token = "t".repeat(bytes);
        format!("CONNECT\naccept-version:1.2\nhost:/\nlogin:u\npasscode:{token}\n\n\0")
    };
    let mut world = World::new();
    world.send(&connect(6000));
    assert!(!world.is_closed(), "{:?}", world.said());
    let mut world = World::new();
    world.send(&connect(9000));
    assert!(world.error().text().contains("limits.login_size"));
}

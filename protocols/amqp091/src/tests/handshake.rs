//! From the protocol header to `open-ok`, heartbeats, and both ways to close.

use std::sync::Arc;

use amq_protocol::{
    protocol::connection::{AMQPMethod, Close, CloseOk, UpdateSecret, UpdateSecretOk},
    types::AMQPValue,
};
use polymq_contract::{
    Account, KnownUser, Login, Mechanisms, Offer, PasswordsInClear, Recognised, Secret, TlsPeer,
};

use super::*;

fn start(world: &mut World) -> connection::Start {
    world.bytes(b"AMQP\x00\x00\x09\x01");
    match world.method() {
        (0, AMQPClass::Connection(AMQPMethod::Start(start))) => start,
        other => panic!("start expected, not {other:?}"),
    }
}

fn login(world: &mut World) -> Login {
    authenticate(world).1
}

fn authenticate(world: &mut World) -> (RequestId, Login) {
    match world.command() {
        Command::Authenticate { request, login } => (request, *login),
        other => panic!("authenticate expected, not {other:?}"),
    }
}

#[test]
fn server_names_itself_and_its_capabilities() {
    let start = start(&mut World::new());
    assert_eq!((start.version_major, start.version_minor), (0, 9));
    assert_eq!(start.mechanisms.as_bytes(), b"PLAIN AMQPLAIN");
    let properties = start.server_properties.inner();
    assert_eq!(properties["product"], AMQPValue::LongString("PolyMQ".into()));
    let Some(AMQPValue::FieldTable(capabilities)) = properties.get("capabilities") else {
        panic!("capabilities missing")
    };
    assert_eq!(capabilities.inner().len(), 9);
    assert!(capabilities.contains_key("per_consumer_qos"));
}

#[test] // Section 4.2.2: a server answers a version it does not speak with the one it does.
fn other_protocol_headers_are_answered_with_ours() {
    for header in [&b"AMQP\x00\x01\x00\x00"[..], b"AMQP\x01\x01\x00\x09", b"GET / HTTP/1.1\r\n"] {
        let mut world = World::new();
        world.bytes(header);
        assert_eq!(&world.unread[..], b"AMQP\x00\x00\x09\x01");
        assert!(world.closed().is_some());
    }
}

#[test]
fn header_may_come_byte_by_byte() {
    let mut world = World::new();
    for byte in b"AMQP\x00\x00\x09" {
        world.bytes(&[*byte]);
        world.expect_nothing();
    }
    world.bytes(&[1]);
    world.method();
}

#[test]
fn only_amqp_but_not_its_version_1_is_recognised() {
    let amqp = Amqp091::default();
    assert_eq!(amqp.recognise(b"AMQP\x00\x00\x09\x01"), Recognised::Yes);
    assert_eq!(amqp.recognise(b"AMQP\x00\x00\x08\x00"), Recognised::Yes);
    assert_eq!(amqp.recognise(b"AMQP\x03\x01\x00\x00"), Recognised::No);
    assert_eq!(amqp.recognise(b"AM"), Recognised::Unsure);
    assert_eq!(amqp.recognise(b""), Recognised::Unsure);
    assert_eq!(amqp.recognise(b"\x10\x20"), Recognised::No);
}

#[test]
fn plain_amqplain_and_external_become_logins() {
    let password = |user: &str| Login::Password {
        user: user.to_owned(),
        password: Secret::new(b"secret".as_slice()),
    };
    let mut world = World::new();
    start(&mut world);
    world.start_ok("PLAIN", b"\x00alice\x00secret", &[]);
    assert_eq!(login(&mut world), password("alice"));

    let mut world = World::new();
    start(&mut world);
    let text = |text: &str| Value::String(text.to_owned());
    let fields = headers(&[("LOGIN", text("bob")), ("PASSWORD", text("secret"))]);
    world.start_ok("AMQPLAIN", &fields, &[]);
    assert_eq!(login(&mut world), password("bob"));

    let tls = TlsPeer { certificate_user: Some("carol".to_owned()), ..TlsPeer::default() };
    let peer = Peer { tls: Some(Arc::new(tls)), ..peer() };
    let mut world = World::with(peer, Limits::default());
    assert_eq!(start(&mut world).mechanisms.as_bytes(), b"PLAIN AMQPLAIN EXTERNAL");
    world.start_ok("EXTERNAL", b"", &[]);
    assert_eq!(login(&mut world), Login::Certificate { identity: String::new() });
}

#[test]
fn whoever_has_logged_in_before_is_offered_external() {
    let account = Some(Account::Known(KnownUser::new(())));
    let mut world = World::with(Peer { account, ..peer() }, Limits::default());
    assert_eq!(start(&mut world).mechanisms.as_bytes(), b"PLAIN AMQPLAIN EXTERNAL");
}

#[test]
fn failed_login_is_told_to_clients_that_understand_it() {
    let mut world = World::new();
    start(&mut world);
    world.start_ok("PLAIN", b"\x00a\x00b", &["authentication_failure_close"]);
    world.refuse(RefusalKind::LoginFailed);
    world.expect_connection_close(403, (0, 0));
    assert!(world.closed().is_none());

    let mut world = World::new();
    start(&mut world);
    world.start_ok("PLAIN", b"\x00a\x00b", &[]);
    world.refuse(RefusalKind::LoginFailed);
    world.expect_nothing();
    assert_eq!(world.closed().unwrap().cause, "login_failed");
}

#[test]
fn unknown_mechanism_is_503_and_malformed_response_502() {
    let mut world = World::new();
    start(&mut world);
    world.start_ok("CRAM", b"", &[]);
    world.expect_connection_close(503, (10, 11));

    let mut world = World::new();
    start(&mut world);
    world.start_ok("PLAIN", b"guest", &[]);
    world.expect_connection_close(502, (10, 11));
}

fn tuning() -> World {
    let mut world = World::new();
    start(&mut world);
    world.start_ok("PLAIN", b"\x00a\x00b", &[]);
    let request = world.request();
    world.answer(request, authenticated("a"));
    let tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
    assert_eq!(world.method(), (0, AMQPClass::Connection(AMQPMethod::Tune(tune))));
    world
}

#[test]
fn tuning_beyond_what_was_offered_is_530() {
    for (channel_max, frame_max) in
        [(2048, 131_072), (0, 131_072), (2047, 131_073), (2047, 4095), (2047, 0)]
    {
        let mut world = tuning();
        world.tune_ok(channel_max, frame_max, 0);
        world.expect_connection_close(530, (10, 31));
    }
    let mut world = tuning();
    world.tune_ok(1, 4096, 0);
    world.expect_nothing();
}

#[test]
fn missing_or_forbidden_virtual_host_is_530() {
    for kind in [RefusalKind::NotFound, RefusalKind::Denied, RefusalKind::Limit] {
        let mut world = tuning();
        world.tune_ok(2047, 131_072, 0);
        world.connection_open("nowhere");
        world.refuse(kind);
        world.expect_connection_close(530, (10, 40));
    }
}

#[test]
fn methods_out_of_order_are_503() {
    let mut world = World::new();
    start(&mut world);
    world.connection_open("/");
    world.expect_connection_close(503, (10, 40));

    let mut world = World::new();
    start(&mut world);
    world.raw_method(1, &[0, 20, 0, 10, 0]);
    world.expect_connection_close(503, (0, 0));
}

#[test]
fn frames_before_open_are_limited_to_8_kib() {
    let mut world = World::new();
    start(&mut world);
    world.bytes(&[1, 0, 0, 0, 0, 0x20, 1]);
    world.expect_connection_close(501, (0, 0));
}

#[test]
fn input_waits_while_an_answer_is_due() {
    let mut world = tuning();
    let mut both = BytesMut::new();
    let tune = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
    cold::put(&mut both, 0, &AMQPClass::Connection(AMQPMethod::TuneOk(tune)));
    let open = connection::Open { virtual_host: "/".into() };
    cold::put(&mut both, 0, &AMQPClass::Connection(AMQPMethod::Open(open)));
    cold::put(&mut both, 1, &AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
    world.bytes(&both);
    assert!(world.effects.waiting);
    world.expect_nothing();
    let request = world.request();
    world.answer(request, Ok(Answer::VhostOpened));
    assert_eq!(world.all().len(), 1);
    world.done();
    assert!(!world.effects.waiting);
    assert_eq!(world.all().len(), 1);
}

#[test] // A user's limit of channels closes the connection with 530, as in RabbitMQ.
fn one_channel_too_many_closes_the_connection() {
    let mut world = World::open();
    world.ask_for_channel(2);
    world.refuse(RefusalKind::Limit);
    world.expect_connection_close(530, (20, 10));
}

#[test]
fn the_broker_learns_of_every_channel_that_closes() {
    let mut world = World::open();
    world.effects.commands.clear();
    let close = channel::Close { reply_code: 200, ..channel::Close::default() };
    world.send(1, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
    let closed = |command: &Command| matches!(command, Command::CloseChannel { .. });
    assert_eq!(world.effects.commands.iter().filter(|command| closed(command)).count(), 1);
}

#[test]
fn close_of_the_client_is_confirmed() {
    let mut world = World::open();
    let close = Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
    world.send(0, AMQPClass::Connection(AMQPMethod::Close(close)));
    assert_eq!(world.method(), (0, AMQPClass::Connection(AMQPMethod::CloseOk(CloseOk {}))));
    assert_eq!(world.closed().unwrap().cause, "client");
}

#[test]
fn closing_server_says_320_and_waits_for_the_answer() {
    let mut world = World::open();
    world.event(Event::Closing { reason: "shutdown".into(), shutdown: true });
    let text = world.expect_connection_close(320, (0, 0));
    assert_eq!(text, "CONNECTION_FORCED - shutdown");
    assert!(world.closed().is_none());
    world.open_after_close();
    world.send(0, AMQPClass::Connection(AMQPMethod::CloseOk(CloseOk {})));
    assert!(world.closed().is_some());
}

impl World {
    /// Frames after `connection.close` are ignored.
    fn open_after_close(&mut self) {
        self.send(2, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        self.expect_nothing();
    }
}

#[test]
fn client_that_never_confirms_our_close_is_cut_off() {
    let mut world = World::open();
    world.event(Event::Closing { reason: "shutdown".into(), shutdown: true });
    assert_eq!(world.next_timeout().unwrap().reason, "close");
    world.pass(Duration::from_secs(5));
    assert!(world.closed().is_some());
}

#[test]
fn login_that_takes_too_long_ends() {
    let mut world = World::new();
    assert_eq!(world.next_timeout().unwrap().reason, "login");
    world.pass(Duration::from_secs(10));
    assert_eq!(world.closed().unwrap().cause, "login_timeout");
}

#[test] // Section 4.2.7.
fn heartbeats_leave_at_half_the_interval_and_silence_ends_the_connection() {
    let mut world = World::open();
    assert_eq!(world.next_timeout().unwrap().reason, "heartbeat");
    world.pass(Duration::from_secs(29));
    world.expect_nothing();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.all(), vec![Sent::Heartbeat]);
    world.bytes(&frame::HEARTBEAT_FRAME);
    world.pass(Duration::from_secs(60));
    assert!(world.closed().is_none());
    world.pass(Duration::from_secs(60));
    assert_eq!(world.closed().unwrap().cause, "heartbeat");
}

#[test]
fn silence_of_a_client_that_is_not_read_does_not_count() {
    let mut world = World::open();
    world.event(Event::Blocked { reason: "disk full".into() });
    world.pass(Duration::from_secs(600));
    assert!(world.closed().is_none());
    world.event(Event::Unblocked);
    world.pass(Duration::from_secs(119));
    assert!(world.closed().is_none());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.closed().unwrap().cause, "heartbeat");
}

#[test]
fn blocking_is_told_to_clients_that_understand_it() {
    let mut world = World::open();
    world.event(Event::Blocked { reason: "disk full".into() });
    world.event(Event::Unblocked);
    let blocked = connection::Blocked { reason: "disk full".into() };
    assert_eq!(world.method(), (0, AMQPClass::Connection(AMQPMethod::Blocked(blocked))));
    assert_eq!(
        world.method(),
        (0, AMQPClass::Connection(AMQPMethod::Unblocked(connection::Unblocked {})))
    );
    let mut world = World::open_with(Limits::default());
    world.event(Event::Blocked { reason: "disk full".into() });
    world.expect_nothing();
}

#[test]
fn new_secret_is_acknowledged() {
    let mut world = World::open();
    let update = || UpdateSecret { new_secret: "token".into(), reason: "expired".into() };
    world.send(0, AMQPClass::Connection(AMQPMethod::UpdateSecret(update())));
    let (request, login) = authenticate(&mut world);
    let password = Secret::new("token");
    assert_eq!(login, Login::Password { user: "guest".to_owned(), password });
    world.answer(request, authenticated("guest"));
    assert_eq!(
        world.method(),
        (0, AMQPClass::Connection(AMQPMethod::UpdateSecretOk(UpdateSecretOk {})))
    );
}

#[test]
fn a_secret_that_is_refused_costs_the_connection() {
    let mut world = World::open();
    let update = UpdateSecret { new_secret: "another's".into(), reason: "expired".into() };
    world.send(0, AMQPClass::Connection(AMQPMethod::UpdateSecret(update)));
    world.refuse(RefusalKind::LoginFailed);
    world.expect_connection_close(530, (10, 70));
}

#[test]
fn only_what_is_switched_on_is_offered() {
    let offer = Offer::new(Mechanisms { plain: false, ..Mechanisms::ALL });
    let settings = crate::Settings { offer: offer.clone(), ..crate::Settings::default() };
    let amqp = Amqp091::new(settings);
    let mut world = World::new();
    world.replace(&amqp);
    assert!(start(&mut world).mechanisms.as_bytes().is_empty());
    offer.set(Mechanisms::ALL);
    world.replace(&amqp);
    assert_eq!(start(&mut world).mechanisms.as_bytes(), b"PLAIN AMQPLAIN");
}

#[test]
fn no_password_is_asked_for_where_none_is_taken() {
    let offered = |in_clear, is_loopback| {
        let offer = Offer::new(Mechanisms { plain_in_clear: in_clear, ..Mechanisms::ALL });
        let amqp = Amqp091::new(crate::Settings { offer, ..crate::Settings::default() });
        let mut world = World::new();
        world.replace_for(&amqp, Peer { is_loopback, ..peer() });
        let mechanisms = start(&mut world).mechanisms;
        String::from_utf8(mechanisms.as_bytes().to_vec()).unwrap()
    };
    for (in_clear, is_loopback, mechanisms) in [
        (PasswordsInClear::Anywhere, false, "PLAIN AMQPLAIN"),
        (PasswordsInClear::Loopback, true, "PLAIN AMQPLAIN"),
        (PasswordsInClear::Loopback, false, ""),
        (PasswordsInClear::Nowhere, true, ""),
    ] {
        assert_eq!(offered(in_clear, is_loopback), mechanisms, "{in_clear:?} {is_loopback}");
    }
}

#[test] // RFC 4616: nobody acts as somebody else.
fn authorization_identity_is_the_user_or_nothing() {
    for (response, is_taken) in [
        (&b"guest\0guest\0guest"[..], true),
        (b"\0guest\0guest", true),
        (b"admin\0guest\0guest", false),
    ] {
        let mut world = World::new();
        start(&mut world);
        world.start_ok("PLAIN", response, &["authentication_failure_close"]);
        if is_taken {
            assert!(matches!(world.command(), Command::Authenticate { .. }));
        } else {
            let text = world.expect_connection_close(403, (10, 11));
            assert!(text.contains("'admin' is not the user"), "{text}");
        }
    }
}

#[test]
fn what_is_too_large_before_the_login_names_the_setting() {
    let mut world = World::new();
    start(&mut world);
    world.start_ok("PLAIN", &[b'x'; 9000], &[]);
    let text = world.expect_connection_close(501, (0, 0));
    assert!(text.contains("limits.login_size"), "{text}");
}

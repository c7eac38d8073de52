//! Clients that are slow, large or many. A second has 100 ms here.

use std::time::Instant;

use serde_json::json;
use tokio::net::TcpSocket;

use super::*;

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, world.port)).await.unwrap()
}

/// Reads what comes until the server closes.
async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A close with unread input may come as a reset.
    let _ = tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until something is so that nobody tells.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < TIMEOUT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_and_others_are_served() {
    let world = World::start(Audience::Users).await;
    let mut slow = connect(&world).await;
    let begun = Instant::now();
    slow.write_all(b"GET /health/live HTTP/1.1\r\nHost:").await.unwrap();
    let (mut reader, mut writer) = slow.into_split();
    // A byte now and then does not help.
    let drip = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(TIMEOUT, reader.read_to_end(&mut bytes));
    tokio::select! {
        ended = end => drop(ended.unwrap()),
        () = drip => {}
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "ten seconds are allowed");
    assert_eq!(world.get("/health/live").await.0, 200);
}

#[tokio::test]
async fn a_body_that_stands_still_is_answered_408() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut client = world.client("u").await;
    let head = format!(
        "POST /api/v1/vhosts/~/queues/q/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\
         Content-Length: 10\r\n\r\nfour",
        client.authorization
    );
    client.socket.get_mut().write_all(head.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(TIMEOUT, client.read()).await.unwrap();
    assert_eq!((answer.status, &*answer.code()), (408, "body_timeout"));
    assert_eq!(world.ready("q"), 0);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_its_messages_stay() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut writer = world.client("u").await;
    let body = vec![b'x'; 100_000];
    for _ in 0..100 {
        let path = "POST /api/v1/vhosts/~/queues/q/messages";
        assert_eq!(writer.ask(path, &[], &body).await.status, 200);
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = socket.connect((Ipv4Addr::LOCALHOST, world.port).into()).await.unwrap();
    let head = format!(
        "GET /api/v1/vhosts/~/subscribe?queue=q&ack=auto HTTP/1.1\r\nHost: x\r\n\
         Authorization: {}\r\n\r\n",
        writer.authorization
    );
    stuck.write_all(head.as_bytes()).await.unwrap();
    let open = || world.broker.connection_totals().connections();
    let before = open();
    until("the subscription has begun", || open() > before).await;
    // Nothing is read, so only what the system buffers has gone, and in the end the rest is back.
    until("the reader is cut", || open() == before).await;
    assert!(world.ready("q") > 0);
    drop(stuck);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let world = World::start(Audience::Users).await;
    let many: String = (0..101).map(|number| format!("H{number}: x\r\n")).collect();
    for (what, lines) in
        [("bytes", format!("Long: {}\r\n", "x".repeat(17 * 1024))), ("headers", many)]
    {
        let mut socket = connect(&world).await;
        let head = format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn bodies_are_counted_while_they_come() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut client = world.client("u").await;
    let publish = "POST /api/v1/vhosts/~/queues/q/messages";
    let large = client.ask(publish, &[], &vec![b'x'; 100_001]).await;
    assert_eq!((large.status, &*large.code()), (413, "message_too_large"));
    let mut client = world.client("u").await;
    let path = "POST /api/v1/convert:explain";
    let json = [("Content-Type", "application/json")];
    let large = client.ask(path, &json, &vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!((large.status, &*large.code()), (413, "body_too_large"));
    // The same without a length that says so beforehand.
    let mut socket = connect(&world).await;
    let head = format!(
        "{publish} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        client.authorization
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..11 {
        let chunk = [b"2710\r\n".as_slice(), &[b'x'; 10_000], b"\r\n"].concat();
        if socket.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
    assert_eq!(world.ready("q"), 0);
}

#[tokio::test]
async fn connections_beyond_their_number_wait_for_others_to_go() {
    let few = |settings: &mut Settings| settings.connections_max = 2;
    let world = World::start_with(Audience::Users, few).await;
    let (first, _second) = (connect(&world).await, connect(&world).await);
    let mut third = connect(&world).await;
    let request = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    third.write_all(request).await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), third.read(&mut byte)).await;
    assert!(early.is_err(), "nobody has gone");
    drop(first);
    assert!(rest(&mut third).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_number_of_connections_grows_and_shrinks_while_they_are_open() {
    let few = |settings: &mut Settings| settings.connections_max = 1;
    let world = World::start_with(Audience::Users, few).await;
    let first = connect(&world).await;
    let request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut second = connect(&world).await;
    second.write_all(request).await.unwrap();
    let mut byte = [0];
    world.http.set(Settings { connections_max: 3, ..settings() });
    second.read_exact(&mut byte).await.unwrap();
    let mut third = connect(&world).await;
    third.write_all(request).await.unwrap();
    third.read_exact(&mut byte).await.unwrap();
    world.http.set(Settings { connections_max: 1, ..settings() });
    drop((first, third));
    // The listener may have had a place for one more; beyond that nobody comes in.
    let mut fourth = connect(&world).await;
    fourth.write_all(request).await.unwrap();
    let mut fifth = connect(&world).await;
    fifth.write_all(request).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), fifth.read(&mut byte)).await;
    assert!(early.is_err(), "one is enough");
    drop((second, fourth));
    fifth.read_exact(&mut byte).await.unwrap();
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_opens_so_many_a_second() {
    for (limits, counter) in [
        (Limits { connections_per_address_max: Some(2), ..Limits::default() }, "refused"),
        (Limits { connection_rate_per_address_max: Some(2), ..Limits::default() }, "too_fast"),
    ] {
        let bounded = |settings: &mut Settings| settings.limits = Arc::new(limits);
        let world = World::start_with(Audience::Users, bounded).await;
        let (_first, _second) = (connect(&world).await, connect(&world).await);
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
            basic("watcher")
        );
        let mut third = connect(&world).await;
        assert_eq!(rest(&mut third).await, "");
        let elsewhere = TcpSocket::new_v4().unwrap();
        elsewhere.bind(([127, 0, 0, 2], 0).into()).unwrap();
        let mut other = elsewhere.connect((Ipv4Addr::LOCALHOST, world.port).into()).await.unwrap();
        other.write_all(request.as_bytes()).await.unwrap();
        let page = rest(&mut other).await;
        assert!(page.contains(&format!("polymq_sockets_{counter}_total 1\n")), "{page}");
    }
}

#[tokio::test]
async fn messages_that_change_their_form_are_counted() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut client = world.client("u").await;
    let publish = "POST /api/v1/vhosts/~/queues/q/messages";
    client.ask(publish, &[], b"x").await;
    let receive = "/api/v1/vhosts/~/queues/q/messages:receive";
    client.post(receive, &json!({ "max": 1 })).await;
    let name = "polymq_conversions_total{";
    assert!(!world.watch("/metrics").await.1.contains(name), "its own form is none");
    let plain = polymq_model::NewMessage {
        format: &polymq_model::format::PLAIN_FORMAT,
        exchange: "",
        key: "q",
        props: b"",
        body: polymq_model::Body::Slice(b"x"),
        durable: false,
        priority: None,
        qos: 0,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    };
    let peer = Arc::new(peer());
    let password = polymq_contract::Secret::new("x");
    let login = polymq_contract::Login::Password { user: "u".to_owned(), password };
    let other = client::Client::connect(&world.broker, &peer, login, Some("/".to_owned()), 1 << 20);
    let message = plain.build(&mut Vec::new());
    let outgoing = client::Outgoing { message, delay: None, mandatory: false };
    drop(other.await.unwrap().publish([outgoing]).await);
    client.post(receive, &json!({ "max": 1, "wait": "5s" })).await;
    let page = world.watch("/metrics").await.1;
    assert!(page.contains(r#"polymq_conversions_total{from="polymq",to="http"} 1"#), "{page}");
}

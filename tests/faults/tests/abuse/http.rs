//! Cases A1, A2, A4 and A9 on the port of HTTP: lengths that lie, requests in requests, heads that
//! do not end, addresses that come too fast, and what others say inside of answers.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::Amqp,
    broker::{Broker, Home},
    report::{say, setting},
    talk::connect_from,
    web::{self, Page},
};
use serde_json::json;

use crate::{served::Honest, strangers::settled_kib};

/// `guest:guest`.
const LOGIN: &str = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=";
const PUBLISH: &str = "POST /api/v1/vhosts/~/exchanges/amq.topic/messages?routing_key=t HTTP/1.1";

fn open(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", broker.port("http").unwrap())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// What is answered to bytes until the broker closes, which it must.
fn answer(mut stream: TcpStream, bytes: &[u8]) -> String {
    // The broker may close while it is still being sent to.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a02_http_lengths_that_lie_end_the_connection() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let with = |headers: &str, body: &str| {
        format!("{PUBLISH}\r\nHost: x\r\n{LOGIN}\r\nConnection: close\r\n{headers}\r\n\r\n{body}")
    };
    let chunked = "Transfer-Encoding: chunked";
    let smuggled = "0\r\n\r\nGET /api/v1/users HTTP/1.1\r\nHost: x\r\n\r\n";
    for (name, request, statuses) in [
        ("length of 18 EiB", with("Content-Length: 18446744073709551615", "x"), "413 431"),
        ("length beyond 64 bits", with("Content-Length: 99999999999999999999", "x"), "400"),
        ("length below zero", with("Content-Length: -1", "x"), "400"),
        ("two lengths", with("Content-Length: 1\r\nContent-Length: 2", "xy"), "400"),
        ("chunk of 16 EiB", with(chunked, "FFFFFFFFFFFFFFFF\r\nx"), "400 413"),
        ("chunk beyond 64 bits", with(chunked, "FFFFFFFFFFFFFFFFFF\r\nx"), "400"),
        ("chunk that is no number", with(chunked, "zz\r\nx"), "400"),
        ("both lengths", with(&format!("{chunked}\r\nContent-Length: 4"), smuggled), "200 400"),
        ("unknown coding", with("Transfer-Encoding: gzip", "x"), "400 501"),
        ("space in a name", with("A B: c", ""), "400"),
        ("no host", format!("{PUBLISH}\r\n{LOGIN}\r\nConnection: close\r\n\r\n"), "200 400"),
        ("no protocol", "\0\0\0\0\r\n\r\n".to_owned(), "400"),
        ("another protocol", "SSH-2.0-x\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = open(&broker);
        stream.write_all(request.as_bytes()).unwrap();
        // Nothing comes after this, so what was promised is missing.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let said = answer(stream, b"");
        let status = said.split(' ').nth(1).unwrap_or_default();
        let is_known = statuses.split(' ').any(|one| one == status) || said.is_empty();
        assert!(is_known, "{name}: {said}");
        assert_eq!(
            said.matches("HTTP/1.1 ").count(),
            usize::from(!said.is_empty()),
            "{name}: {said}"
        );
        honest.is_served();
    }
    assert!(broker.is_alive());
}

#[test]
fn a02_chunks_beyond_the_limit_are_refused_and_not_kept() {
    const LIMIT: &str = "limits.message_size=64KiB";
    let home = Home::new().unwrap();
    let mut broker = home.start_with(&["--set", LIMIT]).unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let chunks =
        |size: usize, count: usize| format!("{size:x}\r\n{}\r\n", "x".repeat(size)).repeat(count);
    let ack = "POST /api/v1/vhosts/~/queues/honest/leases:ack HTTP/1.1";
    let extended = format!("1;{}\r\nx\r\n", "e".repeat(100)).repeat(2000);
    let trailers = format!("1\r\nx\r\n0\r\n{}\r\n", "T: v\r\n".repeat(40_000));
    for (name, line, body, statuses) in [
        ("large chunks", PUBLISH, chunks(20_000, 10), "413"),
        ("one large chunk", PUBLISH, chunks(200_000, 1), "413"),
        ("chunks of a byte", PUBLISH, chunks(1, 70_000), "413"),
        ("a body that is no message", ack, chunks(50_000, 24), "413"),
        ("extensions", PUBLISH, extended, "400"),
        ("trailers", PUBLISH, trailers, "400 431"),
    ] {
        let mut stream = open(&broker);
        let head = format!(
            "{line}\r\nHost: x\r\n{LOGIN}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        // The last chunk never comes, so nothing but the limit ends this. The broker may close
        // while it is still being sent to.
        let _ = stream.write_all([head, body].concat().as_bytes());
        let said = web::head(&mut stream).unwrap_or_else(|error| panic!("{name}: {error}"));
        let status = said.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.split(' ').any(|one| one == status), "{name}: {said}");
        honest.is_served();
    }
    let before = broker.resident_kib().unwrap();
    let half = chunks(30_000, 1);
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = open(&broker);
            let head =
                format!("{PUBLISH}\r\nHost: x\r\n{LOGIN}\r\nTransfer-Encoding: chunked\r\n\r\n");
            stream.write_all([head.as_str(), &half, "FFFF\r\n"].concat().as_bytes()).unwrap();
            stream
        })
        .collect();
    honest.is_served();
    let grown = settled_kib(&broker).saturating_sub(before);
    say(&format!("A2: 100 HTTP clients with chunks of 30 KB: {grown} KiB"));
    assert!(grown < 16 * 1024, "{grown} KiB");
    drop(streams);
    assert!(broker.is_alive());
}

#[test]
fn a02_http_memory_follows_what_was_sent() {
    let count = 100;
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let streams: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = open(&broker);
            let head =
                format!("{PUBLISH}\r\nHost: x\r\n{LOGIN}\r\nContent-Length: 16000000\r\n\r\nfew");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    honest.is_served();
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    say(&format!("A2: {count} HTTP clients promise 16 MB each: {grown} KiB"));
    assert!(grown < 32 * 1024, "{grown} KiB");
    drop(streams);
    assert!(broker.is_alive());
}

#[test]
fn a01_heads_of_http_that_do_not_end_are_cut() {
    let count = setting("POLYMQ_SLOW_HEADS", 500);
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let began = Instant::now();
    let mut streams: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = open(&broker);
            stream.write_all(b"GET /health/live HTTP/1.1\r\nX:").unwrap();
            stream
        })
        .collect();
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    for stream in &mut streams {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let cut_after = began.elapsed();
    say(&format!(
        "A1: {count} slow heads of HTTP: {grown} KiB, all cut after {:.0} s",
        cut_after.as_secs_f64(),
    ));
    honest.is_served();
    assert_eq!(broker.get("/health/live").unwrap().0, 200);
    assert!(cut_after < Duration::from_secs(40), "{cut_after:?}");
    assert!(broker.is_alive());
}

#[test]
fn a04_an_address_that_comes_too_fast_is_closed_and_others_are_served() {
    let home = Home::new().unwrap();
    let flags = ["--set", "limits.connection_rate_per_address=20"];
    let mut broker = home.start_with(&flags).unwrap();
    let mut honest = Honest::new(&broker);
    let ports = [broker.ports.amqp, broker.ports.mqtt, broker.port("http").unwrap()];
    let mut closed = 0_u64;
    for port in ports {
        // More at once than may come in a second; those beyond it are closed before they say
        // anything.
        let mut streams: Vec<_> =
            (0..100).map(|_| connect_from([127, 0, 0, 9], port).unwrap()).collect();
        honest.is_served();
        for stream in &mut streams {
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            closed += u64::from(!matches!(
                stream.read(&mut [0]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
            ));
        }
    }
    let counted = broker.metric("polymq_sockets_too_fast_total").unwrap();
    say(&format!("A4: of 300 connections from one address at once, {counted} are closed"));
    assert!(counted >= 150.0 && closed >= 150, "{counted} {closed}");
    assert!(honest.slowest < Duration::from_secs(2), "{:?}", honest.slowest);
    assert!(broker.is_alive());
}

#[test]
fn a09_what_others_say_ends_no_head_of_http_and_what_http_says_no_frame() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    Amqp::open(broker.ports.amqp).unwrap().declare("nasty").unwrap();
    let mut page = Page::over(open(&broker)).unwrap();
    assert!(page.log_in("guest", "guest").unwrap());
    let listen = json!({
        "op": "subscribe", "id": 1, "sub": "s", "exchange": "amq.topic", "pattern": "k.#",
        "ack": "auto"
    });
    page.say(&listen).unwrap();
    assert_eq!(page.hear().unwrap().unwrap()["op"], "subscribed");
    let mut http = open(&broker);
    for nasty in ["\r\n\r\nHTTP/1.1 200 forged", "x\r\nforged: y", "\n\nforged", "a\0b", "\u{7f}é☃"]
    {
        let properties = json!({
            "content_type": nasty, "message_id": nasty, "type": nasty, "app_id": nasty,
            "reply_to": nasty, "correlation_id": nasty, "headers": { nasty: nasty },
        });
        let message = json!({
            "exchange": "", "routing_key": "nasty", "properties": properties, "payload": nasty
        });
        page.say(&json!({ "op": "publish", "id": 2, "message": message })).unwrap();
        assert_eq!(page.hear().unwrap().unwrap()["op"], "confirm", "{nasty:?}");
        let receive = format!(
            "POST /api/v1/vhosts/~/queues/nasty/messages:receive HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\
             Accept: application/octet-stream\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\n\r\n{{}}"
        );
        http.write_all(receive.as_bytes()).unwrap();
        let (head, body) = web::whole_answer(&mut http).unwrap();
        assert!(head.starts_with("http/1.1 200 "), "{nasty:?}: {head}");
        let is_forged = |line: &str| line.starts_with("forged") || line.starts_with("http/1.1");
        assert!(!head.lines().skip(1).any(is_forged), "{nasty:?}: {head}");
        assert_eq!(body, nasty.as_bytes());

        // The other way: a key of any bytes, and a body that looks like a frame.
        let key: String = format!("k.{nasty}").bytes().map(|byte| format!("%{byte:02X}")).collect();
        let publish = format!(
            "POST /api/v1/vhosts/~/exchanges/amq.topic/messages?routing_key={key} HTTP/1.1\r\n\
             Host: x\r\n{LOGIN}\r\nContent-Length: {}\r\n\r\n{nasty}",
            nasty.len()
        );
        http.write_all(publish.as_bytes()).unwrap();
        let (status, said) = web::answer(&mut http).unwrap();
        assert!([200, 400].contains(&status), "{nasty:?}: {said}");
        if status == 200 {
            let heard = page.hear().unwrap().unwrap();
            assert_eq!(
                (&heard["op"], &heard["message"]["payload"]),
                (&json!("deliver"), &json!(nasty))
            );
        }
        honest.is_served();
    }
    assert!(broker.is_alive());
}

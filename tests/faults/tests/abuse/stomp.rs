//! Cases A2, A6 and A7 over STOMP.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use polymq_faults::{
    broker::{Broker, Home},
    report::say,
};

use crate::served::Honest;

fn dial(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", broker.ports.stomp)).unwrap();
    // Below the login limit, so that it is the lie that ends the connection.
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream
}

fn open(broker: &Broker) -> TcpStream {
    let mut stream = dial(broker);
    let connect = b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0";
    stream.write_all(connect).unwrap();
    assert!(frame(&mut stream).starts_with("CONNECTED"));
    stream
}

/// The next frame without a body of its own length.
fn frame(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != 0 {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends what must end the connection; returns the ERROR before its end.
fn refused(mut stream: TcpStream, bytes: &[u8]) -> String {
    // The broker may close while it is still being sent to.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a02_stomp_lies_end_the_connection() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let endless = [&b"SEND\nk:"[..], &vec![b'v'; 200_000]].concat();
    let many = [&b"SEND\n"[..], &b"a:b\n".repeat(200), b"\n\0"].concat();
    let huge = [&b"SEND\ndestination:/topic/t\n\n"[..], &vec![b'x'; 17 << 20]].concat();
    let with = |headers: &str| format!("SEND\ndestination:/topic/t\n{headers}\n\nx\0").into_bytes();
    for (name, bytes, why) in [
        ("content-length -1", with("content-length:-1"), "not a number"),
        ("content-length huge", with("content-length:99999999999999999999"), "at most"),
        ("content-length short", with("content-length:0"), "no NUL"),
        ("endless header", endless, "headers"),
        ("200 headers", many, "at most 128 headers"),
        ("endless body", huge, "at most 16777216"),
        ("NUL in a header", with("a:\0b"), "UTF-8 without NUL"),
        ("no UTF-8", b"SEND\ndestination:/topic/t\na:\xFF\n\n\0".to_vec(), "UTF-8"),
        ("undefined escape", with("a:\\t"), "undefined escape"),
        ("no frame", b"GET / HTTP/1.1\r\n\r\n\0".to_vec(), "unknown command"),
    ] {
        let said = refused(open(&broker), &bytes);
        assert!(said.starts_with("ERROR\n") && said.contains(why), "{name}: {said}");
        say(&format!("A2: STOMP {name}: {}", said.lines().nth(1).unwrap_or_default()));
        honest.is_served();
    }
    for bytes in [&b"CONNECT\nlogin:"[..], b"SEND\n\n\0", b"\x16\x03\x01\x02\0"] {
        let long = [bytes, &vec![b'x'; 9000], b"\n\n\0"].concat();
        let said = refused(dial(&broker), &long);
        assert!(said.starts_with("ERROR\n"), "{said}");
        honest.is_served();
    }
    assert!(broker.is_alive());
}

#[test]
fn a02_stomp_memory_follows_what_was_sent() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let count = 200;
    let mut kept: Vec<_> = (0..count).map(|_| open(&broker)).collect();
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    for stream in &mut kept {
        let promise = b"SEND\ndestination:/topic/t\ncontent-length:16000000\n\nx";
        stream.write_all(promise).unwrap();
    }
    honest.is_served();
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    say(&format!("A2: {count} STOMP frames of 16 MB with a byte each take {grown} KiB"));
    assert!(grown < 16 * 1024, "{grown} KiB");
}

#[test]
fn a06_stomp_frame_byte_by_byte_is_a_frame() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut stream = dial(&broker);
    stream.set_nodelay(true).unwrap();
    let bytes = b"\n\nCONNECT\r\naccept-version:1.1\r\nhost:/\r\n\r\n\0\n\
                  SEND\ndestination:/topic/t\nreceipt:r\n\nbody\0";
    for byte in bytes {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(frame(&mut stream).starts_with("CONNECTED"));
    assert!(frame(&mut stream).contains("receipt-id:r"));
}

#[test]
fn a07_stomp_reader_that_never_reads_costs_bounded_memory() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let mut lazy = open(&broker);
    lazy.write_all(b"SUBSCRIBE\nid:0\ndestination:/queue/flood\nreceipt:s\n\n\0").unwrap();
    assert!(frame(&mut lazy).contains("receipt-id:s"));
    let mut publisher = open(&broker);
    let before = broker.resident_kib().unwrap();
    let message =
        format!("SEND\ndestination:/queue/flood\npersistent:true\n\n{}\0", "x".repeat(4096));
    let (rounds, per_round) = (32, 256);
    for _ in 0..rounds {
        publisher.write_all(message.repeat(per_round).as_bytes()).unwrap();
        publisher.write_all(b"SEND\ndestination:/topic/end\nreceipt:r\n\n\0").unwrap();
        assert!(frame(&mut publisher).contains("receipt-id:r"));
        honest.is_served();
    }
    let grown = broker.resident_kib().unwrap().saturating_sub(before) / 1024;
    let sent = (rounds * per_round * message.len()) >> 20;
    say(&format!("A7: {sent} MiB for a lazy STOMP subscriber grew the broker by {grown} MiB"));
    // What the queue keeps in memory, and what may wait for a connection.
    assert!(grown < 16 + 40, "{grown} MiB for {sent} MiB");
}

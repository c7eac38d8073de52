//! Case A1: thousands of connections that never log in.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    broker::{Broker, Home, allow_files},
    report::{say, setting, skip},
    web,
};

use crate::served::Honest;

/// The broker's own limit, by default.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// What a machine that is busy may take for something beyond that.
const PATIENCE: Duration = Duration::from_secs(20);
/// Files that the test and the broker use beside the strangers' sockets.
const OTHER_FILES: u64 = 200;
/// Memory of a connection that has not logged in.
const STRANGER_KIB_MAX: f64 = 10.0;

/// Connects and sends the first byte of a login; the second stands beside.
fn stranger(broker: &Broker, number: u64) -> (TcpStream, u8) {
    let ports = broker.ports;
    let (port, path, first, second) = match number % 7 {
        0 => (ports.amqp, None, b'A', b'M'),
        1 => (ports.mqtt, None, 0x10, 0x7F),
        2 => (ports.stomp, None, b'C', b'O'),
        3 => (ports.xmpp, None, b'<', b's'),
        4 => (ports.http, None, b'G', b'E'),
        // A frame of WebSocket, with a mask and a long length.
        5 => (ports.http, Some("/ws/mqtt"), 0x82, 0xFE),
        _ => (ports.http, Some("/ws/json"), 0x81, 0xFE),
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    if let Some(path) = path {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        web::upgrade(&mut stream, path, "").unwrap();
    }
    stream.write_all(&[first]).unwrap();
    (stream, second)
}

/// Resident memory once it no longer grows, as the broker may still be accepting; what it is after
/// a while when it does not come to rest.
pub(crate) fn settled_kib(broker: &Broker) -> u64 {
    let mut last = 0;
    for _ in 0..100 {
        let now = broker.resident_kib().unwrap();
        if now <= last {
            return now;
        }
        last = now;
        thread::sleep(Duration::from_millis(200));
    }
    last
}

fn is_cut(mut stream: &TcpStream, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).unwrap();
    match stream.read(&mut [0; 256]) {
        Ok(0) => true,
        Ok(_) => is_cut(stream, until),
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn a01_connections_that_never_log_in_are_cheap_and_cut_in_time() {
    let count = setting("POLYMQ_STRANGERS", 5000);
    if !allow_files(count + OTHER_FILES) {
        skip("A1", &format!("this process may not open {} files", count + OTHER_FILES));
        return;
    }
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    // Before any login: hashing a password takes more memory than all strangers, and leaves it to
    // the allocator.
    let before = broker.resident_kib().unwrap();
    let began = Instant::now();
    let mut strangers: Vec<_> = (0..count).map(|number| stranger(&broker, number)).collect();
    let opened = Instant::now();
    let after = settled_kib(&broker);
    let each = after.saturating_sub(before) as f64 / count as f64;
    say(&format!(
        "A1: {count} strangers in {} ms, {each:.1} KiB each ({before} KiB before, {after} KiB \
         after)",
        (opened - began).as_millis()
    ));
    assert!(each < STRANGER_KIB_MAX, "{each:.1} KiB each");

    let mut honest = Honest::new(&broker);
    honest.is_served();

    // Another byte in the middle buys no more time.
    thread::sleep((LOGIN_TIMEOUT / 2).saturating_sub(began.elapsed()));
    for (stream, second) in &mut strangers {
        // On a slow machine the first are gone already.
        let _ = stream.write_all(&[*second]);
    }
    while began.elapsed() < LOGIN_TIMEOUT {
        honest.is_served();
        thread::sleep(Duration::from_millis(100));
    }
    let until = opened + LOGIN_TIMEOUT + PATIENCE;
    let cut = strangers.iter().filter(|(stream, _)| is_cut(stream, until)).count();
    say(&format!(
        "A1: {cut} cut {} ms after the last had connected; slowest honest round trip {} ms",
        opened.elapsed().as_millis(),
        honest.slowest.as_millis()
    ));
    assert_eq!(cut, strangers.len());
    honest.is_served();
    assert!(broker.is_alive());
    assert!(honest.slowest < Duration::from_secs(5), "{:?}", honest.slowest);
}

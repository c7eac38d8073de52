//! Cases A2, A3, A4 and A7 over WebSocket, and what idle clients take there.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use polymq_faults::{
    broker::{Broker, Home, allow_files},
    mqtt::{self, Login, Mqtt},
    report::{say, setting},
    web::{self, frame},
};

use crate::{served::Honest, strangers::settled_kib};

/// Larger than what may wait for one connection, many times.
const FLOOD: usize = 16_384;
const MESSAGE: usize = 4096;

/// A connection that was upgraded, and the answer to its handshake.
fn upgrade(broker: &Broker, path: &str, more: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", broker.ports.http)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let answer = web::upgrade(&mut socket, path, more).unwrap();
    (socket, answer)
}

/// CONNECT of MQTT 3.1.1, as a guest with this client id.
fn connect(client_id: &str) -> Vec<u8> {
    let mut body = [&mqtt::text(b"MQTT")[..], &[4, 2, 0, 0]].concat();
    body.extend(mqtt::text(client_id.as_bytes()));
    mqtt::packet(0x10, &body)
}

/// An MQTT client over WebSocket that is connected.
fn connected(broker: &Broker, client_id: &str) -> TcpStream {
    let (mut socket, _) = upgrade(broker, "/ws/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    socket.write_all(&frame(0x82, &connect(client_id))).unwrap();
    let mut connack = [0; 6];
    socket.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x82, 4, 0x20, 2, 0, 0]);
    socket
}

/// The code of the close frame that comes next.
fn close_code(socket: &mut TcpStream) -> u16 {
    let mut head = [0; 4];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x88, "{head:?}");
    u16::from_be_bytes([head[2], head[3]])
}

#[test]
fn a02_lying_frames_of_websocket_end_in_their_close_code() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let declared = |first: u8, length: u64| {
        [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4], b"some bytes"].concat()
    };
    let cases: [(&str, Vec<u8>, u16); 9] = [
        ("2^63 bytes", declared(0x82, 1 << 63), 1002),
        ("2^62 bytes", declared(0x82, 1 << 62), 1009),
        ("4 GiB", declared(0x82, 1 << 32), 1009),
        ("a control frame of 4 GiB", declared(0x89, 1 << 32), 1002),
        ("no mask", vec![0x82, 1, 0], 1002),
        ("a text for MQTT", frame(0x81, b"x"), 1003),
        ("a compressed frame", frame(0xc2, b"x"), 1002),
        ("a fragment of nothing", frame(0x80, b"x"), 1002),
        ("fragments beyond the limit", [frame(0x02, b"x"), declared(0x00, 1 << 25)].concat(), 1009),
    ];
    for (what, bytes, code) in &cases {
        for is_stranger in [true, false] {
            let mut socket = match is_stranger {
                true => upgrade(&broker, "/ws/mqtt", "").0,
                false => connected(&broker, "liar"),
            };
            socket.write_all(bytes).unwrap();
            assert_eq!(close_code(&mut socket), *code, "{what}");
        }
        honest.is_served();
    }
    // Those who promise much and send little cost what they send.
    let promising: Vec<_> = (0..100)
        .map(|number| {
            let mut socket = connected(&broker, &format!("promise-{number}"));
            socket.write_all(&declared(0x82, 16 << 20)).unwrap();
            socket
        })
        .collect();
    honest.is_served();
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    say(&format!("A2: 100 clients that promise 16 MiB in one frame took {grown} KiB together"));
    assert!(grown < 16 * 1024, "{grown} KiB");
    drop(promising);
    assert!(broker.is_alive());
}

#[test]
fn a03_compression_is_not_agreed_on() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (_, answer) = upgrade(&broker, "/ws/json", offer);
    assert!(!answer.to_lowercase().contains("extensions"), "{answer}");
}

#[test]
fn a04_half_handshakes_and_churn_leave_others_served() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let halves: Vec<_> = (0..500)
        .map(|_| {
            let mut half = TcpStream::connect(("127.0.0.1", broker.ports.http)).unwrap();
            half.write_all(b"GET /ws/mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: webso").unwrap();
            half
        })
        .collect();
    honest.is_served();
    for number in 0..1000 {
        let (mut socket, _) = upgrade(&broker, "/ws/mqtt", "");
        if number % 2 == 0 {
            socket.write_all(&frame(0x82, &connect("churn"))).unwrap();
        }
        if number % 100 == 0 {
            honest.is_served();
        }
    }
    honest.is_served();
    say(&format!(
        "A4: 500 half handshakes and 1,000 upgrades that went away; slowest honest round trip \
         {} ms",
        honest.slowest.as_millis()
    ));
    assert!(broker.is_alive());
    assert!(honest.slowest < Duration::from_secs(5), "{:?}", honest.slowest);
    drop(halves);
}

#[test]
fn a07_websocket_clients_that_never_read_cost_bounded_memory() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let mut lazy = connected(&broker, "lazy");
    let subscribe = [&[0, 1][..], &mqtt::text(b"flood"), &[0]].concat();
    lazy.write_all(&frame(0x82, &mqtt::packet(0x82, &subscribe))).unwrap();
    let mut suback = [0; 7];
    lazy.read_exact(&mut suback).unwrap();
    let (mut page, _) = upgrade(&broker, "/ws/json", "");
    for op in [
        r#"{"op":"connect"}"#,
        concat!(
            r#"{"op":"subscribe","id":1,"sub":"s","exchange":"amq.topic","#,
            r#""pattern":"flood","ack":"auto"}"#
        ),
    ] {
        page.write_all(&frame(0x81, op.as_bytes())).unwrap();
    }
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("subscribed") {
        let mut bytes = [0; 1024];
        let count = page.read(&mut bytes).unwrap();
        assert!(count > 0);
        said.extend(&bytes[..count]);
    }
    let login = Login { level: 4, client_id: "publisher", clean: true };
    let mut publisher = Mqtt::open(broker.ports.mqtt, login).unwrap();
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let mut most = before;
    let flood = mqtt::publish("flood", 0, &[7; MESSAGE]);
    for number in 0..FLOOD {
        publisher.send(&flood).unwrap();
        if number % 512 == 0 {
            honest.is_served();
            most = most.max(broker.resident_kib().unwrap());
        }
    }
    honest.is_served();
    most = most.max(broker.resident_kib().unwrap());
    let grown = (most - before) / 1024;
    let sent = (FLOOD * MESSAGE) >> 20;
    say(&format!(
        "A7: {sent} MiB past a lazy MQTT subscriber and a lazy page, both over WebSocket, grew the \
         broker by {grown} MiB; slowest honest round trip {} ms",
        honest.slowest.as_millis()
    ));
    // The page has a queue of at most 10,000 messages.
    assert!(grown < 128, "{grown} MiB");
}

#[test]
fn idle_clients_over_websocket_are_as_cheap_as_over_tcp() {
    let count = setting("POLYMQ_IDLE_WEB_SOCKETS", 1000);
    if !allow_files(2 * count + 200) {
        polymq_faults::report::skip("idle", "this process may not open so many files");
        return;
    }
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let mut each = Vec::new();
    let mut all: Vec<TcpStream> = Vec::new();
    for over_web_socket in [true, false] {
        std::thread::sleep(Duration::from_secs(3));
        let before = settled_kib(&broker);
        for number in 0..count {
            all.push(match over_web_socket {
                true => connected(&broker, &format!("web-{number}")),
                false => {
                    let mut socket = TcpStream::connect(("127.0.0.1", broker.ports.mqtt)).unwrap();
                    socket.write_all(&connect(&format!("tcp-{number}"))).unwrap();
                    socket.read_exact(&mut [0; 4]).unwrap();
                    socket
                }
            });
        }
        // Buffers of connections that are silent are freed after two seconds.
        std::thread::sleep(Duration::from_secs(4));
        let grown = settled_kib(&broker).saturating_sub(before);
        each.push(grown as f64 / count as f64);
    }
    honest.is_served();
    say(&format!(
        "{count} idle MQTT clients take {:.1} KiB each over WebSocket, {:.1} KiB over TCP",
        each[0], each[1]
    ));
    assert!(each[0] < each[1] + 4.0, "{each:?}");
}

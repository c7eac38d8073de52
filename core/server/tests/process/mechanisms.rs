//! A reload changes which ways to log in are offered, and for how long a consumer may think.

use std::{
    fs,
    io::{Read, Write},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    Server,
    management::{polymq, run, told},
    reload::{logged, start},
};

/// Reads until `end` is there, or the other side closes.
fn read_until(socket: &mut impl Read, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.windows(end.len()).any(|part| part == end) {
        let mut part = [0; 1024];
        let count = socket.read(&mut part).unwrap();
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&part[..count]);
    }
    seen
}

/// What `connection.start` of AMQP 0-9-1 offers.
fn of_amqp(server: &Server) -> String {
    let mut socket = server.connect("amqp");
    socket.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    // The list of mechanisms stands before the locales, which end the frame.
    let frame = read_until(&mut socket, b"\x00\x00\x00\x05en_US\xce");
    let locales = frame.len() - 10;
    let length = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    let begins = |at: &usize| length(*at) as usize == locales - at - 4;
    let at = (0..=locales - 4).rev().find(begins).unwrap();
    String::from_utf8(frame[at + 4..locales].to_vec()).unwrap()
}

/// Whether MQTT 5 goes on with a login by SCRAM-SHA-256.
fn of_mqtt(server: &Server) -> bool {
    let (method, data) = ("SCRAM-SHA-256", "n,,n=admin,r=abc");
    let mut properties = Vec::new();
    for (id, text) in [(0x15, method), (0x16, data)] {
        properties.push(id);
        properties.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        properties.extend_from_slice(text.as_bytes());
    }
    let mut body = b"\x00\x04MQTT\x05\x02\x00\x3c".to_vec();
    body.push(u8::try_from(properties.len()).unwrap());
    body.append(&mut properties);
    body.extend_from_slice(b"\x00\x01c");
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.append(&mut body);
    let mut socket = server.connect("mqtt");
    socket.write_all(&packet).unwrap();
    let mut first = [0; 4];
    socket.read_exact(&mut first).unwrap();
    match first[0] {
        // AUTH, with the challenge.
        0xf0 => true,
        // CONNACK: bad authentication method.
        0x20 => {
            assert_eq!(first[3], 0x8c);
            false
        }
        other => panic!("packet {other:x}"),
    }
}

/// What a stream of XMPP offers.
fn of_xmpp(server: &Server) -> Vec<String> {
    let mut socket = server.connect("xmpp");
    let open = "<stream:stream xmlns='jabber:client' to='localhost' version='1.0' \
                xmlns:stream='http://etherx.jabber.org/streams'>";
    socket.write_all(open.as_bytes()).unwrap();
    let seen = read_until(&mut socket, b"</stream:features>");
    let text = String::from_utf8(seen).unwrap();
    let names = text.split("<mechanism>").skip(1);
    names.map(|rest| rest.split_once('<').unwrap().0.to_owned()).collect()
}

/// The answer to user and password over HTTP.
fn of_http(server: &Server, password: &str) -> String {
    let mut socket = server.connect("http");
    let shown = BASE64_STANDARD.encode(format!("admin:{password}"));
    let head = format!("Host: x\r\nConnection: close\r\nAuthorization: Basic {shown}\r\n");
    write!(socket, "GET /api/v1/server HTTP/1.1\r\n{head}\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn ways_to_log_in_change_in_every_protocol_for_connections_that_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    fs::write(&file, "").unwrap();
    let (server, mut log) = start(&data, &file);
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    let password = password.trim();
    assert_eq!(of_amqp(&server), "PLAIN AMQPLAIN");
    assert!(of_mqtt(&server));
    assert_eq!(of_xmpp(&server), ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]);
    assert!(of_http(&server, password).starts_with("HTTP/1.1 200"));

    let mut reload = |text: &str| {
        fs::write(&file, text).unwrap();
        server.signal("-HUP");
        let told = logged(&mut log, "configuration_reloaded");
        assert!(told.iter().all(|line| line["event"] != "configuration_waits"), "{told:?}");
    };
    reload("[auth]\nmechanisms = [\"SCRAM-SHA-256\"]\n");
    assert_eq!(of_amqp(&server), "");
    assert!(of_mqtt(&server));
    assert_eq!(of_xmpp(&server), ["SCRAM-SHA-256"]);
    let refused = of_http(&server, password);
    assert!(
        refused.starts_with("HTTP/1.1 401") && refused.contains("auth.mechanisms"),
        "{refused}"
    );

    reload("[auth]\nmechanisms = [\"PLAIN\"]\n");
    assert_eq!(of_amqp(&server), "PLAIN AMQPLAIN");
    assert!(!of_mqtt(&server));
    assert_eq!(of_xmpp(&server), ["PLAIN"]);
    assert!(of_http(&server, password).starts_with("HTTP/1.1 200"));

    reload("[auth]\nmechanisms = [\"PLAIN\", \"SCRAM-SHA-1\"]\nplain_without_tls = \"never\"\n");
    assert_eq!(of_xmpp(&server), ["SCRAM-SHA-1"]);
    assert!(of_http(&server, password).starts_with("HTTP/1.1 401"));
}

#[test]
fn the_time_of_consumers_changes_also_for_those_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    fs::write(&file, "[limits]\nconsumer_timeout = \"1h\"\n").unwrap();
    let (server, mut log) = start(&data, &file);
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    polymq(&server, &data, &["queue", "create", "q"]);
    polymq(&server, &data, &["pub", "q", "x"]);
    let mut client = server.connect("stomp");
    let text = format!(
        "CONNECT\naccept-version:1.2\nlogin:admin\npasscode:{}\n\n\0\
         SUBSCRIBE\nid:1\ndestination:/amq/queue/q\nack:client\n\n\0",
        password.trim()
    );
    client.write_all(text.as_bytes()).unwrap();
    read_until(&mut client, b"\n\nx\0");
    let shown = told(&server, &data, &["queue", "show", "q"]);
    assert_eq!(shown["messages"]["unacked"], 1, "{shown}");

    fs::write(&file, "[limits]\nconsumer_timeout = \"1s\"\n").unwrap();
    let reloaded = Instant::now();
    let output = run(&server, &data, &["reload", "-o", "json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said[0]["key"], "limits.consumer_timeout", "{said}");
    assert_eq!(said[0]["needs_restart"], false, "{said}");
    let lines = logged(&mut log, "consumer_timeout");
    assert!(reloaded.elapsed() < Duration::from_secs(60), "{lines:?}");
    let shown = told(&server, &data, &["queue", "show", "q"]);
    assert_eq!(
        (&shown["messages"]["ready"], &shown["consumers"]),
        (&1.into(), &0.into()),
        "{shown}"
    );
}

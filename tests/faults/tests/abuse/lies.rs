//! Case A2: lengths that lie, tables that nest, and packets in pieces.

use std::time::Duration;

use polymq_faults::{
    amqp::{self, Amqp, Id, Method, PROTOCOL_HEADER, number, start_ok},
    broker::{Broker, Home},
    mqtt::{self, Login, Mqtt, Packet, packet, text},
    report::say,
};

use crate::served::Honest;

const CONNECTION_CLOSE: Id = (10, 50);
const CHANNEL_CLOSE: Id = (20, 40);
/// Largest frame that is agreed on.
const FRAME_MAX: usize = 131_072;

/// A frame of type 1 that declares `size` bytes and has none of them.
fn declared(size: u32) -> Vec<u8> {
    [&[1, 0, 1][..], &size.to_be_bytes()].concat()
}

/// The content of a table with one entry that holds `levels` tables or arrays inside each other.
fn nested(kind: u8, levels: usize) -> Vec<u8> {
    // From the inside out, so that each length is known.
    let name: &[u8] = if kind == b'F' { b"\x01a" } else { b"" };
    let step = name.len() + 5;
    let mut out = Vec::new();
    for level in 0..levels {
        out.extend(if level == 0 { &b"\x01a"[..] } else { name });
        out.push(kind);
        let inside = (levels - level - 1) * step;
        out.extend(u32::try_from(inside).unwrap().to_be_bytes());
    }
    out
}

fn declare_with(arguments: &[u8]) -> Vec<u8> {
    let method = Method::new((50, 10)).u16(0).short("lies").u8(0).long(arguments);
    method.frame(1)
}

/// A publish whose headers are `table`.
fn publish_with(table: &[u8]) -> Vec<u8> {
    let publish = Method::new((60, 40)).u16(0).short("amq.topic").short("lies").u8(0);
    let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 0];
    header.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
    header.extend(table);
    [publish.frame(1), amqp::frame(2, 1, &header), amqp::body_frame(b"x")].concat()
}

/// A publish whose header declares `declared` bytes and whose frames bring `body`.
fn publish_of(declared: u64, body: &[u8]) -> Vec<u8> {
    let publish = Method::new((60, 40)).u16(0).short("").short("lies").u8(0);
    let header = amqp::content_header(declared);
    [publish.frame(1), header, amqp::body_frame(body)].concat()
}

/// Sends bytes that end the channel or the connection, and returns the code.
fn refused(broker: &Broker, name: &str, bytes: &[u8]) -> (Id, u16) {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.set_patience(Duration::from_secs(8)).unwrap();
    // The broker may close while it is still being sent to.
    let _ = client.send(bytes);
    loop {
        match client.next_event() {
            Ok(Some(amqp::Incoming::Method(
                id @ (CONNECTION_CLOSE | CHANNEL_CLOSE),
                arguments,
            ))) => {
                let code = number(&arguments, 0).unwrap();
                let len = usize::from(arguments[2]);
                let said = String::from_utf8_lossy(&arguments[3..3 + len]).into_owned();
                say(&format!("A2: AMQP {name}: {code} {said}"));
                return (id, code);
            }
            Ok(Some(_)) => {}
            other => panic!("{name}: the broker says nothing, then {other:?}"),
        }
    }
}

#[test]
fn a02_amqp_lengths_that_lie_end_the_connection() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let (tables, arrays) = (nested(b'F', 18_000), nested(b'A', 26_000));
    let deepest = nested(b'A', 100_000);
    let end = [0xCE];
    for (name, bytes, id, code) in [
        ("frame of 4 GiB", declared(u32::MAX), CONNECTION_CLOSE, 501),
        // A payload may fill the limit: RabbitMQ does not count the eight bytes around it.
        ("frame over the limit", declared(FRAME_MAX as u32 + 1), CONNECTION_CLOSE, 501),
        ("wrong frame end", [&declared(0)[..], &[0]].concat(), CONNECTION_CLOSE, 501),
        ("empty method", [&declared(0)[..], &end].concat(), CONNECTION_CLOSE, 0),
        ("tables, 18,000 levels", declare_with(&tables), CONNECTION_CLOSE, 0),
        ("arrays, 26,000 levels", declare_with(&arrays), CONNECTION_CLOSE, 0),
        ("arrays, 100,000 levels", declare_with(&deepest), CONNECTION_CLOSE, 501),
        ("arrays in headers", publish_with(&arrays), CONNECTION_CLOSE, 0),
        ("tables in headers", publish_with(&tables), CONNECTION_CLOSE, 0),
        ("table that is cut", declare_with(&tables[..90]), CONNECTION_CLOSE, 0),
        ("body beyond its length", publish_of(1, b"too much"), CONNECTION_CLOSE, 0),
        ("body of 16 EiB", publish_of(u64::MAX, b"x"), CHANNEL_CLOSE, 0),
        ("short string beyond its frame", [7; 0].to_vec(), CONNECTION_CLOSE, 0),
    ] {
        let bytes = if bytes.is_empty() {
            amqp::frame(1, 1, &[0, 50, 0, 10, 0, 0, 255, b'q'])
        } else {
            bytes
        };
        let found = refused(&broker, name, &bytes);
        assert!(found.0 == id || code == 0, "{name}: {found:?}");
        assert!(code == 0 || found.1 == code, "{name}: {found:?}");
        honest.is_served();
    }
    assert!(broker.is_alive());
}

#[test]
fn a02_amqp_strangers_that_lie_are_closed() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let deepest = start_ok(&nested(b'A', 100_000)).frame(0);
    let deep = start_ok(&nested(b'A', 1_500)).frame(0);
    let huge = [&[1, 0, 0][..], &u32::MAX.to_be_bytes()].concat();
    let medium = [&[1, 0, 0][..], &100_000_u32.to_be_bytes()].concat();
    for bytes in [huge, medium, deepest, deep] {
        let mut client = Amqp::dial(broker.ports.amqp).unwrap();
        // Well below the login limit, so it is the lie that ends the connection.
        client.set_patience(Duration::from_secs(8)).unwrap();
        client.send(PROTOCOL_HEADER).unwrap();
        client.expect((10, 10)).unwrap();
        let _ = client.send(&bytes);
        client.last_words().unwrap();
        honest.is_served();
    }
    assert!(broker.is_alive());
}

#[test]
fn a02_mqtt_lengths_that_lie_end_the_connection() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let long_text = packet(0x30, &[&[0xFF, 0xFF][..], b"a"].concat());
    let long_properties = packet(0x30, &[&text(b"a")[..], &[0xFF, 0xFF, 0x7F]].concat());
    for (name, bytes, reason) in [
        ("remaining length 268,435,455", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], 0x95),
        ("remaining length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01], 0x81),
        ("string beyond its packet", long_text, 0x81),
        ("properties beyond their packet", long_properties, 0x81),
        ("type zero", vec![0, 0], 0x81),
    ] {
        let login = Login { level: 5, client_id: "liar", clean: true };
        let mut client = Mqtt::open(broker.ports.mqtt, login).unwrap();
        client.send(&bytes).unwrap();
        match client.last_words().unwrap().as_slice() {
            [Packet { first: 0xE0, body }] => assert_eq!(body.first(), Some(&reason), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        honest.is_served();
    }
    let endless = [0x10, 0xFF, 0xFF, 0xFF, 0x7F];
    let version_5 = [&endless[..], &text(b"MQTT"), &[5]].concat();
    for (bytes, last_words) in [
        (&[0x10, 0x80, 0x80, 0x80, 0x80, 0x01][..], 0),
        // Who says which version it speaks is told; who does not has the time of a login.
        (&version_5[..], 1),
        (&endless[..], 0),
    ] {
        let mut client = Mqtt::dial(broker.ports.mqtt).unwrap();
        client.set_patience(Duration::from_secs(15)).unwrap();
        client.send(bytes).unwrap();
        assert_eq!(client.last_words().unwrap().len(), last_words);
        honest.is_served();
    }
    assert!(broker.is_alive());
}

#[test]
fn a02_memory_follows_what_was_sent_and_not_what_was_promised() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let mut kept = (Vec::new(), Vec::new());
    let mut connect = |name: &str, lies: bool| {
        let mut amqp = Amqp::open(broker.ports.amqp).unwrap();
        let login = Login { level: 5, client_id: name, clean: true };
        let mut mqtt = Mqtt::open(broker.ports.mqtt, login).unwrap();
        if lies {
            // As large as is allowed, and never finished.
            amqp.send(&declared(FRAME_MAX as u32 - 8)).unwrap();
            amqp.send(b"x").unwrap();
            mqtt.send(&[0x30, 0x80, 0x80, 0x80, 0x07, 0, 1, b'a']).unwrap();
        }
        kept.0.push(amqp);
        kept.1.push(mqtt);
    };
    let count = 100;
    (0..count).for_each(|number| connect(&format!("honest-{number}"), false));
    honest.is_served();
    let honest_kib = broker.resident_kib().unwrap();
    (0..count).for_each(|number| connect(&format!("liar-{number}"), true));
    honest.is_served();
    let grown = broker.resident_kib().unwrap().saturating_sub(honest_kib);
    say(&format!("A2: {count} liars over each protocol took {grown} KiB"));
    assert!(grown < 100 * 2 * 40, "{grown} KiB for promises of 1.5 GiB");
}

#[test]
fn a02_packets_split_at_every_byte_are_read_as_one() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("split").unwrap();
    client.confirm_select().unwrap();
    let bytes = amqp::publish("", "split", b"in two pieces");
    for at in 1..bytes.len() {
        let (front, back) = bytes.split_at(at);
        client.send(front).unwrap();
        std::thread::yield_now();
        client.send(back).unwrap();
        client.expect((60, 80)).unwrap();
    }
    assert_eq!(client.declare("split").unwrap() as usize, bytes.len() - 1);

    let login = Login { level: 4, client_id: "split", clean: true };
    let mut client = Mqtt::open(broker.ports.mqtt, login).unwrap();
    let bytes = mqtt::publish("split", 7, &[b'x'; 200]);
    for at in 1..bytes.len() {
        let (front, back) = bytes.split_at(at);
        client.send(front).unwrap();
        std::thread::yield_now();
        client.send(back).unwrap();
        assert_eq!(client.next_packet().unwrap().unwrap().puback(), Some(7));
    }
}

#[test]
fn a02_whole_conversations_arrive_byte_by_byte() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = Amqp::dial(broker.ports.amqp).unwrap();
    let slowly = |client: &mut Amqp, bytes: &[u8]| {
        for byte in bytes {
            client.send(&[*byte]).unwrap();
        }
    };
    slowly(&mut client, PROTOCOL_HEADER);
    client.expect((10, 10)).unwrap();
    slowly(&mut client, &start_ok(&[]).frame(0));
    client.expect((10, 30)).unwrap();
    slowly(&mut client, &Method::new((10, 31)).u16(16).u32(131_072).u16(0).frame(0));
    slowly(&mut client, &Method::new((10, 40)).short("/").short("").u8(0).frame(0));
    client.expect((10, 41)).unwrap();
    slowly(&mut client, &Method::new((20, 10)).short("").frame(1));
    client.expect((20, 11)).unwrap();
    client.confirm_select().unwrap();
    slowly(&mut client, &amqp::publish("amq.topic", "a", b"slow"));
    client.expect((60, 80)).unwrap();

    let mut client = Mqtt::dial(broker.ports.mqtt).unwrap();
    let login = Login { level: 5, client_id: "slow", clean: true };
    for byte in mqtt::connect(login) {
        client.send(&[byte]).unwrap();
    }
    assert_eq!(client.next_packet().unwrap().unwrap().first, 0x20);
    for byte in packet(0x32, &[&text(b"a")[..], &[0, 9, 0], b"slow"].concat()) {
        client.send(&[byte]).unwrap();
    }
    assert_eq!(client.next_packet().unwrap().unwrap().puback(), Some(9));
}

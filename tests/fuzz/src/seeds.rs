//! Inputs to begin with: valid conversations of every kind, and every attack that is known.
//!
//! They are made here and not committed as files, because some of them have hundreds of kilobytes.

mod filter;
mod http;
mod json;
mod stomp;
mod web;
mod xmpp;

use bytes::BytesMut;
use polymq_amqp091::codec::{frame, table::put_table};
use polymq_model::{LogId, Seq, Table, Value};
use polymq_store::{BatchWriter, ShardBatch};

pub use stomp::{stomp_connect, stomp_subscribe};
pub use web::JSON_SUBSCRIBE;
pub use xmpp::xmpp_login;

/// An input for a target.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// What it is.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A whole AMQP frame.
pub fn amqp_frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put(&mut out, kind, channel, payload);
    out.to_vec()
}

fn method(channel: u16, id: (u16, u16), arguments: &[u8]) -> Vec<u8> {
    let payload = [&id.0.to_be_bytes()[..], &id.1.to_be_bytes(), arguments].concat();
    amqp_frame(frame::METHOD, channel, &payload)
}

fn short(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_short(&mut out, text);
    out
}

fn table(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    put_table(&mut out, table);
    out
}

/// A client's side of the handshake, with channel 1 opened.
pub fn amqp_login() -> Vec<u8> {
    [amqp_handshake().concat(), method(1, (20, 10), &short(""))].concat()
}

fn amqp_handshake() -> Vec<Vec<u8>> {
    let capabilities = ["publisher_confirms", "consumer_cancel_notify", "connection.blocked"];
    let capabilities = capabilities.map(|name| (name.to_owned(), Value::Bool(true)));
    let properties = vec![("capabilities".to_owned(), Value::Map(capabilities.into()))];
    let start_ok = [
        table(&properties),
        short("PLAIN"),
        [&[0, 0, 0, 12][..], b"\0guest\0guest"].concat(),
        short("en_US"),
    ];
    vec![
        b"AMQP\x00\x00\x09\x01".to_vec(),
        method(0, (10, 11), &start_ok.concat()),
        method(0, (10, 31), &[0x07, 0xFF, 0, 2, 0, 0, 0, 60]),
        method(0, (10, 40), &[short("/"), short(""), vec![0]].concat()),
    ]
}

/// `basic.consume` on channel 1.
pub fn amqp_consume() -> Vec<u8> {
    let arguments = [vec![0, 0], short("q"), short("c"), vec![0], table(&Vec::new())].concat();
    method(1, (60, 20), &arguments)
}

/// A table with a value of every type.
fn every_value() -> Table {
    let values = [
        Value::Null,
        Value::Bool(true),
        Value::I8(-1),
        Value::U8(1),
        Value::I16(-2),
        Value::U16(2),
        Value::I32(-3),
        Value::U32(3),
        Value::I64(-4),
        Value::F32(0.5),
        Value::F64(f64::NAN),
        Value::Decimal { scale: 2, unscaled: 1250 },
        Value::Timestamp(1_700_000_000_000),
        Value::Bytes(vec![0, 255]),
        Value::LongString(vec![255, 0]),
        Value::String("é".to_owned()),
        Value::List(vec![Value::I32(1), Value::List(vec![Value::Null])]),
        Value::Map(vec![("a".to_owned(), Value::Map(Vec::new()))]),
    ];
    values.into_iter().enumerate().map(|(at, value)| (format!("k{at}"), value)).collect()
}

/// The content of a table that holds `levels` values of `kind` inside each other.
pub fn nested(kind: u8, levels: usize) -> Vec<u8> {
    let name: &[u8] = if kind == b'F' { b"\x01a" } else { b"" };
    let step = name.len() + 5;
    let mut out = Vec::new();
    for level in 0..levels {
        out.extend_from_slice(if level == 0 { b"\x01a" } else { name });
        out.push(kind);
        let inside = (levels - level - 1).saturating_mul(step);
        out.extend(u32::try_from(inside).unwrap_or(u32::MAX).to_be_bytes());
    }
    out
}

/// Class and method, and the arguments one by one.
type Call = ((u16, u16), Vec<Vec<u8>>);

/// Methods that a client sends on channel 1, without frames.
fn amqp_methods() -> Vec<Vec<u8>> {
    let none = || table(&Vec::new());
    let (q, x, key) = (|| short("q"), || short("amq.topic"), || short("a.b"));
    let zero = || vec![0, 0];
    let list: Vec<Call> = vec![
        ((20, 20), vec![vec![1]]),
        ((20, 40), vec![zero(), short(""), zero(), zero()]),
        ((40, 10), vec![zero(), short("x"), short("topic"), vec![2], table(&every_value())]),
        ((40, 20), vec![zero(), short("x"), vec![0]]),
        ((40, 30), vec![zero(), short("x"), x(), key(), vec![0], none()]),
        ((40, 40), vec![zero(), short("x"), x(), key(), vec![0], none()]),
        ((50, 10), vec![zero(), q(), vec![2], table(&every_value())]),
        ((50, 20), vec![zero(), q(), x(), key(), vec![0], none()]),
        ((50, 30), vec![zero(), q(), vec![0]]),
        ((50, 40), vec![zero(), q(), vec![0]]),
        ((50, 50), vec![zero(), q(), x(), key(), none()]),
        ((60, 10), vec![vec![0, 0, 0, 0, 0, 10, 0]]),
        ((60, 20), vec![zero(), q(), short("tag"), vec![0], none()]),
        ((60, 30), vec![short("tag"), vec![0]]),
        ((60, 40), vec![zero(), x(), key(), vec![1]]),
        ((60, 70), vec![zero(), q(), vec![0]]),
        ((60, 80), vec![vec![0, 0, 0, 0, 0, 0, 0, 1, 1]]),
        ((60, 90), vec![vec![0, 0, 0, 0, 0, 0, 0, 1, 1]]),
        ((60, 110), vec![vec![1]]),
        ((60, 120), vec![vec![0, 0, 0, 0, 0, 0, 0, 0, 3]]),
        ((85, 10), vec![vec![0]]),
        ((90, 10), vec![]),
        ((90, 20), vec![]),
        ((90, 30), vec![]),
    ];
    let payload = |((class, id), arguments): Call| {
        [class.to_be_bytes().to_vec(), id.to_be_bytes().to_vec(), arguments.concat()].concat()
    };
    list.into_iter().map(payload).collect()
}

/// The content header of `body_bytes` with every property.
fn amqp_header(body_bytes: u64) -> Vec<u8> {
    let mut out = vec![0, 60, 0, 0];
    out.extend(body_bytes.to_be_bytes());
    out.extend([0xFF, 0xFC]);
    out.extend([short("text/plain"), short("utf-8"), table(&every_value())].concat());
    out.extend([2, 7]);
    for text in ["correlation", "reply", "60000", "id"] {
        out.extend(short(text));
    }
    out.extend(1_700_000_000_u64.to_be_bytes());
    for text in ["type", "guest", "app", ""] {
        out.extend(short(text));
    }
    out
}

fn amqp_publish(mandatory: u8, body: &[u8]) -> Vec<u8> {
    let arguments = [vec![0, 0], short("amq.topic"), short("a.b"), vec![mandatory]].concat();
    let header = amqp_header(u64::try_from(body.len()).unwrap_or(0));
    let frames = [
        method(1, (60, 40), &arguments),
        amqp_frame(frame::HEADER, 1, &header),
        amqp_frame(frame::BODY, 1, body),
    ];
    frames.concat()
}

fn amqp(seeds: &mut Vec<Seed>) {
    let mut add = |target, name: &str, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: name.to_owned(), bytes });
    };
    add("amqp_stranger", "login", amqp_login());
    let login = amqp_login();
    for cut in (1..login.len()).step_by(17) {
        add("amqp_stranger", &format!("login-cut-{cut}"), login[..cut].to_vec());
    }
    let header = b"AMQP\x00\x00\x09\x01".to_vec();
    let four_gib = [&header[..], &[1, 0, 0, 255, 255, 255, 255, 0]].concat();
    add("amqp_stranger", "frame-of-4-gib", four_gib);
    add("amqp_stranger", "amqp-1.0", b"AMQP\x00\x01\x00\x00".to_vec());
    for (kind, levels) in [(b'A', 100_000), (b'F', 100_000), (b'A', 1500), (b'F', 31)] {
        let content = nested(kind, levels);
        let mut start_ok = u32::try_from(content.len()).unwrap_or(0).to_be_bytes().to_vec();
        start_ok.extend(&content);
        start_ok.extend([short("PLAIN"), vec![0; 4], short("en_US")].concat());
        let bytes = [header.clone(), method(0, (10, 11), &start_ok)].concat();
        let name = format!("nested-{}-{levels}", char::from(kind));
        add("amqp_stranger", &name, bytes);
        let declare = [&[0, 0, 1, b'q', 0][..], &start_ok[..4 + content.len()]].concat();
        let bytes = [vec![0], method(1, (50, 10), &declare)].concat();
        add("amqp_session", &name, bytes);
        add("amqp_table", &name, content);
    }
    let every = amqp_methods();
    for mode in 0..8 {
        let frames = every.iter().map(|payload| amqp_frame(frame::METHOD, 1, payload));
        let bytes = [vec![mode], frames.skip(2).collect::<Vec<_>>().concat()].concat();
        add("amqp_session", &format!("methods-{mode}"), bytes);
        let publishes = [amqp_publish(0, b"body"), amqp_publish(1, b"x"), amqp_publish(0, b"")];
        let bytes = [vec![mode], publishes.concat()].concat();
        add("amqp_session", &format!("publishes-{mode}"), bytes);
    }
    for tail in [&[1, 0, 1, 255, 255, 255, 255][..], &[8, 0, 1, 0, 0, 0, 0, 206], &[9; 8]] {
        add("amqp_session", &format!("odd-{}", tail[0]), [&[0], tail].concat());
    }
    let piece = |kind: u8, payload: &[u8]| {
        let len = u8::try_from(payload.len()).unwrap_or(u8::MAX);
        [&[kind, len][..], &payload[..usize::from(len)]].concat()
    };
    for (at, payload) in every.iter().enumerate() {
        add("amqp_methods", &format!("method-{at}"), [vec![5], piece(0, payload)].concat());
    }
    let publish = every.get(14).cloned().unwrap_or_default();
    let small = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0x10, 0, 2]].concat();
    let publish = [piece(0, &publish), piece(2, &small), piece(3, b"hi")].concat();
    add("amqp_methods", "publish", [vec![1], publish.clone(), publish].concat());
    let all: Vec<_> = every.iter().skip(2).map(|payload| piece(0, payload)).collect();
    add("amqp_methods", "every-method", [vec![4], all.concat()].concat());
    add("amqp_table", "every-value", table(&every_value())[4..].to_vec());
    add("amqp_table", "every-property", amqp_header(0)[12..].to_vec());
    add("amqp_table", "late-timestamp", b"\x01tT\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF".to_vec());
}

/// An MQTT packet.
pub fn mqtt_packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    polymq_mqtt::codec::writer::put_var_int(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap_or(0);
    [&len.to_be_bytes()[..], text.as_bytes()].concat()
}

fn props(level: u8, properties: &[u8]) -> Vec<u8> {
    if level < 5 {
        return Vec::new();
    }
    [&[u8::try_from(properties.len()).unwrap_or(0)][..], properties].concat()
}

fn user_property() -> Vec<u8> {
    [vec![0x26], text("a"), text("b")].concat()
}

/// CONNECT of this level.
pub fn mqtt_connect(level: u8) -> Vec<u8> {
    let name = if level == 3 { "MQIsdp" } else { "MQTT" };
    let asked = [0x21, 0, 20, 0x22, 0, 10];
    let body = [text(name), vec![level, 2, 0, 60], props(level, &asked), text("c")].concat();
    mqtt_packet(0x10, &body)
}

/// SUBSCRIBE to everything.
pub fn mqtt_subscribe(level: u8) -> Vec<u8> {
    mqtt_packet(0x82, &[vec![0, 1], props(level, &[]), text("#"), vec![1]].concat())
}

/// First byte and body of every packet a client sends, with every property there is.
fn mqtt_packets(level: u8) -> Vec<(u8, Vec<u8>)> {
    let of_publish = [
        vec![0x01, 1, 0x02, 0, 0, 0, 9, 0x03],
        text("text/plain"),
        vec![0x08],
        text("r/1"),
        vec![0x09, 0, 2, 255, 0],
        user_property(),
    ];
    let of_publish = of_publish.concat();
    let will = [props(level, &[0x18, 0, 0, 0, 1]), text("w"), text("gone")].concat();
    let name = if level == 3 { "MQIsdp" } else { "MQTT" };
    let connect = [
        text(name),
        vec![level, 0xEE, 0, 60],
        props(level, &[&[0x11, 0, 0, 0, 9][..], &user_property()].concat()),
        text("c"),
        will,
        text("guest"),
        text("guest"),
    ];
    let scram = [vec![0x15], text("SCRAM-SHA-256"), vec![0x16], text("n,,n=guest,r=x")].concat();
    let enhanced = [text(name), vec![level, 2, 0, 0], props(level, &scram), text("c")];
    let alias = [vec![0x23, 0, 3], of_publish.clone()].concat();
    let ack = |id: u8| if level == 5 { vec![0, id, 0x10, 0] } else { vec![0, id] };
    vec![
        (0x10, connect.concat()),
        (0x10, enhanced.concat()),
        (0x30, [text("a/b"), props(level, &of_publish), b"body".to_vec()].concat()),
        (0x33, [text("a/b"), vec![0, 7], props(level, &alias), b"kept".to_vec()].concat()),
        (0x32, [text("$queue/q"), vec![0, 8], props(level, &[]), b"q".to_vec()].concat()),
        (0x34, [text("$exchange/x/k"), vec![0, 9], props(level, &[]), vec![]].concat()),
        (0x62, vec![0, 9]),
        (0x40, ack(1)),
        (0x50, ack(2)),
        (0x70, vec![0, 3]),
        (0x82, [vec![0, 5], props(level, &[0x0B, 9]), text("a/+/#"), vec![2]].concat()),
        (0x82, [vec![0, 6], props(level, &[]), text("$share/g/a"), vec![1]].concat()),
        (0x82, [vec![0, 6], props(level, &[]), text("$queue/q"), vec![0]].concat()),
        (0xA2, [vec![0, 6], props(level, &user_property()), text("a/+/#")].concat()),
        (0xC0, vec![]),
        (0xF0, [vec![0x19], props(level, &scram)].concat()),
        (0xE0, if level == 5 { vec![4, 0] } else { vec![] }),
    ]
}

fn mqtt(seeds: &mut Vec<Seed>) {
    let mut add = |target, name: &str, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: name.to_owned(), bytes });
    };
    for level in 3..=5 {
        let packets = mqtt_packets(level);
        let whole: Vec<_> = packets.iter().map(|(first, body)| mqtt_packet(*first, body)).collect();
        for (at, bytes) in whole.iter().enumerate() {
            add("mqtt_stranger", &format!("{level}-{at}"), bytes.clone());
            add("mqtt_codec", &format!("{level}-{at}"), bytes.clone());
            let cut = bytes.len() / 2;
            add("mqtt_stranger", &format!("{level}-{at}-cut"), bytes[..cut].to_vec());
            let session = [&[level - 3][..], bytes, &bytes[..cut]].concat();
            add("mqtt_session", &format!("{level}-{at}"), session);
            let len = u8::try_from(packets[at].1.len()).unwrap_or(u8::MAX);
            let body = &packets[at].1[..usize::from(len)];
            let piece = [&[level - 3, packets[at].0, len][..], body].concat();
            add("mqtt_packets", &format!("{level}-{at}"), piece);
        }
        let all = [vec![level - 3], whole[2..].concat()].concat();
        add("mqtt_session", &format!("{level}-all"), all);
    }
    for (name, bytes) in [
        ("remaining-length-268435455", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
        ("connect-268435455", vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F]),
        ("five-byte-length", vec![0x10, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("type-zero", vec![0, 0]),
        ("type-fifteen", vec![0xF0, 0]),
        ("length-too-long", vec![0xC0, 0x80, 0]),
        ("string-beyond", vec![0x30, 4, 255, 255, b'a', b'b']),
        ("properties-beyond", vec![0x30, 6, 0, 1, b'a', 255, 255, 127]),
        ("qos-3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
    ] {
        add("mqtt_stranger", name, bytes.clone());
        add("mqtt_codec", name, bytes.clone());
        add("mqtt_session", name, [&[2][..], &bytes].concat());
    }
}

fn topics(seeds: &mut Vec<Seed>) {
    for (at, text) in [
        "a/b/c\na/+/#",
        "a.b/c\na/b.c",
        "/a//b/\n+/+//#",
        "a/*/b\na.*.b",
        "$SYS/x\n#",
        "\n#",
        "a.%2B.#\na.#.b",
        "%25%252B%2523%2%\n%23/+",
        "é/\u{1F600}\né/#",
        "a.b.c.d\n#.b.#.*.#",
        "a..b\n*.*.*",
        ".\n#.*",
    ]
    .into_iter()
    .enumerate()
    {
        seeds.push(Seed { target: "topic", name: at.to_string(), bytes: text.into() });
    }
    for name in ["a/", "é.", "%2B/"] {
        let bytes = name.repeat(60).into();
        seeds.push(Seed { target: "topic", name: format!("long-{}", name.len()), bytes });
    }
}

fn records(seeds: &mut Vec<Seed>) {
    let (mut bytes, mut count) = (BytesMut::new(), 0);
    let mut writer = BatchWriter::new(ShardBatch(1), &mut bytes, &mut count);
    writer.log_create(LogId(1), "q");
    let first = writer.publish(LogId(1), Seq(1), 5, 2, &[b"props"], &[8; 50]);
    writer.publish_same(LogId(1), Seq(2), 0, first);
    writer.ack(LogId(1), &[(Seq(1), Seq(1))]);
    writer.hold(LogId(1), Seq(2), 1, 2, 3);
    writer.floor(LogId(1), Seq(1));
    writer.purge(LogId(1), Seq(2));
    writer.meta_put("key", b"value");
    writer.meta_delete("key");
    writer.log_delete(LogId(1));
    let bytes = bytes.to_vec();
    for cut in (8..bytes.len()).step_by(40) {
        let name = format!("cut-{cut}");
        seeds.push(Seed { target: "record", name, bytes: bytes[..cut].to_vec() });
    }
    seeds.push(Seed { target: "record", name: "every-kind".to_owned(), bytes });
}

/// All seeds.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    amqp(&mut seeds);
    mqtt(&mut seeds);
    stomp::stomp(&mut seeds);
    xmpp::add_all(&mut seeds);
    json::add_all(&mut seeds);
    web::add_all(&mut seeds);
    topics(&mut seeds);
    records(&mut seeds);
    filter::filters(&mut seeds);
    http::add_all(&mut seeds);
    seeds
}

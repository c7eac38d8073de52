//! Inputs for JSON over WebSocket.

use super::Seed;

/// A subscription to a queue.
pub const JSON_SUBSCRIBE: &str = r#"{"op":"subscribe","id":1,"sub":"s","queue":"q","credit":9}"#;

const OPS: [&str; 16] = [
    r#"{"op":"publish","id":1,"message":{"exchange":"","routing_key":"q","payload":"hi"}}"#,
    r#"{"op":"publish","message":{"exchange":"amq.topic","routing_key":"a.b","payload":{"n":[1]},
       "payload_encoding":"json","properties":{"content_type":"application/json"}}}"#,
    r#"{"op":"publish","id":"x","confirm":"none","message":{"exchange":"x","payload":"AP8=",
       "payload_encoding":"base64","properties":{"delivery_mode":1,"priority":7}}}"#,
    r#"{"op":"publish","id":2,"message":{"exchange":"e","routing_key":"k","properties":{
       "headers":{"a":{"$t":"i32","v":5},"b":[1,"x"],"x-delay":5},"expiration":"5","message_id":"m",
       "correlation_id":"c","reply_to":"/queues/r","timestamp_ms":1700000000123,
       "user_id":"guest"}}}"#,
    r#"{"op":"publish","message":{"exchange":"e","properties":{"header_list":[["a",1],["a",2]],
       "header_types":{"/0/1":"i32"},"first_counts":true,"text":true}}}"#,
    r#"{"op":"subscribe","id":3,"sub":"t","exchange":"amq.topic","pattern":"a.#","binary":true}"#,
    r#"{"op":"subscribe","id":4,"sub":"u","queue":"u","ack":"auto"}"#,
    r#"{"op":"settle","id":5,"sub":"s","tags":[1,2,9],"outcome":"ack"}"#,
    r#"{"op":"settle","sub":"s","tags":[1],"outcome":"requeue","delay":50}"#,
    r#"{"op":"settle","sub":"s","tags":[3],"outcome":"reject","reason":"bad"}"#,
    r#"{"op":"credit","sub":"s","add":5}"#,
    r#"{"op":"unsubscribe","id":6,"sub":"t"}"#,
    r#"{"op":"ping","id":"p"}"#,
    r#"{"op":"dance","id":7}"#,
    r#"{"op":"connect"}"#,
    r#"{"op":"ping","more":1}"#,
];

/// A piece of the input of `json_messages`.
fn piece(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// A frame of a client, whose mask changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => bytes.push(0x80 | short.to_be_bytes()[1]),
        Ok(short) => {
            bytes.push(0x80 | 126);
            bytes.extend(short.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend(u64::try_from(payload.len()).unwrap_or(0).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Known attacks: lengths that lie, depth, what never ends.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let declared = |length: u64| [&[0x82, 127][..], &length.to_be_bytes()].concat();
    vec![
        ("length-2-63", declared(1 << 63)),
        ("length-2-62", declared(1 << 62)),
        ("length-4-gib", declared(1 << 32)),
        ("fragments", b"\x01\x01{\x00\x01\"".repeat(2000)),
        ("empty-fragments", b"\x01\x00\x00\x00".repeat(5000)),
        ("open-string", [&b"\x81\x04"[..], b"\"abc"].concat()),
        ("cut-head", b"\x81\x7e\x01".to_vec()),
        ("not-utf-8", b"\x81\x02\xff\xfe".to_vec()),
    ]
}

/// Adds the seeds of all targets of JSON and of frames.
pub(super) fn add_all(seeds: &mut Vec<Seed>) {
    let mut add = |target: &'static str, name: String, bytes: Vec<u8>| {
        seeds.push(Seed { target, name, bytes });
    };
    let all: Vec<u8> = OPS.iter().take(13).flat_map(|op| piece(0, op.as_bytes())).collect();
    for mode in 0..2 {
        add("json_messages", format!("all-{mode}"), [&[mode][..], &all].concat());
    }
    for (at, op) in OPS.iter().enumerate() {
        let text = crate::web::message(polymq_contract::MessageKind::Text, op.as_bytes());
        add("json_messages", format!("op-{at}"), [&[1][..], &piece(0, op.as_bytes())].concat());
        add("json_session", format!("op-{at}"), [&[1][..], &text].concat());
        add("json_stranger", format!("op-{at}"), text);
        for form in 0..4 {
            let name = format!("op-{at}-{form}");
            let first = if form % 4 == 0 { 0x82 } else { 0x81 };
            add("websocket_frames", name, [&[form][..], &frame(first, op.as_bytes())].concat());
        }
    }
    let body = [OPS[0].as_bytes(), b"\x00\xff"].concat();
    add("json_messages", "binary".to_owned(), [&[1][..], &piece(3, &body)].concat());
    let deep = format!(
        r#"{{"op":"publish","message":{{"exchange":"","properties":{{"headers":{{"a":{}}}}}}}}}"#,
        "[".repeat(20_000)
    );
    add("json_messages", "deep".to_owned(), [&[1][..], &piece(0, deep.as_bytes())].concat());
    for (name, bytes) in attacks() {
        add("json_stranger", name.to_owned(), bytes.clone());
        add("json_session", name.to_owned(), [&[1][..], &bytes].concat());
        add("websocket_frames", name.to_owned(), [&[0][..], &bytes].concat());
    }
    let mixed = [
        frame(0x01, "é".as_bytes()),
        frame(0x89, b"ping"),
        frame(0x80, &[b'x'; 300]),
        frame(0x82, &[7; 70_000]),
        frame(0x88, &1000_u16.to_be_bytes()),
    ];
    for form in 0..4 {
        add("websocket_frames", format!("mixed-{form}"), [&[form][..], &mixed.concat()].concat());
    }
}

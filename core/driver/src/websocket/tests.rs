use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    Form,
    decode::{Decoder, Fault, Kept},
};

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0xf4];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).expect("short")),
        length @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).expect("short").to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

struct Read {
    payload: Vec<u8>,
    ping: Option<Vec<u8>>,
    close: Option<Option<CloseCode>>,
}

/// Reads `bytes` in pieces of `step`, as a socket would bring them.
fn read(form: Form, bytes: &[u8], step: usize) -> Result<Read, Fault> {
    let mut decoder = Decoder::new(form, 100_000);
    let (mut payload, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() && decoder.heard.close.is_none() {
        if let Some(room) = decoder.head_room() {
            let count = room.len().min(step).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            let mut kept = Kept::default();
            decoder.head_grew(count, &mut kept)?;
            payload.extend_from_slice(kept.as_slice());
            continue;
        }
        let (piece, behind) = rest.split_at(step.min(rest.len()));
        rest = behind;
        let mut piece = piece.to_vec();
        let count = decoder.decode(&mut piece)?;
        payload.extend_from_slice(&piece[..count]);
    }
    Ok(Read { payload, ping: decoder.heard.ping.take(), close: decoder.heard.close })
}

#[test]
fn payload_comes_out_however_the_frames_are_cut() {
    let long = vec![b'x'; 70_000];
    let mut bytes = frame(0x82, b"one");
    bytes.extend(frame(0x02, b"two"));
    bytes.extend(frame(0x89, b"are you there"));
    bytes.extend(frame(0x00, b""));
    bytes.extend(frame(0x80, &[7; 300]));
    bytes.extend(frame(0x82, &long));
    let expected = [&b"onetwo"[..], &[7; 300], &long].concat();
    for step in [1, 2, 3, 5, 7, 13, 64, 1 << 20] {
        let read = read(Form::Binary, &bytes, step).expect("good frames");
        assert_eq!(read.payload, expected, "{step}");
        assert_eq!(read.ping.as_deref(), Some(&b"are you there"[..]));
    }
}

#[test]
fn sessions_that_see_messages_get_frames_without_masks() {
    let long = vec![b'x'; 70_000];
    let mut bytes = frame(0x01, "é".as_bytes());
    bytes.extend(frame(0x8a, b"pong"));
    bytes.extend(frame(0x80, b"!"));
    bytes.extend(frame(0x82, &long));
    let mut expected =
        vec![0x01, 2, 0xc3, 0xa9, 0x80, 1, b'!', 0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70];
    expected.extend(long);
    for step in [1, 2, 3, 5, 7, 13, 64, 1 << 20] {
        let read = read(Form::Messages, &bytes, step).expect("good frames");
        assert_eq!(read.payload, expected, "{step}");
    }
}

#[test]
fn what_rfc_6455_forbids_is_a_fault_with_its_code() {
    let unmasked = |first: u8| vec![first, 1, b'x'];
    let declared = |length: u64| {
        let mut bytes = vec![0x82, 0x80 | 127];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0; 4]);
        bytes
    };
    let then = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let protocol: [(&str, Vec<u8>); 14] = [
        ("5.1 no mask", unmasked(0x82)),
        ("5.2 a reserved bit", frame(0xc2, b"")),
        ("5.2 an unknown kind", frame(0x83, b"")),
        ("5.2 an unknown control frame", frame(0x8b, b"")),
        ("5.2 a length of 2^63", declared(1 << 63)),
        ("5.2 a length that is too wide", declared(100)),
        ("5.4 a control frame in fragments", frame(0x09, b"")),
        ("5.4 nothing to go on with", frame(0x80, b"")),
        ("5.4 a message inside another", then(frame(0x02, b"a"), frame(0x82, b"b"))),
        ("5.5 a long control frame", frame(0x89, &[0; 126])),
        ("5.5.1 half a code", frame(0x88, b"1")),
        ("7.4.1 a code that is never sent", frame(0x88, &1005_u16.to_be_bytes())),
        ("7.4.2 a code of nobody", frame(0x88, &999_u16.to_be_bytes())),
        ("5.5.1 close in fragments", frame(0x08, b"")),
    ];
    let other = [
        ("a message of 2^62 bytes", declared(1 << 62), CloseCode::Size),
        ("a long message", declared(100_001), CloseCode::Size),
        (
            "a long message in fragments",
            then(frame(0x02, &[0; 60_000]), frame(0x80, &[0; 60_000])),
            CloseCode::Size,
        ),
        ("a text", frame(0x81, b"text"), CloseCode::Unsupported),
    ];
    let all = protocol.into_iter().map(|(what, bytes)| (what, bytes, CloseCode::Protocol));
    for (what, bytes, code) in all.chain(other) {
        for step in [1, 1 << 20] {
            let fault = read(Form::Binary, &bytes, step).err();
            assert_eq!(fault.map(|fault| fault.code), Some(code), "{what}, {step}");
        }
    }
}

#[test]
fn texts_are_texts() {
    let mut whole = frame(0x01, b"\xe2\x82");
    whole.extend(frame(0x80, b"\xac"));
    assert_eq!(read(Form::Text, &whole, 1).expect("text").payload, "€".as_bytes());
    for wrong in [frame(0x81, b"\xe2\x82"), frame(0x81, b"a\xffb"), frame(0x88, b"\x03\xe8\xff")] {
        let fault = read(Form::TextMessages, &wrong, 1).err();
        assert_eq!(fault.map(|fault| fault.code), Some(CloseCode::Invalid));
    }
    let binary = read(Form::TextMessages, &frame(0x82, b"x"), 1).err();
    assert_eq!(binary.map(|fault| fault.code), Some(CloseCode::Unsupported));
}

#[test]
fn nothing_behind_a_close_counts() {
    let mut bytes = frame(0x88, &[&1000_u16.to_be_bytes()[..], b"bye"].concat());
    bytes.extend(frame(0x82, b"more"));
    for step in [1, 1 << 20] {
        let read = read(Form::Binary, &bytes, step).expect("good frames");
        assert_eq!((read.close, &read.payload[..]), (Some(Some(CloseCode::Normal)), &b""[..]));
    }
}

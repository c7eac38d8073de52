//! WebSocket frames (RFC 6455), with tungstenite as the oracle: what it writes as a client we read,
//! and whatever bytes come, both servers see the same messages up to the same end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{self, Cursor, Read, Write};

use polymq_driver::{Form, read_frames};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed},
};
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    error::CapacityError,
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
};

/// What a server reads from; what it writes is forgotten.
struct Pipe(Cursor<Vec<u8>>);

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How the oracle reads these bytes: the payload of whole messages, and the close code of a
/// mistake.
fn oracle(bytes: &[u8]) -> (Vec<u8>, Option<u16>) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(1 << 20);
    config.max_frame_size = Some(1 << 20);
    let pipe = Pipe(Cursor::new(bytes.to_vec()));
    let mut server = WebSocket::from_raw_socket(pipe, Role::Server, Some(config));
    let mut payload = Vec::new();
    loop {
        match server.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                payload.extend_from_slice(&message.into_data());
            }
            // How it says that a close code means nothing.
            Ok(Message::Close(Some(frame))) if frame.reason.as_str() == "Protocol violation" => {
                return (payload, Some(1002));
            }
            Ok(Message::Close(_)) => return (payload, None),
            Ok(_) => {}
            Err(Error::Io(_) | Error::ConnectionClosed) => return (payload, None),
            Err(Error::Utf8(_)) => return (payload, Some(1007)),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                return (payload, Some(1009));
            }
            Err(Error::Protocol(_)) => return (payload, Some(1002)),
            Err(other) => panic!("unexpected {other}"),
        }
    }
}

/// What a client of tungstenite writes.
fn written(messages: &[Message]) -> Vec<u8> {
    struct Sink(Vec<u8>);
    impl Read for Sink {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Sink {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut client = WebSocket::from_raw_socket(Sink(Vec::new()), Role::Client, None);
    for message in messages {
        client.send(message.clone()).unwrap();
    }
    client.get_ref().0.clone()
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        vec(any::<u8>(), 0..300).prop_map(|bytes| Message::Binary(bytes.into())),
        ".{0,80}".prop_map(|text| Message::Text(text.into())),
        vec(any::<u8>(), 0..125).prop_map(|bytes| Message::Ping(bytes.into())),
        (65_530..65_540_usize).prop_map(|length| Message::Binary(vec![7; length].into())),
    ]
}

/// A frame of a client, right or wrong: first byte, mask bit, length as it is or as it is said.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => prop_oneof![Just(0x81_u8), Just(0x82), Just(0x01), Just(0x02), Just(0x00), Just(0x80)],
        2 => prop_oneof![Just(0x88_u8), Just(0x89), Just(0x8a)],
        1 => any::<u8>(),
    ];
    (first, vec(any::<u8>(), 0..130), prop::bool::weighted(0.95), any::<[u8; 4]>()).prop_map(
        |(first, payload, is_masked, mask)| {
            let mut bytes = vec![first];
            let bit = if is_masked { 0x80 } else { 0 };
            match u8::try_from(payload.len()) {
                Ok(short @ 0..=125) => bytes.push(bit | short),
                _ => {
                    bytes.push(bit | 126);
                    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
                }
            }
            if is_masked {
                bytes.extend(mask);
            }
            let mask = if is_masked { mask } else { [0; 4] };
            bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            bytes
        },
    )
}

fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(config(256))]

    #[test] // Sections 5.2 to 5.6.
    fn what_a_client_writes_is_read(messages in vec(message(), 0..8), step in 1..2000_usize) {
        let is_payload = |message: &&Message| message.is_text() || message.is_binary();
        let expected: Vec<_> = messages.iter().filter(is_payload).flat_map(|message| {
            message.clone().into_data().to_vec()
        }).collect();
        prop_assert_eq!(read_frames(Form::Text, &written(&messages), step), Ok(expected));
    }

    #[test] // Section 5.4: messages that are cut by a mistake are another matter.
    fn both_servers_see_the_same(frames in vec(frame(), 0..6), step in 1..200_usize) {
        let bytes = frames.concat();
        let (expected, code) = oracle(&bytes);
        match (read_frames(Form::Text, &bytes, step), code) {
            // Of two mistakes in one close frame either may be named.
            (Err(1002), Some(1007)) => {}
            (Err(ours), Some(theirs)) => prop_assert_eq!(ours, theirs),
            // A message whose last frame has not come is no message yet for the oracle.
            (Ok(seen), None) => prop_assert!(seen.starts_with(&expected)),
            // A text is refused here at its first wrong byte, there at its end.
            (Err(1007), None) => {}
            (ours, theirs) => prop_assert!(false, "{:?} and {:?}", ours, theirs),
        }
    }
}

#[test] // Section 5.5.1.
fn a_close_is_the_end() {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    let mut bytes = written(&[Message::Binary("before".into()), Message::Close(Some(frame))]);
    bytes.extend(written(&[Message::Binary("behind".into())]));
    assert_eq!(read_frames(Form::Binary, &bytes, usize::MAX), Ok(b"before".to_vec()));
}

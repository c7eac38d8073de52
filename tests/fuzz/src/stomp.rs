//! Targets for STOMP 1.0, 1.1 and 1.2.

use polymq_model::Message;
use polymq_stomp::{
    Stomp,
    codec::{Bounds, Command, Frame, HeaderBounds, Splitter, Version, put_escaped, unescape},
};

use crate::{
    amqp::deliver_everywhere,
    conversation::{Conversation, in_pieces},
    seeds,
};

const BOUNDS: Bounds = Bounds { head_bytes_max: 4096, body_bytes_max: 65_536 };
const HEADER_BOUNDS: HeaderBounds = HeaderBounds { headers_max: 64 };

/// Bytes from somebody who has not logged in.
pub fn stranger(bytes: &[u8]) {
    in_pieces(|| Conversation::alone(&Stomp::default()), bytes);
    in_pieces(|| Conversation::new(&Stomp::default()), bytes);
}

fn connected(version: &str) -> Conversation {
    let mut client = Conversation::new(&Stomp::default());
    client.feed(&seeds::stomp_connect(version));
    client.settle();
    client
}

/// A client of this version that subscribes to everything.
pub fn subscriber(version: &str) -> Conversation {
    let mut client = connected(version);
    client.feed(&seeds::stomp_subscribe());
    client.settle();
    client
}

fn version(byte: u8) -> &'static str {
    ["1.0", "1.1", "1.2"].get(usize::from(byte) % 3).copied().unwrap_or("1.2")
}

/// Any bytes on a connection that is logged in; the first one chooses its version.
pub fn session(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let client = in_pieces(|| connected(version(*mode)), rest);
    deliver_everywhere(&client.published);
}

/// One such connection, fed in one piece.
pub fn connect_and_feed(bytes: &[u8]) -> Conversation {
    let (mode, rest) = bytes.split_first().unwrap_or((&2, &[]));
    let mut client = connected(version(*mode));
    client.feed(rest);
    client.settle();
    client
}

/// Whole frames with any headers, valid ones in any order among them.
///
/// Each piece of the input is a command, a length and header lines; the frame around it is right.
pub fn frames(bytes: &[u8]) {
    let Some((mode, mut rest)) = bytes.split_first() else { return };
    let commands = [
        "SEND",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "ACK",
        "NACK",
        "BEGIN",
        "COMMIT",
        "ABORT",
        "DISCONNECT",
    ];
    let mut frames = Vec::new();
    while let [command, len, tail @ ..] = rest {
        let (head, after) = tail.split_at(usize::from(*len).min(tail.len()));
        let word = commands.get(usize::from(*command) % commands.len()).copied();
        frames.extend_from_slice(word.unwrap_or("SEND").as_bytes());
        frames.push(b'\n');
        frames.extend_from_slice(head);
        frames.extend_from_slice(b"\n\n\0");
        rest = after;
    }
    let client = in_pieces(|| connected(version(*mode)), &frames);
    deliver_everywhere(&client.published);
}

/// Frames without a session: what is read and written again is read as the same.
pub fn codec(bytes: &[u8]) {
    for version in Version::ALL {
        let Ok(Some(whole)) = Splitter::default().find(bytes, BOUNDS) else { return };
        assert!(whole.size() <= bytes.len(), "a frame is part of what came");
        let mut places = Vec::new();
        let Ok(frame) = Frame::parse(bytes, whole, version, HEADER_BOUNDS, &mut places) else {
            continue;
        };
        if frame.command != Command::Send {
            continue;
        }
        let first = meant(&frame);
        let mut encoded = b"SEND\n".to_vec();
        for (name, value) in &first {
            put_escaped(name, Version::V12, &mut encoded);
            encoded.push(b':');
            put_escaped(value, Version::V12, &mut encoded);
            encoded.push(b'\n');
        }
        encoded.push(b'\n');
        encoded.extend_from_slice(frame.body);
        encoded.push(0);
        let Ok(Some(whole)) = Splitter::default().find(&encoded, WIDE) else {
            // A length that counts otherwise once its header is written without spaces.
            continue;
        };
        let mut places = Vec::new();
        let again = Frame::parse(&encoded, whole, Version::V12, HEADER_BOUNDS, &mut places)
            .expect("our own frame");
        assert_eq!((meant(&again), again.body), (first, frame.body));
    }
}

/// Escapes make a head longer.
const WIDE: Bounds = Bounds { head_bytes_max: 16_384, body_bytes_max: 65_536 };

fn meant(frame: &Frame<'_>) -> Vec<(String, String)> {
    let text = |raw| unescape(raw, frame.version()).expect("checked by the parser").into_owned();
    frame.raw_headers().map(|(name, value)| (text(name), text(value))).collect()
}

/// Fails unless `bytes` are one MESSAGE with the body of `message`, by a reader that knows nothing
/// of ours.
pub(crate) fn is_one_message(bytes: &[u8], message: &Message) {
    let head = bytes.windows(2).position(|pair| pair == b"\n\n").expect("a head");
    let (head, rest) = bytes.split_at(head);
    let head = std::str::from_utf8(head).expect("headers are text");
    let mut lines = head.split('\n');
    assert_eq!(lines.next(), Some("MESSAGE"));
    let pair = |line: &str| line.split_once(':').map(|(n, v)| (n.to_owned(), v.to_owned()));
    let headers: Vec<_> = lines.map(|line| pair(line).expect("a header")).collect();
    let of_server = ["subscription", "destination", "message-id", "content-length"];
    for name in of_server {
        let count = headers.iter().filter(|(known, _)| known == name).count();
        assert_eq!(count, 1, "one header '{name}'");
    }
    assert!(!head.contains('\0') && !head.contains('\r'), "no control character is written raw");
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse::<usize>().ok());
    assert_eq!(length, Some(message.body().len()));
    let body = [b"\n\n", message.body(), b"\0"].concat();
    assert_eq!(rest, body, "the frame ends behind the body");
}

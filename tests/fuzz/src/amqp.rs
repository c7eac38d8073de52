//! Targets for AMQP 0-9-1.

use bytes::BytesMut;
use polymq_amqp091::{
    Amqp091,
    codec::{frame, props::Props, table},
};
use polymq_model::{Message, Table, Value};

use crate::{
    conversation::{Conversation, in_pieces},
    json, mqtt, seeds, stomp, web, xmpp,
};

/// Bytes from somebody who has not logged in.
pub fn stranger(bytes: &[u8]) {
    in_pieces(|| Conversation::alone(&Amqp091::default()), bytes);
    in_pieces(|| Conversation::new(&Amqp091::default()), bytes);
}

/// A connection with channel 1 open; the bits of `mode` switch on confirms, transactions and a
/// consumer.
pub(crate) fn open(mode: u8) -> Conversation {
    let mut client = Conversation::new(&Amqp091::default());
    client.feed(&seeds::amqp_login());
    for (bit, method) in [(1, [0, 85, 0, 10, 0].as_slice()), (2, &[0, 90, 0, 10])] {
        if mode & bit != 0 {
            client.feed(&seeds::amqp_frame(frame::METHOD, 1, method));
        }
    }
    if mode & 4 != 0 {
        client.feed(&seeds::amqp_consume());
    }
    client.settle();
    client
}

/// Any bytes on a connection that is logged in; the first one chooses its state.
pub fn session(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let client = in_pieces(|| open(*mode & 7), rest);
    deliver_everywhere(&client.published);
}

/// One such connection, fed in one piece.
pub fn open_and_feed(bytes: &[u8]) -> Conversation {
    let (mode, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut client = open(*mode & 7);
    client.feed(rest);
    client.settle();
    client
}

/// Whole frames with any content, valid ones in any order among them.
///
/// Each piece of the input is kind, channel, length and payload; the frame around it is right.
pub fn methods(bytes: &[u8]) {
    let Some((mode, mut rest)) = bytes.split_first() else { return };
    let mut frames = BytesMut::new();
    while let [kind, len, tail @ ..] = rest {
        let (payload, after) = tail.split_at(usize::from(*len).min(tail.len()));
        let kinds = [frame::METHOD, frame::METHOD, frame::HEADER, frame::BODY];
        let kind_of = kinds.get(usize::from(kind & 3)).copied().unwrap_or(frame::HEARTBEAT);
        let channel = match kind >> 6 {
            0 | 1 => 1,
            2 => 0,
            _ => 2,
        };
        frame::put(&mut frames, kind_of, channel, payload);
        rest = after;
    }
    let client = in_pieces(|| open(*mode & 7), &frames);
    deliver_everywhere(&client.published);
}

/// Every message that a session let pass can be shown to consumers of every protocol.
pub(crate) fn deliver_everywhere(published: &[Message]) {
    if published.is_empty() {
        return;
    }
    let mut readers =
        [open(4), mqtt::subscriber(4), mqtt::subscriber(5), xmpp::reader(), web::reader()];
    let mut texts = ["1.0", "1.1", "1.2"].map(stomp::subscriber);
    for message in published.iter().take(8) {
        json::is_one_message(message);
        for reader in &mut readers {
            reader.deliver(message);
            assert!(reader.is_open(), "a message of somebody else closes a reader");
        }
        for reader in &mut texts {
            let before = reader.output.len();
            reader.deliver(message);
            assert!(reader.is_open(), "a message of somebody else closes a reader");
            let written = reader.output.get(before..).unwrap_or_default();
            stomp::is_one_message(written, message);
        }
    }
}

/// Field tables and property lists: decode, encode, decode gives the same.
pub fn table(bytes: &[u8]) {
    properties(bytes);
    let Ok(first) = table::decode(bytes, table::DECODE_BOUNDS) else { return };
    let mut encoded = Vec::new();
    table::put_table(&mut encoded, &first);
    let content = encoded.get(4..).expect("a table has a length");
    assert!(content.len() <= bytes.len().saturating_mul(3), "{} bytes", content.len());
    let second = table::decode(content, table::DECODE_BOUNDS).expect("our own table");
    let mut again = Vec::new();
    table::put_table(&mut again, &second);
    assert_eq!(encoded, again);
    if is_exact(&first) {
        // By their texts, because no NaN equals itself.
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}

/// True when no name was cut or repaired, and no time was beyond what milliseconds can count.
fn is_exact(table: &Table) -> bool {
    table.iter().all(|(name, value)| !name.contains('\u{FFFD}') && is_exact_value(value))
}

fn is_exact_value(value: &Value) -> bool {
    match value {
        Value::Timestamp(ms) => *ms != i64::MAX,
        Value::List(list) => list.iter().all(is_exact_value),
        Value::Map(table) => is_exact(table),
        _ => true,
    }
}

fn properties(bytes: &[u8]) {
    let Ok(first) = Props::parse(bytes) else { return };
    let mut encoded = Vec::new();
    first.put(&mut encoded);
    let second = Props::parse(&encoded).expect("our own properties");
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}

//! Targets for JSON over WebSocket, and for the frames under it.

use polymq_contract::{MessageKind, web_message::put_head};
use polymq_driver::{Form, read_frames};
use polymq_json::Json;

use crate::{
    amqp::deliver_everywhere,
    conversation::{Conversation, in_pieces},
    seeds, sight,
};

fn protocol() -> Json {
    Json::new("fuzz")
}

/// A whole message as a session sees it.
pub(crate) fn message(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_head(kind, payload.len(), &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// Bytes from somebody who has not logged in.
pub fn stranger(bytes: &[u8]) {
    in_pieces(|| Conversation::over_messages(&protocol(), false), bytes);
    in_pieces(|| Conversation::over_messages(&protocol(), true), bytes);
}

/// A client that is connected; the lowest bit of `mode` gives it a subscription.
fn connected(mode: u8) -> Conversation {
    let mut client = Conversation::over_messages(&protocol(), true);
    client.feed(&message(MessageKind::Text, br#"{"op":"connect"}"#));
    client.settle();
    if mode & 1 != 0 {
        client.feed(&message(MessageKind::Text, seeds::JSON_SUBSCRIBE.as_bytes()));
        client.settle();
    }
    client
}

/// A client that takes whatever is delivered.
pub(crate) fn reader() -> Conversation {
    connected(1)
}

/// Any bytes on a connection that is logged in; the first one chooses its state.
pub fn session(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let client = in_pieces(|| connected(*mode), rest);
    deliver_everywhere(&client.published);
}

/// Whole messages with any payload. Each piece of the input is a kind, a length in two bytes, and
/// the payload; a binary one gets a length that fits.
pub fn messages(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let client = in_pieces(|| connected(*mode), &framed(rest));
    deliver_everywhere(&client.published);
}

/// One such connection, fed in one piece.
pub fn connect_and_feed(bytes: &[u8]) -> Conversation {
    let (mode, rest) = bytes.split_first().unwrap_or((&1, &[]));
    let mut client = connected(*mode);
    client.feed(&framed(rest));
    client.settle();
    client
}

fn framed(mut rest: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let [kind, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (payload, after) = tail.split_at(length);
        frames.extend(match kind % 4 {
            0..=2 => message(MessageKind::Text, payload),
            _ => {
                // The JSON ends where its last brace does.
                let end = payload.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
                let json_bytes = u32::try_from(end).unwrap_or(0).to_be_bytes();
                message(MessageKind::Binary, &[&json_bytes[..], payload].concat())
            }
        });
        rest = after;
    }
    frames
}

/// Frames of a client: one piece or many come to the same, and to no more than what came.
pub fn frames(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else { return };
    let forms = [Form::Binary, Form::Text, Form::TextMessages, Form::Messages];
    let form = forms.get(usize::from(*form) % 4).copied().unwrap_or(Form::Messages);
    let whole = read_frames(form, rest, usize::MAX);
    let class = whole.as_ref().map(|payload| payload.len().checked_ilog2());
    sight::note_value((bytes.first(), class));
    if let Ok(payload) = &whole {
        assert!(payload.len() <= rest.len(), "payload is part of what came");
    }
    for step in [1, 2, 7] {
        assert_eq!(read_frames(form, rest, step), whole, "pieces of {step} differ");
    }
}

//! Targets for XMPP.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use polymq_contract::{MessageKind, Offer};
use polymq_xmpp::{
    Settings, Xmpp,
    xml::{Bad, Parsed, StreamParser, document, write},
};

use crate::{
    amqp::deliver_everywhere,
    conversation::{Conversation, in_pieces},
    seeds, web,
};

/// Largest stanza here, so that the limit is reached.
const STANZA_BYTES_MAX: usize = 64 * 1024;
/// Depth of a document here.
const DEPTH_MAX: usize = 32;

/// XMPP whose names are the same at each run.
fn protocol() -> Xmpp {
    let next = AtomicU64::new(1);
    Xmpp::new(Settings {
        domain: "d".to_owned(),
        stanza_bytes_max: STANZA_BYTES_MAX,
        resume_timeout: Duration::from_secs(300),
        ping_after: Duration::from_secs(300),
        offer: Offer::default(),
        entropy: Box::new(move |bytes: &mut [u8]| {
            let number = next.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            bytes.iter_mut().zip(number).for_each(|(byte, random)| *byte = random);
        }),
    })
}

/// Bytes from somebody who has not logged in.
pub fn stranger(bytes: &[u8]) {
    in_pieces(|| Conversation::alone(&protocol()), bytes);
    in_pieces(|| Conversation::new(&protocol()), bytes);
}

/// A client that is bound; the bits of `mode` switch on presence, stream management and a consumer.
fn bound(mode: u8) -> Conversation {
    let mut client = Conversation::new(&protocol());
    for part in seeds::xmpp_login() {
        client.feed(part.as_bytes());
        client.settle();
    }
    let extras = [
        (1, "<presence/>"),
        (2, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"),
        (4, "<presence to='q@queues.d'><consume xmlns='urn:polymq:queue:1'/></presence>"),
    ];
    for (bit, text) in extras {
        if mode & bit != 0 {
            client.feed(text.as_bytes());
            client.settle();
        }
    }
    client
}

/// Whole messages of WebSocket on a stream that is logged in; each line of the input is one.
pub fn framed(bytes: &[u8]) {
    let text = |text: &[u8]| web::message(MessageKind::Text, text);
    let frames: Vec<u8> = bytes.split(|byte| *byte == b'\n').flat_map(text).collect();
    let client = in_pieces(|| Conversation::over_messages(&protocol(), true), &frames);
    deliver_everywhere(&client.published);
}

/// A client that takes whatever is delivered.
pub(crate) fn reader() -> Conversation {
    bound(5)
}

/// Any bytes on a stream that is bound; the first one chooses its state.
pub fn session(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let client = in_pieces(|| bound(*mode & 7), rest);
    deliver_everywhere(&client.published);
}

/// One such stream, fed in one piece.
pub fn bind_and_feed(bytes: &[u8]) -> Conversation {
    let (mode, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut client = bound(*mode & 7);
    client.feed(rest);
    client.settle();
    client
}

/// Everything whole in the pieces, and how they end.
fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Parsed>, Option<Bad>) {
    let mut parser = StreamParser::new(4096, DEPTH_MAX);
    let mut found = Vec::new();
    for mut piece in pieces {
        loop {
            match parser.next(&mut piece) {
                Ok(Some(parsed)) => found.push(parsed),
                Ok(None) => break,
                Err(bad) => return (found, Some(bad)),
            }
        }
    }
    (found, None)
}

/// XML: read, write, read gives the same, however the stream is cut; memory stays within limits.
pub fn xml(bytes: &[u8]) {
    let whole = parse(std::iter::once(bytes));
    assert_eq!(whole, parse(bytes.chunks(1)), "pieces differ from the whole");
    for parsed in whole.0 {
        let Parsed::Stanza(element) = parsed else { continue };
        let mut text = String::new();
        write(&element, "", &mut text);
        let allowed = bytes.len().saturating_mul(12).saturating_add(4 * 4096 + 64);
        assert!(text.len() <= allowed, "{} bytes of {}", text.len(), bytes.len());
        assert_eq!(document(&text, DEPTH_MAX + 1).as_ref(), Ok(&element));
    }
}

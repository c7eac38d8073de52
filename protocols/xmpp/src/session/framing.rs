//! Streams over WebSocket (RFC 7395): each message is a whole element, and `<open/>` and `<close/>`
//! stand for the ends of the stream.

use bytes::{Bytes, BytesMut};
use polymq_contract::{MessageKind, web_message::put_head};

use super::{DEPTH_MAX, Phase, Session, Turn};
use crate::{
    error::StreamError,
    xml::{self, Bad, Element, ns},
};

impl Session {
    pub(super) fn is_framed(&self) -> bool {
        self.messages.is_some()
    }

    /// The namespace that stanzas need not name.
    pub(super) fn default_ns(&self) -> &'static str {
        if self.is_framed() { "" } else { ns::CLIENT }
    }

    /// What is said at once, as it goes over the socket.
    pub(super) fn wrapped(&self, text: String) -> Bytes {
        if !self.is_framed() {
            return Bytes::from(text);
        }
        let mut bytes = BytesMut::with_capacity(text.len().saturating_add(10));
        put_head(MessageKind::Text, text.len(), &mut bytes);
        bytes.extend_from_slice(text.as_bytes());
        bytes.freeze()
    }

    /// Takes whole messages.
    pub(super) fn take_messages(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
        while self.phase != Phase::Closed && !self.must_wait(turn) {
            let bytes_max = self.stanza_bytes_max();
            let Some(messages) = &mut self.messages else { return };
            let message = match messages.next(input, bytes_max) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => return self.fail(StreamError::from(Bad::Limit), turn),
            };
            self.clock.heard(turn.now);
            self.shared.counters.frames_in.add(1);
            match xml::lone_element(&message.payload, bytes_max, DEPTH_MAX) {
                Ok(element) => self.on_framed(element, turn),
                Err(bad) => self.fail(StreamError::from(bad), turn),
            }
        }
    }

    fn on_framed(&mut self, element: Element, turn: &mut Turn<'_>) {
        match (&*element.ns, &*element.name) {
            (ns::FRAMING, "close") => self.close_stream("client", "the stream ended", turn),
            // Sections 3.4 and 3.7: it comes first, and again after the login.
            _ if self.phase == Phase::Opening => self.on_header(&element, turn),
            (ns::FRAMING, _) => {
                let text = "the stream is open already";
                self.fail(StreamError::new("bad-format", text), turn);
            }
            _ => self.on_element(element, turn),
        }
    }
}

//! Streams over WebSocket: RFC 7395.

use polymq_contract::{MessageKind, WebMessages, web_message::put_head};

use super::*;

const OPEN: &str = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='d' version='1.0'/>";
const CLOSE: &str = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";

struct Framed(World);

impl Framed {
    fn new() -> Self {
        let peer = Peer { transport: Transport::Messages, ..peer() };
        Self(World::with(&Xmpp::new(settings()), peer))
    }

    /// Sends a message, and returns the messages that are said to it.
    fn say(&mut self, text: &str) -> Vec<String> {
        put_head(MessageKind::Text, text.len(), &mut self.0.input);
        self.0.input.extend_from_slice(text.as_bytes());
        self.turn()
    }

    fn turn(&mut self) -> Vec<String> {
        let now = self.0.now();
        self.0.effects.waiting = false;
        self.0.session.on_bytes(&mut self.0.input, now, &mut self.0.effects);
        let mut said = BytesMut::from(&self.0.effects.out.take_all()[..]);
        let (mut messages, mut texts) = (WebMessages::default(), Vec::new());
        while let Some(message) = messages.next(&mut said, 1 << 20).expect("small") {
            assert_eq!(message.kind, MessageKind::Text);
            texts.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
        texts
    }

    fn answer(&mut self, answer: Result<Answer, Refusal>) -> Vec<String> {
        let request = self.0.request();
        let mut batch = EventBatch::default();
        batch.push(Event::Answered { request, answer: Box::new(answer) });
        let now = self.0.now();
        self.0.session.on_events(&mut batch, now, &mut self.0.effects);
        self.turn()
    }

    fn log_in(&mut self) {
        self.say(OPEN);
        let plain = BASE64_STANDARD.encode("\0u\0secret");
        self.say(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{plain}</auth>"));
        self.answer(authenticated("u"));
        assert_eq!(self.answer(Ok(Answer::VhostOpened)), [format!("<success xmlns='{SASL}'/>")]);
        let said = self.say(OPEN);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("urn:ietf:params:xml:ns:xmpp-bind"), "{said:?}");
    }
}

#[test] // Sections 3.3.2 and 3.4.
fn a_stream_opens_and_closes_with_elements_of_its_own() {
    let mut framed = Framed::new();
    let said = framed.say(OPEN);
    assert!(said[0].starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' from='d' id='"));
    let features = "<stream:features xmlns:stream='http://etherx.jabber.org/streams'>";
    assert!(said[1].starts_with(features), "{said:?}");
    assert_eq!(said.len(), 2);
    assert_eq!(framed.say(CLOSE), [CLOSE]);
    assert!(framed.0.is_closed());
}

#[test] // Section 3.3.3.
fn each_stanza_is_a_message_that_stands_for_itself() {
    let mut framed = Framed::new();
    framed.log_in();
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind>";
    framed.say(&format!("<iq xmlns='jabber:client' type='set' id='b'>{bind}</iq>"));
    let said = framed.answer(Ok(Answer::Consuming { reply_name: None }));
    assert!(said[0].starts_with("<iq xmlns='jabber:client' type='result' id='b'"), "{said:?}");
    let ping =
        "<iq xmlns='jabber:client' type='get' id='p' to='d'><ping xmlns='urn:xmpp:ping'/></iq>";
    let pong = "<iq xmlns='jabber:client' type='result' id='p' from='d' to='u@d/r'/>";
    assert_eq!(framed.say(ping), [pong]);
}

#[test] // Sections 3.3.3 and 3.5.
fn what_is_no_whole_element_ends_the_stream() {
    for wrong in ["<iq xmlns='jabber:client'>", "<a/><b/>", "text", "", "<!-- a -->", OPEN] {
        let mut framed = Framed::new();
        framed.say(OPEN);
        let said = framed.say(wrong);
        assert!(said[0].starts_with("<stream:error xmlns:stream='"), "{wrong}: {said:?}");
        assert_eq!(said[1], CLOSE);
        assert!(framed.0.is_closed());
    }
    let mut framed = Framed::new();
    let said = framed.say(HEAD);
    assert!(said[1].starts_with("<stream:error "), "{said:?}");
    let mut framed = Framed::new();
    let said = framed.say(&format!("<open x='{}'/>", "x".repeat(9000)));
    assert!(said[1].contains("<policy-violation "), "{said:?}");
}

//! A stream of stanzas from pieces of bytes, within limits.

use std::fmt;

use rxml::{Event, Parse, Parser, WithOptions, error::EndOrError};

use super::{
    element::{Attribute, Element, Node, Text},
    ns,
};

/// Longest name and attribute in bytes; texts may be longer.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Attributes of one element.
const ATTRIBUTES_MAX: usize = 128;

/// How much longer than a stanza the namespaces of its elements may be, each counted in full.
const NAMESPACES_FACTOR: usize = 4;

/// What a document may be at least, so that a short one may name a namespace often.
const DOCUMENT_BYTES_MIN: usize = 1024 * 1024;

/// Something whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// `<stream:stream>`, without what follows in it.
    Opened(Element),
    /// A stanza, or another element at its level.
    Stanza(Element),
    /// `</stream:stream>`
    Closed,
}

/// Why the stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// It is not XML in UTF-8.
    NotWellFormed,
    /// It is XML that XMPP forbids: comments, processing instructions, declarations, entities.
    Restricted,
    /// It is too long, too deep, or has too many attributes.
    Limit,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWellFormed => "the stream is not well-formed XML in UTF-8",
            Self::Restricted => "the stream holds XML that RFC 6120 forbids",
            Self::Limit => "a stanza is too long, too deep, or has too many attributes",
        })
    }
}

/// Takes a stream apart. Memory grows with what came of one stanza, up to its limit.
pub struct StreamParser {
    parser: Parser,
    /// The elements that are open below the stream's own.
    open: Vec<Element>,
    is_open: bool,
    /// Bytes since the last whole thing.
    bytes: usize,
    /// Bytes of the namespaces of its elements: a prefix makes a long one short to send.
    namespaces: usize,
    bytes_max: usize,
    depth_max: usize,
}

impl StreamParser {
    /// A parser for stanzas of at most `bytes_max` bytes and `depth_max` levels.
    pub fn new(bytes_max: usize, depth_max: usize) -> Self {
        let options = rxml::Options { max_token_length: TOKEN_BYTES_MAX, ..Default::default() };
        Self {
            parser: Parser::with_options(options),
            open: Vec::new(),
            is_open: false,
            bytes: 0,
            namespaces: 0,
            bytes_max,
            depth_max,
        }
    }

    /// A parser inside a stream whose header another one has read.
    pub fn inside(bytes_max: usize, depth_max: usize) -> Self {
        let mut parser = Self::new(bytes_max, depth_max);
        let head = format!("<stream:stream xmlns='{}' xmlns:stream='{}'>", ns::CLIENT, ns::STREAM);
        let mut head = head.as_bytes();
        let opened = parser.next(&mut head);
        debug_assert!(matches!(opened, Ok(Some(Parsed::Opened(_)))), "the header is well-formed");
        parser
    }

    /// The next whole thing from the front of `input`, of which everything that was looked at is
    /// taken; `None` when more must come.
    ///
    /// Errors: [`Bad`]; the parser is then of no further use.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Parsed>, Bad> {
        if !self.is_open && self.bytes == 0 {
            // The line feed behind an element that ended the stream before this one.
            let white = input.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            *input = input.get(white..).unwrap_or_default();
            // The parser would wait for the end of such a text.
            if input.first().is_some_and(|byte| *byte != b'<') {
                return Err(Bad::NotWellFormed);
            }
        }
        loop {
            let before = input.len();
            // No more than the limit is looked at, so that nothing longer is kept.
            let allowed = self.bytes_max.saturating_sub(self.bytes).saturating_add(1);
            let mut piece = input.get(..allowed.min(before)).unwrap_or_default();
            let piece_len = piece.len();
            let event = self.parser.parse(&mut piece, false);
            let taken = piece_len.saturating_sub(piece.len());
            *input = input.get(taken..).unwrap_or_default();
            self.bytes = self.bytes.saturating_add(taken);
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(None),
                Err(EndOrError::NeedMoreData) if self.bytes > self.bytes_max => {
                    return Err(Bad::Limit);
                }
                Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => return Err(bad(&error)),
            };
            if self.bytes > self.bytes_max {
                return Err(Bad::Limit);
            }
            let parsed = self.take(event)?;
            // White space between stanzas is not to be collected until the next one comes.
            self.parser.set_text_buffering(!self.open.is_empty());
            if let Some(parsed) = parsed {
                self.bytes = 0;
                self.namespaces = 0;
                return Ok(Some(parsed));
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Parsed>, Bad> {
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, (namespace, name), attributes) => {
                let of_attributes: usize = attributes.iter().map(|((ns, _), _)| ns.len()).sum();
                let namespaces = namespace.len().saturating_add(of_attributes);
                self.namespaces = self.namespaces.saturating_add(namespaces);
                if attributes.len() > ATTRIBUTES_MAX
                    || self.open.len() >= self.depth_max
                    || self.namespaces > self.bytes_max.saturating_mul(NAMESPACES_FACTOR)
                {
                    return Err(Bad::Limit);
                }
                let mut element = Element::new(known(namespace.as_str()), name.as_str().to_owned());
                element.attributes.extend(attributes.into_iter().map(|((ns, name), value)| {
                    let ns = known(ns.as_str());
                    Attribute { ns, name: Text::Owned(name.as_str().to_owned()), value }
                }));
                if self.is_open {
                    self.open.push(element);
                    return Ok(None);
                }
                self.is_open = true;
                Ok(Some(Parsed::Opened(element)))
            }
            Event::Text(_, text) => {
                match self.open.last_mut() {
                    Some(element) => element.push_text(text),
                    // White space between stanzas keeps connections alive.
                    None if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() => self.bytes = 0,
                    None => return Err(Bad::NotWellFormed),
                }
                Ok(None)
            }
            Event::EndElement(_) => {
                let Some(done) = self.open.pop() else { return Ok(Some(Parsed::Closed)) };
                match self.open.last_mut() {
                    Some(parent) => {
                        parent.nodes.push(Node::Element(done));
                        Ok(None)
                    }
                    None => Ok(Some(Parsed::Stanza(done))),
                }
            }
        }
    }
}

/// Namespaces that the stream is full of, without a copy. Components speak of themselves in a
/// namespace of their own, which means the same as that of clients.
fn known(namespace: &str) -> Text {
    Text::Borrowed(match namespace {
        "" => "",
        ns::CLIENT | ns::COMPONENT => ns::CLIENT,
        ns::XML => ns::XML,
        other => return Text::Owned(other.to_owned()),
    })
}

fn bad(error: &rxml::Error) -> Bad {
    match error {
        rxml::Error::RestrictedXml(what) if what.contains("long") => Bad::Limit,
        rxml::Error::RestrictedXml(_) | rxml::Error::UndeclaredEntity => Bad::Restricted,
        // What begins as `<!` and is neither is a declaration.
        rxml::Error::InvalidSyntax(what) if what.contains("cdata or comment") => Bad::Restricted,
        _ => Bad::NotWellFormed,
    }
}

/// Reads one element that is a whole document, as a body that claims to be XML may be.
///
/// Errors: [`Bad`].
pub fn document(text: &str, depth_max: usize) -> Result<Element, Bad> {
    let bytes_max = text.len().saturating_add(16).max(DOCUMENT_BYTES_MIN);
    lone_element(text.as_bytes(), bytes_max, depth_max)
}

/// Reads one element of at most `bytes_max` bytes with nothing around it but white space.
///
/// Errors: [`Bad`].
pub fn lone_element(bytes: &[u8], bytes_max: usize, depth_max: usize) -> Result<Element, Bad> {
    // The parser expects a stream around its stanzas.
    let mut parser = StreamParser::new(bytes_max, depth_max);
    let mut head = &b"<x>"[..];
    parser.next(&mut head)?;
    let mut input = bytes.trim_ascii();
    let parsed = parser.next(&mut input)?;
    match parsed {
        Some(Parsed::Stanza(element)) if input.is_empty() => Ok(element),
        _ => Err(Bad::NotWellFormed),
    }
}

impl fmt::Debug for StreamParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamParser").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::write, *};

    const HEAD: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                        xmlns:stream='http://etherx.jabber.org/streams' to='d' version='1.0'>";

    fn all(text: &str, step: usize) -> Result<Vec<Parsed>, Bad> {
        let mut parser = StreamParser::new(1000, 8);
        let mut parsed = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            let mut piece = piece;
            while let Some(one) = parser.next(&mut piece)? {
                parsed.push(one);
            }
        }
        Ok(parsed)
    }

    #[test]
    fn stanzas_come_out_however_the_stream_is_cut() {
        let text =
            format!("{HEAD} <iq id='1'><q xmlns='a'>x<b/>y</q></iq>\n<presence/></stream:stream>");
        let whole = all(&text, 10_000).unwrap();
        assert_eq!(whole.len(), 4);
        let Parsed::Stanza(iq) = &whole[1] else { panic!("a stanza") };
        assert!(iq.is(ns::CLIENT, "iq") && iq.get("id") == Some("1"));
        assert_eq!(iq.find("a", "q").unwrap().content(), "xy");
        assert_eq!(whole[3], Parsed::Closed);
        for step in 1..8 {
            assert_eq!(all(&text, step).as_ref(), Ok(&whole), "{step}");
        }
    }

    #[test]
    fn white_space_before_a_stream_says_nothing() {
        assert_eq!(all(&format!("\n {HEAD}<a/>"), 1).map(|parsed| parsed.len()), Ok(2));
    }

    #[test] // RFC 6120, section 11.1.
    fn what_xmpp_forbids_is_refused() {
        for (inner, bad) in [
            ("<!-- x -->", Bad::Restricted),
            ("<?php x?>", Bad::Restricted),
            ("<a>&foo;</a>", Bad::Restricted),
            ("<a><b></a>", Bad::NotWellFormed),
            ("text", Bad::NotWellFormed),
            ("<a b='1' b='2'/>", Bad::NotWellFormed),
            ("<p:a/>", Bad::NotWellFormed),
        ] {
            assert_eq!(all(&format!("{HEAD}{inner} "), 10_000), Err(bad), "{inner}");
        }
        assert!(all("<!DOCTYPE x [<!ENTITY a 'b'>]><x>", 10_000).is_err());
    }

    #[test]
    fn limits_hold_for_size_depth_and_attributes() {
        let long = format!("{HEAD}<a>{}", "x".repeat(2000));
        let deep = format!("{HEAD}{}", "<a>".repeat(20));
        let wide =
            format!("{HEAD}<a {}/>", (0..140).map(|n| format!("a{n}='' ")).collect::<String>());
        let open = format!("{HEAD}<a b='{}", "x".repeat(2000));
        for text in [long, deep, wide, open] {
            for step in [1, 7, 10_000] {
                assert_eq!(all(&text, step), Err(Bad::Limit), "{text}");
            }
        }
        let prefixed = format!("{HEAD}<a xmlns:p='{}'>{}", "u".repeat(200), "<p:b/>".repeat(60));
        assert_eq!(all(&prefixed, 10_000), Err(Bad::Limit), "short prefixes stand for long names");
        let padded = format!("{HEAD}{}<a/>", " ".repeat(1500));
        assert_eq!(all(&padded, 10).map(|parsed| parsed.len()), Ok(2), "white space is no stanza");
    }

    fn text() -> impl Strategy<Value = String> {
        "[a-z<>&'\" \t\n\r\u{e9}\u{1F600}]{0,12}"
    }

    fn element() -> impl Strategy<Value = Element> {
        let names = prop_oneof![Just("a"), Just("body"), Just("x-y")];
        let spaces = prop_oneof![Just(""), Just("urn:x"), Just(ns::CLIENT), Just("u&'<")];
        let leaf = (names, spaces, text(), text())
            .prop_map(|(name, ns, value, text)| Element::new(ns, name).attr("k", value).text(text));
        leaf.prop_recursive(4, 24, 4, |inner| {
            (inner.clone(), prop::collection::vec((inner, text()), 0..4)).prop_map(
                |(mut outer, more)| {
                    for (child, text) in more {
                        outer = outer.child(child).text(text);
                    }
                    outer
                },
            )
        })
    }

    proptest! {
        #![proptest_config(crate::test_config(128))]
        #[test]
        fn what_is_written_is_read_again(element in element()) {
            let mut text = String::new();
            write(&element, "", &mut text);
            prop_assert_eq!(document(&text, 16), Ok(element));
        }

        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut parser = StreamParser::new(100, 4);
            let mut input = &bytes[..];
            while let Ok(Some(_)) = parser.next(&mut input) {}
        }
    }
}

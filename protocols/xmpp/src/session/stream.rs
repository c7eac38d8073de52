//! Stream headers, features, and which element goes where (RFC 6120, sections 4 and 5).

use super::{Phase, Session, Turn};
use crate::{
    error::StreamError,
    jid::Jid,
    xml::{Element, ns},
};

impl Session {
    /// `<stream:stream>` of the other side.
    pub(super) fn on_header(&mut self, header: &Element, turn: &mut Turn<'_>) {
        if self.is_component() {
            return self.on_server_header(header, turn);
        }
        let (namespace, name) = match self.is_framed() {
            true => (ns::FRAMING, "open"),
            false => (ns::STREAM, "stream"),
        };
        if !header.is(namespace, name) {
            let (condition, text) = match header.ns == namespace {
                true => ("bad-format", "the stream begins with another element"),
                false => ("invalid-namespace", "the namespace of the stream is another one"),
            };
            return self.fail(StreamError::new(condition, text), turn);
        }
        self.put_header(turn);
        let to = header.get("to").unwrap_or_else(|| self.shared.domains.base());
        let ours = Jid::parse(to).is_some_and(|to| to.domain == self.shared.domains.base());
        if !ours {
            let text = format!("`{to}` is not served here (xmpp.domain)");
            return self.fail(StreamError::new("host-unknown", text), turn);
        }
        // RFC 6120, section 4.7.5: a stream without a version is one from before this RFC.
        if header.get("version").is_none_or(|version| !version.starts_with("1.")) {
            let text = "only version 1.0 is supported";
            return self.fail(StreamError::new("unsupported-version", text), turn);
        }
        self.phase = Phase::Negotiating;
        let features = self.features();
        self.put_raw(&features, turn);
    }

    /// Our stream header, once.
    pub(super) fn put_header(&mut self, turn: &mut Turn<'_>) {
        if std::mem::replace(&mut self.is_open, true) {
            return;
        }
        let domain = self.shared.domains.base();
        let header = match self.is_component() {
            _ if self.is_framed() => format!(
                "<open xmlns='{}' from='{domain}' id='{}' version='1.0' xml:lang='en'/>",
                ns::FRAMING,
                self.shared.random_name()
            ),
            true => format!(
                "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' to='{domain}'>",
                ns::COMPONENT,
                ns::STREAM
            ),
            false => format!(
                "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' from='{domain}' \
                 id='{}' version='1.0' xml:lang='en'>",
                ns::CLIENT,
                ns::STREAM,
                self.shared.random_name()
            ),
        };
        turn.effects.out.push_shared(self.wrapped(header));
    }

    fn features(&self) -> Element {
        let features = Element::new(ns::STREAM, "features");
        if self.user.is_empty() {
            let starttls = Element::new(ns::TLS, "starttls");
            return features
                .children(self.peer.offers_tls.then_some(starttls))
                .children(self.sasl_features());
        }
        let optional = Element::new(ns::SESSION, "optional");
        features
            .child(Element::new(ns::BIND, "bind"))
            .child(Element::new(ns::SESSION, "session").child(optional))
            .child(Element::new(ns::SM, "sm"))
            .child(Element::new(ns::ROSTER_VERSIONS, "ver"))
    }

    /// An element at the level of stanzas.
    pub(super) fn on_element(&mut self, element: Element, turn: &mut Turn<'_>) {
        if element.ns == ns::STREAM && element.name == "error" {
            return self.close_stream("peer_error", "the other side reports an error", turn);
        }
        match self.phase {
            Phase::Bound if element.ns == ns::SM => self.on_sm(&element, turn),
            Phase::Bound if element.ns == ns::CLIENT => self.on_stanza(element, turn),
            Phase::Negotiating if self.is_component() => self.on_handshake(&element, turn),
            Phase::Negotiating if self.user.is_empty() => match &*element.ns {
                ns::TLS if element.name == "starttls" => self.on_start_tls(turn),
                ns::SASL => self.on_sasl(&element, turn),
                _ => {
                    let text = "log in first";
                    self.fail(StreamError::new("not-authorized", text), turn);
                }
            },
            Phase::Negotiating => self.on_before_bind(element, turn),
            Phase::Bound => {
                let text = format!("<{}/> is no stanza", element.name);
                self.fail(StreamError::new("unsupported-stanza-type", text), turn);
            }
            Phase::Opening | Phase::Closed => {}
        }
    }

    /// `<starttls/>`: RFC 6120, section 5.4.2.
    fn on_start_tls(&mut self, turn: &mut Turn<'_>) {
        if !self.peer.offers_tls {
            self.put_raw(&Element::new(ns::TLS, "failure"), turn);
            return self.close_stream("protocol_error", "TLS was asked for and is not there", turn);
        }
        self.put_raw(&Element::new(ns::TLS, "proceed"), turn);
        turn.effects.start_tls = true;
    }
}

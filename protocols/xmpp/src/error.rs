//! Errors of stanzas and streams, and the one table from refusals of the broker to them.

use polymq_contract::{Refusal, RefusalKind};

use crate::xml::{Bad, Element, ns};

/// What the sender of a stanza is told (RFC 6120, section 8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StanzaError {
    /// `cancel`, `modify`, `auth` or `wait`.
    pub kind: &'static str,
    /// The condition's element.
    pub condition: &'static str,
    /// For people.
    pub text: String,
    /// A condition of an extension: namespace and element.
    pub special: Option<(&'static str, &'static str)>,
}

impl StanzaError {
    /// An error without more to say than its condition.
    pub fn new(kind: &'static str, condition: &'static str, text: impl Into<String>) -> Self {
        Self { kind, condition, text: text.into(), special: None }
    }

    /// The stanza is wrong.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new("modify", "bad-request", text)
    }

    /// There is no such thing.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new("cancel", "item-not-found", text)
    }

    /// Nobody is there, or nobody does that (RFC 6120, section 8.3.3.19).
    pub fn unavailable() -> Self {
        Self::new("cancel", "service-unavailable", "")
    }

    /// The receiver has more waiting than it may.
    pub fn too_much() -> Self {
        Self::new("wait", "resource-constraint", "the receiver does not read")
    }

    /// What is asked for is known and not there.
    pub fn not_implemented(text: impl Into<String>) -> Self {
        Self::new("cancel", "feature-not-implemented", text)
    }

    /// The same with a condition of PubSub (XEP-0060).
    pub fn of_pubsub(mut self, condition: &'static str) -> Self {
        self.special = Some((ns::PUBSUB_ERRORS, condition));
        self
    }

    /// The element.
    pub fn element(&self) -> Element {
        let condition = Element::new(ns::STANZA_ERRORS, self.condition);
        let mut error = Element::new(ns::CLIENT, "error").attr("type", self.kind).child(condition);
        if !self.text.is_empty() {
            let text: String = self.text.chars().filter(|c| crate::xml::is_legal(*c)).collect();
            error = error.child(Element::new(ns::STANZA_ERRORS, "text").text(text));
        }
        match self.special {
            Some((ns, name)) => error.child(Element::new(ns, name)),
            None => error,
        }
    }
}

impl From<Refusal> for StanzaError {
    /// The table of refusals, for stanzas.
    fn from(refusal: Refusal) -> Self {
        let (kind, condition) = match refusal.kind {
            RefusalKind::NotFound => ("cancel", "item-not-found"),
            RefusalKind::Denied | RefusalKind::Banned | RefusalKind::Reserved => {
                ("auth", "forbidden")
            }
            RefusalKind::Conflict | RefusalKind::Locked => ("cancel", "conflict"),
            RefusalKind::Invalid => ("modify", "bad-request"),
            RefusalKind::Limit | RefusalKind::Full | RefusalKind::TooManyLogins => {
                ("wait", "resource-constraint")
            }
            RefusalKind::TooLarge => ("modify", "policy-violation"),
            RefusalKind::NotAvailable => ("cancel", "feature-not-implemented"),
            RefusalKind::StoreFailed => ("wait", "internal-server-error"),
            RefusalKind::LoginFailed => ("auth", "not-authorized"),
        };
        Self::new(kind, condition, refusal.text)
    }
}

/// True for refusals after which nobody knows what has happened, so that the stream ends.
pub fn ends_stream(kind: RefusalKind) -> bool {
    kind == RefusalKind::StoreFailed
}

/// What ends a stream (RFC 6120, section 4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError {
    /// The condition's element.
    pub condition: &'static str,
    /// For people.
    pub text: String,
    /// A condition of an extension.
    pub special: Option<Box<Element>>,
}

impl StreamError {
    /// An error with a text for people.
    pub fn new(condition: &'static str, text: impl Into<String>) -> Self {
        Self { condition, text: text.into(), special: None }
    }

    /// The element.
    pub fn element(&self) -> Element {
        let text = Some(&self.text).filter(|text| !text.is_empty());
        let text = text.map(|text| Element::new(ns::STREAM_ERRORS, "text").text(text.clone()));
        Element::new(ns::STREAM, "error")
            .child(Element::new(ns::STREAM_ERRORS, self.condition))
            .children(text)
            .children(self.special.as_deref().cloned())
    }
}

impl From<Bad> for StreamError {
    fn from(bad: Bad) -> Self {
        let condition = match bad {
            Bad::NotWellFormed => "not-well-formed",
            Bad::Restricted => "restricted-xml",
            Bad::Limit => "policy-violation",
        };
        Self::new(condition, bad.to_string())
    }
}

/// The condition of `<failure/>` for a login that was refused (RFC 6120, section 6.5).
pub fn login_condition(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::Limit | RefusalKind::TooManyLogins | RefusalKind::StoreFailed => {
            "temporary-auth-failure"
        }
        RefusalKind::Banned => "account-disabled",
        _ => "not-authorized",
    }
}

//! An exchange: its properties and its bindings.

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ExchangeName, Table};
use serde::{Deserialize, Serialize};

use super::bindings::Bindings;

/// How an exchange chooses among its bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExchangeKind {
    /// Bindings whose key equals the routing key.
    #[default]
    Direct,
    /// All bindings.
    Fanout,
    /// Bindings whose pattern matches the topic levels.
    Topic,
    /// Bindings whose arguments match the headers.
    Headers,
}

impl ExchangeKind {
    /// Errors: kind `Invalid` for an unknown type, kind `NotAvailable` for a planned one.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "direct" => Ok(Self::Direct),
            "fanout" => Ok(Self::Fanout),
            "topic" => Ok(Self::Topic),
            "headers" => Ok(Self::Headers),
            "x-delayed-message" | "x-consistent-hash" | "x-modulus-hash" | "x-random"
            | "x-local-random" | "x-recent-history" => Err(Refusal::new(
                RefusalKind::NotAvailable,
                format!("exchange type '{text}' is not available yet"),
            )),
            other => Err(Refusal::new(
                RefusalKind::Invalid,
                format!("invalid exchange type '{other}'; use direct, fanout, topic or headers"),
            )),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// What an exchange was declared with.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ExchangeSpec {
    pub(crate) kind: ExchangeKind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: Table,
    /// Receives what no binding took.
    pub(crate) alternate: Option<String>,
}

impl ExchangeSpec {
    /// Names the first property in which a new declaration differs.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        if self.kind != other.kind {
            let (have, want) = (self.kind.as_str(), other.kind.as_str());
            return Some(format!("'type': received '{want}' but current is '{have}'"));
        }
        let flags = [
            ("durable", self.durable, other.durable),
            ("auto_delete", self.auto_delete, other.auto_delete),
            ("internal", self.internal, other.internal),
        ];
        for (name, have, want) in flags {
            if have != want {
                return Some(format!("'{name}': received '{want}' but current is '{have}'"));
            }
        }
        (self.alternate != other.alternate).then(|| {
            let show = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
            let (have, want) = (show(&self.alternate), show(&other.alternate));
            format!("'alternate-exchange': received '{want}' but current is '{have}'")
        })
    }
}

/// An exchange of a snapshot. Cloning shares its bindings.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) name: ExchangeName,
    pub(crate) spec: ExchangeSpec,
    pub(crate) bindings: Bindings,
    /// True once it has had a binding; an auto-delete exchange goes when it then has none.
    pub(crate) was_bound: bool,
    /// The alternate exchange that a policy names; its own wins.
    pub(crate) policy_alternate: Option<String>,
}

impl Exchange {
    /// Where messages go that no binding takes.
    pub(crate) fn alternate(&self) -> Option<&str> {
        self.spec.alternate.as_deref().or(self.policy_alternate.as_deref())
    }

    pub(crate) fn new(name: ExchangeName, spec: ExchangeSpec) -> Self {
        let bindings = Bindings::new(spec.kind);
        Self { name, spec, bindings, was_bound: false, policy_alternate: None }
    }
}

//! An exchange: its properties and its bindings.

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ExchangeName, Table, Value, value::find};
use serde::{Deserialize, Serialize};

use super::{
    bindings::{Binding, Bindings, Seen},
    choice::{Choice, HashKey},
};
use crate::declare::Difference;

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
    /// One binding, by a hash that keeps its choice while others come and go.
    #[serde(rename = "x-consistent-hash")]
    ConsistentHash,
    /// One binding, by a hash and the number of bindings.
    #[serde(rename = "x-modulus-hash")]
    ModulusHash,
    /// One binding, at random.
    #[serde(rename = "x-random")]
    Random,
    /// The same, and in a cluster one of this process when there is one.
    #[serde(rename = "x-local-random")]
    LocalRandom,
}

impl ExchangeKind {
    /// Errors: kind `Invalid` for an unknown type, kind `NotAvailable` for a planned one.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "direct" => Ok(Self::Direct),
            "fanout" => Ok(Self::Fanout),
            "topic" => Ok(Self::Topic),
            "headers" => Ok(Self::Headers),
            "x-consistent-hash" => Ok(Self::ConsistentHash),
            "x-modulus-hash" => Ok(Self::ModulusHash),
            "x-random" => Ok(Self::Random),
            "x-local-random" => Ok(Self::LocalRandom),
            "x-delayed-message" | "x-recent-history" => Err(Refusal::new(
                RefusalKind::NotAvailable,
                format!("exchange type '{text}' is not available yet"),
            )),
            other => Err(Refusal::new(
                RefusalKind::Invalid,
                format!(
                    "unknown exchange type '{other}'; use direct, fanout, topic, headers, \
                     x-consistent-hash, x-modulus-hash, x-random or x-local-random"
                ),
            )),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
            Self::ModulusHash => "x-modulus-hash",
            Self::Random => "x-random",
            Self::LocalRandom => "x-local-random",
        }
    }

    /// True when a message goes to one binding only, however many routing keys it has.
    pub(crate) fn takes_one(self) -> bool {
        match self {
            Self::ConsistentHash | Self::ModulusHash | Self::Random | Self::LocalRandom => true,
            Self::Direct | Self::Fanout | Self::Topic | Self::Headers => false,
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
    /// What of a message is hashed, for `x-consistent-hash`.
    pub(crate) hash_key: HashKey,
}

impl ExchangeSpec {
    /// Reads the arguments that have an effect; the others are kept and shown.
    ///
    /// Errors: kind `Invalid` for arguments that contradict each other or have a wrong type.
    pub(crate) fn parse(kind: ExchangeKind, arguments: Table) -> Result<Self, Refusal> {
        let alternate = alternate(&arguments)?;
        let hash_key = match kind {
            ExchangeKind::ConsistentHash => HashKey::parse(&arguments)?,
            _ => HashKey::default(),
        };
        Ok(Self { kind, alternate, hash_key, arguments, ..Self::default() })
    }

    /// The binding that takes a message, and whether that depends on more than its key.
    pub(super) fn choose<'a>(
        &self,
        choice: &'a Choice,
        seen: Seen<'_>,
    ) -> (Option<&'a Binding>, bool) {
        match self.kind {
            ExchangeKind::ConsistentHash => {
                let chosen = choice.by_ring(&self.hash_key, seen.key, seen.message);
                (chosen, self.hash_key != HashKey::RoutingKey)
            }
            ExchangeKind::ModulusHash => (choice.by_remainder(seen.key), false),
            _ => (choice.by_chance(seen.chance), true),
        }
    }

    /// The first property in which a new declaration differs.
    pub(crate) fn difference(&self, other: &Self) -> Option<Difference> {
        if self.kind != other.kind {
            let (have, want) = (self.kind.as_str(), other.kind.as_str());
            return Some(Difference::property("type", have, want));
        }
        let flags = [
            ("durable", self.durable, other.durable),
            ("auto_delete", self.auto_delete, other.auto_delete),
            ("internal", self.internal, other.internal),
        ];
        for (name, have, want) in flags {
            if have != want {
                return Some(Difference::property(name, have, want));
            }
        }
        let text = |alternate: &Option<String>| alternate.clone().map(Value::String);
        if self.alternate != other.alternate {
            let (have, want) = (text(&self.alternate), text(&other.alternate));
            return Some(Difference::argument("alternate-exchange", have.as_ref(), want.as_ref()));
        }
        let differs = |name| find(&self.arguments, name) != find(&other.arguments, name);
        let name = ["hash-header", "hash-property"].into_iter().find(|name| differs(name))?;
        (self.hash_key != other.hash_key).then(|| {
            let (have, want) = (find(&self.arguments, name), find(&other.arguments, name));
            Difference::argument(name, have, want)
        })
    }
}

/// The exchange that receives what no binding took, under either name.
///
/// Errors: kind `Invalid` for another type, and when the two names say different things.
pub(crate) fn alternate(arguments: &Table) -> Result<Option<String>, Refusal> {
    let read = |name: &str| match find(arguments, name) {
        None => Ok(None),
        Some(Value::String(exchange)) => Ok(Some(exchange.clone())),
        Some(other) => Err(crate::queue::invalid(name, other, "text")),
    };
    match (read("alternate-exchange")?, read("x-alternate-exchange")?) {
        (Some(one), Some(other)) if one != other => Err(Refusal::new(
            RefusalKind::Invalid,
            format!("alternate-exchange is '{one}' and x-alternate-exchange is '{other}'"),
        )),
        (one, other) => Ok(one.or(other)),
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

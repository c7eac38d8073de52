//! An exchange: its properties and its bindings.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ExchangeName, Table, Value, value::find};
use serde::{Deserialize, Serialize};

use super::{
    bindings::{Binding, Bindings, Seen},
    choice::{Choice, HashKey},
};
use crate::{declare::Difference, statistics::ExchangeStatistics};

/// The type of RabbitMQ's plugin for delayed messages.
pub(crate) const DELAYED_TYPE: &str = "x-delayed-message";
/// The argument that says how such an exchange chooses among its bindings.
const DELAYED_KIND: &str = "x-delayed-type";

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
            "x-recent-history" => Err(Refusal::new(
                RefusalKind::NotAvailable,
                format!("exchange type '{text}' is not available yet"),
            )),
            other => Err(Refusal::new(
                RefusalKind::Invalid,
                format!(
                    "unknown exchange type '{other}'; use direct, fanout, topic, headers, \
                     x-consistent-hash, x-modulus-hash, x-random, x-local-random or \
                     {DELAYED_TYPE}"
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
    /// Declared as [`DELAYED_TYPE`]. Every exchange delays, so that only its name is another.
    pub(crate) is_delayed: bool,
}

impl ExchangeSpec {
    /// Reads the arguments that have an effect; the others are kept and shown.
    ///
    /// Errors: kind `Invalid` for arguments that contradict each other or have a wrong type, and
    /// for an unknown type; kind `NotAvailable` for one that is planned.
    pub(crate) fn parse(kind: &str, arguments: Table) -> Result<Self, Refusal> {
        let is_delayed = kind == DELAYED_TYPE;
        let kind = if is_delayed { delayed_kind(&arguments)? } else { ExchangeKind::parse(kind)? };
        let alternate = alternate(&arguments)?;
        let hash_key = match kind {
            ExchangeKind::ConsistentHash => HashKey::parse(&arguments)?,
            _ => HashKey::default(),
        };
        Ok(Self { kind, alternate, hash_key, is_delayed, arguments, ..Self::default() })
    }

    /// The type it was declared with.
    pub(crate) fn type_name(&self) -> &'static str {
        if self.is_delayed { DELAYED_TYPE } else { self.kind.as_str() }
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
        if self.type_name() != other.type_name() {
            return Some(Difference::property("type", self.type_name(), other.type_name()));
        }
        if self.kind != other.kind {
            let of = |spec: &Self| Some(Value::String(spec.kind.as_str().to_owned()));
            let (have, want) = (of(self), of(other));
            return Some(Difference::argument(DELAYED_KIND, have.as_ref(), want.as_ref()));
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

/// How an exchange of type [`DELAYED_TYPE`] chooses.
///
/// Errors: kind `Invalid` when that is not said, or with another type or word.
fn delayed_kind(arguments: &Table) -> Result<ExchangeKind, Refusal> {
    match find(arguments, DELAYED_KIND) {
        Some(Value::String(kind)) if kind != DELAYED_TYPE => ExchangeKind::parse(kind),
        Some(other) => {
            Err(crate::queue::invalid(DELAYED_KIND, other, "the type of another exchange"))
        }
        None => Err(Refusal::new(
            RefusalKind::Invalid,
            format!("an exchange of type {DELAYED_TYPE} needs the argument {DELAYED_KIND}"),
        )),
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
    pub(crate) statistics: Arc<ExchangeStatistics>,
}

impl Exchange {
    /// Where messages go that no binding takes.
    pub(crate) fn alternate(&self) -> Option<&str> {
        self.spec.alternate.as_deref().or(self.policy_alternate.as_deref())
    }

    pub(crate) fn new(name: ExchangeName, spec: ExchangeSpec) -> Self {
        let bindings = Bindings::new(spec.kind);
        Self {
            name,
            spec,
            bindings,
            was_bound: false,
            policy_alternate: None,
            statistics: Arc::default(),
        }
    }
}

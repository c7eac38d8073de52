//! Exchanges that give each message to one of their bindings.

use std::{borrow::Cow, sync::Arc};

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Message, Table, Value, properties::Ident, value::find};

use super::{
    bindings::{Binding, Destination},
    exchange::ExchangeKind,
    headers::header_of,
};
use crate::{
    chance::Chance,
    hash::{fnv, mix},
};

/// Weights that the key of a binding to an `x-consistent-hash` exchange can be.
const WEIGHTS: std::ops::RangeInclusive<u16> = 1..=10_000;

/// What of a message an `x-consistent-hash` exchange hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum HashKey {
    #[default]
    RoutingKey,
    Header(String),
    MessageId,
    CorrelationId,
    Timestamp,
}

impl HashKey {
    /// Reads `hash-header` and `hash-property`.
    ///
    /// Errors: kind `Invalid` when both are there, or one is not what it can be.
    pub(super) fn parse(arguments: &Table) -> Result<Self, Refusal> {
        let found = |name| find(arguments, name);
        match (found("hash-header"), found("hash-property")) {
            (None, None) => Ok(Self::RoutingKey),
            (Some(_), Some(_)) => Err(Refusal::new(
                RefusalKind::Invalid,
                "hash-header and hash-property exclude each other",
            )),
            (Some(value), None) => match value.as_str() {
                Some(name) if !name.is_empty() => Ok(Self::Header(name.to_owned())),
                _ => Err(crate::queue::invalid("hash-header", value, "the name of a header")),
            },
            (None, Some(value)) => match value.as_str() {
                Some("message_id") => Ok(Self::MessageId),
                Some("correlation_id") => Ok(Self::CorrelationId),
                Some("timestamp") => Ok(Self::Timestamp),
                _ => {
                    let wanted = "message_id, correlation_id or timestamp";
                    Err(crate::queue::invalid("hash-property", value, wanted))
                }
            },
        }
    }

    /// The hash of a message. Those that lack what is hashed all go one way.
    fn of(&self, key: &str, message: Option<&Message>) -> u64 {
        if *self == Self::RoutingKey {
            return fnv(key.as_bytes());
        }
        let Some(props) = message.map(Message::properties) else { return fnv(&[]) };
        match self {
            Self::RoutingKey => fnv(key.as_bytes()),
            Self::Header(name) => of_value(
                &header_of(props, name).unwrap_or(Cow::Owned(Value::String(String::new()))),
            ),
            Self::MessageId => of_ident(props.id.as_ref()),
            Self::CorrelationId => of_ident(props.correlation.as_ref()),
            Self::Timestamp => {
                fnv(props.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default().as_bytes())
            }
        }
    }
}

/// Numbers count as their decimal text, which is all that protocols without types can send.
fn of_value(value: &Value) -> u64 {
    match (value.as_str(), value) {
        (Some(text), _) => fnv(text.as_bytes()),
        (None, Value::Bytes(bytes) | Value::LongString(bytes)) => fnv(bytes),
        (None, value) => match value.as_i64() {
            Some(number) => fnv(number.to_string().as_bytes()),
            None => fnv(&serde_json::to_vec(value).unwrap_or_default()),
        },
    }
}

fn of_ident(ident: Option<&Ident>) -> u64 {
    match ident {
        None => fnv(&[]),
        Some(Ident::Text(text)) => fnv(text.as_bytes()),
        Some(Ident::Uuid(bytes)) => fnv(bytes),
        Some(Ident::Ulong(number)) => fnv(number.to_string().as_bytes()),
        Some(Ident::Binary(bytes)) => fnv(bytes),
    }
}

/// The bindings of such an exchange, in an order that does not depend on how they came.
///
/// Cost: a change copies the list.
#[derive(Clone, Default)]
pub(super) struct Choice(Arc<Vec<Arc<Candidate>>>);

struct Candidate {
    weight: u16,
    identity: Box<str>,
    /// From the destination alone, so that another weight keeps what the destination had.
    seed: u64,
    binding: Binding,
}

impl Choice {
    /// Errors: kind `Invalid` when the exchange wants a weight and the key is none.
    pub(super) fn insert(&mut self, kind: ExchangeKind, binding: Binding) -> Result<(), Refusal> {
        let weight = weight(kind, &binding.key)?;
        let identity = binding.identity();
        let seed = mix(seed(&binding.destination));
        let candidate = Arc::new(Candidate { weight, identity, seed, binding });
        let at = self.0.partition_point(|other| other.order() < candidate.order());
        Arc::make_mut(&mut self.0).insert(at, candidate);
        Ok(())
    }

    pub(super) fn remove(&mut self, identity: &str) {
        if let Some(at) = self.0.iter().position(|candidate| &*candidate.identity == identity) {
            Arc::make_mut(&mut self.0).remove(at);
        }
    }

    pub(super) fn by_chance(&self, chance: &Chance) -> Option<&Binding> {
        self.0.get(chance.below(self.0.len())).map(|candidate| &candidate.binding)
    }

    pub(super) fn by_remainder(&self, key: &str) -> Option<&Binding> {
        let count = u64::try_from(self.0.len()).ok()?;
        let at = mix(fnv(key.as_bytes())).checked_rem(count)?;
        self.0.get(usize::try_from(at).ok()?).map(|candidate| &candidate.binding)
    }

    /// Rendezvous hashing: each binding draws a number from the message and itself, and the
    /// highest takes the message, the draws bent by the weights so that they are the shares.
    ///
    /// It is a hash ring with as many points as there are weights, without the points: what one
    /// binding draws does not depend on the others, so that a change moves only its share.
    ///
    /// Cost: proportional to the bindings, a few nanoseconds each.
    pub(super) fn by_ring(
        &self,
        by: &HashKey,
        key: &str,
        message: Option<&Message>,
    ) -> Option<&Binding> {
        let hash = by.of(key, message);
        let mut best: Option<(f64, &Candidate)> = None;
        // The list is ordered by weight, and among equals the highest draw is enough.
        for equals in self.0.chunk_by(|a, b| a.weight == b.weight) {
            let draw = |candidate: &&Arc<Candidate>| mix(hash ^ candidate.seed);
            let Some(highest) = equals.iter().max_by_key(draw) else { continue };
            let score = bent(draw(&highest), highest.weight);
            if best.is_none_or(|(score_before, _)| score > score_before) {
                best = Some((score, highest));
            }
        }
        best.map(|(_, candidate)| &candidate.binding)
    }
}

impl Candidate {
    fn order(&self) -> (u16, &str) {
        (self.weight, &self.identity)
    }
}

/// The logarithm of an even draw between 0 and 1, divided by the weight: the highest of several
/// has the chance of its part of all weights.
fn bent(draw: u64, weight: u16) -> f64 {
    let even = (draw as f64 + 1.0) / 18_446_744_073_709_551_616.0;
    even.ln() / f64::from(weight)
}

fn weight(kind: ExchangeKind, key: &str) -> Result<u16, Refusal> {
    if kind != ExchangeKind::ConsistentHash {
        return Ok(1);
    }
    match key.parse::<u16>() {
        Ok(weight) if WEIGHTS.contains(&weight) => Ok(weight),
        _ => Err(Refusal::new(
            RefusalKind::Invalid,
            format!(
                "the key of a binding to an x-consistent-hash exchange is a weight from {} to {}, \
                 not '{key}'",
                WEIGHTS.start(),
                WEIGHTS.end()
            ),
        )),
    }
}

fn seed(destination: &Destination) -> u64 {
    match destination {
        Destination::Queue(queue) => fnv(format!("q{}", queue.name).as_bytes()),
        Destination::Exchange(name) => fnv(format!("e{name}").as_bytes()),
        Destination::Client(endpoint, _) => fnv(format!("c{}", endpoint.number).as_bytes()),
    }
}

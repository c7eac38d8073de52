//! What a queue was declared with, parsed once.

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ConnectionId, Limits, Message, Table, Value, value::find};
use polymq_store::Durability;

use crate::declare::{Difference, shown};

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetterTo {
    pub(crate) exchange: String,
    pub(crate) key: Option<String>,
}

/// Arguments that a new declaration must repeat. The others have no effect, so they may differ.
const COMPARED: [&str; 14] = [
    "x-consumer-timeout",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-durability",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-type",
    "x-single-active-consumer",
];

/// Longest time of a queue's arguments, in ms: ten years, as RabbitMQ has it.
const TIME_MS_MAX: u64 = 315_360_000_000;

/// Failed deliveries that a queue of type quorum permits unless it says otherwise.
const QUORUM_DELIVERY_LIMIT: u64 = 20;

/// What happens to a publish beyond the length limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
}

/// What a queue was declared with.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct QueueSettings {
    pub(crate) durable: bool,
    pub(crate) exclusive: Option<ConnectionId>,
    pub(crate) auto_delete: bool,
    /// The queue belongs to a client session, which declares and deletes it.
    pub(crate) of_client: bool,
    pub(crate) arguments: Table,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) length_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) overflow: Overflow,
    /// A message leaves when more of its deliveries than this have failed.
    pub(crate) delivery_limit: Option<u64>,
    pub(crate) dead_letter: Option<DeadLetterTo>,
    /// What the confirm of a persistent message means.
    pub(crate) durability: Durability,
    /// With so many bytes ready, messages sent at most once are dropped. For queues of clients.
    pub(crate) at_most_once_bytes_max: Option<usize>,
}

impl QueueSettings {
    /// The queue of a client session.
    pub(crate) fn of_client(durable: bool, limits: &Limits, durability: Durability) -> Self {
        let length_max = Some(limits.session_messages_max).filter(|max| *max > 0);
        let at_most_once_bytes_max = Some(limits.direct_bytes_max);
        Self {
            durable,
            of_client: true,
            length_max,
            at_most_once_bytes_max,
            durability,
            ..Self::default()
        }
    }

    /// Reads the arguments that have an effect; the others are kept and shown.
    ///
    /// Errors: kind `Invalid` for a known argument with a wrong type or range, kind `NotAvailable`
    /// for one whose being ignored could lose or reorder messages.
    pub(crate) fn parse(arguments: Table, default: Durability) -> Result<Self, Refusal> {
        let number = |name: &str, least: i64| number(&arguments, name, least);
        let time = |name: &str, least: i64| time(&arguments, name, least);
        let text = |name: &str| text(&arguments, name);
        let overflow = match text("x-overflow")?.as_deref() {
            None | Some("drop-head") => Overflow::DropHead,
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx" | "block") => return Err(later("x-overflow")),
            Some(other) => {
                let value = Value::String(other.to_owned());
                return Err(invalid("x-overflow", &value, "drop-head or reject-publish"));
            }
        };
        let key = text("x-dead-letter-routing-key")?;
        let dead_letter = match (text("x-dead-letter-exchange")?, key) {
            (Some(exchange), key) => Some(DeadLetterTo { exchange, key }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Refusal::new(
                    RefusalKind::Invalid,
                    "x-dead-letter-routing-key needs x-dead-letter-exchange",
                ));
            }
        };
        let mut delivery_limit = number("x-delivery-limit", -1)?;
        match text("x-queue-type")?.as_deref() {
            None | Some("classic") => {}
            Some("quorum") if find(&arguments, "x-delivery-limit").is_none() => {
                delivery_limit = Some(QUORUM_DELIVERY_LIMIT);
            }
            Some("quorum") => {}
            Some("stream") => return Err(later("x-queue-type: stream")),
            Some(other) => {
                let value = Value::String(other.to_owned());
                return Err(invalid("x-queue-type", &value, "classic or quorum"));
            }
        }
        if number("x-max-priority", 0)?.is_some_and(|levels| levels > 0) {
            return Err(later("x-max-priority"));
        }
        if find(&arguments, "x-single-active-consumer").and_then(Value::as_bool) == Some(true) {
            return Err(later("x-single-active-consumer"));
        }
        Ok(Self {
            ttl_ms: time("x-message-ttl", 0)?,
            expires_ms: time("x-expires", 1)?,
            delivery_limit,
            durability: durability(&arguments, default)?,
            length_max: number("x-max-length", 0)?,
            bytes_max: number("x-max-length-bytes", 0)?,
            overflow,
            dead_letter,
            arguments,
            ..Self::default()
        })
    }

    /// True when a message whose deliveries have failed `failed` times before must not fail again.
    pub(crate) fn is_last_failure(&self, failed: u16) -> bool {
        self.delivery_limit.is_some_and(|limit| u64::from(failed) >= limit)
    }

    /// Errors: kind `Invalid` when the type of the queue does not permit what it was declared as.
    pub(crate) fn check_type(&self) -> Result<(), Refusal> {
        let is_quorum =
            find(&self.arguments, "x-queue-type").and_then(Value::as_str) == Some("quorum");
        for (name, is_wrong) in
            [("durable", !self.durable), ("exclusive", self.exclusive.is_some())]
        {
            if is_quorum && is_wrong {
                let text = format!("invalid property '{name}' for a queue of type quorum");
                return Err(Refusal::new(RefusalKind::Invalid, text));
            }
        }
        Ok(())
    }

    /// The deadline of a message that arrives now.
    pub(crate) fn deadline_of(&self, message: &Message, now_ms: u64) -> u64 {
        let own = message.deadline_ms();
        match self.ttl_ms {
            None => own,
            Some(ttl) => {
                let here = now_ms.saturating_add(ttl).max(1);
                if own == 0 { here } else { own.min(here) }
            }
        }
    }

    /// An argument other than the usual queue type, which says nothing.
    fn argument(&self, name: &str) -> Option<&Value> {
        let is_usual = |value: &Value| name == "x-queue-type" && value.as_str() == Some("classic");
        find(&self.arguments, name).filter(|value| !is_usual(value))
    }

    /// The first property in which a new declaration differs.
    pub(crate) fn difference(&self, other: &Self) -> Option<Difference> {
        let flags = [
            ("durable", self.durable, other.durable),
            ("auto_delete", self.auto_delete, other.auto_delete),
        ];
        for (name, have, want) in flags {
            if have != want {
                return Some(Difference::property(name, have, want));
            }
        }
        COMPARED.into_iter().find_map(|name| {
            let (have, want) = (self.argument(name), other.argument(name));
            (!same(have, want)).then(|| Difference::argument(name, have, want))
        })
    }
}

/// Errors: kind `Invalid` for another type, or less than `least`.
fn number(arguments: &Table, name: &str, least: i64) -> Result<Option<u64>, Refusal> {
    let Some(value) = find(arguments, name) else { return Ok(None) };
    match value.as_i64() {
        Some(number) if number >= least => Ok(u64::try_from(number).ok()),
        _ => Err(invalid(name, value, &format!("a number of at least {least}"))),
    }
}

/// Errors: as of [`number`], and for times that are too long.
fn time(arguments: &Table, name: &str, least: i64) -> Result<Option<u64>, Refusal> {
    let time = number(arguments, name, least)?;
    match (time, find(arguments, name)) {
        (Some(ms), Some(value)) if ms > TIME_MS_MAX => {
            Err(invalid(name, value, &format!("a number of at most {TIME_MS_MAX}")))
        }
        _ => Ok(time),
    }
}

/// Errors: kind `Invalid` for another type or word.
fn durability(arguments: &Table, default: Durability) -> Result<Durability, Refusal> {
    match text(arguments, "x-durability")? {
        None => Ok(default),
        Some(word) => Durability::parse(&word).ok_or_else(|| {
            let value = Value::String(word);
            invalid("x-durability", &value, "sync, sync-interval:<ms>, os or memory")
        }),
    }
}

/// Errors: kind `Invalid` for another type.
fn text(arguments: &Table, name: &str) -> Result<Option<String>, Refusal> {
    let Some(value) = find(arguments, name) else { return Ok(None) };
    match value.as_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(invalid(name, value, "text")),
    }
}

/// Equality of arguments: integers of any width compare by value.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

pub(crate) fn invalid(name: &str, value: &Value, wanted: &str) -> Refusal {
    Refusal::new(
        RefusalKind::Invalid,
        format!("invalid arg '{name}': '{}' is not {wanted}", shown(value)),
    )
}

fn later(what: &str) -> Refusal {
    Refusal::new(RefusalKind::NotAvailable, format!("{what} is not available yet"))
}

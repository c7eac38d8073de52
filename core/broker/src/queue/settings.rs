//! What a queue was declared with, parsed once. What may change later is in `rules`.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ConnectionId, Limits, Message, Table, Value, value::find};
use polymq_store::Durability;

use super::{
    arguments::{Arguments, fraction_of, invalid},
    rules::{Defaults, Rules, Wishes, check_available, later},
};
use crate::declare::Difference;

/// How the values of an argument compare.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    /// By value, whatever their types: protocols that have only text write numbers as text.
    Number,
    Flag,
}

impl Kind {
    fn is_same(self, a: &Value, b: &Value) -> bool {
        match self {
            Self::Text => a == b,
            Self::Flag => a.as_bool() == b.as_bool(),
            // Whole numbers compare as such, because large ones have no exact fraction.
            Self::Number => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a == b,
                _ => fraction_of(a) == fraction_of(b),
            },
        }
    }
}

/// Arguments that a new declaration must repeat. The others have no effect, so they may differ.
const COMPARED: [(&str, Kind); 22] = [
    ("x-consumer-timeout", Kind::Number),
    ("x-dead-letter-exchange", Kind::Text),
    ("x-dead-letter-routing-key", Kind::Text),
    ("x-dead-letter-strategy", Kind::Text),
    ("x-delayed-retry-backoff", Kind::Text),
    ("x-delayed-retry-factor", Kind::Number),
    ("x-delayed-retry-jitter", Kind::Number),
    ("x-delayed-retry-max", Kind::Number),
    ("x-delayed-retry-min", Kind::Number),
    ("x-delayed-retry-type", Kind::Text),
    ("x-delivery-limit", Kind::Number),
    ("x-delivery-limit-counts", Kind::Text),
    ("x-durability", Kind::Text),
    ("x-expires", Kind::Number),
    ("x-max-length", Kind::Number),
    ("x-max-length-bytes", Kind::Number),
    ("x-max-message-size", Kind::Number),
    ("x-max-priority", Kind::Number),
    ("x-message-ttl", Kind::Number),
    ("x-overflow", Kind::Text),
    ("x-queue-type", Kind::Text),
    ("x-single-active-consumer", Kind::Flag),
];

/// Levels of a queue of type quorum.
const QUORUM_PRIORITY_MAX: u8 = 31;
/// The level of a message without priority in a queue of type quorum.
const QUORUM_PRIORITY: u8 = 4;

/// The priority levels of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Levels {
    /// The highest; 0 when priorities have no effect.
    max: u8,
    /// Of a message that has none.
    default: u8,
}

impl Levels {
    /// The level of a message.
    pub(crate) fn of(self, message: &Message) -> u8 {
        if self.max == 0 { 0 } else { message.priority().unwrap_or(self.default).min(self.max) }
    }

    /// True when there is only one.
    pub(crate) fn is_single(self) -> bool {
        self.max == 0
    }
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
    /// Who has declared it, where that is known.
    pub(crate) declared_by: Option<Arc<str>>,
    pub(crate) wishes: Wishes,
    /// The rules it begins with.
    pub(crate) rules: Rules,
    pub(crate) is_quorum: bool,
    pub(crate) levels: Levels,
    /// One consumer at a time gets messages.
    pub(crate) single_active: bool,
    /// What the confirm of a persistent message means.
    pub(crate) durability: Durability,
    /// With so many bytes ready, messages sent at most once are dropped. For queues of clients.
    pub(crate) at_most_once_bytes_max: Option<usize>,
}

impl QueueSettings {
    /// The queue of a client session.
    pub(crate) fn of_client(durable: bool, limits: &Limits, durability: Durability) -> Self {
        let length_max = Some(limits.session_messages_max).filter(|max| *max > 0);
        Self {
            durable,
            of_client: true,
            rules: Rules::of(&Wishes::of_client(length_max), None, None, Defaults::default()),
            wishes: Wishes::of_client(length_max),
            at_most_once_bytes_max: Some(limits.direct_bytes_max),
            durability,
            ..Self::default()
        }
    }

    /// Reads the arguments that have an effect; the others are kept and shown.
    ///
    /// Errors: kind `Invalid` for a known argument with a wrong type or range, kind `NotAvailable`
    /// for one whose being ignored could lose or reorder messages.
    pub(crate) fn parse(table: Table, default: Durability) -> Result<Self, Refusal> {
        check_available(&table)?;
        let arguments = Arguments::new(&table, "x-");
        let is_quorum = match arguments.text("queue-type")? {
            None | Some("classic") => false,
            Some("quorum") => true,
            Some("stream") => return Err(later("x-queue-type: stream")),
            Some(other) => {
                let value = Value::String(other.to_owned());
                return Err(invalid("x-queue-type", &value, "classic or quorum"));
            }
        };
        let wishes = Wishes::of_arguments(&table)?;
        Ok(Self {
            rules: Rules::of(&wishes, None, None, Defaults { is_quorum, ..Defaults::default() }),
            wishes,
            is_quorum,
            levels: levels(&arguments, is_quorum)?,
            single_active: arguments.flag("single-active-consumer")?,
            durability: durability(&arguments, default)?,
            arguments: table,
            ..Self::default()
        })
    }

    /// Errors: kind `Invalid` when the type of the queue does not permit what it was declared as.
    pub(crate) fn check_type(&self) -> Result<(), Refusal> {
        for (name, is_wrong) in
            [("durable", !self.durable), ("exclusive", self.exclusive.is_some())]
        {
            if self.is_quorum && is_wrong {
                let text = format!("invalid property '{name}' for a queue of type quorum");
                return Err(Refusal::new(RefusalKind::Invalid, text));
            }
        }
        Ok(())
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
        COMPARED.into_iter().find_map(|(name, kind)| {
            let (have, want) = (self.argument(name), other.argument(name));
            let is_same = match (have, want) {
                (Some(have), Some(want)) => kind.is_same(have, want),
                (have, want) => have.is_none() && want.is_none(),
            };
            (!is_same).then(|| Difference::argument(name, have, want))
        })
    }
}

/// Errors: kind `Invalid` for another type or range.
fn levels(arguments: &Arguments<'_>, is_quorum: bool) -> Result<Levels, Refusal> {
    let max = arguments.count("max-priority")?;
    match (max.map(u8::try_from), arguments.get("max-priority")) {
        _ if is_quorum => Ok(Levels { max: QUORUM_PRIORITY_MAX, default: QUORUM_PRIORITY }),
        (Some(Err(_)), Some(value)) => {
            Err(invalid("x-max-priority", value, "a number of at most 255"))
        }
        (max, _) => Ok(Levels { max: max.and_then(Result::ok).unwrap_or(0), default: 0 }),
    }
}

/// Errors: kind `Invalid` for another type or word.
fn durability(arguments: &Arguments<'_>, default: Durability) -> Result<Durability, Refusal> {
    match arguments.text("durability")? {
        None => Ok(default),
        Some(word) => Durability::parse(word)
            .map_err(|bad| Refusal::new(RefusalKind::Invalid, bad.to_string())),
    }
}

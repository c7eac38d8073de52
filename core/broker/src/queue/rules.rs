//! What a queue does with its messages. Rules come from the queue's arguments and from policies,
//! and may change while the queue lives.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Message, Table, Value};

use super::{
    arguments::{Arguments, Wrong, invalid},
    retry::Retry,
};

/// Failed deliveries that a queue of type quorum permits unless it says otherwise.
const QUORUM_DELIVERY_LIMIT: u64 = 20;
/// How long a consumer of a queue of type quorum may take, in ms, unless it says otherwise.
const QUORUM_CONSUMER_TIMEOUT_MS: u64 = 30 * 60 * 1000;

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetterTo {
    pub(crate) exchange: String,
    pub(crate) key: Option<String>,
}

/// What happens to a publish beyond the length limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    /// Refused and dead-lettered.
    RejectPublishDlx,
}

/// How many failed deliveries a message may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryLimit {
    None,
    At(u64),
}

/// What arguments or a policy ask for; `None` where they say nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wishes {
    ttl_ms: Option<u64>,
    expires_ms: Option<u64>,
    length_max: Option<u64>,
    bytes_max: Option<u64>,
    message_bytes_max: Option<u64>,
    overflow: Option<Overflow>,
    dead_letter: Option<DeadLetterTo>,
    keeps_unroutable: Option<bool>,
    delivery_limit: Option<DeliveryLimit>,
    counts_returns: Option<bool>,
    consumer_timeout_ms: Option<u64>,
    retry: Option<Retry>,
}

impl Wishes {
    /// Reads the arguments `x-…` of a declaration.
    ///
    /// Errors: kind `Invalid` for known names with a wrong type or range, kind `NotAvailable` for
    /// one whose being ignored could lose or reorder messages; the text tells all of them.
    pub(crate) fn of_arguments(table: &Table) -> Result<Self, Refusal> {
        Self::parse(&Arguments::new(table, "x-"))
    }

    /// Reads the definition of a policy.
    ///
    /// Errors: as of [`of_arguments`](Self::of_arguments).
    pub(crate) fn of_policy(table: &Table) -> Result<Self, Refusal> {
        Self::parse(&Arguments::new(table, ""))
    }

    fn parse(arguments: &Arguments<'_>) -> Result<Self, Refusal> {
        let mut wrong = Wrong::default();
        let strategies = ["at-most-once", "at-least-once"];
        let keeps_unroutable = wrong.note(arguments.word("dead-letter-strategy", &strategies));
        let counts = ["failed", "all"];
        let counts_returns = wrong.note(arguments.word("delivery-limit-counts", &counts));
        let delivery_limit = wrong.note(arguments.number("delivery-limit", -1));
        let wishes = Self {
            ttl_ms: wrong.note(arguments.time("message-ttl", 0)),
            expires_ms: wrong.note(arguments.time("expires", 1)),
            length_max: wrong.note(arguments.count("max-length")),
            bytes_max: wrong.note(arguments.count("max-length-bytes")),
            message_bytes_max: wrong.note(arguments.count("max-message-size")),
            overflow: wrong.note(overflow(arguments)),
            dead_letter: wrong.note(dead_letter(arguments)),
            keeps_unroutable: keeps_unroutable.map(|word| word == "at-least-once"),
            delivery_limit: delivery_limit.map(|limit| match limit {
                None => DeliveryLimit::None,
                Some(limit) => DeliveryLimit::At(limit),
            }),
            counts_returns: counts_returns.map(|word| word == "all"),
            consumer_timeout_ms: wrong.note(arguments.time("consumer-timeout", 0)),
            retry: wrong.note(Retry::parse(arguments)),
        };
        wrong.check()?;
        Ok(wishes)
    }

    /// What the queue of a client session has.
    pub(crate) fn of_client(length_max: Option<u64>) -> Self {
        Self { length_max, ..Self::default() }
    }
}

fn overflow(arguments: &Arguments<'_>) -> Result<Option<Overflow>, Refusal> {
    let name = arguments.name("overflow");
    match arguments.text("overflow")? {
        None => Ok(None),
        Some("drop-head") => Ok(Some(Overflow::DropHead)),
        Some("reject-publish") => Ok(Some(Overflow::RejectPublish)),
        Some("reject-publish-dlx") => Ok(Some(Overflow::RejectPublishDlx)),
        Some("block") => Err(later(&format!("{name}: block"))),
        Some(other) => {
            let value = Value::String(other.to_owned());
            Err(invalid(&name, &value, "drop-head, reject-publish or reject-publish-dlx"))
        }
    }
}

fn dead_letter(arguments: &Arguments<'_>) -> Result<Option<DeadLetterTo>, Refusal> {
    let key = arguments.text("dead-letter-routing-key")?.map(str::to_owned);
    match (arguments.text("dead-letter-exchange")?, key) {
        (Some(exchange), key) => Ok(Some(DeadLetterTo { exchange: exchange.to_owned(), key })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Refusal::new(
            RefusalKind::Invalid,
            format!(
                "{} needs {}",
                arguments.name("dead-letter-routing-key"),
                arguments.name("dead-letter-exchange")
            ),
        )),
    }
}

/// What holds where nobody asks for anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Defaults {
    /// The queue is of type quorum.
    pub(crate) is_quorum: bool,
    /// The consumer timeout of the whole broker, in ms; 0 for none.
    pub(crate) consumer_timeout_ms: Option<u64>,
}

impl Defaults {
    fn consumer_timeout_ms(self) -> Option<u64> {
        let of_type = self.is_quorum.then_some(QUORUM_CONSUMER_TIMEOUT_MS);
        self.consumer_timeout_ms.map(timeout_or_never).or(of_type)
    }
}

/// What holds for a queue now.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rules {
    /// The names of the policy and of the operator policy that have a part in them.
    pub(crate) policies: (Option<String>, Option<String>),
    /// How long a message may wait here.
    pub(crate) ttl_ms: Option<u64>,
    /// How long the queue stays without use.
    pub(crate) expires_ms: Option<u64>,
    pub(crate) length_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    /// The largest body that may be published here.
    pub(crate) message_bytes_max: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letter: Option<Arc<DeadLetterTo>>,
    /// A dead letter that nobody takes stays in the queue and is tried again.
    pub(crate) keeps_unroutable: bool,
    /// A message leaves when more of its deliveries than this have failed.
    pub(crate) delivery_limit: Option<u64>,
    /// Plain returns count as failed for the limit.
    pub(crate) counts_returns: bool,
    /// How long a consumer that says nothing about it may take to settle a delivery.
    pub(crate) consumer_timeout_ms: Option<u64>,
    /// How long any consumer may take, whatever it says.
    consumer_timeout_max_ms: Option<u64>,
    pub(crate) retry: Option<Retry>,
}

impl Rules {
    /// What holds when the arguments, a policy and an operator's policy ask for this.
    ///
    /// An argument wins over a policy, and of two numbers the smaller holds. The operator's numbers
    /// are upper bounds, and the operator's way of overflowing wins.
    pub(crate) fn of(
        arguments: &Wishes,
        policy: Option<&Wishes>,
        operator: Option<&Wishes>,
        defaults: Defaults,
    ) -> Self {
        let nothing = Wishes::default();
        let (policy, operator) = (policy.unwrap_or(&nothing), operator.unwrap_or(&nothing));
        let all = [arguments, policy, operator];
        let least = |get: fn(&Wishes) -> Option<u64>| all.iter().filter_map(|w| get(w)).min();
        let limits = all.iter().filter_map(|wishes| wishes.delivery_limit);
        let strictest = limits.min_by_key(|limit| match limit {
            DeliveryLimit::None => u64::MAX,
            DeliveryLimit::At(limit) => *limit,
        });
        let delivery_limit = match strictest {
            None => defaults.is_quorum.then_some(QUORUM_DELIVERY_LIMIT),
            Some(DeliveryLimit::None) => None,
            Some(DeliveryLimit::At(limit)) => Some(limit),
        };
        // Of a timeout, 0 means none, so it is the longest.
        let timeout = |wishes: &Wishes| wishes.consumer_timeout_ms.map(timeout_or_never);
        Self {
            policies: (None, None),
            ttl_ms: least(|wishes| wishes.ttl_ms),
            expires_ms: least(|wishes| wishes.expires_ms),
            length_max: least(|wishes| wishes.length_max),
            bytes_max: least(|wishes| wishes.bytes_max),
            message_bytes_max: least(|wishes| wishes.message_bytes_max),
            overflow: operator
                .overflow
                .or(arguments.overflow)
                .or(policy.overflow)
                .unwrap_or_default(),
            dead_letter: first(all, |wishes| wishes.dead_letter.as_ref()).cloned().map(Arc::new),
            keeps_unroutable: first(all, |w| w.keeps_unroutable.as_ref()).copied() == Some(true),
            delivery_limit,
            counts_returns: first(all, |w| w.counts_returns.as_ref()).copied() == Some(true),
            consumer_timeout_ms: all
                .into_iter()
                .filter_map(timeout)
                .min()
                .or_else(|| defaults.consumer_timeout_ms())
                .filter(|ms| *ms != NEVER),
            consumer_timeout_max_ms: timeout(operator).filter(|ms| *ms != NEVER),
            retry: first(all, |wishes| wishes.retry.as_ref()).copied().filter(Retry::is_enabled),
        }
    }

    /// The deadline of a message that arrives now, in ms since 1970; 0 for none.
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

    /// True when a message whose deliveries have failed `failed` times before, and were `acquired`
    /// before, must not come back again.
    pub(crate) fn is_last_delivery(&self, failed: u16, acquired: u16, has_failed: bool) -> bool {
        let Some(limit) = self.delivery_limit else { return false };
        match (self.counts_returns, has_failed) {
            (true, _) => u64::from(acquired) >= limit,
            (false, true) => u64::from(failed) >= limit,
            (false, false) => false,
        }
    }

    /// How long a consumer may take to settle a delivery that asks for `own` ms, 0 for no bound.
    pub(crate) fn consumer_timeout_of(&self, own: Option<u64>) -> Option<u64> {
        let Some(own) = own else { return self.consumer_timeout_ms };
        let own = timeout_or_never(own);
        Some(own.min(self.consumer_timeout_max_ms.unwrap_or(NEVER))).filter(|ms| *ms != NEVER)
    }

    /// True when there is a limit to the ready messages.
    pub(crate) fn is_bounded(&self) -> bool {
        self.length_max.is_some() || self.bytes_max.is_some()
    }

    /// True when what is too much pushes out the oldest, instead of being refused.
    pub(crate) fn drops_head(&self) -> bool {
        self.overflow == Overflow::DropHead
    }

    /// True when so many ready messages with so many bytes are too much.
    pub(crate) fn is_exceeded(&self, messages: u64, bytes: u64) -> bool {
        self.length_max.is_some_and(|max| messages > max)
            || self.bytes_max.is_some_and(|max| bytes > max)
    }
}

/// A time that does not come.
const NEVER: u64 = u64::MAX;

fn timeout_or_never(ms: u64) -> u64 {
    if ms == 0 { NEVER } else { ms }
}

fn first<'a, T>(all: [&'a Wishes; 3], get: impl Fn(&'a Wishes) -> Option<&'a T>) -> Option<&'a T> {
    all.into_iter().find_map(get)
}

/// Arguments of planned features whose being ignored could lose or reorder messages, or leave out
/// some that are asked for.
const LATER: [&str; 3] = ["x-message-groups", "x-selector", "x-retained"];

/// Errors: kind `NotAvailable` for an argument of a queue, a consumer or a binding that must not be
/// ignored.
pub(crate) fn check_available(arguments: &Table) -> Result<(), Refusal> {
    let is_later = |(name, value): &&(String, Value)| {
        LATER.contains(&name.as_str()) && value.as_bool() != Some(false)
    };
    arguments.iter().find(is_later).map_or(Ok(()), |(name, _)| Err(later(name)))
}

pub(super) fn later(what: &str) -> Refusal {
    Refusal::new(RefusalKind::NotAvailable, format!("{what} is not available yet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUORUM: Defaults = Defaults { is_quorum: true, consumer_timeout_ms: None };

    fn wishes(pairs: &[(&str, Value)]) -> Wishes {
        let table = pairs.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        Wishes::of_policy(&table).expect("a right definition")
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn of_numbers_the_smaller_holds() {
        let argument = wishes(&[("max-length", Value::I32(10)), ("message-ttl", Value::I32(5))]);
        let policy = wishes(&[("max-length", Value::I32(7)), ("message-ttl", Value::I32(9))]);
        let operator = wishes(&[("max-length", Value::I32(8)), ("expires", Value::I32(60))]);
        let rules = Rules::of(&argument, Some(&policy), Some(&operator), Defaults::default());
        assert_eq!(
            (rules.length_max, rules.ttl_ms, rules.expires_ms),
            (Some(7), Some(5), Some(60))
        );
    }

    #[test]
    fn an_argument_wins_over_a_policy_and_the_operator_over_both() {
        let argument =
            wishes(&[("overflow", text("drop-head")), ("dead-letter-exchange", text("mine"))]);
        let policy = wishes(&[
            ("overflow", text("reject-publish-dlx")),
            ("dead-letter-exchange", text("theirs")),
            ("dead-letter-routing-key", text("k")),
        ]);
        let rules = Rules::of(&argument, Some(&policy), None, Defaults::default());
        let to = DeadLetterTo { exchange: "mine".into(), key: None };
        assert_eq!(rules.dead_letter.as_deref(), Some(&to));
        assert_eq!(rules.overflow, Overflow::DropHead);
        let operator = wishes(&[("overflow", text("reject-publish"))]);
        let rules = Rules::of(&argument, Some(&policy), Some(&operator), Defaults::default());
        assert_eq!(rules.overflow, Overflow::RejectPublish);
    }

    #[test]
    fn the_stricter_delivery_limit_holds() {
        let none = wishes(&[("delivery-limit", Value::I32(-1))]);
        let five = wishes(&[("delivery-limit", Value::I32(5))]);
        assert_eq!(Rules::of(&none, None, Some(&five), QUORUM).delivery_limit, Some(5));
        assert_eq!(Rules::of(&none, None, None, QUORUM).delivery_limit, None);
        assert_eq!(Rules::of(&Wishes::default(), None, None, QUORUM).delivery_limit, Some(20));
    }

    #[test]
    fn the_timeout_of_the_broker_is_the_last_default_and_0_is_not_unset() {
        let timeout = |ms: Option<i32>, defaults: Defaults| {
            let pairs: Vec<_> =
                ms.map(|ms| ("consumer-timeout", Value::I32(ms))).into_iter().collect();
            Rules::of(&wishes(&pairs), None, None, defaults).consumer_timeout_ms
        };
        let of = |is_quorum, consumer_timeout_ms| Defaults { is_quorum, consumer_timeout_ms };
        for is_quorum in [false, true] {
            assert_eq!(timeout(None, of(is_quorum, Some(7))), Some(7));
            assert_eq!(timeout(None, of(is_quorum, Some(0))), None);
            assert_eq!(timeout(Some(9), of(is_quorum, Some(7))), Some(9));
            assert_eq!(timeout(Some(0), of(is_quorum, Some(7))), None);
        }
        assert_eq!(timeout(None, of(false, None)), None);
        assert_eq!(timeout(None, of(true, None)), Some(QUORUM_CONSUMER_TIMEOUT_MS));
    }
}

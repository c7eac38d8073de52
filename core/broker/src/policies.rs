//! Policies: rules for queues and exchanges by the pattern of their names. One policy and one
//! operator policy apply to an object: those that match with the highest priority.

use std::collections::BTreeMap;

use fancy_regex::{Regex, RegexBuilder};
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Table, Value, value::find};
use serde::{Deserialize, Serialize};

use crate::{
    definitions::kind,
    queue::{Defaults, QueueSettings, Rules, Wishes},
};

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;
/// Steps that a pattern may take on one name; patterns with look-around may go back and forth.
const PATTERN_STEPS_MAX: usize = 100_000;

/// Keys of a definition that have an effect on queues.
const QUEUE_KEYS: [&str; 18] = [
    "consumer-timeout",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "delayed-retry-backoff",
    "delayed-retry-factor",
    "delayed-retry-jitter",
    "delayed-retry-max",
    "delayed-retry-min",
    "delayed-retry-type",
    "delivery-limit",
    "delivery-limit-counts",
    "expires",
    "max-length",
    "max-length-bytes",
    "max-message-size",
    "message-ttl",
    "overflow",
];
const ALTERNATE: &str = "alternate-exchange";
/// Keys that definitions of other brokers bring along; they are kept and have no effect.
const IGNORED_KEYS: [&str; 10] = [
    "queue-mode",
    "queue-version",
    "queue-master-locator",
    "queue-leader-locator",
    "initial-cluster-size",
    "quorum-initial-group-size",
    "max-in-memory-length",
    "max-in-memory-bytes",
    "member-placement-tag",
    "consumer-disconnected-timeout",
];

/// Whether a key of a definition sends messages to other exchanges.
pub(crate) fn sends_elsewhere(key: &str) -> bool {
    key == ALTERNATE || key.starts_with("dead-letter-")
}

/// What a policy applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyTo {
    /// Queues and exchanges.
    #[default]
    All,
    /// Queues of any type.
    Queues,
    /// Queues of type classic.
    ClassicQueues,
    /// Queues of type quorum.
    QuorumQueues,
    /// Streams.
    Streams,
    /// Exchanges.
    Exchanges,
}

impl ApplyTo {
    fn takes_queue(self, is_quorum: bool) -> bool {
        match self {
            Self::All | Self::Queues => true,
            Self::ClassicQueues => !is_quorum,
            Self::QuorumQueues => is_quorum,
            Self::Streams | Self::Exchanges => false,
        }
    }

    fn takes_exchanges(self) -> bool {
        matches!(self, Self::All | Self::Exchanges)
    }
}

/// A policy as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// A regular expression on names; look-around is permitted.
    pub pattern: String,
    /// What it applies to.
    pub apply_to: ApplyTo,
    /// Of several that match the one with the highest priority applies.
    pub priority: i64,
    /// What it says, by the names of queue arguments without `x-`.
    pub definition: Table,
}

/// Who made a policy: a user for the virtual host, or an operator for limits above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Arguments of clients win over it.
    User,
    /// It wins over arguments and policies of users.
    Operator,
}

impl PolicyKind {
    /// The kind of its definitions.
    pub(crate) fn stored_as(self) -> &'static str {
        match self {
            Self::User => kind::POLICY,
            Self::Operator => kind::OPERATOR_POLICY,
        }
    }
}

struct Policy {
    record: PolicyRecord,
    pattern: Regex,
    wishes: Wishes,
}

impl Policy {
    /// Errors: kind `Invalid` with everything that is wrong.
    fn compile(name: &str, record: PolicyRecord) -> Result<Self, Refusal> {
        let mut errors = Vec::new();
        if record.pattern.len() > PATTERN_BYTES_MAX {
            errors.push(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"));
        }
        let pattern = RegexBuilder::new(&record.pattern).backtrack_limit(PATTERN_STEPS_MAX).build();
        if let Err(error) = &pattern {
            errors.push(format!("`{}` is no regular expression: {error}", record.pattern));
        }
        errors.extend(record.definition.iter().filter_map(|(key, value)| check(key, value)));
        if record.definition.is_empty() {
            errors.push("the definition is empty".to_owned());
        }
        let wishes = Wishes::of_policy(&record.definition);
        if let Err(refusal) = &wishes {
            errors.push(refusal.text.clone());
        }
        match (pattern, wishes) {
            (Ok(pattern), Ok(wishes)) if errors.is_empty() => Ok(Self { record, pattern, wishes }),
            _ => {
                let text = format!("policy '{name}': {}", errors.join("; "));
                Err(Refusal::new(RefusalKind::Invalid, text))
            }
        }
    }

    /// A pattern that takes too many steps matches nothing.
    fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name).unwrap_or(false)
    }
}

/// What a policy that may not be there yet would match.
pub(crate) struct Matching(Policy);

impl Matching {
    /// Errors: kind `Invalid` with everything that is wrong.
    pub(crate) fn of(name: &str, record: &PolicyRecord) -> Result<Self, Refusal> {
        Policy::compile(name, record.clone()).map(Self)
    }

    pub(crate) fn queue(&self, name: &str, is_quorum: bool) -> bool {
        self.0.record.apply_to.takes_queue(is_quorum) && self.0.matches(name)
    }

    pub(crate) fn exchange(&self, name: &str) -> bool {
        self.0.record.apply_to.takes_exchanges() && self.0.matches(name)
    }
}

/// Why a key of a definition cannot stand.
fn check(key: &str, value: &Value) -> Option<String> {
    if key == ALTERNATE {
        return value.as_str().is_none().then(|| format!("'{ALTERNATE}' is not text"));
    }
    let is_known =
        QUEUE_KEYS.contains(&key) || IGNORED_KEYS.contains(&key) || key.starts_with("ha-");
    (!is_known).then(|| format!("'{key}' cannot be set by a policy"))
}

/// The policies of a virtual host.
#[derive(Default)]
pub(crate) struct Policies {
    users: BTreeMap<String, Policy>,
    operators: BTreeMap<String, Policy>,
}

impl Policies {
    fn of(&self, kind: PolicyKind) -> &BTreeMap<String, Policy> {
        match kind {
            PolicyKind::User => &self.users,
            PolicyKind::Operator => &self.operators,
        }
    }

    fn of_mut(&mut self, kind: PolicyKind) -> &mut BTreeMap<String, Policy> {
        match kind {
            PolicyKind::User => &mut self.users,
            PolicyKind::Operator => &mut self.operators,
        }
    }

    /// Errors: kind `Invalid`; the policies are then as before.
    pub(crate) fn put(
        &mut self,
        kind: PolicyKind,
        name: &str,
        record: PolicyRecord,
    ) -> Result<(), Refusal> {
        let policy = Policy::compile(name, record)?;
        self.of_mut(kind).insert(name.to_owned(), policy);
        Ok(())
    }

    /// False when there was none.
    pub(crate) fn remove(&mut self, kind: PolicyKind, name: &str) -> bool {
        self.of_mut(kind).remove(name).is_some()
    }

    pub(crate) fn list(&self, kind: PolicyKind) -> Vec<(String, PolicyRecord)> {
        let policies = self.of(kind).iter();
        policies.map(|(name, policy)| (name.clone(), policy.record.clone())).collect()
    }

    /// The policy of a kind that applies to a queue.
    fn for_queue(&self, kind: PolicyKind, name: &str, is_quorum: bool) -> Option<(&str, &Policy)> {
        let is_match =
            |policy: &Policy| policy.record.apply_to.takes_queue(is_quorum) && policy.matches(name);
        best(self.of(kind), is_match)
    }

    /// What holds for a queue; `timeout_ms` is the consumer timeout of the whole broker.
    pub(crate) fn rules_of(
        &self,
        name: &str,
        settings: &QueueSettings,
        timeout_ms: Option<u64>,
    ) -> Rules {
        let user = self.for_queue(PolicyKind::User, name, settings.is_quorum);
        let operator = self.for_queue(PolicyKind::Operator, name, settings.is_quorum);
        let name_of = |found: Option<(&str, &Policy)>| found.map(|(name, _)| name.to_owned());
        let wishes =
            |found: Option<(&str, &Policy)>| found.map(|(_, policy)| policy.wishes.clone());
        let policies = (name_of(user), name_of(operator));
        let (user, operator) = (wishes(user), wishes(operator));
        // A client session keeps what its client has not finished, however long that takes.
        let consumer_timeout_ms = timeout_ms.filter(|_| !settings.of_client);
        let defaults = Defaults { is_quorum: settings.is_quorum, consumer_timeout_ms };
        let mut rules = Rules::of(&settings.wishes, user.as_ref(), operator.as_ref(), defaults);
        rules.policies = policies;
        rules
    }

    /// What a policy says.
    pub(crate) fn definition(&self, kind: PolicyKind, name: &str) -> Option<Table> {
        self.of(kind).get(name).map(|policy| policy.record.definition.clone())
    }

    /// The name of the policy that applies to an exchange.
    pub(crate) fn policy_of_exchange(&self, exchange: &str) -> Option<String> {
        self.for_exchange(exchange).map(|(name, _)| name.to_owned())
    }

    fn for_exchange(&self, exchange: &str) -> Option<(&str, &Policy)> {
        let is_match =
            |policy: &Policy| policy.record.apply_to.takes_exchanges() && policy.matches(exchange);
        best(&self.users, is_match)
    }

    /// The alternate exchange that a policy gives an exchange.
    pub(crate) fn alternate_of(&self, exchange: &str) -> Option<String> {
        let (_, policy) = self.for_exchange(exchange)?;
        find(&policy.record.definition, ALTERNATE)?.as_str().map(str::to_owned)
    }
}

/// The one of the highest priority; among equals the first by name.
fn best(
    policies: &BTreeMap<String, Policy>,
    is_match: impl Fn(&Policy) -> bool,
) -> Option<(&str, &Policy)> {
    let mut best: Option<(&str, &Policy)> = None;
    for (name, policy) in policies {
        let is_better = best.is_none_or(|(_, b)| policy.record.priority > b.record.priority);
        if is_better && is_match(policy) {
            best = Some((name, policy));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pattern: &str, priority: i64, definition: &[(&str, Value)]) -> PolicyRecord {
        PolicyRecord {
            pattern: pattern.to_owned(),
            apply_to: ApplyTo::Queues,
            priority,
            definition: definition.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect(),
        }
    }

    #[test]
    fn of_policies_that_match_the_highest_priority_applies() {
        let mut policies = Policies::default();
        for (name, priority, ttl) in [("a", 1, 10), ("b", 5, 20), ("c", 5, 30)] {
            let definition = [("message-ttl", Value::I32(ttl))];
            policies.put(PolicyKind::User, name, record("^q", priority, &definition)).expect(name);
        }
        let settings = QueueSettings::default();
        assert_eq!(policies.rules_of("q1", &settings, None).ttl_ms, Some(20));
        assert_eq!(policies.rules_of("x", &settings, None).ttl_ms, None);
        let of_b = (Some("b".to_owned()), None);
        assert_eq!(policies.rules_of("q1", &settings, None).policies, of_b);
    }

    #[test]
    fn patterns_look_around_within_a_bound() {
        let mut policies = Policies::default();
        let definition = [("max-length", Value::I32(1))];
        policies.put(PolicyKind::User, "a", record(r"^(?!amq\.)", 0, &definition)).expect("right");
        let settings = QueueSettings::default();
        assert_eq!(policies.rules_of("mine", &settings, None).length_max, Some(1));
        assert_eq!(policies.rules_of("amq.gen-1", &settings, None).length_max, None);
        let slow = record(r"^(?=(a+)+$)(a+)+$", 0, &definition);
        policies.put(PolicyKind::User, "a", slow).expect("right");
        let name = "a".repeat(60).replace("aaa", "aab");
        assert_eq!(policies.rules_of(&name, &settings, None).length_max, None);
    }

    #[test]
    fn keys_without_effect_are_taken_and_unknown_ones_are_not() {
        let put = |key: &str| {
            let definition = [(key, Value::String("x".to_owned()))];
            Policies::default().put(PolicyKind::User, "p", record("q", 0, &definition))
        };
        for key in IGNORED_KEYS {
            assert!(put(key).is_ok(), "{key}");
        }
        for key in ["ha-mode", "ha-params"] {
            assert!(put(key).is_ok(), "{key}");
        }
        // A queue keeps what it was declared with; see the README.
        for key in ["durability", "max-priority", "single-active-consumer", "speed"] {
            assert!(put(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_wrong_policy_is_refused_with_every_error() {
        let wrong = record("(", 0, &[("message-ttl", Value::I32(-1)), ("speed", Value::I32(1))]);
        let refusal = Policies::default().put(PolicyKind::User, "p", wrong).expect_err("wrong");
        for part in ["no regular expression", "message-ttl", "'speed'"] {
            assert!(refusal.text.contains(part), "{part} in {}", refusal.text);
        }
    }
}

//! What administrators have changed, written down.

use std::{borrow::Cow, collections::VecDeque};

use parking_lot::Mutex;
use polymq_contract::Refusal;
use polymq_model::carry::rfc3339_from_ms;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Manager;
use crate::{BrokerHandle, access::Role};

/// Changes that are kept in memory.
const KEPT_MAX: usize = 1000;

/// At most one refusal in so many ms is kept, so that nobody fills the file with them.
const REFUSALS_EVERY_MS: u64 = 1000;

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    /// It was done.
    #[default]
    Done,
    /// Whoever gave it may not.
    Denied,
}

/// A change, or one that somebody was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, from 1.
    pub number: u64,
    /// When it was made (RFC 3339).
    pub at: String,
    /// Who made it.
    pub user: String,
    /// The API token that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where the order came from.
    pub from: String,
    /// What was done, as `user.put`.
    pub action: Cow<'static, str>,
    /// With what, as `/users/ann`.
    pub object: String,
    /// What came of it.
    #[serde(default)]
    pub result: AuditResult,
    /// What was there before; never a secret.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// What is there now; never a secret.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub after: Value,
}

/// Takes entries in the order in which they are made. It must not block.
pub type AuditSink = Box<dyn Fn(&AuditEntry) + Send + Sync>;

/// The latest changes.
#[derive(Default)]
pub(crate) struct Audited(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// The number of the last one.
    number: u64,
    entries: VecDeque<AuditEntry>,
    /// When a refusal was kept last.
    refused_ms: u64,
}

impl Kept {
    fn push(&mut self, entry: AuditEntry) {
        if self.entries.len() >= KEPT_MAX {
            self.entries.pop_front();
        }
        self.number = entry.number;
        self.entries.push_back(entry);
    }
}

impl BrokerHandle {
    /// Brings back what was written down before this start, the oldest first; numbers go on from
    /// there.
    pub fn recall_audit(&self, entries: impl IntoIterator<Item = AuditEntry>) {
        let mut kept = self.0.audited.0.lock();
        entries.into_iter().for_each(|entry| kept.push(entry));
    }
}

impl Manager {
    /// The latest changes after a number, the oldest first, as far as they are in memory. Needs
    /// `monitoring`.
    ///
    /// Errors: kind `Denied`.
    pub fn audited(&self, after: u64) -> Result<Vec<AuditEntry>, Refusal> {
        self.require(Role::Monitoring)?;
        let kept = self.core.audited.0.lock();
        Ok(kept.entries.iter().filter(|entry| entry.number > after).cloned().collect())
    }

    /// Writes down a change. Operations of this type do it by themselves; whoever changes something
    /// by other means calls this once it has happened. Nothing secret may be in `before` or
    /// `after`.
    pub fn audit(&self, action: &'static str, object: String, before: Value, after: Value) {
        self.write_down(action, object, AuditResult::Done, (before, after));
    }

    /// Writes down a change that was refused for want of a right.
    pub fn audit_refused(&self, action: &'static str, object: String) {
        self.write_down(action, object, AuditResult::Denied, Default::default());
    }

    fn write_down(
        &self,
        action: &'static str,
        object: String,
        result: AuditResult,
        (before, after): (Value, Value),
    ) {
        let token = self.who.grant.as_ref().and_then(|grant| grant.token.as_deref());
        let now_ms = self.core.clock_ms();
        // Under the lock, so that the file has them in the order of their numbers.
        let mut kept = self.core.audited.0.lock();
        if result == AuditResult::Denied {
            if now_ms < kept.refused_ms.saturating_add(REFUSALS_EVERY_MS) {
                return;
            }
            kept.refused_ms = now_ms;
        }
        let entry = AuditEntry {
            number: kept.number + 1,
            at: rfc3339_from_ms(i64::try_from(now_ms).unwrap_or(i64::MAX)),
            user: self.who.user.as_str().to_owned(),
            token: token.map(str::to_owned),
            from: self.from.clone(),
            action: Cow::Borrowed(action),
            object,
            result,
            before,
            after,
        };
        if let Some(sink) = self.core.audit.get() {
            sink(&entry);
        }
        kept.push(entry);
    }
}

/// A value for the audit file; nothing when it cannot be written as JSON.
pub(super) fn shown<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

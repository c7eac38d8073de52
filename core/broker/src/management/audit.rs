//! What administrators have changed, written down.

use std::collections::VecDeque;

use parking_lot::Mutex;
use polymq_contract::Refusal;
use polymq_model::carry::rfc3339_from_ms;
use serde::Serialize;
use serde_json::Value;

use super::Manager;
use crate::access::Role;

/// Changes that are kept in memory.
const KEPT_MAX: usize = 1000;

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its number since the start, from 1.
    pub number: u64,
    /// When it was made (RFC 3339).
    pub at: String,
    /// Who made it.
    pub user: String,
    /// The API token that it was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where the order came from.
    pub from: String,
    /// What was done, as `user.put`.
    pub action: &'static str,
    /// With what, as `/users/ann`.
    pub object: String,
    /// What was there before; never a secret.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// What is there now; never a secret.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub after: Value,
}

/// Takes entries in the order in which they are made. It must not block.
pub type AuditSink = Box<dyn Fn(&AuditEntry) + Send + Sync>;

/// The latest changes.
#[derive(Default)]
pub(crate) struct Audited(Mutex<(u64, VecDeque<AuditEntry>)>);

impl Manager {
    /// The latest changes after a number, the oldest first, as far as they are in memory. Needs
    /// `monitoring`.
    ///
    /// Errors: kind `Denied`.
    pub fn audited(&self, after: u64) -> Result<Vec<AuditEntry>, Refusal> {
        self.require(Role::Monitoring)?;
        let kept = self.core.audited.0.lock();
        Ok(kept.1.iter().filter(|entry| entry.number > after).cloned().collect())
    }

    /// Writes down a change. Operations of this type do it by themselves; whoever changes something
    /// by other means calls this once it has happened. Nothing secret may be in `before` or
    /// `after`.
    pub fn audit(&self, action: &'static str, object: String, before: Value, after: Value) {
        let token = self.who.grant.as_ref().and_then(|grant| grant.token.as_deref());
        let at_ms = i64::try_from(self.core.clock_ms()).unwrap_or(i64::MAX);
        // Under the lock, so that the file has them in the order of their numbers.
        let mut kept = self.core.audited.0.lock();
        kept.0 += 1;
        let entry = AuditEntry {
            number: kept.0,
            at: rfc3339_from_ms(at_ms),
            user: self.who.user.as_str().to_owned(),
            token: token.map(str::to_owned),
            from: self.from.clone(),
            action,
            object,
            before,
            after,
        };
        if let Some(sink) = self.core.audit.get() {
            sink(&entry);
        }
        if kept.1.len() >= KEPT_MAX {
            kept.1.pop_front();
        }
        kept.1.push_back(entry);
    }
}

/// A value for the audit file; nothing when it cannot be written as JSON.
pub(super) fn shown<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

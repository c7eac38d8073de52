//! What administrators have changed, written down.

use serde::Serialize;
use serde_json::Value;

use super::Manager;

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
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
pub type AuditSink = Box<dyn Fn(AuditEntry) + Send + Sync>;

impl Manager {
    /// Writes down a change. Operations of this type do it by themselves; whoever changes something
    /// by other means calls this once it has happened. Nothing secret may be in `before` or
    /// `after`.
    pub fn audit(&self, action: &'static str, object: String, before: Value, after: Value) {
        let Some(sink) = self.core.audit.get() else { return };
        let token = self.who.grant.as_ref().and_then(|grant| grant.token.as_deref());
        sink(AuditEntry {
            user: self.who.user.as_str().to_owned(),
            token: token.map(str::to_owned),
            from: self.from.clone(),
            action,
            object,
            before,
            after,
        });
    }
}

/// A value for the audit file; nothing when it cannot be written as JSON.
pub(super) fn shown<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

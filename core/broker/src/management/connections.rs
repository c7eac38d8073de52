//! Connections of clients.

use polymq_contract::Refusal;
use polymq_model::UserName;
use serde_json::{Value, json};

use super::Manager;
use crate::{ConnectionRef, access::Role};

impl Manager {
    /// Whether it may change what belongs to somebody: to itself, or to anybody when it is an
    /// administrator.
    ///
    /// Errors: kind `Denied`.
    pub fn require_self(&self, owner: Option<&UserName>) -> Result<(), Refusal> {
        if owner == Some(self.user()) { Ok(()) } else { self.require(Role::Administrator) }
    }

    /// Tells a connection that it is closed, with a reason for its client; it is cut when it does
    /// not go within ten seconds. One that has gone by itself is none to be told. Needs its owner
    /// or an administrator.
    ///
    /// Errors: kind `Denied`.
    pub fn close_connection(
        &self,
        connection: &ConnectionRef,
        reason: &str,
    ) -> Result<(), Refusal> {
        self.require_self(connection.user.as_ref())?;
        if self.core.close_connection(connection.id, reason) {
            let object = format!("/connections/{}", connection.name());
            self.audit("connection.close", object, Value::Null, json!({ "reason": reason }));
        }
        Ok(())
    }
}

//! Policies, by those who may make them.

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Now, VhostName};
use serde_json::Value;

use super::{Manager, audit::shown};
use crate::{
    BrokerHandle,
    access::Role,
    policies::{PolicyKind, PolicyRecord, sends_elsewhere},
};

impl Manager {
    /// Errors: kind `Denied`, kind `NotFound`.
    fn require_policymaker(&self, vhost: &VhostName, policy: PolicyKind) -> Result<(), Refusal> {
        match policy {
            PolicyKind::User => self.require_vhost(vhost, Role::Policymaker),
            PolicyKind::Operator => self.require_vhost(vhost, Role::Administrator),
        }
    }

    /// The policies of a virtual host, by name. Needs any tag of management, and a permission in
    /// the virtual host or `monitoring`.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn policies(
        &self,
        vhost: &VhostName,
        policy: PolicyKind,
    ) -> Result<Vec<(String, PolicyRecord)>, Refusal> {
        self.require_vhost(vhost, Role::Management)?;
        BrokerHandle(self.core.clone()).policies(vhost, policy)
    }

    /// Creates or replaces a policy. Needs a policymaker with a permission in the virtual host, or
    /// for policies of operators an administrator; what sends messages elsewhere needs all rights
    /// there.
    ///
    /// Errors: kind `Denied`; those of [`BrokerHandle::put_policy`].
    pub fn put_policy(
        &self,
        vhost: &VhostName,
        policy: PolicyKind,
        name: &str,
        record: PolicyRecord,
        now: Now,
    ) -> Result<bool, Refusal> {
        self.require_policymaker(vhost, policy)?;
        self.check_targets(vhost, &record)?;
        let before = self.policy(vhost, policy, name);
        let (old, after) = (shown(&before), shown(&record));
        BrokerHandle(self.core.clone()).put_policy(vhost, policy, name, record, now)?;
        let object = format!("/{}/{vhost}/{name}", policy.stored_as());
        self.audit("policy.put", object, old, after);
        Ok(before.is_none())
    }

    /// What sends messages elsewhere does so with those of every queue and exchange that the
    /// pattern matches, now and later. So it is for whoever may do everything with all of them.
    ///
    /// Errors: kind `Denied`.
    fn check_targets(&self, vhost: &VhostName, record: &PolicyRecord) -> Result<(), Refusal> {
        let mut keys = record.definition.iter().map(|(key, _)| key.as_str());
        let Some(key) = keys.find(|key| sends_elsewhere(key)) else { return Ok(()) };
        if self.tags().include(Role::Administrator)
            || self.core.access.may_do_everything(&self.who, vhost)
        {
            return Ok(());
        }
        let text = format!(
            "'{key}' in a policy moves messages of whatever it matches: user '{}' needs all \
             permissions ('.*' three times) in vhost '{vhost}', or the tag 'administrator'",
            self.who.user
        );
        Err(Refusal::new(RefusalKind::Denied, text))
    }

    /// Removes a policy. Needs what [`Manager::put_policy`] needs.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn remove_policy(
        &self,
        vhost: &VhostName,
        policy: PolicyKind,
        name: &str,
        now: Now,
    ) -> Result<(), Refusal> {
        self.require_policymaker(vhost, policy)?;
        let before = self.policy(vhost, policy, name);
        BrokerHandle(self.core.clone()).remove_policy(vhost, policy, name, now)?;
        let object = format!("/{}/{vhost}/{name}", policy.stored_as());
        self.audit("policy.delete", object, shown(&before), Value::Null);
        Ok(())
    }

    fn policy(&self, vhost: &VhostName, policy: PolicyKind, name: &str) -> Option<PolicyRecord> {
        let all = BrokerHandle(self.core.clone()).policies(vhost, policy).ok()?;
        all.into_iter().find(|(known, _)| known == name).map(|(_, record)| record)
    }
}

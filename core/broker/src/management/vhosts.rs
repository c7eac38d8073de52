//! Virtual hosts, and their limits.

use polymq_contract::Refusal;
use polymq_model::VhostName;
use serde_json::Value;

use super::{Manager, audit::shown, not_found};
use crate::{
    BrokerHandle,
    access::Role,
    tenants::{VhostLimits, VhostRecord, VhostView},
};

impl Manager {
    fn broker(&self) -> BrokerHandle {
        BrokerHandle(self.core.clone())
    }

    /// The virtual hosts that it may see, by name. Needs any tag of management.
    ///
    /// Errors: kind `Denied`.
    pub fn vhosts(&self) -> Result<Vec<VhostView>, Refusal> {
        self.require(Role::Management)?;
        let mut all = self.broker().vhosts();
        all.retain(|view| self.may_see(&view.name));
        Ok(all)
    }

    /// A virtual host. Needs any tag of management, and a permission there or `monitoring`.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn vhost(&self, name: &VhostName) -> Result<VhostView, Refusal> {
        self.require_vhost(name, Role::Management)?;
        self.find_vhost(name)
    }

    pub(super) fn find_vhost(&self, name: &VhostName) -> Result<VhostView, Refusal> {
        let found = self.broker().vhosts().into_iter().find(|view| view.name == *name);
        found.ok_or_else(|| not_found("vhost", name.as_str(), ""))
    }

    /// Creates a virtual host, or replaces what is known about it, its protection from deletion
    /// among it. True when it is new. Needs an administrator.
    ///
    /// Errors: kind `Denied`; those of [`BrokerHandle::put_vhost`].
    pub fn put_vhost(&self, name: &VhostName, record: VhostRecord) -> Result<bool, Refusal> {
        self.require(Role::Administrator)?;
        let before = self.find_vhost(name).ok().map(|view| view.record);
        let (old, after) = (shown(&before), shown(&record));
        self.broker().put_vhost(name.clone(), record)?;
        self.audit("vhost.put", format!("/vhosts/{name}"), old, after);
        Ok(before.is_none())
    }

    /// Deletes a virtual host with everything in it. Needs an administrator.
    ///
    /// Errors: kind `Denied`; kind `NotFound`; kind `Conflict` when it is protected from deletion.
    pub fn delete_vhost(&self, name: &VhostName) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let before = self.find_vhost(name)?.record;
        self.broker().delete_vhost(name)?;
        self.audit("vhost.delete", format!("/vhosts/{name}"), shown(&before), Value::Null);
        Ok(())
    }

    /// Bounds a virtual host. What is there already stays. Needs an administrator.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn set_vhost_limits(&self, name: &VhostName, limits: VhostLimits) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let before = self.find_vhost(name)?.limits;
        self.broker().set_vhost_limits(name, limits)?;
        let object = format!("/vhosts/{name}/limits");
        self.audit("vhost_limits.put", object, shown(&before), shown(&limits));
        Ok(())
    }
}

//! What people and tools do with the broker itself. Whether they may is decided here, whichever API
//! asks, and what they change is written down.

mod audit;
mod bans;
mod compare;
mod connections;
mod import;
mod parameters;
mod permissions;
mod policies;
mod replace;
mod tokens;
mod users;
mod vhosts;

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{UserName, VhostName};

pub(crate) use audit::Audited;
pub use audit::{AuditEntry, AuditResult, AuditSink};
pub use compare::{Difference, Effect, ImportPlan};
pub use import::{Definition, NewBinding};
pub(crate) use parameters::Parameters;
pub use permissions::{PermissionView, TopicPermissionView};
pub use replace::Import;
pub use users::{UserChange, UserView};

use crate::{
    BrokerHandle,
    access::{Principal, Role, Tags},
    core::Core,
};

/// Somebody who manages the broker. Its rights are those of the moment of each call.
///
/// Every operation refuses with kind `Denied` what the user's tags do not allow.
pub struct Manager {
    pub(crate) core: Arc<Core>,
    who: Principal,
    /// Where the orders come from: an address, mostly.
    from: String,
}

impl BrokerHandle {
    /// Lets somebody who has logged in manage the broker, as far as its tags go. `from` is written
    /// to the audit file.
    pub fn manage(&self, who: &Principal, from: impl Into<String>) -> Manager {
        Manager { core: self.0.clone(), who: who.clone(), from: from.into() }
    }

    /// Has changes by administrators written down. The first call counts.
    pub fn set_audit(&self, sink: AuditSink) {
        self.0.audit.get_or_init(|| sink);
    }
}

impl Manager {
    /// Who it is, with what a token says.
    pub fn principal(&self) -> &Principal {
        &self.who
    }

    /// Who it is.
    pub fn user(&self) -> &UserName {
        &self.who.user
    }

    /// Its tags.
    pub fn tags(&self) -> Tags {
        match self.core.why_over(&self.who) {
            Some(_) => Tags::default(),
            None => self.core.access.tags_of(&self.who),
        }
    }

    /// Asks whether its tags make it what an operation needs.
    ///
    /// Errors: kind `Denied`.
    pub fn require(&self, role: Role) -> Result<(), Refusal> {
        if self.tags().include(role) {
            return Ok(());
        }
        let text = format!("user '{}' has no tag '{}'", self.who.user, role.as_str());
        Err(Refusal::new(RefusalKind::Denied, text))
    }

    /// Whether it may see what is in a virtual host: it has a permission there, or monitors.
    pub fn may_see(&self, vhost: &VhostName) -> bool {
        let tags = self.tags();
        tags.include(Role::Monitoring)
            || (tags.include(Role::Management) && self.core.access.may_open(vhost, &self.who))
    }

    /// Asks whether it may use what is in a virtual host.
    ///
    /// Errors: kind `NotFound` when it is not there, kind `Denied`.
    pub fn require_vhost(&self, vhost: &VhostName, role: Role) -> Result<(), Refusal> {
        self.require(role)?;
        let is_open = self.core.access.may_open(vhost, &self.who);
        // Whoever may not look is not told whether it exists.
        if !is_open && !self.tags().include(Role::Monitoring) {
            let text = format!("access to vhost '{vhost}' refused for user '{}'", self.who.user);
            let refusal = Refusal::new(RefusalKind::Denied, text);
            return Err(refusal.about("vhost", vhost.as_str(), None));
        }
        self.core.vhost(vhost.as_str()).map(drop)
    }

    /// Errors: kind `NotFound`.
    fn require_user(&self, user: &UserName) -> Result<(), Refusal> {
        match self.core.access.user(user.as_str()) {
            Some(_) => Ok(()),
            None => Err(not_found("user", user.as_str(), "")),
        }
    }
}

/// There is no object of this kind and name; `of` says whose it would be.
fn not_found(kind: &str, name: &str, of: impl std::fmt::Display) -> Refusal {
    Refusal::missing(kind, name, format!("{kind} '{name}'{of} not found"))
}

//! Taking away what a document of definitions does not name.

use std::collections::HashSet;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Now, VhostName};

use super::{Definition, Manager, NewBinding, compare::ends_of};
use crate::{
    access::Access,
    tenants::{UserLimits, VhostLimits},
    topology::Binding,
};

/// What an import brings about.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// What is to be there.
    pub wanted: Vec<Definition>,
    /// What is to be there no more; messages of queues go with them.
    pub surplus: Vec<Definition>,
}

impl From<Vec<Definition>> for Import {
    /// Nothing goes.
    fn from(wanted: Vec<Definition>) -> Self {
        Self { wanted, surplus: Vec::new() }
    }
}

impl Import {
    /// Of `have` goes what is not wanted.
    pub fn replacing(have: Vec<Definition>, wanted: Vec<Definition>) -> Self {
        let named: HashSet<String> = wanted.iter().map(Definition::identity).collect();
        let surplus = have.into_iter().filter(|one| !named.contains(&one.identity()));
        Self { surplus: surplus.collect(), wanted }
    }
}

impl Definition {
    /// What tells it from all others, whatever it says about it.
    fn identity(&self) -> String {
        let parts: Vec<&str> = match self {
            Self::Vhost(name, _) | Self::VhostLimits(name, _) => vec![name.as_str()],
            Self::User(name, _) | Self::UserLimits(name, _) => vec![name.as_str()],
            Self::Permission(vhost, user, _) => vec![vhost.as_str(), user.as_str()],
            Self::TopicPermission(vhost, user, exchange, _) => {
                vec![vhost.as_str(), user.as_str(), exchange]
            }
            Self::GlobalParameter(name, _) => vec![name],
            Self::Policy(vhost, _, name, _) => vec![vhost.as_str(), name],
            Self::Exchange(vhost, declare) => vec![vhost.as_str(), &declare.exchange],
            Self::Queue(vhost, declare) => vec![vhost.as_str(), &declare.queue],
            Self::Binding(vhost, binding) => {
                let parts = [vhost.as_str(), &binding.source, &binding.ends()];
                return format!("{}\0{}", self.kind(), parts.join("\0"));
            }
        };
        format!("{}\0{}", self.kind(), parts.join("\0"))
    }
}

impl Manager {
    /// Why some of it may not go.
    pub(super) fn what_must_stay(&self, surplus: &[Definition]) -> Vec<String> {
        let stays = |one: &Definition| match one {
            Definition::User(name, _) if name == self.user() => {
                Some(format!("user '{name}' cannot delete itself; name it in the document"))
            }
            Definition::Vhost(name, _) => {
                let found = self.find_vhost(name).ok()?;
                found
                    .record
                    .protected_from_deletion
                    .then(|| format!("vhost '{name}' is protected from deletion"))
            }
            _ => None,
        };
        surplus.iter().filter_map(stays).collect()
    }

    /// Errors: those of the operation; what is gone already is none.
    pub(super) fn take_away(&self, surplus: Definition, now: Now) -> Result<(), Refusal> {
        let done = match surplus {
            Definition::Vhost(name, _) => self.delete_vhost(&name),
            Definition::VhostLimits(name, _) => {
                self.set_vhost_limits(&name, VhostLimits::default())
            }
            Definition::User(name, _) => self.remove_user(&name),
            Definition::UserLimits(name, _) => self.set_user_limits(&name, UserLimits::default()),
            Definition::Permission(vhost, user, _) => self.remove_permission(&vhost, &user),
            Definition::TopicPermission(vhost, user, exchange, _) => {
                self.remove_topic_permissions(&vhost, &user, Some(&exchange))
            }
            Definition::GlobalParameter(name, _) => self.remove_global_parameter(&name),
            Definition::Policy(vhost, kind, name, _) => {
                self.remove_policy(&vhost, kind, &name, now)
            }
            Definition::Exchange(vhost, declare) => {
                let vhost = self.core.vhost(vhost.as_str())?;
                let permit = Access::own();
                self.core.delete_exchange(&permit, &vhost, &declare.exchange, false).map(drop)
            }
            Definition::Queue(vhost, declare) => {
                let vhost = self.core.vhost(vhost.as_str())?;
                let queue = vhost.topology.load().queue(&declare.queue).cloned();
                match queue {
                    Some(queue) => self.core.remove_queue(&vhost, &queue, false, false).map(drop),
                    None => Ok(()),
                }
            }
            Definition::Binding(vhost, binding) => self.remove_binding(&vhost, &binding),
        };
        match done {
            Err(refusal) if refusal.kind == RefusalKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn remove_binding(&self, vhost: &VhostName, binding: &NewBinding) -> Result<(), Refusal> {
        let vhost = self.core.vhost(vhost.as_str())?;
        let topology = vhost.topology.load();
        let Some(source) = topology.exchange(&binding.source) else { return Ok(()) };
        let ends = binding.ends();
        let is_it = |known: &&Binding| ends_of(known).as_ref() == Some(&ends);
        let found: Vec<Binding> = source.bindings.iter().filter(is_it).cloned().collect();
        for known in found {
            let permits = (Access::own(), Access::own());
            self.core.unbind(&permits, &vhost, &binding.source, &known)?;
        }
        Ok(())
    }
}

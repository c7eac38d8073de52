//! Bringing in definitions of another broker: everything that is wrong is found first, and then all
//! of it happens in one batch of the store.

use std::collections::HashSet;

use polymq_contract::{DeclareExchange, DeclareQueue, Refusal, RefusalKind};
use polymq_model::{ConnectionId, ExchangeName, Now, QueueName, Table, UserName, VhostName};
use serde_json::{Value, json};

use super::{Effect, Import, Manager, UserChange, compare::Bound, not_found};
use crate::{
    BrokerHandle,
    access::{Access, PermissionRecord, Role, TopicPermissionRecord},
    core::Core,
    declare::bad_name,
    policies::{Policies, PolicyKind, PolicyRecord},
    queue::QueueSettings,
    tenants::{UserLimits, VhostLimits, VhostRecord},
    topology::{Binding, Destination, ExchangeSpec},
};

/// Something that is to be there. Exchanges, queues and bindings that are there stay as they are;
/// everything else becomes what its definition says.
#[derive(Debug, Clone)]
pub enum Definition {
    /// A virtual host.
    Vhost(VhostName, VhostRecord),
    /// Limits of one.
    VhostLimits(VhostName, VhostLimits),
    /// A user.
    User(UserName, UserChange),
    /// Limits of one.
    UserLimits(UserName, UserLimits),
    /// What a user may do.
    Permission(VhostName, UserName, PermissionRecord),
    /// Which topics of an exchange a user may write and read.
    TopicPermission(VhostName, UserName, String, TopicPermissionRecord),
    /// A parameter of the whole broker.
    GlobalParameter(String, Value),
    /// A policy.
    Policy(VhostName, PolicyKind, String, PolicyRecord),
    /// An exchange.
    Exchange(VhostName, DeclareExchange),
    /// A queue.
    Queue(VhostName, DeclareQueue),
    /// A binding.
    Binding(VhostName, NewBinding),
}

/// A binding that is to be there.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBinding {
    /// The exchange that messages come from.
    pub source: String,
    /// The name of what they go to.
    pub destination: String,
    /// They go to a queue, or else to an exchange.
    pub to_queue: bool,
    /// The binding key.
    pub key: String,
    /// Arguments.
    pub arguments: Table,
}

/// What will be there once everything before has happened.
#[derive(Default)]
struct Expected {
    vhosts: HashSet<VhostName>,
    users: HashSet<UserName>,
    exchanges: HashSet<(VhostName, String)>,
    queues: HashSet<(VhostName, String)>,
}

impl Definition {
    /// As people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Vhost(name, _) | Self::VhostLimits(name, _) => format!("vhost '{name}'"),
            Self::User(name, _) | Self::UserLimits(name, _) => format!("user '{name}'"),
            Self::Permission(vhost, user, _) | Self::TopicPermission(vhost, user, ..) => {
                format!("permission of user '{user}' in vhost '{vhost}'")
            }
            Self::GlobalParameter(name, _) => format!("parameter '{name}'"),
            Self::Policy(vhost, _, name, _) => format!("policy '{name}' in vhost '{vhost}'"),
            Self::Exchange(vhost, declare) => {
                format!("exchange '{}' in vhost '{vhost}'", declare.exchange)
            }
            Self::Queue(vhost, declare) => format!("queue '{}' in vhost '{vhost}'", declare.queue),
            Self::Binding(vhost, binding) => format!(
                "binding from '{}' to '{}' in vhost '{vhost}'",
                binding.source, binding.destination
            ),
        }
    }

    /// Of what kind it is, for tools.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vhost(..) => "vhost",
            Self::VhostLimits(..) => "vhost_limits",
            Self::User(..) => "user",
            Self::UserLimits(..) => "user_limits",
            Self::Permission(..) => "permission",
            Self::TopicPermission(..) => "topic_permission",
            Self::GlobalParameter(..) => "parameter",
            Self::Policy(_, PolicyKind::User, ..) => "policy",
            Self::Policy(_, PolicyKind::Operator, ..) => "operator_policy",
            Self::Exchange(..) => "exchange",
            Self::Queue(..) => "queue",
            Self::Binding(..) => "binding",
        }
    }

    /// What has to be there before; a dump may have it in any order.
    fn rank(&self) -> u8 {
        match self {
            Self::Vhost(..) => 0,
            Self::VhostLimits(..) | Self::User(..) | Self::GlobalParameter(..) => 1,
            Self::UserLimits(..)
            | Self::Permission(..)
            | Self::TopicPermission(..)
            | Self::Policy(..) => 2,
            Self::Exchange(..) => 3,
            Self::Queue(..) => 4,
            Self::Binding(..) => 5,
        }
    }
}

impl Manager {
    /// Brings in definitions: all of them, or none when something is wrong. What is there already
    /// is not touched, so that a second time changes nothing; what is surplus goes first. Needs an
    /// administrator.
    ///
    /// Errors: kind `Denied`; kind `Invalid` with everything that is wrong; those of the store and
    /// of limits, which leave what had happened before.
    pub fn import(&self, import: impl Into<Import>, now: Now) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let Import { wanted: mut definitions, mut surplus } = import.into();
        let mut wrong = self.what_is_wrong(&mut definitions);
        wrong.extend(self.what_must_stay(&surplus));
        if !wrong.is_empty() {
            return Err(Refusal::new(RefusalKind::Invalid, wrong.join("; ")));
        }
        let count = definitions.len();
        let mut bound = Bound::default();
        definitions.retain(|definition| self.is_news(definition, &mut bound));
        let changes = definitions.len();
        let core = self.core.clone();
        let _together = core.committer.together();
        // What stands on others goes before them.
        surplus.sort_by_key(|one| std::cmp::Reverse(one.rank()));
        let deleted = surplus.len();
        for one in surplus {
            let name = one.name();
            self.take_away(one, now).map_err(|refusal| {
                Refusal::new(refusal.kind, format!("{name}: {}", refusal.text))
            })?;
        }
        for definition in definitions {
            let name = definition.name();
            self.make(definition, now).map_err(|refusal| {
                Refusal::new(refusal.kind, format!("{name}: {}", refusal.text))
            })?;
        }
        let after = json!({ "definitions": count, "changes": changes, "deleted": deleted });
        self.audit("definitions.import", "/definitions".to_owned(), Value::Null, after);
        Ok(())
    }

    /// Brings in as many definitions as can be, in one batch of the store; returns why the others
    /// stay out. Needs an administrator.
    ///
    /// Errors: kind `Denied`; kind `StoreFailed`, which leaves what had happened before.
    pub fn import_partly(
        &self,
        mut definitions: Vec<Definition>,
        now: Now,
    ) -> Result<Vec<String>, Refusal> {
        self.require(Role::Administrator)?;
        let (count, mut changes) = (definitions.len(), 0);
        let checked = self.check_all(&mut definitions);
        let (mut left_out, mut bound) = (Vec::new(), Bound::default());
        let core = self.core.clone();
        let _together = core.committer.together();
        for (definition, wrong) in definitions.into_iter().zip(checked) {
            if let Some(wrong) = wrong {
                left_out.push(wrong);
            } else if self.is_news(&definition, &mut bound) {
                let name = definition.name();
                match self.make(definition, now) {
                    Ok(()) => changes += 1,
                    Err(refusal) if refusal.kind == RefusalKind::StoreFailed => {
                        return Err(refusal);
                    }
                    Err(refusal) => left_out.push(format!("{name}: {}", refusal.text)),
                }
            }
        }
        let out = left_out.len();
        let after = json!({ "definitions": count, "changes": changes, "left_out": out });
        self.audit("definitions.import", "/definitions".to_owned(), Value::Null, after);
        Ok(left_out)
    }

    fn is_news(&self, definition: &Definition, bound: &mut Bound) -> bool {
        matches!(self.effect_of(definition, bound), Effect::Create | Effect::Change { .. })
    }

    /// Puts definitions in the order in which they can be made, and tells everything because of
    /// which they cannot.
    pub(super) fn what_is_wrong(&self, definitions: &mut [Definition]) -> Vec<String> {
        self.check_all(definitions).into_iter().flatten().collect()
    }

    /// The same, of each of them.
    fn check_all(&self, definitions: &mut [Definition]) -> Vec<Option<String>> {
        definitions.sort_by_key(Definition::rank);
        let mut expected = Expected::default();
        let wrong = |definition: &Definition| {
            let refusal = self.check(definition, &mut expected).err()?;
            Some(format!("{}: {}", definition.name(), refusal.text))
        };
        definitions.iter().map(wrong).collect()
    }

    /// Errors: what is wrong with it.
    fn check(&self, definition: &Definition, expected: &mut Expected) -> Result<(), Refusal> {
        let core = &self.core;
        match definition {
            Definition::Vhost(name, _) => {
                expected.vhosts.insert(name.clone());
            }
            Definition::User(name, _) => {
                expected.users.insert(name.clone());
            }
            Definition::UserLimits(name, _) => expected.known_user(core, name)?,
            Definition::GlobalParameter(..) => {}
            Definition::VhostLimits(vhost, _) => expected.vhost(core, vhost)?,
            Definition::Permission(vhost, user, record) => {
                expected.user(core, vhost, user)?;
                Access::default().put_permission(vhost.clone(), user.clone(), record.clone())?;
            }
            Definition::TopicPermission(vhost, user, exchange, record) => {
                expected.user(core, vhost, user)?;
                let (vhost, user, record) = (vhost.clone(), user.clone(), record.clone());
                Access::default().put_topic_permission(vhost, user, exchange, record)?;
            }
            Definition::Policy(vhost, kind, name, record) => {
                expected.vhost(core, vhost)?;
                Policies::default().put(*kind, name, record.clone())?;
            }
            Definition::Exchange(vhost, declare) => {
                expected.vhost(core, vhost)?;
                ExchangeName::new(&declare.exchange).map_err(bad_name)?;
                ExchangeSpec::parse(&declare.kind, declare.arguments.clone())?;
                expected.exchanges.insert((vhost.clone(), declare.exchange.clone()));
            }
            Definition::Queue(vhost, declare) => {
                expected.vhost(core, vhost)?;
                QueueName::new(&declare.queue).map_err(bad_name)?;
                let parsed = QueueSettings::parse(declare.arguments.clone(), core.durability)?;
                QueueSettings { durable: declare.durable, ..parsed }.check_type()?;
                expected.queues.insert((vhost.clone(), declare.queue.clone()));
            }
            Definition::Binding(vhost, binding) => {
                expected.vhost(core, vhost)?;
                expected.exchange(core, vhost, &binding.source)?;
                match binding.to_queue {
                    true => expected.queue(core, vhost, &binding.destination)?,
                    false => expected.exchange(core, vhost, &binding.destination)?,
                }
            }
        }
        Ok(())
    }

    fn make(&self, definition: Definition, now: Now) -> Result<(), Refusal> {
        let broker = BrokerHandle(self.core.clone());
        match definition {
            Definition::Vhost(name, record) => broker.put_vhost(name, record),
            Definition::VhostLimits(vhost, limits) => broker.set_vhost_limits(&vhost, limits),
            Definition::User(name, mut change) => {
                // The same hash must not cost the user its keys of SCRAM.
                let now = self.core.access.user(name.as_str());
                change.credentials = change.credentials.filter(|credentials| {
                    now.is_none_or(|now| now.password_hash != credentials.password_hash)
                });
                self.put_user(&name, change).map(drop)
            }
            Definition::UserLimits(name, limits) => broker.set_user_limits(&name, limits),
            Definition::Permission(vhost, user, record) => {
                self.core.put_permission(vhost, user, record, true)
            }
            Definition::TopicPermission(vhost, user, exchange, record) => {
                self.put_topic_permission(&vhost, &user, &exchange, record).map(drop)
            }
            Definition::GlobalParameter(name, value) => {
                self.put_global_parameter(&name, value).map(drop)
            }
            Definition::Policy(vhost, kind, name, record) => {
                broker.put_policy(&vhost, kind, &name, record, now)
            }
            Definition::Exchange(vhost, declare) => self.make_exchange(&vhost, &declare),
            Definition::Queue(vhost, declare) => self.make_queue(&vhost, &declare, now),
            Definition::Binding(vhost, binding) => self.make_binding(&vhost, binding),
        }
    }

    fn make_exchange(&self, vhost: &VhostName, declare: &DeclareExchange) -> Result<(), Refusal> {
        let vhost = self.core.vhost(vhost.as_str())?;
        if self.core.find_exchange(&vhost, &declare.exchange).is_ok() {
            return Ok(());
        }
        self.core.declare_exchange(&Access::own(), &vhost, declare).map(drop)
    }

    fn make_queue(
        &self,
        vhost: &VhostName,
        declare: &DeclareQueue,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.core.vhost(vhost.as_str())?;
        if vhost.topology.load().queue(&declare.queue).is_some() {
            return Ok(());
        }
        // Names that the broker makes may be among those of a dump.
        let (permit, by) = (Access::own(), (ConnectionId::default(), &self.who.user));
        self.core.declare_queue(&permit, &vhost, declare, by, true, now).map(drop)
    }

    fn make_binding(&self, vhost: &VhostName, binding: NewBinding) -> Result<(), Refusal> {
        let vhost = self.core.vhost(vhost.as_str())?;
        let destination = if binding.to_queue {
            let found = vhost.topology.load().queue(&binding.destination).cloned();
            let missing = || not_found("queue", &binding.destination, "");
            Destination::Queue(found.ok_or_else(missing)?)
        } else {
            Destination::Exchange(ExchangeName::new(&binding.destination).map_err(bad_name)?)
        };
        let (key, arguments) = (binding.key.as_str().into(), binding.arguments.into());
        let made = Binding { destination, key, arguments };
        let permits = (Access::own(), Access::own());
        self.core.bind(&permits, &vhost, &binding.source, made).map(drop)
    }
}

impl Expected {
    fn vhost(&self, core: &Core, name: &VhostName) -> Result<(), Refusal> {
        match self.vhosts.contains(name) {
            true => Ok(()),
            false => core.vhost(name.as_str()).map(drop),
        }
    }

    fn user(&self, core: &Core, vhost: &VhostName, name: &UserName) -> Result<(), Refusal> {
        self.vhost(core, vhost)?;
        self.known_user(core, name)
    }

    fn known_user(&self, core: &Core, name: &UserName) -> Result<(), Refusal> {
        match self.users.contains(name) || core.access.user(name.as_str()).is_some() {
            true => Ok(()),
            false => Err(not_found("user", name.as_str(), "")),
        }
    }

    fn exchange(&self, core: &Core, vhost: &VhostName, name: &str) -> Result<(), Refusal> {
        let is_built_in = name.starts_with("amq.");
        if is_built_in || self.exchanges.contains(&(vhost.clone(), name.to_owned())) {
            return Ok(());
        }
        core.find_exchange(&*core.vhost(vhost.as_str())?, name)
    }

    fn queue(&self, core: &Core, vhost: &VhostName, name: &str) -> Result<(), Refusal> {
        if self.queues.contains(&(vhost.clone(), name.to_owned())) {
            return Ok(());
        }
        match core.vhost(vhost.as_str())?.topology.load().queue(name) {
            Some(_) => Ok(()),
            None => Err(not_found("queue", name, "")),
        }
    }
}

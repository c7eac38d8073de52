//! What bringing in a definition would change.

use std::collections::{HashMap, HashSet};

use polymq_contract::{DeclareExchange, DeclareQueue, Refusal};
use polymq_model::{Table, UserName, Value as Typed, VhostName};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Definition, Import, Manager, NewBinding, UserChange, audit::shown};
use crate::{
    BrokerHandle,
    access::Role,
    queue::QueueSettings,
    topology::{Binding, Destination, ExchangeSpec},
    vhost::Vhost,
};

/// The bindings that exchanges have, as text that tells each from all others. An exchange is looked
/// through once, however many of its bindings are asked for.
#[derive(Default)]
pub(super) struct Bound(HashMap<(VhostName, String), HashSet<String>>);

impl Bound {
    fn has(&mut self, vhost: &Vhost, wanted: &NewBinding) -> bool {
        let known = self.0.entry((vhost.name.clone(), wanted.source.clone()));
        let known = known.or_insert_with(|| {
            let topology = vhost.topology.load();
            let source = topology.exchange(&wanted.source);
            source.into_iter().flat_map(|one| one.bindings.iter()).filter_map(ends_of).collect()
        });
        known.contains(&wanted.ends())
    }
}

/// What a definition comes to when it is brought in.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// It is there already.
    Unchanged,
    /// It is made.
    Create,
    /// It is there and becomes another. Never a secret.
    Change {
        /// What is there.
        before: Value,
        /// What it becomes.
        after: Value,
    },
    /// It is there with other settings, which can never change; it stays as it is.
    Conflict(String),
    /// It is there and goes.
    Delete,
}

/// A definition and what it comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// `vhost`, `vhost_limits`, `user`, `user_limits`, `permission`, `topic_permission`,
    /// `parameter`, `policy`, `operator_policy`, `exchange`, `queue` or `binding`.
    pub kind: &'static str,
    /// What it is about, for people.
    pub name: String,
    /// What comes of it.
    pub effect: Effect,
}

/// What an import would do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportPlan {
    /// One for each definition, in the order in which they would happen.
    pub differences: Vec<Difference>,
    /// Everything because of which none of it would happen.
    pub wrong: Vec<String>,
}

impl Manager {
    /// Tells what importing would change, and changes nothing. Needs an administrator.
    ///
    /// Errors: kind `Denied`.
    pub fn plan_import(&self, import: impl Into<Import>) -> Result<ImportPlan, Refusal> {
        self.require(Role::Administrator)?;
        let Import { wanted: mut definitions, surplus } = import.into();
        let mut wrong = self.what_is_wrong(&mut definitions);
        wrong.extend(self.what_must_stay(&surplus));
        let gone = |one: &Definition| Difference {
            kind: one.kind(),
            name: one.name(),
            effect: Effect::Delete,
        };
        let mut bound = Bound::default();
        let difference = |definition: &Definition| Difference {
            kind: definition.kind(),
            name: definition.name(),
            effect: self.effect_of(definition, &mut bound),
        };
        let differences = surplus.iter().map(gone).chain(definitions.iter().map(difference));
        Ok(ImportPlan { differences: differences.collect(), wrong })
    }

    /// What bringing in a definition comes to now.
    pub(super) fn effect_of(&self, definition: &Definition, bound: &mut Bound) -> Effect {
        let core = &self.core;
        match definition {
            Definition::Vhost(name, record) => {
                changed(self.find_vhost(name).ok().map(|view| view.record), record)
            }
            Definition::VhostLimits(name, limits) => {
                let now = self.find_vhost(name).ok().map(|view| view.limits);
                changed(Some(now.unwrap_or_default()), limits)
            }
            Definition::User(name, change) => self.effect_on_user(name, change),
            Definition::UserLimits(name, limits) => {
                changed(Some(core.users.limits_of(name)), limits)
            }
            Definition::Permission(vhost, user, record) => {
                changed(core.access.permission(vhost, user), record)
            }
            Definition::TopicPermission(vhost, user, exchange, record) => {
                let mut all = core.access.topic_permissions().into_iter();
                let now = all.find(|(v, u, e, _)| v == vhost && u == user && e == exchange);
                changed(now.map(|(.., record)| record), record)
            }
            Definition::GlobalParameter(name, value) => {
                changed(BrokerHandle(core.clone()).global_parameter(name), value)
            }
            Definition::Policy(vhost, kind, name, record) => {
                let all = BrokerHandle(core.clone()).policies(vhost, *kind).unwrap_or_default();
                let now = all.into_iter().find(|(known, _)| known == name).map(|(_, now)| now);
                let is_same = now.as_ref().is_some_and(|now| {
                    let rest = (&now.pattern, now.apply_to, now.priority);
                    rest == (&record.pattern, record.apply_to, record.priority)
                        && same_table(&now.definition, &record.definition)
                });
                if is_same { Effect::Unchanged } else { changed(now, record) }
            }
            Definition::Exchange(vhost, declare) => self.effect_on_exchange(vhost, declare),
            Definition::Queue(vhost, declare) => self.effect_on_queue(vhost, declare),
            Definition::Binding(vhost, binding) => match core.vhost(vhost.as_str()) {
                Ok(vhost) if bound.has(&vhost, binding) => Effect::Unchanged,
                Ok(_) | Err(_) => Effect::Create,
            },
        }
    }

    fn effect_on_user(&self, name: &UserName, change: &UserChange) -> Effect {
        let Some(now) = self.core.access.user(name.as_str()) else { return Effect::Create };
        let new_password = change
            .credentials
            .as_ref()
            .is_some_and(|credentials| credentials.password_hash != now.password_hash);
        let tags = change.tags.as_ref().unwrap_or(&now.tags);
        if *tags == now.tags && !new_password {
            return Effect::Unchanged;
        }
        let mut after = json!({ "tags": tags });
        if new_password {
            after["password"] = json!("changed");
        }
        Effect::Change { before: json!({ "tags": now.tags }), after }
    }

    fn effect_on_exchange(&self, vhost: &VhostName, declare: &DeclareExchange) -> Effect {
        let Ok(vhost) = self.core.vhost(vhost.as_str()) else { return Effect::Create };
        let topology = vhost.topology.load();
        let Some(now) = topology.exchange(&declare.exchange) else { return Effect::Create };
        // What cannot be read is told as wrong.
        let Ok(spec) = ExchangeSpec::parse(&declare.kind, declare.arguments.clone()) else {
            return Effect::Create;
        };
        let spec = ExchangeSpec {
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            ..spec
        };
        match now.spec.difference(&spec) {
            None => Effect::Unchanged,
            Some(other) => {
                Effect::Conflict(other.refuse("exchange", &declare.exchange, &vhost).text)
            }
        }
    }

    fn effect_on_queue(&self, vhost: &VhostName, declare: &DeclareQueue) -> Effect {
        let Ok(vhost) = self.core.vhost(vhost.as_str()) else { return Effect::Create };
        let topology = vhost.topology.load();
        let Some(now) = topology.queue(&declare.queue) else { return Effect::Create };
        let parsed = QueueSettings::parse(declare.arguments.clone(), self.core.durability);
        let Ok(parsed) = parsed else { return Effect::Create };
        let (durable, auto_delete) = (declare.durable, declare.auto_delete);
        let wanted = QueueSettings { durable, auto_delete, ..parsed };
        match now.with_declared(|declared| declared.difference(&wanted)) {
            None => Effect::Unchanged,
            Some(other) => Effect::Conflict(other.refuse("queue", &declare.queue, &vhost).text),
        }
    }
}

/// What putting `after` in the place of `now` comes to.
fn changed<T: PartialEq + Serialize>(now: Option<T>, after: &T) -> Effect {
    match now {
        None => Effect::Create,
        Some(now) if now == *after => Effect::Unchanged,
        Some(now) => Effect::Change { before: shown(&now), after: shown(after) },
    }
}

impl NewBinding {
    /// What tells it from others of its source. Types that JSON does not tell apart count as the
    /// same, or an export would bind a second time what a client has bound with another type of
    /// number.
    pub(super) fn ends(&self) -> String {
        ends((self.to_queue, &self.destination), &self.key, &self.arguments)
    }
}

/// What tells a binding from others of its source; `None` for one that leads to no name.
pub(super) fn ends_of(known: &Binding) -> Option<String> {
    let of = |to_queue, name: &str| ends((to_queue, name), &known.key, &known.arguments);
    match &known.destination {
        Destination::Queue(queue) => Some(of(true, queue.name.as_str())),
        Destination::Exchange(name) => Some(of(false, name.as_str())),
        Destination::Client(endpoint, _) => {
            endpoint.queue().map(|queue| of(true, queue.name.as_str()))
        }
    }
}

fn ends((to_queue, name): (bool, &str), key: &str, arguments: &Table) -> String {
    let kind = if to_queue { "queue" } else { "exchange" };
    [kind, name, key, &canonical(arguments)].join("\0")
}

fn same_table(a: &Table, b: &Table) -> bool {
    a.len() == b.len() && sorted(a) == sorted(b)
}

/// The same text for tables that are the same after a way through JSON.
fn canonical(table: &Table) -> String {
    format!("{:?}", sorted(table))
}

fn sorted(table: &Table) -> Table {
    let mut plain: Table = table.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    plain.sort_by(|a, b| a.0.cmp(&b.0));
    plain
}

/// A value as it is after a way through JSON.
fn plain(value: &Typed) -> Typed {
    match value {
        Typed::LongString(bytes) | Typed::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Typed::String(text.to_owned()),
            Err(_) => value.clone(),
        },
        Typed::Symbol(text) => Typed::String(text.clone()),
        Typed::F32(number) => Typed::F64(f64::from(*number)),
        Typed::List(items) => Typed::List(items.iter().map(plain).collect()),
        Typed::Map(table) => {
            let mut inner: Vec<_> =
                table.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
            inner.sort_by(|a, b| a.0.cmp(&b.0));
            Typed::Map(inner)
        }
        other => other.as_i64().map_or_else(|| other.clone(), Typed::I64),
    }
}

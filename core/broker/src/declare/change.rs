//! Changing what a queue was declared with, while it is there.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ConnectionId, Now, Table, Value, VhostName};

use super::queue::no_queue;
use crate::{
    BrokerHandle,
    access::{Configure, Principal, Read, Topics, Write},
    core::Core,
    definitions::{self, StoredQueue, kind},
    queue::{Queue, QueueSettings},
    vhost::Vhost,
};

/// Arguments that a queue has for ever, and why.
const FIXED: [(&str, &str); 4] = [
    ("x-durability", "it decides how the messages that are there were kept"),
    ("x-max-priority", "it decides in which order messages are stored"),
    ("x-queue-type", "it decides what the queue is"),
    ("x-single-active-consumer", "it decides who of the consumers that are there is served"),
];

/// Arguments before and after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueChange {
    /// What they were.
    pub before: Table,
    /// What they are.
    pub after: Table,
}

impl BrokerHandle {
    /// Changes arguments of a queue; `None` takes one away. Whoever declares the queue from now on
    /// must say what it has now. With `is_dry` everything is checked and nothing changes.
    ///
    /// Errors: kind `NotFound`; kind `Denied` as for declaring it; kind `Conflict` for arguments
    /// that cannot change, all of them by name; kind `Invalid`; kind `Locked` for a queue of one
    /// connection, kind `Reserved` for one of a client session.
    pub fn change_queue(
        &self,
        who: &Principal,
        (vhost, queue): (&VhostName, &str),
        changes: &[(String, Option<Value>)],
        is_dry: bool,
        now: Now,
    ) -> Result<QueueChange, Refusal> {
        let core = &self.0;
        core.access.permit::<Configure>(who, vhost, "queue", queue)?;
        let vhost = core.vhost(vhost.as_str())?;
        let found = vhost.topology.load().queue(queue).cloned();
        let queue = found.ok_or_else(|| no_queue(&vhost, queue))?;
        queue.check_owner(ConnectionId::default())?;
        if queue.settings.of_client {
            let text = format!("{queue} belongs to a client session");
            return Err(Refusal::new(RefusalKind::Reserved, text));
        }
        check_fixed(&queue, changes)?;
        let before = queue.with_declared(|declared| declared.arguments.clone());
        let mut after = before.clone();
        for (name, value) in changes {
            after.retain(|(known, _)| known != name);
            after.extend(value.clone().map(|value| (name.clone(), value)));
        }
        let settings = QueueSettings {
            durable: queue.settings.durable,
            auto_delete: queue.settings.auto_delete,
            exclusive: queue.settings.exclusive,
            declared_by: queue.settings.declared_by.clone(),
            ..QueueSettings::parse(after.clone(), core.durability)?
        };
        settings.check_type()?;
        core.check_new_dead_letters(who, &vhost, &queue, &settings)?;
        if !is_dry && before != after {
            core.apply_change(&vhost, &queue, settings, now)?;
        }
        Ok(QueueChange { before, after })
    }
}

impl Core {
    /// Dead letters lead from the queue to their exchange.
    fn check_new_dead_letters(
        &self,
        who: &Principal,
        vhost: &Vhost,
        queue: &Queue,
        settings: &QueueSettings,
    ) -> Result<(), Refusal> {
        if let Some(to) = &settings.rules.dead_letter {
            let (name, exchange) = (queue.name.as_str(), to.exchange.as_str());
            self.access.permit::<Read>(who, &vhost.name, "queue", name)?;
            self.access.permit::<Write>(who, &vhost.name, "exchange", exchange)?;
            let topics = to.key.as_deref().map_or(Topics::All, Topics::Key);
            self.access.check_topics::<Write>(who, &vhost.name, (exchange, topics), None)?;
        }
        Ok(())
    }

    fn apply_change(
        &self,
        vhost: &Arc<Vhost>,
        queue: &Arc<Queue>,
        settings: QueueSettings,
        now: Now,
    ) -> Result<(), Refusal> {
        let name = queue.name.as_str();
        // Inside an edit, so that nobody deletes the queue meanwhile; routes that know the size of
        // messages that it took are made anew.
        let rules = vhost.edit(|topology, _| {
            let is_there = topology.queue(name).is_some_and(|kept| Arc::ptr_eq(kept, queue));
            if !is_there {
                return Err(no_queue(vhost, name));
            }
            if queue.is_stored() {
                let key = definitions::key(&[kind::QUEUE, vhost.name.as_str(), name]);
                let value = definitions::encode(&StoredQueue {
                    log: queue.log.0,
                    auto_delete: settings.auto_delete,
                    of_client: false,
                    arguments: settings.arguments.clone(),
                    declared_by: settings.declared_by.as_deref().map(str::to_owned),
                });
                self.committer.append(|writer| writer.meta_put(&key, &value));
            }
            let rules = self.rules_of(vhost, name, &settings);
            queue.redeclare(settings);
            Ok(rules)
        })?;
        queue.set_rules(rules, now.unix_ms);
        self.committer.kick();
        Ok(())
    }
}

fn check_fixed(queue: &Queue, changes: &[(String, Option<Value>)]) -> Result<(), Refusal> {
    let fixed = |(name, _): &(String, Option<Value>)| {
        let (name, why) = FIXED.iter().find(|(fixed, _)| fixed == name)?;
        Some(format!("{name} cannot change: {why}"))
    };
    let all: Vec<String> = changes.iter().filter_map(fixed).collect();
    if all.is_empty() {
        return Ok(());
    }
    let text = format!("{queue} would have to be declared anew: {}", all.join("; "));
    Err(Refusal::new(RefusalKind::Conflict, text))
}

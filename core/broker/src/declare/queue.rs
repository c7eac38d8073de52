//! Queues.

use std::sync::Arc;

use polymq_contract::{CancelReason, DeclareQueue, Event, Refusal};
use polymq_model::{ConnectionId, LogId, Now, QueueName, UserName};
use polymq_store::ShardBatch;

use super::{bad_name, check_not_reserved};
use crate::{
    access::{Configure, Permit},
    core::Core,
    counters::add,
    definitions::{self, StoredQueue, kind},
    queue::{Queue, QueueSettings},
    topology::Destination,
    vhost::Vhost,
};

impl Core {
    /// Declares a queue. Returns it, whether it is new, and the batch to wait for.
    ///
    /// Errors: `Conflict` when it exists and differs, `Locked`, `Reserved`, `Invalid`,
    /// `NotAvailable`.
    pub(crate) fn declare_queue(
        &self,
        _permit: &Permit<Configure>,
        vhost: &Arc<Vhost>,
        declare: &DeclareQueue,
        (connection, by): (ConnectionId, &UserName),
        is_generated: bool,
        now: Now,
    ) -> Result<(Arc<Queue>, bool, Option<ShardBatch>), Refusal> {
        let name = QueueName::new(&declare.queue).map_err(bad_name)?;
        let mut settings = QueueSettings::parse(declare.arguments.clone(), self.durability)?;
        settings.durable = declare.durable;
        settings.auto_delete = declare.auto_delete;
        settings.exclusive = declare.exclusive.then_some(connection);
        settings.declared_by = Some(by.as_str().into());
        settings.check_type()?;
        if let Some(existing) = vhost.topology.load().queue(name.as_str()) {
            existing.check_owner(connection)?;
            existing.check_exclusivity(declare.exclusive)?;
            return match existing.with_declared(|declared| declared.difference(&settings)) {
                None => {
                    existing.touch(now.unix_ms);
                    Ok((existing.clone(), false, None))
                }
                Some(difference) => Err(difference.refuse("queue", name.as_str(), vhost)),
            };
        }
        if !is_generated {
            check_not_reserved("queue", name.as_str())?;
        }
        let (queue, batch) = self.create_queue(vhost, name, settings)?;
        queue.touch(now.unix_ms);
        Ok((queue, true, batch))
    }

    /// Makes a queue, or returns the one that somebody else has just made.
    ///
    /// Errors: kind `Limit` when the virtual host has as many as it may have.
    pub(crate) fn create_queue(
        &self,
        vhost: &Arc<Vhost>,
        name: QueueName,
        mut settings: QueueSettings,
    ) -> Result<(Arc<Queue>, Option<ShardBatch>), Refusal> {
        // An exclusive queue ends with its connection, so nothing of it is stored, durable or not.
        let stored = settings.durable && settings.exclusive.is_none();
        vhost.edit(|topology, _| {
            if let Some(existing) = topology.queue(name.as_str()) {
                return Ok((existing.clone(), None));
            }
            vhost.tenancy.check_queue_count(vhost, name.as_str(), topology.queues.len())?;
            settings.rules = self.rules_of(vhost, name.as_str(), &settings);
            let log = if stored { self.next_log() } else { LogId(0) };
            let batch = stored.then(|| self.store_queue(vhost, &name, &settings, log));
            let home = self.home(vhost);
            let committer = self.committer.clone();
            let queue = Queue::new(name.clone(), settings, log, stored, committer, home);
            topology.add_queue(queue.clone());
            add(&self.counters.total.queues_created, 1);
            Ok((queue, batch))
        })
    }

    fn store_queue(
        &self,
        vhost: &Arc<Vhost>,
        name: &QueueName,
        settings: &QueueSettings,
        log: LogId,
    ) -> ShardBatch {
        let key = definitions::key(&[kind::QUEUE, vhost.name.as_str(), name.as_str()]);
        let value = definitions::encode(&StoredQueue {
            log: log.0,
            auto_delete: settings.auto_delete,
            of_client: settings.of_client,
            arguments: settings.arguments.clone(),
            declared_by: settings.declared_by.as_deref().map(str::to_owned),
        });
        let title = format!("{}/{}", vhost.name, name);
        let write = |writer: &mut polymq_store::BatchWriter<'_>| {
            writer.log_create(log, &title);
            writer.meta_put(&key, &value);
        };
        self.committer.append(write).0
    }

    /// Puts a queue read from the store into the topology.
    pub(crate) fn restore_queue(
        &self,
        vhost: &Arc<Vhost>,
        name: QueueName,
        stored: StoredQueue,
    ) -> Result<Arc<Queue>, Refusal> {
        let mut settings = match stored.of_client {
            true => QueueSettings::of_client(true, &self.limits, self.durability),
            false => QueueSettings::parse(stored.arguments, self.durability)?,
        };
        settings.durable = true;
        settings.auto_delete = stored.auto_delete;
        settings.declared_by = stored.declared_by.map(Into::into);
        settings.rules = self.rules_of(vhost, name.as_str(), &settings);
        let log = LogId(stored.log);
        self.reserve_log(log);
        vhost.edit(|topology, _| {
            let home = self.home(vhost);
            let committer = self.committer.clone();
            let queue = Queue::new(name.clone(), settings, log, true, committer, home);
            topology.add_queue(queue.clone());
            Ok(queue)
        })
    }

    /// The queue, if this connection may see it.
    ///
    /// Errors: kind `NotFound`, kind `Locked`.
    pub(crate) fn find_queue(
        &self,
        vhost: &Arc<Vhost>,
        name: &str,
        connection: ConnectionId,
    ) -> Result<Arc<Queue>, Refusal> {
        let topology = vhost.topology.load();
        let queue = topology.queue(name).ok_or_else(|| no_queue(vhost, name))?;
        queue.check_owner(connection)?;
        Ok(queue.clone())
    }

    /// Deletes a queue with its bindings and tells its consumers. Returns its ready messages and
    /// the batch to wait for.
    ///
    /// Errors: kind `Conflict` when a condition does not hold.
    pub(crate) fn remove_queue(
        &self,
        vhost: &Arc<Vhost>,
        queue: &Arc<Queue>,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(u64, Option<ShardBatch>), Refusal> {
        let Some((messages, ended)) = queue.delete(if_unused, if_empty)? else {
            return Ok((0, None));
        };
        let own = Destination::Queue(queue.clone());
        let removed: Result<_, Refusal> = vhost.edit(|topology, destinations| {
            let is_ours =
                topology.queue(queue.name.as_str()).is_some_and(|kept| Arc::ptr_eq(kept, queue));
            if is_ours {
                topology.remove_queue(&queue.name);
                vhost.queue_sums.remove(queue, |left| vhost.activity.add(left));
            }
            let mut batch = self.drop_bindings_to(vhost, topology, destinations, &own);
            if queue.is_stored() {
                let key =
                    definitions::key(&[kind::QUEUE, vhost.name.as_str(), queue.name.as_str()]);
                batch = Some(self.committer.append(|writer| writer.meta_delete(&key)).0);
            }
            Ok(batch)
        });
        for consumer in ended {
            consumer.outbox.push(Event::ConsumerCancelled {
                consumer: consumer.consumer,
                reason: CancelReason::QueueDeleted,
            });
        }
        add(&self.counters.total.queues_deleted, 1);
        Ok((messages, removed?))
    }
}

pub(crate) fn no_queue(vhost: &Arc<Vhost>, name: &str) -> Refusal {
    let text = format!("no queue '{name}' in vhost '{}'", vhost.name);
    Refusal::missing("queue", name, text)
}

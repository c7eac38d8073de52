//! The queues of a virtual host by their names, of which a list shows a few.

use std::sync::Arc;

use parking_lot::Mutex;
use polymq_contract::Refusal;
use polymq_model::{QueueName, VhostName};

use super::QueueRef;
use crate::{BrokerHandle, topology::Topology, vhost::Vhost};

/// Changes after which the names are rather sorted again.
const CHANGES_MAX: usize = 1000;

/// The names of the queues in order, made when somebody asks, and kept while queues come and go.
///
/// It holds names and no queues, so that what is deleted is not kept by a list of it.
#[derive(Default)]
pub(crate) struct QueueNames(Mutex<Option<Kept>>);

struct Kept {
    /// The changes of the queues that the names know.
    made_at: u64,
    names: Arc<[QueueName]>,
    /// Queues that have come or gone since.
    changed: Vec<QueueName>,
}

impl QueueNames {
    /// Cost: nothing while the queues stay the same, a copy of the names when a few have come or
    /// gone, and otherwise that of sorting them.
    fn of(&self, topology: &Topology) -> Arc<[QueueName]> {
        let mut kept = self.0.lock();
        let names = match kept.take() {
            Some(same) if same.made_at == topology.queue_changes => {
                return kept.insert(same).names.clone();
            }
            // A change may be in the topology and not yet be noted, and the other way round.
            Some(known) if known.made_at + known.changed.len() as u64 == topology.queue_changes => {
                merged(&known.names, known.changed, topology)
            }
            Some(_) | None => {
                let mut names: Vec<_> = topology.queues.keys().cloned().collect();
                names.sort_unstable();
                names
            }
        };
        let (made_at, changed) = (topology.queue_changes, Vec::new());
        kept.insert(Kept { made_at, names: names.into(), changed }).names.clone()
    }

    /// Queues have come or gone.
    pub(crate) fn note(&self, changed: Vec<QueueName>) {
        if changed.is_empty() {
            return;
        }
        let mut kept = self.0.lock();
        if let Some(known) = &mut *kept {
            known.changed.extend(changed);
            if known.changed.len() > CHANGES_MAX {
                *kept = None;
            }
        }
    }

    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// The names that were known, with those changed that may have come or gone.
fn merged(known: &[QueueName], mut changed: Vec<QueueName>, now: &Topology) -> Vec<QueueName> {
    changed.sort_unstable();
    changed.dedup();
    let mut names = Vec::with_capacity(known.len() + changed.len());
    let mut rest = known;
    for name in changed {
        let (before, from) = rest.split_at(rest.partition_point(|other| *other < name));
        names.extend_from_slice(before);
        rest = from.strip_prefix(std::slice::from_ref(&name)).unwrap_or(from);
        if now.queue(name.as_str()).is_some() {
            names.push(name);
        }
    }
    names.extend_from_slice(rest);
    names
}

/// The queues of a virtual host at the moment somebody has asked, in the order of their names.
#[derive(Clone)]
pub struct QueueList {
    vhost: Arc<Vhost>,
    topology: Arc<Topology>,
    names: Arc<[QueueName]>,
}

impl QueueList {
    fn of(vhost: Arc<Vhost>) -> Self {
        let topology = vhost.topology.load_full();
        let names = vhost.queue_names.of(&topology);
        Self { vhost, topology, names }
    }

    /// Their virtual host.
    pub fn vhost(&self) -> &VhostName {
        &self.vhost.name
    }

    /// Their names, in order.
    pub fn names(&self) -> &[QueueName] {
        &self.names
    }

    /// One of them.
    pub fn queue(&self, name: &QueueName) -> Option<QueueRef> {
        let queue = self.topology.queue(name.as_str())?.clone();
        Some(QueueRef::new(self.vhost.clone(), queue))
    }
}

impl BrokerHandle {
    /// The queues of a virtual host, or of each, in the order of the names of both. Costs less than
    /// [`BrokerHandle::queue_refs`] when only a few of them are looked at.
    ///
    /// Errors: kind `NotFound` when the virtual host is missing.
    pub fn queue_lists(&self, vhost: Option<&str>) -> Result<Vec<QueueList>, Refusal> {
        Ok(self.0.vhosts_named(vhost)?.into_iter().map(QueueList::of).collect())
    }
}

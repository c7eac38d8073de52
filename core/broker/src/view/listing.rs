//! The queues of a virtual host by their names, of which a list shows a few.

use std::sync::Arc;

use parking_lot::Mutex;
use polymq_contract::Refusal;
use polymq_model::{QueueName, VhostName};

use super::QueueRef;
use crate::{BrokerHandle, topology::Topology, vhost::Vhost};

/// The names of the queues in order, made when somebody asks and kept until a queue comes or goes.
///
/// It holds names and no queues, so that what is deleted is not kept by a list of it.
#[derive(Default)]
pub(crate) struct QueueNames(Mutex<Option<(u64, Arc<[QueueName]>)>>);

impl QueueNames {
    /// Cost: nothing while the queues stay the same; otherwise that of sorting them.
    fn of(&self, topology: &Topology) -> Arc<[QueueName]> {
        if let Some((made_at, names)) = &*self.0.lock()
            && *made_at == topology.queue_changes
        {
            return names.clone();
        }
        let mut names: Vec<_> = topology.queues.keys().cloned().collect();
        names.sort_unstable();
        let names: Arc<[QueueName]> = names.into();
        *self.0.lock() = Some((topology.queue_changes, names.clone()));
        names
    }

    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
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

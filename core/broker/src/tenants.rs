//! What virtual hosts and users are known by, and what they may use at most.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{UserName, VhostName};
use serde::{Deserialize, Serialize};

use crate::{
    BrokerHandle,
    core::Core,
    definitions::{self, kind},
    retained::Amount,
    vhost::Vhost,
};

/// What is known about a virtual host beside its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostRecord {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// For people and tools.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The type of queues that are declared without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_queue_type: Option<String>,
    /// Deleting the virtual host is refused.
    #[serde(default)]
    pub protected_from_deletion: bool,
}

/// The most that a virtual host may use; `None` is no bound, and 0 blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostLimits {
    /// Open connections.
    #[serde(default)]
    pub connections_max: Option<u64>,
    /// Queues, those of client sessions included.
    #[serde(default)]
    pub queues_max: Option<u64>,
    /// Bytes of the ready messages of its queues; above this its publishers wait. Named
    /// `bytes-high`, which RabbitMQ does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_high: Option<u64>,
    /// Bytes in memory of the retained messages that its clients have published, or
    /// `retained-max-bytes`. One beyond it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_bytes_max: Option<u64>,
    /// How many there are, or `retained-max-count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_count_max: Option<u64>,
    /// The largest body that its clients may publish, in bytes, or `max-message-size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<u64>,
}

/// The most that a user may use, over all virtual hosts; `None` is no bound, and 0 blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLimits {
    /// Open connections.
    #[serde(default)]
    pub connections_max: Option<u64>,
    /// Open channels of all connections together.
    #[serde(default)]
    pub channels_max: Option<u64>,
}

/// Reads a limit as RabbitMQ writes it: a negative number is none.
pub fn limit_from(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

/// A virtual host and what uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostView {
    /// Its name.
    pub name: VhostName,
    /// What is known about it.
    pub record: VhostRecord,
    /// What it may use.
    pub limits: VhostLimits,
    /// Open connections.
    pub connections: u64,
    /// Queues.
    pub queues: usize,
    /// Retained messages that its clients have published.
    pub retained: Amount,
}

/// Limits of users and what they use.
#[derive(Default)]
pub(crate) struct Users {
    limits: RwLock<HashMap<UserName, UserLimits>>,
    uses: Mutex<HashMap<UserName, Use>>,
}

#[derive(Default)]
struct Use {
    connections: u64,
    channels: u64,
}

/// Connections in a virtual host.
#[derive(Default)]
pub(crate) struct Connections {
    /// Those that its limit counts.
    clients: u64,
    /// Those of single requests.
    visits: u64,
}

impl Connections {
    /// True when nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.clients == 0 && self.visits == 0
    }
}

/// The part of a virtual host that changes without its topology.
#[derive(Default)]
pub(crate) struct Tenancy {
    pub(crate) record: RwLock<VhostRecord>,
    pub(crate) limits: RwLock<VhostLimits>,
    pub(crate) connections: Mutex<Connections>,
    /// It is being deleted.
    pub(crate) leaving: AtomicBool,
    blocked: AtomicBool,
    blocked_reason: Mutex<Option<Arc<str>>>,
}

impl Tenancy {
    /// True while publishers of the virtual host wait.
    #[inline]
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Why they wait, for them.
    pub(crate) fn blocked_reason(&self) -> Option<Arc<str>> {
        self.blocked_reason.lock().clone()
    }

    /// Has them wait for this reason, or go on. True when that is a change.
    pub(crate) fn block(&self, reason: Option<Arc<str>>) -> bool {
        let is_blocked = reason.is_some();
        if !is_blocked && !self.is_blocked() {
            return false;
        }
        *self.blocked_reason.lock() = reason;
        self.blocked.swap(is_blocked, Ordering::SeqCst) != is_blocked
    }

    fn limits(&self) -> VhostLimits {
        *self.limits.read()
    }

    /// Errors: kind `Limit` when there are `count` queues and one more would be too many.
    pub(crate) fn check_queue_count(
        &self,
        vhost: &Vhost,
        queue: &str,
        count: usize,
    ) -> Result<(), Refusal> {
        let Some(max) = self.limits().queues_max else { return Ok(()) };
        if u64::try_from(count).is_ok_and(|count| count < max) {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalKind::Limit,
            format!(
                "cannot declare queue '{queue}' in vhost '{}': queue limit ({max}) is reached",
                vhost.name
            ),
        ))
    }
}

/// A connection's place in a virtual host. Dropping it frees what the connection used.
pub(crate) struct Seat {
    vhost: Arc<Vhost>,
    users: Arc<Users>,
    user: UserName,
    channels: u64,
    is_visit: bool,
}

impl Seat {
    /// Errors: kind `Limit`, unless it is a visit.
    pub(crate) fn take(
        vhost: &Arc<Vhost>,
        users: &Arc<Users>,
        user: &UserName,
        is_visit: bool,
    ) -> Result<Self, Refusal> {
        let mut connections = vhost.tenancy.connections.lock();
        if vhost.tenancy.is_leaving() {
            let text = format!("vhost '{}' not found", vhost.name);
            return Err(Refusal::missing("vhost", vhost.name.as_str(), text));
        }
        let (vhost, users, user) = (vhost.clone(), users.clone(), user.clone());
        if is_visit {
            connections.visits += 1;
            drop(connections);
            return Ok(Self { vhost, users, user, channels: 0, is_visit });
        }
        if let Some(max) = vhost.tenancy.limits().connections_max
            && connections.clients >= max
        {
            let text = format!(
                "access to vhost '{}' refused for user '{user}': connection limit ({max}) is \
                 reached",
                vhost.name
            );
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        let mut uses = users.uses.lock();
        let used = uses.entry(user.clone()).or_default();
        if let Some(max) = users.limits_of(&user).connections_max
            && used.connections >= max
        {
            let text = format!(
                "connection refused for user '{user}': user connection limit ({max}) is reached"
            );
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        used.connections += 1;
        connections.clients += 1;
        drop(uses);
        drop(connections);
        Ok(Self { vhost, users, user, channels: 0, is_visit })
    }

    /// Errors: kind `Limit`.
    pub(crate) fn open_channel(&mut self) -> Result<(), Refusal> {
        let mut uses = self.users.uses.lock();
        let Some(used) = uses.get_mut(&self.user) else { return Ok(()) };
        if let Some(max) = self.users.limits_of(&self.user).channels_max
            && used.channels >= max
        {
            let text = format!(
                "number of channels opened for user '{}' has reached the maximum allowed user \
                 limit of ({max})",
                self.user
            );
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        used.channels += 1;
        self.channels += 1;
        Ok(())
    }

    pub(crate) fn close_channel(&mut self) {
        if self.channels > 0 {
            self.channels -= 1;
            self.users.free(&self.user, 0, 1);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connections = self.vhost.tenancy.connections.lock();
        if self.is_visit {
            connections.visits = connections.visits.saturating_sub(1);
            return;
        }
        connections.clients = connections.clients.saturating_sub(1);
        drop(connections);
        self.users.free(&self.user, 1, self.channels);
    }
}

impl Users {
    pub(crate) fn limits_of(&self, user: &UserName) -> UserLimits {
        self.limits.read().get(user).copied().unwrap_or_default()
    }

    pub(crate) fn set_limits(&self, user: UserName, limits: UserLimits) {
        let mut all = self.limits.write();
        if limits == UserLimits::default() {
            all.remove(&user);
        } else {
            all.insert(user, limits);
        }
    }

    fn free(&self, user: &UserName, connections: u64, channels: u64) {
        let mut uses = self.uses.lock();
        let Some(used) = uses.get_mut(user) else { return };
        used.connections = used.connections.saturating_sub(connections);
        used.channels = used.channels.saturating_sub(channels);
        if used.connections == 0 && used.channels == 0 {
            uses.remove(user);
        }
    }
}

impl BrokerHandle {
    /// Creates a virtual host, or replaces what is known about it.
    ///
    /// Errors: kind `Invalid` for a queue type that is none, kind `NotAvailable` for a planned one,
    /// kind `Conflict` while it is being deleted.
    pub fn put_vhost(&self, name: VhostName, record: VhostRecord) -> Result<(), Refusal> {
        match record.default_queue_type.as_deref() {
            None | Some("classic" | "quorum") => {}
            Some("stream") => {
                let text = "default queue type 'stream' is not available yet";
                return Err(Refusal::new(RefusalKind::NotAvailable, text));
            }
            Some(other) => {
                let text = format!("default queue type is classic or quorum, not '{other}'");
                return Err(Refusal::new(RefusalKind::Invalid, text));
            }
        }
        let vhost = self.0.create_vhost(name);
        if vhost.tenancy.is_leaving() {
            let text = format!("vhost '{}' is being deleted", vhost.name);
            return Err(Refusal::new(RefusalKind::Conflict, text));
        }
        let key = definitions::key(&[kind::VHOST, vhost.name.as_str()]);
        let value = definitions::encode(&record);
        // Under the lock, so that what is stored last is what stands.
        let mut kept = vhost.tenancy.record.write();
        *kept = record;
        self.0.committer.append(|writer| writer.meta_put(&key, &value));
        Ok(())
    }

    /// All virtual hosts, by name.
    pub fn vhosts(&self) -> Vec<VhostView> {
        // One lock at a time, as they are taken in another order elsewhere.
        let view = |vhost: &Arc<Vhost>| {
            let record = vhost.tenancy.record.read().clone();
            let limits = vhost.tenancy.limits();
            let connections = vhost.tenancy.connections.lock().clients;
            let queues = vhost.topology.load().queues.len();
            let retained = vhost.retained.lock().held();
            VhostView { name: vhost.name.clone(), record, limits, connections, queues, retained }
        };
        let vhosts = self.0.all_vhosts();
        let present = vhosts.iter().filter(|vhost| !vhost.tenancy.is_leaving());
        let mut views: Vec<_> = present.map(view).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// Bounds a virtual host. What is there already stays.
    ///
    /// Errors: kind `NotFound`.
    pub fn set_vhost_limits(&self, name: &VhostName, limits: VhostLimits) -> Result<(), Refusal> {
        let vhost = self.0.vhost(name.as_str())?;
        let is_bound = limits != VhostLimits::default();
        vhost.bound(limits, || {
            self.0.store_limits(&[kind::VHOST_LIMITS, name.as_str()], is_bound.then_some(&limits));
        });
        Ok(())
    }

    /// Bounds a user. What is open already stays.
    ///
    /// Errors: kind `NotFound`.
    pub fn set_user_limits(&self, name: &UserName, limits: UserLimits) -> Result<(), Refusal> {
        if self.0.access.user(name.as_str()).is_none() {
            let text = format!("user '{name}' not found");
            return Err(Refusal::missing("user", name.as_str(), text));
        }
        self.0.users.set_limits(name.clone(), limits);
        let is_bound = limits != UserLimits::default();
        self.0.store_limits(&[kind::USER_LIMITS, name.as_str()], is_bound.then_some(&limits));
        Ok(())
    }

    /// What a user may use.
    pub fn user_limits(&self, name: &UserName) -> UserLimits {
        self.0.users.limits_of(name)
    }
}

impl Vhost {
    /// Has limits hold from now on; `store` writes them down, so that what is stored last is what
    /// stands.
    pub(crate) fn bound(&self, limits: VhostLimits, store: impl FnOnce()) {
        let edited: Result<(), Refusal> = self.edit(|topology, _| {
            topology.body_bytes_max = limits.message_bytes_max;
            *self.tenancy.limits.write() = limits;
            self.retained.lock().bound(&limits);
            store();
            Ok(())
        });
        edited.ok();
    }
}

impl Core {
    fn store_limits<T: Serialize>(&self, key: &[&str], limits: Option<&T>) {
        let key = definitions::key(key);
        self.committer.append(|writer| match limits {
            Some(limits) => writer.meta_put(&key, &definitions::encode(limits)),
            None => writer.meta_delete(&key),
        });
    }
}

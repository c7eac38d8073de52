//! The state that all connections share.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use polymq_contract::{Event, Outbox, Peer, Refusal};
use polymq_model::{ConnectionId, Formats, Limits, LogId, UserName, VhostName};
use polymq_store::{Committer, Durability};

use crate::{
    access::{Access, Principal},
    bans::Bans,
    chance::Chance,
    counters::Counters,
    definitions::{self, kind},
    jobs::Jobs,
    login::Authenticator,
    mailbox::{DocumentKey, StoredDocument},
    management::{AuditSink, Audited, Parameters},
    queue::{Home, WindowBudget},
    statistics::{ActivityCounters, PastTraffic, Sampling},
    tenants::{Users, VhostRecord},
    tokens::Tokens,
    trace::Traces,
    vhost::Vhost,
    view::ConnectionFacts,
};

/// Fills a buffer with random bytes.
pub type Entropy = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// What the broker is built from.
pub struct Parts {
    /// Where durable things are written.
    pub committer: Arc<Committer>,
    /// Native forms of the protocols that are part of this broker.
    pub formats: Formats,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Checks logins.
    pub authenticator: Arc<dyn Authenticator>,
    /// Fills a buffer with random bytes, for names that must not be guessed.
    pub entropy: Entropy,
    /// Settings of MQTT that the broker itself needs.
    pub share_expiry_ms: u64,
    /// What the confirm of a persistent message means in queues that do not say.
    pub durability: Durability,
    /// Queues go on behind messages that the store cannot read.
    pub skips_damage: bool,
}

/// The state that all connections share.
pub(crate) struct Core {
    me: Weak<Core>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) formats: Formats,
    /// What sizes of queues and buffers were made of.
    pub(crate) limits: Arc<Limits>,
    /// The limits of what comes from now on.
    pub(crate) limits_now: ArcSwap<Limits>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) entropy: Entropy,
    /// Seeds of all that is chosen at random, except names.
    pub(crate) chance: Chance,
    pub(crate) share_expiry_ms: u64,
    pub(crate) durability: Durability,
    pub(crate) skips_damage: bool,
    pub(crate) access: Access,
    pub(crate) tokens: Tokens,
    pub(crate) bans: Bans,
    /// Where changes by administrators are written down.
    pub(crate) audit: OnceLock<AuditSink>,
    pub(crate) audited: Audited,
    /// The time of the last tick, in ms since 1970.
    clock_ms: AtomicU64,
    /// Connections whose login ends, by that time in ms since 1970.
    pub(crate) ends: Mutex<BTreeSet<(u64, ConnectionId)>>,
    /// Shared with the connections that count in it.
    pub(crate) users: Arc<Users>,
    pub(crate) counters: Counters,
    pub(crate) vhosts: RwLock<HashMap<VhostName, Arc<Vhost>>>,
    pub(crate) connections: Mutex<HashMap<ConnectionId, ConnectionRecord>>,
    /// What protocols keep for users.
    pub(crate) documents: Mutex<HashMap<DocumentKey, StoredDocument>>,
    /// What administrators have the broker do with many messages.
    pub(crate) jobs: Jobs,
    /// What is watched on its way.
    pub(crate) traces: Traces,
    /// The domain whose addresses have mailboxes.
    pub(crate) mailbox_domain: OnceLock<Box<str>>,
    pub(crate) stopping: AtomicBool,
    /// Set while publishers must wait: memory or disk is short.
    pub(crate) alarm: RwLock<Option<Arc<str>>>,
    pub(crate) alarmed: AtomicBool,
    /// Whether the store refused what it was last given: the log says so once.
    pub(crate) store_refuses: Arc<AtomicBool>,
    /// Bytes of the publishes that wait because publishers are blocked.
    pub(crate) parked_bytes: AtomicUsize,
    /// When the bytes of virtual hosts were added up, in ms since 1970.
    pub(crate) measured_ms: AtomicU64,
    pub(crate) parameters: Parameters,
    pub(crate) sampling: Sampling,
    /// What was counted in virtual hosts that have gone.
    pub(crate) retired: ActivityCounters,
    pub(crate) retired_traffic: PastTraffic,
    /// Connections that were told to go.
    pub(crate) leaving: AtomicUsize,
    next_connection: AtomicU64,
    next_client: AtomicU64,
    next_log: AtomicU32,
    windows: Arc<WindowBudget>,
}

/// A connection, for administration and shutdown.
#[derive(Clone)]
pub(crate) struct ConnectionRecord {
    pub(crate) protocol: &'static str,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) user: Option<UserName>,
    /// The same with what its token says.
    pub(crate) who: Option<Arc<Principal>>,
    pub(crate) vhost: Option<VhostName>,
    pub(crate) publishes: bool,
    /// It was told that publishers are blocked.
    pub(crate) is_blocked: bool,
    /// Some of its publishes wait.
    pub(crate) has_parked: bool,
    /// It was told to go; when it is cut if it has not, in ms since 1970.
    pub(crate) leaves_by_ms: Option<u64>,
    pub(crate) facts: Arc<ConnectionFacts>,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let windows = Arc::new(WindowBudget::new(&parts.limits));
        let mut seed = [0; 8];
        (parts.entropy)(&mut seed);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            committer: parts.committer,
            formats: parts.formats,
            limits_now: ArcSwap::new(Arc::clone(&parts.limits)),
            limits: parts.limits,
            authenticator: parts.authenticator,
            entropy: parts.entropy,
            chance: Chance::new(u64::from_le_bytes(seed)),
            share_expiry_ms: parts.share_expiry_ms,
            durability: parts.durability,
            skips_damage: parts.skips_damage,
            access: Access::default(),
            tokens: Tokens::default(),
            bans: Bans::default(),
            audit: OnceLock::new(),
            audited: Audited::default(),
            clock_ms: AtomicU64::new(0),
            ends: Mutex::default(),
            users: Arc::default(),
            counters: Counters::default(),
            vhosts: RwLock::default(),
            connections: Mutex::default(),
            documents: Mutex::default(),
            jobs: Jobs::default(),
            traces: Traces::default(),
            mailbox_domain: OnceLock::new(),
            stopping: AtomicBool::new(false),
            alarm: RwLock::new(None),
            alarmed: AtomicBool::new(false),
            store_refuses: Arc::default(),
            parked_bytes: AtomicUsize::new(0),
            measured_ms: AtomicU64::new(0),
            parameters: Parameters::default(),
            sampling: Sampling::default(),
            retired: ActivityCounters::default(),
            retired_traffic: PastTraffic::default(),
            leaving: AtomicUsize::new(0),
            next_connection: AtomicU64::new(1),
            next_client: AtomicU64::new(1),
            next_log: AtomicU32::new(1),
            windows,
        })
    }

    /// What a queue of this virtual host needs of the broker.
    pub(crate) fn home(&self, vhost: &Arc<Vhost>) -> Home {
        Home::new(&self.me, vhost, &self.windows)
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// The time, a tick late at most, in ms since 1970; for whatever has no time of its own.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_clock(&self, now_ms: u64) {
        self.clock_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Notes who a connection is, and until when.
    pub(crate) fn know_user(&self, id: ConnectionId, who: &Arc<Principal>) {
        let mut connections = self.connections.lock();
        let Some(record) = connections.get_mut(&id) else { return };
        record.user = Some(who.user.clone());
        let before = record.who.replace(Arc::clone(who));
        let mut ends = self.ends.lock();
        if let Some(at_ms) = before.and_then(|before| before.until_ms()) {
            ends.remove(&(at_ms, id));
        }
        ends.extend(who.until_ms().map(|at_ms| (at_ms, id)));
    }

    pub(crate) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_client(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_log(&self) -> LogId {
        LogId(self.next_log.fetch_add(1, Ordering::Relaxed))
    }

    /// Never gives a number at or below `used` again.
    pub(crate) fn reserve_log(&self, used: LogId) {
        self.next_log.fetch_max(used.0.saturating_add(1), Ordering::Relaxed);
    }

    /// The virtual host.
    ///
    /// Errors: kind `NotFound`.
    pub(crate) fn vhost(&self, name: &str) -> Result<Arc<Vhost>, Refusal> {
        self.vhosts
            .read()
            .get(name)
            .filter(|vhost| !vhost.tenancy.is_leaving())
            .cloned()
            .ok_or_else(|| Refusal::missing("vhost", name, format!("vhost '{name}' not found")))
    }

    /// Creates a virtual host unless it exists.
    pub(crate) fn create_vhost(&self, name: VhostName) -> Arc<Vhost> {
        let mut vhosts = self.vhosts.write();
        if let Some(vhost) = vhosts.get(&name) {
            return vhost.clone();
        }
        let vhost = Arc::new(Vhost::new(name.clone(), self.chance.next()));
        vhosts.insert(name.clone(), vhost.clone());
        drop(vhosts);
        let key = definitions::key(&[kind::VHOST, name.as_str()]);
        let value = definitions::encode(&VhostRecord::default());
        self.committer.append(|writer| writer.meta_put(&key, &value));
        vhost
    }

    pub(crate) fn all_vhosts(&self) -> Vec<Arc<Vhost>> {
        self.vhosts.read().values().cloned().collect()
    }

    /// A name that nobody can guess: `prefix` and 22 characters.
    pub(crate) fn random_name(&self, prefix: &str) -> String {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let mut bytes = [0; 16];
        (self.entropy)(&mut bytes);
        format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Tells every connection that the server stops.
    pub(crate) fn announce_stop(&self, reason: &str) {
        self.stopping.store(true, Ordering::SeqCst);
        for record in self.connections.lock().values() {
            record.outbox.push(Event::Closing { reason: reason.into(), shutdown: true });
        }
    }
}

//! Deliveries that clients of HTTP hold beyond the request that received them.
//!
//! They belong to clients of the broker that no connection of HTTP owns: one for each login and
//! virtual host, kept while it holds anything and a while longer. A lease that ends without a word
//! counts as a failed delivery.

mod receipt;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use parking_lot::Mutex;
use polymq_contract::{Delivery, DeliveryRange, Note, Outcome, Peer, Settlement};
use polymq_model::{ConsumerId, UserName};
use tokio::{sync::Notify, time::timeout};

pub(crate) use receipt::{Bearer, Signer};

use crate::{
    Site,
    client::Client,
    clock, identity,
    problem::Problem,
    settings::Entropy,
    socket::{Shown, Socket},
};

/// Leases of one user on one queue.
pub(crate) const LEASES_MAX: usize = 10_000;
/// How long a client that holds nothing stays for the next call.
const HOLDER_IDLE: Duration = Duration::from_secs(60);
/// How often it is looked whether one may go.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// All leases of a server.
pub(crate) struct Leases {
    state: Mutex<State>,
    signer: Signer,
    /// Told when a lease may end earlier than all before.
    earlier: Notify,
}

#[derive(Default)]
struct State {
    holders: HashMap<HolderKey, Arc<Holder>>,
    leases: HashMap<u64, Lease>,
    ends: BTreeSet<(Instant, u64)>,
    counts: HashMap<Place, usize>,
    next: u64,
    /// Somebody watches over the ends.
    is_watched: bool,
}

/// A login and a virtual host; the login is hashed, so that it is not kept.
type HolderKey = [u8; 32];

/// Whose leases are counted together.
type Place = (UserName, Arc<str>, Arc<str>);

/// A client of the broker that holds deliveries.
pub(crate) struct Holder {
    pub(crate) client: Arc<Client>,
    /// When it was last asked for.
    used: Mutex<Instant>,
}

struct Lease {
    holder: Arc<Holder>,
    place: Place,
    consumer: ConsumerId,
    number: u64,
    end: Instant,
}

/// What came of settling with a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Done.
    Ok,
    /// The lease has ended, or it was settled before.
    Expired,
    /// It is no receipt of this user and queue.
    Unknown,
}

impl Settled {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

impl Leases {
    pub(crate) fn new(entropy: &Entropy) -> Self {
        let mut key = [0; 32];
        entropy(&mut key);
        Self { state: Mutex::default(), signer: Signer::new(&key), earlier: Notify::new() }
    }

    /// The client that holds what this login receives, logged in by now.
    ///
    /// Errors: as for [`Socket::connect_shown`].
    pub(crate) async fn holder(
        &self,
        site: &Site,
        socket: &Socket,
        shown: &Shown,
        vhost: &str,
    ) -> Result<Arc<Holder>, Problem> {
        let key = holder_key(shown, &socket.peer, vhost);
        let known = self.state.lock().holders.get(&key).cloned();
        if let Some(holder) = known.filter(|holder| holder.client.ended().is_none()) {
            *holder.used.lock() = clock::now().instant;
            return Ok(holder);
        }
        let client = Arc::new(socket.connect_shown(site, shown, Some(vhost)).await?);
        let holder = Holder { client, used: Mutex::new(clock::now().instant) };
        let holder = Arc::new(holder);
        self.state.lock().holders.insert(key, Arc::clone(&holder));
        Ok(holder)
    }

    /// How many more leases this user may have on this queue.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().leases.len()
    }

    pub(crate) fn room(&self, bearer: Bearer<'_>) -> Result<usize, Problem> {
        let place = place(bearer)?;
        let held = self.state.lock().counts.get(&place).copied().unwrap_or(0);
        Ok(LEASES_MAX.saturating_sub(held))
    }

    /// Leases a delivery; returns its receipt.
    pub(crate) fn lease(
        self: &Arc<Self>,
        holder: &Arc<Holder>,
        bearer: Bearer<'_>,
        delivery: &Delivery,
        time: Duration,
    ) -> Result<String, Problem> {
        let place = place(bearer)?;
        let end = clock::now().instant + time;
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        *state.counts.entry(place.clone()).or_default() += 1;
        let (consumer, number) = (delivery.consumer, delivery.number);
        let holder = Arc::clone(holder);
        state.leases.insert(id, Lease { holder, place, consumer, number, end });
        let is_earliest = state.ends.first().is_none_or(|(first, _)| end < *first);
        state.ends.insert((end, id));
        if !std::mem::replace(&mut state.is_watched, true) {
            tokio::spawn(watch(Arc::clone(self)));
        }
        drop(state);
        if is_earliest {
            self.earlier.notify_one();
        }
        Ok(self.signer.sign(id, bearer))
    }

    /// Gives leases that stand another end.
    pub(crate) fn extend(
        &self,
        receipts: &[String],
        bearer: Bearer<'_>,
        time: Duration,
    ) -> Vec<Settled> {
        let end = clock::now().instant + time;
        let mut state = self.state.lock();
        let mut extend = |receipt: &String| {
            let Some(id) = self.signer.read(receipt, bearer) else { return Settled::Unknown };
            let Some(lease) = state.leases.get_mut(&id) else { return Settled::Expired };
            let before = std::mem::replace(&mut lease.end, end);
            state.ends.remove(&(before, id));
            state.ends.insert((end, id));
            Settled::Ok
        };
        let told = receipts.iter().map(&mut extend).collect();
        drop(state);
        self.earlier.notify_one();
        told
    }

    /// Ends leases. Returns what came of each receipt, and what is to be settled where.
    pub(crate) fn settle(
        &self,
        receipts: &[String],
        bearer: Bearer<'_>,
        outcome: Outcome,
        note: Option<&Note>,
    ) -> (Vec<Settled>, Settlements) {
        let mut settlements = Settlements::default();
        let mut state = self.state.lock();
        let mut end = |receipt: &String| {
            let Some(id) = self.signer.read(receipt, bearer) else { return Settled::Unknown };
            let Some(lease) = state.take(id) else { return Settled::Expired };
            settlements.add(lease, outcome, note);
            Settled::Ok
        };
        (receipts.iter().map(&mut end).collect(), settlements)
    }

    /// Gives everything back; the server stops.
    pub(crate) fn close(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        drop(state);
        self.earlier.notify_one();
    }

    /// Ends what is over, and returns how long nothing else is; `None` when there is nothing left.
    fn look(&self) -> Option<Duration> {
        let now = clock::now().instant;
        let mut state = self.state.lock();
        let mut settlements = Settlements::default();
        while let Some((end, id)) = state.ends.first().copied()
            && end <= now
        {
            match state.take(id) {
                Some(lease) => settlements.add(lease, Outcome::Failed, None),
                None => {
                    state.ends.pop_first();
                }
            }
        }
        let idle = state.let_holders_go(now);
        let next = state.ends.first().map(|(end, _)| end.saturating_duration_since(now));
        state.is_watched = !state.holders.is_empty() || next.is_some();
        let is_watched = state.is_watched;
        drop(state);
        // Both talk to the broker, which is nothing to be done under the lock.
        settlements.send();
        drop(idle);
        is_watched.then(|| next.map_or(LOOK_EVERY, |next| next.min(LOOK_EVERY)))
    }
}

impl State {
    fn take(&mut self, id: u64) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.ends.remove(&(lease.end, id));
        if let Some(count) = self.counts.get_mut(&lease.place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&lease.place);
            }
        }
        Some(lease)
    }

    /// Takes out the holders that have ended, or that nobody has used for a while.
    fn let_holders_go(&mut self, now: Instant) -> Vec<Arc<Holder>> {
        let mut gone = Vec::new();
        self.holders.retain(|_, holder| {
            // Each lease and each call holds another reference.
            let is_unused = Arc::strong_count(holder) == 1
                && now.saturating_duration_since(*holder.used.lock()) >= HOLDER_IDLE;
            let goes = is_unused || holder.client.ended().is_some_and(|ended| !ended.shutdown);
            if goes {
                gone.push(Arc::clone(holder));
            }
            !goes
        });
        if gone.iter().any(|holder| Arc::strong_count(holder) > 1) {
            let of_gone = |lease: &Lease| gone.iter().any(|one| Arc::ptr_eq(one, &lease.holder));
            let lost: Vec<_> =
                self.leases.iter().filter(|(_, lease)| of_gone(lease)).map(|(id, _)| *id).collect();
            for id in lost {
                self.take(id);
            }
        }
        gone
    }
}

/// Ends leases in time, as long as there are any.
async fn watch(leases: Arc<Leases>) {
    while let Some(next) = leases.look() {
        // Whether the time is over or another has come first: both are a reason to look.
        let _ = timeout(next, leases.earlier.notified()).await;
    }
}

/// What is to be told to the broker, by client.
#[derive(Default)]
pub(crate) struct Settlements(Vec<(Arc<Holder>, Vec<Settlement>)>);

impl Settlements {
    fn add(&mut self, lease: Lease, outcome: Outcome, note: Option<&Note>) {
        let place = self.0.iter().position(|(holder, _)| Arc::ptr_eq(holder, &lease.holder));
        let place = place.unwrap_or_else(|| {
            self.0.push((Arc::clone(&lease.holder), Vec::new()));
            self.0.len() - 1
        });
        let Some((_, settlements)) = self.0.get_mut(place) else { return };
        // Most receipts come back in the order in which they were given out.
        if let Some(last) = settlements.last_mut()
            && last.consumer == lease.consumer
            && last.deliveries.last + 1 == lease.number
        {
            last.deliveries.last = lease.number;
            return;
        }
        let deliveries = DeliveryRange { first: lease.number, last: lease.number };
        let note = note.cloned().map(Box::new);
        settlements.push(Settlement { consumer: lease.consumer, deliveries, outcome, note });
    }

    /// Tells the broker.
    pub(crate) fn send(self) {
        for (holder, settlements) in self.0 {
            holder.client.settle(settlements);
        }
    }

    /// Tells the broker, and waits until the disk has it.
    ///
    /// Errors: the store did not say so.
    pub(crate) async fn send_and_store(self) -> Result<(), Problem> {
        for (holder, settlements) in self.0 {
            let stored = holder.client.settle_stored(settlements).await;
            stored.map_err(|refusal| Problem::refused(&refusal, "queue"))?;
        }
        Ok(())
    }
}

fn place(bearer: Bearer<'_>) -> Result<Place, Problem> {
    let user = UserName::new(bearer.user);
    let user = user.map_err(|bad| Problem::bad("bad_name", bad.to_string()))?;
    Ok((user, bearer.vhost.into(), bearer.queue.into()))
}

fn holder_key(shown: &Shown, peer: &Peer, vhost: &str) -> HolderKey {
    let mut text = vhost.as_bytes().to_vec();
    // No name of a virtual host and no header holds these bytes.
    let (kind, shown) = match shown {
        Shown::Header(value) => (0xff, value.as_bytes()),
        Shown::Certificate => {
            (0xfe, identity::certificate_user(peer).unwrap_or_default().as_bytes())
        }
        Shown::Session(id, _) => (0xfd, id.as_bytes()),
        Shown::Local => (0xfc, [].as_slice()),
    };
    text.push(kind);
    text.extend_from_slice(shown);
    let digest = digest::digest(&digest::SHA256, &text);
    let mut key = HolderKey::default();
    key.copy_from_slice(digest.as_ref());
    key
}

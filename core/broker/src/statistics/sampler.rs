//! Takes the samples, while somebody wants them.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use polymq_model::{Now, VhostName};

use super::{Sample, Span, Tiers, ring::SAMPLE_EVERY_MS};
use crate::{BrokerHandle, core::Core, vhost::Vhost};

/// How long samples are taken after the last question, in ms.
const WATCHED_MS: u64 = 5 * 60 * 1000;
/// Samples kept of a queue, an exchange, a channel or a connection: ten minutes, or fewer while
/// many of them move.
const KEPT: usize = 121;
/// Samples kept of all of them together: about 16 MiB.
const KEPT_OF_ALL: u64 = 121_000;

/// Bytes received from and sent to the clients that are connected, by virtual host.
type OpenTraffic = HashMap<VhostName, (u64, u64)>;

/// When samples are taken, and those of the whole broker.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    /// When somebody last asked, in ms since 1970; 0 when nothing is kept.
    asked_ms: AtomicU64,
    /// When samples were last taken.
    taken_ms: AtomicU64,
    /// How many objects moved then.
    moving: AtomicU64,
    /// One at a time takes samples.
    taking: Mutex<()>,
    totals: Mutex<Tiers>,
}

impl BrokerHandle {
    /// Somebody wants to see rates: samples are taken for some minutes. The first question takes
    /// one at once, for as long as it takes to look at every queue.
    pub fn watch(&self, now: Now) {
        let sampling = &self.0.sampling;
        if sampling.asked_ms.swap(now.unix_ms, Ordering::Relaxed) == 0 {
            self.0.take_samples(now.unix_ms);
        }
    }

    /// Milliseconds between two calls of [`BrokerHandle::take_samples`].
    pub fn sample_every_ms(&self) -> u64 {
        SAMPLE_EVERY_MS
    }

    /// Takes samples if somebody has asked lately. Looks at every connection and exchange, and at
    /// the queues that change, so call it on a thread that may be busy for some milliseconds.
    pub fn take_samples(&self, now: Now) {
        let sampling = &self.0.sampling;
        let asked_ms = sampling.asked_ms.load(Ordering::Relaxed);
        if asked_ms == 0 {
            return;
        }
        if now.unix_ms.saturating_sub(asked_ms) <= WATCHED_MS {
            return self.0.take_samples(now.unix_ms);
        }
        sampling.asked_ms.store(0, Ordering::Relaxed);
        self.0.forget_samples();
    }

    /// Begins anew: rates come with the second sample after the next question.
    pub fn forget_samples(&self) {
        self.0.sampling.asked_ms.store(0, Ordering::Relaxed);
        self.0.forget_samples();
    }

    /// Everything that there is in the virtual hosts that somebody sees.
    ///
    /// Cost: proportional to the connections, the exchanges, and the queues that have changed since
    /// the last call. Holds the lock of one queue at a time.
    pub fn summary(&self, mut sees: impl FnMut(&VhostName) -> bool) -> Summary {
        let mut summary = Summary::default();
        let traffic = self.0.open_traffic();
        for vhost in self.0.all_vhosts() {
            if sees(&vhost.name) {
                vhost.add_to(&mut summary, &traffic);
            } else {
                summary.is_part = true;
            }
        }
        if !summary.is_part {
            summary.sample.add(&self.0.retired_sample());
        }
        summary
    }

    /// What has happened in the whole broker, and samples of it.
    pub fn totals(&self, span: Option<Span>) -> (Sample, Vec<Sample>) {
        (self.summary(|_| true).sample, self.recent_totals(span))
    }

    /// Samples of the whole broker, oldest first.
    pub fn recent_totals(&self, span: Option<Span>) -> Vec<Sample> {
        self.0.sampling.totals.lock().pick(span)
    }
}

/// What there is in the broker, or in some of its virtual hosts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// What has happened, and the messages in queues.
    pub sample: Sample,
    /// Queues.
    pub queues: u64,
    /// Those of type quorum.
    pub quorum_queues: u64,
    /// Exchanges, those that every virtual host has included.
    pub exchanges: u64,
    /// Consumers of queues.
    pub consumers: u64,
    /// Bytes of the bodies of ready messages.
    pub bytes: u64,
    /// Ready messages in memory.
    pub in_memory: u64,
    /// Virtual hosts were left out, so it is not the whole broker.
    pub is_part: bool,
}

impl Core {
    /// What has happened that no virtual host counts any more, or ever has.
    fn retired_sample(&self) -> Sample {
        let mut activity = self.retired.read();
        activity.delivered_no_ack += self.counters.total.delivered_direct.load(Ordering::Relaxed);
        let (bytes_in, bytes_out) = self.retired_traffic.read();
        Sample { activity, bytes_in, bytes_out, ..Sample::default() }
    }

    /// What has gone over the connections that are open.
    fn open_traffic(&self) -> OpenTraffic {
        let mut sums = OpenTraffic::new();
        for record in self.connections.lock().values() {
            let Some(vhost) = &record.vhost else { continue };
            let counts = record.outbox.traffic().counts();
            let (bytes_in, bytes_out) = (counts.bytes_in, counts.bytes_out);
            match sums.get_mut(vhost) {
                Some(sum) => *sum = (sum.0 + bytes_in, sum.1 + bytes_out),
                None => drop(sums.insert(vhost.clone(), (bytes_in, bytes_out))),
            }
        }
        sums
    }

    /// The numbers of a virtual host.
    pub(crate) fn vhost_sample(&self, vhost: &Vhost) -> Sample {
        let mut summary = Summary::default();
        vhost.add_to(&mut summary, &self.open_traffic());
        summary.sample
    }

    fn take_samples(&self, now_ms: u64) {
        let Some(_only) = self.sampling.taking.try_lock() else { return };
        let before_ms = self.sampling.taken_ms.load(Ordering::Relaxed);
        if before_ms >= now_ms {
            return;
        }
        let kept = kept_of(self.sampling.moving.load(Ordering::Relaxed));
        let mut moving = 0;
        let mut total = Sample { at_ms: now_ms, ..self.retired_sample() };
        for connection in self.connection_facts() {
            moving += connection.take_sample(now_ms, kept);
        }
        let traffic = self.open_traffic();
        for vhost in self.all_vhosts() {
            let (sample, moved) = vhost.take_samples(now_ms, before_ms, kept, &traffic);
            moving += moved;
            total.add(&sample);
        }
        self.sampling.taken_ms.store(now_ms, Ordering::Relaxed);
        self.sampling.moving.store(moving, Ordering::Relaxed);
        self.sampling.totals.lock().push(total);
    }

    fn forget_samples(&self) {
        self.sampling.totals.lock().clear();
        for connection in self.connection_facts() {
            connection.forget_samples();
        }
        for vhost in self.all_vhosts() {
            vhost.history.lock().clear();
            vhost.queue_names.forget();
            vhost.queue_sums.forget_samples();
            let topology = vhost.topology.load_full();
            topology.queues.values().for_each(|queue| queue.history.lock().clear());
            topology.default_exchange.history.lock().clear();
            let exchanges = topology.exchanges.values();
            exchanges.for_each(|exchange| exchange.statistics.history.lock().clear());
        }
    }
}

/// Samples kept of one object while so many move.
fn kept_of(moving: u64) -> usize {
    usize::try_from(KEPT_OF_ALL / moving.max(1)).unwrap_or(KEPT).clamp(2, KEPT)
}

impl Sample {
    fn add(&mut self, other: &Self) {
        self.activity += other.activity;
        self.ready += other.ready;
        self.unsettled += other.unsettled;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

impl Vhost {
    /// What clients have published through exchanges, and what else was counted here.
    fn own_sample(&self, at_ms: u64, traffic: &OpenTraffic) -> Sample {
        let mut activity = self.activity.read();
        let topology = self.topology.load_full();
        let exchanges = topology.exchanges.values().map(|exchange| &exchange.statistics);
        for exchange in exchanges.chain([&topology.default_exchange]) {
            activity += exchange.counters.read();
        }
        let (bytes_in, bytes_out) = traffic.get(&self.name).copied().unwrap_or_default();
        let (past_in, past_out) = self.past_traffic.read();
        Sample {
            at_ms,
            activity,
            bytes_in: bytes_in + past_in,
            bytes_out: bytes_out + past_out,
            ..Sample::default()
        }
    }

    fn add_to(&self, summary: &mut Summary, traffic: &OpenTraffic) {
        self.queue_sums.read(|queues| {
            // Together, because what was counted for a queue that goes moves from there to here.
            summary.sample.add(&self.own_sample(0, traffic));
            summary.sample.add(&queues.sample());
            summary.consumers += queues.consumers;
            summary.bytes += queues.bytes;
            summary.in_memory += queues.in_memory;
        });
        let topology = self.topology.load_full();
        summary.queues += topology.queues.len() as u64;
        summary.quorum_queues += topology.quorum_queues;
        // The one without a name is none of the map's.
        summary.exchanges += topology.exchanges.len() as u64 + 1;
    }

    /// Takes the samples of everything in here; returns that of the whole and how many objects
    /// move.
    fn take_samples(
        &self,
        now_ms: u64,
        before_ms: u64,
        kept: usize,
        traffic: &OpenTraffic,
    ) -> (Sample, u64) {
        let sum = self.queue_sums.read(|queues| {
            let mut sum = self.own_sample(now_ms, traffic);
            sum.add(&queues.sample());
            sum
        });
        let topology = self.topology.load_full();
        let queues = topology.queues.values().cloned();
        let mut moving = self.queue_sums.take_samples(queues, now_ms, before_ms, kept);
        self.sampled_ms.store(now_ms, Ordering::Relaxed);
        let exchanges = topology.exchanges.values().map(|exchange| &exchange.statistics);
        for exchange in exchanges.chain([&topology.default_exchange]) {
            let activity = exchange.counters.read();
            let mut history = exchange.history.lock();
            history.push(Sample { at_ms: now_ms, activity, ..Sample::default() }, kept);
            moving += u64::from(history.is_moving());
        }
        self.history.lock().push(sum);
        (sum, moving)
    }
}

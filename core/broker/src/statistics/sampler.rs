//! Takes the samples, while somebody wants them.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use polymq_model::Now;

use super::{Activity, Sample, Span, Tiers, ring::SAMPLE_EVERY_MS};
use crate::{BrokerHandle, core::Core, vhost::Vhost};

/// How long samples are taken after the last question, in ms.
const WATCHED_MS: u64 = 5 * 60 * 1000;
/// Samples kept of a queue, an exchange, a channel or a connection: ten minutes.
const KEPT: usize = 121;
/// The same while many of them move.
const KEPT_OF_MANY: usize = 13;
/// So many that move are many.
const MANY: u64 = 1000;

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

    /// Takes samples if somebody has asked lately. Looks at every queue and connection, so call it
    /// on a thread that may be busy for some milliseconds.
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

    /// What has happened in the whole broker, and samples of it.
    pub fn totals(&self, span: Option<Span>) -> (Sample, Vec<Sample>) {
        let now = self.0.sample();
        (now, self.0.sampling.totals.lock().pick(span))
    }
}

impl Core {
    /// The numbers of the whole broker.
    fn sample(&self) -> Sample {
        let mut sum = Sample { activity: self.retired.read(), ..Sample::default() };
        sum.activity.delivered_no_ack +=
            self.counters.total.delivered_direct.load(Ordering::Relaxed);
        for vhost in self.all_vhosts() {
            sum.add(&vhost.sample());
        }
        sum
    }

    fn take_samples(&self, now_ms: u64) {
        let Some(_only) = self.sampling.taking.try_lock() else { return };
        if self.sampling.taken_ms.swap(now_ms, Ordering::Relaxed) >= now_ms {
            return;
        }
        let is_many = self.sampling.moving.load(Ordering::Relaxed) > MANY;
        let kept = if is_many { KEPT_OF_MANY } else { KEPT };
        let mut moving = 0;
        let mut total =
            Sample { at_ms: now_ms, activity: self.retired.read(), ..Sample::default() };
        total.activity.delivered_no_ack +=
            self.counters.total.delivered_direct.load(Ordering::Relaxed);
        for connection in self.connection_facts() {
            moving += connection.take_sample(now_ms, kept);
        }
        for vhost in self.all_vhosts() {
            let (sample, moved) = vhost.take_samples(now_ms, kept);
            moving += moved;
            total.add(&sample);
        }
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
            let topology = vhost.topology.load_full();
            topology.queues.values().for_each(|queue| queue.history.lock().clear());
            topology.default_exchange.history.lock().clear();
            let exchanges = topology.exchanges.values();
            exchanges.for_each(|exchange| exchange.statistics.history.lock().clear());
        }
    }
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
    fn own_sample(&self, at_ms: u64) -> Sample {
        let mut activity = self.activity.read();
        let topology = self.topology.load_full();
        let exchanges = topology.exchanges.values().map(|exchange| &exchange.statistics);
        for exchange in exchanges.chain([&topology.default_exchange]) {
            activity += exchange.counters.read();
        }
        Sample { at_ms, activity, ..Sample::default() }
    }

    /// Adds what has left a queue. What came into it was counted by an exchange.
    fn add_queue(sum: &mut Sample, queue: &Sample) {
        let activity = Activity { published: 0, ..queue.activity };
        sum.add(&Sample { activity, ..*queue });
    }

    /// The numbers of the virtual host.
    pub(crate) fn sample(&self) -> Sample {
        let mut sum = self.own_sample(0);
        for queue in self.topology.load_full().queues.values() {
            Self::add_queue(&mut sum, &queue.sample(0));
        }
        sum
    }

    /// Takes the samples of everything in here; returns that of the whole and how many objects
    /// move.
    fn take_samples(&self, now_ms: u64, kept: usize) -> (Sample, u64) {
        let mut sum = self.own_sample(now_ms);
        let mut moving = 0;
        let topology = self.topology.load_full();
        for queue in topology.queues.values() {
            let sample = queue.sample(now_ms);
            Self::add_queue(&mut sum, &sample);
            let mut history = queue.history.lock();
            history.push(sample, kept);
            moving += u64::from(history.is_moving());
        }
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

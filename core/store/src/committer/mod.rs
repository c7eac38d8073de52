//! Groups what many publishers write into few batches: while one is being written, the next fills.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use parking_lot::Mutex;

use crate::{
    Batch, BatchWriter, Capabilities, Close, Durability, Epoch, LogId, MessageRef, Opened, Outcome,
    Page, ReadLimit, Reply, Seq, ShardBatch, ShardId, Store, StoreError,
};

mod answers;
mod parts;
mod refused;
mod stats;
#[cfg(test)]
mod tests;
mod together;

use answers::{Answers, Done};
use parts::{InFlight, Inner, Open, Sealed, Unanswered};
use refused::RefusedBatches;
pub use stats::{CommitStats, SYNC_BUCKETS_NANOS};
pub use together::Together;

/// The room of a new buffer.
const BUFFER_BYTES: usize = 64 * 1024;
/// A larger buffer is given back to the allocator after its batch.
const BUFFER_KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

type Hook = OnceLock<Box<dyn Fn() + Send + Sync>>;

/// The only thing the broker writes to.
///
/// Records of all queues go into one open batch; one batch is in flight. The answer of the engine
/// submits the next, when somebody asked for it with [`kick`](Self::kick).
///
/// When the engine refuses a batch because it is full or read-only, everybody who waits for it is
/// told so, its messages are dropped, and its other records (acknowledgements, definitions) are
/// kept and submitted again with the next kick: what was refused is never confirmed later, and the
/// broker's logs and definitions stay those of the store. Messages that were appended
/// [`together`](Self::together) with other records are kept as well, because those may have taken
/// them from another place.
pub struct Committer {
    me: Weak<Committer>,
    store: Arc<dyn Store>,
    shard: ShardId,
    epoch: Epoch,
    inner: Mutex<Inner>,
    answers: Answers,
    durable: AtomicU64,
    dirty: AtomicBool,
    is_refused: AtomicBool,
    pending_bytes: AtomicUsize,
    on_dirty: Hook,
    on_answered: Hook,
    clock: OnceLock<fn() -> u64>,
    capabilities: Capabilities,
}

impl Committer {
    /// Continues after the last batch of `opened`.
    pub fn new(store: Arc<dyn Store>, shard: ShardId, opened: &Opened) -> Arc<Self> {
        let open = Open {
            number: opened.last_batch.next(),
            buf: BytesMut::with_capacity(BUFFER_BYTES),
            records: 0,
            wanted: Durability::Memory,
            waiting: Vec::new(),
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            capabilities: store.capabilities(),
            store,
            shard,
            epoch: opened.epoch,
            inner: Mutex::new(Inner {
                open,
                parked: VecDeque::new(),
                in_flight: None,
                wanted: false,
                held_open: 0,
                submitting: false,
                refused: RefusedBatches::default(),
                failed: None,
                closing: None,
                spare: None,
                stats: CommitStats::default(),
            }),
            answers: Answers::default(),
            durable: AtomicU64::new(opened.last_batch.0),
            dirty: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            pending_bytes: AtomicUsize::new(0),
            on_dirty: OnceLock::new(),
            on_answered: OnceLock::new(),
            clock: OnceLock::new(),
        })
    }

    /// Runs `write` on the open batch under one short lock; returns the number of the batch that
    /// holds what was written. Never blocks on I/O. The batch is synced.
    ///
    /// When `write` writes nothing the answer is the last batch that holds anything. Whoever
    /// wants it written soon calls [`kick`](Self::kick).
    pub fn append<R>(&self, write: impl FnOnce(&mut BatchWriter<'_>) -> R) -> (ShardBatch, R) {
        self.append_as(Durability::Sync, write)
    }

    /// As [`append`](Self::append), for what may be kept less well. The batch is kept as the
    /// strictest of its records wants.
    pub fn append_as<R>(
        &self,
        durability: Durability,
        write: impl FnOnce(&mut BatchWriter<'_>) -> R,
    ) -> (ShardBatch, R) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let open = &mut inner.open;
        let (records_before, bytes_before) = (open.records, open.buf.len());
        let mut writer = BatchWriter::new(open.number, &mut open.buf, &mut open.records);
        if inner.held_open > 0 {
            writer = writer.depended_on();
        }
        let result = write(&mut writer);
        if open.records == 0 {
            return (ShardBatch(open.number.0.saturating_sub(1)), result);
        }
        let number = open.number;
        if open.records > records_before {
            open.wanted = open.wanted.stronger(durability);
        }
        if inner.failed.is_some() {
            open.buf.clear();
            open.records = 0;
            return (number, result);
        }
        self.pending_bytes.fetch_add(open.buf.len() - bytes_before, Ordering::Relaxed);
        let became_dirty = records_before == 0;
        if became_dirty {
            self.dirty.store(true, Ordering::Release);
        }
        drop(guard);
        if became_dirty && let Some(hook) = self.on_dirty.get() {
            hook();
        }
        (number, result)
    }

    /// Submits the open batch now if nothing is in flight; else it goes when the one in flight
    /// has answered. Cheap when there is nothing to do.
    pub fn kick(&self) {
        if self.is_dirty() {
            self.inner.lock().wanted = true;
            self.advance();
        }
    }

    /// Calls `done` once `batch` is durable, or with the error.
    ///
    /// Callbacks run one after another: those that wait in the order of their batches, within a
    /// batch in the order of registration. For a batch that is durable already `done` runs at
    /// once on this thread; while other callbacks run, right after them. A callback may call
    /// every method of the committer.
    pub fn when_durable(
        &self,
        batch: ShardBatch,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let done: Done = Box::new(done);
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if let Some(error) = inner.refused.of(batch) {
            self.answers.push(done, Err(error));
        } else if batch.0 <= self.durable.load(Ordering::Acquire) {
            self.answers.push(done, Ok(()));
        } else if let Some(error) = &inner.failed {
            self.answers.push(done, Err(error.clone()));
        } else if let Some(flight) = inner.in_flight.as_mut().filter(|f| f.batch.number >= batch) {
            flight.waiting.push(done);
            return;
        } else {
            inner.open.waiting.push(done);
            return;
        }
        drop(guard);
        self.answers.run();
    }

    /// Reads messages of a log from `from` upwards, up to what is durable. The answer may come at
    /// once, on this thread.
    pub fn read(&self, log: LogId, from: Seq, limit: ReadLimit, reply: Reply<Page>) {
        self.store.read(log, from, limit, reply);
    }

    /// How well the engine keeps what is wanted so; a batch that also holds stricter records is
    /// kept, and waited for, as those are.
    pub fn kept(&self, wanted: Durability) -> Durability {
        self.capabilities.kept(wanted)
    }

    /// Reads these messages, as far as they are durable and live. The answer may come at once, on
    /// this thread.
    pub fn read_at(&self, messages: &[MessageRef], reply: Reply<Page>) {
        self.store.read_at(messages, reply);
    }

    /// The last batch that is durable.
    pub fn durable(&self) -> ShardBatch {
        ShardBatch(self.durable.load(Ordering::Acquire))
    }

    /// True when something is appended and not yet submitted.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Calls `hook` when the open batch goes from empty to non-empty; the first hook stays.
    ///
    /// It runs on the appending thread, possibly under a queue's lock: set a flag, wake a timer.
    pub fn set_on_dirty(&self, hook: Box<dyn Fn() + Send + Sync>) {
        let _ = self.on_dirty.set(hook);
    }

    /// Calls `hook` instead of running callbacks on the engine's thread; the first hook stays.
    ///
    /// Some thread must then call [`run_callbacks`](Self::run_callbacks) soon. It keeps the
    /// thread that writes the log free for the next batch.
    pub fn set_on_answered(&self, hook: Box<dyn Fn() + Send + Sync>) {
        let _ = self.on_answered.set(hook);
    }

    /// Runs the callbacks whose batches have answered.
    pub fn run_callbacks(&self) {
        self.answers.run();
    }

    /// A clock in nanoseconds for [`stats`](Self::stats); without it times stay 0.
    pub fn set_clock(&self, clock: fn() -> u64) {
        let _ = self.clock.set(clock);
    }

    /// Bytes that are open, parked or in flight.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// Why the shard cannot be written to any more.
    pub fn failed(&self) -> Option<StoreError> {
        self.inner.lock().failed.clone()
    }

    /// Counters for metrics.
    pub fn stats(&self) -> CommitStats {
        let inner = self.inner.lock();
        let mut stats = inner.stats.clone();
        let flight = inner.in_flight.as_ref();
        stats.unanswered_nanos = flight.map_or(0, |flight| self.since(flight.started_nanos));
        stats.callback_panics = self.answers.panics();
        stats
    }

    /// Has the open batch synced, whatever its records want: somebody waits for it who was promised
    /// that.
    pub fn want_sync(&self) {
        self.inner.lock().open.wanted = Durability::Sync;
    }

    /// Submits and waits for everything, then closes the store with a mark of a clean stop.
    ///
    /// What is appended later is not written, and its callbacks get [`StoreError::Closed`].
    pub fn close(&self, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        {
            let mut inner = self.inner.lock();
            if inner.closing.is_some() || inner.failed == Some(StoreError::Closed) {
                self.answers.push(Box::new(done), Err(StoreError::Closed));
            } else {
                inner.closing = Some(Box::new(done));
                inner.wanted = true;
            }
        }
        self.answers.run();
        self.advance();
    }

    /// Does whatever can be done now: submits what is wanted, closes when that was all.
    fn advance(&self) {
        self.submit_wanted();
        self.close_when_done();
    }

    /// Submits batches as long as one is wanted and none is in flight. An engine that answers on
    /// this thread is served by the loop, not by recursion.
    fn submit_wanted(&self) {
        loop {
            let mut guard = self.inner.lock();
            let inner = &mut *guard;
            if inner.submitting || inner.in_flight.is_some() || !inner.wanted {
                return;
            }
            let Some(batch) = self.take_next(inner) else { return };
            inner.submitting = true;
            drop(guard);
            self.submit(batch);
            self.inner.lock().submitting = false;
        }
    }

    fn take_next(&self, inner: &mut Inner) -> Option<Batch> {
        let (sealed, waiting) = match inner.parked.pop_front() {
            Some(parked) => (parked, Vec::new()),
            None if inner.held_open > 0 && inner.open.records > 0 => return None,
            None if inner.open.records > 0 && inner.failed.is_none() => self.seal_open(inner),
            None => {
                inner.wanted = false;
                return None;
            }
        };
        inner.wanted = inner.closing.is_some() || (inner.wanted && self.is_dirty_locked(inner));
        let batch = self.batch_of(&sealed);
        let started_nanos = self.nanos();
        inner.in_flight = Some(InFlight { batch: sealed, waiting, started_nanos });
        Some(batch)
    }

    fn is_dirty_locked(&self, inner: &Inner) -> bool {
        let is_dirty = inner.open.records > 0 || !inner.parked.is_empty();
        self.dirty.store(is_dirty, Ordering::Release);
        is_dirty
    }

    fn seal_open(&self, inner: &mut Inner) -> (Sealed, Vec<Done>) {
        let empty = inner.spare.take().unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES));
        let open = &mut inner.open;
        let payload = std::mem::replace(&mut open.buf, empty).freeze();
        let wanted = std::mem::replace(&mut open.wanted, Durability::Memory);
        let sealed = Sealed { number: open.number, payload, records: open.records, wanted };
        open.number = open.number.next();
        open.records = 0;
        (sealed, std::mem::take(&mut open.waiting))
    }

    fn batch_of(&self, sealed: &Sealed) -> Batch {
        Batch {
            shard: self.shard,
            epoch: self.epoch,
            number: sealed.number,
            records: sealed.records,
            payload: sealed.payload.clone(),
        }
    }

    /// How well the batch in flight is to be kept.
    fn wanted(&self) -> Durability {
        self.inner.lock().in_flight.as_ref().map_or(Durability::Sync, |f| f.batch.wanted)
    }

    fn submit(&self, batch: Batch) {
        let wanted = self.wanted();
        let unanswered = Unanswered { committer: self.me.upgrade(), number: batch.number };
        let reply = Box::new(move |result| unanswered.answer(result));
        self.store.submit(batch, wanted, reply);
    }

    fn answered(&self, number: ShardBatch, result: Result<ShardBatch, StoreError>) {
        {
            let mut guard = self.inner.lock();
            let inner = &mut *guard;
            let Some(flight) = inner.in_flight.take_if(|f| f.batch.number == number) else {
                return;
            };
            match result {
                Ok(_) => self.written(inner, flight),
                Err(error) if error.is_refusal() => self.refuse(inner, flight, &error),
                Err(StoreError::Unknown) => {
                    inner.in_flight = Some(flight);
                    drop(guard);
                    return self.ask_outcome(number);
                }
                Err(error) => self.fail(inner, flight.waiting, &error),
            }
        }
        self.advance();
        match self.on_answered.get() {
            Some(hook) => hook(),
            None => self.answers.run(),
        }
    }

    fn written(&self, inner: &mut Inner, flight: InFlight) {
        let bytes = flight.batch.payload.len();
        self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.is_refused.store(!inner.parked.is_empty(), Ordering::Relaxed);
        inner.stats.written(flight.batch.records, bytes, self.since(flight.started_nanos));
        self.durable.store(flight.batch.number.0, Ordering::Release);
        for done in flight.waiting {
            self.answers.push(done, Ok(()));
        }
        // The engine has let go of the payload by now, so its buffer serves the next batch.
        if inner.spare.is_none()
            && let Ok(mut buf) = flight.batch.payload.try_into_mut()
            && buf.capacity() <= BUFFER_KEPT_BYTES_MAX
        {
            buf.clear();
            inner.spare = Some(buf);
        }
    }

    /// Nothing can be written any more.
    fn fail(&self, inner: &mut Inner, waiting: Vec<Done>, error: &StoreError) {
        inner.failed = Some(error.clone());
        inner.wanted = false;
        inner.parked.clear();
        inner.open.buf.clear();
        inner.open.records = 0;
        let open_waiting = std::mem::take(&mut inner.open.waiting);
        for done in waiting.into_iter().chain(open_waiting) {
            self.answers.push(done, Err(error.clone()));
        }
        self.pending_bytes.store(0, Ordering::Relaxed);
        self.is_dirty_locked(inner);
    }

    fn ask_outcome(&self, number: ShardBatch) {
        let Some(me) = self.me.upgrade() else { return };
        let reply = Box::new(move |outcome| match outcome {
            Ok(Outcome::Committed) => me.answered(number, Ok(number)),
            Ok(Outcome::Fenced) => me.answered(number, Err(StoreError::Fenced)),
            Ok(Outcome::NotCommitted) => {
                let again = {
                    let inner = me.inner.lock();
                    inner.in_flight.as_ref().map(|flight| me.batch_of(&flight.batch))
                };
                if let Some(batch) = again {
                    me.submit(batch);
                }
            }
            // Asking for ever would hide that nothing is being confirmed.
            Err(error) => {
                let why = format!("the outcome of batch {number} stays unknown: {error}");
                me.answered(number, Err(StoreError::Fatal(why.into())));
            }
        });
        self.store.outcome(self.shard, number, reply);
    }

    fn close_when_done(&self) {
        let (done, failed) = {
            let mut guard = self.inner.lock();
            let inner = &mut *guard;
            let is_busy = inner.in_flight.is_some() || self.is_dirty_locked(inner);
            if inner.submitting || is_busy {
                return;
            }
            let Some(done) = inner.closing.take() else { return };
            let failed = inner.failed.replace(StoreError::Closed);
            (done, failed)
        };
        let how = if failed.is_some() { Close::Abandon } else { Close::Clean };
        let Some(me) = self.me.upgrade() else { return };
        let reply = Box::new(move |result: Result<(), StoreError>| {
            me.answers.push(done, failed.map_or(result, Err));
            me.answers.run();
        });
        self.store.close(how, reply);
    }

    fn nanos(&self) -> u64 {
        self.clock.get().map_or(0, |clock| clock())
    }

    fn since(&self, started_nanos: u64) -> u64 {
        self.nanos().saturating_sub(started_nanos)
    }
}

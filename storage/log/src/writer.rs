//! The thread that writes: one command at a time.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use polymq_store::{
    Batch, Close, Durability, Health, Opened, Outcome, OwnerId, Reply, ShardBatch, StoreError,
};

use crate::{
    clock::Clock,
    config::LogConfig,
    core::{Backlog, LogCore},
    disk::Disk,
    error::Failure,
    flush_thread::FlushThread,
    place::Shared,
    preparer::Preparer,
    scrub::Scrub,
};

pub(crate) enum Command {
    Open(OwnerId, Reply<Opened>),
    Submit(Batch, Durability, Reply<ShardBatch>),
    Outcome(ShardBatch, Reply<Outcome>),
    Close(Close, Reply<()>),
}

/// What other threads see of the writer.
pub(crate) struct Status {
    pub(crate) health: Mutex<Health>,
    /// When a batch was refused for want of room.
    pub(crate) full_at: Mutex<Option<Instant>>,
    /// Present while the store is open.
    pub(crate) shared: Mutex<Option<Arc<Mutex<Shared>>>>,
    pub(crate) on_fatal: Mutex<Option<OnFatal>>,
}

/// How long an answer is delayed when flushing begins to fall behind.
const SLOWED: Duration = Duration::from_millis(5);
/// How long it waits for one step when flushing is too far behind.
const WAITS: Duration = Duration::from_millis(200);

impl Status {
    /// Says that nobody knows what the disk holds, which may end the process.
    pub(crate) fn fail(&self, why: &str) {
        *self.health.lock() = Health::Failed(why.to_owned());
        let on_fatal = self.on_fatal.lock().take();
        if let Some(on_fatal) = on_fatal {
            tracing::error!(
                event = "store_ended", %why,
                "the store failed; the next start decides what was kept"
            );
            on_fatal(why);
        }
    }
}

/// Called with the reason before the broker is told; it may end the process.
pub(crate) type OnFatal = Box<dyn FnOnce(&str) + Send>;

pub(crate) struct Writer {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: LogConfig,
    pub(crate) status: Arc<Status>,
    pub(crate) preparer: Preparer,
    pub(crate) core: Option<LogCore>,
    pub(crate) flush: Option<FlushThread>,
    pub(crate) scrub: Option<Scrub>,
    /// The file during which a next one was requested already.
    pub(crate) requested_at: u32,
    /// When the oldest write that is not synced must be.
    pub(crate) sync_by: Option<Instant>,
}

impl Writer {
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        while let Some(command) = self.next(commands) {
            self.execute(command);
            self.prepare_next();
        }
        self.leave();
    }

    /// The next command; meanwhile what was promised to be on the disk by a time is synced.
    fn next(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        while let Some(by) = self.sync_by {
            match commands.recv_timeout(by.saturating_duration_since(Instant::now())) {
                Ok(command) if Instant::now() < by => return Some(command),
                Ok(command) => {
                    self.sync();
                    return Some(command);
                }
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        commands.recv().ok()
    }

    fn sync(&mut self) {
        self.sync_by = None;
        if let Some(core) = &mut self.core {
            let result = core.sync();
            self.note(&result);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Open(me, reply) => {
                let opened = self.open(me);
                reply(opened.map_err(StoreError::from));
            }
            Command::Submit(batch, wanted, reply) => self.submit(batch, wanted, reply),
            Command::Outcome(number, reply) => {
                let last = self.core.as_ref().map(LogCore::last_batch);
                reply(last.ok_or(StoreError::Closed).map(|last| {
                    if number <= last { Outcome::Committed } else { Outcome::NotCommitted }
                }));
            }
            Command::Close(how, reply) => {
                // Nobody else writes the manifest from here on.
                self.flush = None;
                let closed = match (&mut self.core, how) {
                    (None, _) => Err(Failure::Closed),
                    (Some(core), Close::Clean) => core.close_clean(),
                    (Some(_), Close::Abandon) => Ok(()),
                };
                self.leave();
                reply(closed.map_err(StoreError::from));
            }
        }
    }

    fn open(&mut self, me: OwnerId) -> Result<Opened, Failure> {
        self.leave();
        let status = self.status.clone();
        let progress = move |percent| *status.health.lock() = Health::Recovering(percent);
        progress(0);
        let opened =
            LogCore::open(self.disk.clone(), self.clock.clone(), self.config, me, &progress);
        match opened {
            Ok(core) => {
                let opened = core.opened();
                let flush = FlushThread::start(core.flusher.clone(), self.status.clone());
                let flush = flush.map_err(|error| {
                    Failure::Fatal(format!("starting the thread that flushes: {error}"))
                })?;
                flush.wake();
                self.flush = Some(flush);
                let scrub = Scrub::start(core.shared.clone(), self.config);
                self.scrub = scrub.map_err(|error| {
                    Failure::Fatal(format!("starting the thread that scrubs: {error}"))
                })?;
                *self.status.shared.lock() = Some(core.shared.clone());
                *self.status.health.lock() = Health::Ok;
                self.core = Some(core);
                self.requested_at = 0;
                Ok(opened)
            }
            Err(failure) => {
                *self.status.health.lock() = Health::Failed(failure.to_string());
                Err(failure)
            }
        }
    }

    fn submit(&mut self, batch: Batch, wanted: Durability, reply: Reply<ShardBatch>) {
        self.wait_for_flush();
        let Some(core) = &mut self.core else { return reply(Err(StoreError::Closed)) };
        let (number, head) = (batch.number, core.head_number());
        let offered = match self.preparer.take() {
            Some(prepared) => core.offer(prepared),
            None => Ok(()),
        };
        let offered = core.poison(offered);
        let result = offered.and_then(|()| core.commit(&batch, wanted));
        match wanted {
            Durability::SyncInterval { ms } if core.is_unsynced() => {
                let until = Instant::now() + Duration::from_millis(ms.into());
                self.sync_by = Some(self.sync_by.map_or(until, |by| by.min(until)));
            }
            _ if !core.is_unsynced() => self.sync_by = None,
            _ => {}
        }
        let has_work = core.head_number() != head || core.has_garbage();
        if let Some(flush) = self.flush.as_ref().filter(|_| has_work) {
            flush.wake();
        }
        // The committer fills this buffer again when nobody else holds it.
        drop(batch);
        self.note(&result);
        reply(result.map(|()| number).map_err(StoreError::from));
    }

    /// Keeps health true, and ends the process when nobody knows what the disk holds.
    fn note(&mut self, result: &Result<(), Failure>) {
        let is_stuck = self.core.as_ref().is_some_and(LogCore::is_stuck);
        let health = match result {
            Ok(()) if is_stuck => Health::NearFull,
            Ok(()) | Err(Failure::Fenced) => Health::Ok,
            Err(Failure::Full(_)) => {
                *self.status.full_at.lock() = Some(Instant::now());
                Health::NearFull
            }
            Err(failure @ Failure::ReadOnly(_)) => Health::ReadOnly(failure.to_string()),
            Err(failure) => Health::Failed(failure.to_string()),
        };
        *self.status.health.lock() = health;
        if let Err(Failure::Fatal(why)) = result {
            self.status.fail(why);
        }
    }

    /// Delays what is to be written while the log grows faster than it is flushed.
    fn wait_for_flush(&self) {
        let (Some(core), Some(flush)) = (&self.core, &self.flush) else { return };
        loop {
            match core.backlog() {
                Backlog::Small => return,
                Backlog::Large => return flush.wait(SLOWED),
                Backlog::Full => flush.wait(WAITS),
            }
        }
    }

    /// Has the next file of the log prepared in time.
    fn prepare_next(&mut self) {
        let Some(core) = &self.core else { return };
        if core.wants_prepared()
            && !self.preparer.is_under_way()
            && self.requested_at != core.head_number()
            && let Ok(number) = core.take_file_number()
        {
            self.requested_at = core.head_number();
            self.preparer.request(core.home.clone(), number);
        }
    }

    /// Lets go of the directory.
    fn leave(&mut self) {
        *self.status.shared.lock() = None;
        self.flush = None;
        self.scrub = None;
        if let Some(core) = &mut self.core
            && let Some(prepared) = self.preparer.finish()
        {
            core.discard(&prepared);
        }
        self.core = None;
    }
}

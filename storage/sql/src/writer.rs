//! The thread that writes: one command after another, on the one connection that owns the shard.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use polymq_store::{
    Batch, Epoch, FULL_FOR, Health, LogId, Opened, Outcome, OwnerId, Reply, ShardBatch, ShardId,
    StoreError,
};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    time::sleep,
};

use crate::{
    changes::Changes,
    database::{Database, Loaded, Sent, signed},
    failure::Failure,
    logs::ShardLogs,
    reader::Read,
    store::BATCH_BYTES_MAX,
};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often a batch that the database rolled back is sent again.
const AGAIN_MAX: u32 = 100;

pub(crate) enum Command {
    Open(ShardId, OwnerId, Reply<Opened>),
    Submit(Batch, Reply<ShardBatch>),
    Outcome(ShardBatch, Reply<Outcome>),
    Close(Reply<()>),
}

/// What others may see of the writer.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// `None` while the store is closed.
    pub(crate) logs: Mutex<Option<ShardLogs>>,
    condition: Mutex<Condition>,
}

/// How the writer does.
#[derive(Debug, Default)]
struct Condition {
    /// Why nothing can be written now, and whether that may pass.
    problem: Option<Health>,
    /// When something was refused for want of room.
    full_at: Option<Instant>,
    /// After this nobody knows who the owner is.
    trusted_until: Option<Instant>,
}

impl Shared {
    pub(crate) fn health(&self) -> Health {
        let condition = self.condition.lock();
        match &condition.problem {
            Some(problem) => problem.clone(),
            None if condition.trusted_until.is_some_and(|until| until < Instant::now()) => {
                Health::Failed("the database does not answer".to_owned())
            }
            None if condition.full_at.is_some_and(|at| at.elapsed() < FULL_FOR) => Health::NearFull,
            None => Health::Ok,
        }
    }

    fn set_problem(&self, problem: Option<Health>) {
        let mut condition = self.condition.lock();
        if problem == Some(Health::NearFull) {
            condition.full_at = Some(Instant::now());
        }
        condition.problem = problem;
    }

    fn trust_until(&self, until: Option<Instant>) {
        self.condition.lock().trusted_until = until;
    }
}

/// Called once, with the reason, when the process should end.
pub(crate) type OnFatal = Box<dyn FnOnce(&str) + Send>;

pub(crate) struct Writer<D: Database> {
    pub(crate) database: D,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: UnboundedReceiver<Command>,
    pub(crate) reads: UnboundedSender<Read<D::Reader>>,
    pub(crate) on_fatal: Option<OnFatal>,
    pub(crate) epoch: Epoch,
    /// Ended for ever, and why.
    pub(crate) ended: Option<Failure>,
    /// A batch may be kept that `shared` does not know.
    pub(crate) is_behind: bool,
    /// When ownership was last known to be prolonged.
    pub(crate) renewed: Instant,
    /// Where the sweep of which log goes on.
    pub(crate) swept: Option<(LogId, i64)>,
    /// When it goes on after a failure.
    pub(crate) sweeps_after: Option<Instant>,
}

impl<D: Database> Writer<D> {
    /// Serves until the store is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let rest = self.time_to_rest();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.serve(command).await,
                    None => break,
                },
                () = sleep(rest.unwrap_or(Duration::MAX)), if rest.is_some() => self.rest().await,
            }
        }
        if self.is_open() {
            self.shut().await;
        }
    }

    fn is_open(&self) -> bool {
        self.shared.logs.lock().is_some()
    }

    async fn serve(&mut self, command: Command) {
        match command {
            Command::Open(shard, me, reply) => {
                let opened = self.open(shard, me).await;
                reply(opened.map_err(StoreError::from));
            }
            Command::Submit(batch, reply) => {
                let number = batch.number;
                let result = self.submit(&batch).await;
                // The committer fills this buffer again when nobody else holds it.
                drop(batch);
                reply(result.map(|()| number).map_err(StoreError::from));
            }
            Command::Outcome(number, reply) => {
                let outcome = self.outcome(number).await;
                reply(outcome.map_err(StoreError::from));
            }
            Command::Close(reply) => {
                self.shut().await;
                reply(Ok(()));
            }
        }
    }

    async fn open(&mut self, shard: ShardId, me: OwnerId) -> Result<Opened, Failure> {
        if self.is_open() {
            self.shut().await;
        }
        let sent = Instant::now();
        let position = self.database.open(shard, me).await?;
        self.epoch = position.epoch;
        self.ended = None;
        self.is_behind = false;
        self.swept = None;
        self.sweeps_after = None;
        self.renewed_at(sent);
        let Loaded { logs, opened, metas } = self.database.load().await?;
        let opened = Opened {
            epoch: position.epoch,
            last_batch: logs.last_batch,
            next_log: logs.next_log,
            logs: opened,
            metas,
        };
        tracing::info!(
            event = "store_opened",
            epoch = position.epoch.0,
            last_batch = opened.last_batch.0,
            logs = opened.logs.len()
        );
        *self.shared.logs.lock() = Some(logs);
        // It fails only when the reader's thread is gone; then reads answer that themselves.
        let _ = self.reads.send(Read::Use(self.database.reader()));
        Ok(opened)
    }

    async fn submit(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.check()?;
        if batch.epoch != self.epoch {
            return Err(Failure::Fenced);
        }
        if batch.payload.len() as u64 > BATCH_BYTES_MAX {
            return Err(self.failed(Failure::Fatal("a batch is too large".to_owned())));
        }
        if self.is_behind {
            self.catch_up().await?;
        }
        let Some(changes) = self.changes(batch)? else { return Ok(()) };
        for _ in 0..AGAIN_MAX {
            self.connected().await?;
            let sent = Instant::now();
            match self.database.commit(self.epoch, &changes).await {
                Ok(Sent::Kept(removed)) => {
                    if let Some(logs) = self.shared.logs.lock().as_mut() {
                        logs.apply(&changes, &removed);
                    }
                    self.shared.set_problem(self.database.shortage());
                    self.renewed_at(sent);
                    return Ok(());
                }
                Ok(Sent::NotNext) => {
                    // An earlier sending of it may have arrived, or we are the owner no more.
                    self.catch_up().await?;
                    if self.changes(batch)?.is_none() {
                        return Ok(());
                    }
                }
                Err(Failure::Again(why)) => {
                    tracing::warn!(event = "batch_rolled_back", batch = batch.number.0, why);
                    sleep(BACKOFF_MIN).await;
                }
                Err(failure) => {
                    self.is_behind = matches!(failure, Failure::Lost(_));
                    return Err(self.failed(failure));
                }
            }
        }
        Err(self.failed(Failure::Fatal("the database rolls back every batch".to_owned())))
    }

    /// What the batch changes; `None` when it is kept already.
    fn changes<'a>(&self, batch: &'a Batch) -> Result<Option<Changes<'a>>, Failure> {
        let guard = self.shared.logs.lock();
        let Some(logs) = guard.as_ref() else { return Err(Failure::Closed) };
        if batch.number <= logs.last_batch {
            return Ok(None);
        }
        if batch.number != logs.last_batch.next() {
            return Err(Failure::Fatal("a batch was left out".to_owned()));
        }
        Changes::of(logs, batch).map(Some)
    }

    async fn outcome(&mut self, number: ShardBatch) -> Result<Outcome, Failure> {
        self.check()?;
        match self.catch_up().await {
            Ok(last_batch) if number <= last_batch => Ok(Outcome::Committed),
            Ok(_) => Ok(Outcome::NotCommitted),
            Err(Failure::Fenced) => Ok(Outcome::Fenced),
            Err(failure) => Err(failure),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        if self.is_open() { Ok(()) } else { Err(Failure::Closed) }
    }

    /// Reads where the shard stands, however long it takes until the database answers, and what
    /// changed when a batch is kept that we do not know of.
    async fn catch_up(&mut self) -> Result<ShardBatch, Failure> {
        loop {
            self.connected().await?;
            match self.catch_up_once().await {
                Err(Failure::Lost(_) | Failure::Again(_)) => sleep(BACKOFF_MIN).await,
                Err(failure) => return Err(self.failed(failure)),
                Ok(last_batch) => {
                    self.is_behind = false;
                    return Ok(last_batch);
                }
            }
        }
    }

    async fn catch_up_once(&mut self) -> Result<ShardBatch, Failure> {
        let (known, last_batch) = self.last_batch().await?;
        if known != Some(last_batch) {
            let loaded = self.database.load().await?;
            *self.shared.logs.lock() = Some(loaded.logs);
        }
        Ok(last_batch)
    }

    /// The last batch that we know of, and the last one that the database has.
    ///
    /// Errors: also when somebody else is the owner, or when the database has less.
    async fn last_batch(&mut self) -> Result<(Option<ShardBatch>, ShardBatch), Failure> {
        let position = self.database.position().await?;
        if position.epoch != self.epoch {
            return Err(Failure::Fenced);
        }
        let known = self.shared.logs.lock().as_ref().map(|logs| logs.last_batch);
        if let Some(known) = known.filter(|known| *known > position.last_batch) {
            return Err(Failure::Fatal(format!(
                "the database went back: batch {known} was there, its last one now is {}; restore \
                 what is newer, such as the server that was primary before",
                position.last_batch
            )));
        }
        Ok((known, position.last_batch))
    }

    /// Waits until there is a connection; ends when nobody needs one any more.
    ///
    /// A database that takes no writes is waited for only while a batch may be kept: it may be the
    /// standby of one that knows better.
    async fn connected(&mut self) -> Result<(), Failure> {
        let mut backoff = BACKOFF_MIN;
        while !self.database.is_connected() {
            match self.reconnect().await {
                Ok(()) => return Ok(()),
                Err(failure) if self.commands.is_closed() => return Err(self.failed(failure)),
                Err(Failure::Lost(_) | Failure::Again(_)) => {}
                Err(Failure::ReadOnly(_) | Failure::Full(_)) if self.is_behind => {}
                Err(failure) => return Err(self.failed(failure)),
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<(), Failure> {
        let sent = Instant::now();
        let connected = self.connect().await;
        match &connected {
            Ok(()) => {
                tracing::info!(event = "database_connected");
                self.renewed_at(sent);
                self.shared.set_problem(None);
            }
            Err(failure) => {
                tracing::warn!(event = "database_unreachable", why = %failure);
                self.shared.set_problem(Some(Health::Failed(failure.to_string())));
            }
        }
        connected
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        self.database.connect().await?;
        self.database.renew(self.epoch).await?;
        // It may be a backup, or a standby that lacks the last commits.
        self.last_batch().await.map(|_| ())
    }

    /// Notes what a failure means for later calls.
    fn failed(&mut self, failure: Failure) -> Failure {
        let problem = match &failure {
            Failure::Lost(why) => {
                tracing::warn!(event = "database_connection_lost", why);
                Some(Health::Failed(failure.to_string()))
            }
            Failure::Full(_) => Some(Health::NearFull),
            Failure::ReadOnly(why) => Some(Health::ReadOnly(why.clone())),
            Failure::Again(_) | Failure::Closed | Failure::Held(_) | Failure::Refused(_) => None,
            Failure::Damaged(_) | Failure::Fenced | Failure::NotWritten(_) | Failure::Fatal(_) => {
                tracing::error!(event = "store_ended", why = %failure);
                self.ended = Some(failure.clone());
                Some(Health::Failed(failure.to_string()))
            }
        };
        if problem.is_some() {
            self.shared.set_problem(problem);
        }
        if self.ended.is_some()
            && let Some(on_fatal) = self.on_fatal.take()
        {
            on_fatal(&failure.to_string());
        }
        failure
    }

    fn renewed_at(&mut self, sent: Instant) {
        self.renewed = sent;
        // Counted from before the database heard of it, and ending long before another may start.
        let trusted = self.database.lease().map(|lease| sent + lease * 2 / 3);
        self.shared.trust_until(trusted);
    }

    /// How long to wait for a command before there is something else to do.
    fn time_to_rest(&self) -> Option<Duration> {
        let guard = self.shared.logs.lock();
        let logs = guard.as_ref().filter(|_| self.ended.is_none())?;
        let has_garbage = !logs.garbage.is_empty() && self.database.is_connected();
        let sweep = has_garbage.then(|| self.sweeps_in());
        let renewal =
            self.renewed_every().map(|every| every.saturating_sub(self.renewed.elapsed()));
        [sweep, renewal, self.database.tidies_in()].into_iter().flatten().min()
    }

    fn sweeps_in(&self) -> Duration {
        let after = self.sweeps_after.map(|at| at.saturating_duration_since(Instant::now()));
        after.unwrap_or_default()
    }

    fn renewed_every(&self) -> Option<Duration> {
        let third = self.database.lease()? / 3;
        Some(if self.database.is_connected() { third } else { third.min(BACKOFF_MAX) })
    }

    /// Nobody wants anything: prolongs ownership, removes rows of messages that are gone.
    async fn rest(&mut self) {
        if self.renewed_every().is_some_and(|every| self.renewed.elapsed() >= every) {
            return self.renew().await;
        }
        let first = {
            let guard = self.shared.logs.lock();
            guard.as_ref().and_then(|logs| logs.garbage.first_key_value().map(|(l, b)| (*l, *b)))
        };
        match first.filter(|_| self.database.is_connected() && self.sweeps_in().is_zero()) {
            Some((log, below)) => self.sweep(log, below).await,
            None => self.tidy().await,
        }
    }

    /// Has the database tidy up when it wants to.
    async fn tidy(&mut self) {
        if !self.database.tidies_in().is_some_and(|time| time.is_zero()) {
            return;
        }
        let was_short = self.database.shortage().is_some();
        match self.database.tidy().await {
            Ok(()) if was_short => self.shared.set_problem(self.database.shortage()),
            Ok(()) => {}
            Err(failure) => {
                self.failed(failure);
            }
        }
    }

    async fn renew(&mut self) {
        let sent = Instant::now();
        let renewed = if self.database.is_connected() {
            self.database.renew(self.epoch).await
        } else {
            self.reconnect().await
        };
        match renewed {
            Ok(()) => {
                self.renewed_at(sent);
                self.shared.set_problem(self.database.shortage());
            }
            Err(failure) => {
                // The next attempt is due as if this one had succeeded; trust is not prolonged.
                self.renewed = sent;
                self.failed(failure);
            }
        }
    }

    async fn sweep(&mut self, log: LogId, below: u64) {
        let from = self.swept.filter(|(swept, _)| *swept == log).map_or(0, |(_, from)| from);
        match self.database.sweep(log, from, signed(below)).await {
            Ok(Some(from)) => self.swept = Some((log, from)),
            Ok(None) => {
                self.swept = None;
                if let Some(logs) = self.shared.logs.lock().as_mut() {
                    logs.garbage.remove(&log);
                }
            }
            Err(Failure::Again(_) | Failure::Full(_) | Failure::ReadOnly(_)) => {
                self.sweeps_after = Some(Instant::now() + BACKOFF_MAX);
            }
            Err(failure) => {
                self.failed(failure);
            }
        }
    }

    async fn shut(&mut self) {
        *self.shared.logs.lock() = None;
        self.shared.trust_until(None);
        let (done, closed) = oneshot::channel();
        if self.reads.send(Read::Stop(done)).is_ok() {
            // It answers, or its thread is gone; both are fine.
            let _ = closed.await;
        }
        self.database.close(self.epoch).await;
    }
}

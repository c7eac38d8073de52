//! The port to disk: what the broker asks of an engine.

use bytes::Bytes;

use crate::{
    CursorId, Durability, Epoch, LogId, OwnerId, Seq, ShardBatch, ShardId, StoreError,
    state::{Held, Hold},
};

/// Answers once, on any thread; for one shard in the order of submission.
pub type Reply<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// Records that become durable together or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The shard the records belong to.
    pub shard: ShardId,
    /// The epoch of the opening that wrote them.
    pub epoch: Epoch,
    /// One more than the batch before.
    pub number: ShardBatch,
    /// How many records `payload` holds.
    pub records: u32,
    /// The records, in the encoding of [`record`](crate::record).
    pub payload: Bytes,
}

/// What an engine knows about a shard it has just taken ownership of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opened {
    /// The epoch to put into every batch.
    pub epoch: Epoch,
    /// The last batch that is kept; the next one is one more.
    pub last_batch: ShardBatch,
    /// The lowest number that no log ever had, not even one that was deleted.
    pub next_log: LogId,
    /// Every log, in the order of their ids.
    pub logs: Vec<OpenedLog>,
    /// Every definition as (key, version, value), in the order of their keys.
    pub metas: Vec<(String, u64, Bytes)>,
}

/// One log and its exact counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenedLog {
    /// Its number, never used for another log.
    pub id: LogId,
    /// The name it was created with.
    pub name: String,
    /// The lowest number that no message of it ever had.
    pub next_seq: Seq,
    /// Every message below is gone.
    pub floor: Seq,
    /// How many messages live.
    pub live_count: u64,
    /// The bytes of their properties and bodies.
    pub live_bytes: u64,
}

/// Bounds of one read. At least one message is returned when there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// The most messages to return.
    pub messages_max: u32,
    /// Stop before the message that would exceed these bytes of properties and bodies.
    pub bytes_max: u64,
}

/// One message as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its log.
    pub log: LogId,
    /// Its position.
    pub seq: Seq,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expiry_ms: u64,
    /// The flags it was published with.
    pub flags: u8,
    /// Its properties, as written.
    pub props: Bytes,
    /// Its body.
    pub body: Bytes,
    /// Counts and due time, when it was held or returned.
    pub hold: Option<Hold>,
}

/// Messages of one read, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The messages; numbers that are missing are gone.
    pub messages: Vec<StoredMessage>,
    /// Where to read on; `None` when the log held no more.
    pub next: Option<Seq>,
}

/// Names one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageRef {
    /// Its log.
    pub log: LogId,
    /// Its position.
    pub seq: Seq,
}

/// What a cursor has acknowledged, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CursorState {
    /// Everything below is acknowledged.
    pub floor: Seq,
    /// Acknowledged ranges above the floor, both ends included.
    pub acked: Vec<(Seq, Seq)>,
    /// Messages with counts or a due time.
    pub held: Vec<Held>,
}

/// What became of a batch whose answer was [`StoreError::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept.
    Committed,
    /// It is not kept and never will be: submit it again.
    NotCommitted,
    /// Another owner took over.
    Fenced,
}

/// How an engine feels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Everything works.
    Ok,
    /// Space runs out soon, or has.
    NearFull,
    /// Writes are refused, and why.
    ReadOnly(String),
    /// Not yet open; percent done.
    Recovering(u8),
    /// Nothing works, and why.
    Failed(String),
}

/// What an engine has found damaged since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Damage {
    /// Places.
    pub ranges: u64,
    /// Messages at them that nobody has acknowledged.
    pub messages: u64,
    /// Bytes that were read only to find out.
    pub scrubbed_bytes: u64,
    /// How often everything was read for that.
    pub scrubs: u64,
}

/// What an engine keeps for those who have not acknowledged it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// Messages.
    pub messages: u64,
    /// The bytes of their properties and bodies.
    pub bytes: u64,
}

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// False when nothing outlives the process.
    pub durable: bool,
    /// False when every batch is kept as [`Durability::Sync`], whatever is wanted.
    pub weaker_classes: bool,
    /// The largest payload of one batch in bytes.
    pub batch_bytes_max: u64,
}

impl Capabilities {
    /// How well the engine keeps what is wanted so.
    pub fn kept(&self, wanted: Durability) -> Durability {
        match wanted {
            _ if !self.durable => Durability::Memory,
            Durability::SyncInterval { .. } | Durability::Os if !self.weaker_classes => {
                Durability::Sync
            }
            wanted => wanted,
        }
    }
}

/// How a store is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Everything is written: mark it, so that the next start knows.
    Clean,
    /// Stop as it is.
    Abandon,
}

/// An engine that keeps batches of records.
pub trait Store: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Takes ownership: new epoch, exact counts, definitions. Returns no message.
    fn open(&self, shard: ShardId, me: OwnerId, reply: Reply<Opened>);

    /// Takes a batch and never blocks. The committer keeps one batch per shard in flight.
    ///
    /// A batch number that is kept already is answered without a change.
    fn submit(&self, batch: Batch, wanted: Durability, reply: Reply<ShardBatch>);

    /// Says what became of a batch whose answer was [`StoreError::Unknown`].
    fn outcome(&self, shard: ShardId, number: ShardBatch, reply: Reply<Outcome>);

    /// Reads the messages of `log` from `from` upwards.
    fn read(&self, log: LogId, from: Seq, limit: ReadLimit, reply: Reply<Page>);

    /// Reads these messages, in this order; those that are gone are left out.
    fn read_at(&self, messages: &[MessageRef], reply: Reply<Page>);

    /// What `cursor` has acknowledged and holds.
    fn cursor(&self, cursor: CursorId, reply: Reply<CursorState>);

    /// How the engine feels.
    fn health(&self) -> Health;

    /// What lives in it. Engines that would have to ask their database do not know.
    ///
    /// Cost: proportional to the number of logs.
    fn live(&self) -> Option<Live> {
        None
    }

    /// What it has found damaged. Engines that leave that to their database find nothing.
    fn damage(&self) -> Damage {
        Damage::default()
    }

    /// Ends it. What was submitted before is answered first.
    fn close(&self, how: Close, reply: Reply<()>);
}

/// Starts an operation and blocks this thread until it has answered. For start, stop and tests.
///
/// Errors: what the engine answers; [`StoreError::Closed`] when it drops the reply.
pub fn wait<T: Send + 'static>(start: impl FnOnce(Reply<T>)) -> Result<T, StoreError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    start(Box::new(move |answer| {
        // The receiver waits below, so this fails only when its thread is gone.
        let _ = sender.send(answer);
    }));
    receiver.recv().unwrap_or(Err(StoreError::Closed))
}

//! Rules every engine must keep, as functions an engine's tests run.
//!
//! ```text
//! polymq_store::suite::run(&|| Box::new(MyEngine::new()));
//! ```
#![expect(clippy::unwrap_used, reason = "a rule that is broken ends the test")]

mod contents;
mod copies;
mod fencing;
mod life;

use std::sync::Arc;

use bytes::BytesMut;

use crate::{
    Batch, BatchWriter, Close, Durability, Epoch, LogId, Opened, OwnerId, Page, ReadLimit, Seq,
    ShardBatch, ShardId, Store, StoreError, StoredMessage, wait,
};

/// One store that can be opened again and again.
pub trait Engine {
    /// Starts the engine on the contents it had; earlier handles have been dropped.
    fn start(&self) -> Arc<dyn Store>;

    /// False when a second owner takes over instead of being refused.
    fn refuses_second_opener(&self) -> bool {
        true
    }
}

/// Makes an engine with an empty store.
pub type Factory<'a> = &'a dyn Fn() -> Box<dyn Engine>;

/// Panics when the engine breaks it.
pub type Rule = fn(&dyn Engine);

/// The rules by name.
pub const RULES: &[(&str, Rule)] = &[
    ("messages keep their order across reopening", contents::order),
    ("gaps stay gaps", contents::gaps),
    ("properties and bodies of any size read back", contents::sizes),
    ("shared bodies read back as messages of their own", contents::shared_bodies),
    ("reads are bounded by messages and by bytes", contents::bounded_reads),
    ("named messages are read in the order asked", contents::named_reads),
    ("definitions keep their versions", contents::definitions),
    ("counts equal a full scan", life::counts),
    ("acknowledged ranges, floors and return counts survive", life::acks_survive),
    ("random acknowledgements agree with a model", life::random_acks),
    ("purge and delete leave nothing behind", life::purge_and_delete),
    ("numbers of deleted logs do not come back", life::log_numbers),
    ("replies come in the order of submission", fencing::replies_in_order),
    ("stale epoch is fenced and leaves no trace", fencing::stale_epoch),
    ("resent batch changes nothing", fencing::resent_batch),
    ("missing batch is refused", fencing::missing_batch),
    ("outcome tells both endings", fencing::outcome),
    ("second opener is refused", fencing::second_opener),
    ("closed store answers", fencing::closed_store),
    ("large batch is one batch", fencing::large_batch),
];

/// Runs every rule on an engine of its own.
///
/// Panics: when a rule is broken; the output names it.
pub fn run(factory: Factory<'_>) {
    for (name, rule) in RULES {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            rule(factory().as_ref());
        }));
        assert!(result.is_ok(), "broken rule: {name}");
    }
    copies::copies(factory);
}

const SHARD: ShardId = ShardId(0);
const LOG: LogId = LogId(1);
const ALL: ReadLimit = ReadLimit { messages_max: u32::MAX, bytes_max: u64::MAX };

/// An open store and the number of its next batch.
struct Session {
    store: Arc<dyn Store>,
    opened: Opened,
    last: ShardBatch,
}

impl Session {
    fn start(engine: &dyn Engine) -> Self {
        let store = engine.start();
        let opened = wait(|reply| store.open(SHARD, OwnerId(0x1234), reply)).unwrap();
        Self { last: opened.last_batch, store, opened }
    }

    /// Ends this session and starts the next on the same contents.
    fn reopen(self, engine: &dyn Engine, how: Close) -> Self {
        wait(|reply| self.store.close(how, reply)).unwrap();
        let epoch = self.opened.epoch;
        drop(self);
        let next = Self::start(engine);
        assert!(next.opened.epoch > epoch, "every opening is a new epoch");
        next
    }

    fn batch(&self, write: impl FnOnce(&mut BatchWriter<'_>)) -> Batch {
        batch(self.opened.epoch, self.last.next(), write)
    }

    fn submit(&self, batch: Batch) -> Result<ShardBatch, StoreError> {
        wait(|reply| self.store.submit(batch, Durability::Sync, reply))
    }

    fn write(&mut self, write: impl FnOnce(&mut BatchWriter<'_>)) {
        let batch = self.batch(write);
        let number = self.submit(batch).unwrap();
        assert_eq!(number, self.last.next());
        self.last = number;
    }

    /// Creates the log and publishes these numbers, each with a body that tells its number.
    fn write_messages(&mut self, seqs: impl Iterator<Item = u64>) {
        self.write(|w| {
            w.log_create(LOG, "queue");
            for seq in seqs {
                w.publish(LOG, Seq(seq), seq, 2, &[b"props"], &seq.to_le_bytes());
            }
        });
    }

    fn read(&self, log: LogId, from: Seq, limit: ReadLimit) -> Page {
        wait(|reply| self.store.read(log, from, limit, reply)).unwrap()
    }

    fn messages(&self, log: LogId) -> Vec<StoredMessage> {
        let page = self.read(log, Seq(0), ALL);
        assert_eq!(page.next, None);
        page.messages
    }

    fn seqs(&self, log: LogId) -> Vec<u64> {
        self.messages(log).iter().map(|message| message.seq.0).collect()
    }
}

fn batch(epoch: Epoch, number: ShardBatch, write: impl FnOnce(&mut BatchWriter<'_>)) -> Batch {
    let (mut buf, mut records) = (BytesMut::new(), 0);
    write(&mut BatchWriter::new(number, &mut buf, &mut records));
    Batch { shard: SHARD, epoch, number, records, payload: buf.freeze() }
}

/// Small random numbers; the same on every run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

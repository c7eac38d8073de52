//! From one store into another, whatever the engines, and the proof that both hold the same.

use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use crate::{
    BatchWriter, Committer, LogId, Opened, OpenedLog, Page, ReadLimit, Seq, ShardBatch, Store,
    StoreError, StoredMessage, wait,
};

/// What is read at a time, and written as one batch.
const PAGE: ReadLimit = ReadLimit { messages_max: 8192, bytes_max: 4 * 1024 * 1024 };

/// How much of a store has been gone through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages.
    pub messages: u64,
    /// Bytes of their properties and bodies.
    pub bytes: u64,
}

impl Progress {
    /// Everything that an opened store says it has.
    pub fn of_all(opened: &Opened) -> Self {
        opened.logs.iter().fold(Self::default(), |all, log| Self {
            messages: all.messages + log.live_count,
            bytes: all.bytes + log.live_bytes,
        })
    }

    fn add(&mut self, message: &StoredMessage) {
        self.messages += 1;
        self.bytes += (message.props.len() + message.body.len()) as u64;
    }
}

/// What one log holds, as far as a reader can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Its number.
    pub id: LogId,
    /// Its name.
    pub name: String,
    /// The lowest position that no message ever had.
    pub next_seq: Seq,
    /// Its messages.
    pub messages: u64,
    /// The bytes of their properties and bodies.
    pub bytes: u64,
    /// Checksum over all of it: positions, expiry, flags, properties, bodies and counts.
    pub checksum: u64,
}

/// What a store holds. Two stores hold the same when their summaries are equal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Every log, in the order of their numbers.
    pub logs: Vec<LogSummary>,
    /// How many definitions there are.
    pub definitions: u64,
    /// Checksum over the definitions, without their versions.
    pub checksum: u64,
}

/// Takes what a store holds apart: one call per definition, log and message, in order.
pub trait Visitor {
    /// A definition.
    ///
    /// Errors: what the visitor cannot do.
    fn definition(&mut self, key: &str, value: &Bytes) -> Result<(), StoreError>;

    /// A log begins; its messages follow.
    ///
    /// Errors: what the visitor cannot do.
    fn log(&mut self, log: &OpenedLog) -> Result<(), StoreError>;

    /// Messages of the last log.
    ///
    /// Errors: what the visitor cannot do.
    fn messages(&mut self, messages: &[StoredMessage]) -> Result<(), StoreError>;
}

/// Goes through everything that `store` holds. Blocks.
///
/// Errors: those of reading, and of the visitor.
pub fn visit(
    store: &dyn Store,
    opened: &Opened,
    visitor: &mut dyn Visitor,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let mut done = Progress::default();
    for (key, _, value) in &opened.metas {
        visitor.definition(key, value)?;
    }
    for log in &opened.logs {
        visitor.log(log)?;
        let mut from = Seq(0);
        loop {
            let page: Page = wait(|reply| store.read(log.id, from, PAGE, reply))?;
            page.messages.iter().for_each(|message| done.add(message));
            visitor.messages(&page.messages)?;
            progress(done);
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    Ok(())
}

/// Says what a store holds, by reading all of it. Blocks.
///
/// Errors: those of reading.
pub fn summarise(
    store: &dyn Store,
    opened: &Opened,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, StoreError> {
    let mut summariser = Summariser::default();
    visit(store, opened, &mut summariser, progress)?;
    Ok(summariser.finish())
}

/// Builds a [`Summary`] of what it is shown.
#[derive(Default)]
struct Summariser {
    summary: Summary,
    definitions: Checksum,
    log: Checksum,
}

impl Summariser {
    fn finish(mut self) -> Summary {
        self.end_log();
        self.summary.checksum = self.definitions.0.finalize();
        self.summary
    }

    fn end_log(&mut self) {
        let checksum = std::mem::take(&mut self.log);
        if let Some(log) = self.summary.logs.last_mut() {
            log.checksum = checksum.0.finalize();
        }
    }
}

impl Visitor for Summariser {
    fn definition(&mut self, key: &str, value: &Bytes) -> Result<(), StoreError> {
        self.definitions.part(key.as_bytes());
        self.definitions.part(value);
        self.summary.definitions += 1;
        Ok(())
    }

    fn log(&mut self, log: &OpenedLog) -> Result<(), StoreError> {
        self.end_log();
        let OpenedLog { id, name, next_seq, .. } = log.clone();
        let (messages, bytes, checksum) = (0, 0, 0);
        self.summary.logs.push(LogSummary { id, name, next_seq, messages, bytes, checksum });
        Ok(())
    }

    fn messages(&mut self, messages: &[StoredMessage]) -> Result<(), StoreError> {
        let Some(log) = self.summary.logs.last_mut() else { return Ok(()) };
        for message in messages {
            log.messages += 1;
            log.bytes += (message.props.len() + message.body.len()) as u64;
            let hold = message.hold.unwrap_or_default();
            for number in [
                message.seq.0,
                message.expiry_ms,
                u64::from(message.flags),
                u64::from(hold.delivery_count),
                u64::from(hold.acquired_count),
                hold.due_ms,
            ] {
                self.log.0.update(&number.to_le_bytes());
            }
            self.log.part(&message.props);
            self.log.part(&message.body);
        }
        Ok(())
    }
}

/// A checksum that tells the borders of its parts.
struct Checksum(Digest);

impl Default for Checksum {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl Checksum {
    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// Writes what it is shown into a store that was empty. Each page is durable before the next is
/// taken.
pub struct Writer {
    committer: Arc<Committer>,
    log: LogId,
    /// Where the positions of the log end, and where those that were written do.
    next_seq: Seq,
    written_to: Seq,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes to what `committer` commits to.
    pub fn new(committer: Arc<Committer>) -> Self {
        Self { committer, log: LogId(0), next_seq: Seq(0), written_to: Seq(0) }
    }

    /// Ends the copy. No log gets a number below `next_log` again, although those logs are gone.
    ///
    /// Errors: those of writing.
    pub fn finish(mut self, next_log: LogId) -> Result<(), StoreError> {
        self.end_log()?;
        let last = next_log.0.checked_sub(1).filter(|last| *last > self.log.0);
        self.write(|writer| {
            if let Some(last) = last {
                writer.log_create(LogId(last), "");
                writer.log_delete(LogId(last));
            }
        })
    }

    /// Positions that are gone must not come back: the last one is given and acknowledged.
    fn end_log(&mut self) -> Result<(), StoreError> {
        let (log, next_seq) = (self.log, self.next_seq);
        if next_seq <= self.written_to {
            return Ok(());
        }
        self.written_to = next_seq;
        let last = Seq(next_seq.0.saturating_sub(1));
        self.write(|writer| {
            writer.publish(log, last, 0, 0, &[], &[]);
            writer.ack(log, &[(last, last)]);
        })
    }

    fn write(&self, write: impl FnOnce(&mut BatchWriter<'_>)) -> Result<(), StoreError> {
        let (batch, ()): (ShardBatch, ()) = self.committer.append(write);
        self.committer.kick();
        wait(|reply| self.committer.when_durable(batch, reply))
    }
}

impl Visitor for Writer {
    fn definition(&mut self, key: &str, value: &Bytes) -> Result<(), StoreError> {
        // Definitions are small, and the first page of messages takes them along.
        self.committer.append(|writer| writer.meta_put(key, value));
        Ok(())
    }

    fn log(&mut self, log: &OpenedLog) -> Result<(), StoreError> {
        self.end_log()?;
        (self.log, self.next_seq, self.written_to) = (log.id, log.next_seq, Seq(0));
        self.write(|writer| writer.log_create(log.id, &log.name))
    }

    fn messages(&mut self, messages: &[StoredMessage]) -> Result<(), StoreError> {
        let log = self.log;
        if let Some(last) = messages.last() {
            self.written_to = Seq(last.seq.0.saturating_add(1));
        }
        self.write(|writer| {
            for message in messages {
                let StoredMessage { seq, expiry_ms, flags, props, body, hold, .. } = message;
                writer.publish(log, *seq, *expiry_ms, *flags, &[props], body);
                if let Some(hold) = hold {
                    let counts = (hold.delivery_count, hold.acquired_count);
                    writer.hold(log, *seq, counts.0, counts.1, hold.due_ms);
                }
            }
        })
    }
}

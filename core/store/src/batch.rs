//! Writing records into the open batch.

use bytes::BytesMut;

use crate::{
    LogId, Seq, ShardBatch,
    record::{FLAG_DELETED, FLAG_DEPENDED_ON, FLAGS_OF_PUBLISHER, Head, kind, put},
};

/// Where a message stands in the batch that was open when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubRef {
    batch: ShardBatch,
    offset: u32,
}

/// Appends records to the open batch; lives for one call of
/// [`Committer::append`](crate::Committer::append).
#[derive(Debug)]
pub struct BatchWriter<'a> {
    number: ShardBatch,
    buf: &'a mut BytesMut,
    records: &'a mut u32,
    /// The flags that every message gets.
    flags: u8,
}

impl<'a> BatchWriter<'a> {
    /// Writes the records of batch `number` to the end of `buf`, and counts them.
    pub fn new(number: ShardBatch, buf: &'a mut BytesMut, records: &'a mut u32) -> Self {
        Self { number, buf, records, flags: 0 }
    }

    /// Something else in the batch depends on its messages from now on.
    pub(crate) fn depended_on(mut self) -> Self {
        self.flags = FLAG_DEPENDED_ON;
        self
    }

    /// Writes a message; the parts of `props` are joined. `expiry_ms` is 0 for never.
    ///
    /// Bits 1 to 5 of `flags` are kept and read back. The answer serves
    /// [`publish_same`](Self::publish_same) while this batch is open.
    pub fn publish(
        &mut self,
        log: LogId,
        seq: Seq,
        expiry_ms: u64,
        flags: u8,
        props: &[&[u8]],
        body: &[u8],
    ) -> PubRef {
        let flags = (flags & FLAGS_OF_PUBLISHER) | self.flags;
        let head = Head { kind: kind::PUB, flags, log: log.0, seq: seq.0, aux: expiry_ms };
        let offset = self.put(head, props, body);
        // A batch that long has no room for an offset; such a reference matches no batch.
        match u32::try_from(offset) {
            Ok(offset) => PubRef { batch: self.number, offset },
            Err(_) => PubRef { batch: ShardBatch(0), offset: 0 },
        }
    }

    /// Writes a message with the content of `first`, flags included.
    ///
    /// Returns false, and writes nothing, when `first` is not in this batch: write a whole
    /// message then.
    pub fn publish_same(&mut self, log: LogId, seq: Seq, expiry_ms: u64, first: PubRef) -> bool {
        let Ok(own) = u32::try_from(self.buf.len()) else { return false };
        if first.batch != self.number {
            return false;
        }
        let (kind, flags) = (kind::PUBSAME, self.flags);
        let head = Head { kind, flags, log: log.0, seq: seq.0, aux: expiry_ms };
        self.put(head, &[&first.offset.to_le_bytes(), &own.to_le_bytes()], &[]);
        true
    }

    /// Acknowledges ranges, both ends included.
    pub fn ack(&mut self, log: LogId, ranges: &[(Seq, Seq)]) {
        const RANGES_PER_RECORD: usize = 64;
        for part in ranges.chunks(RANGES_PER_RECORD) {
            let mut body = [0_u8; RANGES_PER_RECORD * 16];
            for (entry, (first, last)) in body.chunks_exact_mut(16).zip(part) {
                entry[..8].copy_from_slice(&first.0.to_le_bytes());
                entry[8..].copy_from_slice(&last.0.to_le_bytes());
            }
            let seq = part.first().map_or(0, |(first, _)| first.0);
            let head = Head { kind: kind::ACK, log: log.0, seq, ..Head::default() };
            self.put(head, &[], &body[..part.len() * 16]);
        }
    }

    /// Keeps the counts and the due time (0 for none) of a message that lives.
    pub fn hold(
        &mut self,
        log: LogId,
        seq: Seq,
        delivery_count: u32,
        acquired_count: u32,
        due_ms: u64,
    ) {
        let mut body = [0_u8; 24];
        body[..8].copy_from_slice(&seq.0.to_le_bytes());
        body[8..12].copy_from_slice(&delivery_count.to_le_bytes());
        body[12..16].copy_from_slice(&acquired_count.to_le_bytes());
        body[16..].copy_from_slice(&due_ms.to_le_bytes());
        let head = Head { kind: kind::HOLD, log: log.0, seq: seq.0, ..Head::default() };
        self.put(head, &[], &body);
    }

    /// Acknowledges everything below `floor`.
    pub fn floor(&mut self, log: LogId, floor: Seq) {
        self.put(Head { kind: kind::FLOOR, log: log.0, seq: floor.0, ..Head::default() }, &[], &[]);
    }

    /// Removes everything below `below`.
    pub fn purge(&mut self, log: LogId, below: Seq) {
        self.put(Head { kind: kind::PURGE, log: log.0, seq: below.0, ..Head::default() }, &[], &[]);
    }

    /// Begins a log. Its number must never have been used before.
    pub fn log_create(&mut self, log: LogId, name: &str) {
        let head = Head { kind: kind::LOG_CREATE, log: log.0, ..Head::default() };
        self.put(head, &[name.as_bytes()], &[]);
    }

    /// Ends a log and all its messages.
    pub fn log_delete(&mut self, log: LogId) {
        self.put(Head { kind: kind::LOG_DELETE, log: log.0, ..Head::default() }, &[], &[]);
    }

    /// Keeps a definition; its version is the number of this batch.
    pub fn meta_put(&mut self, key: &str, value: &[u8]) {
        self.put(Head { kind: kind::META, ..Head::default() }, &[key.as_bytes()], value);
    }

    /// Forgets a definition.
    pub fn meta_delete(&mut self, key: &str) {
        let head = Head { kind: kind::META, flags: FLAG_DELETED, ..Head::default() };
        self.put(head, &[key.as_bytes()], &[]);
    }

    fn put(&mut self, head: Head, props: &[&[u8]], body: &[u8]) -> usize {
        *self.records = self.records.saturating_add(1);
        put(self.buf, head, props, body).0
    }
}

//! Keeps everything in memory: for tests, and for brokers that keep nothing.
//!
//! Contents outlive an opening of the store and end with the process. Nothing here is written
//! anywhere. [`Faults`] make it misbehave on purpose.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod faults;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use polymq_store::{
    Batch, Capabilities, Close, CursorId, CursorState, Durability, Health, Live, LogId, MessageRef,
    Opened, Outcome, OwnerId, Page, ReadLimit, Reply, Seq, ShardBatch, ShardId, Store, StoreError,
    StoredMessage,
    record::Checks,
    state::{Admission, Found, Index, LogState, Place, ShardState},
};

pub use faults::Faults;
use faults::Plan;

/// A store without a disk.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    faults: Faults,
    posing_as: Option<Capabilities>,
}

#[derive(Debug, Default)]
struct Inner {
    state: ShardState<Index<Kept>>,
    is_open: bool,
}

/// The content of one message.
#[derive(Debug, Clone)]
struct Kept(Box<Content>);

#[derive(Debug, Clone)]
struct Content {
    expiry_ms: u64,
    flags: u8,
    props: Bytes,
    body: Bytes,
}

impl Place for Kept {
    fn content_bytes(&self) -> u64 {
        (self.0.props.len() + self.0.body.len()) as u64
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that claims to be more than it is, for tests of who asks.
    pub fn posing_as(capabilities: Capabilities) -> Self {
        Self { posing_as: Some(capabilities), ..Self::default() }
    }

    /// Makes it misbehave.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Commits the oldest batch whose answer is delayed; false when there is none.
    pub fn release_one(&self) -> bool {
        match self.faults.take_delayed() {
            Some((batch, reply)) => {
                self.commit(batch, reply);
                true
            }
            None => false,
        }
    }

    /// Commits all batches whose answers are delayed, and those that follow at once.
    pub fn release(&self) {
        self.faults.delay_replies(false);
        while self.release_one() {}
    }

    fn commit(&self, batch: Batch, reply: Reply<ShardBatch>) {
        let number = batch.number;
        let result = self.inner.lock().commit(&batch);
        // The committer fills this buffer again when nobody else holds it.
        drop(batch);
        reply(result.map(|()| number));
    }
}

impl Inner {
    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if !self.is_open {
            return Err(StoreError::Closed);
        }
        match self.state.admit(batch.epoch, batch.number) {
            Admission::Kept => return Ok(()),
            Admission::Fenced => return Err(StoreError::Fenced),
            Admission::Gap => return Err(StoreError::Fatal("a batch was left out".into())),
            Admission::Next => {}
        }
        // Fan-out: the content of the messages that point to one PUB is shared.
        let mut shared: Option<(usize, Bytes, Bytes)> = None;
        let place = |found: &Found<'_>| {
            let (props, body) = match &shared {
                Some((offset, props, body)) if *offset == found.content_offset => {
                    (props.clone(), body.clone())
                }
                _ => {
                    let (props, body) = copied(found.publish.props, found.publish.body);
                    shared = Some((found.content_offset, props.clone(), body.clone()));
                    (props, body)
                }
            };
            let (expiry_ms, flags) = (found.publish.expiry_ms, found.publish.flags);
            Kept(Box::new(Content { expiry_ms, flags, props, body }))
        };
        self.state
            .apply(batch.number, &batch.payload, Checks::LengthsOnly, place)
            .map_err(|error| StoreError::Fatal(error.to_string().into()))
    }
}

fn copied(props: &[u8], body: &[u8]) -> (Bytes, Bytes) {
    let mut both = BytesMut::with_capacity(props.len() + body.len());
    both.extend_from_slice(props);
    both.extend_from_slice(body);
    let mut both = both.freeze();
    let props = both.split_to(props.len());
    (props, both)
}

fn message(id: LogId, log: &LogState<Index<Kept>>, seq: Seq, kept: &Kept) -> StoredMessage {
    StoredMessage {
        log: id,
        seq,
        expiry_ms: kept.0.expiry_ms,
        flags: kept.0.flags,
        props: kept.0.props.clone(),
        body: kept.0.body.clone(),
        hold: log.hold(seq),
    }
}

impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        let batch_bytes_max = u64::from(u32::MAX);
        let own = Capabilities { durable: false, weaker_classes: false, batch_bytes_max };
        self.posing_as.unwrap_or(own)
    }

    fn open(&self, _shard: ShardId, _me: OwnerId, reply: Reply<Opened>) {
        let opened = {
            let mut inner = self.inner.lock();
            let epoch = inner.state.epoch().0.saturating_add(1);
            inner.state.set_epoch(polymq_store::Epoch(epoch));
            inner.is_open = true;
            inner.state.opened()
        };
        reply(Ok(opened));
    }

    fn submit(&self, batch: Batch, wanted: Durability, reply: Reply<ShardBatch>) {
        match self.faults.plan(batch, wanted, reply) {
            Plan::Commit(batch, reply) => self.commit(batch, reply),
            Plan::Fail(error, reply) => reply(Err(error)),
            Plan::CommitAndFail(batch, error, reply) => {
                self.commit(batch, Box::new(move |_| reply(Err(error))));
            }
            Plan::Delayed => {}
        }
    }

    fn outcome(&self, _shard: ShardId, number: ShardBatch, reply: Reply<Outcome>) {
        let is_kept = number <= self.inner.lock().state.last_batch();
        reply(Ok(if is_kept { Outcome::Committed } else { Outcome::NotCommitted }));
    }

    fn read(&self, id: LogId, from: Seq, limit: ReadLimit, reply: Reply<Page>) {
        let (mut page, mut damage) = (Page::default(), None);
        if let Some(log) = self.inner.lock().state.log(id) {
            let mut bytes = 0;
            for (seq, kept) in log.messages().from(from) {
                bytes += kept.content_bytes();
                let count = page.messages.len();
                if count > 0 && (bytes > limit.bytes_max || count >= limit.messages_max as usize) {
                    page.next = Some(seq);
                    break;
                }
                if let Some((first, last)) = self.faults.damage_at(id, seq) {
                    if count > 0 {
                        page.next = Some(seq);
                        break;
                    }
                    let live = log.messages().from(first).take_while(|(seq, _)| *seq <= last);
                    let messages = live.count() as u64;
                    let what = "damaged on request".into();
                    damage = Some(StoreError::Unreadable { log: id, first, last, messages, what });
                    break;
                }
                page.messages.push(message(id, log, seq, kept));
            }
        }
        self.faults.answer(damage.map_or(Ok(page), Err), reply);
    }

    fn read_at(&self, messages: &[MessageRef], reply: Reply<Page>) {
        let found = {
            let inner = self.inner.lock();
            let find = |at: &MessageRef| {
                let log = inner.state.log(at.log)?;
                Some(message(at.log, log, at.seq, log.messages().at(at.seq)?))
            };
            messages.iter().filter_map(find).collect()
        };
        self.faults.answer(Ok(Page { messages: found, next: None }), reply);
    }

    fn cursor(&self, cursor: CursorId, reply: Reply<CursorState>) {
        let id = u32::try_from(cursor.0).map(LogId);
        let state = {
            let inner = self.inner.lock();
            id.ok().and_then(|id| inner.state.log(id)).map(LogState::cursor)
        };
        reply(Ok(state.unwrap_or_default()));
    }

    fn health(&self) -> Health {
        Health::Ok
    }

    fn live(&self) -> Option<Live> {
        let inner = self.inner.lock();
        Some(Live { messages: inner.state.live_count(), bytes: inner.state.live_bytes() })
    }

    fn close(&self, _how: Close, reply: Reply<()>) {
        self.inner.lock().is_open = false;
        reply(Ok(()));
    }
}

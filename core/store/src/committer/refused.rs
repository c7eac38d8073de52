//! Batches the engine did not take.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use super::{
    Committer,
    parts::{InFlight, Inner, Sealed},
};
use crate::{
    BatchWriter, ShardBatch, StoreError,
    record::{Checks, Record, Records, aligned, publish_at},
};

/// Ranges that are remembered; each covers an uninterrupted time without space.
const RANGES_MAX: usize = 1024;

/// Which batches were refused. Their other records may become durable later under the same
/// number, so a number alone does not tell.
#[derive(Debug, Default)]
pub(super) struct RefusedBatches {
    ranges: Vec<(ShardBatch, ShardBatch, StoreError)>,
}

impl RefusedBatches {
    pub(super) fn add(&mut self, number: ShardBatch, error: &StoreError) {
        if self.of(number).is_some() {
            return;
        }
        if let Some((_, last, why)) = self.ranges.last_mut()
            && last.next() == number
            && why == error
        {
            *last = number;
            return;
        }
        if self.ranges.len() == RANGES_MAX {
            self.ranges.remove(0);
        }
        self.ranges.push((number, number, error.clone()));
    }

    pub(super) fn of(&self, number: ShardBatch) -> Option<StoreError> {
        let hit = |(first, last, _): &&(ShardBatch, ShardBatch, StoreError)| {
            *first <= number && number <= *last
        };
        self.ranges.iter().find(hit).map(|(_, _, error)| error.clone())
    }
}

impl Committer {
    /// True from the time at which the engine had no room until it has taken what was kept back.
    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    /// Nothing was written: whoever waits learns it, acknowledgements and definitions stay.
    pub(super) fn refuse(&self, inner: &mut Inner, flight: InFlight, error: &StoreError) {
        let mut waiting = flight.waiting;
        let refused = self.park(inner, flight.batch, error);
        inner.parked.push_front(refused);
        self.is_refused.store(true, Ordering::Relaxed);
        // What somebody is still adding to goes as a whole, when its turn comes.
        if inner.open.records > 0 && inner.held_open == 0 {
            let (sealed, open_waiting) = self.seal_open(inner);
            let refused = self.park(inner, sealed, error);
            inner.parked.push_back(refused);
            waiting.extend(open_waiting);
        }
        for done in waiting {
            self.answers.push(done, Err(error.clone()));
        }
        inner.stats.refused += 1;
        inner.wanted = false;
        self.is_dirty_locked(inner);
        if inner.closing.is_some() {
            self.fail(inner, Vec::new(), error);
        }
    }

    fn park(&self, inner: &mut Inner, batch: Sealed, error: &StoreError) -> Sealed {
        let (payload, records) = without_messages(&batch.payload);
        // A repeated message is whole now, so this may be more than it was.
        self.pending_bytes.fetch_add(payload.len(), Ordering::Relaxed);
        self.pending_bytes.fetch_sub(batch.payload.len(), Ordering::Relaxed);
        inner.refused.add(batch.number, error);
        Sealed { number: batch.number, payload, records, wanted: batch.wanted }
    }
}

/// The records of `payload` that are no messages, and the messages on which they depend: those
/// have left another place by other records of the batch. Returns their number as well.
pub(super) fn without_messages(payload: &[u8]) -> (Bytes, u32) {
    let mut kept = BytesMut::new();
    let mut records = 0;
    for (offset, len, record) in Records::new(payload, Checks::LengthsOnly).flatten() {
        match record {
            Record::Publish(publish) if !publish.is_depended_on => continue,
            Record::PublishSame { is_depended_on: false, .. } => continue,
            // The message it repeats is somewhere else now, or gone.
            Record::PublishSame { log, seq, expiry_ms, first, .. } => {
                let Ok((_, first)) = publish_at(payload, first as usize, Checks::LengthsOnly)
                else {
                    continue;
                };
                BatchWriter::new(ShardBatch(0), &mut kept, &mut records).depended_on().publish(
                    log,
                    seq,
                    expiry_ms,
                    first.flags,
                    &[first.props],
                    first.body,
                );
            }
            _ => {
                kept.extend_from_slice(&payload[offset..offset + aligned(len as usize)]);
                records += 1;
            }
        }
    }
    (kept.freeze(), records)
}

//! Batches the engine did not take.

use bytes::{Bytes, BytesMut};

use crate::{
    ShardBatch, StoreError,
    record::{Checks, Record, Records, aligned},
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

/// The records of `payload` that are not messages, and their number.
pub(super) fn without_messages(payload: &[u8]) -> (Bytes, u32) {
    let mut kept = BytesMut::new();
    let mut records = 0;
    for (offset, len, record) in Records::new(payload, Checks::LengthsOnly).flatten() {
        if !matches!(record, Record::Publish(_) | Record::PublishSame { .. }) {
            kept.extend_from_slice(&payload[offset..offset + aligned(len as usize)]);
            records += 1;
        }
    }
    (kept.freeze(), records)
}

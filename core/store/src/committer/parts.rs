//! What a committer holds: the open batch, the one in flight, and those that wait.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::{Durability, ShardBatch, StoreError};

use super::{CommitStats, Committer, answers::Done, refused::RefusedBatches};

pub(super) struct Inner {
    pub(super) open: Open,
    /// Records of refused batches without their messages, oldest first.
    pub(super) parked: VecDeque<Sealed>,
    pub(super) in_flight: Option<InFlight>,
    /// Somebody asked for the open batch to be written.
    pub(super) wanted: bool,
    /// How many want their appends in one batch and have not finished.
    pub(super) held_open: usize,
    /// A thread is between taking a batch and the return of `Store::submit`.
    pub(super) submitting: bool,
    pub(super) refused: RefusedBatches,
    pub(super) failed: Option<StoreError>,
    pub(super) closing: Option<Done>,
    pub(super) spare: Option<BytesMut>,
    pub(super) stats: CommitStats,
}

pub(super) struct Open {
    pub(super) number: ShardBatch,
    pub(super) buf: BytesMut,
    pub(super) records: u32,
    /// How well the strictest of its records is to be kept.
    pub(super) wanted: Durability,
    pub(super) waiting: Vec<Done>,
}

pub(super) struct Sealed {
    pub(super) number: ShardBatch,
    pub(super) payload: Bytes,
    pub(super) records: u32,
    pub(super) wanted: Durability,
}

pub(super) struct InFlight {
    pub(super) batch: Sealed,
    pub(super) waiting: Vec<Done>,
    pub(super) started_nanos: u64,
}

/// A reply that an engine may drop, when its thread dies; that must not look like silence.
pub(super) struct Unanswered {
    pub(super) committer: Option<Arc<Committer>>,
    pub(super) number: ShardBatch,
}

impl Unanswered {
    pub(super) fn answer(mut self, result: Result<ShardBatch, StoreError>) {
        if let Some(committer) = self.committer.take() {
            committer.answered(self.number, result);
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(committer) = self.committer.take() {
            let why = "the engine went away without an answer".into();
            committer.answered(self.number, Err(StoreError::Fatal(why)));
        }
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer")
            .field("shard", &self.shard)
            .field("durable", &self.durable())
            .field("pending_bytes", &self.pending_bytes())
            .finish_non_exhaustive()
    }
}

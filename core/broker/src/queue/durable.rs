//! What a durable queue writes to its log.

use polymq_model::{Message, Seq};
use polymq_store::{Durability, PubRef, ShardBatch};

use super::{Queue, state::State};
use crate::stored_message;

impl Queue {
    /// Writes the persistent ones of `messages`, which get positions from `first` on.
    pub(super) fn store(
        &self,
        messages: &[Message],
        first: Seq,
        refs: &mut [Option<PubRef>],
        now_ms: u64,
    ) -> Option<ShardBatch> {
        if !messages.iter().any(Message::is_durable) {
            return None;
        }
        // Messages that are handed over together are kept as the strictest of them wants.
        let class = self.settings.durability;
        let (batch, ()) = self.committer.append_as(class, |writer| {
            for (index, message) in messages.iter().enumerate().filter(|(_, m)| m.is_durable()) {
                let seq = Seq(first.0 + index as u64);
                let deadline_ms = self.settings.deadline_of(message, now_ms);
                let place = refs.get_mut(index);
                let known = place.as_ref().and_then(|known| **known);
                if known.is_some_and(|r| writer.publish_same(self.log, seq, deadline_ms, r)) {
                    continue;
                }
                let written = stored_message::write(writer, self.log, seq, deadline_ms, message);
                if let Some(place) = place {
                    *place = Some(written);
                }
            }
        });
        Some(batch)
    }

    /// Writes what the machine has noted about settled and returned messages.
    pub(super) fn settle_records(&self, state: &mut State) {
        if !self.keeps {
            state.settled.clear();
            state.held.clear();
            return;
        }
        if state.settled.is_empty() && state.held.is_empty() {
            return;
        }
        // A lost acknowledgement is a redelivery, so nothing waits for the disk because of one.
        self.committer.append_as(Durability::Os, |writer| {
            if !state.settled.is_empty() {
                writer.ack(self.log, &state.settled);
            }
            for (seq, failed, acquired) in &state.held {
                writer.hold(self.log, *seq, u32::from(*failed), u32::from(*acquired), 0);
            }
        });
        state.settled.clear();
        state.held.clear();
    }
}

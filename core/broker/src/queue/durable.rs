//! What a durable queue writes to its logs.

use polymq_model::{Message, Seq};
use polymq_store::{Durability, PubRef, ShardBatch};

use super::{
    Queue,
    lane::Lane,
    state::{Arriving, State},
};
use crate::{
    definitions::{self, StoredLevel},
    stored_message,
};

impl Queue {
    /// Writes the persistent ones of the messages, which get the next places of a lane.
    pub(super) fn store(
        &self,
        state: &mut State,
        lane: usize,
        arriving: Arriving<'_>,
        refs: &mut [Option<PubRef>],
    ) -> Option<ShardBatch> {
        if !arriving.messages.iter().any(Message::is_durable) {
            return None;
        }
        let lane = state.lanes.get_mut(lane)?;
        if lane.log.0 == 0 {
            self.begin_log(lane)?;
        }
        let (log, first) = (lane.log, lane.next_seq);
        let durable = arriving.messages.iter().enumerate().filter(|(_, m)| m.is_durable());
        // Messages that are handed over together are kept as the strictest of them wants.
        let strictest = durable.clone().map(|(_, m)| m.durability()).reduce(Durability::stronger);
        let class = self.settings.durability.weaker(strictest.unwrap_or_default());
        let (batch, ()) = self.committer.append_as(class, |writer| {
            for (index, message) in durable {
                let seq = Seq(first + index as u64);
                let deadline_ms = state.rules.deadline_of(message, arriving.now_ms);
                let place = refs.get_mut(index);
                let known = place.as_ref().and_then(|known| **known);
                if known.is_some_and(|r| writer.publish_same(log, seq, deadline_ms, r)) {
                    continue;
                }
                let written = stored_message::write(writer, log, seq, deadline_ms, message);
                if let Some(place) = place {
                    *place = Some(written);
                }
            }
        });
        Some(batch)
    }

    /// Makes the log of a level when its first message comes, so that a level that is not used
    /// costs nothing.
    fn begin_log(&self, lane: &mut Lane) -> Option<()> {
        lane.log = self.home.next_log()?;
        let title = format!("{}/{}#{}", self.home.vhost_name(), self.name, lane.level);
        let key = self.level_key(lane.level);
        let value = definitions::encode(&StoredLevel { log: lane.log.0 });
        self.committer.append(|writer| {
            writer.log_create(lane.log, &title);
            writer.meta_put(&key, &value);
        });
        Some(())
    }

    /// Writes what the machine has noted about settled and returned messages.
    pub(super) fn settle_records(&self, state: &mut State) {
        for lane in &mut state.lanes {
            if lane.settled.is_empty() && lane.counts.is_empty() {
                continue;
            }
            // A lost acknowledgement is a redelivery, so nothing waits for the disk because of one.
            if self.keeps && lane.log.0 != 0 {
                self.committer.append_as(Durability::Os, |writer| {
                    if !lane.settled.is_empty() {
                        writer.ack(lane.log, &lane.settled);
                    }
                    for c in &lane.counts {
                        let (failed, acquired) = (u32::from(c.failed), u32::from(c.acquired));
                        writer.hold(lane.log, c.seq, failed, acquired, c.due_ms);
                    }
                });
            }
            lane.settled.clear();
            lane.counts.clear();
        }
    }
}

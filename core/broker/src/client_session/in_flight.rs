//! Deliveries on their way to clients: what a client session remembers of them when its connection,
//! or the broker, ends.

use std::{collections::BTreeMap, sync::Arc};

use polymq_contract::{InFlight, Matched, SubscriptionTarget};
use polymq_model::{ConsumerId, LogId, Seq};
use polymq_store::{MessageRef, ShardBatch, Store, StoreError, wait};

use super::{ClientSession, SESSION_QUEUE, SessionState};
use crate::{
    core::Core,
    definitions::{self, StoredInFlight, kind},
    queue::{Entry, Position, Queue},
    vhost::Vhost,
};

/// Unfinished deliveries of a client by packet id.
#[derive(Debug, Default)]
pub(crate) struct InFlights {
    by_id: BTreeMap<u16, StoredInFlight>,
    next_order: u64,
}

impl InFlights {
    /// All of them, in the order in which they were put.
    pub(crate) fn in_order(&self) -> Vec<InFlight> {
        let mut all: Vec<_> = self.by_id.iter().collect();
        all.sort_unstable_by_key(|(_, stored)| stored.order);
        all.into_iter().map(|(packet_id, stored)| stored.in_flight(*packet_id)).collect()
    }

    /// Puts back what the store has kept.
    pub(crate) fn restore(&mut self, packet_id: u16, stored: StoredInFlight) {
        self.next_order = self.next_order.max(stored.order.saturating_add(1));
        self.by_id.insert(packet_id, stored);
    }

    fn put(&mut self, in_flight: &InFlight) -> StoredInFlight {
        let stored = StoredInFlight::of(in_flight, self.next_order);
        self.next_order = self.next_order.saturating_add(1);
        self.by_id.insert(in_flight.packet_id, stored);
        stored
    }
}

/// Messages of a shared subscription that its queue keeps for a client that is away.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) queue: Arc<Queue>,
    pub(crate) slot: usize,
}

impl Core {
    /// Remembers unfinished deliveries. Wait for the batch before anything is sent.
    pub(crate) fn keep_in_flight(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        in_flight: &[InFlight],
    ) -> Option<ShardBatch> {
        let mut state = session.state.lock();
        let stored = state.stored;
        let puts: Vec<_> =
            in_flight.iter().map(|f| (f.packet_id, state.in_flight.put(f))).collect();
        stored.then(|| {
            let write = |writer: &mut polymq_store::BatchWriter<'_>| {
                for (packet_id, put) in &puts {
                    let key = in_flight_key(vhost, session, *packet_id);
                    writer.meta_put(&key, &definitions::encode(put));
                }
            };
            self.committer.append(write).0
        })
    }

    /// A delivery that was remembered is finished.
    pub(crate) fn forget_in_flight(&self, vhost: &Vhost, session: &ClientSession, packet_id: u16) {
        let mut state = session.state.lock();
        if state.in_flight.by_id.remove(&packet_id).is_some() && state.stored {
            let key = in_flight_key(vhost, session, packet_id);
            self.committer.append(|writer| writer.meta_delete(&key));
        }
    }

    /// Remembers exactly these deliveries, in this order.
    pub(super) fn replace_in_flight(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &mut SessionState,
        in_flight: &[InFlight],
    ) {
        let old = std::mem::take(&mut state.in_flight);
        state.in_flight.next_order = old.next_order;
        let puts: Vec<_> =
            in_flight.iter().map(|f| (f.packet_id, state.in_flight.put(f))).collect();
        if !state.stored || (old.by_id.is_empty() && puts.is_empty()) {
            return;
        }
        self.committer.append(|writer| {
            for (packet_id, put) in &puts {
                let key = in_flight_key(vhost, session, *packet_id);
                writer.meta_put(&key, &definitions::encode(put));
            }
            for packet_id in old.by_id.keys().filter(|id| !state.in_flight.by_id.contains_key(id)) {
                writer.meta_delete(&in_flight_key(vhost, session, *packet_id));
            }
        });
    }

    /// Applies what the store has kept of a session's deliveries to the queues they came from.
    /// Blocks; for the start.
    ///
    /// Errors: those of reading messages.
    pub(crate) fn restore_in_flight(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        store: &Arc<dyn Store>,
    ) -> Result<(), StoreError> {
        let mut state = session.state.lock();
        if let Some(queue) = session.endpoint.queue()
            && state.was_connected
        {
            state.unsure_before = queue.next_seq();
        }
        let mut released: BTreeMap<ConsumerId, Vec<Seq>> = BTreeMap::new();
        let mut begun: BTreeMap<ConsumerId, Vec<Seq>> = BTreeMap::new();
        for in_flight in state.in_flight.in_order() {
            let InFlight { consumer, seq, qos, .. } = in_flight;
            if in_flight.released {
                released.entry(consumer).or_default().push(seq);
            } else if qos == 2 && consumer != SESSION_QUEUE {
                begun.entry(consumer).or_default().push(seq);
            }
        }
        for (consumer, seqs) in released {
            // The client has the message, whether or not its acknowledgement was stored.
            if let Some((queue, _)) = self.queue_of(vhost, session, &state, consumer) {
                let had = self.entries_at(&queue, &seqs, store)?;
                queue.settle_restored(&had);
            }
        }
        for (consumer, seqs) in begun {
            let Some((queue, true)) = self.queue_of(vhost, session, &state, consumer) else {
                continue;
            };
            let entries = self.entries_at(&queue, &seqs, store)?;
            if !entries.is_empty() {
                let slot = queue.park_restored(consumer, entries);
                state.parked.insert(consumer, Parked { queue, slot });
            }
        }
        Ok(())
    }

    fn entries_at(
        &self,
        queue: &Queue,
        seqs: &[Seq],
        store: &Arc<dyn Store>,
    ) -> Result<Vec<Entry>, StoreError> {
        let logs: BTreeMap<u8, LogId> = queue.logs().into_iter().collect();
        let mut found = Vec::new();
        for seq in seqs {
            let at = Position::named(*seq);
            let Some(log) = logs.get(&at.level()) else { continue };
            let at = [MessageRef { log: *log, seq: at.seq() }];
            match wait(|reply| store.read_at(&at, reply)) {
                Ok(page) => found.extend(page.messages),
                // It stays in its queue, which finds out as well.
                Err(StoreError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // What the subscriptions say matters only for what is sent again by the queue.
        let entry =
            |stored| self.entry_of(queue, stored, |_| Matched { qos: 2, ..Matched::default() });
        Ok(found.into_iter().filter_map(entry).collect())
    }

    /// The queue behind a consumer of a session, and whether it is that of a share.
    #[expect(clippy::unused_self, reason = "part of the core's operations on sessions")]
    fn queue_of(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &SessionState,
        consumer: ConsumerId,
    ) -> Option<(Arc<Queue>, bool)> {
        if consumer == SESSION_QUEUE {
            return session.endpoint.queue().map(|queue| (queue, false));
        }
        let subscription = state.subscriptions.values().find(|s| s.consumer == consumer)?;
        let (name, is_share) = match &subscription.target {
            SubscriptionTarget::Share { queue, .. } => (queue, true),
            SubscriptionTarget::Queue { queue } => (queue, false),
            SubscriptionTarget::Topic { .. } => return None,
        };
        Some((vhost.topology.load().queue(name)?.clone(), is_share))
    }

    /// The session has ended: nobody else gets what its client has begun to receive
    /// [MQTT-4.8.2-5].
    pub(super) fn forget_in_flights(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &mut SessionState,
    ) {
        for (_, parked) in std::mem::take(&mut state.parked) {
            parked.queue.drop_parked(parked.slot);
        }
        self.replace_in_flight(vhost, session, state, &[]);
    }
}

fn in_flight_key(vhost: &Vhost, session: &ClientSession, packet_id: u16) -> String {
    let number = packet_id.to_string();
    definitions::key(&[kind::IN_FLIGHT, vhost.name.as_str(), &session.client_id, &number])
}

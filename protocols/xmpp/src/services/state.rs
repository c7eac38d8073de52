//! What a stream has going with the services.

use std::collections::HashMap;

use polymq_contract::{Command, DeliveryRange, Note, Outcome, Settlement};
use polymq_model::ConsumerId;

use crate::{
    jid::Jid,
    session::{Session, Settle, Turn, settle_as},
    xml::Element,
};

/// Consumers, rooms and subscriptions that one stream may have.
pub(crate) const PLACES_MAX: usize = 1000;

/// What a stream has going with the services.
#[derive(Debug, Default)]
pub(crate) struct ServiceState {
    /// Deliveries that are settled one by one, by the ids of their stanzas.
    receipts: HashMap<String, Settle>,
    last_receipt: u64,
    /// The consumer of the user's mailbox, while it is ours.
    pub(crate) mailbox: Option<ConsumerId>,
    /// The last presence that was sent to everybody.
    pub(crate) presence: Option<Element>,
    /// Those who got a presence of their own, and must hear of its end.
    pub(crate) directed: Vec<Jid>,
}

impl ServiceState {
    /// An id for a stanza whose delivery is settled by a receipt.
    pub(crate) fn await_receipt(&mut self, settle: Settle) -> String {
        self.last_receipt = self.last_receipt.wrapping_add(1);
        let id = format!("polymq-{}", self.last_receipt);
        self.receipts.insert(id.clone(), settle);
        id
    }
}

impl Session {
    /// Settles the delivery whose stanza had this id; false when there is none.
    pub(crate) fn settle_receipt(
        &mut self,
        id: &str,
        outcome: Outcome,
        note: Option<Box<Note>>,
        turn: &mut Turn<'_>,
    ) -> bool {
        let settle = self.services.receipts.remove(id);
        match (settle, note) {
            (Some(settle), None) => settle_as(settle, outcome, turn),
            (Some(settle), note) => {
                let deliveries = DeliveryRange { first: settle.number, last: settle.number };
                let settlement = Settlement::new(settle.consumer, deliveries, outcome);
                turn.effects.commands.push(Command::Settle(Settlement { note, ..settlement }));
            }
            (None, _) => {}
        }
        settle.is_some()
    }

    /// Forgets the receipts that a consumer waits for.
    pub(crate) fn forget_receipts(&mut self, consumer: ConsumerId) {
        self.services.receipts.retain(|_, settle| settle.consumer != consumer);
    }
}

//! How a client's acknowledgement ends a delivery, with its words for why.

use polymq_contract::{Command, DeliveryRange, Effects, Note, Outcome, Settlement};
use polymq_model::ConsumerId;

use crate::{codec::ack::Ack, publish_out::Flight, session::Session};

impl Session {
    pub(crate) fn settle(&self, flight: &Flight, ack: Ack<'_>, effects: &mut Effects) {
        let source = self.subscriptions.source(flight.consumer);
        let is_plain_queue = source.is_some_and(|source| source.queue.is_some());
        let outcome = match ack.reason.0 {
            // A subscriber of topics cannot give a message back.
            _ if !is_plain_queue => Outcome::Accepted,
            0x97 => Outcome::Returned,
            0x80 | 0x83 => Outcome::Failed,
            0x87 | 0x90 | 0x99 => Outcome::Rejected,
            _ => Outcome::Accepted,
        };
        let (consumer, number) = (flight.consumer, flight.number);
        match ack.text.filter(|_| number > 0 && outcome != Outcome::Accepted) {
            None => push_settlement(consumer, number, outcome, effects),
            Some(text) => {
                let deliveries = DeliveryRange { first: number, last: number };
                let note = Note { reason: Some(text.to_owned()), ..Note::default() };
                let note = Some(Box::new(note));
                let settlement = Settlement { consumer, deliveries, outcome, note };
                effects.commands.push(Command::Settle(settlement));
            }
        }
    }
}

/// Settles one delivery, together with its neighbour when that was the last command. Number 0 needs
/// no settling.
pub(crate) fn push_settlement(
    consumer: ConsumerId,
    number: u64,
    outcome: Outcome,
    effects: &mut Effects,
) {
    if number == 0 {
        return;
    }
    if let Some(Command::Settle(last)) = effects.commands.last_mut()
        && last.consumer == consumer
        && last.outcome == outcome
        && last.note.is_none()
        && last.deliveries.last.checked_add(1) == Some(number)
    {
        last.deliveries.last = number;
        return;
    }
    let deliveries = DeliveryRange { first: number, last: number };
    effects.commands.push(Command::Settle(Settlement::new(consumer, deliveries, outcome)));
}

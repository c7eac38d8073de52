//! ACK and NACK.

use polymq_contract::{Command as Order, DeliveryRange, Effects, Note, Outcome, Settlement};
use polymq_model::ConsumerId;

use crate::{
    codec::{Frame, Version},
    frames::demand,
    receipts::Wait,
    refusal::{Failure, Step},
    send::{flag, number},
    session::Session,
    subscription::AckMode,
    transaction::Taken,
};

/// The longest reason that is kept with a dead letter.
const REASON_BYTES_MAX: usize = 1024;

impl Session {
    /// ACK.
    pub(crate) fn on_ack(&mut self, frame: &Frame<'_>, effects: &mut Effects) -> Step {
        self.settle(frame, Outcome::Accepted, None, effects)
    }

    /// NACK, which version 1.0 has not.
    pub(crate) fn on_nack(&mut self, frame: &Frame<'_>, effects: &mut Effects) -> Step {
        if self.version == Version::V10 {
            return Err(Failure::malformed("version 1.0 has no NACK"));
        }
        let requeues = match frame.find("requeue") {
            Some(text) => flag("requeue", &text)?,
            None => self.shared.settings.nack_requeues,
        };
        let retry_after_ms = match frame.find("x-retry-after") {
            Some(text) => Some(number("x-retry-after", &text)?),
            None => None,
        };
        let reason = frame.find("x-reason").map(|text| {
            let end = text.floor_char_boundary(REASON_BYTES_MAX);
            text.get(..end).unwrap_or_default().to_owned()
        });
        let outcome = if requeues { Outcome::Returned } else { Outcome::Rejected };
        let says_more = retry_after_ms.is_some() || reason.is_some();
        let note = says_more.then(|| Box::new(Note { retry_after_ms, reason }));
        self.settle(frame, outcome, note, effects)
    }

    fn settle(
        &mut self,
        frame: &Frame<'_>,
        outcome: Outcome,
        note: Option<Box<Note>>,
        effects: &mut Effects,
    ) -> Step {
        let (consumer, number) = self.delivery_of(frame)?;
        let transaction = frame.find("transaction");
        if let Some(transaction) = &transaction {
            self.transactions.check(transaction)?;
        }
        let Some(subscription) = self.subscriptions.find(consumer) else {
            return Err(unknown_delivery(frame));
        };
        let mut numbers = Vec::new();
        let is_cumulative = subscription.ack == AckMode::Client;
        let is_known = match (is_cumulative, transaction.is_some()) {
            (true, _) => subscription.unsettled.take_up_to(number, |number| numbers.push(number)),
            (false, is_later) => {
                if is_later {
                    numbers.push(number);
                }
                subscription.unsettled.take(number)
            }
        };
        if !is_known {
            return Err(unknown_delivery(frame));
        }
        let receipt = frame.find_raw("receipt");
        if let Some(transaction) = transaction {
            let taken = Taken { consumer, numbers, outcome, note };
            self.transactions.settle(&transaction, taken, self.limits.transaction_bytes_max)?;
            self.receipts.done(receipt);
            return Ok(());
        }
        self.subscriptions.sweep(consumer);
        if numbers.is_empty() {
            numbers.push(number);
        }
        let ranges = ranges(&numbers).map(|deliveries| Settlement {
            consumer,
            deliveries,
            outcome,
            note: note.clone(),
        });
        if let Some(receipt) = receipt {
            // The receipt says that the settlement lasts.
            let settlements = ranges.collect();
            let request = self.fresh_request();
            self.receipts.expect(Wait::Answer(request), Some(receipt));
            self.commit(request, Vec::new(), settlements, effects);
            return Ok(());
        }
        ranges.for_each(|settlement| push(settlement, effects));
        Ok(())
    }

    /// The delivery that ACK or NACK names.
    ///
    /// Old clients go on with `message-id` in 1.2, and leave `subscription` out in 1.1; both still
    /// say which delivery is meant.
    fn delivery_of(&mut self, frame: &Frame<'_>) -> Step<(ConsumerId, u64)> {
        let id = match (self.version, frame.find("id")) {
            (Version::V12, Some(id)) => id,
            _ => demand(frame, "message-id")?,
        };
        let delivery = self.read_message_id(&id).ok_or_else(|| unknown_delivery(frame))?;
        if let Some(named) = frame.find("subscription")
            && self.version == Version::V11
        {
            let subscription = self.subscriptions.find(delivery.0);
            if !subscription.is_some_and(|subscription| subscription.has_id(&named)) {
                let text = format!("message '{id}' was not sent to subscription '{named}'");
                return Err(Failure::invalid(text));
            }
        }
        Ok(delivery)
    }

    /// Takes a `message-id` of this connection apart.
    fn read_message_id(&self, id: &str) -> Option<(ConsumerId, u64)> {
        let (consumer, number) =
            id.strip_prefix(self.name.as_str())?.strip_prefix('-')?.split_once('-')?;
        Some((ConsumerId(consumer.parse().ok()?), number.parse().ok()?))
    }
}

fn unknown_delivery(frame: &Frame<'_>) -> Box<Failure> {
    let id = frame.find("id").or_else(|| frame.find("message-id")).unwrap_or_default();
    let text = format!("{} of '{id}', which waits for none", frame.command.as_str());
    Failure::invalid(text)
}

/// Numbers, ascending, as ranges without gaps: what is missing may be part of a transaction.
pub(crate) fn ranges(numbers: &[u64]) -> impl Iterator<Item = DeliveryRange> {
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    runs.filter_map(|run| Some(DeliveryRange { first: *run.first()?, last: *run.last()? }))
}

/// Adds a settlement, or makes the last command's range longer by it.
fn push(settlement: Settlement, effects: &mut Effects) {
    if let Some(Order::Settle(last)) = effects.commands.last_mut()
        && last.consumer == settlement.consumer
        && last.outcome == settlement.outcome
        && last.note.is_none()
        && settlement.note.is_none()
        && last.deliveries.last.checked_add(1) == Some(settlement.deliveries.first)
    {
        last.deliveries.last = settlement.deliveries.last;
        return;
    }
    effects.commands.push(Order::Settle(settlement));
}

//! `deliver` and `settle`.

use std::collections::BTreeSet;

use polymq_contract::{
    Command, Delivery, DeliveryRange, MessageKind, Note, Outcome, Settlement, web_message::put_head,
};
use polymq_model::{
    ConsumerId,
    json_form::{HTTP, Shown, Style},
};
use serde::Serialize;

use crate::{
    answer::Wrong,
    op::{Ending, Settle},
    session::{Session, Turn},
};

#[derive(Serialize)]
struct Deliver<'a, M> {
    op: &'static str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<u64>,
    message: M,
}

impl Session {
    pub(crate) fn deliver(&mut self, delivery: &Delivery, turn: &mut Turn<'_>) {
        let Some(subscription) = self.consumers.get_mut(&delivery.consumer) else { return };
        let tag = (delivery.number != 0).then_some(delivery.number);
        subscription.unsettled.extend(tag);
        let format = delivery.message.format();
        if format.id != HTTP.id {
            self.counters.conversions.pair(format, &HTTP).messages.add(1);
        }
        let mut message = Shown::new(&delivery.message, turn.now.unix_ms, Style::Bare);
        message.redelivered = delivery.redelivered;
        message.delivery_count = delivery.failed;
        message.acquired_count = delivery.acquired;
        let sub = &*subscription.name;
        let out = &mut turn.effects.out;
        if !subscription.is_binary {
            let said = Deliver { op: "deliver", sub, tag, message };
            // Writing to memory cannot fail, and every key is a string.
            let text = serde_json::to_vec(&said).unwrap_or_default();
            put_head(MessageKind::Text, text.len(), out.frame());
            return out.push_shared(text.into());
        }
        let mut message = serde_json::to_value(message).unwrap_or_default();
        if let Some(fields) = message.as_object_mut() {
            fields.remove("payload");
            fields.remove("payload_encoding");
        }
        let said = Deliver { op: "deliver", sub, tag, message };
        let json = serde_json::to_vec(&said).unwrap_or_default();
        let body = delivery.message.body();
        let length = json.len().saturating_add(body.len()).saturating_add(4);
        put_head(MessageKind::Binary, length, out.frame());
        let json_length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        out.buffer().extend_from_slice(&json_length.to_be_bytes());
        out.buffer().extend_from_slice(&json);
        match delivery.message.large_body() {
            Some(body) => out.push_shared(body.clone()),
            None => out.buffer().extend_from_slice(body),
        }
    }

    pub(crate) fn on_settle(&mut self, settle: Settle, turn: &mut Turn<'_>) -> Result<(), Wrong> {
        let Settle { sub, tags, outcome, delay, reason, .. } = settle;
        let (consumer, subscription) = self.find(&sub)?;
        let (mut known, mut unknown) = (BTreeSet::new(), Vec::new());
        for tag in tags {
            match subscription.unsettled.remove(&tag) {
                true => drop(known.insert(tag)),
                false => unknown.push(tag),
            }
        }
        let note = Note { retry_after_ms: delay, reason };
        let note = (note != Note::default()).then(|| Box::new(note));
        let outcome = match outcome {
            Ending::Ack => Outcome::Accepted,
            Ending::Requeue => Outcome::Failed,
            Ending::Reject => Outcome::Rejected,
        };
        for deliveries in ranges(known) {
            let note = note.clone();
            let settlement = Settlement { consumer, deliveries, outcome, note };
            turn.effects.commands.push(Command::Settle(settlement));
        }
        match unknown.is_empty() {
            true => Ok(()),
            false => {
                let text = "these are not unsettled deliveries of the subscription";
                Err(Wrong { tags: unknown, ..Wrong::new("unknown_tag", text) })
            }
        }
    }

    /// A subscription that the client names.
    pub(crate) fn find(
        &mut self,
        sub: &str,
    ) -> Result<(ConsumerId, &mut crate::subscribe::Subscription), Wrong> {
        let unknown = || Wrong::new("unknown_sub", "there is no such subscription");
        let consumer = *self.subs.get(sub).ok_or_else(unknown)?;
        let subscription = self.consumers.get_mut(&consumer).ok_or_else(unknown)?;
        Ok((consumer, subscription))
    }
}

/// Numbers that follow each other, together.
fn ranges(numbers: BTreeSet<u64>) -> Vec<DeliveryRange> {
    let mut ranges: Vec<DeliveryRange> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(number) => range.last = number,
            _ => ranges.push(DeliveryRange { first: number, last: number }),
        }
    }
    ranges
}

//! `publish` and `confirm`.

use bytes::Bytes;
use polymq_contract::{Command, Place, Publish as Order, PublishOutcome};
use polymq_model::{
    Body, Durability, PublisherId,
    json_form::{BadField, NewJsonMessage, Sender},
};

use crate::{
    answer::{Said, Wrong, say},
    op::{Confirm, Id, Publish},
    session::{Session, Turn},
};

/// The only publisher of a connection.
const PUBLISHER: PublisherId = PublisherId(1);

/// A publish that is to be confirmed.
#[derive(Debug)]
pub(crate) struct Publishing {
    pub(crate) id: Id,
    /// Where it is, once it has been taken.
    place: Option<Place>,
}

impl Session {
    pub(crate) fn on_publish(
        &mut self,
        publish: Publish,
        body: Option<Bytes>,
        id: Option<&Id>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Wrong> {
        let Publish { message, confirm, .. } = publish;
        if body.is_some() && message.payload.is_some() {
            let text = "the body stands behind the JSON; leave `payload` out";
            return Err(Wrong { at: Some("/payload".to_owned()), ..Wrong::new("bad_field", text) });
        }
        let written = match body {
            Some(_) => Vec::new(),
            None => message.body().map_err(bad_field)?,
        };
        let Some(exchange) = &message.exchange else {
            let text = "there is no exchange; a queue is `\"exchange\":\"\"` and its name as key";
            return Err(Wrong {
                at: Some("/exchange".to_owned()),
                ..Wrong::new("bad_field", text)
            });
        };
        let new = NewJsonMessage {
            exchange,
            key: message.routing_key.as_deref().unwrap_or_default(),
            properties: message.properties,
            body: match &body {
                Some(body) => Body::Shared(body.clone()),
                None => Body::Slice(&written),
            },
            sender: Sender { user: &self.user, impersonator: self.impersonator },
        };
        let (message, delay) =
            new.build(turn.now.unix_ms, &self.limits, &mut self.scratch).map_err(bad_field)?;
        let number = match id.filter(|_| confirm == Confirm::Stored) {
            None => 0,
            Some(id) => {
                self.last_publish = self.last_publish.saturating_add(1);
                let publishing = Publishing { id: id.clone(), place: None };
                self.publishes.insert(self.last_publish, publishing);
                self.last_publish
            }
        };
        turn.effects.commands.push(Command::Publish(Order {
            publisher: PUBLISHER,
            number,
            mandatory: false,
            received: None,
            delay,
            message,
        }));
        Ok(())
    }

    pub(crate) fn on_placed(&mut self, first: u64, last: u64, place: Place) {
        if first <= last {
            self.publishes.range_mut(first..=last).for_each(|(_, one)| one.place = Some(place));
        }
    }

    pub(crate) fn on_confirmed(
        &mut self,
        first: u64,
        last: u64,
        outcome: PublishOutcome,
        turn: &mut Turn<'_>,
    ) {
        let mut left = self.publishes.split_off(&first);
        self.publishes.extend(left.split_off(&last.saturating_add(1)));
        for Publishing { id: re, place } in left.values() {
            let (outcome, code) = match outcome {
                PublishOutcome::Routed(Durability::Memory) => ("routed", None),
                PublishOutcome::Routed(_) => ("stored", None),
                PublishOutcome::Unrouted => ("unrouted", None),
                PublishOutcome::Refused(kind) => ("refused", Some(kind.as_str())),
            };
            let routed = matches!(outcome, "routed" | "stored");
            let (queues, schedule_id) = match place.filter(|_| code.is_none()) {
                Some(Place::Queues(queues)) => (Some(queues), None),
                Some(Place::Scheduled(id)) => (None, Some(id.to_string())),
                None => (None, None),
            };
            let said = Said::Confirm { re, outcome, routed, queues, schedule_id, code };
            say(&said, turn.effects);
        }
    }
}

fn bad_field(bad: BadField) -> Wrong {
    let code = if bad.is_too_large { "message_too_large" } else { "bad_field" };
    Wrong { at: Some(bad.at), ..Wrong::new(code, bad.text) }
}

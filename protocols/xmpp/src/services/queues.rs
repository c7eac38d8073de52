//! Queues: presence that asks for messages starts a consumer, presence that goes ends it.

use polymq_contract::{Command, Consume};
use polymq_model::{Table, Value};

use super::{iq::Route, state::PLACES_MAX};
use crate::{
    error::StanzaError,
    session::{Ack, Session, Source, Turn, consume_of},
    xml::{Element, ns},
};

/// Deliveries on their way to somebody who says nothing else.
const PREFETCH: u32 = 10;

/// What `<consume/>` asks for.
struct Wanted {
    prefetch: u32,
    ack: Ack,
    exclusive: bool,
    arguments: Table,
}

impl Wanted {
    /// Reads `<consume/>`; an attribute that is not ours is an argument of the consumer.
    fn read(consume: &Element, bound: u32) -> Result<Self, StanzaError> {
        let mut prefetch = PREFETCH;
        let mut ack = Ack::Stream;
        let mut exclusive = false;
        let mut arguments = Table::new();
        for attribute in consume.attributes.iter().filter(|attribute| attribute.ns.is_empty()) {
            let (name, value) = (&*attribute.name, attribute.value.as_str());
            let wrong = |allowed: &str| {
                StanzaError::bad_request(format!("`{name}` is `{value}`, and must be {allowed}"))
            };
            match name {
                "prefetch" => {
                    let number: u32 = value.parse().map_err(|_| wrong("a whole number"))?;
                    prefetch = if number == 0 { bound } else { number.min(bound) };
                }
                "ack" => {
                    ack = match value {
                        "stream" => Ack::Stream,
                        "individual" => Ack::Individual,
                        _ => return Err(wrong("`stream` or `individual`")),
                    }
                }
                "exclusive" => exclusive = matches!(value, "true" | "1"),
                "priority" => {
                    let number: i64 = value.parse().map_err(|_| wrong("a whole number"))?;
                    arguments.push(("x-priority".to_owned(), Value::I64(number)));
                }
                other => arguments.push((other.to_owned(), Value::String(value.to_owned()))),
            }
        }
        Ok(Self { prefetch, ack, exclusive, arguments })
    }
}

impl Session {
    /// Presence sent to a queue.
    pub(super) fn on_queue_presence(
        &mut self,
        presence: &Element,
        route: &Route,
        queue: &str,
        turn: &mut Turn<'_>,
    ) {
        match presence.get("type") {
            None => {
                let Some(consume) = presence.find(ns::QUEUE, "consume") else { return };
                if let Err(error) = self.start_consumer(presence, consume, route, queue, turn) {
                    self.send_error(presence, &error, turn);
                }
            }
            Some("unavailable") => self.stop_consumer(route, queue, turn),
            Some(_) => {}
        }
    }

    fn start_consumer(
        &mut self,
        presence: &Element,
        consume: &Element,
        route: &Route,
        queue: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        if self.consumer_of(route, queue).is_some() {
            return Ok(());
        }
        if self.consumers.len() >= PLACES_MAX {
            let text = format!("a stream has at most {PLACES_MAX} consumers");
            return Err(StanzaError::new("wait", "resource-constraint", text));
        }
        let Wanted { prefetch, ack, exclusive, arguments } =
            Wanted::read(consume, self.limits.prefetch_max.into())?;
        let consumer = self.next_consumer();
        let source = Source::Queue { who: route.from.clone(), queue: queue.to_owned(), ack };
        self.consumers.insert(consumer, source);
        self.services.directed.retain(|jid| *jid != route.to);
        let tag = route.from.to_string();
        let made = consume_of(queue.to_owned(), consumer, false);
        let made = Consume { prefetch, exclusive, tag, arguments, ..made };
        let (presence, head) = (presence.clone(), Element::new(ns::CLIENT, "presence"));
        self.ask(
            turn,
            |request| Command::Consume(Box::new(Consume { request, ..made })),
            move |session, answer, turn| match answer {
                // The queue is there for whoever consumes from it.
                Ok(_) => {
                    let answer = head
                        .maybe_attr("from", presence.get("to"))
                        .maybe_attr("to", presence.get("from"));
                    session.send(&answer, turn);
                }
                Err(refusal) => {
                    session.consumers.remove(&consumer);
                    session.send_error(&presence, &StanzaError::from(refusal), turn);
                }
            },
        );
        Ok(())
    }

    fn consumer_of(&self, route: &Route, name: &str) -> Option<polymq_model::ConsumerId> {
        let found = self.consumers.iter().find(|(_, source)| {
            matches!(source, Source::Queue { who, queue, .. }
                if *who == route.from && queue == name)
        });
        found.map(|(consumer, _)| *consumer)
    }

    fn stop_consumer(&mut self, route: &Route, queue: &str, turn: &mut Turn<'_>) {
        let Some(consumer) = self.consumer_of(route, queue) else { return };
        self.end_consumer(consumer, turn);
    }

    /// Ends a consumer; what it has not settled comes back.
    pub(super) fn end_consumer(&mut self, consumer: polymq_model::ConsumerId, turn: &mut Turn<'_>) {
        let source = self.consumers.remove(&consumer);
        self.ask(turn, |request| Command::Cancel { request, consumer }, |_, _, _| {});
        match source {
            // Receipts that come later find nothing; what is on the stream is settled with it.
            Some(Source::Queue { ack: Ack::Individual, .. }) => {
                self.forget_receipts(consumer);
                turn.effects.commands.push(Command::Release { consumers: vec![consumer] });
            }
            Some(Source::Topic { queue, .. } | Source::Room { queue, .. }) => {
                self.delete_own(queue, turn);
            }
            _ => {}
        }
    }

    /// Deletes the queue of a subscription or an occupant that is no more, or never was.
    pub(crate) fn delete_own(&mut self, queue: String, turn: &mut Turn<'_>) {
        let (if_unused, if_empty) = (false, false);
        let delete = |request| Command::DeleteQueue { request, queue, if_unused, if_empty };
        self.ask(turn, delete, |_, _, _| {});
    }
}

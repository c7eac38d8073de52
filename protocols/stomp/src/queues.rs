//! Queues that the connection makes by itself: those of `/queue/` on first use, and those of
//! `/temp-queue/` for answers.

use polymq_contract::{
    Answer, Command as Order, Consume, DeclareQueue, Effects, Refusal, RefusalKind,
};
use polymq_model::{QueueName, RequestId, Table, Value};

use crate::{
    codec::Frame,
    refusal::{Failure, Step},
    route,
    send::flag,
    session::{Later, Pending, Session},
    subscription::{AckMode, Key, Subscription},
};

/// A queue that is being looked for, and made when it is missing.
#[derive(Debug)]
pub(crate) struct Ensuring {
    queue: Box<str>,
    /// How it is made when the look finds nothing; `None` once that is under way.
    declare: Option<Box<DeclareQueue>>,
}

/// A private queue for answers.
#[derive(Debug)]
pub(crate) struct TempQueue {
    /// Its name, as a destination has it.
    written: String,
}

/// What making a private queue waits for.
#[derive(Debug)]
pub(crate) struct TempQueueStep {
    destination: Box<str>,
    /// Its name, once it is declared.
    queue: Option<QueueName>,
}

/// How a frame wants a queue to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueueWish {
    pub(crate) durable: Option<bool>,
    pub(crate) auto_delete: Option<bool>,
    pub(crate) exclusive: Option<bool>,
    pub(crate) arguments: Table,
}

impl QueueWish {
    /// Reads `durable` (or `persistent`), `auto-delete`, `exclusive` and the arguments.
    pub(crate) fn of_subscribe(frame: &Frame<'_>) -> Step<Self> {
        let read = |name: &str| frame.find(name).map(|value| flag(name, &value)).transpose();
        let durable = match read("durable")? {
            Some(durable) => Some(durable),
            None => read("persistent")?,
        };
        Ok(Self {
            durable,
            auto_delete: read("auto-delete")?,
            exclusive: read("exclusive")?,
            arguments: arguments(frame, |name| !is_of_consumer(name)),
        })
    }

    /// SEND names arguments only; its `persistent` and `x-durability` are
    /// about the message.
    fn of_send(frame: &Frame<'_>) -> Step<Self> {
        let read = |name: &str| frame.find(name).map(|value| flag(name, &value)).transpose();
        Ok(Self {
            durable: read("durable")?,
            auto_delete: read("auto-delete")?,
            exclusive: read("exclusive")?,
            arguments: arguments(frame, |name| QUEUE_ARGUMENTS.contains(&name)),
        })
    }

    /// True when the frame says how the queue is to be, so that another one is not the same.
    pub(crate) fn is_explicit(&self) -> bool {
        self.durable.is_some()
            || self.auto_delete.is_some()
            || self.exclusive.is_some()
            || !self.arguments.is_empty()
    }

    /// The declaration of a queue of `/queue/`: durable, unless the frame says otherwise.
    pub(crate) fn shared_queue(self, queue: &str) -> DeclareQueue {
        DeclareQueue {
            request: RequestId(0),
            queue: queue.to_owned(),
            passive: false,
            durable: self.durable.unwrap_or(true),
            exclusive: self.exclusive.unwrap_or(false),
            auto_delete: self.auto_delete.unwrap_or(false),
            arguments: self.arguments,
        }
    }
}

/// Arguments that the first SEND to a queue may name. All other headers are the message's own.
const QUEUE_ARGUMENTS: [&str; 20] = [
    "x-consumer-timeout",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-delayed-retry-backoff",
    "x-delayed-retry-factor",
    "x-delayed-retry-jitter",
    "x-delayed-retry-max",
    "x-delayed-retry-min",
    "x-delayed-retry-type",
    "x-delivery-limit",
    "x-delivery-limit-counts",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-type",
    "x-single-active-consumer",
];

/// Arguments of SUBSCRIBE that are not its queue's.
fn is_of_consumer(name: &str) -> bool {
    matches!(name, "x-queue-name" | "x-priority" | "x-origin" | "x-stream-offset" | "x-group")
}

/// Headers of a frame that begin with `x-`, as text.
pub(crate) fn arguments(frame: &Frame<'_>, is_wanted: impl Fn(&str) -> bool) -> Table {
    let mut found = Table::new();
    for (name, raw) in frame.raw_headers().filter(|(name, _)| name.starts_with("x-")) {
        let is_first = !found.iter().any(|(known, _)| known == name);
        if is_wanted(name) && is_first {
            found.push((name.to_owned(), Value::String(frame.decode(raw).into_owned())));
        }
    }
    found
}

impl Session {
    /// Returns when the queue of a SEND is known to be there.
    ///
    /// A queue that is there is taken as it is, unless the frame says how it should be.
    pub(crate) fn make_ready(
        &mut self,
        queue: &str,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<(), Later> {
        if self.known_queues.contains(queue) {
            return Ok(());
        }
        let wish = QueueWish::of_send(frame)?;
        let is_explicit = wish.is_explicit();
        let declare = Box::new(wish.shared_queue(queue));
        self.ensure(declare, is_explicit, effects);
        Err(Later::Wait)
    }

    /// Looks for a queue, or declares it at once when it must be as `declare` says.
    pub(crate) fn ensure(
        &mut self,
        declare: Box<DeclareQueue>,
        is_explicit: bool,
        effects: &mut Effects,
    ) {
        let name = declare.queue.clone();
        let queue: Box<str> = name.as_str().into();
        if is_explicit {
            let request = self.ask(Pending::Ensure(Ensuring { queue, declare: None }));
            let declare = Box::new(DeclareQueue { request, ..*declare });
            effects.commands.push(Order::DeclareQueue(declare));
        } else {
            let request = self.ask(Pending::Ensure(Ensuring { queue, declare: Some(declare) }));
            effects.commands.push(Order::FindQueue { request, queue: name });
        }
    }

    pub(crate) fn on_ensured(
        &mut self,
        ensuring: Ensuring,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) -> Step {
        let Ensuring { queue, declare } = ensuring;
        match (answer, declare) {
            (Err(refusal), Some(declare)) if refusal.kind == RefusalKind::NotFound => {
                self.ensure(declare, true, effects);
                return Ok(());
            }
            // It is there, and whoever may publish to it may do so, also when it is another
            // connection's own.
            (Err(refusal), Some(_)) if refusal.kind == RefusalKind::Locked => {}
            (Err(refusal), _) => return Err(Failure::refused(&refusal)),
            (Ok(_), _) => {}
        }
        if self.known_queues.len() >= self.limits.destinations_max {
            self.known_queues.clear();
        }
        self.known_queues.insert(queue);
        Ok(())
    }

    /// The name of the private queue behind a reply address, as a destination has it; makes the
    /// queue and subscribes to it when the address is new.
    pub(crate) fn temp_queue(
        &mut self,
        destination: &str,
        effects: &mut Effects,
    ) -> Result<&str, Later> {
        if !self.temp_queues.contains_key(destination) {
            route::parse(destination)?;
            self.check_subscriptions()?;
            let step = TempQueueStep { destination: destination.into(), queue: None };
            let request = self.ask(Pending::TempQueue(step));
            effects.commands.push(Order::DeclareQueue(Box::new(DeclareQueue {
                request,
                queue: String::new(),
                passive: false,
                durable: false,
                exclusive: true,
                auto_delete: true,
                arguments: Table::new(),
            })));
        }
        self.temp_queues.get(destination).map(|queue| queue.written.as_str()).ok_or(Later::Wait)
    }

    pub(crate) fn on_temp_queue(
        &mut self,
        step: TempQueueStep,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) -> Step {
        let answer = answer.map_err(|refusal| Failure::refused(&refusal))?;
        let TempQueueStep { destination, queue } = step;
        match (queue, answer) {
            (None, Answer::QueueDeclared { queue, .. }) => {
                let key = Key::Destination(destination.clone());
                let mut subscription =
                    Subscription::new(key, Some(&destination), AckMode::Auto, self.version);
                subscription.queue = queue.as_str().to_owned();
                let consumer = self.subscriptions.add(subscription);
                let tag = destination.to_string();
                let name = queue.as_str().to_owned();
                let step = TempQueueStep { destination, queue: Some(queue) };
                let request = self.ask(Pending::TempQueue(step));
                effects.commands.push(Order::Consume(Box::new(Consume {
                    request,
                    consumer,
                    queue: name,
                    no_ack: true,
                    exclusive: false,
                    prefetch: 0,
                    group: 0,
                    tag,
                    arguments: Table::new(),
                })));
            }
            (Some(queue), _) => {
                // Names that the broker makes need no encoding.
                let written = queue.as_str().to_owned();
                self.temp_queues.insert(destination, TempQueue { written });
            }
            (None, _) => {}
        }
        Ok(())
    }
}

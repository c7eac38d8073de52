//! SUBSCRIBE and UNSUBSCRIBE.

use polymq_contract::{
    Answer, BindQueue, Command as Order, Consume, DeclareQueue, Effects, Refusal, RefusalKind,
};
use polymq_model::{ConsumerId, RequestId, Table, address::StompDestination, sha256};

use crate::{
    codec::{Frame, Version},
    frames::demand,
    queues::{QueueWish, arguments},
    receipts::Wait,
    refusal::{Failure, Step},
    route::{self, check_key},
    send::{flag, number},
    session::{Later, Pending, Session},
    subscription::{AckMode, Key, Subscription},
};

/// A subscription on its way: what is done for it, step by step, each after the answer to the one
/// before.
#[derive(Debug)]
pub(crate) struct Subscribing {
    receipt: Option<Box<str>>,
    consumer: ConsumerId,
    step: Next,
    /// The queue is only looked for, and declared when that finds nothing.
    is_lookup: bool,
    declare: Option<DeclareQueue>,
    bind: Option<(String, String)>,
    consume: Consume,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Declare,
    Bind,
    Consume,
    Done,
}

/// Where the messages of a subscription come from.
struct Source {
    /// The queue; empty for one that the broker names.
    queue: String,
    /// How it is made; `None` when it must be there.
    declare: Option<DeclareQueue>,
    is_lookup: bool,
    /// Exchange and pattern.
    bind: Option<(String, String)>,
    is_durable: bool,
}

impl Session {
    /// SUBSCRIBE.
    pub(crate) fn on_subscribe(
        &mut self,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<(), Later> {
        let destination = demand(frame, "destination")?;
        let id = frame.find("id");
        let key = match &id {
            Some(id) => Key::Id((&**id).into()),
            None if self.version == Version::V10 => Key::Destination((&*destination).into()),
            None => return Err(Failure::malformed("SUBSCRIBE has no header 'id'").into()),
        };
        if self.subscriptions.is_taken(&key) {
            let text = match &key {
                Key::Id(id) => format!("there is a subscription '{id}' already"),
                Key::Destination(to) => format!("there is a subscription to '{to}' already"),
            };
            return Err(Failure::of_kind(RefusalKind::Conflict, text).into());
        }
        self.check_subscriptions()?;
        if frame.find_raw("selector").is_some_and(|selector| !selector.trim().is_empty()) {
            let text = "selectors are not available yet: subscribe without 'selector'";
            return Err(Failure::of_kind(RefusalKind::NotAvailable, text).into());
        }
        let ack = ack_mode(frame)?;
        let prefetch = match frame.find("prefetch-count") {
            Some(text) => u32::try_from(number("prefetch-count", &text)?).unwrap_or(u32::MAX),
            None => 0,
        };
        let source = self.source(frame, &destination, id.as_deref())?;
        let mut subscription = Subscription::new(key, id.as_deref(), ack, self.version);
        subscription.queue.clone_from(&source.queue);
        subscription.is_durable = source.is_durable;
        if let Some(text) = frame.find("x-origin") {
            subscription.shows_origin = flag("x-origin", &text)?;
        }
        let consumer = self.subscriptions.add(subscription);
        let consume = Consume {
            request: RequestId(0),
            consumer,
            queue: source.queue,
            no_ack: ack == AckMode::Auto,
            exclusive: false,
            prefetch,
            group: 0,
            tag: id.as_deref().unwrap_or(&destination).to_owned(),
            // A queue that must be there takes no arguments, so the broker is shown this one here.
            arguments: arguments(frame, |name| matches!(name, "x-priority" | "x-selector")),
        };
        let step = if source.declare.is_some() { Next::Declare } else { Next::Consume };
        let subscribing = Box::new(Subscribing {
            receipt: frame.find_raw("receipt").map(Into::into),
            consumer,
            step,
            is_lookup: source.is_lookup,
            declare: source.declare,
            bind: source.bind,
            consume,
        });
        self.pending_receipt.clone_from(&subscribing.receipt);
        self.go_on(subscribing, effects);
        Ok(())
    }

    fn source(&self, frame: &Frame<'_>, destination: &str, id: Option<&str>) -> Step<Source> {
        let wish = QueueWish::of_subscribe(frame)?;
        match route::parse(destination)? {
            StompDestination::Queue(name) => {
                let is_lookup = !wish.is_explicit();
                let queue = name.into_owned();
                let declare = Some(wish.shared_queue(&queue));
                Ok(Source { queue, declare, is_lookup, bind: None, is_durable: false })
            }
            StompDestination::AmqQueue(name) => Ok(Source {
                queue: name.into_owned(),
                declare: None,
                is_lookup: false,
                bind: None,
                is_durable: false,
            }),
            StompDestination::Topic(key) => {
                let exchange = self.shared.settings.exchange.clone();
                self.bound(frame, wish, destination, id, (exchange, key.into_owned()))
            }
            StompDestination::Exchange { exchange, key } => {
                let key = key.unwrap_or_default().into_owned();
                self.bound(frame, wish, destination, id, (exchange.into_owned(), key))
            }
            StompDestination::TempQueue(_) | StompDestination::ReplyQueue(_) => {
                let text = format!("destination '{destination}' cannot be subscribed to");
                Err(Failure::invalid(text))
            }
        }
    }

    /// A queue of the subscription's own, bound to an exchange.
    fn bound(
        &self,
        frame: &Frame<'_>,
        wish: QueueWish,
        destination: &str,
        id: Option<&str>,
        bind: (String, String),
    ) -> Step<Source> {
        check_key(&bind.1, &self.limits)?;
        let is_durable = wish.durable == Some(true) && wish.auto_delete != Some(true);
        let queue = match (frame.find("x-queue-name"), is_durable, id) {
            (Some(name), ..) if !name.is_empty() => name.into_owned(),
            (_, true, Some(id)) => durable_name(id, destination),
            (_, true, None) => {
                let text = "a durable subscription needs the header 'id' or 'x-queue-name'";
                return Err(Failure::invalid(text));
            }
            _ => String::new(),
        };
        let is_kept = wish.durable == Some(true);
        let declare = DeclareQueue {
            request: RequestId(0),
            queue: queue.clone(),
            passive: false,
            durable: is_kept,
            exclusive: wish.exclusive.unwrap_or(!is_kept),
            auto_delete: wish.auto_delete.unwrap_or(!is_kept),
            arguments: wish.arguments,
        };
        let (declare, bind) = (Some(declare), Some(bind));
        Ok(Source { queue, declare, is_lookup: false, bind, is_durable })
    }

    /// Orders the next step of a subscription.
    fn go_on(&mut self, mut subscribing: Box<Subscribing>, effects: &mut Effects) {
        let request = self.fresh_request();
        let order = match subscribing.step {
            Next::Declare => {
                let passive = subscribing.is_lookup;
                let declare = subscribing.declare.clone();
                declare.map(|declare| {
                    Order::DeclareQueue(Box::new(DeclareQueue { request, passive, ..declare }))
                })
            }
            Next::Bind => subscribing.bind.take().map(|(exchange, key)| {
                let queue = subscribing.consume.queue.clone();
                let arguments = Table::new();
                Order::BindQueue(Box::new(BindQueue { request, queue, exchange, key, arguments }))
            }),
            Next::Consume => {
                let consume = subscribing.consume.clone();
                Some(Order::Consume(Box::new(Consume { request, ..consume })))
            }
            Next::Done => None,
        };
        match order {
            Some(order) => {
                effects.commands.push(order);
                self.pending = Some((request, Pending::Subscribe(subscribing)));
            }
            None => self.receipts.done(subscribing.receipt.as_deref()),
        }
    }

    /// A step of a subscription has been answered.
    pub(crate) fn on_subscribing(
        &mut self,
        mut subscribing: Box<Subscribing>,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) -> Step {
        match answer {
            Err(refusal)
                if refusal.kind == RefusalKind::NotFound
                    && subscribing.step == Next::Declare
                    && subscribing.is_lookup =>
            {
                subscribing.is_lookup = false;
            }
            Err(refusal) => return Err(Failure::refused(&refusal)),
            Ok(answer) => {
                if let Answer::QueueDeclared { queue, .. } = answer {
                    queue.as_str().clone_into(&mut subscribing.consume.queue);
                    if let Some(subscription) = self.subscriptions.find(subscribing.consumer) {
                        queue.as_str().clone_into(&mut subscription.queue);
                    }
                }
                subscribing.step = match subscribing.step {
                    Next::Declare if subscribing.bind.is_some() => Next::Bind,
                    Next::Declare | Next::Bind => Next::Consume,
                    Next::Consume | Next::Done => Next::Done,
                };
            }
        }
        self.go_on(subscribing, effects);
        Ok(())
    }

    /// UNSUBSCRIBE. With `durable:true` the queue of a durable subscription is deleted, also when
    /// this connection has not subscribed to it.
    pub(crate) fn on_unsubscribe(&mut self, frame: &Frame<'_>, effects: &mut Effects) -> Step {
        let id = frame.find("id");
        let destination = frame.find("destination");
        let key = match (&id, &destination) {
            (Some(id), _) => Key::Id((&**id).into()),
            (None, Some(to)) if self.version == Version::V10 => Key::Destination((&**to).into()),
            _ => return Err(Failure::malformed("UNSUBSCRIBE has no header 'id'")),
        };
        let wants_deletion = QueueWish::of_subscribe(frame)?.durable == Some(true);
        let ended = self.subscriptions.end(&key);
        let durable = match &ended {
            Some((_, subscription)) => subscription.is_durable.then(|| subscription.queue.clone()),
            None => match (frame.find("x-queue-name"), &id, &destination) {
                (Some(name), ..) => Some(name.into_owned()),
                (None, Some(id), Some(destination)) => Some(durable_name(id, destination)),
                _ => None,
            },
        };
        let durable = durable.filter(|_| wants_deletion);
        let consumer = ended.map(|(consumer, _)| consumer);
        if consumer.is_none() && durable.is_none() {
            let what = id.or(destination).unwrap_or_default();
            let text = format!("there is no subscription '{what}'");
            return Err(Failure::of_kind(RefusalKind::NotFound, text));
        }
        let mut request = RequestId(0);
        if let Some(consumer) = consumer {
            self.subscriptions.sweep(consumer);
            request = self.fresh_request();
            effects.commands.push(Order::Cancel { request, consumer });
        }
        if let Some(queue) = durable {
            request = self.fresh_request();
            let (if_unused, if_empty) = (false, false);
            effects.commands.push(Order::DeleteQueue { request, queue, if_unused, if_empty });
        }
        self.receipts.expect(Wait::Answer(request), frame.find_raw("receipt"));
        Ok(())
    }
}

fn ack_mode(frame: &Frame<'_>) -> Step<AckMode> {
    match frame.find("ack").as_deref() {
        None | Some("auto") => Ok(AckMode::Auto),
        Some("client") => Ok(AckMode::Client),
        Some("client-individual") => Ok(AckMode::ClientIndividual),
        Some(other) => {
            let text = format!("header 'ack' is '{other}', not auto, client or client-individual");
            Err(Failure::invalid(text))
        }
    }
}

/// The queue of a durable subscription, the same whenever its client comes back.
fn durable_name(id: &str, destination: &str) -> String {
    let hash = sha256(format!("{id}\0{destination}").as_bytes());
    let hex = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
    hex.fold("stomp-subscription-".to_owned(), |name, pair| name + &pair)
}

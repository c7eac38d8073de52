//! `subscribe`, `credit` and `unsubscribe`.

use std::collections::BTreeSet;

use polymq_contract::{Answer, BindQueue, CancelReason, Command, Consume, DeclareQueue, Refusal};
use polymq_model::{ConsumerId, Table, Value};

use crate::{
    answer::{Said, Wrong, say, say_wrong},
    op::{AckMode, Credit, Id, NAME_BYTES_MAX, Subscribe, Unsubscribe},
    session::{Ask, Session, Turn},
};

/// Unsettled deliveries where the client does not say how many it wants.
const CREDIT: u32 = 100;
/// Messages that wait for a client which follows an exchange; older ones are dropped.
const FOLLOWED_MAX: i64 = 10_000;

/// A consumer of the client.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) name: Box<str>,
    pub(crate) is_binary: bool,
    is_auto: bool,
    credit: u32,
    pub(crate) unsettled: BTreeSet<u64>,
    /// The queue that was made for it.
    own_queue: Option<String>,
    step: Step,
    id: Option<Id>,
}

#[derive(Debug)]
enum Step {
    /// A queue of its own is being made, for this exchange and pattern.
    Declare {
        exchange: String,
        pattern: String,
    },
    /// It is being bound.
    Bind,
    /// It is about to consume.
    Consume,
    Done,
}

/// A subscription that the client ends.
#[derive(Debug)]
pub(crate) struct Cancelling {
    consumer: ConsumerId,
    id: Option<Id>,
}

impl Session {
    pub(crate) fn on_subscribe(
        &mut self,
        subscribe: Subscribe,
        id: Option<&Id>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Wrong> {
        let Subscribe { sub, queue, exchange, pattern, credit, ack, binary, .. } = subscribe;
        if sub.is_empty() || sub.len() > NAME_BYTES_MAX {
            return Err(Wrong::new("bad_field", "`sub` has 1 to 255 bytes"));
        }
        if self.subs.contains_key(sub.as_str()) {
            return Err(Wrong::new("sub_in_use", "another subscription has this name"));
        }
        let max = self.limits.destinations_max;
        if self.subs.len() >= max {
            return Err(Wrong::new("limit", format!("{max} subscriptions are allowed")));
        }
        let credit_max = u32::from(self.limits.prefetch_max);
        let credit = credit.unwrap_or_else(|| CREDIT.min(credit_max));
        if !(1..=credit_max).contains(&credit) {
            return Err(Wrong::new("bad_field", format!("`credit` is 1 to {credit_max}")));
        }
        let step = match (&queue, exchange, pattern) {
            (Some(_), None, None) => Step::Consume,
            (None, Some(exchange), Some(pattern)) => Step::Declare { exchange, pattern },
            _ => {
                let text = "give a queue, or an exchange and a pattern";
                return Err(Wrong::new("bad_field", text));
            }
        };
        self.last_consumer = self.last_consumer.wrapping_add(1);
        let consumer = ConsumerId(self.last_consumer);
        let subscription = Subscription {
            name: sub.into_boxed_str(),
            is_binary: binary,
            is_auto: ack == AckMode::Auto,
            credit,
            unsettled: BTreeSet::new(),
            own_queue: None,
            step: Step::Done,
            id: id.cloned(),
        };
        self.subs.insert(subscription.name.clone(), consumer);
        self.consumers.insert(consumer, subscription);
        match step {
            Step::Declare { .. } => self.declare(consumer, step, turn),
            _ => self.consume(consumer, queue.unwrap_or_default(), turn),
        }
        Ok(())
    }

    fn declare(&mut self, consumer: ConsumerId, step: Step, turn: &mut Turn<'_>) {
        if let Some(subscription) = self.consumers.get_mut(&consumer) {
            subscription.step = step;
        }
        let text = |text: &str| Value::String(text.to_owned());
        let arguments: Table = vec![
            ("x-max-length".to_owned(), Value::I64(FOLLOWED_MAX)),
            ("x-overflow".to_owned(), text("drop-head")),
        ];
        self.ask(Ask::Subscribing(consumer), turn, |request| {
            Command::DeclareQueue(Box::new(DeclareQueue {
                request,
                queue: String::new(),
                passive: false,
                durable: false,
                exclusive: true,
                auto_delete: true,
                arguments,
            }))
        });
    }

    fn consume(&mut self, consumer: ConsumerId, queue: String, turn: &mut Turn<'_>) {
        let Some(subscription) = self.consumers.get_mut(&consumer) else { return };
        subscription.step = Step::Consume;
        let (no_ack, tag) = (subscription.is_auto, subscription.name.to_string());
        // A group of its own, because the bound of a group can be moved.
        let (group, prefetch) = (consumer.0, subscription.credit);
        turn.effects.commands.push(Command::SetGroupPrefetch { group, prefetch });
        self.ask(Ask::Subscribing(consumer), turn, |request| {
            Command::Consume(Box::new(Consume {
                request,
                consumer,
                queue,
                no_ack,
                exclusive: false,
                prefetch: 0,
                group,
                tag,
                arguments: Table::new(),
            }))
        });
    }

    /// Goes on with a subscription.
    pub(crate) fn on_subscribing(
        &mut self,
        consumer: ConsumerId,
        answer: Result<Answer, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        let Some(subscription) = self.consumers.get_mut(&consumer) else { return };
        let step = std::mem::replace(&mut subscription.step, Step::Done);
        match (step, answer) {
            (_, Err(refusal)) => self.refuse_subscription(consumer, &refusal, turn),
            (Step::Declare { exchange, pattern }, Ok(Answer::QueueDeclared { queue, .. })) => {
                let queue = queue.as_str().to_owned();
                subscription.step = Step::Bind;
                subscription.own_queue = Some(queue.clone());
                self.ask(Ask::Subscribing(consumer), turn, |request| {
                    let (key, arguments) = (pattern, Table::new());
                    let bind = BindQueue { request, queue, exchange, key, arguments };
                    Command::BindQueue(Box::new(bind))
                });
            }
            (Step::Bind, Ok(_)) => {
                let queue = subscription.own_queue.clone().unwrap_or_default();
                self.consume(consumer, queue, turn);
            }
            (_, Ok(_)) => {
                let id = subscription.id.take();
                let said = Said::Subscribed { re: id.as_ref(), sub: &subscription.name };
                say(&said, turn.effects);
            }
        }
    }

    fn refuse_subscription(
        &mut self,
        consumer: ConsumerId,
        refusal: &Refusal,
        turn: &mut Turn<'_>,
    ) {
        let Some(subscription) = self.forget(consumer) else { return };
        say_wrong(subscription.id.as_ref(), &Wrong::refused(refusal), turn.effects);
        if let Some(queue) = subscription.own_queue {
            // A queue that nobody has consumed from does not go by itself.
            let (if_unused, if_empty) = (false, false);
            self.ask(Ask::Forgotten, turn, |request| Command::DeleteQueue {
                request,
                queue,
                if_unused,
                if_empty,
            });
        }
    }

    pub(crate) fn on_credit(&mut self, credit: &Credit, turn: &mut Turn<'_>) -> Result<(), Wrong> {
        let credit_max = u32::from(self.limits.prefetch_max);
        let (consumer, subscription) = self.find(&credit.sub)?;
        let credit = subscription.credit.saturating_add(credit.add);
        if credit > credit_max {
            let text = format!("the credit would be {credit}, {credit_max} is allowed");
            return Err(Wrong::new("limit", text));
        }
        subscription.credit = credit;
        let order = Command::SetGroupPrefetch { group: consumer.0, prefetch: credit };
        turn.effects.commands.push(order);
        Ok(())
    }

    pub(crate) fn on_unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe,
        id: Option<&Id>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Wrong> {
        let (consumer, subscription) = self.find(&unsubscribe.sub)?;
        if !matches!(subscription.step, Step::Done) {
            let text = "the subscription is not answered yet";
            return Err(Wrong::new("sub_in_use", text));
        }
        self.forget(consumer);
        let cancelling = Cancelling { consumer, id: id.cloned() };
        let cancel = |request| Command::Cancel { request, consumer };
        self.ask(Ask::Cancelled(cancelling), turn, cancel);
        Ok(())
    }

    /// What was not settled goes back.
    pub(crate) fn on_cancelled(&mut self, cancelling: &Cancelling, turn: &mut Turn<'_>) {
        let consumers = vec![cancelling.consumer];
        turn.effects.commands.push(Command::Release { consumers });
        if let Some(re) = &cancelling.id {
            say(&Said::Ok { re }, turn.effects);
        }
    }

    pub(crate) fn on_consumer_cancelled(
        &mut self,
        consumer: ConsumerId,
        reason: CancelReason,
        turn: &mut Turn<'_>,
    ) {
        let Some(subscription) = self.forget(consumer) else { return };
        let reason = match reason {
            CancelReason::QueueDeleted => "queue_deleted",
            CancelReason::Timeout => "timeout",
            CancelReason::Denied => "denied",
            CancelReason::Administrator => "administrator",
        };
        say(&Said::Cancelled { sub: &subscription.name, reason }, turn.effects);
    }

    fn forget(&mut self, consumer: ConsumerId) -> Option<Subscription> {
        let subscription = self.consumers.remove(&consumer)?;
        self.subs.remove(&subscription.name);
        Some(subscription)
    }
}

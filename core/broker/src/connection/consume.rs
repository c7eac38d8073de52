//! Consuming, getting and settling.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{
    Answer, Consume, Delivery, Event, Outcome, Refusal, RefusalKind, Settlement,
};
use polymq_model::{ConsumerId, Now, RequestId, Table, address::Mailbox, value::find};

use super::BrokerConnection;
use crate::{
    access::Read,
    counters::add,
    mailbox,
    queue::{ConsumerSpec, Got, Group, Queue, check_available},
    vhost::ReplyTarget,
};

/// The pseudo queue of direct replies.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// A consumer of this connection.
pub(super) struct Held {
    pub(super) queue: Arc<Queue>,
    pub(super) slot: usize,
    pub(super) group: Arc<Group>,
    pub(super) active: bool,
    /// What its client has begun to receive stays with it when the client goes away.
    pub(super) parks: bool,
}

/// What the arguments of a consumer say.
#[derive(Default)]
pub(super) struct Manner {
    pub(super) priority: i64,
    pub(super) timeout_ms: Option<u64>,
}

impl Manner {
    /// Errors: kind `Invalid` for another type or range, kind `NotAvailable` for what is planned
    /// and must not be ignored.
    pub(super) fn parse(arguments: &Table) -> Result<Self, Refusal> {
        check_available(arguments)?;
        let number = |name, least, wanted| match find(arguments, name) {
            None => Ok(None),
            Some(value) => match value.as_i64().filter(|number| *number >= least) {
                Some(number) => Ok(Some(number)),
                None => Err(crate::queue::invalid(name, value, wanted)),
            },
        };
        let timeout = number("x-consumer-timeout", 0, "a number of at least 0")?;
        Ok(Self {
            priority: number("x-priority", i64::MIN, "a whole number")?.unwrap_or(0),
            timeout_ms: timeout.and_then(|ms| u64::try_from(ms).ok()),
        })
    }
}

/// A get whose message is being read.
pub(super) struct Get {
    request: RequestId,
    queue: String,
    no_ack: bool,
    consumer: ConsumerId,
}

impl BrokerConnection {
    pub(super) fn group(&mut self, number: u32) -> Arc<Group> {
        self.facts.group(number)
    }

    pub(super) fn consume(&mut self, consume: Consume, now: Now) {
        if consume.queue == REPLY_TO {
            return self.consume_replies(&consume);
        }
        if Mailbox::parse(&consume.queue).is_some_and(|mailbox| mailbox.resource.is_some()) {
            return self.consume_resource(consume, now);
        }
        let found = (|| {
            let vhost = self.open_host()?;
            self.permit::<Read>(&vhost, "queue", &consume.queue)?;
            let queue = self.core.find_queue(&vhost, &consume.queue, self.id)?;
            Ok((queue, Manner::parse(&consume.arguments)?))
        })();
        match found {
            Ok((queue, manner)) => self.start(consume, queue, manner, None, now),
            Err(refusal) => self.answer(consume.request, Err(refusal), None),
        }
    }

    /// Starts a consumer; with `address` one that takes only what has this key.
    fn start(
        &mut self,
        consume: Consume,
        queue: Arc<Queue>,
        Manner { priority, timeout_ms }: Manner,
        address: Option<Box<str>>,
        now: Now,
    ) {
        let spec = ConsumerSpec {
            consumer: consume.consumer,
            outbox: self.outbox.clone(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: consume.prefetch,
            group: self.group(consume.group),
            priority,
            timeout_ms,
            address,
            tag: consume.tag.as_str().into(),
            arguments: Arc::new(consume.arguments),
        };
        spec.group.prefetch.store(consume.prefetch, Ordering::Relaxed);
        let answer = Answer::Consuming { reply_name: None };
        self.attach(queue, spec, Some((consume.request, answer)), now);
    }

    /// Registers a consumer at a queue. The answer goes out before its first delivery.
    pub(super) fn attach(
        &mut self,
        queue: Arc<Queue>,
        spec: ConsumerSpec,
        request: Option<(RequestId, Answer)>,
        now: Now,
    ) {
        let (consumer, group) = (spec.consumer, spec.group.clone());
        let number = request.as_ref().map(|(request, _)| *request);
        let first = request
            .map(|(request, answer)| Event::Answered { request, answer: Box::new(Ok(answer)) });
        match queue.add_consumer(spec, first, now.unix_ms) {
            Ok(slot) => {
                let held = Held { queue, slot, group, active: true, parks: false };
                self.consumers.insert(consumer, held);
            }
            Err(refusal) => {
                if let Some(request) = number {
                    self.answer(request, Err(refusal), None);
                }
            }
        }
    }

    fn consume_replies(&mut self, consume: &Consume) {
        let vhost = match self.open_host() {
            Ok(vhost) => vhost,
            Err(refusal) => return self.answer(consume.request, Err(refusal), None),
        };
        if !consume.no_ack {
            let text = "reply consumer cannot acknowledge";
            let refusal = Refusal::new(RefusalKind::Conflict, text);
            return self.answer(consume.request, Err(refusal), None);
        }
        let name = self.core.random_name(&format!("{REPLY_TO}."));
        let target = ReplyTarget { outbox: self.outbox.clone(), consumer: consume.consumer };
        vhost.replies.lock().insert(name.clone(), target);
        self.reply_names.push(name.clone());
        self.answer(consume.request, Ok(Answer::Consuming { reply_name: Some(name) }), None);
    }

    /// Takes what is sent to one resource of a mailbox, instead of whoever had it before. What it
    /// has no room for, and what it does not settle, waits in the mailbox.
    fn consume_resource(&mut self, consume: Consume, now: Now) {
        let found = (|| {
            let vhost = self.open_host()?;
            self.permit::<Read>(&vhost, "queue", &consume.queue)?;
            let who = self.identity.principal();
            let is_own = who.is_some_and(|who| mailbox::is_own(&who, &consume.queue));
            self.core.ensure_mailbox(&vhost, &consume.queue, is_own);
            let mailbox = Mailbox::parse(&consume.queue).map_or("", |mailbox| mailbox.queue);
            let queue = self.core.find_queue(&vhost, mailbox, self.id)?;
            Ok((queue, Manner::parse(&consume.arguments)?))
        })();
        match found {
            Ok((queue, manner)) => {
                let address = Some(consume.queue.as_str().into());
                self.start(consume, queue, manner, address, now);
            }
            Err(refusal) => self.answer(consume.request, Err(refusal), None),
        }
    }

    pub(super) fn cancel(&mut self, request: RequestId, consumer: ConsumerId, now: Now) {
        if let Some(held) = self.consumers.get_mut(&consumer) {
            let was_active = std::mem::replace(&mut held.active, false);
            let queue = held.queue.clone();
            let cancelled = queue.cancel(held.slot, now.unix_ms);
            if !cancelled.has_unsettled {
                self.consumers.remove(&consumer);
            }
            if was_active {
                self.delete_if_auto(&queue, cancelled.consumers_left);
            }
        } else if let Some(vhost) = self.vhost.clone() {
            let mut replies = vhost.replies.lock();
            self.reply_names.retain(|name| {
                let ours = replies.get(name).is_some_and(|target| {
                    target.consumer == consumer && Arc::ptr_eq(&target.outbox, &self.outbox)
                });
                if ours {
                    replies.remove(name);
                }
                !ours
            });
        }
        self.answer(request, Ok(Answer::Done), None);
    }

    pub(super) fn release(&mut self, consumers: &[ConsumerId], now: Now) {
        self.release_as(consumers, Outcome::Failed, now);
    }

    pub(super) fn release_as(&mut self, consumers: &[ConsumerId], outcome: Outcome, now: Now) {
        let Some(vhost) = self.vhost.clone() else { return };
        let mut bounded = false;
        for consumer in consumers {
            let Some(held) = self.consumers.remove(consumer) else { continue };
            bounded |= held.group.is_bounded();
            let left = held.queue.release(held.slot, outcome, now.unix_ms);
            if held.active {
                self.delete_if_auto(&held.queue, left);
            }
        }
        let mut replies = vhost.replies.lock();
        self.reply_names.retain(|name| {
            let ours = replies.get(name).is_some_and(|t| consumers.contains(&t.consumer));
            if ours {
                replies.remove(name);
            }
            !ours
        });
        drop(replies);
        if bounded {
            self.dispatch_all(now);
        }
    }

    /// An auto-delete queue goes with its last consumer.
    pub(super) fn delete_if_auto(&mut self, queue: &Arc<Queue>, consumers_left: usize) {
        if queue.settings.auto_delete
            && consumers_left == 0
            && let Some(vhost) = self.vhost.clone()
        {
            self.core.remove_queue(&vhost, queue, true, false).ok();
            self.exclusive.retain(|other| !Arc::ptr_eq(other, queue));
        }
    }

    pub(super) fn get(
        &mut self,
        request: RequestId,
        queue: &str,
        no_ack: bool,
        consumer: ConsumerId,
        now: Now,
    ) {
        let found = (|| {
            let vhost = self.open_host()?;
            self.permit::<Read>(&vhost, "queue", queue)?;
            let queue = self.core.find_queue(&vhost, queue, self.id)?;
            queue.check_gettable()?;
            Ok(queue)
        })();
        let queue = match found {
            Ok(queue) => queue,
            Err(refusal) => return self.answer(request, Err(refusal), None),
        };
        let spec = ConsumerSpec {
            consumer,
            outbox: self.outbox.clone(),
            no_ack,
            exclusive: false,
            prefetch: 1,
            group: Arc::default(),
            priority: 0,
            timeout_ms: None,
            address: None,
            tag: "".into(),
            arguments: Arc::default(),
        };
        let group = spec.group.clone();
        let got = queue.get(spec, now.unix_ms);
        let (got, remaining) = match got {
            Got::Now(got, remaining) => (got, remaining),
            Got::Later => {
                let queue = queue.name.as_str().to_owned();
                self.getting = Some(Box::new(Get { request, queue, no_ack, consumer }));
                return;
            }
            Got::Unreadable => {
                let text = format!("the next message of queue '{}' cannot be read", queue.name);
                let refusal = Refusal::new(RefusalKind::StoreFailed, text);
                return self.answer(request, Err(refusal), None);
            }
        };
        self.note_got(got.as_deref().map(|(delivery, _)| delivery), no_ack);
        let delivery = got.map(|got| {
            let (delivery, slot) = *got;
            if let Some(slot) = slot {
                let held = Held { queue, slot, group, active: false, parks: false };
                self.consumers.insert(consumer, held);
            }
            Box::new(delivery)
        });
        self.answer(request, Ok(Answer::Got { delivery, remaining }), None);
    }

    fn note_got(&self, delivery: Option<&Delivery>, no_ack: bool) {
        let activity = &self.speaking.activity;
        let counter = match (delivery, no_ack) {
            (None, _) => &activity.got_empty,
            (Some(_), true) => &activity.got_no_ack,
            (Some(_), false) => &activity.got,
        };
        add(counter, 1);
        add(&activity.redelivered, u64::from(delivery.is_some_and(|d| d.redelivered)));
    }

    /// Gets again what waited for a page of the disk.
    pub(super) fn get_again(&mut self, now: Now) {
        if let Some(get) = self.getting.take() {
            let Get { request, queue, no_ack, consumer } = *get;
            self.get(request, &queue, no_ack, consumer, now);
        }
    }

    pub(super) fn set_group_prefetch(&mut self, group: u32, prefetch: u32, now: Now) {
        self.group(group).set_limit(prefetch);
        self.dispatch_all(now);
    }

    /// Lets the queues of all consumers look again.
    pub(super) fn dispatch_all(&mut self, now: Now) {
        for held in self.consumers.values().filter(|held| held.active) {
            held.queue.dispatch(now.unix_ms);
        }
    }

    pub(super) fn settle(&mut self, settlement: Settlement, now: Now) {
        // Dead letters are of this moment and must find what was published before.
        if settlement.outcome != Outcome::Accepted {
            self.finish_run(now);
        }
        let Some(held) = self.consumers.get(&settlement.consumer) else { return };
        let (range, outcome) = (settlement.deliveries, settlement.outcome);
        let count = range.last.saturating_sub(range.first).saturating_add(1);
        match outcome {
            Outcome::Accepted => self.tally.acknowledged += count,
            Outcome::Returned | Outcome::Failed => self.tally.returned += 1,
            Outcome::Rejected | Outcome::TooLarge => self.tally.rejected += 1,
        }
        let done = held.queue.settle(held.slot, &settlement, now.unix_ms);
        let bounded = held.group.is_bounded();
        let group = held.group.clone();
        let queue = held.queue.clone();
        if done {
            self.consumers.remove(&settlement.consumer);
        }
        if bounded {
            self.dispatch_group(&group, &queue, now);
        }
    }

    /// Room in a group lets its other queues go on.
    fn dispatch_group(&mut self, group: &Arc<Group>, but: &Arc<Queue>, now: Now) {
        for held in self.consumers.values() {
            if held.active && Arc::ptr_eq(&held.group, group) && !Arc::ptr_eq(&held.queue, but) {
                held.queue.dispatch(now.unix_ms);
            }
        }
    }
}

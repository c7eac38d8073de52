//! `basic.qos`, `consume`, `cancel`, `get` and `recover`, and what arrives for consumers.

use amq_protocol::protocol::{AMQPClass, basic};
use polymq_contract::{Answer, CancelReason, Command, Consume, Delivery, Refusal};
use polymq_model::{ConsumerId, Message, Table};

use super::{Channel, Context, ReplyConsumer, deliver::Shown, inspect::DIRECT_REPLY_TO};
use crate::{
    codec::{cold, hot, id},
    connection::{Consumer, Pending, Purpose},
    refusal::{Exception, ReplyCode, Step},
};

/// A message that arrives for a consumer.
pub(crate) struct Arrival<'a> {
    pub(crate) message: &'a Message,
    /// Number to settle it by, 0 for nothing to settle.
    pub(crate) number: u64,
    pub(crate) redelivered: bool,
    pub(crate) acquired: u16,
    pub(crate) failed: u16,
}

impl<'a> From<&'a Delivery> for Arrival<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            message: &delivery.message,
            number: delivery.number,
            redelivered: delivery.redelivered,
            acquired: delivery.acquired,
            failed: delivery.failed,
        }
    }
}

impl Channel {
    pub(super) fn on_basic(
        &mut self,
        class: basic::AMQPMethod,
        arguments: Table,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step {
        use basic::AMQPMethod::{Cancel, CancelOk, Consume, Get, Recover, RecoverAsync};
        match class {
            Consume(consume) => self.on_consume(consume, arguments, method, context),
            Cancel(cancel) => {
                self.on_cancel(&cancel, method, context);
                Ok(())
            }
            Get(get) => {
                let queue = self.queue_name(get.queue.into(), method)?;
                let consumer = context.connection.fresh_consumer();
                let purpose = Purpose::Get { consumer };
                let request = self.expect(purpose, method, false, context);
                let no_ack = get.no_ack;
                context.effects.commands.push(Command::Get { request, queue, no_ack, consumer });
                Ok(())
            }
            Recover(recover) if recover.requeue => {
                self.recover(context);
                let ok = basic::AMQPMethod::RecoverOk(basic::RecoverOk {});
                self.put(context.effects, AMQPClass::Basic(ok));
                Ok(())
            }
            RecoverAsync(recover) if recover.requeue => {
                self.recover(context);
                Ok(())
            }
            Recover(_) | RecoverAsync(_) => {
                Err(Exception::new(ReplyCode::NotImplemented, method, "requeue=false"))
            }
            // The client confirms a cancellation that we announced.
            CancelOk(_) => Ok(()),
            _ => Err(Exception::new(ReplyCode::CommandInvalid, method, "unexpected method")),
        }
    }

    pub(super) fn on_qos(&mut self, payload: &[u8], context: &mut Context<'_>) -> Step {
        let qos = cold::split_id(payload)
            .and_then(|(_, arguments)| hot::qos(arguments))
            .map_err(|error| Exception::malformed(error, id::QOS))?;
        if qos.size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.size);
            return Err(Exception::new(ReplyCode::NotImplemented, id::QOS, text));
        }
        let prefetch = u32::from(qos.count);
        if qos.global {
            self.group_prefetch = prefetch;
            let group = u32::from(self.number);
            context.effects.commands.push(Command::SetGroupPrefetch { group, prefetch });
        } else {
            self.prefetch = prefetch;
        }
        self.put(context.effects, AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})));
        Ok(())
    }

    fn on_consume(
        &mut self,
        consume: basic::Consume,
        arguments: Table,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step {
        let queue = self.queue_name(consume.queue.into(), method)?;
        let tag = match String::from(consume.consumer_tag) {
            tag if tag.is_empty() => context.connection.fresh_tag(),
            tag => tag,
        };
        if self.consumer(&tag, context).is_some() {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Exception::new(ReplyCode::NotAllowed, method, text));
        }
        if queue == DIRECT_REPLY_TO {
            if !consume.no_ack {
                return Err(Exception::invalid(method, "reply consumer cannot acknowledge"));
            }
            if self.reply.is_some() {
                return Err(Exception::invalid(method, "reply consumer already set"));
            }
        }
        let consumer = context.connection.fresh_consumer();
        self.consumers.push(consumer);
        let known = Consumer { channel: self.number, tag: tag.as_str().into() };
        context.connection.consumers.insert(consumer, known);
        let request = self.expect(Purpose::Consume { consumer }, method, consume.nowait, context);
        context.effects.commands.push(Command::Consume(Box::new(Consume {
            request,
            consumer,
            queue,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: self.prefetch,
            group: u32::from(self.number),
            tag,
            arguments,
        })));
        Ok(())
    }

    /// The consumer of this channel with a tag.
    fn consumer(&self, tag: &str, context: &Context<'_>) -> Option<ConsumerId> {
        let consumers = &context.connection.consumers;
        self.consumers
            .iter()
            .copied()
            .find(|id| consumers.get(id).is_some_and(|consumer| &*consumer.tag == tag))
    }

    pub(super) fn on_consuming(
        &mut self,
        consumer: ConsumerId,
        answer: Result<Answer, Refusal>,
        pending: &Pending,
        context: &mut Context<'_>,
    ) -> Step {
        let reply_name = match answer {
            Ok(Answer::Consuming { reply_name }) => reply_name,
            Ok(_) => None,
            Err(refusal) => {
                self.forget(consumer, context);
                return Err(Exception::refused(&refusal, pending.method));
            }
        };
        if let Some(name) = reply_name {
            self.reply = Some(ReplyConsumer { consumer, name });
        }
        if !pending.no_wait
            && let Some(known) = context.connection.consumers.get(&consumer)
        {
            let consumer_tag = cold::short(&known.tag);
            let ok = basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag });
            self.put(context.effects, AMQPClass::Basic(ok));
        }
        Ok(())
    }

    fn on_cancel(&mut self, cancel: &basic::Cancel, method: (u16, u16), context: &mut Context<'_>) {
        let tag = cancel.consumer_tag.as_str();
        if let Some(consumer) = self.consumer(tag, context) {
            let purpose = Purpose::Cancel { consumer };
            let request = self.expect(purpose, method, cancel.nowait, context);
            context.effects.commands.push(Command::Cancel { request, consumer });
        } else if !cancel.nowait {
            // Cancelling what is gone succeeds: the server's own cancel may have crossed it.
            self.put_cancel_ok(tag, context);
        }
    }

    fn put_cancel_ok(&self, tag: &str, context: &mut Context<'_>) {
        let consumer_tag = cold::short(tag);
        let ok = basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag });
        self.put(context.effects, AMQPClass::Basic(ok));
    }

    pub(super) fn on_cancelled(
        &mut self,
        consumer: ConsumerId,
        pending: &Pending,
        context: &mut Context<'_>,
    ) {
        let tag = self.forget(consumer, context).unwrap_or_default();
        if !pending.no_wait {
            self.put_cancel_ok(&tag, context);
        }
    }

    /// Nothing is delivered to the consumer any more; its unsettled deliveries stay.
    fn forget(&mut self, consumer: ConsumerId, context: &mut Context<'_>) -> Option<Box<str>> {
        self.consumers.retain(|id| *id != consumer);
        if self.reply.as_ref().is_some_and(|reply| reply.consumer == consumer) {
            self.reply = None;
        }
        context.connection.consumers.remove(&consumer).map(|known| known.tag)
    }

    /// The broker has ended a consumer.
    pub(crate) fn on_consumer_cancelled(
        &mut self,
        consumer: ConsumerId,
        reason: CancelReason,
        context: &mut Context<'_>,
    ) -> Step {
        let Some(tag) = self.forget(consumer, context) else { return Ok(()) };
        if reason == CancelReason::QueueDeleted {
            // What it had not settled went with the queue.
            let consumers = vec![consumer];
            context.effects.commands.push(Command::Release { consumers });
        }
        if context.connection.capabilities.consumer_cancel_notify {
            let cancel = basic::Cancel { consumer_tag: cold::short(&tag), nowait: true };
            let cancel = basic::AMQPMethod::Cancel(cancel);
            self.put(context.effects, AMQPClass::Basic(cancel));
            return Ok(());
        }
        let (code, why) = match reason {
            CancelReason::QueueDeleted => (ReplyCode::NotFound, "its queue was deleted"),
            CancelReason::Timeout => {
                (ReplyCode::PreconditionFailed, "a delivery was not acknowledged in time")
            }
            CancelReason::Denied => (ReplyCode::AccessRefused, "its user may no longer read"),
            CancelReason::Administrator => {
                (ReplyCode::PreconditionFailed, "an administrator ended it")
            }
        };
        Err(Exception::new(code, id::CONSUME, format!("consumer '{tag}' was cancelled: {why}")))
    }

    /// A delivery of a consumer. `tag` is the consumer's.
    #[inline]
    pub(crate) fn on_delivered(
        &mut self,
        consumer: ConsumerId,
        arrival: &Arrival<'_>,
        context: &mut Context<'_>,
    ) {
        let Some(props) = self.props_shown(consumer, arrival, context) else { return };
        let tag = self.tags.assign(consumer, arrival.number);
        self.put_delivery(consumer, tag, arrival, props, context);
    }

    pub(super) fn on_got(
        &mut self,
        consumer: ConsumerId,
        answer: Answer,
        context: &mut Context<'_>,
    ) {
        let shown = match answer {
            Answer::Got { delivery: Some(delivery), remaining } => {
                let props = self.props_shown(consumer, &Arrival::from(&*delivery), context);
                props.map(|props| (delivery, remaining, props))
            }
            _ => None,
        };
        let Some((delivery, remaining, props)) = shown else {
            let empty = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
            return self.put(context.effects, AMQPClass::Basic(empty));
        };
        let tag = self.tags.assign(consumer, delivery.number);
        let remaining = super::topology::count(remaining);
        self.put_got(tag, remaining, &Arrival::from(&*delivery), props, context);
    }

    /// What of the properties the client sees, or `None` when they do not fit its frames: the
    /// delivery is then settled as too large.
    #[inline]
    fn props_shown(
        &mut self,
        consumer: ConsumerId,
        arrival: &Arrival<'_>,
        context: &mut Context<'_>,
    ) -> Option<Shown> {
        let shown = Shown::of(arrival, context);
        if shown.fits(arrival.message, context.connection) {
            return Some(shown);
        }
        tracing::debug!(
            event = "delivery_too_large",
            channel = self.number,
            "properties larger than frame_max: not delivered"
        );
        if arrival.number != 0 {
            context.effects.commands.push(Command::Settle(polymq_contract::Settlement {
                consumer,
                deliveries: polymq_contract::DeliveryRange {
                    first: arrival.number,
                    last: arrival.number,
                },
                outcome: polymq_contract::Outcome::TooLarge,
                note: None,
            }));
        }
        None
    }
}

//! What the broker says, handed to the channel it concerns.

use amq_protocol::protocol::{
    AMQPClass,
    connection::{AMQPMethod, Blocked, Unblocked},
};
use polymq_contract::{Answer, Command, Effects, Event, Refusal};
use polymq_model::{ConsumerId, Now, PublisherId, RequestId};

use crate::{
    channel::{Arrival, Channel, Context},
    codec::{cold, id},
    connection::{Pending, Purpose, put_method},
    refusal::{Exception, ReplyCode},
    session::{Phase, Session},
};

impl Session {
    /// Handles one event.
    #[inline]
    pub(crate) fn on_event(&mut self, event: Event, now: Now, effects: &mut Effects) {
        if matches!(self.phase, Phase::Closing | Phase::Closed) {
            return;
        }
        match event {
            Event::Delivered(delivery) => {
                self.deliver(delivery.consumer, &Arrival::from(&delivery), now, effects);
            }
            Event::Confirmed { publisher, first, last, outcome, .. } => {
                if let Some(channel) = self.publishing(publisher)
                    && channel.on_confirmed(first, last, outcome, effects)
                {
                    self.note_confirming(number_of(publisher));
                }
            }
            Event::Answered { request, answer } => self.on_answered(request, *answer, now, effects),
            Event::Broadcast { consumer, batch, .. } => {
                for message in batch.messages() {
                    let arrival =
                        Arrival { message, number: 0, redelivered: false, acquired: 0, failed: 0 };
                    self.deliver(consumer, &arrival, now, effects);
                }
            }
            Event::Returned { publisher, message } => {
                let number = number_of(publisher);
                if self.publishing(publisher).is_some() {
                    self.with_channel(number, now, effects, |channel, context| {
                        channel.on_returned(&message, context);
                        Ok(())
                    });
                }
            }
            Event::PublishRefused { publisher, refusal, .. } => {
                self.on_publish_refused(publisher, &refusal, now, effects);
            }
            Event::ConsumerCancelled { consumer, reason } => {
                if let Some(known) = self.connection.consumers.get(&consumer) {
                    let number = known.channel;
                    self.with_channel(number, now, effects, |channel, context| {
                        channel.on_consumer_cancelled(consumer, reason, context)
                    });
                }
            }
            Event::Blocked { reason } => {
                let blocked = Blocked { reason: cold::short(&reason) };
                self.on_blocked(true, AMQPMethod::Blocked(blocked), now, effects);
            }
            Event::Unblocked => {
                self.on_blocked(false, AMQPMethod::Unblocked(Unblocked {}), now, effects);
            }
            Event::Closing { reason, .. } => self.on_closing(&reason, now, effects),
            // Other protocols have sessions that can be taken over.
            Event::TakenOver | Event::Passed(_) | Event::Placed { .. } => {}
        }
    }

    #[inline]
    fn deliver(
        &mut self,
        consumer: ConsumerId,
        arrival: &Arrival<'_>,
        now: Now,
        effects: &mut Effects,
    ) {
        // A consumer whose channel has closed was released: its deliveries are back in their
        // queues.
        let Some(known) = self.connection.consumers.get(&consumer) else { return };
        let Some(channel) = self.channels.find(known.channel) else { return };
        let mut context = Context { connection: &mut self.connection, now, effects };
        channel.on_delivered(consumer, arrival, &mut context);
    }

    /// The open channel that published, unless it has closed since.
    #[inline]
    fn publishing(&mut self, publisher: PublisherId) -> Option<&mut Channel> {
        self.channel(number_of(publisher), incarnation_of(publisher))
    }

    fn channel(&mut self, number: u16, incarnation: u16) -> Option<&mut Channel> {
        let channel = self.channels.find(number)?;
        (channel.incarnation() == incarnation && channel.is_open()).then_some(channel)
    }

    /// Lets a channel act, and tells the peer when it fails.
    fn with_channel(
        &mut self,
        number: u16,
        now: Now,
        effects: &mut Effects,
        act: impl FnOnce(&mut Channel, &mut Context<'_>) -> crate::refusal::Step,
    ) {
        let Some(channel) = self.channels.find(number) else { return };
        let mut context = Context { connection: &mut self.connection, now, effects };
        if let Err(exception) = act(channel, &mut context) {
            self.fail(number, &exception, now, effects);
        }
    }

    fn on_answered(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        let is_ours = |pending: &mut Pending| pending.request == request;
        let Some(pending) = self.connection.pending.take_if(is_ours) else { return };
        match pending.purpose {
            Purpose::Authenticate => return self.on_authenticated(answer, now, effects),
            Purpose::UpdateSecret => return self.on_secret_updated(answer, now, effects),
            Purpose::OpenVhost => return self.on_vhost_opened(answer, now, effects),
            Purpose::OpenChannel => return self.on_channel_opened(&pending, answer, now, effects),
            _ => {}
        }
        if self.channel(pending.channel, pending.incarnation).is_some() {
            self.with_channel(pending.channel, now, effects, |channel, context| {
                channel.on_answer(&pending, answer, context)
            });
        } else if let (Purpose::Get { consumer }, Ok(Answer::Got { delivery: Some(_), .. })) =
            (pending.purpose, answer)
        {
            // The channel closed while the message was on its way.
            effects.commands.push(Command::Release { consumers: vec![consumer] });
        }
    }

    /// A channel is open, or the connection must close, as in RabbitMQ.
    fn on_channel_opened(
        &mut self,
        pending: &Pending,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        use amq_protocol::protocol::channel::{AMQPMethod, OpenOk};
        if let Err(refusal) = answer {
            let exception = Exception::refused(&refusal, pending.method);
            return self.refuse_connection(&exception.on_connection(), now, effects);
        }
        self.channels.open(pending.channel);
        let ok = AMQPClass::Channel(AMQPMethod::OpenOk(OpenOk {}));
        cold::put(effects.out.frame(), pending.channel, &ok);
    }

    /// A publish was refused: its channel fails, and the broker may forget that it did.
    fn on_publish_refused(
        &mut self,
        publisher: PublisherId,
        refusal: &Refusal,
        now: Now,
        effects: &mut Effects,
    ) {
        if let Some(number) = self.publishing(publisher).map(|channel| channel.number()) {
            let exception = Exception::refused(refusal, id::PUBLISH);
            self.fail(number, &exception, now, effects);
        }
        self.entered = None;
        effects.commands.push(Command::LeaveChannel { publisher });
    }

    /// Tells clients that understand it, and counts the peer's silence from the end of the block.
    fn on_blocked(&mut self, blocked: bool, told: AMQPMethod, now: Now, effects: &mut Effects) {
        self.connection.blocked = blocked;
        self.connection.heartbeat.received(now.instant);
        if self.connection.capabilities.connection_blocked {
            put_method(effects.out.frame(), told);
        }
    }

    fn on_closing(&mut self, reason: &str, now: Now, effects: &mut Effects) {
        if self.phase == Phase::Header {
            return self.close(effects, "session", reason);
        }
        self.put_confirms(effects);
        let exception = Exception::new(ReplyCode::ConnectionForced, (0, 0), reason);
        self.refuse_connection(&exception, now, effects);
    }

    fn note_confirming(&mut self, number: u16) {
        if self.confirming.last() != Some(&number) {
            self.confirming.push(number);
        }
    }

    /// Writes the confirms that this turn's events gathered.
    pub(crate) fn put_confirms(&mut self, effects: &mut Effects) {
        for number in self.confirming.drain(..) {
            if let Some(channel) = self.channels.find(number) {
                channel.put_confirms(effects);
            }
        }
    }
}

/// A publisher's number is its channel below, and which of the channels with that number above.
fn number_of(publisher: PublisherId) -> u16 {
    let [_, _, high, low] = publisher.0.to_be_bytes();
    u16::from_be_bytes([high, low])
}

fn incarnation_of(publisher: PublisherId) -> u16 {
    let [high, low, _, _] = publisher.0.to_be_bytes();
    u16::from_be_bytes([high, low])
}

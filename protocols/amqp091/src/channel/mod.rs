//! One channel: its own little session, with its own tags, confirms and transaction.

mod confirm;
mod consume;
mod deliver;
mod inspect;
pub(crate) mod publish;
mod settle;
mod topology;
mod tx;

use amq_protocol::protocol::{AMQPClass, access, channel as class};
use polymq_contract::{Answer, ChannelMode, Command, Effects, Refusal};
use polymq_model::{ConsumerId, Now, PublisherId};

pub(crate) use consume::Arrival;

use self::{confirm::Confirms, publish::Content, settle::Tags, tx::Transaction};
use crate::{
    codec::{
        cold,
        frame::{self, Frame},
        id,
    },
    connection::{Connection, Pending, Purpose},
    refusal::{Exception, ReplyCode, Step},
};

/// What a channel may touch while it handles a frame or event.
pub(crate) struct Context<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) now: Now,
    pub(crate) effects: &'a mut Effects,
}

/// How publishes of a channel are answered.
#[derive(Debug)]
enum Mode {
    Plain,
    Confirm(Confirms),
    Tx(Transaction),
}

/// Consumer of `amq.rabbitmq.reply-to`, and the name that answers to it are sent to.
#[derive(Debug)]
struct ReplyConsumer {
    consumer: ConsumerId,
    name: String,
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    number: u16,
    /// Tells this channel from earlier ones with the same number.
    incarnation: u16,
    /// We have sent `channel.close`: everything but its answer is ignored.
    closing: bool,
    content: Content,
    tags: Tags,
    mode: Mode,
    consumers: Vec<ConsumerId>,
    reply: Option<ReplyConsumer>,
    /// Unsettled deliveries of consumers that start from now on.
    prefetch: u32,
    group_prefetch: u32,
    /// The queue that an empty name stands for.
    last_queue: String,
}

impl Channel {
    pub(crate) fn new(number: u16, incarnation: u16) -> Self {
        Self {
            number,
            incarnation,
            closing: false,
            content: Content::None,
            tags: Tags::default(),
            mode: Mode::Plain,
            consumers: Vec::new(),
            reply: None,
            prefetch: 0,
            group_prefetch: 0,
            last_queue: String::new(),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.closing
    }

    pub(crate) fn incarnation(&self) -> u16 {
        self.incarnation
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn publisher(&self) -> PublisherId {
        PublisherId(u32::from(self.incarnation) << 16 | u32::from(self.number))
    }

    /// Handles a method other than `basic.publish`.
    pub(crate) fn on_method(
        &mut self,
        method: (u16, u16),
        payload: &[u8],
        context: &mut Context<'_>,
    ) -> Step {
        if !matches!(self.content, Content::None) {
            let text = format!("expected content, got method {} of class {}", method.1, method.0);
            return Err(Exception::new(ReplyCode::UnexpectedFrame, id::PUBLISH, text));
        }
        if matches!(method, id::ACK | id::NACK | id::REJECT) {
            return self.on_settle(method, payload, context);
        }
        if method == id::QOS {
            return self.on_qos(payload, context);
        }
        if method == id::CHANNEL_CLOSE {
            return self.on_close(payload, context);
        }
        let parsed = cold::parse(payload, context.connection.table_bounds())
            .map_err(|error| Exception::method(error, method))?;
        let table = parsed.table;
        match parsed.class {
            AMQPClass::Basic(basic) => self.on_basic(basic, table, method, context),
            AMQPClass::Exchange(exchange) => self.on_exchange(exchange, table, method, context),
            AMQPClass::Queue(queue) => self.on_queue(queue, table, method, context),
            AMQPClass::Confirm(confirm) => self.on_confirm(&confirm, method, context),
            AMQPClass::Tx(tx) => self.on_tx(&tx, method, context),
            AMQPClass::Channel(channel) => self.on_channel_method(&channel, method, context),
            // Older clients ask for a ticket before they use an exchange.
            AMQPClass::Access(_) => {
                let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
                self.put(context.effects, AMQPClass::Access(ok));
                Ok(())
            }
            AMQPClass::Connection(_) => {
                let text = "method of the connection on a channel";
                Err(Exception::new(ReplyCode::CommandInvalid, method, text))
            }
        }
    }

    fn on_channel_method(
        &mut self,
        channel: &class::AMQPMethod,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step {
        use class::AMQPMethod::{Flow, FlowOk, Open};
        match channel {
            Open(_) => {
                Err(Exception::new(ReplyCode::ChannelError, method, "second 'channel.open' seen"))
            }
            Flow(flow) if flow.active => {
                self.put(
                    context.effects,
                    AMQPClass::Channel(FlowOk(class::FlowOk { active: true })),
                );
                Ok(())
            }
            Flow(_) => Err(Exception::new(ReplyCode::NotImplemented, method, "active=false")),
            _ => Err(Exception::new(ReplyCode::CommandInvalid, method, "unexpected method")),
        }
    }

    /// The client closes the channel.
    fn on_close(&mut self, payload: &[u8], context: &mut Context<'_>) -> Step {
        cold::parse(payload, context.connection.table_bounds())
            .map_err(|error| Exception::method(error, id::CHANNEL_CLOSE))?;
        self.release(context);
        let ok = class::AMQPMethod::CloseOk(class::CloseOk {});
        self.put(context.effects, AMQPClass::Channel(ok));
        Ok(())
    }

    /// Sends `channel.close`; until its answer comes, frames of this channel are ignored.
    pub(crate) fn fail(&mut self, exception: &Exception, context: &mut Context<'_>) {
        if self.closing {
            return;
        }
        self.put_confirms(context.effects);
        self.release(context);
        self.closing = true;
        let (class_id, method_id) = exception.method;
        let close = class::AMQPMethod::Close(class::Close {
            reply_code: exception.code.number(),
            reply_text: cold::short(&exception.reply_text()),
            class_id,
            method_id,
        });
        self.put(context.effects, AMQPClass::Channel(close));
    }

    /// Handles a frame after our `channel.close`. Returns true when the channel is gone.
    pub(crate) fn on_frame_while_closing(
        &mut self,
        frame: Frame<'_>,
        context: &mut Context<'_>,
    ) -> bool {
        if frame.kind != frame::METHOD {
            return false;
        }
        match cold::split_id(frame.payload) {
            Ok((id::CHANNEL_CLOSE_OK, _)) => true,
            Ok((id::CHANNEL_CLOSE, _)) => {
                let ok = class::AMQPMethod::CloseOk(class::CloseOk {});
                self.put(context.effects, AMQPClass::Channel(ok));
                false
            }
            _ => false,
        }
    }

    /// Tells people what the channel does.
    fn describe(&self, effects: &mut Effects) {
        let mode = match &self.mode {
            Mode::Plain => return,
            Mode::Confirm(_) => ChannelMode::Confirms,
            Mode::Tx(tx) => tx.described(),
        };
        let channel = u32::from(self.number);
        effects.commands.push(Command::DescribeChannel { channel, mode });
    }

    /// Gives everything back that the channel holds.
    fn release(&mut self, context: &mut Context<'_>) {
        let mut consumers = Vec::new();
        self.collect_consumers(&mut consumers);
        for consumer in self.consumers.drain(..) {
            context.connection.consumers.remove(&consumer);
        }
        if !consumers.is_empty() {
            context.effects.commands.push(Command::Release { consumers });
        }
        if self.group_prefetch != 0 {
            let group = u32::from(self.number);
            context.effects.commands.push(Command::SetGroupPrefetch { group, prefetch: 0 });
        }
        self.tags = Tags::default();
        self.mode = Mode::Plain;
        self.content = Content::None;
        self.reply = None;
    }

    /// Adds every consumer that is live or has unsettled deliveries.
    pub(crate) fn collect_consumers(&self, into: &mut Vec<ConsumerId>) {
        into.extend(&self.consumers);
        into.extend(self.tags.consumers());
        if let Mode::Tx(tx) = &self.mode {
            into.extend(tx.consumers());
        }
        into.sort_unstable();
        into.dedup();
    }

    /// The broker has answered a request of this channel.
    pub(crate) fn on_answer(
        &mut self,
        pending: &Pending,
        answer: Result<Answer, Refusal>,
        context: &mut Context<'_>,
    ) -> Step {
        match (&pending.purpose, answer) {
            (Purpose::Consume { consumer }, answer) => {
                self.on_consuming(*consumer, answer, pending, context)
            }
            (_, Err(refusal)) => Err(Exception::refused(&refusal, pending.method)),
            (Purpose::Topology, Ok(answer)) => {
                self.on_topology_answer(pending, answer, context.effects);
                Ok(())
            }
            (Purpose::Cancel { consumer }, Ok(_)) => {
                self.on_cancelled(*consumer, pending, context);
                Ok(())
            }
            (Purpose::Get { consumer }, Ok(answer)) => {
                self.on_got(*consumer, answer, context);
                Ok(())
            }
            (Purpose::Commit, Ok(_)) => {
                self.on_committed(context.effects);
                Ok(())
            }
            (
                Purpose::Authenticate
                | Purpose::UpdateSecret
                | Purpose::OpenVhost
                | Purpose::OpenChannel,
                Ok(_),
            ) => Ok(()),
        }
    }

    /// Notes that the answer to `method` is awaited, and gives the number to ask with.
    fn expect(
        &self,
        purpose: Purpose,
        method: (u16, u16),
        no_wait: bool,
        context: &mut Context<'_>,
    ) -> polymq_model::RequestId {
        context.connection.expect_on(self.number, self.incarnation, purpose, method, no_wait)
    }

    fn put(&self, effects: &mut Effects, class: AMQPClass) {
        cold::put(effects.out.frame(), self.number, &class);
    }
}

//! Exchanges, queues and bindings: the methods become commands, the answers `-ok` methods.

use amq_protocol::protocol::{AMQPClass, exchange, queue};
use polymq_contract::{
    Answer, BindExchange, BindQueue, Command, DeclareExchange, DeclareQueue, Effects,
};
use polymq_model::Table;

use super::{Channel, Context};
use crate::{
    codec::cold,
    connection::{Pending, Purpose},
    refusal::{Exception, ReplyCode, Step},
};

impl Channel {
    pub(super) fn on_exchange(
        &mut self,
        class: exchange::AMQPMethod,
        arguments: Table,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step {
        use exchange::AMQPMethod::{Bind, Declare, Delete, Unbind};
        let command = match class {
            Declare(declare) => Command::DeclareExchange(Box::new(DeclareExchange {
                request: self.expect(Purpose::Topology, method, declare.nowait, context),
                exchange: declare.exchange.into(),
                kind: declare.kind.into(),
                passive: declare.passive,
                durable: declare.durable,
                auto_delete: declare.auto_delete,
                internal: declare.internal,
                arguments,
            })),
            Delete(delete) => Command::DeleteExchange {
                request: self.expect(Purpose::Topology, method, delete.nowait, context),
                exchange: delete.exchange.into(),
                if_unused: delete.if_unused,
            },
            Bind(bind) => Command::BindExchange(Box::new(BindExchange {
                request: self.expect(Purpose::Topology, method, bind.nowait, context),
                destination: bind.destination.into(),
                source: bind.source.into(),
                key: bind.routing_key.into(),
                arguments,
            })),
            Unbind(unbind) => Command::UnbindExchange(Box::new(BindExchange {
                request: self.expect(Purpose::Topology, method, unbind.nowait, context),
                destination: unbind.destination.into(),
                source: unbind.source.into(),
                key: unbind.routing_key.into(),
                arguments,
            })),
            _ => return Err(unexpected(method)),
        };
        context.effects.commands.push(command);
        Ok(())
    }

    pub(super) fn on_queue(
        &mut self,
        class: queue::AMQPMethod,
        arguments: Table,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step {
        use queue::AMQPMethod::{Bind, Declare, Delete, Purge, Unbind};
        let command = match class {
            Declare(declare) => Command::DeclareQueue(Box::new(DeclareQueue {
                request: self.expect(Purpose::Topology, method, declare.nowait, context),
                queue: declare.queue.into(),
                passive: declare.passive,
                durable: declare.durable,
                exclusive: declare.exclusive,
                auto_delete: declare.auto_delete,
                arguments,
            })),
            Bind(bind) => {
                let binding = (bind.queue.into(), bind.exchange.into(), bind.routing_key.into());
                let bound = self.binding(binding, bind.nowait, arguments, method, context)?;
                Command::BindQueue(Box::new(bound))
            }
            Unbind(unbind) => {
                let binding =
                    (unbind.queue.into(), unbind.exchange.into(), unbind.routing_key.into());
                let bound = self.binding(binding, false, arguments, method, context)?;
                Command::UnbindQueue(Box::new(bound))
            }
            Purge(purge) => {
                let queue = self.queue_name(purge.queue.into(), method)?;
                let request = self.expect(Purpose::Topology, method, purge.nowait, context);
                Command::PurgeQueue { request, queue }
            }
            Delete(delete) => {
                let queue = self.queue_name(delete.queue.into(), method)?;
                let request = self.expect(Purpose::Topology, method, delete.nowait, context);
                let (if_unused, if_empty) = (delete.if_unused, delete.if_empty);
                Command::DeleteQueue { request, queue, if_unused, if_empty }
            }
            _ => return Err(unexpected(method)),
        };
        context.effects.commands.push(command);
        Ok(())
    }

    fn binding(
        &self,
        (queue, exchange, key): (String, String, String),
        no_wait: bool,
        arguments: Table,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step<BindQueue> {
        // With both names empty the key stands for the last queue too (`queue.bind`, rule
        // "queue-known").
        let key = if queue.is_empty() && key.is_empty() { self.last_queue.clone() } else { key };
        let queue = self.queue_name(queue, method)?;
        let request = self.expect(Purpose::Topology, method, no_wait, context);
        Ok(BindQueue { request, queue, exchange, key, arguments })
    }

    /// The queue meant by `name`: an empty one is the queue this channel declared last.
    pub(super) fn queue_name(&self, name: String, method: (u16, u16)) -> Step<String> {
        if !name.is_empty() {
            return Ok(name);
        }
        if self.last_queue.is_empty() {
            return Err(Exception::new(
                ReplyCode::NotFound,
                method,
                "no previously declared queue",
            ));
        }
        Ok(self.last_queue.clone())
    }

    pub(super) fn on_topology_answer(
        &mut self,
        pending: &Pending,
        answer: Answer,
        effects: &mut Effects,
    ) {
        if let Answer::QueueDeclared { queue, .. } = &answer {
            queue.as_str().clone_into(&mut self.last_queue);
        }
        if pending.no_wait {
            return;
        }
        let ok = match answer {
            Answer::QueueDeclared { queue, messages, consumers } => {
                AMQPClass::Queue(queue::AMQPMethod::DeclareOk(queue::DeclareOk {
                    queue: cold::short(queue.as_str()),
                    message_count: count(messages),
                    consumer_count: consumers,
                }))
            }
            Answer::QueueDeleted { messages } => {
                let message_count = count(messages);
                AMQPClass::Queue(queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count }))
            }
            Answer::QueuePurged { messages } => {
                let message_count = count(messages);
                AMQPClass::Queue(queue::AMQPMethod::PurgeOk(queue::PurgeOk { message_count }))
            }
            _ => match done(pending.method) {
                Some(class) => class,
                None => return,
            },
        };
        self.put(effects, ok);
    }
}

/// The `-ok` of a method whose answer says nothing.
fn done(method: (u16, u16)) -> Option<AMQPClass> {
    use exchange::AMQPMethod as Exchange;
    Some(match method {
        (40, 10) => AMQPClass::Exchange(Exchange::DeclareOk(exchange::DeclareOk {})),
        (40, 20) => AMQPClass::Exchange(Exchange::DeleteOk(exchange::DeleteOk {})),
        (40, 30) => AMQPClass::Exchange(Exchange::BindOk(exchange::BindOk {})),
        (40, 40) => AMQPClass::Exchange(Exchange::UnbindOk(exchange::UnbindOk {})),
        (50, 20) => AMQPClass::Queue(queue::AMQPMethod::BindOk(queue::BindOk {})),
        (50, 50) => AMQPClass::Queue(queue::AMQPMethod::UnbindOk(queue::UnbindOk {})),
        _ => return None,
    })
}

/// Counts on the wire have 32 bits; larger ones saturate.
pub(super) fn count(messages: u64) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}

fn unexpected(method: (u16, u16)) -> Box<Exception> {
    Exception::new(ReplyCode::CommandInvalid, method, "unexpected method")
}

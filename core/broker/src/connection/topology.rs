//! Declaring, binding, deleting: permissions of the user, then the core's operation.

use std::sync::Arc;

use polymq_contract::{
    Answer, BindExchange, BindQueue, DeclareExchange, DeclareQueue, Refusal, RefusalKind,
};
use polymq_model::{ExchangeName, Now, RequestId, Table, Value, value::find};
use polymq_store::ShardBatch;

use super::{BrokerConnection, consume::REPLY_TO};
use crate::{
    access::{Configure, Read, Topics, Write},
    declare::{bad_name, check_source},
    queue::QueueSettings,
    topology::{Binding, Destination, alternate},
    vhost::Vhost,
};

/// The argument that says what kind of queue it is.
const TYPE: &str = "x-queue-type";

type Done = Result<(Answer, Option<ShardBatch>), Refusal>;

impl BrokerConnection {
    fn answer_done(&mut self, request: RequestId, done: Done) {
        match done {
            Ok((answer, batch)) => self.answer(request, Ok(answer), batch),
            Err(refusal) => self.answer(request, Err(refusal), None),
        }
    }

    pub(super) fn declare_exchange(&mut self, declare: &DeclareExchange) {
        let done = self.try_declare_exchange(declare);
        self.answer_done(declare.request, done);
    }

    fn try_declare_exchange(&self, declare: &DeclareExchange) -> Done {
        let vhost = self.open_host()?;
        if declare.passive {
            self.permit_any(&vhost, "exchange", &declare.exchange)?;
            self.core.find_exchange(&vhost, &declare.exchange)?;
            return Ok((Answer::Done, None));
        }
        let permit = self.permit::<Configure>(&vhost, "exchange", &declare.exchange)?;
        if let Some(alternate) = alternate(&declare.arguments)? {
            self.permit::<Read>(&vhost, "exchange", &declare.exchange)?;
            self.permit::<Write>(&vhost, "exchange", &alternate)?;
            self.check_topics::<Write>(&vhost, &alternate, Topics::All)?;
        }
        let batch = self.core.declare_exchange(&permit, &vhost, declare)?;
        Ok((Answer::Done, batch))
    }

    pub(super) fn delete_exchange(&mut self, request: RequestId, name: &str, if_unused: bool) {
        let done = (|| {
            let vhost = self.open_host()?;
            let permit = self.permit::<Configure>(&vhost, "exchange", name)?;
            let batch = self.core.delete_exchange(&permit, &vhost, name, if_unused)?;
            Ok((Answer::Done, batch))
        })();
        self.answer_done(request, done);
    }

    pub(super) fn bind_exchange(&mut self, bind: &BindExchange, add: bool) {
        let done = (|| {
            let vhost = self.open_host()?;
            let permits = (
                self.permit::<Write>(&vhost, "exchange", &bind.destination)?,
                self.permit::<Read>(&vhost, "exchange", &bind.source)?,
            );
            if bind.destination.is_empty() {
                let text = "operation not permitted on the default exchange";
                return Err(Refusal::new(RefusalKind::Reserved, text));
            }
            let binding = Binding {
                destination: Destination::Exchange(
                    ExchangeName::new(&bind.destination).map_err(bad_name)?,
                ),
                key: bind.key.as_str().into(),
                arguments: Arc::new(bind.arguments.clone()),
            };
            if add {
                self.check_binding(&vhost, &vhost.topology.load(), &bind.source, &binding)?;
            }
            let batch = match add {
                true => self.core.bind(&permits, &vhost, &bind.source, binding)?,
                false => self.core.unbind(&permits, &vhost, &bind.source, &binding)?,
            };
            Ok((Answer::Done, batch))
        })();
        self.answer_done(bind.request, done);
    }

    pub(super) fn bind_queue(&mut self, bind: &BindQueue, add: bool) {
        let done = (|| {
            let vhost = self.open_host()?;
            check_source(&bind.exchange)?;
            let permits = (
                self.permit::<Write>(&vhost, "queue", &bind.queue)?,
                self.permit::<Read>(&vhost, "exchange", &bind.exchange)?,
            );
            let queue = match self.core.find_queue(&vhost, &bind.queue, self.id) {
                Ok(queue) => queue,
                Err(missing) if !add && missing.kind == RefusalKind::NotFound => {
                    return Ok((Answer::Done, None));
                }
                Err(refusal) => return Err(refusal),
            };
            let binding = Binding {
                destination: Destination::Queue(queue),
                key: bind.key.as_str().into(),
                arguments: Arc::new(bind.arguments.clone()),
            };
            if add {
                self.check_binding(&vhost, &vhost.topology.load(), &bind.exchange, &binding)?;
            }
            let batch = match add {
                true => self.core.bind(&permits, &vhost, &bind.exchange, binding)?,
                false => self.core.unbind(&permits, &vhost, &bind.exchange, &binding)?,
            };
            Ok((Answer::Done, batch))
        })();
        self.answer_done(bind.request, done);
    }

    pub(super) fn declare_queue(&mut self, mut declare: DeclareQueue, now: Now) {
        let is_generated = declare.queue.is_empty() && !declare.passive;
        if is_generated {
            declare.queue = self.core.random_name("amq.gen-");
        }
        let request = declare.request;
        let done = self.try_declare_queue(&mut declare, is_generated, now);
        self.answer_done(request, done);
    }

    fn try_declare_queue(
        &mut self,
        declare: &mut DeclareQueue,
        is_generated: bool,
        now: Now,
    ) -> Done {
        let vhost = self.open_host()?;
        if declare.queue == REPLY_TO || vhost.replies.lock().contains_key(&declare.queue) {
            let queue = polymq_model::QueueName::new(&declare.queue).map_err(bad_name)?;
            return Ok((Answer::QueueDeclared { queue, messages: 0, consumers: 1 }, None));
        }
        if declare.passive {
            self.permit_any(&vhost, "queue", &declare.queue)?;
            let queue = self.core.find_queue(&vhost, &declare.queue, self.id)?;
            queue.touch(now.unix_ms);
            return Ok((declared(&queue), None));
        }
        let permit = self.permit::<Configure>(&vhost, "queue", &declare.queue)?;
        add_default_type(&vhost, &declare.queue, is_lasting(declare), &mut declare.arguments);
        let settings = QueueSettings::parse(declare.arguments.clone(), self.core.durability)?;
        self.check_dead_letters(&vhost, &declare.queue, &settings)?;
        let nobody = || Refusal::new(RefusalKind::LoginFailed, "nobody has logged in");
        let who = self.identity.principal().ok_or_else(nobody)?;
        let by = (self.id, &who.user);
        let (queue, is_new, batch) =
            self.core.declare_queue(&permit, &vhost, declare, by, is_generated, now)?;
        if is_new && declare.exclusive {
            self.exclusive.push(queue.clone());
        }
        Ok((declared(&queue), batch))
    }

    /// Dead letters lead from the queue to their exchange.
    ///
    /// Errors: kind `Denied`.
    pub(super) fn check_dead_letters(
        &self,
        vhost: &Vhost,
        queue: &str,
        settings: &QueueSettings,
    ) -> Result<(), Refusal> {
        if let Some(to) = &settings.rules.dead_letter {
            self.permit::<Read>(vhost, "queue", queue)?;
            self.permit::<Write>(vhost, "exchange", &to.exchange)?;
            let topics = to.key.as_deref().map_or(Topics::All, Topics::Key);
            self.check_topics::<Write>(vhost, &to.exchange, topics)?;
        }
        Ok(())
    }

    pub(super) fn delete_queue(
        &mut self,
        request: RequestId,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) {
        let done = (|| {
            let vhost = self.open_host()?;
            self.permit::<Configure>(&vhost, "queue", name)?;
            let queue = match self.core.find_queue(&vhost, name, self.id) {
                Ok(queue) => queue,
                Err(missing) if missing.kind == RefusalKind::NotFound => {
                    return Ok((Answer::QueueDeleted { messages: 0 }, None));
                }
                Err(refusal) => return Err(refusal),
            };
            let (messages, batch) = self.core.remove_queue(&vhost, &queue, if_unused, if_empty)?;
            Ok((Answer::QueueDeleted { messages }, batch))
        })();
        self.exclusive.retain(|queue| queue.name.as_str() != name || done.is_err());
        self.answer_done(request, done);
    }

    pub(super) fn purge_queue(&mut self, request: RequestId, name: &str) {
        let done = (|| {
            let vhost = self.open_host()?;
            self.permit::<Read>(&vhost, "queue", name)?;
            let queue = self.core.find_queue(&vhost, name, self.id)?;
            let messages = queue.purge();
            let batch = self.core.committer.append(|_| ()).0;
            Ok((Answer::QueuePurged { messages }, queue.is_stored().then_some(batch)))
        })();
        self.answer_done(request, done);
    }
}

/// Gives a queue without a type that of its virtual host, or that of the queue it repeats.
///
/// Queues that end by themselves stay classic, because the other types last.
pub(super) fn add_default_type(
    vhost: &Vhost,
    queue: &str,
    is_lasting: bool,
    arguments: &mut Table,
) {
    let Some(default) = vhost.tenancy.record.read().default_queue_type.clone() else { return };
    if !is_lasting || find(arguments, TYPE).is_some() {
        return;
    }
    let topology = vhost.topology.load();
    let value = match topology.queue(queue) {
        Some(queue) => find(&queue.settings.arguments, TYPE).cloned(),
        None => Some(Value::String(default)),
    };
    arguments.extend(value.map(|value| (TYPE.to_owned(), value)));
}

fn is_lasting(declare: &DeclareQueue) -> bool {
    declare.durable && !declare.exclusive && !declare.auto_delete
}

fn declared(queue: &crate::queue::Queue) -> Answer {
    let counts = queue.counts();
    Answer::QueueDeclared {
        queue: queue.name.clone(),
        messages: counts.ready,
        consumers: counts.consumers,
    }
}

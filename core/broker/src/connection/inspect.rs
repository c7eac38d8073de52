//! What a connection asks about queues, retained messages and the documents of users.

use polymq_contract::{Answer, Command, ListedBinding, ListedQueue, Refusal, RefusalKind};
use polymq_model::{Now, RequestId, UserName, address::TOPIC_EXCHANGE, topic::Pattern};

use super::{BrokerConnection, not_open};
use crate::{
    access::{Configure, Read, Topics},
    counters::PROTOCOLS,
    mailbox::{DocumentKey, StoredDocument},
    topology::Destination,
};

impl BrokerConnection {
    pub(super) fn inspect(&mut self, command: Command, now: Now) {
        match command {
            Command::FindQueue { request, queue } => {
                let found = self.find_queue(&queue, now);
                self.answer(request, found, None);
            }
            Command::ListQueues { request, after, count_max } => {
                self.list_queues(request, after.as_deref(), count_max);
            }
            Command::ListBindings { request, queue } => self.list_bindings(request, &queue),
            Command::PauseQueue { request, queue, paused } => {
                self.pause_queue(request, &queue, paused, now);
            }
            Command::Recall { request, exchange, pattern, count_max } => {
                self.recall(request, &exchange, &pattern, count_max, now);
            }
            Command::ListTopics { request, among, count_max } => {
                self.list_topics(request, among, count_max, now);
            }
            Command::ReadDocument { request, user, name } => {
                self.read_document(request, user, name);
            }
            Command::WriteDocument { request, user, name, version, text } => {
                self.write_document(request, (user, name), StoredDocument { version, text });
            }
            _ => {}
        }
    }

    fn list_queues(&mut self, request: RequestId, after: Option<&str>, max: usize) {
        let listed = (|| {
            let vhost = self.open_host()?;
            let topology = vhost.topology.load_full();
            let readable = topology.queues.values().filter(|queue| {
                let is_visible = queue.check_owner(self.id).is_ok();
                is_visible && self.permit::<Read>(&vhost, "queue", queue.name.as_str()).is_ok()
            });
            let mut queues: Vec<_> = readable.collect();
            queues.sort_by(|a, b| a.name.cmp(&b.name));
            let total = queues.len();
            let page =
                queues.into_iter().filter(|q| after.is_none_or(|after| q.name.as_str() > after));
            let listed = page.take(max).map(|queue| {
                let counts = queue.counts();
                ListedQueue {
                    name: queue.name.clone(),
                    messages: counts.ready,
                    consumers: counts.consumers,
                }
            });
            Ok(Answer::Queues { queues: listed.collect(), total })
        })();
        self.answer(request, listed, None);
    }

    fn find_queue(&self, name: &str, now: Now) -> Result<Answer, Refusal> {
        let vhost = self.open_host()?;
        if self.permit_any(&vhost, "queue", name).is_err() {
            self.check_may_publish(&vhost, "", name)?;
        }
        self.core.find_queue(&vhost, name, self.id)?.touch(now.unix_ms);
        Ok(Answer::Done)
    }

    fn list_bindings(&mut self, request: RequestId, name: &str) {
        let listed = (|| {
            let vhost = self.open_host()?;
            self.permit::<Read>(&vhost, "queue", name)?;
            let queue = self.core.find_queue(&vhost, name, self.id)?;
            let topology = vhost.topology.load_full();
            let bound = vhost.bindings_to(&Destination::Queue(queue)).into_iter();
            let mut bindings: Vec<_> = bound
                .filter_map(|(source, identity)| {
                    let binding = topology.exchange(source.as_str())?.bindings.get(&identity)?;
                    let exchange = source.as_str().to_owned();
                    Some(ListedBinding { exchange, key: binding.key.to_string() })
                })
                .collect();
            bindings.sort_by(|a, b| (&a.exchange, &a.key).cmp(&(&b.exchange, &b.key)));
            Ok(Answer::Bindings(bindings))
        })();
        self.answer(request, listed, None);
    }

    fn pause_queue(&mut self, request: RequestId, name: &str, paused: bool, now: Now) {
        let done = (|| {
            let vhost = self.open_host()?;
            self.permit::<Configure>(&vhost, "queue", name)?;
            let queue = self.core.find_queue(&vhost, name, self.id)?;
            queue.pause(paused, now.unix_ms);
            Ok(Answer::Done)
        })();
        self.answer(request, done, None);
    }

    fn recall(&mut self, request: RequestId, exchange: &str, pattern: &str, max: usize, now: Now) {
        let recalled = (|| {
            let vhost = self.open_host()?;
            self.permit::<Read>(&vhost, "exchange", exchange)?;
            let pattern = Pattern::dot(pattern)
                .map_err(|bad| Refusal::new(RefusalKind::Invalid, bad.to_string()))?;
            self.check_topics::<Read>(&vhost, exchange, Topics::Filter(&pattern))?;
            if exchange != TOPIC_EXCHANGE {
                return Ok(Answer::Recalled(Vec::new()));
            }
            let mut found = vhost.retained.lock().matching(&pattern, None, now.unix_ms);
            found.truncate(max);
            Ok(Answer::Recalled(found))
        })();
        self.answer(request, recalled, None);
    }

    fn list_topics(
        &mut self,
        request: RequestId,
        among: Option<Vec<String>>,
        max: usize,
        now: Now,
    ) {
        let listed = (|| {
            let vhost = self.open_host()?;
            self.permit::<Read>(&vhost, "exchange", TOPIC_EXCHANGE)?;
            let topics = among.unwrap_or_else(|| vhost.retained.lock().topics(now.unix_ms));
            let may_read = self.readable(&vhost, TOPIC_EXCHANGE)?;
            let readable = topics.into_iter().filter(|topic| may_read(topic));
            Ok(Answer::Topics(readable.take(max).collect()))
        })();
        self.answer(request, listed, None);
    }

    fn document_key(&self, user: UserName, name: String) -> Result<DocumentKey, Refusal> {
        self.identity.principal().ok_or_else(not_open)?;
        let protocol = PROTOCOLS.get(self.protocol).copied().unwrap_or_default();
        Ok((protocol.to_owned(), user, name))
    }

    fn read_document(&mut self, request: RequestId, user: UserName, name: String) {
        let answer = self.document_key(user, name).map(|key| {
            let kept = self.core.documents.lock().get(&key).cloned().unwrap_or_default();
            Answer::Document { version: kept.version, text: kept.text }
        });
        self.answer(request, answer, None);
    }

    fn write_document(
        &mut self,
        request: Option<RequestId>,
        (user, name): (UserName, String),
        document: StoredDocument,
    ) {
        let written =
            self.document_key(user, name).and_then(|key| self.core.write_document(key, document));
        let Some(request) = request else { return };
        match written {
            Ok(batch) => self.answer(request, Ok(Answer::Done), batch),
            Err(refusal) => self.answer(request, Err(refusal), None),
        }
    }
}

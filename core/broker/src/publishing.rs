//! From a route to its targets; messages that the broker itself publishes; dead letters.

use std::{collections::HashMap, sync::Arc};

use polymq_contract::{Broadcast, Delivery, Event, Matched, Refusal};
use polymq_model::{Annotations, ClientNumber, Death, Durability, Message, Now, Seq};
use polymq_store::{PubRef, ShardBatch};

use crate::{
    access::{Topics, Write},
    client_session::{ClientSession, Sent},
    core::Core,
    counters::add,
    definitions::{self, StoredRetained, kind},
    queue::{DeadLetterTo, Departing, HeldTail, Pushed, Queue, Room},
    routing::{Routing, Target, cc_keys, check_publishable},
    stored_message,
    trace::{Mark, Marked},
    vhost::{ReplyTarget, Vhost},
};

/// The exchange whose topics have last values.
pub(crate) const TOPIC_EXCHANGE: &str = "amq.topic";

/// What handing messages to their targets came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Handed {
    /// The latest batch that holds any of them.
    pub(crate) batch: Option<ShardBatch>,
    /// How many, from the end, some queue refused because it is full.
    pub(crate) refused: usize,
    /// How many queues took none of them.
    pub(crate) refusing: usize,
    /// Direct deliveries made.
    pub(crate) direct: u64,
    /// How well the queue that keeps them worst does so; `None` when no queue is among the targets.
    pub(crate) kept: Option<Durability>,
}

impl Handed {
    /// Notes what a queue did with `count` messages; `None` when it has been deleted.
    fn note(&mut self, queue: &Queue, pushed: Option<Pushed>, count: usize) {
        let Some(pushed) = pushed else {
            self.refusing += 1;
            return;
        };
        self.batch = self.batch.max(pushed.batch);
        let kept = queue.durability();
        self.kept = Some(self.kept.map_or(kept, |other| other.weaker(kept)));
        self.refused = self.refused.max(pushed.refused);
        self.refusing += usize::from(pushed.refused == count);
    }
}

impl Core {
    /// Hands messages of one route to all its targets and leaves `messages` empty or as it was.
    pub(crate) fn hand_over(
        &self,
        targets: &[Target],
        messages: &mut Vec<Message>,
        room: Room,
        now_ms: u64,
    ) -> Handed {
        self.hand_over_followed(targets, messages, &[], room, now_ms)
    }

    /// The same with messages that are followed, by their places.
    pub(crate) fn hand_over_followed(
        &self,
        targets: &[Target],
        messages: &mut Vec<Message>,
        marks: &[(usize, Mark)],
        room: Room,
        now_ms: u64,
    ) -> Handed {
        let mut handed = Handed::default();
        let mut refs = Vec::new();
        for target in targets {
            let Target::Queue(queue, matched) = target else { continue };
            refs.resize(messages.len(), None);
            let marked = Marked { messages, marks };
            let pushed = queue.push_followed(marked, matched, &mut refs, room, now_ms);
            handed.note(queue, pushed, messages.len());
        }
        self.hand_over_directly(targets, messages, marks, &mut handed);
        handed
    }

    /// Hands messages to those of their targets that are no queues.
    pub(crate) fn hand_over_directly(
        &self,
        targets: &[Target],
        messages: &mut Vec<Message>,
        marks: &[(usize, Mark)],
        handed: &mut Handed,
    ) {
        for target in targets {
            let Target::Reply(reply) = target else { continue };
            if reply.outbox.bytes() >= self.limits.direct_bytes_max {
                add(&self.counters.total.dropped_slow_consumer, messages.len() as u64);
                continue;
            }
            let deliveries =
                messages.iter().map(|message| Event::Delivered(reply_of(reply, message)));
            reply.outbox.push_all(deliveries);
            handed.direct += messages.len() as u64;
        }
        let mut batch = None;
        let mut count = 0;
        for target in targets {
            let Target::Direct(endpoint, matched) = target else { continue };
            let batch = batch.get_or_insert_with(|| {
                count = messages.len() as u64;
                Arc::new(Broadcast::new(std::mem::take(messages)))
            });
            let sent = endpoint.send(matched, batch, self.limits.direct_bytes_max);
            tell_sent(marks, endpoint.number, sent);
            match sent {
                Sent::Taken => handed.direct += count,
                Sent::Slow => add(&self.counters.total.dropped_slow_consumer, count),
                Sent::Away => {}
            }
        }
    }

    /// Publishes the will of `client`, or without one a statistic of the broker, the last value of
    /// its topic.
    pub(crate) fn publish_own(
        &self,
        vhost: &Arc<Vhost>,
        message: Message,
        client: Option<&ClientSession>,
        now: Now,
    ) -> Option<ShardBatch> {
        let retained = match client {
            Some(_) => self.retain_late(vhost, &message, client),
            None => {
                vhost.retained.lock().keep_own(&message);
                None
            }
        };
        let publisher = client.map_or(ClientNumber(0), |client| client.endpoint.number);
        let topology = vhost.topology.load();
        let routing = Routing { topology: &topology, publisher, message: Some(&message) };
        let route = routing.route(message.exchange(), [message.key()]);
        self.note_denied(route.denied);
        let handed = self.hand_over(&route.targets, &mut vec![message], Room::Free, now.unix_ms);
        handed.batch.max(retained)
    }

    /// Keeps messages of `client` as the last values of their topics, all of those that ask for it
    /// or none.
    ///
    /// Errors: kind `Limit` when the virtual host would keep more than it may.
    pub(crate) fn retain<'m>(
        &self,
        vhost: &Vhost,
        messages: impl Iterator<Item = &'m Message> + Clone,
        client: Option<&ClientSession>,
    ) -> Result<Option<ShardBatch>, Refusal> {
        let mut values = messages.filter(|message| is_last_value(message)).peekable();
        if values.peek().is_none() {
            return Ok(None);
        }
        let publisher = client.map_or("", |client| client.client_id.as_str());
        // Under the lock, so that what is stored last is what stands.
        let mut retained = vhost.retained.lock();
        let kept = retained.keep(values.clone(), publisher);
        kept.map_err(|beyond| beyond.refuse(&vhost.name))?;
        Ok(values.filter_map(|value| self.store_last_value(vhost, value, publisher)).max())
    }

    /// The same for one whose publisher is no longer there to be told: it is routed whether or not
    /// it is kept.
    pub(crate) fn retain_late(
        &self,
        vhost: &Vhost,
        message: &Message,
        client: Option<&ClientSession>,
    ) -> Option<ShardBatch> {
        let kept = self.retain(vhost, std::iter::once(message), client);
        kept.unwrap_or_else(|refusal| {
            tracing::debug!(event = "not_retained", key = message.key(), "{}", refusal.text);
            self.counters.add_refusals(refusal.kind, 1);
            None
        })
    }

    fn store_last_value(
        &self,
        vhost: &Vhost,
        message: &Message,
        publisher: &str,
    ) -> Option<ShardBatch> {
        // Those of the broker are made anew at each start.
        if message.key_bytes().starts_with(b"$SYS") {
            return None;
        }
        let key = definitions::key(&[kind::RETAINED, vhost.name.as_str(), message.key()]);
        let write = |writer: &mut polymq_store::BatchWriter<'_>| {
            if message.body().is_empty() {
                writer.meta_delete(&key);
            } else {
                let value = definitions::encode(&StoredRetained {
                    message: stored_message::to_definition(message),
                    publisher: publisher.to_owned(),
                });
                writer.meta_put(&key, &value);
            }
        };
        Some(self.committer.append(write).0)
    }

    /// Publishes a will as its client.
    pub(crate) fn publish_will(
        &self,
        vhost: &Arc<Vhost>,
        session: &ClientSession,
        message: Message,
        now: Now,
    ) {
        let who = session.who();
        let exchange = message.exchange().to_owned();
        let (asked, id) = ((exchange.as_str(), Topics::Key(message.key())), &session.client_id);
        let is_over = who.grant.as_ref().is_some_and(|grant| !self.is_current(grant));
        let allowed = !is_over
            && self
                .permit::<Write>(&who, vhost, "exchange", &exchange)
                .and_then(|_| self.access.check_topics::<Write>(&who, &vhost.name, asked, Some(id)))
                .and_then(|()| check_publishable(vhost, &vhost.topology.load(), &exchange))
                .is_ok();
        if allowed {
            // The expiry of a will counts from its publication.
            let deadline_ms =
                message.properties().ttl_ms.map(|ttl| now.unix_ms.saturating_add(ttl));
            let message = match deadline_ms {
                Some(deadline_ms) => message.with_deadline(deadline_ms),
                None => message,
            };
            self.publish_own(vhost, message, Some(session), now);
            add(&self.counters.total.wills_published, 1);
        }
    }

    /// Publishes a dead letter to the queue's dead-letter exchange. False when nobody took it.
    pub(crate) fn dead_letter(
        &self,
        vhost: &Arc<Vhost>,
        queue: &Arc<Queue>,
        to: &DeadLetterTo,
        departing: &Departing,
        now_ms: u64,
    ) -> bool {
        let message = &departing.entry.message;
        let annotations = with_death(departing, queue.name.as_str(), now_ms);
        let key = to.key.as_deref().unwrap_or_else(|| message.key());
        let letter = message.readdressed(&to.exchange, key, annotations);
        let topology = vhost.topology.load();
        let routing =
            Routing { topology: &topology, publisher: ClientNumber(0), message: Some(&letter) };
        // Its own keys count all; a key of the queue replaces them.
        let extra = to.key.is_none().then(|| cc_keys(message));
        let keys = std::iter::once(key).chain(extra.into_iter().flatten());
        let route = routing.route(&to.exchange, keys);
        self.note_denied(route.denied);
        let mut targets = route.targets;
        targets.retain(|target| match target {
            Target::Queue(target, _) if is_cycle(&letter, target.name.as_str()) => {
                queue.tell_cycle(target);
                false
            }
            Target::Queue(..) => true,
            Target::Direct(..) | Target::Reply(_) => true,
        });
        let marks = follow_letter(departing, queue, &letter, &targets);
        let handed =
            self.hand_over_followed(&targets, &mut vec![letter], &marks, Room::Free, now_ms);
        let queues = targets.iter().filter(|target| matches!(target, Target::Queue(..))).count();
        let is_taken = queues > handed.refusing || handed.direct > 0;
        if is_taken {
            self.counters.total.note_dead_letter(departing.reason);
        } else {
            add(&self.counters.total.dead_letter_unroutable, 1);
            add(&queue.dead_letter_unroutable, 1);
        }
        is_taken
    }
}

/// True for a message that its topic remembers.
fn is_last_value(message: &Message) -> bool {
    message.retain() && message.exchange_bytes() == TOPIC_EXCHANGE.as_bytes()
}

/// A queue, and the places of the routes that lead to it, with what matched there.
type Share<'a> = (&'a Arc<Queue>, Vec<(usize, &'a Matched)>);

/// Puts messages of several routes, for which room is kept, into their queues; what each route came
/// to. Each queue is locked once, so that what it gets is adjacent there.
pub(crate) fn push_together(runs: &[(&[Target], Marked<'_>)], now_ms: u64) -> Vec<Handed> {
    let mut queues: Vec<Share<'_>> = Vec::new();
    let mut places = HashMap::new();
    for (index, (targets, _)) in runs.iter().enumerate() {
        for target in *targets {
            let Target::Queue(queue, matched) = target else { continue };
            let place = *places.entry(Arc::as_ptr(queue).addr()).or_insert(queues.len());
            match queues.get_mut(place) {
                Some((_, parts)) => parts.push((index, matched)),
                None => queues.push((queue, vec![(index, matched)])),
            }
        }
    }
    let mut taken: Vec<(Handed, Vec<Option<PubRef>>)> =
        runs.iter().map(|(_, run)| (Handed::default(), vec![None; run.messages.len()])).collect();
    for (queue, parts) in queues {
        let mut tail = queue.hold_tail(now_ms);
        for (index, matched) in parts {
            let (Some((_, run)), Some((handed, refs))) = (runs.get(index), taken.get_mut(index))
            else {
                continue;
            };
            let push = |tail: &mut HeldTail<'_>| tail.push(*run, matched, refs, Room::Reserved);
            let pushed = tail.as_mut().map(push);
            handed.note(queue, pushed, run.messages.len());
        }
        if let Some(tail) = tail {
            tail.release();
        }
    }
    taken.into_iter().map(|(handed, _)| handed).collect()
}

/// The marks of a dead letter, with a note where it goes.
fn follow_letter(
    departing: &Departing,
    queue: &Queue,
    letter: &Message,
    targets: &[Target],
) -> Vec<(usize, Mark)> {
    let queues = targets.iter().filter_map(|target| match target {
        Target::Queue(queue, _) => Some(queue.name.as_str()),
        Target::Direct(..) | Target::Reply(_) => None,
    });
    let note = |mark: &Mark| {
        let queues: Vec<_> = queues.clone().collect();
        mark.note(
            "dead_lettered",
            vec![
                ("queue", queue.name.to_string()),
                ("detail", departing.reason.to_owned()),
                ("exchange", letter.exchange().to_owned()),
                ("routing_key", letter.key().to_owned()),
                ("queues", queues.join(", ")),
            ],
        );
    };
    departing.marks.iter().inspect(|mark| note(mark)).map(|mark| (0, mark.clone())).collect()
}

/// The message's annotations with one more death.
fn with_death(departing: &Departing, queue: &str, now_ms: u64) -> Annotations {
    let (message, reason) = (&departing.entry.message, departing.reason);
    let mut annotations = message.annotations().cloned().unwrap_or_default();
    let place = annotations.deaths.iter().position(|d| d.queue == queue && d.reason == reason);
    let mut death = match place {
        Some(at) => annotations.deaths.remove(at),
        None => Death {
            queue: queue.to_owned(),
            reason: reason.to_owned(),
            count: 0,
            time_ms: 0,
            exchange: message.exchange().to_owned(),
            routing_keys: std::iter::once(message.key())
                .chain(cc_keys(message))
                .map(str::to_owned)
                .collect(),
            original_ttl_ms: if message.deadline_ms() == 0 {
                None
            } else {
                message.properties().ttl_ms
            },
            detail: None,
        },
    };
    death.detail = departing.detail.as_deref().map(str::to_owned);
    death.count += 1;
    death.time_ms = now_ms;
    let latest = (queue.to_owned(), reason.to_owned(), message.exchange().to_owned());
    annotations.first_death.get_or_insert_with(|| latest.clone());
    annotations.last_death = Some(latest);
    annotations.deaths.insert(0, death);
    annotations
}

/// A message does not enter a queue it died in before, unless a consumer rejected it since.
fn is_cycle(letter: &Message, queue: &str) -> bool {
    let Some(annotations) = letter.annotations() else { return false };
    let until = annotations.deaths.iter().position(|d| d.queue == queue);
    until.is_some_and(|at| {
        annotations.deaths.iter().take(at + 1).all(|death| death.reason != "rejected")
    })
}

/// Tells traces what has come of a delivery without a queue.
fn tell_sent(marks: &[(usize, Mark)], to: ClientNumber, sent: Sent) {
    for (_, mark) in marks {
        let to = ("client", to.to_string());
        match sent {
            Sent::Taken => mark.note("delivered", vec![to, ("ack", "none".to_owned())]),
            Sent::Slow => mark.note("dropped", vec![to, ("detail", "slow_consumer".to_owned())]),
            Sent::Away => mark.note("dropped", vec![to, ("detail", "not_connected".to_owned())]),
        }
    }
}

/// A direct reply on its way.
fn reply_of(reply: &ReplyTarget, message: &Message) -> Delivery {
    Delivery {
        consumer: reply.consumer,
        redelivered: false,
        acquired: 0,
        failed: 0,
        number: 0,
        seq: Seq(0),
        matched: Matched { qos: 2, ..Matched::default() },
        message: message.clone(),
    }
}

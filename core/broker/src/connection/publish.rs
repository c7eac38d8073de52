//! Publishing: consecutive messages of one route are handed over together.

use std::sync::Arc;

use polymq_contract::{Event, Place, Publish, PublishOutcome, Refusal, RefusalKind};
use polymq_model::{Durability, Message, Now, PublisherId, address::MAILBOX_PREFIX, delay::Delay};
use polymq_store::ShardBatch;

use super::{
    BrokerConnection,
    address::address,
    confirms::Ended,
    routes::{Cached, Versions},
};
use crate::{
    access::Write,
    counters::size_class,
    publishing::Handed,
    queue::Room,
    routing::{Route, Routing, Target, check_publishable},
    trace::{Begun, Mark},
    vhost::Vhost,
};

/// Messages that follow each other to the same place.
#[derive(Default)]
pub(super) struct Run {
    pub(super) route: Option<Arc<Route>>,
    pub(super) messages: Vec<Message>,
    /// The messages that want a confirm, in order.
    numbers: Vec<Numbered>,
    /// Durable bytes that count as unconfirmed.
    bytes: usize,
    /// A batch that holds something the confirms also depend on.
    pub(super) batch: Option<ShardBatch>,
    /// Whether queues have kept room for the messages.
    pub(super) room: Room,
}

/// A message that wants a confirm.
struct Numbered {
    publisher: PublisherId,
    number: u64,
    /// Its place in the run.
    place: usize,
    /// The packet id that the client session remembers once the message has been taken.
    received: Option<u16>,
    /// How well the message may be kept.
    durability: Durability,
}

/// Messages of one run at most, so that consumers start while the rest is still parsed.
const RUN_MAX: usize = 512;

impl BrokerConnection {
    /// Publishes a message at once.
    #[inline]
    pub(super) fn publish_now(&mut self, mut publish: Publish, now: Now) {
        address(&mut publish);
        match self.route_for(&publish) {
            Ok(route) => self.publish_to(route, publish, now),
            Err(refusal) => {
                self.count_received(&publish);
                self.turn_away(&publish, Refusal::clone(&refusal));
            }
        }
    }

    /// Refuses a publish whose route is known, or is none.
    #[cold]
    fn turn_away(&mut self, publish: &Publish, refusal: Refusal) {
        if self.core.traces.is_on() {
            self.trace_refused(&publish.message, &refusal.text);
        }
        self.refuse_publish(publish, refusal);
    }

    fn count_received(&mut self, publish: &Publish) {
        let bytes = publish.message.body().len();
        self.tally.received += 1;
        self.tally.received_bytes += bytes as u64;
        self.tally.sizes[size_class(bytes)] += 1;
    }

    /// Where a publish goes.
    ///
    /// Errors: those of the route, kind `TooLarge`.
    #[inline]
    pub(super) fn route_for(&mut self, publish: &Publish) -> Cached {
        let message = &publish.message;
        // One that follows its like goes the same way: a run ends before anything else happens on
        // the connection, so what held for its first message holds for this one.
        let known = match self.run.route.is_some() && message.extra_keys().is_empty() {
            true => self.routes.last(message),
            false => None,
        };
        let route = match known {
            Some(known) => known?,
            None => self.route_of(message)?,
        };
        route.check_size(message)?;
        Ok(route)
    }

    #[inline]
    pub(super) fn publish_to(&mut self, route: Arc<Route>, publish: Publish, now: Now) {
        self.count_received(&publish);
        if let Some(delay) = publish.delay
            && let Some(vhost) = self.vhost.clone()
        {
            return self.delay(&vhost, publish, delay, &route, now);
        }
        let same = self.run.route.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &route));
        let is_new = !same || self.run.messages.len() >= RUN_MAX;
        if is_new {
            self.end_run(now);
        }
        // Those of a transaction have been kept together.
        if publish.message.retain() && self.run.room == Room::Free {
            match self.retain(std::iter::once(&publish.message)) {
                Ok(kept) => self.run.batch = self.run.batch.max(kept),
                Err(refusal) => return self.turn_away(&publish, refusal),
            }
        }
        if is_new {
            self.run.route = Some(route.clone());
        }
        if route.targets.is_empty() {
            self.tally.unrouted += 1;
            if publish.mandatory {
                self.tally.bounced += 1;
                let (publisher, message) = (publish.publisher, publish.message.clone());
                self.outbox.push(Event::Returned { publisher, message });
            }
        }
        if publish.number > 0 {
            self.tally.asked += 1;
            let Publish { publisher, number, received, .. } = publish;
            let place = self.run.messages.len();
            let durability = publish.message.durability();
            self.run.numbers.push(Numbered { publisher, number, place, received, durability });
        }
        if publish.message.is_durable() {
            self.run.bytes += publish.message.size();
        }
        self.run.messages.push(publish.message);
    }

    /// Keeps what asks for it as the last values of its topics, all or none.
    ///
    /// Errors: kind `Limit`.
    pub(super) fn retain<'m>(
        &self,
        messages: impl Iterator<Item = &'m Message> + Clone,
    ) -> Result<Option<ShardBatch>, Refusal> {
        let Some(vhost) = &self.vhost else { return Ok(None) };
        self.core.retain(vhost, messages, self.client.as_deref())
    }

    /// Has a message routed later. What its route is now tells the publisher whether it would get
    /// anywhere.
    fn delay(
        &mut self,
        vhost: &Arc<Vhost>,
        publish: Publish,
        delay: Delay,
        route: &Route,
        now: Now,
    ) {
        self.end_run(now);
        let Publish { publisher, number, mandatory, received, message, .. } = publish;
        if mandatory && route.targets.is_empty() {
            self.tally.unrouted += 1;
            self.tally.bounced += 1;
            self.outbox.push(Event::Returned { publisher, message });
            return self.end_publish(publisher, number, PublishOutcome::Unrouted, None);
        }
        let core = self.core.clone();
        let together = received.map(|_| core.committer.together());
        let client = self.client.as_deref();
        let (size, is_durable) = (message.size(), message.is_durable());
        let asked = message.durability();
        let stored = core.delay(vhost, message, delay, client, now);
        let remembered = match (&stored, client, received) {
            (Ok(_), Some(client), Some(id)) => {
                core.remember_received(vhost, client, &[id], asked.stronger(Durability::Os))
            }
            _ => None,
        };
        drop(together);
        let Ok((batch, id)) = stored else {
            let refused = PublishOutcome::Refused(RefusalKind::Full);
            return self.end_publish(publisher, number, refused, None);
        };
        if self.tells_places && number > 0 {
            let place = Place::Scheduled(id);
            self.outbox.push(Event::Placed { publisher, first: number, last: number, place });
        }
        self.unconfirmed_new += size;
        self.appended = self.appended.max(Some(batch));
        let wait = is_durable.then_some(batch).max(remembered);
        let class = if is_durable { core.durability.weaker(asked) } else { Durability::Memory };
        let kept = core.committer.kept(class);
        self.end_publish(publisher, number, PublishOutcome::Routed(kept), wait);
    }

    /// Notes how a publish ended that was not part of a run.
    pub(super) fn end_publish(
        &mut self,
        publisher: PublisherId,
        number: u64,
        outcome: PublishOutcome,
        batch: Option<ShardBatch>,
    ) {
        if number > 0 {
            self.ended.push(Ended { publisher, first: number, last: number, outcome, batch });
        }
        self.wait_for = self.wait_for.max(batch);
    }

    /// The route of a message, from the cache or made anew with the permission to publish there.
    fn route_of(&mut self, message: &Message) -> Cached {
        let Some(vhost) = &self.vhost.clone() else {
            return Err(Arc::new(Refusal::new(RefusalKind::Denied, "no vhost is open")));
        };
        let topology = vhost.topology.load();
        let versions = Versions { topology: topology.version, rights: self.core.access.version() };
        self.routes.check(versions);
        let plain = message.extra_keys().is_empty();
        if plain && let Some(cached) = self.routes.get(message) {
            return cached;
        }
        let exchange = message.exchange();
        let is_open = self.routes.is_open(exchange);
        let permitted = match is_open {
            true => self.check_keys(vhost, message),
            false => self
                .permit::<Write>(vhost, "exchange", exchange)
                .and_then(|_| self.check_keys(vhost, message))
                .and_then(|()| check_publishable(vhost, &topology, exchange)),
        };
        if let Err(refusal) = permitted {
            let cached = Err(Arc::new(refusal));
            if plain {
                self.routes.put(message, cached.clone());
            }
            return cached;
        }
        if !is_open {
            self.routes.note_open(exchange);
        }
        let reserved = exchange.is_empty() && message.key().starts_with("amq.");
        if reserved && let Some(route) = self.reply_route(vhost, message) {
            return Ok(Arc::new(route.with_sizes(topology.body_bytes_max)));
        }
        let is_mailbox = exchange.is_empty() && message.key().starts_with(MAILBOX_PREFIX);
        if is_mailbox {
            self.core.ensure_mailbox(vhost, message.key(), false);
        }
        // A mailbox may just have been made.
        let topology = if is_mailbox { vhost.topology.load() } else { topology };
        let routing =
            Routing { topology: &topology, publisher: self.number, message: Some(message) };
        let keys =
            std::iter::once(message.key()).chain(message.extra_keys().iter().map(|key| &**key));
        let found = routing.route_by(&self.chance, exchange, keys);
        let mut route = found.with_sizes(topology.body_bytes_max);
        if self.core.traces.is_on() {
            self.find_traces(vhost, &mut route, message);
        }
        self.core.note_denied(route.denied);
        let cacheable = route.cacheable && plain && !is_mailbox;
        let cached = Ok(Arc::new(route));
        if cacheable {
            self.routes.put(message, cached.clone());
        }
        cached
    }

    /// Hands the run over, or lays it aside while a transaction collects them.
    fn end_run(&mut self, now: Now) {
        match self.run.room {
            Room::Free => self.finish_run(now),
            Room::Reserved => self.lay_run_aside(),
        }
    }

    /// Hands the run over and notes how its publishes ended.
    pub(super) fn finish_run(&mut self, now: Now) {
        let Some(route) = self.run.route.take() else { return };
        let Some(vhost) = self.vhost.clone() else { return };
        // A message of quality of service 2 and its packet id are stored together, or a crash
        // between them would let a repeat pass for a new message.
        let has_received = self.run.numbers.iter().any(|numbered| numbered.received.is_some());
        let core = has_received.then(|| self.core.clone());
        let together = core.as_ref().map(|core| core.committer.together());
        let marks = self.marks_of(&vhost, &route, now);
        let (messages, room) = (&mut self.run.messages, self.run.room);
        let count = messages.len();
        let (targets, now_ms) = (&route.targets, now.unix_ms);
        let handed = self.core.hand_over_followed(targets, messages, &marks, room, now_ms);
        self.note_handed(&vhost, &route, &marks, count, handed);
        drop(together);
    }

    /// What follows the messages of the run.
    pub(super) fn marks_of(&self, vhost: &Arc<Vhost>, route: &Route, now: Now) -> Begun {
        match route.traces.is_empty() {
            true => Vec::new(),
            false => self.begin_traces(vhost, route, now),
        }
    }

    /// Notes how the publishes of the run ended, and leaves an empty one.
    pub(super) fn note_handed(
        &mut self,
        vhost: &Vhost,
        route: &Route,
        marks: &[(usize, Mark)],
        count: usize,
        handed: Handed,
    ) {
        self.run.messages.clear();
        if self.run.messages.capacity() > RUN_MAX {
            self.run.messages = Vec::new();
        }
        self.tally.direct += handed.direct;
        if handed.refused > 0 {
            self.core.counters.add_refusals(RefusalKind::Full, handed.refused as u64);
        }
        route.count((count - handed.refused.min(count)) as u64);
        // What is refused stands at the end.
        let taken = count.saturating_sub(handed.refused);
        for (_, mark) in marks.iter().filter(|(place, _)| *place >= taken) {
            mark.note("refused", vec![("detail", "queue_full".to_owned())]);
        }
        let accepted = self.run.numbers.partition_point(|numbered| numbered.place < taken);
        let batch = handed.batch.max(self.run.batch.take()).max(self.remember(vhost, accepted));
        // Durable bytes count until they are on the disk, whether or not a confirm is wanted, so
        // that a publisher cannot run away from the disk.
        let bytes = std::mem::take(&mut self.run.bytes);
        if batch.is_some() {
            self.unconfirmed_new += bytes;
            self.appended = self.appended.max(batch);
        }
        if self.run.numbers.is_empty() {
            return;
        }
        if self.tells_places {
            self.tell_places(route, handed, accepted);
        }
        let committer = &self.core.committer;
        let kept = handed.kept.unwrap_or(Durability::Memory);
        for (index, taken) in self.run.numbers.drain(..).enumerate() {
            let Numbered { publisher, number, durability, .. } = taken;
            let outcome = match route.targets.is_empty() {
                _ if index >= accepted => PublishOutcome::Refused(RefusalKind::Full),
                true => PublishOutcome::Unrouted,
                false => PublishOutcome::Routed(committer.kept(kept.weaker(durability))),
            };
            let ended = Ended { publisher, first: number, last: number, outcome, batch };
            match self.ended.last_mut() {
                Some(last)
                    if last.publisher == publisher
                        && last.last + 1 == number
                        && last.outcome == outcome
                        && last.batch == batch =>
                {
                    last.last = number;
                }
                Some(_) | None => self.ended.push(ended),
            }
        }
        self.wait_for = self.wait_for.max(batch);
    }

    /// Tells where the first `accepted` messages of the run are that want a confirm.
    fn tell_places(&self, route: &Route, handed: Handed, accepted: usize) {
        let queues = route.targets.iter().filter(|target| matches!(target, Target::Queue(..)));
        if route.targets.is_empty() {
            return;
        }
        // None of them was full for these; those that are left out are gone.
        let queues = queues.count().saturating_sub(handed.refusing);
        let place = Place::Queues(u32::try_from(queues).unwrap_or(u32::MAX));
        let follows = |one: &Numbered, next: &Numbered| {
            one.publisher == next.publisher && one.number + 1 == next.number
        };
        for range in self.run.numbers[..accepted].chunk_by(follows) {
            let [Numbered { publisher, number: first, .. }, ..] = *range else { continue };
            let last = range.last().map_or(first, |last| last.number);
            self.outbox.push(Event::Placed { publisher, first, last, place });
        }
    }

    /// Notes the packet ids of the first `accepted` messages of the run.
    fn remember(&self, vhost: &Vhost, accepted: usize) -> Option<ShardBatch> {
        let client = self.client.as_ref()?;
        let taken = self.run.numbers.iter().take(accepted);
        let packet_ids: Vec<u16> = taken.clone().filter_map(|taken| taken.received).collect();
        if packet_ids.is_empty() {
            return None;
        }
        let strictest = taken.map(|taken| taken.durability).reduce(Durability::stronger);
        // The id of a message that stays in memory outlives the process all the same, or a repeat
        // would be delivered again.
        let class = strictest.unwrap_or_default().stronger(Durability::Os);
        self.core.remember_received(vhost, client, &packet_ids, class)
    }

    pub(super) fn refuse_publish(&mut self, publish: &Publish, refusal: Refusal) {
        self.channels.fail(publish.publisher);
        self.tally.refused += 1;
        self.core.counters.add_refusals(refusal.kind, 1);
        self.outbox.push(Event::PublishRefused {
            publisher: publish.publisher,
            number: publish.number,
            refusal: Box::new(refusal),
        });
    }

    /// Counts this connection among those that are blocked.
    #[inline]
    pub(super) fn mark_publisher(&mut self) {
        if !self.publishes {
            self.publishes = true;
            self.core.tell_new_publisher(self.id);
        }
    }
}

//! The broker and the model side by side.

use std::collections::BTreeMap;

use polymq_broker::{ApplyTo, PolicyKind, PolicyRecord};
use polymq_contract::{CancelReason, Command, Event, Outcome, PublishOutcome, RefusalKind};
use polymq_model::{ConsumerId, Limits, RequestId, Value, VhostName};

use super::{
    Config, DeadLetters, Given, Got, Model, Msg, Overflow, RETRY_MAX_MS, Settle, Step, Taker,
};
use crate::world::{self, Client, World, message, publish_of};

pub(crate) struct Run {
    world: World,
    client: Client,
    model: Model,
    next_consumer: u32,
    has_restarted: bool,
    /// Publishes by number that should have been, and were, answered: true for those that were
    /// refused because the queue was full.
    answers: BTreeMap<u64, bool>,
    answered: BTreeMap<u64, bool>,
}

/// Few messages in memory, so that most of a queue is on the disk.
fn limits() -> Limits {
    Limits {
        queue_messages_in_memory_max: 8,
        queue_bytes_in_memory_max: 64 * 1024,
        ..Limits::default()
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn id_of(message: &polymq_model::Message) -> u64 {
    world::body_of(message).trim().parse().unwrap()
}

fn arguments_of(config: Config) -> Vec<(&'static str, Value)> {
    let mut arguments = Vec::new();
    if config.levels > 0 {
        arguments.push(("x-max-priority", Value::U8(config.levels)));
    }
    if let Some(ttl) = config.ttl {
        arguments.push(("x-message-ttl", Value::U16(ttl)));
    }
    if let Some(length) = config.length {
        arguments.push(("x-max-length", Value::U8(length)));
    }
    if let Some(bytes) = config.bytes {
        arguments.push(("x-max-length-bytes", Value::U8(bytes)));
    }
    match config.overflow {
        Overflow::DropHead => {}
        Overflow::Reject => arguments.push(("x-overflow", text("reject-publish"))),
        Overflow::RejectDlx => arguments.push(("x-overflow", text("reject-publish-dlx"))),
    }
    if config.dead_letters == DeadLetters::AtLeastOnce {
        arguments.push(("x-dead-letter-strategy", text("at-least-once")));
    }
    if config.dead_letters != DeadLetters::None {
        arguments.push(("x-dead-letter-exchange", text("")));
        arguments.push(("x-dead-letter-routing-key", text("dead")));
    }
    if let Some(limit) = config.limit {
        arguments.push(("x-delivery-limit", Value::U8(limit)));
    }
    if let Some(retry) = config.retry {
        arguments.push(("x-delayed-retry-type", text(retry.kind)));
        arguments.push(("x-delayed-retry-min", Value::U16(retry.min)));
        arguments.push(("x-delayed-retry-max", Value::U64(RETRY_MAX_MS)));
        arguments.push(("x-delayed-retry-backoff", text(retry.backoff)));
    }
    if let Some(timeout) = config.timeout {
        arguments.push(("x-consumer-timeout", Value::U16(timeout)));
    }
    if config.single {
        arguments.push(("x-single-active-consumer", Value::Bool(true)));
    }
    arguments
}

impl Run {
    pub(crate) fn new(config: Config) -> Self {
        let world = World::with_limits(limits());
        let mut client = world.connect();
        client.queue_with("q", &arguments_of(config));
        let model = Model::new(config);
        if model.has_target {
            client.queue("dead");
        }
        Self {
            world,
            client,
            model,
            next_consumer: 0,
            has_restarted: false,
            answers: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    fn now(&self) -> u64 {
        self.world.now().unix_ms
    }

    /// What consumers were given since the last look, and who of them is told to end.
    fn given(&mut self) -> Given {
        let (at, mut given) = (self.now(), Given::default());
        for event in self.client.events() {
            match event {
                Event::Delivered(d) => given.got.push(Got {
                    id: id_of(&d.message),
                    consumer: d.consumer.0,
                    number: d.number,
                    acquired: d.acquired,
                    failed: d.failed,
                    at,
                }),
                Event::ConsumerCancelled { consumer, reason: CancelReason::Timeout } => {
                    given.ended.push(consumer.0);
                }
                Event::Confirmed { first, last, outcome, .. } => {
                    let is_refused = match outcome {
                        PublishOutcome::Routed(_) => false,
                        PublishOutcome::Refused(RefusalKind::Full) => true,
                        other => panic!("{other:?} for {first} to {last}"),
                    };
                    for number in first..=last {
                        let before = self.answered.insert(number, is_refused);
                        assert_eq!(before, None, "{number} is answered once");
                    }
                }
                _ => {}
            }
        }
        given
    }

    fn send(&mut self, command: Command) -> Given {
        let world = &self.world;
        self.client.at(world).send(command);
        self.given()
    }

    /// How much of everything there is, to tell whether a step did something.
    fn amounts(&self) -> [usize; 6] {
        let model = &self.model;
        let gone = model.dead.len() + model.staying.len();
        let paused = usize::from(model.paused);
        let (ready, held) = (model.ready.len(), model.held.len());
        [ready, model.delayed.len(), held, gone, model.takers.len(), paused]
    }

    /// Returns false when there was nothing to do.
    pub(crate) fn run(&mut self, step: &Step) -> bool {
        let (now, before) = (self.now(), self.amounts());
        let mut given = Given::default();
        match step {
            Step::Publish(messages, durable) => given = self.publish(messages, *durable),
            Step::Consume(prefetch, priority) => given = self.consume(*prefetch, *priority),
            Step::Cancel(at) => {
                let Some(consumer) = self.taker(*at) else { return false };
                let (request, id) = (RequestId(1_000_000), ConsumerId(consumer));
                given = self.send(Command::Cancel { request, consumer: id });
                self.model.remove_taker(consumer);
                self.model.dispatch(now, &mut given);
            }
            Step::Release(at) => {
                let Some(consumer) = self.taker(*at) else { return false };
                given = self.release(consumer);
            }
            Step::Settle(at, how) => {
                let Some(settled) = self.settle(*at, *how) else { return false };
                given = settled;
            }
            Step::Get if self.model.config.single => return false,
            Step::Get => self.get(),
            Step::Purge => {
                let (request, queue) = (RequestId(1_000_000), "q".to_owned());
                self.send(Command::PurgeQueue { request, queue });
                self.model.ready.clear();
                self.model.delayed.clear();
                self.model.staying.clear();
            }
            Step::Pause(paused) => {
                let vhost = VhostName::new("/").unwrap();
                let moment = self.world.now();
                self.world.broker.pause_queue(&vhost, "q", *paused, moment).unwrap();
                given = self.given();
                if self.model.paused != *paused {
                    self.model.paused = *paused;
                    self.model.dispatch(now, &mut given);
                }
            }
            Step::Pass(ms) => given = self.pass((*ms).into()),
            Step::Policy(length) => {
                let Some(seen) = self.set_policy(*length) else { return false };
                given = seen;
            }
            Step::Restart => {
                if !self.restart() {
                    return false;
                }
            }
        }
        // When a page of the disk comes, what has expired on it goes at once; a look has it go from
        // memory as well.
        self.world.pass(0);
        given.add(self.given());
        let now = self.now();
        self.model.look(now, &mut given);
        assert!(given.got.is_empty(), "nobody should have got {:?}", given.got);
        self.compare();
        // What is returned may go out again at once, which changes no amount.
        let always = [Step::Restart, Step::Policy(None), Step::Settle(0, Settle::Accept)];
        let is_kind = |kind: &Step| std::mem::discriminant(kind) == std::mem::discriminant(step);
        always.iter().any(is_kind) || self.amounts() != before
    }

    /// Lets time pass. What has expired behind an expired head may have to come from the disk, and
    /// by then others may have come back before it; so each deadline is given its moment.
    fn pass(&mut self, ms: u64) -> Given {
        let end = self.now() + ms;
        while let Some(at) = self.model.next_deadline(self.now(), end) {
            let mut given = self.pass_to(at);
            given.add(self.pass_to(at));
            assert!(given.got.is_empty(), "nobody should have got {:?}", given.got);
        }
        self.pass_to(end)
    }

    fn pass_to(&mut self, at: u64) -> Given {
        self.world.pass(at - self.now());
        let mut given = self.given();
        self.model.look(at, &mut given);
        given
    }

    fn consume(&mut self, prefetch: u8, priority: u8) -> Given {
        self.next_consumer += 1;
        let consumer = self.next_consumer;
        let mut consume = world::consume_of("q", consumer, prefetch.into());
        consume.arguments = vec![("x-priority".to_owned(), Value::U8(priority))];
        let mut given = self.send(Command::Consume(Box::new(consume)));
        self.model.add_taker(Taker { id: consumer, prefetch, priority });
        self.model.dispatch(self.now(), &mut given);
        given
    }

    fn release(&mut self, consumer: u32) -> Given {
        let now = self.now();
        let mut given = self.send(Command::Release { consumers: vec![ConsumerId(consumer)] });
        self.model.remove_taker(consumer);
        let held = self.model.held.keys().filter(|(c, _)| *c == consumer).copied();
        for key in held.collect::<Vec<_>>() {
            let msg = self.model.held.remove(&key).unwrap();
            self.model.come_back(msg, true, now);
        }
        self.model.dispatch(now, &mut given);
        self.model.drop_over_limit();
        given
    }

    fn taker(&self, at: u8) -> Option<u32> {
        let takers = &self.model.takers;
        takers.get(usize::from(at) % takers.len().max(1)).map(|taker| taker.id)
    }

    fn publish(&mut self, messages: &[(u8, Option<u16>)], durable: bool) -> Given {
        let now = self.now();
        let (mut commands, mut msgs) = (Vec::new(), Vec::new());
        for (priority, ttl) in messages {
            let id = self.model.next_id;
            self.model.next_id += 1;
            let mut msg =
                Msg { id, level: 0, deadline: 0, durable, acquired: 0, failed: 0, delivered: 0 };
            let body = format!("{id:>0$}", msg.size());
            let mut new = message("", "q", &body);
            new.durable = durable;
            new.priority = Some(*priority);
            let own = ttl.map_or(0, |ttl| now + u64::from(ttl));
            new.deadline_ms = own;
            commands.push(publish_of(new.build(&mut Vec::new()), id + 1));
            let here = self.model.config.ttl.map(|ttl| now + u64::from(ttl));
            let own = (own != 0).then_some(own);
            msg.deadline = own.into_iter().chain(here).min().unwrap_or(0);
            msg.level = (*priority).min(self.model.config.levels);
            msgs.push(msg);
        }
        let numbers: Vec<u64> = msgs.iter().map(|msg| msg.id + 1).collect();
        let world = &self.world;
        self.client.at(world).send_all(commands);
        let mut given = self.given();
        let refused = self.model.publish(msgs, now, &mut given);
        let taken = numbers.len() - refused;
        self.answers.extend(numbers.iter().enumerate().map(|(at, number)| (*number, at >= taken)));
        given
    }

    fn settle(&mut self, at: u8, how: Settle) -> Option<Given> {
        let at = usize::from(at) % self.model.held.len().max(1);
        let (&(consumer, number), _) = self.model.held.iter().nth(at)?;
        let outcome = match how {
            Settle::Accept => Outcome::Accepted,
            Settle::Return => Outcome::Returned,
            Settle::Fail => Outcome::Failed,
            Settle::Reject => Outcome::Rejected,
        };
        let world = &self.world;
        self.client.at(world).settle(consumer, number, number, outcome);
        let mut given = self.given();
        let now = self.now();
        let msg = self.model.held.remove(&(consumer, number)).unwrap();
        self.model.settle(msg, how, now);
        self.model.dispatch(now, &mut given);
        if !matches!(how, Settle::Accept) {
            self.model.drop_over_limit();
        }
        Some(given)
    }

    fn get(&mut self) {
        let now = self.now();
        let world = &self.world;
        let got = self.client.at(world).get("q").map(|body| body.trim().parse::<u64>().unwrap());
        self.model.expire(now);
        let first = self.model.ready.first_key_value().filter(|_| !self.model.paused);
        let first = first.map(|(place, msg)| (*place, msg.id));
        assert_eq!(got, first.map(|(_, id)| id), "a get takes the first that is ready");
        if let Some((place, _)) = first {
            self.model.ready.remove(&place);
        }
        self.model.expire(now);
    }

    fn set_policy(&mut self, length: Option<u8>) -> Option<Given> {
        if self.model.policy_length == length {
            return None;
        }
        if self.model.config.dead_letters == DeadLetters::AtLeastOnce {
            return None;
        }
        // The same when the restart came first.
        if self.model.config.retry.is_some() && self.has_restarted && length.is_some() {
            return None;
        }
        let (vhost, moment) = (VhostName::new("/").unwrap(), self.world.now());
        let broker = &self.world.broker;
        match length {
            Some(length) => {
                let record = PolicyRecord {
                    pattern: "^q$".to_owned(),
                    apply_to: ApplyTo::Queues,
                    priority: 0,
                    definition: vec![("max-length".to_owned(), Value::U8(length))],
                };
                broker.put_policy(&vhost, PolicyKind::User, "p", record, moment).unwrap();
            }
            None => drop(broker.remove_policy(&vhost, PolicyKind::User, "p", moment)),
        }
        let mut given = self.given();
        let before = self.model.length();
        self.model.policy_length = length;
        if self.model.length() != before {
            let now = self.now();
            self.model.expire(now);
            self.model.drop_over_limit();
            self.model.dispatch(now, &mut given);
        }
        Some(given)
    }

    fn restart(&mut self) -> bool {
        // Messages that are held count as ready until they have been read, which moves limits.
        if self.model.config.retry.is_some() && self.model.is_bounded() {
            return false;
        }
        // Why a dead letter waits is not kept.
        if !self.model.staying.is_empty() {
            return false;
        }
        self.world.broker.committer().kick();
        // Whatever is delivered now comes back.
        self.given();
        let world = std::mem::replace(&mut self.world, World::with_limits(limits()));
        self.world = world.restart_with(limits());
        self.client = self.world.connect();
        self.model.restart();
        self.has_restarted = true;
        true
    }

    fn compare(&self) {
        let queues = self.world.broker.queues();
        let counts = queues.iter().find(|view| view.name.as_str() == "q").unwrap().counts;
        let model = &self.model;
        assert_eq!(
            counts.ready + counts.delayed,
            (model.ready.len() + model.delayed.len() + model.staying.len()) as u64,
            "ready and delayed"
        );
        if !self.has_restarted {
            let delayed = model.delayed.len() + model.staying.len();
            assert_eq!(counts.delayed, delayed as u64, "delayed");
        }
        assert_eq!(counts.unsettled, model.held.len() as u64, "unsettled");
    }

    /// Everything that should be there comes, in order, and what died is where it should be.
    pub(crate) fn finish(mut self) {
        self.run(&Step::Pause(false));
        if !self.model.has_target {
            self.client.queue("dead");
            self.model.find_target();
        }
        self.run(&Step::Pass(60_000));
        while let Some(taker) = self.model.takers.first().copied() {
            let at = self.model.takers.iter().position(|t| t.id == taker.id).unwrap();
            self.run(&Step::Cancel(u8::try_from(at).unwrap()));
        }
        // What comes back because its consumer took too long may be held once more.
        self.run(&Step::Pass(60_000));
        self.run(&Step::Pass(60_000));
        self.run(&Step::Consume(0, 0));
        while !self.model.held.is_empty() {
            self.run(&Step::Settle(0, Settle::Accept));
        }
        assert!(self.model.ready.is_empty() && self.model.delayed.is_empty());
        self.world.broker.committer().kick();
        self.given();
        assert_eq!(self.answered, self.answers, "publishes and whether they were refused");
        if self.model.config.dead_letters != DeadLetters::None {
            self.compare_dead_letters();
        }
    }

    fn compare_dead_letters(&mut self) {
        self.client.consume("dead", 2_000_000, 0);
        let dead = self.client.deliveries().into_iter().map(|d| {
            let reason = d.message.annotations().unwrap().deaths[0].reason.clone();
            (id_of(&d.message), reason)
        });
        let expected = self.model.dead.iter().map(|(msg, reason)| (msg.id, (*reason).to_owned()));
        // What expires on the disk goes when it has been read, so its order is not certain, and
        // neither is whether it had expired before the length drove it out. Nothing else is vague.
        let expiring: Vec<u64> =
            self.model.dead.iter().filter(|(m, _)| m.deadline != 0).map(|(m, _)| m.id).collect();
        let is_vague = |(id, reason): &(u64, String)| {
            expiring.contains(id) && ["expired", "maxlen"].contains(&reason.as_str())
        };
        let (mut vague, mut dead): (Vec<_>, Vec<_>) = dead.partition(is_vague);
        let (mut may, mut expected): (Vec<_>, Vec<_>) = expected.partition(is_vague);
        vague.sort();
        may.sort();
        let ids = |list: &[(u64, String)]| list.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&vague), ids(&may), "dead letters that could expire");
        if self.model.config.dead_letters == DeadLetters::AtLeastOnce {
            // Those that had to wait left in the order of their places.
            dead.sort();
            expected.sort();
        }
        assert_eq!(dead, expected, "dead letters");
    }
}

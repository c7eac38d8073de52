//! The broker and the model side by side.

use polymq_broker::{ApplyTo, PolicyKind, PolicyRecord};
use polymq_contract::{Command, Event, Outcome};
use polymq_model::{ConsumerId, Limits, RequestId, Value, VhostName};

use super::{Config, Given, Got, Model, Msg, Settle, Step, Taker};
use crate::world::{self, Client, World, message, publish_of};

pub(crate) struct Run {
    world: World,
    client: Client,
    model: Model,
    next_consumer: u32,
    has_restarted: bool,
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

impl Run {
    pub(crate) fn new(config: Config) -> Self {
        let world = World::with_limits(limits());
        let mut client = world.connect();
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
        if config.rejects {
            arguments.push(("x-overflow", text("reject-publish")));
        }
        if config.dead_letters {
            arguments.push(("x-dead-letter-exchange", text("")));
            arguments.push(("x-dead-letter-routing-key", text("dead")));
        }
        if let Some(limit) = config.limit {
            arguments.push(("x-delivery-limit", Value::U8(limit)));
        }
        if let Some(min) = config.retry {
            arguments.push(("x-delayed-retry-type", text("failed")));
            arguments.push(("x-delayed-retry-min", Value::U16(min)));
        }
        if config.single {
            arguments.push(("x-single-active-consumer", Value::Bool(true)));
        }
        client.queue_with("q", &arguments);
        client.queue("dead");
        let model = Model::new(config);
        Self { world, client, model, next_consumer: 0, has_restarted: false }
    }

    fn now(&self) -> u64 {
        self.world.now().unix_ms
    }

    /// What consumers were given since the last look.
    fn given(&mut self) -> Given {
        let got = |event| match event {
            Event::Delivered(d) => Some(Got {
                id: world::body_of(&d.message).parse().unwrap(),
                consumer: d.consumer.0,
                number: d.number,
                acquired: d.acquired,
                failed: d.failed,
            }),
            _ => None,
        };
        Given(self.client.events().into_iter().filter_map(got).collect())
    }

    fn send(&mut self, command: Command) -> Given {
        let world = &self.world;
        self.client.at(world).send(command);
        self.given()
    }

    pub(crate) fn run(&mut self, step: &Step) {
        let now = self.now();
        let mut given = Given::default();
        match step {
            Step::Publish(messages, durable) => given = self.publish(messages, *durable),
            Step::Consume(prefetch, priority) => given = self.consume(*prefetch, *priority),
            Step::Cancel(at) => {
                let Some(consumer) = self.taker(*at) else { return };
                let (request, id) = (RequestId(1_000_000), ConsumerId(consumer));
                given = self.send(Command::Cancel { request, consumer: id });
                self.model.remove_taker(consumer);
                self.model.dispatch(now, &mut given);
            }
            Step::Release(at) => {
                let Some(consumer) = self.taker(*at) else { return };
                given = self.send(Command::Release { consumers: vec![ConsumerId(consumer)] });
                self.model.remove_taker(consumer);
                let held = self.model.held.keys().filter(|(c, _)| *c == consumer).copied();
                for key in held.collect::<Vec<_>>() {
                    let msg = self.model.held.remove(&key).unwrap();
                    self.model.come_back(msg, true, now);
                }
                self.model.dispatch(now, &mut given);
                self.model.drop_over_limit();
            }
            Step::Settle(at, how) => {
                let Some(settled) = self.settle(*at, *how) else { return };
                given = settled;
            }
            Step::Get => self.get(),
            Step::Purge => {
                let (request, queue) = (RequestId(1_000_000), "q".to_owned());
                self.send(Command::PurgeQueue { request, queue });
                self.model.ready.clear();
                self.model.delayed.clear();
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
            Step::Pass(ms) => {
                self.world.pass((*ms).into());
                given = self.given();
                let now = self.now();
                self.model.look(now, &mut given);
            }
            Step::Policy(length) => given = self.set_policy(*length),
            Step::Restart => self.restart(),
        }
        // When a page of the disk comes, what has expired on it goes at once; a look has it go from
        // memory as well.
        self.world.pass(0);
        given.0.extend(self.given().0);
        let now = self.now();
        self.model.look(now, &mut given);
        assert!(given.0.is_empty(), "nobody should have got {:?}", given.0);
        self.compare();
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
            let body = id.to_string();
            let mut new = message("", "q", &body);
            new.durable = durable;
            new.priority = Some(*priority);
            let own = ttl.map_or(0, |ttl| now + u64::from(ttl));
            new.deadline_ms = own;
            commands.push(publish_of(new.build(&mut Vec::new()), id + 1));
            let here = self.model.config.ttl.map(|ttl| now + u64::from(ttl));
            let own = (own != 0).then_some(own);
            let deadline = own.into_iter().chain(here).min().unwrap_or(0);
            let level = (*priority).min(self.model.config.levels);
            msgs.push(Msg { id, level, deadline, durable, acquired: 0, failed: 0 });
        }
        let world = &self.world;
        self.client.at(world).send_all(commands);
        let mut given = self.given();
        self.model.publish(msgs, now, &mut given);
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
        if self.model.config.single {
            return;
        }
        let now = self.now();
        let world = &self.world;
        let got = self.client.at(world).get("q").map(|body| body.parse::<u64>().unwrap());
        self.model.expire(now);
        let first = self.model.ready.first_key_value().filter(|_| !self.model.paused);
        let first = first.map(|(place, msg)| (*place, msg.id));
        assert_eq!(got, first.map(|(_, id)| id), "a get takes the first that is ready");
        if let Some((place, _)) = first {
            self.model.ready.remove(&place);
        }
        self.model.expire(now);
    }

    fn set_policy(&mut self, length: Option<u8>) -> Given {
        // The same when the restart came first.
        if self.model.config.retry.is_some() && self.has_restarted && length.is_some() {
            return Given::default();
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
        if self.model.policy_length != length {
            let before = self.model.length();
            self.model.policy_length = length;
            if self.model.length() != before {
                let now = self.now();
                self.model.expire(now);
                self.model.drop_over_limit();
                self.model.dispatch(now, &mut given);
            }
        }
        given
    }

    fn restart(&mut self) {
        // Messages that are held count as ready until they have been read, which moves limits.
        let is_bounded = self.model.config.length.is_some() || self.model.policy_length.is_some();
        if self.model.config.retry.is_some() && is_bounded {
            return;
        }
        self.world.broker.committer().kick();
        let world = std::mem::replace(&mut self.world, World::with_limits(limits()));
        self.world = world.restart_with(limits());
        self.client = self.world.connect();
        self.model.restart();
        self.has_restarted = true;
    }

    fn compare(&self) {
        let queues = self.world.broker.queues();
        let counts = queues.iter().find(|view| view.name.as_str() == "q").unwrap().counts;
        let model = &self.model;
        assert_eq!(
            counts.ready + counts.delayed,
            (model.ready.len() + model.delayed.len()) as u64,
            "ready and delayed"
        );
        if !self.has_restarted {
            assert_eq!(counts.delayed, model.delayed.len() as u64, "delayed");
        }
        assert_eq!(counts.unsettled, model.held.len() as u64, "unsettled");
    }

    /// Everything that should be there comes, in order, and what died is where it should be.
    pub(crate) fn finish(mut self) {
        self.run(&Step::Pause(false));
        self.run(&Step::Pass(60_000));
        while let Some(taker) = self.model.takers.first().copied() {
            let at = self.model.takers.iter().position(|t| t.id == taker.id).unwrap();
            self.run(&Step::Cancel(u8::try_from(at).unwrap()));
        }
        self.run(&Step::Consume(0, 0));
        while !self.model.held.is_empty() {
            self.run(&Step::Settle(0, Settle::Accept));
        }
        assert!(self.model.ready.is_empty() && self.model.delayed.is_empty());
        if !self.model.config.dead_letters {
            return;
        }
        self.client.consume("dead", 2_000_000, 0);
        let mut dead: Vec<(u64, String)> = self
            .client
            .deliveries()
            .iter()
            .map(|d| {
                let reason = d.message.annotations().unwrap().deaths[0].reason.clone();
                (world::body_of(&d.message).parse().unwrap(), reason)
            })
            .collect();
        let expected = self.model.dead.iter().map(|(msg, reason)| (msg.id, (*reason).to_owned()));
        let mut expected: Vec<_> = expected.collect();
        let can_expire = self.model.dead.iter().any(|(msg, _)| msg.deadline != 0);
        if can_expire {
            // What expires on the disk goes when it has been read, so the order is not certain, and
            // neither is whether it had expired before the length drove it out.
            for list in [&mut dead, &mut expected] {
                for (_, reason) in list.iter_mut().filter(|(_, reason)| reason == "maxlen") {
                    "expired".clone_into(reason);
                }
                list.sort();
            }
        }
        assert_eq!(dead, expected, "dead letters");
    }
}

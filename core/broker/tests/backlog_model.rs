//! A queue with a window of a few messages against a list that is obviously right, under operations
//! that nobody would think of.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::collections::BTreeMap;

use polymq_contract::{Command, Consume, Outcome};
use polymq_model::{ConsumerId, Limits, RequestId};
use proptest::prelude::*;
use world::{Client, World, message, publish_of};

#[derive(Debug, Clone)]
enum Step {
    /// So many messages, durable or not.
    Publish(u8, bool),
    /// A consumer with this prefetch replaces the one there is.
    Consume(u8),
    Release,
    /// Settle the delivery at this place, in a way.
    Settle(u8, Settle),
    Get,
    Purge,
    /// Answers of the store are held back, or not.
    Delay(bool),
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Settle {
    Accept,
    Return,
    Reject,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..12_u8, any::<bool>()).prop_map(|(n, durable)| Step::Publish(n, durable)),
        2 => (0..6_u8).prop_map(Step::Consume),
        1 => Just(Step::Release),
        5 => (any::<u8>(), prop_oneof![
            4 => Just(Settle::Accept), 2 => Just(Settle::Return), 1 => Just(Settle::Reject),
        ]).prop_map(|(at, how)| Step::Settle(at, how)),
        3 => Just(Step::Get),
        1 => Just(Step::Purge),
        2 => any::<bool>().prop_map(Step::Delay),
        1 => Just(Step::Restart),
    ]
}

/// What should be in the queue, by number of the message.
#[derive(Debug, Default)]
struct Model {
    next: u64,
    /// True for durable ones.
    live: BTreeMap<u64, bool>,
    /// What the consumer has: delivery number to message.
    held: BTreeMap<u64, u64>,
}

fn limits() -> Limits {
    Limits {
        queue_messages_in_memory_max: 8,
        queue_bytes_in_memory_max: 64 * 1024,
        ..Limits::default()
    }
}

struct Run {
    world: World,
    client: Client,
    model: Model,
    consumes: bool,
    next_consumer: u32,
}

impl Run {
    fn new() -> Self {
        let world = World::with_limits(limits());
        let mut client = world.connect();
        client.queue("q");
        let (model, consumes, next_consumer) = (Model::default(), false, 0);
        Self { world, client, model, consumes, next_consumer }
    }

    /// Notes what the consumer was given: always the first that nobody has.
    fn look(&mut self) {
        for delivery in self.client.deliveries() {
            if delivery.consumer != ConsumerId(self.next_consumer) || !self.consumes {
                continue;
            }
            let number: u64 = world::body_of(&delivery.message).parse().unwrap();
            let taken: Vec<u64> = self.model.held.values().copied().collect();
            let first = self.model.live.keys().find(|n| !taken.contains(n)).copied();
            assert_eq!(Some(number), first, "not the first that is ready");
            self.model.held.insert(delivery.number, number);
        }
    }

    fn release(&mut self) {
        self.consumes = false;
        let consumers = vec![ConsumerId(self.next_consumer)];
        self.client.send(Command::Release { consumers });
        self.client.events();
        self.model.held.clear();
    }

    /// Consumes without waiting for the answer, which an answer of the store may hold back.
    fn consume(&mut self, prefetch: u32) {
        self.client.send(Command::Consume(Box::new(Consume {
            request: RequestId(self.next_consumer),
            consumer: ConsumerId(self.next_consumer),
            queue: "q".to_owned(),
            no_ack: false,
            exclusive: false,
            prefetch,
            group: 1,
            tag: String::new(),
            arguments: Vec::new(),
        })));
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Publish(count, durable) => {
                let mut commands = Vec::new();
                for _ in 0..count {
                    let number = self.model.next;
                    self.model.next += 1;
                    self.model.live.insert(number, durable);
                    let body = number.to_string();
                    let mut new = message("", "q", &body);
                    new.durable = durable;
                    commands.push(publish_of(new.build(&mut Vec::new()), number + 1));
                }
                self.client.send_all(commands);
            }
            Step::Consume(prefetch) => {
                self.look();
                self.release();
                self.next_consumer += 1;
                self.consumes = true;
                self.consume(prefetch.into());
            }
            Step::Release => {
                self.look();
                self.release();
            }
            Step::Settle(at, how) => {
                self.look();
                let at = usize::from(at) % self.model.held.len().max(1);
                let Some((&delivery, &number)) = self.model.held.iter().nth(at) else { return };
                self.model.held.remove(&delivery);
                let outcome = match how {
                    Settle::Accept => Outcome::Accepted,
                    Settle::Return => Outcome::Returned,
                    Settle::Reject => Outcome::Rejected,
                };
                if !matches!(how, Settle::Return) {
                    self.model.live.remove(&number);
                }
                self.client.settle(self.next_consumer, delivery, delivery, outcome);
            }
            Step::Get => self.get(),
            Step::Purge => {
                self.look();
                let queue = "q".to_owned();
                self.client.send(Command::PurgeQueue { request: RequestId(9), queue });
                let held: Vec<u64> = self.model.held.values().copied().collect();
                self.model.live.retain(|number, _| held.contains(number));
            }
            Step::Delay(on) => {
                self.world.store.faults().delay_replies(on);
                if !on {
                    self.world.store.release();
                }
            }
            Step::Restart => self.restart(),
        }
        self.look();
    }

    fn get(&mut self) {
        self.look();
        // While answers are held back a get may wait, and nobody waits here.
        self.world.store.faults().delay_replies(false);
        self.world.store.release();
        self.look();
        let got = self.client.get("q").map(|body| body.parse::<u64>().unwrap());
        let taken: Vec<u64> = self.model.held.values().copied().collect();
        let first = self.model.live.keys().find(|n| !taken.contains(n)).copied();
        assert_eq!(got, first, "a get takes the first that is ready");
        if let Some(got) = got {
            self.model.live.remove(&got);
        }
    }

    fn restart(&mut self) {
        self.look();
        self.world.store.faults().delay_replies(false);
        self.world.store.release();
        self.world.broker.committer().kick();
        let world = std::mem::replace(&mut self.world, World::with_limits(limits()));
        self.world = world.restart_with(limits());
        self.client = self.world.connect();
        self.consumes = false;
        self.model.held.clear();
        self.model.live.retain(|_, durable| *durable);
    }

    /// Everything that should be there comes, in order, and nothing else.
    fn finish(mut self) {
        self.world.store.faults().delay_replies(false);
        self.world.store.release();
        self.look();
        self.release();
        let ready = self.world.broker.queues()[0].counts.ready;
        assert_eq!(ready, self.model.live.len() as u64, "the count of ready messages");
        self.client.consume("q", 1000, 3);
        let mut bodies = Vec::new();
        loop {
            let deliveries = self.client.deliveries();
            let Some(last) = deliveries.last().map(|delivery| delivery.number) else { break };
            bodies.extend(deliveries.iter().map(|delivery| world::body_of(&delivery.message)));
            self.client.settle(1000, 1, last, Outcome::Accepted);
        }
        let expected: Vec<_> = self.model.live.keys().map(u64::to_string).collect();
        assert_eq!(bodies, expected);
    }
}

/// `PROPTEST_CASES` sets how many runs.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { 64 };
    ProptestConfig { cases, failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_queue_with_a_small_window_is_a_queue(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in &steps {
            run.run(step);
        }
        run.finish();
    }
}

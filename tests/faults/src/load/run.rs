//! The usual run: publishers and consumers of both protocols, a queue that fills, a session.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{
    Acks, Stage, Target, amqp_consumer, amqp_publisher, mqtt_publisher, mqtt_subscriber,
    publisher_of,
};
use crate::{
    amqp::Amqp,
    broker::{Broker, Home},
    ledger::{Findings, Kind, Plan, Protocol, Record, check},
    mqtt::{Login, Mqtt},
    report::say,
};

/// Queues of the ledger.
const WORK: u32 = 1;
const TOPIC: u32 = 2;
const LATER: u32 = 3;
const SESSION: u32 = 4;
/// The MQTT client with a durable session.
const SUBSCRIBER: &str = "run-subscriber";
/// An acknowledgement may be forgotten when it was sent at most this long before a fault.
const ACK_LOSS_MAX: Duration = Duration::from_secs(2);

/// Three publishers of AMQP and two of MQTT; consumers of two queues and a session. Nobody
/// consumes the queue `later` before the end.
#[derive(Debug)]
pub struct Run {
    /// What the clients share.
    pub stage: Stage,
    /// Who publishes to which queues.
    pub plan: Plan,
    amqp: Vec<Target>,
    mqtt: Vec<Target>,
    others: Vec<(Protocol, Target)>,
}

impl Run {
    /// A run with a number of its own and bodies of about so many bytes.
    pub fn new(number: u64, filler: usize) -> Self {
        let target = |producer, exchange, key| Target {
            producer,
            exchange,
            key,
            filler,
            messages_max: u64::MAX,
        };
        let amqp =
            vec![target(1, "", "work"), target(2, "", "work"), target(3, "amq.topic", "k.a")];
        let mqtt = vec![target(11, "", "k/m"), target(12, "", "k/n")];
        let routes = [1, 2].map(|producer| (producer, vec![WORK]));
        let by_topic = [3, 11, 12].map(|producer| (producer, vec![TOPIC, LATER, SESSION]));
        let ack_loss_max_ns = u64::try_from(ACK_LOSS_MAX.as_nanos()).unwrap_or(u64::MAX);
        let plan = Plan { routes: routes.into_iter().chain(by_topic).collect(), ack_loss_max_ns };
        Self { stage: Stage::new(number), plan, amqp, mqtt, others: Vec::new() }
    }

    /// Publishes over STOMP, XMPP and HTTP, too.
    pub fn of_every_protocol(mut self) -> Self {
        let Some(model) = self.amqp.first().cloned() else { return self };
        for (protocol, producer, exchange, key) in [
            (Protocol::Stomp, 21, "amq.topic", "k.s"),
            (Protocol::Xmpp, 31, "", "work"),
            (Protocol::Xmpp, 32, "amq.topic", "k.x"),
            (Protocol::Http, 41, "", "work"),
        ] {
            let target = Target { producer, exchange, key, ..model.clone() };
            self.others.push((protocol, target));
            let queues = if exchange.is_empty() { vec![WORK] } else { vec![TOPIC, LATER, SESSION] };
            self.plan.routes.insert(producer, queues);
        }
        self
    }

    /// Confirmed messages so far, by protocol.
    pub fn confirmed(&self) -> HashMap<Protocol, u64> {
        let mut all = HashMap::new();
        for record in self.stage.ledger.records() {
            if record.kind == Kind::Confirmed {
                *all.entry(record.protocol).or_default() += 1;
            }
        }
        all
    }

    /// Each publisher ends after so many messages.
    pub fn limited(mut self, messages_max: u64) -> Self {
        let others = self.others.iter_mut().map(|(_, target)| target);
        for target in self.amqp.iter_mut().chain(&mut self.mqtt).chain(others) {
            target.messages_max = messages_max;
        }
        self
    }

    /// Makes queues and session, and lets clients come.
    ///
    /// Errors: when the broker refuses.
    pub fn open(&self, broker: &Broker) -> Result<()> {
        let mut client = Amqp::open(broker.ports.amqp)?;
        for queue in ["work", "topic", "later"] {
            client.declare(queue)?;
        }
        for queue in ["topic", "later"] {
            client.bind_topic(queue, "k.#")?;
        }
        client.close()?;
        let login = Login { level: 4, client_id: SUBSCRIBER, clean: false };
        let mut client = Mqtt::open(broker.ports.mqtt, login)?;
        client.subscribe("k/#", 1)?;
        client.close()?;
        self.stage.up(broker.ports);
        Ok(())
    }

    /// Publishes until every publisher has reached its limit.
    ///
    /// Panics: when a client is treated wrongly.
    pub fn publish(&self) {
        thread::scope(|scope| {
            for target in &self.amqp {
                scope.spawn(|| expect(amqp_publisher(&self.stage, target)));
            }
            for target in &self.mqtt {
                scope.spawn(|| expect(mqtt_publisher(&self.stage, target)));
            }
            for (protocol, target) in &self.others {
                scope.spawn(|| expect(publisher_of(*protocol, &self.stage, target)));
            }
        });
    }

    /// Publishes and consumes while `harm` does what the case is about; then publishers stop, and
    /// consumers go on until nothing comes any more.
    ///
    /// Panics: when a client is treated wrongly.
    pub fn under_load<T>(&self, harm: impl FnOnce() -> T) -> T {
        let stage = &self.stage;
        thread::scope(|scope| {
            let _guard = stage.guard();
            let publishers = scope.spawn(|| self.publish());
            scope.spawn(|| expect(amqp_consumer(stage, WORK, "work", Acks::Each)));
            scope.spawn(|| expect(amqp_consumer(stage, TOPIC, "topic", Acks::Transactions)));
            scope.spawn(|| expect(mqtt_subscriber(stage, SESSION, SUBSCRIBER)));
            let result = harm();
            stage.stop_publishing();
            assert!(publishers.join().is_ok(), "a publisher was treated wrongly");
            stage.drain();
            result
        })
    }

    /// Consumes every queue until nothing is left.
    ///
    /// Panics: when a client is treated wrongly.
    pub fn drain(&self) {
        let stage = &self.stage;
        stage.drain();
        thread::scope(|scope| {
            for (number, name) in [(WORK, "work"), (TOPIC, "topic"), (LATER, "later")] {
                scope.spawn(move || expect(amqp_consumer(stage, number, name, Acks::Multiple)));
            }
            scope.spawn(|| expect(mqtt_subscriber(stage, SESSION, SUBSCRIBER)));
        });
    }

    /// Drains, stops cleanly, and looks once more; then judges.
    ///
    /// Errors: when the broker does not stop.
    ///
    /// Panics: when a message was lost, invented, revived or forgotten.
    pub fn finish(self, case: &str, broker: Broker, home: Home) -> Result<Findings> {
        self.drain();
        ensure!(broker.stop()?.success(), "no clean stop: {}", home.log());
        self.acks_are_durable();
        let broker = home.start()?;
        self.stage.up(broker.ports);
        self.drain();
        drop(broker);
        Ok(judge(case, &self.stage, &self.plan, home))
    }

    /// What has been acknowledged will not come back, because the broker stopped cleanly.
    fn acks_are_durable(&self) {
        let records = self.stage.ledger.records();
        let acked: HashSet<_> = records
            .iter()
            .filter(|record| record.kind == Kind::Acked)
            .map(|record| (record.producer, record.n, record.queue))
            .collect();
        let record = Record::new(Kind::AckDurable);
        let durable = acked.into_iter();
        self.stage.ledger.write_all(durable.map(|(producer, n, queue)| Record {
            producer,
            n,
            queue,
            ..record
        }));
    }
}

/// Judges the ledger, and keeps everything one needs for a closer look when it is not clean.
///
/// Panics: when it is not clean.
pub fn judge(case: &str, stage: &Stage, plan: &Plan, home: Home) -> Findings {
    let findings = check(plan, &stage.ledger.records());
    say(&format!("{case}: {findings}"));
    if !findings.is_clean() {
        let kept = home.keep();
        // The findings matter more than the file.
        let _ = stage.ledger.save(&kept.join("ledger"));
        panic!("{case}, see `{}`: {findings}", kept.display());
    }
    findings
}

fn expect(result: Result<()>) {
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

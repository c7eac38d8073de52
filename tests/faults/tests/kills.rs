//! Cases K1 and K2: `kill -9` under load and during recovery.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{collections::HashSet, thread, time::Duration};

use polymq_faults::{
    amqp::{Amqp, Method},
    broker::{Broker, Home, end},
    ledger::{Findings, Kind, Plan, Record, check},
    load::{Acks, Stage, Target, amqp_consumer, amqp_publisher, mqtt_publisher, mqtt_subscriber},
    mqtt::{Login, Mqtt},
    random::Random,
    report::{say, setting},
};

/// Queues of the ledger.
const WORK: u32 = 1;
const TOPIC: u32 = 2;
const LATER: u32 = 3;
const SESSION: u32 = 4;
/// The MQTT client with a durable session.
const SUBSCRIBER: &str = "kills-subscriber";

/// An acknowledgement may be forgotten when it was sent at most this long before the kill.
const ACK_LOSS_MAX: Duration = Duration::from_secs(2);

fn target(producer: u32, exchange: &'static str, key: &'static str) -> Target {
    Target { producer, exchange, key, filler: 100, messages_max: u64::MAX }
}

/// Publishers of AMQP and MQTT, with where their messages go.
fn plan() -> (Vec<Target>, Vec<Target>, Plan) {
    let amqp = vec![target(1, "", "work"), target(2, "", "work"), target(3, "amq.topic", "k.a")];
    let mqtt = vec![target(11, "", "k/m"), target(12, "", "k/n")];
    let routes = [1, 2].map(|producer| (producer, vec![WORK]));
    let by_topic = [3, 11, 12].map(|producer| (producer, vec![TOPIC, LATER, SESSION]));
    let ack_loss_max_ns = u64::try_from(ACK_LOSS_MAX.as_nanos()).unwrap();
    let plan = Plan { routes: routes.into_iter().chain(by_topic).collect(), ack_loss_max_ns };
    (amqp, mqtt, plan)
}

fn declare(broker: &Broker) {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    for queue in ["work", "topic", "later"] {
        client.declare(queue).unwrap();
    }
    for queue in ["topic", "later"] {
        client.bind_topic(queue, "k.#").unwrap();
    }
    client.close().unwrap();
    let login = Login { level: 4, client_id: SUBSCRIBER, clean: false };
    let mut client = Mqtt::open(broker.ports.mqtt, login).unwrap();
    client.subscribe("k/#", 1).unwrap();
    client.close().unwrap();
}

/// What has been acknowledged will not come back, because the broker stopped cleanly.
fn acks_are_durable(stage: &Stage) {
    let records = stage.ledger.records();
    let acked: HashSet<_> = records
        .iter()
        .filter(|record| record.kind == Kind::Acked)
        .map(|record| (record.producer, record.n, record.queue))
        .collect();
    let record = Record::new(Kind::AckDurable);
    let durable = acked.into_iter();
    stage.ledger.write_all(durable.map(|(producer, n, queue)| Record {
        producer,
        n,
        queue,
        ..record
    }));
}

/// Fails with everything one needs for a closer look.
fn judge(case: &str, stage: &Stage, plan: &Plan, home: Home) -> Findings {
    let findings = check(plan, &stage.ledger.records());
    say(&format!("{case}: {findings}"));
    if !findings.is_clean() {
        let kept = home.keep();
        stage.ledger.save(&kept.join("ledger")).unwrap();
        panic!("{case}, see `{}`: {findings}", kept.display());
    }
    findings
}

/// Consumes every queue until nothing is left.
fn drain(stage: &Stage) {
    stage.drain();
    thread::scope(|scope| {
        for (number, name) in [(WORK, "work"), (TOPIC, "topic"), (LATER, "later")] {
            scope.spawn(move || amqp_consumer(stage, number, name, Acks::Multiple).unwrap());
        }
        scope.spawn(|| mqtt_subscriber(stage, SESSION, SUBSCRIBER).unwrap());
    });
}

#[test]
fn k01_no_confirmed_message_is_lost_when_the_broker_is_killed_under_load() {
    kill_under_load("K1", setting("POLYMQ_KILLS", 200), &[]);
}

#[test]
fn k01_with_sqlite() {
    let flags = ["--set", "storage.backend=sqlite"];
    kill_under_load("K1 with SQLite", setting("POLYMQ_KILLS", 10), &flags);
}

#[test]
fn k01_with_confirms_from_the_page_cache() {
    let flags = ["--set", "storage.durability=os"];
    kill_under_load("K1 with class os", setting("POLYMQ_KILLS", 10), &flags);
}

fn kill_under_load(case: &str, kills: u64, flags: &[&str]) {
    let seed = setting("POLYMQ_SEED", 1);
    // The ledger of a long run takes gigabytes.
    let longest = setting("POLYMQ_KILL_MS", 150);
    let mut random = Random::new(seed);
    let (amqp, mqtt, plan) = plan();
    let mut home = Home::new().unwrap();
    home.always(flags);
    let stage = Stage::new(0x6B31_0000 + seed);
    let mut broker = home.start().unwrap();
    declare(&broker);
    stage.up(broker.ports);
    let mut slowest_start = Duration::ZERO;
    let stage = &stage;
    broker = thread::scope(|scope| {
        let publishers: Vec<_> = amqp
            .iter()
            .map(|target| scope.spawn(move || amqp_publisher(stage, target).unwrap()))
            .chain(mqtt.iter().map(|t| scope.spawn(move || mqtt_publisher(stage, t).unwrap())))
            .collect();
        scope.spawn(move || amqp_consumer(stage, WORK, "work", Acks::Each).unwrap());
        scope.spawn(move || amqp_consumer(stage, TOPIC, "topic", Acks::Transactions).unwrap());
        scope.spawn(move || mqtt_subscriber(stage, SESSION, SUBSCRIBER).unwrap());
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(random.between(10, longest)));
            stage.down();
            broker.kill();
            broker = home.start().unwrap();
            slowest_start = slowest_start.max(broker.ready_after);
            stage.up(broker.ports);
        }
        thread::sleep(Duration::from_millis(300));
        stage.stop_publishing();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        stage.drain();
        broker
    });
    drain(stage);
    assert!(broker.stop().unwrap().success(), "a clean stop: {}", home.log());
    acks_are_durable(stage);
    let broker = home.start().unwrap();
    stage.up(broker.ports);
    drain(stage);
    drop(broker);
    let found = judge(case, stage, &plan, home);
    say(&format!("{case}: slowest start {} ms with seed {seed}", slowest_start.as_millis()));
    assert!(found.counted.confirmed > kills * 10, "hardly any load: {found}");
    assert_eq!(found.counted.faults, kills);
}

#[test]
fn k02_broker_that_is_killed_during_recovery_makes_progress() {
    let kills = setting("POLYMQ_KILLS", 30);
    let (amqp, mqtt, mut plan) = plan();
    plan.ack_loss_max_ns = 0;
    let home = Home::new().unwrap();
    let stage = Stage::new(0x6B32_0000);
    let broker = home.start().unwrap();
    declare(&broker);
    stage.up(broker.ports);
    thread::scope(|scope| {
        let stage = &stage;
        for target in &amqp {
            let target = Target { messages_max: 2000, ..target.clone() };
            scope.spawn(move || amqp_publisher(stage, &target).unwrap());
        }
        for target in &mqtt {
            let target = Target { messages_max: 2000, ..target.clone() };
            scope.spawn(move || mqtt_publisher(stage, &target).unwrap());
        }
    });
    stage.down();
    broker.kill();
    let mut random = Random::new(2);
    for _ in 0..kills {
        let mut child = home.spawn(&[]).unwrap();
        thread::sleep(Duration::from_millis(random.between(1, 150)));
        end(&mut child);
    }
    let broker = home.start().unwrap();
    let started = broker.ready_after.as_millis();
    stage.up(broker.ports);
    drain(&stage);
    drop(broker);
    let found = judge("K2", &stage, &plan, home);
    say(&format!("K2: {kills} kills during recovery, then ready after {started} ms"));
    assert_eq!(found.counted.confirmed, 10_000);
}

#[test]
fn messages_that_were_not_acknowledged_wait_after_a_kill() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    for body in ["one", "two"] {
        client.send(&polymq_faults::amqp::publish("", "q", body.as_bytes())).unwrap();
        client.expect((60, 80)).unwrap();
    }
    broker.kill();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!(client.declare("q").unwrap(), 2);
    let purge = Method::new((50, 30)).u16(0).short("q").u8(0);
    assert_eq!(client.call(&purge, (50, 31)).unwrap(), 2_u32.to_be_bytes());
}

#[test]
fn broker_with_a_deep_backlog_starts_quickly_after_a_kill() {
    let messages = setting("POLYMQ_BACKLOG", 100_000);
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    declare(&broker);
    let stage = Stage::new(0x6B24_0000);
    stage.up(broker.ports);
    let target = Target { messages_max: messages, ..target(1, "", "work") };
    amqp_publisher(&stage, &target).unwrap();
    broker.kill();
    let broker = home.start().unwrap();
    let took = broker.ready_after;
    say(&format!("start with {messages} messages: {} ms", took.as_millis()));
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!(u64::from(client.declare("work").unwrap()), messages);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

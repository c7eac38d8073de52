//! Cases K1 and C3 with PostgreSQL: the broker is killed, and the database is, under
//! load. `core/server/tests/process` has the broker that sleeps longer than its lease.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{thread, time::Duration};

use polymq_faults::{
    broker::Home,
    ledger::{Plan, check},
    load::{Acks, Stage, Target, amqp_consumer, amqp_publisher, mqtt_publisher},
    random::Random,
    report::{say, setting},
};
use polymq_sql::testing::PostgresServer;

const WORK: u32 = 1;
const TOPIC: u32 = 2;

/// What ends or disturbs the broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    BrokerKilled,
    DatabaseKilled,
}

fn target(producer: u32, exchange: &'static str, key: &'static str) -> Target {
    Target { producer, exchange, key, filler: 100, messages_max: u64::MAX }
}

fn under_load(case: &str, fault: Fault, times: u64) {
    let server = PostgresServer::start(&[]);
    let url = server.new_database();
    let mut random = Random::new(setting("POLYMQ_SEED", 3));
    let mut home = Home::new().unwrap();
    let url = format!("storage.postgres.url={url}");
    home.always(&["--set", "storage.backend=postgres", "--set", &url]);
    home.always(&["--set", "storage.postgres.lease=3s"]);
    let stage = Stage::new(0x5047_0000);
    let mut broker = home.start().unwrap();
    {
        let mut client = polymq_faults::amqp::Amqp::open(broker.ports.amqp).unwrap();
        for queue in ["work", "topic"] {
            client.declare(queue).unwrap();
        }
        client.bind_topic("topic", "k.#").unwrap();
        client.close().unwrap();
    }
    stage.up(broker.ports);
    let stage = &stage;
    let amqp = [target(1, "", "work"), target(2, "", "work")];
    let mqtt = target(11, "", "k/m");
    broker = thread::scope(|scope| {
        let _guard = stage.guard();
        let mut publishers: Vec<_> = amqp
            .iter()
            .map(|target| scope.spawn(move || amqp_publisher(stage, target).unwrap()))
            .collect();
        publishers.push(scope.spawn(|| mqtt_publisher(stage, &mqtt).unwrap()));
        scope.spawn(move || amqp_consumer(stage, WORK, "work", Acks::Each).unwrap());
        scope.spawn(move || amqp_consumer(stage, TOPIC, "topic", Acks::Multiple).unwrap());
        for _ in 0..times {
            thread::sleep(Duration::from_millis(random.between(200, 900)));
            match fault {
                Fault::BrokerKilled => {
                    stage.down();
                    broker.kill();
                    broker = home.start().unwrap();
                    stage.up(broker.ports);
                }
                Fault::DatabaseKilled => {
                    server.kill();
                    thread::sleep(Duration::from_millis(random.between(0, 300)));
                    server.begin();
                }
            }
        }
        thread::sleep(Duration::from_millis(1500));
        stage.stop_publishing();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        stage.drain();
        broker
    });
    assert!(broker.stop().unwrap().success(), "a clean stop: {}", home.log());
    let routes = [1, 2].map(|producer| (producer, vec![WORK]));
    let routes = routes.into_iter().chain([(11, vec![TOPIC])]).collect();
    let plan = Plan { routes, ack_loss_max_ns: 2_000_000_000 };
    let findings = check(&plan, &stage.ledger.records());
    say(&format!("{case}: {findings}"));
    if !findings.is_clean() {
        let kept = home.keep();
        stage.ledger.save(&kept.join("ledger")).unwrap();
        panic!("{case}, see `{}`: {findings}", kept.display());
    }
    assert!(findings.counted.confirmed > times * 10, "hardly any load: {findings}");
}

#[test]
fn k01_with_postgres() {
    under_load("K1 with PostgreSQL", Fault::BrokerKilled, setting("POLYMQ_KILLS", 5));
}

#[test]
fn c03_the_database_is_killed_under_load() {
    under_load("C3", Fault::DatabaseKilled, setting("POLYMQ_KILLS", 5));
}

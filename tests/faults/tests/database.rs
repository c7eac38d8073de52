//! Cases C2, C4, C5 and C6: an owner that sleeps longer than its lease, a database that stalls, a
//! lease that is stolen, and a database that goes back in time. `postgres.rs` has C3.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming},
    broker::{Broker, Home, wait_for_end},
    load::Run,
    mqtt::{Login, Mqtt},
    report::say,
};
use polymq_sql::testing::PostgresServer;

/// Exit code of a broker that may not use its store any more.
const STORE_FAILED: i32 = 74;
const LEASE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

fn home(url: &str) -> Home {
    let mut home = Home::new().unwrap();
    home.always(&["--set", "storage.backend=postgres", "--set", "storage.postgres.lease=3s"]);
    home.always(&["--set", &format!("storage.postgres.url={url}")]);
    home
}

/// Waits until health is as it should be, and answers what it says.
fn await_health(home: &Home, broker: &Broker, is_good: bool) -> (String, Duration) {
    let began = Instant::now();
    loop {
        let (status, text) = broker.get("/health/ready").unwrap();
        if (status == 200) == is_good {
            return (text, began.elapsed());
        }
        assert!(began.elapsed() < PATIENCE, "health stays {status}: {text}: {}", home.log());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn c02_an_owner_that_slept_longer_than_its_lease_does_nothing_in_its_old_name() {
    let server = PostgresServer::start(&[]);
    let url = server.new_database();
    let (mut first_home, second_home) = (home(&url), home(&url));
    first_home.log_to(second_home.file("first.log"));
    let run = Run::new(0x4302_0000, 100);
    let mut first = first_home.start().unwrap();
    run.open(&first).unwrap();
    let second = run.under_load(|| {
        thread::scope(|scope| {
            let second = scope.spawn(|| second_home.start_with(&["--standby"]).unwrap());
            thread::sleep(Duration::from_millis(700));
            run.stage.down();
            first.pause().unwrap();
            let asleep = Instant::now();
            let second = second.join().unwrap();
            say(&format!("C2: the standby serves {} ms after", asleep.elapsed().as_millis()));
            // It wakes up with everything its clients have sent meanwhile.
            first.go_on().unwrap();
            let end = first.ended_within(PATIENCE).unwrap().unwrap();
            assert_eq!(end.code(), Some(STORE_FAILED));
            run.stage.up(second.ports);
            thread::sleep(Duration::from_millis(500));
            second
        })
    });
    let found = run.finish("C2", second, second_home).unwrap();
    assert!(found.counted.confirmed > 500, "hardly any load: {found}");
}

#[test]
fn c04_a_database_that_stalls_makes_publishers_wait_and_loses_nobody() {
    let server = PostgresServer::start(&[]);
    let url = server.new_database();
    let home = home(&url);
    let run = Run::new(0x4304_0000, 100);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let login = Login { level: 4, client_id: "alive", clean: true };
    let mut alive = Mqtt::open(broker.ports.mqtt, login).unwrap();
    let broker = run.under_load(|| {
        thread::sleep(Duration::from_millis(500));
        server.pause();
        stalled("all of it stopped", &home, &mut broker, &mut alive);
        server.resume();
        await_health(&home, &broker, true);
        thread::sleep(Duration::from_millis(500));
        // Another client of the database has the row that every batch needs.
        thread::scope(|scope| {
            let lock = "BEGIN; SELECT 1 FROM pmq_shard FOR UPDATE; SELECT pg_sleep(4); COMMIT";
            scope.spawn(|| server.sql(&url, lock));
            stalled("a row is locked", &home, &mut broker, &mut alive);
        });
        await_health(&home, &broker, true);
        thread::sleep(Duration::from_millis(500));
        broker
    });
    // Nobody was disconnected, so this is all one life.
    let found = run.finish("C4", broker, home).unwrap();
    assert_eq!((found.counted.unknown, found.counted.refused), (0, 0), "{found}");
    assert!(found.counted.confirmed > 500, "hardly any load: {found}");
}

/// Health says so within the lease, publishers wait, and connections are answered.
fn stalled(what: &str, home: &Home, broker: &mut Broker, alive: &mut Mqtt) {
    let began = Instant::now();
    let (text, _) = await_health(home, broker, false);
    let told = began.elapsed();
    // Two thirds of the lease, when the machine has time for it.
    assert!(told < LEASE * 2, "told after {told:?}");
    while broker.metric("polymq_alarm").unwrap() < 1.0 {
        assert!(began.elapsed() < PATIENCE, "publishers are not told to wait");
        thread::sleep(Duration::from_millis(20));
    }
    let asked = Instant::now();
    alive.send(&[0xC0, 0]).unwrap();
    assert_eq!(alive.next_packet().unwrap().unwrap().first, 0xD0);
    Amqp::open(broker.ports.amqp).unwrap();
    let answered = asked.elapsed();
    assert!(answered < LEASE, "clients wait: {answered:?}");
    assert!(broker.is_alive(), "{}", home.log());
    say(&format!("C4, {what}: told after {} ms: {text}", told.as_millis()));
}

#[test]
fn c05_an_owner_whose_lease_was_stolen_ends_at_its_next_batch() {
    let server = PostgresServer::start(&[]);
    let url = server.new_database();
    let home = home(&url);
    let run = Run::new(0x4305_0000, 100);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let broker = run.under_load(|| {
        thread::sleep(Duration::from_millis(500));
        run.stage.down();
        server.sql(&url, "UPDATE pmq_shard SET epoch = epoch + 1");
        let stolen = Instant::now();
        let end = broker.ended_within(PATIENCE).unwrap().unwrap();
        assert_eq!(end.code(), Some(STORE_FAILED), "{}", home.log());
        say(&format!("C5: the owner ends {} ms after", stolen.elapsed().as_millis()));
        assert!(stolen.elapsed() < LEASE);
        let broker = home.start().unwrap();
        run.stage.up(broker.ports);
        thread::sleep(Duration::from_millis(300));
        broker
    });
    let found = run.finish("C5", broker, home).unwrap();
    assert!(found.counted.confirmed > 200, "hardly any load: {found}");
}

#[test]
fn c06_a_database_that_went_back_in_time_waits_for_an_operator() {
    let server = PostgresServer::start(&[]);
    let home = home(&server.new_database());
    let publish = |broker: &Broker, count: u8| {
        let mut client = Amqp::open(broker.ports.amqp).unwrap();
        client.declare("q").unwrap();
        client.confirm_select().unwrap();
        for _ in 0..count {
            client.send(&amqp::publish("", "q", b"x")).unwrap();
            assert!(matches!(client.next_event().unwrap(), Some(Incoming::Method((60, 80), _))));
        }
    };
    let broker = home.start().unwrap();
    publish(&broker, 10);
    let backup = server.copy();
    // What this broker has seen is written once in a while.
    publish(&broker, 20);
    thread::sleep(Duration::from_millis(1200));
    publish(&broker, 1);
    server.go_back_to(&backup);
    let mut broker = broker;
    let end = broker.ended_within(PATIENCE).unwrap().unwrap();
    assert_eq!(end.code(), Some(STORE_FAILED), "noticed in use: {}", home.log());
    let mut child = home.spawn(&[]).unwrap();
    assert_eq!(wait_for_end(&mut child).unwrap().code(), Some(1), "{}", home.log());
    let log = home.log();
    let said = log.lines().last().unwrap();
    assert!(said.contains("went back in time") && said.contains("remove `"), "{said}");
    // The operator says that this is meant.
    std::fs::remove_file(home.data().join("postgres.seen")).unwrap();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!(client.declare("q").unwrap(), 10);
    say("C6: noticed in use and at the next start; served when the operator said so");
}

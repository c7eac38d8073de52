//! Case C1: the wall clock jumps and drifts.
//!
//! What expires and what is delayed follows it forward, so it comes too early by at most the jump.
//! Back, expiry comes too late by at most the jump, and delays go on with the clock that never
//! jumps. Nothing else notices.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Method},
    broker::{Broker, Home, wait_for_end},
    load::Run,
    mqtt::{self, Login, Mqtt},
    native::{LIBRARY, compiled},
    report::{say, skip},
};
use polymq_sql::testing::PostgresServer;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Housekeeping looks for what is due at least this often.
const SOON: Duration = Duration::from_secs(5);

/// The wall clock of the brokers of a home.
struct Clock(File);

impl Clock {
    /// `None` without a compiler.
    fn of(home: &mut Home) -> Option<Self> {
        let library = compiled(home, "clock/moved.c", &LIBRARY).unwrap()?;
        let name = home.file("clock");
        let file = File::create(&name).unwrap();
        file.write_all_at(&[0; 8], 0).unwrap();
        let library = format!("LD_PRELOAD={}", library.display());
        let name = format!("MOVED_CLOCK={}", name.display());
        home.wrap(&["env", &library, &name]);
        Some(Self(file))
    }

    /// Sets it so many seconds after the clock of this machine.
    fn set(&self, seconds: i64) {
        self.set_millis(seconds * 1000);
    }

    fn set_millis(&self, millis: i64) {
        self.0.write_all_at(&(millis * 1_000_000).to_ne_bytes(), 0).unwrap();
    }
}

/// Declares a queue whose messages live for so many seconds, and publishes one to it.
fn expiring(client: &mut Amqp, queue: &str, seconds: i64) {
    let millis = u32::try_from(seconds * 1000).unwrap();
    let table = [&b"\x0dx-message-ttlI"[..], &millis.to_be_bytes()].concat();
    let declare = Method::new((50, 10)).u16(0).short(queue).u8(2).long(&table);
    client.call(&declare, (50, 11)).unwrap();
    client.send(&amqp::publish("", queue, b"x")).unwrap();
    client.expect((60, 80)).unwrap();
}

/// How many messages a queue that exists has.
fn waiting(client: &mut Amqp, queue: &str) -> u32 {
    let passive = Method::new((50, 10)).u16(0).short(queue).u8(1).long(&[]);
    let answer = client.call(&passive, (50, 11)).unwrap();
    let at = 1 + usize::from(answer[0]);
    u32::from_be_bytes(*answer[at..].first_chunk().unwrap())
}

/// Waits until a queue has so many messages.
fn await_waiting(client: &mut Amqp, queue: &str, count: u32) -> Duration {
    let began = Instant::now();
    while waiting(client, queue) != count {
        assert!(began.elapsed() < SOON, "{queue} has not {count} messages");
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// Has one message leave for `later` after so many seconds.
fn delay(client: &mut Mqtt, seconds: i64) {
    client.send(&mqtt::publish(&format!("$delayed/{seconds}/later"), 1, b"x")).unwrap();
    assert_eq!(client.next_packet().unwrap().unwrap().puback(), Some(1));
}

#[test]
fn c01_what_expires_follows_the_clock_and_connections_do_not() {
    let mut home = Home::new().unwrap();
    let Some(clock) = Clock::of(&mut home) else { return skip("C1", "there is no compiler") };
    let broker = home.start().unwrap();
    let mut client = Amqp::open_with_heartbeat(broker.ports.amqp, 600).unwrap();
    client.confirm_select().unwrap();
    client.declare("later").unwrap();
    client.bind_topic("later", "later").unwrap();
    let login = Login { level: 4, client_id: "alive", clean: true };
    let mut alive = Mqtt::open(broker.ports.mqtt, login).unwrap();
    for (queue, seconds) in [("half", HOUR / 2), ("two", 2 * HOUR), ("day", DAY)] {
        expiring(&mut client, queue, seconds);
    }
    delay(&mut alive, HOUR / 2);
    delay(&mut alive, 2 * HOUR);

    clock.set(HOUR);
    await_waiting(&mut client, "half", 0);
    await_waiting(&mut client, "later", 1);
    assert_eq!(waiting(&mut client, "two"), 1);
    expiring(&mut client, "second", 1);
    let after = await_waiting(&mut client, "second", 0);
    say(&format!("C1: a message of a second expires {} ms after", after.as_millis()));

    clock.set(HOUR - 10 * MINUTE);
    expiring(&mut client, "short", 2 * MINUTE);
    clock.set(HOUR - 20 * MINUTE);
    delay(&mut alive, 1);
    let after = await_waiting(&mut client, "later", 2);
    say(&format!("C1: a delay of a second behind a jump back ends after {} ms", after.as_millis()));
    assert_eq!((waiting(&mut client, "short"), waiting(&mut client, "two")), (1, 1));
    clock.set(HOUR);
    await_waiting(&mut client, "short", 0);

    // A start does not mind that the last one was later.
    clock.set(-DAY);
    broker.kill();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!((waiting(&mut client, "two"), waiting(&mut client, "day")), (1, 1));
    clock.set(DAY + HOUR);
    await_waiting(&mut client, "two", 0);
    await_waiting(&mut client, "day", 0);
    await_waiting(&mut client, "later", 3);
    say("C1: expired and due by the wall clock, at most the jump too early");
}

/// Jumps and drifts for a while.
fn move_around(clock: &Clock) {
    for jump in [HOUR, -10 * MINUTE, 0, DAY, -DAY] {
        clock.set(jump);
        thread::sleep(Duration::from_millis(400));
    }
    // It goes on twice as fast, and then stands still.
    for factor in [1, -1] {
        for step in 0..100 {
            clock.set_millis(factor * step * 10);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Nobody loses a connection, a message or an acknowledgement.
fn under_load(case: &str, mut home: Home) {
    let Some(clock) = Clock::of(&mut home) else { return skip(case, "there is no compiler") };
    let run = Run::new(0x4301_0000, 100);
    let broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let broker = run.under_load(|| {
        move_around(&clock);
        broker
    });
    let found = run.finish(case, broker, home).unwrap();
    assert_eq!((found.counted.unknown, found.counted.refused), (0, 0), "{found}");
    assert!(found.counted.confirmed > 500, "hardly any load: {found}");
}

#[test]
fn c01_load_does_not_notice_that_the_clock_moves() {
    under_load("C1", Home::new().unwrap());
}

#[test]
fn c01_the_lease_of_a_database_does_not_follow_the_clock_of_its_owner() {
    let server = PostgresServer::start(&[]);
    let url = format!("storage.postgres.url={}", server.new_database());
    let flags = ["--set", "storage.backend=postgres", "--set", &url];
    let lease = ["--set", "storage.postgres.lease=3s"];
    let mut home = Home::new().unwrap();
    home.always(&flags);
    home.always(&lease);
    under_load("C1 with PostgreSQL", home);

    let (mut first, mut second) = (Home::new().unwrap(), Home::new().unwrap());
    let Some(clock) = Clock::of(&mut first) else { return };
    let Some(other) = Clock::of(&mut second) else { return };
    for home in [&mut first, &mut second] {
        home.always(&flags);
        home.always(&lease);
    }
    let mut broker: Broker = first.start().unwrap();
    for (here, there) in [(0, HOUR), (-HOUR, 0), (DAY, -DAY)] {
        clock.set(here);
        other.set(there);
        let status = wait_for_end(&mut second.spawn(&[]).unwrap()).unwrap();
        assert_eq!(status.code(), Some(1), "{}", second.log());
        assert!(second.log().contains("held by"), "{}", second.log());
        assert!(broker.is_alive(), "{}", first.log());
    }
    say("C1 with PostgreSQL: the owner stays the owner, whatever the clocks say");
}

//! Cases K13 and K15: a disk that becomes read-only, and one that does not answer.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming, number},
    broker::{Broker, Home},
    disk::Disk,
    ledger::Kind,
    load::Run,
    mqtt::{Login, Mqtt},
    report::{say, skip},
    strace::Injection,
};

/// Exit code when the store is of no use any more.
const STORE_FAILED: i32 = 74;
const PATIENCE: Duration = Duration::from_secs(20);
const NO_MARKS: [&str; 4] =
    ["--set", "limits.disk_free.low=1B", "--set", "limits.disk_free.resume=1B"];

/// Waits until health is good or bad, and answers its text and how long that took.
fn await_health(home: &Home, broker: &Broker, is_good: bool) -> (String, Duration) {
    let began = Instant::now();
    loop {
        let answer = broker.get("/health/ready");
        let (status, text) = answer.unwrap_or_else(|error| panic!("{error:#}: {}", home.log()));
        if (status == 200) == is_good {
            return (text, began.elapsed());
        }
        assert!(began.elapsed() < PATIENCE, "health stays {status}: {text}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn k13_a_read_only_disk_stops_publishers_and_loses_nothing() {
    // Files that are open for writing keep a disk from being remounted, so each call says what it
    // would say then.
    read_only("K13", 0x6B3D_0000, &[], "pwritev,fallocate,ftruncate,rename,unlink", &[]);
}

#[test]
fn k13_with_sqlite() {
    // It writes by the call that also wakes threads up, so it matters to which file.
    let files = ["polymq.db", "polymq.db-wal", "polymq.db-shm", "polymq.db.probe"];
    let flags = ["--set", "storage.backend=sqlite"];
    read_only("K13 with SQLite", 0x6B3D_0002, &flags, "write,pwrite64,ftruncate", &files);
}

fn read_only(case: &str, number: u64, flags: &[&str], calls: &str, files: &[&str]) {
    let mut home = Home::new().unwrap();
    home.always(flags);
    let run = Run::new(number, 200);
    let broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let mut skipped = None;
    let broker = run.under_load(|| {
        thread::sleep(Duration::from_millis(300));
        // A transaction that cannot be kept is refused by closing its connection.
        run.stage.down();
        let injection = match Injection::into_files(&home, &broker, calls, "error=EROFS", files) {
            Ok(injection) => injection,
            Err(error) => {
                skipped = Some(error.to_string());
                run.stage.up(broker.ports);
                return broker;
            }
        };
        let (text, after) = await_health(&home, &broker, false);
        assert!(text.contains("read-only"), "{text}");
        let waited = Instant::now();
        while broker.metric("polymq_alarm").unwrap() < 1.0 {
            assert!(waited.elapsed() < PATIENCE, "publishers are not told to wait");
            thread::sleep(Duration::from_millis(20));
        }
        let refused =
            || run.stage.ledger.records().iter().filter(|r| r.kind == Kind::Refused).count();
        // Refusals that were on their way still come, and then no more.
        let mut before = refused();
        loop {
            thread::sleep(Duration::from_millis(500));
            let now = refused();
            if std::mem::replace(&mut before, now) == now {
                break;
            }
            assert!(waited.elapsed() < PATIENCE, "publishers go on");
        }
        drop(injection);
        let (_, back) = await_health(&home, &broker, true);
        say(&format!(
            "{case}: told after {} ms, {before} publishes refused, well {} ms after",
            after.as_millis(),
            back.as_millis()
        ));
        run.stage.up(broker.ports);
        thread::sleep(Duration::from_millis(300));
        broker
    });
    if let Some(reason) = skipped {
        return skip(case, &reason);
    }
    let found = run.finish(case, broker, home).unwrap();
    assert!(found.counted.confirmed > 100, "hardly any load: {found}");
}

#[test]
fn k13_a_file_system_that_aborts_is_served_from_again_after_its_repair() {
    aborts("K13 abort", 0x6B3D_0001, &[]);
}

#[test]
fn k13_with_sqlite_on_a_file_system_that_aborts() {
    aborts("K13 abort with SQLite", 0x6B3D_0003, &["--set", "storage.backend=sqlite"]);
}

fn aborts(case: &str, number: u64, flags: &[&str]) {
    let Ok(disk) = Disk::new(400) else { return skip(case, "no disk can be mounted") };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&NO_MARKS);
    home.always(flags);
    let run = Run::new(number, 200);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let broker = run.under_load(|| {
        thread::sleep(Duration::from_millis(300));
        // No sync is under way meanwhile: ext4 answers one as done when its journal ends between
        // the write of the data and the look for the transaction, which has gone by then.
        broker.pause().unwrap();
        disk.abort().unwrap();
        broker.go_on().unwrap();
        // A failed sync ends the process; a refused write does not.
        let began = Instant::now();
        let end = loop {
            if let Some(status) = broker.ended_within(Duration::from_millis(50)).unwrap() {
                assert_eq!(status.code(), Some(STORE_FAILED), "{}", home.log());
                break Some(status);
            }
            // A process that ends meanwhile gives no answer.
            let health = broker.get("/health/ready").map(|(_, text)| text).unwrap_or_default();
            if health.contains("read-only") {
                break None;
            }
            assert!(began.elapsed() < PATIENCE, "nobody says so: {health}");
        };
        say(&format!("{case}: the process {end:?}"));
        run.stage.down();
        broker.kill();
        disk.repair().unwrap();
        broker = home.start().unwrap();
        run.stage.up(broker.ports);
        thread::sleep(Duration::from_millis(300));
        broker
    });
    run.finish(case, broker, home).unwrap();
}

#[test]
fn k15_a_hung_disk_is_told_and_in_the_end_nobody_is_kept_waiting() {
    let Ok(disk) = Disk::new(400) else { return skip("K15", "no disk can be mounted") };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&NO_MARKS);
    home.always(&["--set", "limits.disk_slow.degraded=1s", "--set", "limits.disk_slow.close=8s"]);
    let mut broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    let login = Login { level: 4, client_id: "alive", clean: true };
    let mut alive = Mqtt::open(broker.ports.mqtt, login).unwrap();

    let Ok(frozen) = disk.freeze() else { return skip("K15", "no disk can be frozen") };
    client.send(&amqp::publish("", "q", b"one")).unwrap();
    let (text, degraded) = await_health(&home, &broker, false);
    assert!(text.contains("the store has not answered a write for"), "{text}");
    let slowest = ping(&mut alive);
    drop(frozen);
    client.expect((60, 80)).unwrap();
    await_health(&home, &broker, true);

    let frozen = disk.freeze().unwrap();
    client.send(&amqp::publish("", "q", b"two")).unwrap();
    let asked = Instant::now();
    let words = client.last_words().unwrap();
    let closed = asked.elapsed();
    assert_eq!(words.last().map(|(id, _)| *id), Some((10, 50)), "connection.close");
    assert_eq!(number(&words.last().unwrap().1, 0).unwrap(), 320, "connection-forced");
    alive.last_words().unwrap();
    // The process may be held by the disk, and nobody may take it for one that serves.
    let refused = Instant::now();
    while Amqp::dial(broker.ports.amqp).is_ok() || broker.get("/health/live").is_ok() {
        assert!(refused.elapsed() < PATIENCE, "it is still listening");
        thread::sleep(Duration::from_millis(20));
    }
    drop(frozen);
    let status = broker.ended_within(PATIENCE).unwrap().unwrap();
    assert_eq!(status.code(), Some(STORE_FAILED), "{}", home.log());
    say(&format!(
        "K15: told after {} ms, a ping answered within {} ms, closed after {} ms",
        degraded.as_millis(),
        slowest.as_millis(),
        closed.as_millis()
    ));
    // The second message was never confirmed, and may be there.
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.consume("q", 0).unwrap();
    let Some(Incoming::Delivery(first)) = client.next_event().unwrap() else {
        panic!("the confirmed message is gone")
    };
    assert_eq!(first.body, b"one");
}

/// Asks a hundred times whether the broker lives; answers the longest time that took.
fn ping(client: &mut Mqtt) -> Duration {
    let once = |_| {
        let asked = Instant::now();
        client.send(&[0xC0, 0]).unwrap();
        assert_eq!(client.next_packet().unwrap().unwrap().first, 0xD0);
        asked.elapsed()
    };
    (0..100).map(once).max().unwrap()
}

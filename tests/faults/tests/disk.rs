//! Cases K6, K7, K9 to K12, K14, K18: a disk that fails, is full, is slow.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::time::{Duration, Instant};

use anyhow::Result;
use polymq_faults::{
    amqp::{self, Amqp, Incoming},
    broker::{Broker, Home, wait_for_end},
    disk::{Disk, has},
    mqtt::{Login, Mqtt},
    report::{say, skip},
    strace::Injection,
};

/// Exit code when the disk has failed.
const STORE_FAILED: i32 = 74;
/// Longer than anybody takes for an answer who does not wait for a disk.
const SLOW: Duration = Duration::from_secs(2);
/// What an MQTT client asks to hear that its broker lives.
const PINGREQ: [u8; 2] = [0xC0, 0];

fn publisher(broker: &Broker, queue: &str) -> Amqp {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare(queue).unwrap();
    client.confirm_select().unwrap();
    client
}

/// Publishes and waits for the confirm.
fn publish(client: &mut Amqp, queue: &str, body: &[u8]) -> Result<()> {
    client.send(&amqp::publish("", queue, body))?;
    client.expect((60, 80)).map(|_| ())
}

/// Publishes until that fails; returns how many were confirmed.
fn publish_until_it_fails(client: &mut Amqp, body: &[u8]) -> u32 {
    let mut confirmed = 0;
    while publish(client, "q", body).is_ok() {
        confirmed += 1;
    }
    confirmed
}

fn waiting(broker: &Broker, queue: &str) -> u32 {
    Amqp::open(broker.ports.amqp).unwrap().declare(queue).unwrap()
}

/// Has `fdatasync` and `fsync` fail or wait.
fn inject(home: &mut Home, how: &str) -> bool {
    if !has("strace") {
        return false;
    }
    let trace = home.file("trace");
    let how = format!("inject=fdatasync,fsync:{how}");
    let trace = trace.to_str().unwrap().to_owned();
    home.wrap(&["strace", "-D", "-f", "-o", &trace, "-e", "trace=fdatasync,fsync", "-e", &how]);
    true
}

#[test]
fn k06_one_failed_sync_ends_the_process_and_confirms_nothing() {
    let mut home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = publisher(&broker, "q");
    publish(&mut client, "q", b"before").unwrap();
    assert!(broker.stop().unwrap().success());
    // The syncs of the start are not meant: the fortieth is one of a publish.
    if !inject(&mut home, "error=EIO:when=40") {
        return skip("K6", "there is no strace");
    }
    let broker = home.start().unwrap();
    let mut client = publisher(&broker, "q");
    let confirmed = publish_until_it_fails(&mut client, b"x");
    assert_eq!(broker.wait().unwrap().code(), Some(STORE_FAILED));
    home.wrap(&[]);
    let broker = home.start().unwrap();
    let found = waiting(&broker, "q");
    say(&format!("K6: {confirmed} confirmed before the sync failed, {found} found"));
    // What was on its way may have been written.
    assert!((confirmed + 1..=confirmed + 2).contains(&found));
}

#[test]
fn k07_a_disk_that_never_syncs_is_never_served_from() {
    let mut home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = publisher(&broker, "q");
    publish(&mut client, "q", b"kept").unwrap();
    broker.kill();
    if !inject(&mut home, "error=EIO:when=1+") {
        return skip("K7", "there is no strace");
    }
    for _ in 0..3 {
        let status = wait_for_end(&mut home.spawn(&[]).unwrap()).unwrap();
        assert!(!status.success(), "{status}");
    }
    home.wrap(&[]);
    let broker = home.start().unwrap();
    assert_eq!(waiting(&broker, "q"), 1);
}

#[test]
fn k09_k10_a_full_disk_stops_publishers_and_nobody_else() {
    let Ok(disk) = Disk::new(400) else { return skip("K9, K10", "no disk can be mounted") };
    full("K9, K10", &disk, &[], Disk::fill);
}

#[test]
fn k09_k10_with_sqlite() {
    let Ok(disk) = Disk::new(400) else { return skip("K9, K10 with SQLite", "no disk") };
    full("K9, K10 with SQLite", &disk, &["--set", "storage.backend=sqlite"], Disk::fill);
}

#[test]
fn k09_k10_with_sqlite_on_a_disk_too_small_for_a_reserve() {
    let Ok(disk) = Disk::new(100) else { return skip("K9, K10 without reserve", "no disk") };
    full("K9, K10 without reserve", &disk, &["--set", "storage.backend=sqlite"], Disk::fill);
}

#[test]
fn k12_a_disk_without_inodes_stops_publishers_and_nobody_else() {
    let disk = Disk::formatted(400, &["-N", "64"], "loop");
    let Ok(disk) = disk else { return skip("K12", "no disk can be mounted") };
    // New files come soon when they are small.
    full("K12", &disk, &["--set", "storage.file.segment_size=1MiB"], Disk::fill_with_files);
}

#[test]
fn k12_with_sqlite_nobody_notices_a_disk_without_inodes() {
    let disk = Disk::formatted(400, &["-N", "64"], "loop");
    let Ok(disk) = disk else { return skip("K12 with SQLite", "no disk can be mounted") };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&["--set", "storage.backend=sqlite"]);
    home.always(&["--set", "limits.disk_free.low=1B", "--set", "limits.disk_free.resume=1B"]);
    let broker = home.start().unwrap();
    disk.fill_with_files().unwrap();
    let mut client = publisher(&broker, "q");
    for _ in 0..50 {
        publish(&mut client, "q", &[1; 1000]).unwrap();
    }
    // More than one checkpoint.
    for number in 0..400_u32 {
        publish(&mut client, "q", &number.to_be_bytes().repeat(25_000)).unwrap();
    }
    take_fifty(&broker);
    broker.kill();
    let broker = home.start().unwrap();
    let found = waiting(&broker, "q");
    assert!((400..=450).contains(&found), "{found}");
    say("K12 with SQLite: everything confirmed and kept, killed, and started again");
}

fn full(case: &str, disk: &Disk, flags: &[&str], fill: fn(&Disk) -> Result<()>) {
    let home = Home::with_data(disk.path().join("data")).unwrap();
    // No watermark: the disk itself says no.
    let none = ["--set", "limits.disk_free.low=1B", "--set", "limits.disk_free.resume=1B"];
    let flags = [&none[..], flags].concat();
    let mut broker = home.start_with(&flags).unwrap();
    let mut client = publisher(&broker, "q");
    for _ in 0..50 {
        publish(&mut client, "q", &[1; 1000]).unwrap();
    }
    fill(disk).unwrap();
    client.set_patience(Duration::from_secs(2)).unwrap();
    // One frame.
    let mut body = vec![2; 100 * 1024];
    let mut confirmed = 50;
    let refused = loop {
        match publish(&mut client, "q", &body) {
            Ok(()) => confirmed += 1,
            Err(error) => break error.to_string(),
        }
        body[0] = body[0].wrapping_add(1);
        assert!(confirmed < 5000, "the disk is never full");
    };
    // A nack, or nothing is read from a publisher once the last byte has gone.
    assert!(refused.contains("(60, 120)") || refused.contains("in time"), "{refused}");
    assert!(broker.is_alive(), "a full disk is no reason to end: {}", home.log());
    take_fifty(&broker);
    disk.free_up().unwrap();
    let freed = Instant::now();
    let resumed = loop {
        let mut client = publisher(&broker, "again");
        client.set_patience(Duration::from_secs(1)).unwrap();
        if publish(&mut client, "again", b"x").is_ok() {
            break freed.elapsed();
        }
        assert!(freed.elapsed() < Duration::from_secs(10), "nothing goes on");
    };
    say(&format!("{case}: {confirmed} confirmed, resumed {} ms after", resumed.as_millis()));
    broker.kill();
    let broker = home.start_with(&flags).unwrap();
    let found = waiting(&broker, "q");
    assert!(found >= confirmed - 50, "{found} found of {confirmed}, 50 acknowledged");
    assert!(resumed < Duration::from_secs(5), "{resumed:?}");
}

#[test]
fn k10_publishers_wait_below_one_mark_and_go_on_above_another() {
    let Ok(disk) = Disk::new(400) else { return skip("K10 marks", "no disk can be mounted") };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&["--set", "storage.file.segment_size=1MiB"]);
    home.always(&["--set", "limits.disk_free.low=100MiB"]);
    home.always(&["--set", "limits.disk_free.resume=150MiB"]);
    let broker = home.start().unwrap();
    let mut client = publisher(&broker, "q");
    publish(&mut client, "q", b"x").unwrap();
    let mib = |free: u64| disk.leave(free << 20).unwrap();
    let is_waiting = || broker.metric("polymq_alarm").unwrap() > 0.0;
    let mut slowest = Duration::ZERO;
    for _ in 0..2 {
        // Around the lower mark, and then around the upper one.
        for (free, waits) in [(90, true), (110, true), (95, true), (140, true), (160, false)] {
            mib(free);
            let began = Instant::now();
            while is_waiting() != waits {
                assert!(began.elapsed() < Duration::from_secs(5), "{free} MiB free: {waits}");
            }
            slowest = slowest.max(began.elapsed());
            looked_at(&broker);
            assert_eq!(is_waiting(), waits, "{free} MiB free");
        }
        mib(120);
        looked_at(&broker);
        publish(&mut client, "q", b"x").unwrap();
    }
    let raised = home.log().matches("alarm_raised").count();
    assert_eq!(raised, 2, "no flapping: {}", home.log());
    say(&format!("K10 marks: twice each way, slowest after {} ms", slowest.as_millis()));
}

/// Waits until the broker has looked at the disk once more.
fn looked_at(broker: &Broker) {
    let uptime = || broker.metric("polymq_uptime_seconds").unwrap();
    let began = uptime();
    while uptime() < began + 1.3 {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Consumes and acknowledges the first messages.
fn take_fifty(broker: &Broker) {
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    consumer.consume("q", 0).unwrap();
    for number in 1..=50 {
        let Some(Incoming::Delivery(delivery)) = consumer.next_event().unwrap() else {
            panic!("no delivery {number}");
        };
        assert_eq!(delivery.body, [1; 1000]);
    }
    consumer.ack(50, true).unwrap();
    consumer.close().unwrap();
}

#[test]
fn k11_a_start_without_room_serves_what_there_is() {
    start_without_room("K11", &[]);
}

#[test]
fn k11_with_sqlite() {
    start_without_room("K11 with SQLite", &["--set", "storage.backend=sqlite"]);
}

fn start_without_room(case: &str, flags: &[&str]) {
    let Ok(disk) = Disk::new(400) else { return skip(case, "no disk can be mounted") };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(flags);
    home.always(&["--set", "limits.disk_free.low=1B", "--set", "limits.disk_free.resume=1B"]);
    let broker = home.start().unwrap();
    let mut client = publisher(&broker, "q");
    for _ in 0..50 {
        publish(&mut client, "q", &[1; 1000]).unwrap();
    }
    broker.kill();
    disk.fill().unwrap();
    let broker = home.start().unwrap();
    take_fifty(&broker);
    // The acknowledgements are kept although there is no room.
    assert!(broker.stop().unwrap().success());
    assert_eq!(waiting(&home.start().unwrap(), "q"), 0);
    say(&format!("{case}: started without room, drained, and stopped"));
}

#[test]
fn k14_a_slow_disk_delays_confirms_and_nothing_else() {
    for (delay_ms, confirms) in [(100, 5), (500, 2), (5000, 1)] {
        let home = Home::new().unwrap();
        let broker = home.start().unwrap();
        let how = format!("delay_enter={delay_ms}000");
        let mut client = publisher(&broker, "q");
        let Ok(injection) = Injection::into(&home, &broker, "fdatasync", &how) else {
            return skip("K14", "strace cannot be used");
        };
        let delay = Duration::from_millis(delay_ms);
        let fastest = slow_confirms(&broker, &mut client, delay, confirms);
        drop(injection);
        say(&format!(
            "K14: syncs of {delay_ms} ms, the fastest confirm after {} ms",
            fastest.as_millis()
        ));
        assert!(fastest >= delay, "confirmed before the sync: {fastest:?}");
        let bound = if delay_ms > 1000 { "+Inf" } else { "1" };
        let slow = broker.metric(&format!("polymq_store_sync_seconds_bucket{{le=\"{bound}\"}}"));
        assert!(slow.unwrap() > 0.0);
    }
}

/// Publishes while other clients are served; answers the time of the fastest confirm.
fn slow_confirms(broker: &Broker, client: &mut Amqp, delay: Duration, confirms: u32) -> Duration {
    let login = Login { level: 4, client_id: "alive", clean: true };
    let mut alive = Mqtt::open(broker.ports.mqtt, login).unwrap();
    let mut fastest = Duration::MAX;
    for _ in 0..confirms {
        let published = Instant::now();
        client.send(&amqp::publish("", "q", b"x")).unwrap();
        let mut quickest = delay;
        while published.elapsed() < delay * 9 / 10 {
            let asked = Instant::now();
            alive.send(&PINGREQ).unwrap();
            assert_eq!(alive.next_packet().unwrap().unwrap().first, 0xD0);
            Amqp::open(broker.ports.amqp).unwrap();
            quickest = quickest.min(asked.elapsed());
            assert!(asked.elapsed() < delay.max(SLOW), "another client waits");
            let seen = broker.metric("polymq_store_unanswered_seconds").unwrap();
            assert!(seen <= published.elapsed().as_secs_f64() + 0.1, "{seen}");
        }
        // Not all of them: the machine may be busy with something else.
        assert!(quickest < delay, "others wait for the disk, too");
        client.expect((60, 80)).unwrap();
        fastest = fastest.min(published.elapsed());
    }
    fastest
}

#[test]
fn k18_a_newer_format_is_refused_and_left_alone() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = publisher(&broker, "q");
    publish(&mut client, "q", b"kept").unwrap();
    assert!(broker.stop().unwrap().success());
    let store = home.data().join("store/STORE");
    let before = std::fs::read(&store).unwrap();
    let mut newer = before.clone();
    // The format follows the magic of four bytes; the checksum is wrong then, too.
    newer[4] = newer[4].wrapping_add(1);
    std::fs::write(&store, &newer).unwrap();
    let status = wait_for_end(&mut home.spawn(&[]).unwrap()).unwrap();
    assert!(!status.success());
    assert_eq!(std::fs::read(&store).unwrap(), newer, "it was touched");
    std::fs::write(&store, &before).unwrap();
    assert_eq!(waiting(&home.start().unwrap(), "q"), 1);
}

//! Cases K9 and K10 with SQLite and a backlog: settling takes more room than a full disk has, so it
//! lives on the reserve, which messages do not get.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming, long_number},
    broker::{Broker, Home},
    disk::{Disk, bytes_below},
    report::{say, skip},
};

/// Messages of 10 KiB: more than the write-ahead file has room for.
const BACKLOG: u32 = 4000;
const PATIENCE: Duration = Duration::from_secs(60);

fn await_metric(broker: &Broker, name: &str, is_so: impl Fn(f64) -> bool) -> Duration {
    let began = Instant::now();
    loop {
        let value = broker.metric(name).unwrap();
        if is_so(value) {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "{name} stays {value}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Publishes one message, and answers whether it was confirmed.
fn is_taken(broker: &Broker, body: &[u8]) -> bool {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("later").unwrap();
    client.confirm_select().unwrap();
    client.set_patience(Duration::from_secs(2)).unwrap();
    client.send(&amqp::publish("", "later", body)).unwrap();
    client.expect((60, 80)).is_ok()
}

fn fill_queue(broker: &Broker) {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    for number in 0..BACKLOG {
        let body = number.to_be_bytes().repeat(2560);
        client.send(&amqp::publish("", "q", &body)).unwrap();
        if number % 100 == 99 {
            // One confirm may be for many.
            let mut confirmed = 0;
            while confirmed < u64::from(number) + 1 {
                confirmed = long_number(&client.expect((60, 80)).unwrap(), 0).unwrap();
            }
        }
    }
}

/// Takes and acknowledges everything, one by one.
fn settle_all(broker: &Broker) {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.consume("q", 200).unwrap();
    for number in 1..=u64::from(BACKLOG) {
        let Some(Incoming::Delivery(_)) = client.next_event().unwrap() else {
            panic!("no delivery {number}");
        };
        client.ack(number, false).unwrap();
    }
    client.close().unwrap();
    await_metric(broker, "polymq_store_pending_bytes", |bytes| bytes == 0.0);
}

#[test]
fn k09_k10_with_sqlite_a_backlog_is_settled_on_the_reserve() {
    let case = "K9, K10 with SQLite and a backlog";
    let Ok(disk) = Disk::new(500) else { return skip(case, "no disk can be mounted") };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&["--set", "storage.backend=sqlite"]);
    home.always(&["--set", "limits.disk_free.low=0B", "--set", "limits.disk_free.resume=0B"]);
    let broker = home.start().unwrap();
    fill_queue(&broker);
    disk.fill().unwrap();
    let began = Instant::now();
    while is_taken(&broker, &[7; 100 * 1024]) {
        assert!(began.elapsed() < PATIENCE, "the disk is never full");
    }
    await_metric(&broker, "polymq_store_full", |is_full| is_full > 0.0);
    let (_, health) = broker.get("/health/ready").unwrap();
    assert!(health.contains("the disk is full"), "{health}");

    settle_all(&broker);
    broker.kill();
    // There is still no room, and what was settled stays so.
    let broker = home.start().unwrap();
    let left = Amqp::open(broker.ports.amqp).unwrap().declare("q").unwrap();
    assert_eq!(left, 0, "{}", home.log());
    assert!(!is_taken(&broker, b"too early"), "what was given up is not for messages");

    disk.free_up().unwrap();
    let freed = Instant::now();
    while !is_taken(&broker, b"again") {
        assert!(freed.elapsed() < Duration::from_secs(5), "nothing goes on: {}", home.log());
    }
    let resumed = freed.elapsed();
    let reserve = disk.path().join("data/polymq.db.reserve").metadata().unwrap();
    assert_eq!(reserve.len(), 64 << 20, "{}", home.log());
    say(&format!(
        "{case}: {BACKLOG} messages settled on a full disk, resumed {} ms after, {} MiB on disk",
        resumed.as_millis(),
        bytes_below(&home.data()) >> 20
    ));
}

#[test]
fn k10_with_sqlite_a_database_that_fills_its_disk_goes_on() {
    let case = "K10 with SQLite, full of itself";
    let Ok(disk) = Disk::new(300) else { return skip(case, "no disk can be mounted") };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&["--set", "storage.backend=sqlite"]);
    home.always(&["--set", "limits.disk_free.low=0B", "--set", "limits.disk_free.resume=0B"]);
    let broker = home.start().unwrap();
    fill_queue(&broker);
    let mut large = 0;
    // Messages of one frame each.
    while is_taken(&broker, &[7; 100 * 1024]) {
        large += 1;
        assert!(large < 3000, "the disk is never full");
    }
    settle_all(&broker);
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.consume("later", 0).unwrap();
    for _ in 0..large {
        assert!(matches!(client.next_event().unwrap(), Some(Incoming::Delivery(_))));
    }
    client.ack(large, true).unwrap();
    client.close().unwrap();
    let began = Instant::now();
    while !is_taken(&broker, b"again") {
        assert!(began.elapsed() < PATIENCE, "nothing goes on: {}", home.log());
    }
    say(&format!(
        "{case}: {large} messages of 100 KiB and a backlog, resumed {} ms after all was settled",
        began.elapsed().as_millis()
    ));
}

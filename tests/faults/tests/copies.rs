//! Case K20: backups, and plain copies of the live directory, while messages are published at full
//! rate.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming, long_number},
    broker::{Broker, Home, wait_for_end},
    report::say,
};

/// Queues that only fill, each with a publisher of its own.
const KEPT: [&str; 2] = ["kept-0", "kept-1"];
/// A queue whose messages go as they come, so that rows and segments are deleted meanwhile.
const GOES: &str = "goes";
/// Messages that a publisher has on their way.
const WINDOW: u64 = 100;
const SQLITE: [&str; 2] = ["--set", "storage.backend=sqlite"];
/// Files of the log are closed, flushed, merged and deleted all the time.
const SMALL: [&str; 2] = ["--set", "storage.file.segment_size=1MiB"];

fn count(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What one publisher has done.
#[derive(Default)]
struct Published {
    sent: AtomicU64,
    confirmed: AtomicU64,
}

#[derive(Default)]
struct Load {
    kept: [Published; 2],
    goes: Published,
    ends: AtomicBool,
}

impl Load {
    fn publish(&self, broker: &Broker, queue: &str, published: &Published) {
        let mut client = Amqp::open(broker.ports.amqp).unwrap();
        client.confirm_select().unwrap();
        let mut sent = 0_u64;
        while !self.ends.load(Ordering::Relaxed) {
            for _ in 0..WINDOW {
                // The number of a message is its body, over and over.
                let body = sent.to_be_bytes().repeat(25);
                sent += 1;
                published.sent.store(sent, Ordering::SeqCst);
                client.send(&amqp::publish("", queue, &body)).unwrap();
            }
            let mut confirmed = 0;
            while confirmed < sent {
                confirmed = long_number(&client.expect((60, 80)).unwrap(), 0).unwrap();
                published.confirmed.store(confirmed, Ordering::SeqCst);
            }
        }
    }

    fn consume(&self, broker: &Broker) {
        let mut client = Amqp::open(broker.ports.amqp).unwrap();
        client.consume(GOES, 100).unwrap();
        client.set_patience(Duration::from_millis(200)).unwrap();
        while !self.ends.load(Ordering::Relaxed) {
            if let Ok(Some(Incoming::Delivery(delivery))) = client.next_event() {
                client.ack(delivery.tag, false).unwrap();
            }
        }
    }

    fn confirmed(&self) -> [u64; 2] {
        [0, 1].map(|at| self.kept[at].confirmed.load(Ordering::SeqCst))
    }

    fn sent(&self) -> [u64; 2] {
        [0, 1].map(|at| self.kept[at].sent.load(Ordering::SeqCst))
    }

    /// Whether a broker on a copy holds what was confirmed before it was begun, and nothing that
    /// was not sent before it was done. Answers how many messages are kept.
    fn judge(&self, copy: &Broker, before: [u64; 2], after: [u64; 2]) -> u64 {
        let mut all = 0;
        for at in [0, 1] {
            let mut client = Amqp::open(copy.ports.amqp).unwrap();
            let found = u64::from(client.declare(KEPT[at]).unwrap());
            let range = before[at]..=after[at];
            assert!(range.contains(&found), "{}: {found} messages, not {range:?}", KEPT[at]);
            client.consume(KEPT[at], 0).unwrap();
            for number in 0..found {
                let Some(Incoming::Delivery(delivery)) = client.next_event().unwrap() else {
                    panic!("no message {number} of {found}");
                };
                assert_eq!(delivery.body, number.to_be_bytes().repeat(25), "message {number}");
            }
            all += found;
        }
        all
    }
}

/// Publishes at full rate while `copy` does what the case is about.
fn under_load(broker: &Broker, copy: impl FnOnce(&Load)) {
    let load = Load::default();
    for queue in KEPT.into_iter().chain([GOES]) {
        Amqp::open(broker.ports.amqp).unwrap().declare(queue).unwrap();
    }
    thread::scope(|scope| {
        let load = &load;
        for (queue, published) in KEPT.into_iter().zip(&load.kept) {
            scope.spawn(move || load.publish(broker, queue, published));
        }
        scope.spawn(move || load.publish(broker, GOES, &load.goes));
        scope.spawn(move || load.consume(broker));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| copy(load)));
        load.ends.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

fn home_with(flags: &[&str]) -> Home {
    let mut home = Home::new().unwrap();
    home.always(flags);
    home
}

/// Waits until so many more messages are confirmed.
fn let_through(load: &Load, messages: u64) {
    let (began, from) = (Instant::now(), load.confirmed()[0]);
    while load.confirmed()[0] < from + messages {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is confirmed");
        thread::sleep(Duration::from_millis(5));
    }
}

fn backups(case: &str, flags: &[&str]) {
    let home = home_with(flags);
    let broker = home.start().unwrap();
    let (mut all, mut slowest) = (0, Duration::ZERO);
    let rounds = count("POLYMQ_BACKUPS", 6);
    under_load(&broker, |load| {
        for number in 0..rounds {
            let_through(load, 500);
            let folder = home.file(&format!("backup-{number}"));
            let path = folder.to_str().unwrap();
            let before = load.confirmed();
            let began = Instant::now();
            let made = home.backup(&["create", path]).unwrap();
            slowest = slowest.max(began.elapsed());
            let after = load.sent();
            assert!(made.status.success(), "{made:?}");
            let other = home_with(flags);
            let restored = other.backup(&["restore", path]).unwrap();
            assert!(restored.status.success(), "{restored:?}");
            let copy = other.start().unwrap();
            assert_eq!(copy.metric("polymq_store_damaged_ranges").unwrap(), 0.0);
            all += load.judge(&copy, before, after);
            fs::remove_dir_all(folder).unwrap();
        }
    });
    let status = broker.stop().unwrap();
    assert!(status.success(), "{status}: {}", home.log());
    say(&format!(
        "{case}: {rounds} backups under load, the slowest in {} ms, {all} messages in them",
        slowest.as_millis()
    ));
}

#[test]
fn k20_backups_under_load_open_with_everything_confirmed_before() {
    backups("K20", &SMALL);
}

#[test]
fn k20_backups_with_sqlite() {
    backups("K20 with SQLite", &SQLITE);
}

/// Copies the live directory as somebody does who does not know better.
fn copied(home: &Home, flags: &[&str]) -> Home {
    let copy = home_with(flags);
    // What goes meanwhile makes it complain.
    let mut command = Command::new("cp");
    command.arg("-a").arg(home.data()).arg(copy.data()).output().unwrap();
    copy
}

#[test]
fn k20_a_copy_of_a_live_directory_opens_as_after_a_crash_or_refuses() {
    let home = home_with(&SMALL);
    let broker = home.start().unwrap();
    let (mut opened, mut damaged, mut refused) = (0, 0, 0);
    under_load(&broker, |load| {
        for _ in 0..count("POLYMQ_COPIES", 10) {
            let_through(load, 500);
            let before = load.confirmed();
            let copy = copied(&home, &SMALL);
            let after = load.sent();
            match copy.start() {
                Ok(second) if second.metric("polymq_store_damaged_ranges").unwrap() > 0.0 => {
                    // It says so, in health and log.
                    damaged += 1;
                }
                Ok(second) => {
                    load.judge(&second, before, after);
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
    });
    say(&format!("K20: of the copies {opened} open, {damaged} say what is lost, {refused} refuse"));
}

#[test]
fn k20_a_copy_of_a_live_database_of_sqlite_is_refused() {
    let home = home_with(&SQLITE);
    let broker = home.start().unwrap();
    under_load(&broker, |load| {
        for _ in 0..3 {
            let_through(load, 500);
            let copy = copied(&home, &SQLITE);
            let status = wait_for_end(&mut copy.spawn(&[]).unwrap()).unwrap();
            assert_eq!(status.code(), Some(1), "{}", copy.log());
        }
    });
    let copy = copied(&home, &SQLITE);
    let status = wait_for_end(&mut copy.spawn(&[]).unwrap()).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(broker.stop().unwrap().success());
    // Closed, it is whole wherever it is.
    let copy = copied(&home, &SQLITE);
    let found = Amqp::open(copy.start().unwrap().ports.amqp).unwrap().declare(KEPT[0]).unwrap();
    assert!(found >= 1500, "{found}");
    say("K20 with SQLite: copies of the live database are refused, one of a closed one opens");
}

//! Case K5: the power goes while the whole binary is under load.
//!
//! The data are on a disk in a file. The broker is stopped, what the disk holds at that moment is
//! copied, and the next broker starts on the copy: what was in the page cache alone is gone.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{fs, thread, time::Duration};

use polymq_faults::{
    amqp::{self, Amqp},
    broker::{Broker, Home},
    disk::Disk,
    load::Run,
    random::Random,
    report::{say, setting, skip},
};

/// Nothing is written by the file system's own clock.
const OPTIONS: &str = "loop,commit=600";
const FLAGS: [&str; 6] = [
    "--set",
    "limits.disk_free.low=1B",
    "--set",
    "limits.disk_free.resume=1B",
    "--set",
    "storage.file.segment_size=4MiB",
];

/// Cuts the power: the disk holds what had reached it, and nobody runs.
fn cut(disk: &Disk, broker: Broker) {
    broker.pause().unwrap();
    // The method must be able to lose something.
    let control = disk.path().join("control");
    fs::write(&control, b"never synced").unwrap();
    let snapshot = disk.snapshot().unwrap();
    broker.kill();
    disk.go_back_to(&snapshot).unwrap();
    let left = fs::read(&control).unwrap_or_default();
    assert_eq!(left, b"", "the page cache has survived");
}

fn under_load(case: &str, flags: &[&str]) {
    let Ok(disk) = Disk::formatted(512, &[], OPTIONS) else {
        return skip(case, "no disk can be mounted");
    };
    let cuts = setting("POLYMQ_CUTS", 6);
    let mut random = Random::new(setting("POLYMQ_SEED", 5));
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&FLAGS);
    home.always(flags);
    let run = Run::new(0x6B35_0000, 400);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let broker = run.under_load(|| {
        for _ in 0..cuts {
            thread::sleep(Duration::from_millis(random.between(100, 900)));
            run.stage.down();
            cut(&disk, broker);
            broker = home.start().unwrap();
            run.stage.up(broker.ports);
        }
        broker
    });
    let found = run.finish(case, broker, home).unwrap();
    assert!(found.counted.confirmed > cuts * 50, "hardly any load: {found}");
    assert_eq!(found.counted.faults, cuts);
}

#[test]
fn k05_a_power_cut_loses_nothing_that_was_confirmed() {
    under_load("K5", &[]);
}

#[test]
fn k05_with_sqlite() {
    under_load("K5 with SQLite", &["--set", "storage.backend=sqlite"]);
}

#[test]
fn k05_confirms_from_the_page_cache_are_worth_what_they_say() {
    let Ok(disk) = Disk::formatted(512, &[], OPTIONS) else {
        return skip("K5 with class os", "no disk can be mounted");
    };
    let mut home = Home::with_data(disk.path().join("data")).unwrap();
    home.always(&FLAGS);
    home.always(&["--set", "storage.durability=os"]);
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    for _ in 0..500 {
        client.send(&amqp::publish("", "q", b"x")).unwrap();
        client.expect((60, 80)).unwrap();
    }
    cut(&disk, broker);
    let broker = home.start().unwrap();
    let found = Amqp::open(broker.ports.amqp).unwrap().declare("q").unwrap();
    say(&format!("K5 with class os: {found} of 500 messages are left"));
    assert!(found < 500, "the power cut has cut nothing");
}

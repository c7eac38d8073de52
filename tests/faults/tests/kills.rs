//! Cases K1 and K2: `kill -9` under load and during recovery.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{thread, time::Duration};

use polymq_faults::{
    amqp::{Amqp, Method, publish_with},
    broker::{Home, end},
    load::{Run, Stage, Target, amqp_publisher, judge},
    random::Random,
    report::{say, setting},
};

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

#[test]
fn k01_with_publishers_of_stomp_xmpp_and_http() {
    let run = Run::new(0x6B31_1000, 100).of_every_protocol();
    kill_run("K1 with every protocol", run, setting("POLYMQ_KILLS", 30), &[]);
}

fn kill_under_load(case: &str, kills: u64, flags: &[&str]) {
    let run = Run::new(0x6B31_0000 + setting("POLYMQ_SEED", 1), 100);
    kill_run(case, run, kills, flags);
}

fn kill_run(case: &str, run: Run, kills: u64, flags: &[&str]) {
    let seed = setting("POLYMQ_SEED", 1);
    // The ledger of a long run takes gigabytes.
    let longest = setting("POLYMQ_KILL_MS", 150);
    let mut random = Random::new(seed);
    let mut home = Home::new().unwrap();
    home.always(flags);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let mut slowest_start = Duration::ZERO;
    let broker = run.under_load(|| {
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(random.between(10, longest)));
            run.stage.down();
            broker.kill();
            broker = home.start().unwrap();
            slowest_start = slowest_start.max(broker.ready_after);
            run.stage.up(broker.ports);
        }
        thread::sleep(Duration::from_millis(300));
        broker
    });
    let by_protocol = run.confirmed();
    say(&format!("{case}: confirmed by protocol: {by_protocol:?}"));
    assert!(by_protocol.values().all(|count| *count > kills), "hardly any load: {by_protocol:?}");
    let found = run.finish(case, broker, home).unwrap();
    say(&format!("{case}: slowest start {} ms with seed {seed}", slowest_start.as_millis()));
    assert!(found.counted.confirmed > kills * 10, "hardly any load: {found}");
    assert_eq!(found.counted.faults, kills);
}

#[test]
fn k02_broker_that_is_killed_during_recovery_makes_progress() {
    kill_during_recovery("K2", setting("POLYMQ_KILLS", 30), &[]);
}

#[test]
fn k02_with_sqlite() {
    let flags = ["--set", "storage.backend=sqlite"];
    kill_during_recovery("K2 with SQLite", setting("POLYMQ_KILLS", 30), &flags);
}

fn kill_during_recovery(case: &str, kills: u64, flags: &[&str]) {
    let mut run = Run::new(0x6B32_0000, 100).limited(2000);
    run.plan.ack_loss_max_ns = 0;
    let mut home = Home::new().unwrap();
    home.always(flags);
    let broker = home.start().unwrap();
    run.open(&broker).unwrap();
    run.publish();
    run.stage.down();
    broker.kill();
    let mut random = Random::new(2);
    for _ in 0..kills {
        let mut child = home.spawn(&[]).unwrap();
        thread::sleep(Duration::from_millis(random.between(1, 150)));
        end(&mut child);
    }
    let broker = home.start().unwrap();
    let started = broker.ready_after.as_millis();
    run.stage.up(broker.ports);
    run.drain();
    drop(broker);
    let found = judge(case, &run.stage, &run.plan, home);
    say(&format!("{case}: {kills} kills during recovery, then ready after {started} ms"));
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
fn confirmed_publishes_of_every_class_but_memory_survive_a_kill() {
    const MESSAGES: u32 = 200;
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.confirm_select().unwrap();
    let classes = ["memory", "os", "sync-interval:1000", "sync"];
    for class in classes {
        client.declare(class).unwrap();
    }
    // One by one, so that no class can hide in the batch of a stronger one.
    for _ in 0..MESSAGES {
        for class in classes {
            let header = ("x-durability", class);
            client.send(&publish_with("", class, header, b"m")).unwrap();
            client.expect((60, 80)).unwrap();
        }
    }
    broker.kill();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    for class in classes {
        let kept = if class == "memory" { 0 } else { MESSAGES };
        assert_eq!(client.declare(class).unwrap(), kept, "{class}");
    }
}

#[test]
fn broker_with_a_deep_backlog_starts_quickly_after_a_kill() {
    let messages = setting("POLYMQ_BACKLOG", 100_000);
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    Amqp::open(broker.ports.amqp).unwrap().declare("work").unwrap();
    let stage = Stage::new(0x6B24_0000);
    stage.up(broker.ports);
    let (producer, exchange, key, messages_max) = (1, "", "work", messages);
    let target = Target { producer, exchange, key, filler: 100, messages_max };
    amqp_publisher(&stage, &target).unwrap();
    broker.kill();
    let broker = home.start().unwrap();
    let took = broker.ready_after;
    say(&format!("start with {messages} messages: {} ms", took.as_millis()));
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!(u64::from(client.declare("work").unwrap()), messages);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

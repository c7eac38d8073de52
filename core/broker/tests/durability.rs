//! Classes of durability: what a queue and a publish want, what is told, what is waited for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_contract::{Command, Event, PublishOutcome};
use polymq_model::{Durability, Message, Value};
use polymq_store::Capabilities;
use world::{Client, World, publish, with_headers};

const INTERVAL: Durability = Durability::SyncInterval { ms: 50 };

fn world_of(durable: bool, weaker_classes: bool) -> World {
    World::on(Capabilities { durable, weaker_classes, batch_bytes_max: u64::from(u32::MAX) })
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// A persistent message that asks for a class, as a session makes it.
fn asking(exchange: &str, key: &str, asked: Durability) -> Message {
    let headers = [("x-durability", text(&asked.to_string()))];
    with_headers(exchange, key, &headers).lowered(Some(asked))
}

fn numbered(message: Message, number: u64) -> Command {
    match publish("", "", "", number) {
        Command::Publish(publish) => {
            Command::Publish(polymq_contract::Publish { message, ..publish })
        }
        other => panic!("unexpected {other:?}"),
    }
}

/// The confirms that have come, as (first, last, class).
fn confirmed(client: &mut Client) -> Vec<(u64, u64, Durability)> {
    let confirms = client.events().into_iter().filter_map(|event| match event {
        Event::Confirmed { first, last, outcome: PublishOutcome::Routed(kept), .. } => {
            Some((first, last, kept))
        }
        _ => None,
    });
    confirms.collect()
}

#[test]
fn a_publish_lowers_the_class_of_its_queue_and_never_raises_it() {
    use Durability::{Memory, Os, Sync};
    let world = world_of(true, true);
    let mut client = world.connect();
    for (of_queue, asked, reached) in [
        (Sync, Sync, Sync),
        (Sync, INTERVAL, INTERVAL),
        (Sync, Os, Os),
        (Sync, Memory, Memory),
        (INTERVAL, Sync, INTERVAL),
        (INTERVAL, Durability::SyncInterval { ms: 90 }, Durability::SyncInterval { ms: 90 }),
        (INTERVAL, Durability::SyncInterval { ms: 10 }, INTERVAL),
        (Os, Sync, Os),
        (Os, INTERVAL, Os),
        (Memory, Sync, Memory),
    ] {
        let name = format!("{of_queue} {asked}");
        client.queue_with(&name, &[("x-durability", text(&of_queue.to_string()))]);
        world.broker.committer().kick();
        let before = world.store.faults().submits();
        client.send(numbered(asking("", &name, asked), 1));
        assert_eq!(confirmed(&mut client), [(1, 1, reached)], "{name}");
        let wrote = world.store.faults().submits() > before;
        assert_eq!(wrote, reached != Memory, "{name}");
        if wrote {
            assert_eq!(world.store.faults().last_wanted(), Some(reached), "{name}");
        }
    }
}

#[test]
fn a_confirm_tells_of_the_queue_that_keeps_the_message_worst() {
    let world = world_of(true, true);
    let mut client = world.connect();
    for (queue, class) in [("a", "sync"), ("b", "os"), ("c", "sync-interval:50")] {
        client.queue_with(queue, &[("x-durability", text(class))]);
        client.bind("amq.fanout", queue, "");
    }
    client.send(publish("amq.fanout", "", "m", 1));
    assert_eq!(confirmed(&mut client), [(1, 1, Durability::Os)]);
    assert_eq!(
        world.store.faults().last_wanted(),
        Some(Durability::Sync),
        "`a` is kept as it says"
    );
}

#[test]
fn each_publish_of_a_run_is_told_its_own_class() {
    let world = world_of(true, true);
    let mut client = world.connect();
    client.queue("q");
    let commands = vec![
        publish("", "q", "m", 1),
        publish("", "q", "m", 2),
        numbered(asking("", "q", Durability::Os), 3),
        numbered(asking("", "q", Durability::Memory), 4),
    ];
    client.send_all(commands);
    let told = [(1, 2, Durability::Sync), (3, 3, Durability::Os), (4, 4, Durability::Memory)];
    assert_eq!(confirmed(&mut client), told);
}

#[test]
fn a_confirm_waits_for_no_more_than_its_class() {
    let world = world_of(true, true);
    let mut client = world.connect();
    client.queue("q");
    world.broker.committer().kick();
    world.store.faults().delay_replies(true);
    client.send(numbered(asking("", "q", Durability::Memory), 1));
    assert_eq!(confirmed(&mut client), [(1, 1, Durability::Memory)]);
    assert_eq!(world.store.faults().delayed(), 0);
    client.send(numbered(asking("", "q", Durability::Os), 2));
    assert_eq!(confirmed(&mut client), []);
    assert_eq!(world.store.faults().last_wanted(), Some(Durability::Os));
    world.store.release();
    assert_eq!(confirmed(&mut client), [(2, 2, Durability::Os)]);
}

#[test]
fn an_engine_is_told_of_as_it_is() {
    for (world, reached) in
        [(world_of(true, false), Durability::Sync), (world_of(false, false), Durability::Memory)]
    {
        let mut client = world.connect();
        client.queue("q");
        client.send(numbered(asking("", "q", Durability::Os), 1));
        assert_eq!(confirmed(&mut client), [(1, 1, reached)]);
    }
}

#[test]
fn a_message_in_memory_is_gone_after_a_restart_and_a_weaker_class_stays_with_a_message() {
    let world = world_of(true, true);
    let mut client = world.connect();
    client.queue_with(
        "q",
        &[
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("dead")),
            ("x-message-ttl", Value::I64(1000)),
        ],
    );
    client.queue("dead");
    for asked in [Durability::Memory, Durability::Os] {
        client.send(numbered(asking("", "q", asked), 1));
    }
    let mut world = world.restart();
    let ready: u64 = world.broker.queues().iter().map(|queue| queue.counts.ready).sum();
    assert_eq!(ready, 1);
    world.broker.committer().kick();
    world.pass(1001);
    world.broker.committer().kick();
    assert_eq!(world.store.faults().last_wanted(), Some(Durability::Os), "as a dead letter, too");
    assert_eq!(world.connect().get("dead").as_deref(), Some("m"));
}

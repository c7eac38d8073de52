//! Queues that are longer than their window: the disk has the rest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_contract::{Command, Outcome};
use polymq_model::{Limits, RequestId, Seq, Value};
use polymq_store::{OwnerId, ShardId, wait};
use world::{Client, World, message, publish, publish_of};

/// More than a window.
const MANY: u64 = 100_000;

fn fill(client: &mut Client, from: u64, to: u64) {
    for first in (from..to).step_by(1000) {
        let last = (first + 1000).min(to);
        let body = |number: u64| number.to_string();
        client.send_all((first..last).map(|n| publish("", "q", &body(n), n + 1)).collect());
        client.events();
    }
}

fn ready(world: &World) -> u64 {
    world.broker.queues()[0].counts.ready
}

/// Takes what comes and settles it, until nothing comes.
fn drain(client: &mut Client, consumer: u32) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let deliveries = client.deliveries();
        let Some(last) = deliveries.last().map(|delivery| delivery.number) else { return bodies };
        bodies.extend(deliveries.iter().map(|delivery| world::body_of(&delivery.message)));
        client.settle(consumer, 1, last, Outcome::Accepted);
    }
}

fn numbers(from: u64, to: u64) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

#[test]
fn a_long_queue_comes_back_from_the_disk_in_order() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, MANY);
    assert_eq!(ready(&world), MANY);
    let in_memory = world.broker.queues()[0].counts.in_memory;
    assert!(in_memory < MANY / 2, "{in_memory}");
    client.consume("q", 1, 100);
    let first = drain(&mut client, 1);
    assert_eq!(first, numbers(0, MANY));
    assert_eq!(ready(&world), 0);
    // What follows is handed over directly again.
    client.publish("", "q", "next");
    assert_eq!(drain(&mut client, 1), ["next"]);
}

#[test]
fn a_restart_reads_no_message_until_somebody_wants_one() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, MANY);
    client.consume("q", 1, 10);
    let begun = client.deliveries();
    client.settle(1, 1, 5, Outcome::Accepted);
    assert_eq!(begun.len(), 10);
    let world = world.restart();
    assert_eq!(ready(&world), MANY - 5);
    assert_eq!(world.broker.queues()[0].counts.in_memory, 0);
    let mut client = world.connect();
    assert_eq!(client.get("q").as_deref(), Some("5"));
    client.consume("q", 1, 100);
    assert_eq!(drain(&mut client, 1), numbers(6, MANY));
}

#[test]
fn publishing_and_consuming_at_once_keeps_the_order() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, MANY);
    client.consume("q", 1, 1000);
    let mut bodies = Vec::new();
    for round in 0..20 {
        let deliveries = client.deliveries();
        bodies.extend(deliveries.iter().map(|delivery| world::body_of(&delivery.message)));
        let last = deliveries.last().unwrap().number;
        client.settle(1, 1, last, Outcome::Accepted);
        let from = MANY + round * 1000;
        let more: Vec<_> =
            (from..from + 1000).map(|n| publish("", "q", &n.to_string(), 0)).collect();
        client.send_all(more);
    }
    bodies.extend(drain(&mut client, 1));
    assert_eq!(bodies, numbers(0, MANY + 20_000));
}

#[test]
fn transient_messages_keep_their_places_among_durable_ones() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let mut commands = Vec::new();
    for number in 0..MANY {
        let body = number.to_string();
        let mut new = message("", "q", &body);
        new.durable = number % 7 != 0;
        commands.push(publish_of(new.build(&mut Vec::new()), 0));
    }
    for part in std::mem::take(&mut commands).chunks_mut(1000) {
        client.send_all(part.iter_mut().map(|c| std::mem::replace(c, nothing())).collect());
        world.broker.committer().kick();
    }
    client.consume("q", 1, 100);
    assert_eq!(drain(&mut client, 1), numbers(0, MANY));
}

fn nothing() -> Command {
    Command::Release { consumers: Vec::new() }
}

#[test]
fn purging_takes_what_only_the_disk_has() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, MANY);
    client.ask(|request| Command::PurgeQueue { request, queue: "q".to_owned() });
    assert_eq!(ready(&world), 0);
    fill(&mut client, MANY, MANY + 2);
    let world = world.restart();
    assert_eq!(ready(&world), 2);
    let mut client = world.connect();
    client.consume("q", 1, 0);
    assert_eq!(drain(&mut client, 1), numbers(MANY, MANY + 2));
}

#[test]
fn returned_messages_come_before_those_of_the_disk() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, MANY);
    client.consume("q", 1, 50_000);
    let begun = client.deliveries().len() as u64;
    assert!(begun > 0);
    client.send(Command::Release { consumers: vec![polymq_model::ConsumerId(1)] });
    client.events();
    client.consume("q", 2, 100);
    assert_eq!(drain(&mut client, 2), numbers(0, MANY));
}

#[test]
fn the_oldest_leave_a_full_queue_wherever_they_are() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I64(50_000))]);
    fill(&mut client, 0, MANY);
    assert_eq!(ready(&world), 50_000);
    let world = world.restart();
    let mut client = world.connect();
    fill(&mut client, MANY, MANY + 1000);
    client.consume("q", 1, 100);
    assert_eq!(drain(&mut client, 1), numbers(MANY + 1000 - 50_000, MANY + 1000));
}

#[test]
fn a_queue_that_expires_while_nobody_looks_is_read_by_the_clock() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I32(1000))]);
    fill(&mut client, 0, MANY);
    let mut world = world.restart();
    assert_eq!(ready(&world), MANY);
    world.pass(1000);
    for _ in 0..MANY / 1000 {
        world.pass(100);
    }
    assert_eq!(ready(&world), 0);
}

#[test]
fn deleting_a_long_queue_answers_how_many_went() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, MANY);
    let request = RequestId(77);
    let (if_unused, if_empty) = (false, false);
    client.send(Command::DeleteQueue { request, queue: "q".to_owned(), if_unused, if_empty });
    let answer = client.answer_to(request).unwrap().unwrap();
    assert!(
        matches!(answer, polymq_contract::Answer::QueueDeleted { messages } if messages == MANY)
    );
    let world = world.restart();
    assert!(world.broker.queues().is_empty());
}

#[test]
fn a_queue_of_class_memory_survives_without_its_messages() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-durability", Value::String("memory".into()))]);
    world.store.faults().delay_replies(true);
    client.events();
    client.send(publish("", "q", "m", 1));
    assert_eq!(client.events().len(), 1, "its confirm waits for no disk");
    world.store.faults().delay_replies(false);
    world.store.release();
    let world = world.restart();
    assert_eq!(ready(&world), 0);
}

#[test]
fn a_queue_stops_at_damaged_messages_and_others_go_on() {
    let world = damaged(300, 499, false);
    let mut client = world.connect();
    client.consume("q", 1, 100);
    assert_eq!(drain(&mut client, 1), numbers(0, 300));
    assert_eq!(ready(&world), MANY - 300);
    client.queue("other");
    client.publish("", "other", "served");
    client.consume("other", 2, 100);
    assert_eq!(drain(&mut client, 2), ["served"]);
    // What becomes readable again is delivered.
    world.store.faults().damage(None);
    let world = world.restart();
    let mut client = world.connect();
    client.consume("q", 1, 100);
    assert!(drain(&mut client, 1) == numbers(300, MANY));
    assert_eq!(ready(&world), 0);
}

#[test]
fn a_queue_goes_on_behind_damaged_messages_when_it_may() {
    let world = damaged(300, 499, true);
    let mut client = world.connect();
    client.consume("q", 1, 100);
    let mut all = numbers(0, 300);
    all.extend(numbers(500, MANY));
    assert!(drain(&mut client, 1) == all);
    assert_eq!(ready(&world), 0);
    // They are settled in the store too.
    world.store.faults().damage(None);
    let world = world.restart();
    assert_eq!(ready(&world), 0);
}

/// A broker started on a long queue of which these messages cannot be read.
fn damaged(first: u64, last: u64, skips: bool) -> World {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, MANY);
    let store: std::sync::Arc<dyn polymq_store::Store> = world.store.clone();
    let opened = wait(|reply| store.open(ShardId(0), OwnerId::default(), reply)).unwrap();
    let log = opened.logs.iter().find(|log| log.live_count == MANY).unwrap();
    let first = Seq(log.floor.0 + first);
    let last = Seq(log.floor.0 + last);
    world.store.faults().damage(Some((log.id, first, last)));
    if skips { world.restart_skipping_damage() } else { world.restart() }
}

#[test]
fn what_comes_to_the_disk_while_a_page_is_read_is_not_passed_over() {
    let limits = Limits { queue_messages_in_memory_max: 8, ..Limits::default() };
    let world = World::with_limits(limits);
    let (mut client, mut publisher) = (world.connect(), world.connect());
    client.queue("q");
    fill(&mut publisher, 0, 20);
    world.store.faults().delay_pages(true);
    client.consume("q", 1, 0);
    let mut got = drain(&mut client, 1);
    for number in 20..60 {
        // Each is on the disk before the next comes.
        fill(&mut publisher, number, number + 1);
        if number % 4 > 0 {
            continue;
        }
        world.store.faults().release_page();
        got.extend(drain(&mut client, 1));
    }
    got.extend(drain(&mut client, 1));
    while world.store.faults().release_page() {
        got.extend(drain(&mut client, 1));
    }
    assert_eq!(got, numbers(0, 60));
}

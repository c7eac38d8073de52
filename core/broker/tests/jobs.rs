//! Jobs: moving, copying, deleting and retrying messages in batches.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::{
    BrokerHandle, JobRecord, JobSpec, JobState, JobStep, MoveTo, PermissionRecord, Via, Work,
    access::Principal,
};
use polymq_contract::{Command, Consume, Outcome, RefusalKind};
use polymq_model::{Limits, Now, UserName, Value, VhostName};
use world::{Client, World, consume_of, publish};

/// Several batches, most of them on the disk alone.
const LONG: u64 = 1000;

fn small_window() -> World {
    World::with_limits(Limits { queue_messages_in_memory_max: 64, ..Limits::default() })
}

fn guest() -> Principal {
    Principal::of_user(UserName::new("guest").unwrap())
}

fn spec(work: Work) -> JobSpec {
    JobSpec {
        vhost: VhostName::new("/").unwrap(),
        queue: "q".to_owned(),
        work,
        seqs: Vec::new(),
        filter: None,
        limit: None,
        rate: None,
    }
}

fn to_queue(queue: &str) -> MoveTo {
    MoveTo::Queue(queue.to_owned())
}

fn fill(client: &mut Client, queue: &str, from: u64, to: u64) {
    for number in from..to {
        client.send(publish("", queue, &number.to_string(), number + 1));
    }
    client.events();
}

/// The queue `q` with so many messages, and the empty queue `to`.
fn two_queues(world: &World, messages: u64) -> Client {
    let mut client = world.connect();
    client.queue("q");
    client.queue("to");
    fill(&mut client, "q", 0, messages);
    client
}

fn run(broker: &BrokerHandle, spec: JobSpec, now: Now) -> JobRecord {
    let job = broker.start_job(&guest(), spec, now).unwrap();
    while broker.step_job(job.id, now) != JobStep::Over {}
    broker.job(job.id).unwrap()
}

fn ready(world: &World, queue: &str) -> u64 {
    let queues = world.broker.queues();
    queues.iter().find(|view| view.name.as_str() == queue).map_or(0, |view| view.counts.ready)
}

fn drain(client: &mut Client, queue: &str) -> Vec<String> {
    std::iter::from_fn(|| client.get(queue)).collect()
}

fn numbers(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[test]
fn a_whole_queue_moves_in_order_and_stays_moved() {
    let world = small_window();
    let _client = two_queues(&world, LONG);
    let job = run(&world.broker, spec(Work::Move(to_queue("to"))), world.now());
    assert_eq!((job.state, job.done, job.refused), (JobState::Done, LONG, 0));
    assert_eq!((ready(&world, "q"), ready(&world, "to")), (0, LONG));
    let world = world.restart();
    assert_eq!((ready(&world, "q"), ready(&world, "to")), (0, LONG));
    assert_eq!(drain(&mut world.connect(), "to"), numbers(0..LONG));
}

#[test]
fn a_filter_a_limit_and_positions_choose() {
    let world = small_window();
    let mut client = two_queues(&world, LONG);
    let filter = Some("matches(routing_key, 'q') AND json('$') < 20".to_owned());
    let nothing = JobSpec { filter: Some("payload_bytes > 9".to_owned()), ..spec(Work::Delete) };
    assert_eq!(run(&world.broker, nothing, world.now()).done, 0);
    let ten = JobSpec { filter, limit: Some(10), ..spec(Work::Delete) };
    assert_eq!(run(&world.broker, ten, world.now()).done, 10);
    let seqs = vec![13, 500, 900, 5000];
    let some = JobSpec { seqs, ..spec(Work::Move(to_queue("to"))) };
    let job = run(&world.broker, some, world.now());
    assert_eq!((job.done, job.missed), (3, 1));
    assert_eq!(drain(&mut client, "to"), ["12", "499", "899"]);
    let left = (10..LONG).filter(|number| ![12, 499, 899].contains(number));
    assert_eq!(drain(&mut client, "q"), numbers(left));
    let world = world.restart();
    assert_eq!((ready(&world, "q"), ready(&world, "to")), (0, 0));
}

#[test]
fn a_copy_leaves_everything_where_it_is() {
    let world = small_window();
    let mut client = world.connect();
    client.queue("q");
    client.queue("a");
    client.queue("b");
    client.bind("amq.fanout", "a", "");
    client.bind("amq.fanout", "b", "");
    fill(&mut client, "q", 0, LONG);
    let fanout = MoveTo::Exchange { exchange: "amq.fanout".to_owned(), key: None };
    let job = run(&world.broker, spec(Work::Copy(fanout)), world.now());
    assert_eq!(job.done, LONG);
    let world = world.restart();
    for queue in ["q", "a", "b"] {
        assert_eq!(drain(&mut world.connect(), queue), numbers(0..LONG), "{queue}");
    }
}

#[test]
fn a_queue_moved_to_its_own_end_is_gone_through_once() {
    let world = small_window();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, "q", 0, LONG);
    let job = run(&world.broker, spec(Work::Move(to_queue("q"))), world.now());
    assert_eq!(job.done, LONG);
    assert_eq!(drain(&mut client, "q"), numbers(0..LONG));
}

#[test]
fn what_the_target_refuses_stays_in_its_place_and_is_listed() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let full = [
        ("x-max-length", Value::I32(3)),
        ("x-overflow", Value::String("reject-publish".to_owned())),
    ];
    client.queue_with("full", &full);
    fill(&mut client, "q", 0, 10);
    let job = run(&world.broker, spec(Work::Move(to_queue("full"))), world.now());
    assert_eq!((job.state, job.done, job.refused), (JobState::Done, 3, 7));
    assert!(job.refused_messages[0].reason.contains("no room"), "{job:?}");
    assert_eq!(drain(&mut client, "q"), numbers(3..10));
    fill(&mut client, "q", 0, 2);
    let nowhere = MoveTo::Exchange { exchange: "amq.direct".to_owned(), key: None };
    let job = run(&world.broker, spec(Work::Move(nowhere)), world.now());
    assert_eq!((job.done, job.refused), (0, 2));
    assert_eq!(drain(&mut client, "q"), numbers(0..2));
}

#[test]
fn what_consumers_have_is_not_moved() {
    let world = World::new();
    let mut client = two_queues(&world, 5);
    client.consume("q", 1, 2);
    assert_eq!(client.bodies(), ["0", "1"]);
    let job = run(&world.broker, spec(Work::Move(to_queue("to"))), world.now());
    assert_eq!(job.done, 3);
    client.settle(1, 1, 2, Outcome::Returned);
    assert_eq!(drain(&mut client, "to"), numbers(2..5));
}

#[test]
fn consumers_get_what_is_moved_to_them_and_messages_between_batches_stay_in_order() {
    let world = small_window();
    let mut client = two_queues(&world, LONG);
    let mut reader = world.connect();
    reader.consume("to", 1, 0);
    let now = world.now();
    let job = world.broker.start_job(&guest(), spec(Work::Move(to_queue("to"))), now).unwrap();
    let mut got = Vec::new();
    loop {
        let step = world.broker.step_job(job.id, now);
        // What comes while the job is at work is not its business.
        fill(&mut client, "q", LONG, LONG + 1);
        got.extend(reader.bodies());
        if step == JobStep::Over {
            break;
        }
    }
    assert_eq!(got, numbers(0..LONG));
    assert!(ready(&world, "q") > 0);
}

#[test]
fn dead_letters_go_back_to_where_they_died() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let dead = [
        ("x-dead-letter-exchange", Value::String(String::new())),
        ("x-dead-letter-routing-key", Value::String("q".to_owned())),
    ];
    client.queue_with("origin", &dead);
    client.bind("amq.topic", "origin", "orders.#");
    client.publish("amq.topic", "orders.eu", "m");
    client.publish("", "q", "never died");
    let reject = |client: &mut Client, consumer| {
        client.consume("origin", consumer, 0);
        let delivery = client.deliveries().remove(0);
        assert_eq!(delivery.message.key(), "orders.eu");
        assert_eq!(delivery.message.exchange(), "amq.topic");
        client.settle(consumer, 1, 1, Outcome::Rejected);
        client.ask(|request| {
            let consumer = polymq_model::ConsumerId(consumer);
            Command::Cancel { request, consumer }
        });
    };
    reject(&mut client, 1);
    let vhost = VhostName::new("/").unwrap();
    let letters = world.broker.dead_letters(&guest(), &vhost, 1000, world.now()).unwrap();
    let group = &letters.groups[0];
    assert_eq!((group.queue.as_str(), group.origin.as_str()), ("q", "origin"));
    assert_eq!((group.reason.as_str(), group.count, letters.exact), ("rejected", 1, true));
    for (consumer, via) in [(2, Via::Queue), (3, Via::Exchange)] {
        let job = run(&world.broker, spec(Work::Retry(via)), world.now());
        assert_eq!((job.done, job.refused), (1, 1), "{via:?} {job:?}");
        reject(&mut client, consumer);
    }
    let letters = world.broker.dead_letters(&guest(), &vhost, 1000, world.now()).unwrap();
    assert_eq!(letters.groups[0].count, 1);
    delete(&mut client, "origin");
    let job = run(&world.broker, spec(Work::Retry(Via::Queue)), world.now());
    assert_eq!((job.done, job.refused), (0, 2));
    assert_eq!(ready(&world, "q"), 2);
}

fn delete(client: &mut Client, queue: &str) {
    let (queue, if_unused, if_empty) = (queue.to_owned(), false, false);
    client.ask(|request| Command::DeleteQueue { request, queue, if_unused, if_empty });
}

#[test]
fn a_job_ends_between_batches_and_leaves_each_message_in_one_place() {
    let world = small_window();
    let _client = two_queues(&world, LONG);
    let now = world.now();
    let job = world.broker.start_job(&guest(), spec(Work::Move(to_queue("to"))), now).unwrap();
    assert!(matches!(world.broker.step_job(job.id, now), JobStep::Again { .. }));
    world.broker.cancel_job(job.id).unwrap();
    // At once, however long it would have waited for its next batch.
    assert_eq!(world.broker.job(job.id).unwrap().state, JobState::Cancelled);
    assert_eq!(world.broker.step_job(job.id, now), JobStep::Over);
    let record = world.broker.job(job.id).unwrap();
    assert_eq!(record.state, JobState::Cancelled);
    assert!(record.done > 0 && record.done < LONG);
    assert_eq!(ready(&world, "to"), record.done);
    let world = world.restart();
    let mut client = world.connect();
    let mut both = drain(&mut client, "to");
    both.extend(drain(&mut client, "q"));
    assert_eq!(both, numbers(0..LONG));
}

#[test]
fn a_kill_between_batches_leaves_each_message_in_one_place_and_the_job_interrupted() {
    for steps in [1, 2] {
        let world = small_window();
        let _client = two_queues(&world, LONG);
        let now = world.now();
        let move_all = spec(Work::Move(to_queue("to")));
        let job = world.broker.start_job(&guest(), move_all.clone(), now).unwrap();
        for _ in 0..steps {
            world.broker.step_job(job.id, now);
        }
        let done = world.broker.job(job.id).unwrap().done;
        let world = world.restart();
        let record = world.broker.job(job.id).unwrap();
        assert_eq!(record.state, JobState::Interrupted);
        assert_eq!((record.started_ms, record.done), (now.unix_ms, done));
        assert_eq!(ready(&world, "q") + ready(&world, "to"), LONG);
        // It is started again from what is left.
        let again = run(&world.broker, record.spec, world.now());
        assert!(again.id > job.id && again.state == JobState::Done);
        assert_eq!(drain(&mut world.connect(), "to"), numbers(0..LONG));
    }
}

#[test]
fn a_job_keeps_to_its_rate_and_may_do_only_what_its_user_may() {
    let world = World::new();
    let _client = two_queues(&world, LONG);
    let slow = JobSpec { rate: Some(100), ..spec(Work::Move(to_queue("to"))) };
    let job = world.broker.start_job(&guest(), slow, world.now()).unwrap();
    let JobStep::Again { after_ms } = world.broker.step_job(job.id, world.now()) else {
        panic!("there is more")
    };
    // In small batches, so that no second has more than it may.
    assert_eq!((after_ms, world.broker.job(job.id).unwrap().done), (100, 10));

    let vhost = VhostName::new("/").unwrap();
    let user = UserName::new("reader").unwrap();
    let record = PermissionRecord { write: String::new(), ..PermissionRecord::all() };
    world.broker.put_permission(vhost, user.clone(), record, false).unwrap();
    let who = Principal::of_user(user);
    let start = |work| world.broker.start_job(&who, spec(work), world.now());
    let refused = start(Work::Move(to_queue("to"))).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Denied);
    let fanout = MoveTo::Exchange { exchange: "amq.fanout".to_owned(), key: None };
    assert_eq!(start(Work::Copy(fanout)).unwrap_err().kind, RefusalKind::Denied);
    assert!(start(Work::Delete).is_ok());
}

#[test]
fn a_preview_counts_and_shows_and_does_nothing() {
    let world = small_window();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, "q", 0, LONG);
    let half = JobSpec { limit: Some(LONG / 2), ..spec(Work::Delete) };
    let preview = world.broker.preview_job(&guest(), &half, world.now()).unwrap();
    assert_eq!((preview.count, preview.exact, preview.sample.len()), (LONG / 2, true, 10));
    let purge = spec(Work::Purge);
    assert_eq!(world.broker.preview_job(&guest(), &purge, world.now()).unwrap().count, LONG);
    assert_eq!(ready(&world, "q"), LONG);
    assert_eq!(run(&world.broker, purge, world.now()).done, LONG);
    assert_eq!(ready(&world, "q"), 0);
    let bad = JobSpec { filter: Some("a =".to_owned()), ..spec(Work::Delete) };
    let refused = world.broker.preview_job(&guest(), &bad, world.now()).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Invalid);
}

#[test]
fn messages_removed_from_the_middle_of_a_page_that_is_on_its_way_do_not_come_back() {
    let world = small_window();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, "q", 0, LONG);
    world.store.faults().delay_pages(true);
    // A consumer has a page asked for, and the job takes from it before it comes.
    let consume = consume_of("q", 1, 0);
    client.try_ask(|request| Command::Consume(Box::new(Consume { request, ..consume }))).unwrap();
    let mut got = client.bodies();
    world.store.faults().delay_pages(false);
    let everything = run(&world.broker, spec(Work::Delete), world.now());
    while world.store.faults().release_page() {}
    got.extend(client.bodies());
    assert_eq!(got.len() as u64 + everything.done, LONG);
    assert_eq!(ready(&world, "q"), 0);
}

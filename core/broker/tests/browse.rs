//! Looking at queues without changing them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::{
    Browse, BrowseFrom, Browsed, MessageState, PermissionRecord, access::Principal,
};
use polymq_contract::{Command, Note, Outcome, RefusalKind, Settlement};
use polymq_filter::Filter;
use polymq_model::{ConsumerId, Limits, NewMessage, UserName, Value, VhostName};
use world::{Client, World, body_of, message, publish, publish_of, with_headers};

/// Some of a queue of this length is in memory, and some on the disk alone.
const LONG: u64 = 500;

fn small_window() -> World {
    World::with_limits(Limits { queue_messages_in_memory_max: 64, ..Limits::default() })
}

fn fill(client: &mut Client, from: u64, to: u64) {
    for number in from..to {
        client.send(publish("", "q", &number.to_string(), number + 1));
    }
    client.events();
}

fn guest() -> Principal {
    Principal::of_user(UserName::new("guest").unwrap())
}

fn browse(world: &World, browse: &Browse) -> Browsed {
    let vhost = VhostName::new("/").unwrap();
    world.broker.browse(&guest(), &vhost, "q", browse, world.now()).unwrap()
}

fn bodies(browsed: &Browsed) -> Vec<String> {
    browsed.messages.iter().map(|found| body_of(&found.message)).collect()
}

fn numbers(from: u64, to: u64) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

/// Everything, page after page.
fn all(world: &World, from: BrowseFrom, limit: usize) -> Vec<String> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = browse(world, &Browse { from, after, limit, ..Browse::default() });
        assert!(page.messages.len() <= limit);
        found.extend(bodies(&page));
        let Some(next) = page.next else { return found };
        after = Some(next);
    }
}

#[test]
fn a_look_changes_nothing() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, 3);
    let before = world.broker.queues();
    assert_eq!(bodies(&browse(&world, &Browse::default())), numbers(0, 3));
    assert_eq!(world.broker.queues(), before);
    client.consume("q", 1, 0);
    let deliveries = client.deliveries();
    assert!(deliveries.iter().all(|delivery| !delivery.redelivered && delivery.acquired == 0));
}

#[test]
fn pages_of_memory_and_disk_follow_each_other_without_gaps() {
    for limit in [1, 7, 100, 1000] {
        let world = small_window();
        let mut client = world.connect();
        client.queue("q");
        fill(&mut client, 0, LONG);
        assert!(world.broker.queues()[0].counts.in_memory < LONG);
        assert_eq!(all(&world, BrowseFrom::Head, limit), numbers(0, LONG), "pages of {limit}");
    }
}

#[test]
fn transient_messages_stand_at_their_places_among_those_of_the_disk() {
    let world = small_window();
    let mut client = world.connect();
    client.queue("q");
    for number in 0..LONG {
        let body = number.to_string();
        let durable = number % 3 != 0;
        let new = NewMessage { durable, ..message("", "q", &body) };
        client.send(publish_of(new.build(&mut Vec::new()), number + 1));
    }
    client.events();
    assert_eq!(all(&world, BrowseFrom::Head, 50), numbers(0, LONG));
}

#[test]
fn a_look_begins_where_it_is_told_to() {
    let mut world = small_window();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, 10);
    let seqs: Vec<u64> =
        browse(&world, &Browse::default()).messages.iter().map(|found| found.seq).collect();
    assert_eq!(all(&world, BrowseFrom::Seq(seqs[4]), 3), numbers(4, 10));

    let tail = Browse { from: BrowseFrom::Tail, limit: 4, ..Browse::default() };
    let last = browse(&world, &tail);
    assert_eq!(bodies(&last), numbers(6, 10));
    let before = browse(&world, &Browse { after: last.next, ..tail.clone() });
    assert_eq!(bodies(&before), numbers(2, 6));
    let first = browse(&world, &Browse { after: before.next, ..tail });
    assert_eq!((bodies(&first), first.next), (numbers(0, 2), None));

    world.pass(1000);
    for number in 10..LONG {
        let new =
            NewMessage { arrived_ms: world.now().unix_ms, ..message("", "q", &number.to_string()) };
        client.at(&world).send(publish_of(new.build(&mut Vec::new()), number + 1));
    }
    client.events();
    let since = BrowseFrom::Time(world.now().unix_ms);
    assert_eq!(all(&world, since, 100), numbers(10, LONG));
    let tail = Browse { from: BrowseFrom::Tail, limit: 5, ..Browse::default() };
    assert_eq!(bodies(&browse(&world, &tail)), numbers(LONG - 5, LONG));
}

#[test]
fn what_consumers_hold_and_what_is_held_back_is_seen_as_that() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, 3);
    client.consume("q", 1, 2);
    assert_eq!(client.deliveries().len(), 2);
    let note = Note { retry_after_ms: Some(5000), reason: None };
    client.send(Command::Settle(Settlement {
        note: Some(Box::new(note)),
        ..Settlement::new(
            ConsumerId(1),
            polymq_contract::DeliveryRange { first: 1, last: 1 },
            Outcome::Returned,
        )
    }));
    let found = browse(&world, &Browse::default());
    let states: Vec<_> = found.messages.iter().map(|found| &found.state).collect();
    let due_ms = world.now().unix_ms + 5000;
    assert_eq!(*states[0], MessageState::Scheduled { due_ms });
    assert!(matches!(states[1], MessageState::Unacked { .. }));
    assert!(matches!(states[2], MessageState::Unacked { .. }));
    assert_eq!(found.messages[0].acquired, 1);
    let ready = Browse { unacked: false, ..Browse::default() };
    assert_eq!(bodies(&browse(&world, &ready)), ["0"]);
}

#[test]
fn higher_priorities_come_first_and_pages_go_on_below() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-priority", Value::I32(5))]);
    for (body, priority) in [("a", 1), ("b", 5), ("c", 1), ("d", 5), ("e", 3)] {
        let new = NewMessage { priority: Some(priority), ..message("", "q", body) };
        client.send(publish_of(new.build(&mut Vec::new()), 0));
    }
    for limit in 1..6 {
        assert_eq!(all(&world, BrowseFrom::Head, limit), ["b", "d", "e", "a", "c"]);
    }
    let tail = Browse { from: BrowseFrom::Tail, limit: 3, ..Browse::default() };
    assert_eq!(bodies(&browse(&world, &tail)), ["e", "a", "c"]);
}

#[test]
fn a_filter_looks_at_fields_headers_and_bodies() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for number in 0..5_i32 {
        let message = with_headers("", "q", &[("tenant", Value::I32(number))]);
        client.send(publish_of(message, 0));
    }
    client.publish("", "q", r#"{"total": 120}"#);
    let count = |text: &str| {
        let filter = Some(Filter::parse(text).unwrap());
        let page = browse(&world, &Browse { filter, ..Browse::default() });
        assert_eq!(page.scanned, 6);
        page.messages.len()
    };
    assert_eq!(count("tenant >= 3"), 2);
    assert_eq!(count("headers.tenant = 0"), 1);
    assert_eq!(count("tenant IS NULL AND json('$.total') > 100"), 1);
    assert_eq!(count("routing_key = 'q' AND state = 'ready' AND persistent"), 6);
    assert_eq!(count("payload_bytes > 1"), 1);
}

#[test]
fn a_long_search_ends_and_can_go_on() {
    let world = small_window();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, LONG);
    let filter = Some(Filter::parse("routing_key = 'other'").unwrap());
    let mut search = Browse { filter, scan_max: 100, ..Browse::default() };
    let mut rounds = 0;
    loop {
        let page = browse(&world, &search);
        assert!(page.messages.is_empty() && page.scanned <= 100);
        rounds += 1;
        let Some(next) = page.next else { break };
        search.after = Some(next);
    }
    assert_eq!(rounds, LONG / 100);
}

#[test]
fn a_deep_queue_is_seen_after_a_restart_and_while_it_is_consumed() {
    let world = small_window();
    let mut client = world.connect();
    client.queue("q");
    fill(&mut client, 0, LONG);
    let limits = Limits { queue_messages_in_memory_max: 64, ..Limits::default() };
    let world = world.restart_with(limits);
    assert_eq!(all(&world, BrowseFrom::Head, 33), numbers(0, LONG));
    let mut client = world.connect();
    client.consume("q", 1, 10);
    client.deliveries();
    client.settle(1, 1, 5, Outcome::Accepted);
    assert_eq!(all(&world, BrowseFrom::Head, 33), numbers(5, LONG));
    assert_eq!(all(&world, BrowseFrom::Tail, 1000).len() as u64, LONG - 5);
}

#[test]
fn a_look_needs_the_right_to_read() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let vhost = VhostName::new("/").unwrap();
    let user = UserName::new("writer").unwrap();
    let record = PermissionRecord { read: String::new(), ..PermissionRecord::all() };
    world.broker.put_permission(vhost.clone(), user.clone(), record, false).unwrap();
    let who = Principal::of_user(user);
    let look =
        |who, queue| world.broker.browse(who, &vhost, queue, &Browse::default(), world.now());
    assert_eq!(look(&who, "q").unwrap_err().kind, RefusalKind::Denied);
    // Whether it is there is not told either.
    assert_eq!(look(&who, "none").unwrap_err().kind, RefusalKind::Denied);
    assert_eq!(look(&guest(), "none").unwrap_err().kind, RefusalKind::NotFound);
}

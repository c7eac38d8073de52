//! What people are shown of connections, channels, consumers, queues, exchanges and bindings, and
//! what is counted of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use polymq_broker::{Activity, ConnectionRef, Principal, QueueCounts, QueueDetails, Sample, Span};
use polymq_contract::{ChannelMode, Command, Consume, Event, Introduction, Outcome, Publish};
use polymq_model::{PublisherId, RequestId, Value};
use world::{Client, World, consume_of, publish, session, topic_subscription};

fn only_connection(world: &World) -> ConnectionRef {
    let [connection] = <[_; 1]>::try_from(world.broker.connection_refs()).expect("one connection");
    connection
}

fn details(world: &World, queue: &str) -> QueueDetails {
    world.broker.queue_ref("/", queue).expect("the queue is there").details(None)
}

fn of_exchange(world: &World, name: &str) -> Activity {
    world.broker.exchange("/", name, None).expect("the exchange is there").activity
}

fn introduce(client: &mut Client, channels_max: u16) {
    client.send(Command::Introduce(Box::new(Introduction {
        protocol: "AMQP 0-9-1",
        channels_max,
        client_properties: vec![("product".to_owned(), Value::String("test".to_owned()))],
        ..Introduction::default()
    })));
}

#[test]
fn what_happens_in_a_queue_is_counted() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.get("q");
    for body in ["a", "b", "c", "d"] {
        client.publish("", "q", body);
    }
    client.get("q");
    client.consume("q", 1, 2);
    client.events();
    client.settle(1, 1, 1, Outcome::Accepted);
    client.settle(1, 2, 2, Outcome::Returned);
    client.events();
    let seen = details(&world, "q");
    let expected = Activity {
        published: 4,
        got_no_ack: 1,
        got_empty: 1,
        // Three messages, and one of them twice.
        delivered: 4,
        redelivered: 1,
        acknowledged: 1,
        ..Activity::default()
    };
    assert_eq!(seen.activity, expected);
    assert_eq!((seen.counts.ready, seen.counts.unsettled), (0, 2));
    assert!(seen.active_ms > 0);
}

#[test]
fn an_exchange_counts_what_comes_in_and_what_goes_to_each_queue() {
    let world = World::new();
    let mut client = world.connect();
    for queue in ["one", "two"] {
        client.queue(queue);
        client.bind("amq.fanout", queue, "");
    }
    for body in ["a", "b", "c"] {
        client.publish("amq.fanout", "k", body);
    }
    client.publish("", "one", "d");
    let fanout = of_exchange(&world, "amq.fanout");
    assert_eq!((fanout.published, fanout.published_out), (3, 6));
    let default = of_exchange(&world, "");
    assert_eq!((default.published, default.published_out), (1, 1));
    let totals = world.broker.totals(None).0;
    assert_eq!((totals.activity.published, totals.ready), (4, 7));
}

#[test]
fn totals_outlive_the_queues_exchanges_and_connections_they_were_counted_for() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("x", "fanout");
    client.queue("q");
    client.bind("x", "q", "");
    client.publish("x", "", "a");
    client.consume("q", 1, 0);
    client.events();
    client.settle(1, 1, 1, Outcome::Accepted);
    let before = world.broker.totals(None).0.activity;
    client.ask(|request| Command::DeleteQueue {
        request,
        queue: "q".to_owned(),
        if_unused: false,
        if_empty: false,
    });
    client.ask(|request| Command::DeleteExchange {
        request,
        exchange: "x".to_owned(),
        if_unused: false,
    });
    client.disconnect();
    let after = world.broker.totals(None).0.activity;
    assert_eq!(after, before);
    assert_eq!((after.published, after.delivered, after.acknowledged), (1, 1, 1));
    let delivered = world.broker.counters().protocol("amqp").read();
    assert!(delivered.contains(&("messages_delivered", 1)), "{delivered:?}");
}

#[test]
fn returned_and_dropped_publishes_are_told_apart() {
    let world = World::new();
    let mut client = world.connect();
    client.publish("amq.direct", "nobody", "a");
    let Command::Publish(lost) = publish("amq.direct", "nobody", "b", 0) else { panic!() };
    client.send(Command::Publish(Publish { mandatory: true, ..lost }));
    let activity = world.broker.totals(None).0.activity;
    assert_eq!((activity.dropped, activity.returned), (1, 1));
}

#[test]
fn a_channel_shows_its_prefetch_its_unsettled_deliveries_and_its_confirms() {
    let world = World::new();
    let mut client = world.connect();
    introduce(&mut client, 10);
    assert_eq!(only_connection(&world).channel_count(), 0);
    for channel in [1, 2] {
        client.ask(|request| Command::OpenChannel { request, channel });
    }
    client.queue("q");
    let publisher = PublisherId(1);
    client.send(Command::EnterChannel { publisher, channel: 2 });
    client.send(publish("", "q", "a", 1));
    client.send(publish("", "q", "b", 2));
    let consume = Consume { tag: "t".to_owned(), ..consume_of("q", 1, 5) };
    client.ask(|request| Command::Consume(Box::new(Consume { request, ..consume })));
    client.events();

    let connection = only_connection(&world);
    assert_eq!(connection.introduction().protocol, "AMQP 0-9-1");
    assert_eq!(connection.user.as_ref().unwrap().as_str(), "guest");
    let channels = connection.channels(None);
    let [one, two] = channels.as_slice() else { panic!("{channels:?}") };
    assert_eq!((one.number, one.prefetch, one.unsettled), (1, 5, 2));
    assert_eq!(one.activity.delivered, 2);
    assert_eq!((two.number, two.activity.published, two.is_confirming), (2, 2, true));
    assert_eq!(two.unconfirmed + two.activity.confirmed, 2);
    world.broker.committer().kick();
    world.broker.committer().run_callbacks();
    assert_eq!(only_connection(&world).channels(None)[1].unconfirmed, 0);

    let consumers = world.broker.consumers(None).unwrap();
    let [consumer] = consumers.as_slice() else { panic!("{consumers:?}") };
    assert_eq!((&*consumer.tag, consumer.channel, consumer.unsettled), ("t", 1, 2));
    assert_eq!(consumer.connection, connection.id);

    client.send(Command::CloseChannel { channel: 2 });
    let connection = only_connection(&world);
    assert_eq!(connection.channel_count(), 1);
    assert_eq!(connection.activity().published, 2);
}

#[test]
fn a_connection_without_channels_shows_one() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("c", true, 0));
    client.subscribe("t", 1);
    client.publish("amq.topic", "t", "a");
    client.events();
    let channels = only_connection(&world).channels(None);
    let [channel] = channels.as_slice() else { panic!("{channels:?}") };
    assert_eq!((channel.number, channel.unsettled, channel.activity.delivered), (1, 1, 1));
}

#[test]
fn a_channel_shows_what_it_does() {
    let world = World::new();
    let mut client = world.connect();
    introduce(&mut client, 10);
    for channel in [1, 2] {
        client.send(Command::OpenChannel { request: RequestId(1), channel });
    }
    let mode = ChannelMode::Transaction { publishes: 3, settlements: 2 };
    client.send(Command::DescribeChannel { channel: 1, mode });
    client.send(Command::DescribeChannel { channel: 2, mode: ChannelMode::Confirms });
    let channels = only_connection(&world).channels(None);
    let [tx, confirms] = channels.as_slice() else { panic!("{channels:?}") };
    assert_eq!((tx.is_transactional, tx.is_confirming), (true, false));
    assert_eq!((tx.uncommitted_publishes, tx.uncommitted_settlements), (3, 2));
    assert_eq!((confirms.is_transactional, confirms.is_confirming), (false, true));
}

#[test]
fn a_subscription_with_a_queue_shows_as_its_binding() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("c", true, 0));
    client.subscribe("live", 0);
    let bindings = |world: &World| world.broker.bindings_from("/", "amq.topic").unwrap();
    assert_eq!(bindings(&world), []);
    client.subscribe_with(topic_subscription("kept", 1));
    let all = bindings(&world);
    assert!(all.iter().all(|binding| binding.destination == "mqtt-subscription-cqos1"));
    assert!(all.iter().any(|binding| binding.key == "kept"));
}

#[test]
fn a_connection_is_closed_with_a_reason_and_cut_when_it_stays() {
    let mut world = World::new();
    let mut client = world.connect();
    let connection = only_connection(&world);
    let owner = Principal::of_user(connection.user.clone().unwrap());
    world.broker.manage(&owner, "test").close_connection(&connection, "maintenance").unwrap();
    let told = client.events().into_iter().any(|event| {
        matches!(event, Event::Closing { reason, shutdown: false } if &*reason == "maintenance")
    });
    assert!(told);
    world.pass(9_000);
    assert!(!client.outbox.is_evicted());
    world.pass(1_100);
    assert!(client.outbox.is_evicted());
    client.disconnect();
    world.broker.manage(&owner, "test").close_connection(&connection, "again").unwrap();
}

#[test]
fn samples_are_taken_only_while_somebody_asks() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let publish = |client: &mut Client, count: usize| {
        (0..count).for_each(|_| client.publish("", "q", "a"));
    };
    publish(&mut client, 1);
    world.broker.take_samples(world.now());
    assert_eq!(details(&world, "q").recent, []);

    world.broker.watch(world.now());
    publish(&mut client, 10);
    world.pass(5_000);
    world.broker.take_samples(world.now());
    let recent = details(&world, "q").recent;
    let [first, second] = recent.as_slice() else { panic!("{recent:?}") };
    assert_eq!(second.at_ms - first.at_ms, 5_000);
    assert_eq!(second.activity.published - first.activity.published, 10);
    assert_eq!((first.ready, second.ready), (1, 11));
    let span = Span { age_ms: 60_000, step_ms: 5_000 };
    assert_eq!(world.broker.totals(Some(span)).1.len(), 2);

    world.pass(6 * 60 * 1000);
    world.broker.take_samples(world.now());
    assert_eq!(details(&world, "q").recent, []);
    assert_eq!(world.broker.totals(Some(span)).1, Vec::<Sample>::new());
}

#[test]
fn an_exclusive_consumer_is_named() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    assert_eq!(details(&world, "q").exclusive_consumer, None);
    let consume = Consume { tag: "alone".to_owned(), exclusive: true, ..consume_of("q", 1, 0) };
    client.ask(|request: RequestId| Command::Consume(Box::new(Consume { request, ..consume })));
    assert_eq!(details(&world, "q").exclusive_consumer.as_deref(), Some("alone"));
}

#[test]
fn queues_are_listed_by_name_as_they_come_and_go() {
    let world = World::new();
    let mut client = world.connect();
    let names = |world: &World| -> Vec<String> {
        let list = world.broker.queue_lists(Some("/")).unwrap().pop().unwrap();
        assert!(list.names().iter().all(|name| list.queue(name).is_some()));
        list.names().iter().map(|name| name.as_str().to_owned()).collect()
    };
    for queue in ["b", "c", "a"] {
        client.queue(queue);
    }
    assert_eq!(names(&world), ["a", "b", "c"]);
    let before = world.broker.queue_lists(Some("/")).unwrap().pop().unwrap();
    client.ask(|request| Command::DeleteQueue {
        request,
        queue: "b".to_owned(),
        if_unused: false,
        if_empty: false,
    });
    client.queue("B");
    assert_eq!(names(&world), ["B", "a", "c"]);
    assert_eq!(before.names().len(), 3, "a list stays as it was");
    let summary = world.broker.summary(|_| true);
    assert_eq!((summary.queues, summary.is_part), (3, false));
    let nothing = world.broker.summary(|_| false);
    assert_eq!((nothing.queues, nothing.exchanges, nothing.is_part), (0, 0, true));
}

#[test]
fn channels_and_sizes_are_counted() {
    let world = World::new();
    let mut client = world.connect();
    introduce(&mut client, 10);
    client.queue("q");
    for channel in 1..=3 {
        client.ask(|request| Command::OpenChannel { request, channel });
    }
    client.send(Command::CloseChannel { channel: 2 });
    client.publish("", "q", &"x".repeat(101));
    let counters = world.broker.counters();
    let counts = || {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&counters.total.channels_opened), of(&counters.total.channels_closed))
    };
    assert_eq!(counts(), (3, 1));
    assert_eq!(counters.sizes(), [0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let totals = world.broker.connection_totals();
    assert_eq!((totals.connections(), totals.channels, totals.publishers), (1, 2, 1));
    client.disconnect();
    assert_eq!(counts(), (3, 3));
}

/// The sums of the broker are those of its queues.
fn assert_sums(world: &World) {
    let summary = world.broker.summary(|_| true);
    let refs = world.broker.queue_refs(None).unwrap();
    let of = |read: fn(&QueueCounts) -> u64| -> u64 {
        refs.iter().map(|queue| read(&queue.counts())).sum()
    };
    let sums = (summary.sample.ready, summary.sample.unsettled, summary.consumers);
    let consumers = |counts: &QueueCounts| u64::from(counts.consumers);
    assert_eq!(sums, (of(|counts| counts.ready), of(|counts| counts.unsettled), of(consumers)));
    let bytes = (of(|counts| counts.bytes), of(|counts| counts.in_memory));
    assert_eq!((summary.bytes, summary.in_memory), bytes);
    assert_eq!(summary.queues, refs.len() as u64);
}

#[test]
fn sums_are_those_of_the_queues_whatever_happens_to_them() {
    let world = World::new();
    let mut client = world.connect();
    assert_sums(&world);
    for queue in ["a", "b", "c"] {
        client.queue(queue);
        client.publish("", queue, "one");
        client.publish("", queue, "another");
        assert_sums(&world);
    }
    client.consume("a", 1, 1);
    client.events();
    assert_sums(&world);
    client.settle(1, 1, 1, Outcome::Accepted);
    assert_sums(&world);
    client.ask(|request| Command::PurgeQueue { request, queue: "b".to_owned() });
    assert_sums(&world);
    let before = world.broker.totals(None).0.activity;
    let delete = |request| Command::DeleteQueue {
        request,
        queue: "a".to_owned(),
        if_unused: false,
        if_empty: false,
    };
    client.ask(delete);
    assert_sums(&world);
    assert_eq!(world.broker.totals(None).0.activity, before, "what was counted stays counted");
    client.queue("a");
    client.publish("", "a", "again");
    assert_sums(&world);
    client.disconnect();
    assert_sums(&world);
}

#[test]
fn names_of_queues_stay_in_order_whether_few_or_many_change() {
    let world = World::new();
    let mut client = world.connect();
    let assert_order = || {
        let list = world.broker.queue_lists(Some("/")).unwrap().pop().unwrap();
        let refs = world.broker.queue_refs(Some("/")).unwrap();
        let mut names: Vec<_> = refs.iter().map(|queue| queue.name().clone()).collect();
        names.sort_unstable();
        assert_eq!(list.names(), names);
    };
    let delete = |queue: String| {
        move |request| Command::DeleteQueue { request, queue, if_unused: false, if_empty: false }
    };
    assert_order();
    for number in [5, 3, 9, 1, 7] {
        client.queue(&format!("q{number}"));
        assert_order();
    }
    // Between two looks one comes, one goes, and one does both.
    client.ask(delete("q1".to_owned()));
    client.queue("q2");
    client.queue("q8");
    client.ask(delete("q8".to_owned()));
    assert_order();
    (0..1500).for_each(|number| client.queue(&format!("more{number}")));
    assert_order();
}

#[test]
fn bytes_that_consumers_hold_and_what_they_were_sent_are_known() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for body in ["123", "4567"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 0);
    client.events();
    let held = |world: &World| details(world, "q").counts.unsettled_bytes;
    assert_eq!(held(&world), 7);
    client.settle(1, 1, 1, Outcome::Accepted);
    assert_eq!(held(&world), 4);
    let sent = world.broker.queue_ref("/", "q").unwrap().consumers()[0].delivered;
    assert_eq!(sent, 2);
    client.settle(1, 2, 2, Outcome::Returned);
    assert_eq!(held(&world), 4, "it is delivered again");
    client.disconnect();
    assert_eq!((held(&world), details(&world, "q").counts.bytes), (0, 4));
}

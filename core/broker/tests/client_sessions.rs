//! Client sessions, subscriptions, retained messages and wills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_contract::{Command, Event, InFlight, Outcome, RefusalKind};
use polymq_model::{ConsumerId, Limits, NewMessage, RequestId, Seq};
use world::{World, kind_of, message, publish_of, session, topic_subscription, will};

#[test]
fn a_subscription_of_quality_0_is_served_directly() {
    let world = World::new();
    let (mut subscriber, mut publisher) = (world.connect(), world.connect());
    subscriber.open(session("s", true, 0));
    subscriber.subscribe("a/+", 0);
    publisher.publish("amq.topic", "a.b", "m");
    let deliveries = subscriber.deliveries();
    assert_eq!(deliveries[0].consumer, ConsumerId(1));
    assert!(world.broker.queues().is_empty());
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_quality() {
    let world = World::new();
    let (mut subscriber, mut publisher) = (world.connect(), world.connect());
    subscriber.open(session("s", true, 0));
    for (filter, qos, id) in [("a/+", 0, 7), ("a/#", 1, 8)] {
        let mut subscription = topic_subscription(filter, qos);
        subscription.id = Some(id);
        subscriber.subscribe_with(subscription);
    }
    publisher.publish("amq.topic", "a.b", "m");
    let deliveries = subscriber.deliveries();
    assert_eq!(deliveries.len(), 1);
    assert_eq!((deliveries[0].consumer, deliveries[0].matched.qos), (ConsumerId(0), 1));
    let mut ids = deliveries[0].matched.ids.as_slice().to_vec();
    ids.sort_unstable();
    assert_eq!(ids, [7, 8]);
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 0));
    let mut subscription = topic_subscription("a", 0);
    subscription.no_local = true;
    client.subscribe_with(subscription);
    client.publish("amq.topic", "a", "mine");
    assert!(client.bodies().is_empty());
    world.connect().publish("amq.topic", "a", "theirs");
    assert_eq!(client.bodies(), ["theirs"]);
}

#[test]
fn a_session_keeps_messages_while_its_client_is_away_and_over_a_restart() {
    let world = World::new();
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 3600));
    subscriber.subscribe("a", 1);
    subscriber.disconnect();
    world.connect().publish("amq.topic", "a", "m");
    let world = world.restart();
    let mut subscriber = world.connect();
    let opened = subscriber.open(session("s", false, 3600));
    assert!(opened.present);
    assert_eq!(opened.subscriptions.len(), 1);
    assert_eq!(subscriber.bodies(), ["m"]);
    world.connect().publish("amq.topic", "a", "n");
    assert_eq!(subscriber.bodies(), ["n"]);
}

#[test]
fn a_clean_start_forgets_everything() {
    let world = World::new();
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 3600));
    subscriber.subscribe("a", 1);
    subscriber.disconnect();
    world.connect().publish("amq.topic", "a", "m");
    let mut subscriber = world.connect();
    assert!(!subscriber.open(session("s", true, 3600)).present);
    assert!(subscriber.bodies().is_empty());
    assert!(world.broker.queues().is_empty());
}

#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    let mut world = World::new();
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 10));
    subscriber.subscribe("a", 1);
    subscriber.disconnect();
    world.pass(9_999);
    assert_eq!(world.broker.session_counts().0, 1);
    world.pass(1);
    assert_eq!(world.broker.session_counts().0, 0);
    assert!(world.broker.queues().is_empty());
}

#[test]
fn a_second_connection_takes_the_session_over_once_the_first_has_left_it() {
    let world = World::new();
    let (mut first, mut second) = (world.connect(), world.connect());
    first.open(session("s", true, 3600));
    first.subscribe("a", 1);
    world.connect().publish("amq.topic", "a", "m");
    let delivered = first.deliveries();
    let mut open = Box::new(session("s", false, 3600));
    open.request = RequestId(99);
    second.send(Command::OpenClientSession(open));
    assert!(second.events().is_empty());
    assert!(matches!(first.events()[..], [Event::TakenOver]));
    let (packet_id, consumer, seq) = (5, ConsumerId(0), delivered[0].seq);
    let in_flight = InFlight { packet_id, consumer, seq, qos: 2, released: false };
    first.send(Command::CloseClientSession {
        in_flight: vec![in_flight],
        will: true,
        expiry_secs: None,
    });
    let nudged = second.event();
    assert!(nudged.is_none(), "the answer comes after the nudge");
    let answer = second.answer_to(RequestId(99)).expect("an answer").expect("it is granted");
    let polymq_contract::Answer::ClientSession(opened) = answer else { panic!("{answer:?}") };
    assert!(opened.present);
    assert_eq!(opened.in_flight, [in_flight]);
    let again = second.deliveries();
    assert_eq!(again[0].seq, delivered[0].seq);
    assert!(again[0].redelivered);
}

#[test]
fn a_session_of_another_user_cannot_be_taken() {
    let world = World::new();
    world.connect().open(session("s", true, 3600));
    let mut thief = world.connect_as("other");
    let mut open = Some(Box::new(session("s", false, 0)));
    let refused = thief.try_ask(|request| {
        let mut open = open.take().unwrap();
        open.request = request;
        Command::OpenClientSession(open)
    });
    assert_eq!(kind_of(refused), RefusalKind::Denied);
}

#[test]
fn retained_messages_come_after_the_answer_and_survive_a_restart() {
    let world = World::new();
    let mut kept = message("amq.topic", "a.b", "last");
    kept.retain = true;
    world.connect().send(publish_of(kept.build(&mut Vec::new()), 0));
    let world = world.restart();
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 0));
    subscriber.subscribe("+/b", 1);
    let events = subscriber.events();
    assert!(matches!(events[0], Event::Answered { .. }));
    let Event::Delivered(delivery) = &events[1] else { panic!("{events:?}") };
    assert!(delivery.matched.retained);
}

#[test]
fn an_empty_retained_message_removes_the_last_value() {
    let world = World::new();
    for body in ["last", ""] {
        let mut kept = message("amq.topic", "a", body);
        kept.retain = true;
        world.connect().send(publish_of(kept.build(&mut Vec::new()), 0));
    }
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 0));
    subscriber.subscribe("#", 0);
    assert!(subscriber.bodies().is_empty());
}

#[test]
fn a_will_is_published_when_its_delay_has_passed() {
    let mut world = World::new();
    let mut watcher = world.connect();
    watcher.open(session("w", true, 0));
    watcher.subscribe("will", 0);
    let mut client = world.connect();
    let mut open = session("s", true, 3600);
    open.will = will(message("amq.topic", "will", "gone").build(&mut Vec::new()), 5);
    client.open(open);
    client.disconnect();
    world.pass(4_999);
    assert!(watcher.bodies().is_empty());
    world.pass(1);
    assert_eq!(watcher.bodies(), ["gone"]);
}

#[test]
fn coming_back_in_time_cancels_the_will() {
    let mut world = World::new();
    let mut watcher = world.connect();
    watcher.open(session("w", true, 0));
    watcher.subscribe("will", 0);
    let mut client = world.connect();
    let mut open = session("s", true, 3600);
    open.will = will(message("amq.topic", "will", "gone").build(&mut Vec::new()), 5);
    client.open(open);
    client.disconnect();
    world.connect().open(session("s", false, 3600));
    world.pass(10_000);
    assert!(watcher.bodies().is_empty());
}

#[test]
fn unfinished_deliveries_come_again_under_their_positions() {
    let world = World::new();
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 3600));
    subscriber.subscribe("a", 1);
    for body in ["m", "n"] {
        world.connect().publish("amq.topic", "a", body);
    }
    let first: Vec<Seq> = subscriber.deliveries().iter().map(|d| d.seq).collect();
    subscriber.settle(0, 1, 1, Outcome::Accepted);
    subscriber.disconnect();
    let mut subscriber = world.connect();
    subscriber.open(session("s", false, 3600));
    let again: Vec<Seq> = subscriber.deliveries().iter().map(|d| d.seq).collect();
    assert_eq!(again, first[1..]);
}

#[test]
fn received_packet_ids_survive_a_restart_until_released() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 3600));
    for packet_id in [3, 4] {
        let mut command = world::publish("amq.topic", "a", "m", u64::from(packet_id));
        if let Command::Publish(publish) = &mut command {
            publish.received = Some(packet_id);
        }
        client.send(command);
    }
    client.send(Command::ReleaseReceived { request: None, packet_id: 3 });
    let world = world.restart();
    let opened = world.connect().open(session("s", false, 3600));
    assert_eq!(opened.received, [4]);
}

#[test] // MQTT 5, section 3.1.3.2.2: a clean start ends the session, and its will is due.
fn a_clean_start_publishes_the_will_that_waits() {
    let world = World::new();
    let mut watcher = world.connect();
    watcher.open(session("w", true, 0));
    watcher.subscribe("will", 0);
    let mut client = world.connect();
    let mut open = session("s", true, 3600);
    open.will = will(message("amq.topic", "will", "gone").build(&mut Vec::new()), 50);
    client.open(open);
    client.disconnect();
    assert!(watcher.bodies().is_empty());
    world.connect().open(session("s", true, 3600));
    assert_eq!(watcher.bodies(), ["gone"]);
}

#[test] // MQTT 5, [MQTT-3.1.2-10]: a will belongs to one connection.
fn a_will_is_not_published_twice() {
    let world = World::new();
    let mut watcher = world.connect();
    watcher.open(session("w", true, 0));
    watcher.subscribe("will", 0);
    let mut client = world.connect();
    let mut open = session("s", true, 3600);
    open.will = will(message("amq.topic", "will", "gone").build(&mut Vec::new()), 0);
    client.open(open);
    client.disconnect();
    assert_eq!(watcher.bodies(), ["gone"]);
    for clean_start in [false, true] {
        let mut client = world.connect();
        client.open(session("s", clean_start, 3600));
        client.disconnect();
    }
    assert!(watcher.bodies().is_empty());
}

#[test] // MQTT 5, [MQTT-4.1.0-2]
fn a_session_whose_expiry_became_0_ends_for_good() {
    for qos in [0, 1] {
        let world = World::new();
        let mut client = world.connect();
        client.open(session("s", true, 3600));
        client.subscribe("a", qos);
        client.disconnect();
        let mut client = world.connect();
        assert!(client.open(session("s", false, 0)).present);
        client.disconnect();
        let world = world.restart();
        assert!(!world.connect().open(session("s", false, 3600)).present);
        assert!(world.broker.queues().is_empty());
    }
}

#[test] // MQTT 5, [MQTT-4.1.0-2]: a crash is the end of the connection, too.
fn a_session_of_expiry_0_ends_when_the_broker_is_killed() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 3600));
    client.subscribe("a", 1);
    client.disconnect();
    let mut client = world.connect();
    let mut open = session("s", false, 0);
    open.will = will(message("amq.topic", "will", "gone").build(&mut Vec::new()), 50);
    assert!(client.open(open).present);
    let mut world = world.restart();
    let mut watcher = world.connect();
    watcher.open(session("w", true, 0));
    watcher.subscribe("will", 0);
    world.pass(100);
    assert_eq!(world.broker.session_counts().0, 1);
    assert!(world.broker.queues().is_empty());
    assert_eq!(watcher.bodies(), ["gone"]);
}

#[test] // MQTT 5, section 4.1: at most once is for those who are there.
fn messages_of_quality_0_are_not_kept_for_a_client_that_is_away() {
    let world = World::new();
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 3600));
    subscriber.subscribe("a", 1);
    subscriber.disconnect();
    let mut publisher = world.connect();
    for (body, qos) in [("m", 1), ("n", 0), ("o", 1)] {
        let mut sent = message("amq.topic", "a", body);
        (sent.qos, sent.durable) = (qos, qos > 0);
        publisher.send(publish_of(sent.build(&mut Vec::new()), 0));
    }
    let mut subscriber = world.connect();
    subscriber.open(session("s", false, 3600));
    assert_eq!(subscriber.bodies(), ["m", "o"]);
}

#[test] // MQTT 5, [MQTT-4.3.3-7]: what has been sent once no longer expires.
fn expiry_spares_deliveries_that_have_begun() {
    let mut world = World::new();
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 3600));
    subscriber.subscribe("a", 2);
    let mut sent = message("amq.topic", "a", "m");
    sent.deadline_ms = world.now().unix_ms + 1_000;
    world.connect().send(publish_of(sent.build(&mut Vec::new()), 0));
    assert_eq!(subscriber.bodies(), ["m"]);
    subscriber.disconnect();
    world.pass(2_000);
    let world = world.restart();
    let mut subscriber = world.connect();
    subscriber.open(session("s", false, 3600));
    assert_eq!(subscriber.bodies(), ["m"]);
}

#[test] // MQTT 5, [MQTT-4.3.3-9]: after a refusal the same packet id is a new message.
fn a_refused_publish_leaves_no_packet_id_behind() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 3600));
    client.queue_with(
        "q",
        &[
            ("x-max-length", polymq_model::Value::I64(1)),
            ("x-overflow", polymq_model::Value::String("reject-publish".to_owned())),
        ],
    );
    let commands = [1, 2].map(|packet_id: u16| {
        let mut command = world::publish("", "q", "m", u64::from(packet_id));
        if let Command::Publish(publish) = &mut command {
            publish.received = Some(packet_id);
        }
        command
    });
    client.send_all(commands.into());
    client.disconnect();
    let opened = world.connect().open(session("s", false, 3600));
    assert_eq!(opened.received, [1]);
}

#[test]
fn a_session_keeps_as_many_messages_as_the_limit_says() {
    let world = World::with_limits(Limits { session_messages_max: 2, ..Limits::default() });
    let mut subscriber = world.connect();
    subscriber.open(session("s", true, 3600));
    subscriber.subscribe("a", 1);
    subscriber.disconnect();
    for body in ["m", "n", "o"] {
        world.connect().publish("amq.topic", "a", body);
    }
    let mut subscriber = world.connect();
    subscriber.open(session("s", false, 3600));
    assert_eq!(subscriber.bodies(), ["n", "o"]);
}

#[test]
fn a_slow_client_is_spared_messages_of_quality_0() {
    let world = World::with_limits(Limits { direct_bytes_max: 2, ..Limits::default() });
    let mut subscriber = world.connect();
    let mut open = session("s", true, 3600);
    open.receive_max = 1;
    subscriber.open(open);
    subscriber.subscribe("a", 1);
    let mut publisher = world.connect();
    for (body, qos) in [("m", 1), ("n", 1), ("o", 0), ("p", 1), ("q", 0)] {
        let mut sent = message("amq.topic", "a", body);
        (sent.qos, sent.durable) = (qos, qos > 0);
        publisher.send(publish_of(sent.build(&mut Vec::new()), 0));
    }
    assert_eq!(subscriber.bodies(), ["m"]);
    for number in 1..=3 {
        subscriber.settle(0, number, number, Outcome::Accepted);
    }
    assert_eq!(subscriber.bodies(), ["n", "o", "p"]);
}

#[test]
fn subscriptions_survive_a_restart_one_by_one() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 3600));
    for filter in ["a", "b", "c"] {
        client.subscribe(filter, 0);
    }
    client.subscribe("b", 1);
    client.ask(|request| Command::Unsubscribe { request, filter: "a".to_owned() });
    let world = world.restart();
    let mut client = world.connect();
    let opened = client.open(session("s", false, 3600));
    let found: Vec<_> = opened.subscriptions.iter().map(|s| (&s.filter[..], s.qos)).collect();
    assert_eq!(found, [("b", 1), ("c", 0)]);
    for key in ["a", "b", "c"] {
        world.connect().publish("amq.topic", key, key);
    }
    assert_eq!(client.bodies(), ["b", "c"]);
    client.disconnect();
    assert!(!world.connect().open(session("s", true, 3600)).present);
    let world = world.restart();
    assert!(world.connect().open(session("s", false, 3600)).subscriptions.is_empty());
}

fn retained(client: &mut world::Client, key: &str, body: &str) {
    let mut kept = message("amq.topic", key, body);
    kept.retain = true;
    client.send(publish_of(kept.build(&mut Vec::new()), 0));
}

#[test] // MQTT 5, [MQTT-3.3.1-8] to [MQTT-3.3.1-11], [MQTT-3.8.4-4], [MQTT-3.10.4-2]
fn retain_handling_decides_what_a_subscription_is_sent_first() {
    let world = World::new();
    let (mut client, mut publisher) = (world.connect(), world.connect());
    client.open(session("s", true, 0));
    retained(&mut publisher, "a", "kept");
    publisher.publish("amq.topic", "a", "passing");
    let mut subscribe = |handling| {
        let mut subscription = topic_subscription("a", 1);
        subscription.retain_handling = handling;
        client.subscribe_with(subscription);
        client.bodies()
    };
    assert_eq!(subscribe(0), ["kept"]);
    assert_eq!(subscribe(0), ["kept"]);
    assert!(subscribe(1).is_empty());
    assert!(subscribe(2).is_empty());
    client.ask(|request| Command::Unsubscribe { request, filter: "a".to_owned() });
    retained(&mut publisher, "a", "new");
    assert!(client.bodies().is_empty());
    let mut again = topic_subscription("a", 1);
    again.retain_handling = 1;
    client.subscribe_with(again);
    assert_eq!(client.bodies(), ["new"]);
}

#[test] // MQTT 5, [MQTT-3.10.4-3]
fn deliveries_that_have_begun_outlive_their_subscription() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 3600));
    client.subscribe("a", 1);
    world.connect().publish("amq.topic", "a", "m");
    assert_eq!(client.bodies(), ["m"]);
    client.ask(|request| Command::Unsubscribe { request, filter: "a".to_owned() });
    client.disconnect();
    let mut client = world.connect();
    client.open(session("s", false, 3600));
    assert_eq!(client.bodies(), ["m"]);
}

/// A member of the share `$share/g/a`.
fn share(consumer: u32) -> polymq_contract::Subscription {
    let mut subscription = topic_subscription("$share/g/a", 1);
    subscription.target = polymq_contract::SubscriptionTarget::Share {
        queue: "$share/g/a".to_owned(),
        exchange: "amq.topic".to_owned(),
        pattern: "a".to_owned(),
    };
    subscription.consumer = ConsumerId(consumer);
    subscription
}

#[test] // MQTT 5, [MQTT-3.10.4-3]
fn a_member_that_leaves_a_share_finishes_what_it_has_begun() {
    let world = World::new();
    let (mut first, mut second) = (world.connect(), world.connect());
    first.open(session("s", true, 3600));
    second.open(session("t", true, 3600));
    first.subscribe_with(share(2));
    world.connect().publish("amq.topic", "a", "m");
    assert_eq!(first.bodies(), ["m"]);
    second.subscribe_with(share(2));
    first.ask(|request| Command::Unsubscribe { request, filter: "$share/g/a".to_owned() });
    world.connect().publish("amq.topic", "a", "n");
    assert!(first.bodies().is_empty());
    assert_eq!(second.bodies(), ["n"]);
    first.settle(2, 1, 1, Outcome::Accepted);
    first.disconnect();
    assert!(second.bodies().is_empty());
    assert_eq!(world.broker.queues()[0].counts.consumers, 1);
}

#[test] // MQTT 5, section 4.8.2
fn a_share_gives_what_a_lost_member_had_to_another() {
    let world = World::new();
    let (mut first, mut second) = (world.connect(), world.connect());
    first.open(session("s", true, 3600));
    second.open(session("t", true, 3600));
    first.subscribe_with(share(2));
    second.subscribe_with(share(2));
    for body in ["m", "n"] {
        world.connect().publish("amq.topic", "a", body);
    }
    assert_eq!((first.bodies(), second.bodies()), (vec!["m".into()], vec!["n".into()]));
    first.disconnect();
    let again = second.deliveries();
    assert_eq!((world::body_of(&again[0].message), again[0].redelivered), ("m".into(), true));
    second.disconnect();
    world.connect().publish("amq.topic", "a", "o");
    let mut first = world.connect();
    first.open(session("s", false, 3600));
    first.subscribe_with(share(2));
    assert_eq!(first.bodies(), ["m", "n", "o"]);
}

#[test] // [MQTT-3.8.3-3]
fn no_local_covers_retained_messages_and_later_connections() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 3600));
    let retained = |key, body| {
        let message = NewMessage { retain: true, ..message("amq.topic", key, body) };
        publish_of(message.build(&mut Vec::new()), 0)
    };
    client.send(retained("a.mine", "mine"));
    world.connect().send(retained("a.theirs", "theirs"));
    client.disconnect();
    let world = world.restart();
    let mut client = world.connect();
    client.open(session("s", false, 3600));
    let mut subscription = topic_subscription("a/+", 0);
    subscription.no_local = true;
    client.subscribe_with(subscription);
    assert_eq!(client.bodies(), ["theirs"]);
}

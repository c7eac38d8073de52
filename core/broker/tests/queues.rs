//! What queues do, as clients see it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::Principal;
use polymq_contract::{
    CancelReason, Command, Consume, DeliveryRange, Event, Outcome, Publish, PublishOutcome,
    RefusalKind, Settlement, Transaction,
};
use polymq_model::{ConsumerId, Durability, PublisherId, RequestId, UserName, Value, VhostName};
use world::{World, consume_of, declare_queue, kind_of, message, publish, publish_of};

#[test]
fn a_queue_delivers_in_publishing_order() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 0);
    assert_eq!(client.bodies(), ["a", "b", "c"]);
}

#[test]
fn consumers_with_room_get_messages_in_turn() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 0);
    client.consume("q", 2, 0);
    for body in ["a", "b", "c", "d"] {
        client.publish("", "q", body);
    }
    let consumers: Vec<_> = client.deliveries().iter().map(|d| d.consumer.0).collect();
    assert_eq!(consumers, [1, 2, 1, 2]);
}

#[test]
fn prefetch_bounds_what_a_consumer_holds() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 2);
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    assert_eq!(client.bodies(), ["a", "b"]);
    client.settle(1, 1, 1, Outcome::Accepted);
    assert_eq!(client.bodies(), ["c"]);
}

#[test]
fn a_group_bounds_all_its_consumers_together() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.queue("r");
    client.send(Command::SetGroupPrefetch { group: 1, prefetch: 1 });
    client.consume("q", 1, 0);
    client.consume("r", 2, 0);
    client.publish("", "q", "a");
    client.publish("", "r", "b");
    assert_eq!(client.bodies(), ["a"]);
    client.settle(1, 1, 1, Outcome::Accepted);
    assert_eq!(client.bodies(), ["b"]);
}

#[test]
fn a_group_bounds_consumers_of_one_queue_when_several_places_come_free() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for body in ["a", "b", "c", "d", "e", "f"] {
        client.publish("", "q", body);
    }
    client.send(Command::SetGroupPrefetch { group: 1, prefetch: 2 });
    client.consume("q", 1, 0);
    client.consume("q", 2, 0);
    client.deliveries();
    client.settle(1, 1, 2, Outcome::Accepted);
    assert_eq!(client.bodies(), ["c", "d"]);
}

#[test]
fn requeued_message_keeps_its_place() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 2);
    client.deliveries();
    client.settle(1, 1, 2, Outcome::Returned);
    let again = client.deliveries();
    assert_eq!(again.iter().map(|d| world::body_of(&d.message)).collect::<Vec<_>>(), ["a", "b"]);
    assert!(again.iter().all(|d| d.redelivered && d.acquired == 1 && d.failed == 0));
}

#[test]
fn deliveries_of_a_lost_connection_return_as_failed() {
    let world = World::new();
    let mut first = world.connect();
    first.queue("q");
    first.publish("", "q", "a");
    first.consume("q", 1, 0);
    assert_eq!(first.bodies(), ["a"]);
    first.disconnect();
    let mut second = world.connect();
    second.consume("q", 1, 0);
    let again = second.deliveries();
    assert_eq!((again[0].acquired, again[0].failed), (1, 1));
}

#[test]
fn a_rejected_message_is_dead_lettered_with_its_record() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    let to = [
        ("x-dead-letter-exchange", Value::String(String::new())),
        ("x-dead-letter-routing-key", Value::String("dead".into())),
    ];
    client.queue_with("q", &to);
    client.publish("", "q", "a");
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 1, 1, Outcome::Rejected);
    client.consume("dead", 2, 0);
    let letters = client.deliveries();
    let deaths = &letters[0].message.annotations().unwrap().deaths;
    assert_eq!(
        (deaths[0].queue.as_str(), deaths[0].reason.as_str(), deaths[0].count),
        ("q", "rejected", 1)
    );
}

#[test]
fn an_expired_message_is_not_delivered() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I32(100))]);
    client.publish("", "q", "a");
    world.pass(101);
    client.at(&world).consume("q", 1, 0);
    assert!(client.bodies().is_empty());
}

#[test]
fn a_queue_that_nobody_uses_expires() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-expires", Value::I32(100))]);
    world.pass(99);
    assert_eq!(world.broker.queues().len(), 1);
    world.pass(1);
    assert_eq!(world.broker.queues().len(), 0);
}

#[test]
fn drop_head_keeps_the_newest_within_the_length() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I32(2))]);
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 0);
    assert_eq!(client.bodies(), ["b", "c"]);
}

#[test]
fn reject_publish_refuses_what_is_beyond_the_length() {
    let world = World::new();
    let mut client = world.connect();
    let full =
        [("x-max-length", Value::I32(2)), ("x-overflow", Value::String("reject-publish".into()))];
    client.queue_with("q", &full);
    client.send_all((1..=3).map(|n| publish("", "q", "m", n)).collect());
    let outcomes: Vec<_> = client
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Confirmed { first, last, outcome, .. } => Some((first, last, outcome)),
            _ => None,
        })
        .collect();
    let refused = PublishOutcome::Refused(RefusalKind::Full);
    assert_eq!(outcomes, [(1, 2, PublishOutcome::Routed(Durability::Memory)), (3, 3, refused)]);
}

#[test]
fn a_confirm_waits_for_the_disk_and_covers_many_publishes() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.events();
    world.store.faults().delay_replies(true);
    client.send_all((1..=100).map(|n| publish("", "q", "m", n)).collect());
    assert!(client.events().is_empty());
    world.store.release();
    let events = client.events();
    assert!(matches!(events[..], [Event::Confirmed { first: 1, last: 100, .. }]), "{events:?}");
}

#[test]
fn a_transient_publish_is_confirmed_at_once() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.events();
    world.store.faults().delay_replies(true);
    let mut transient = message("", "q", "m");
    transient.durable = false;
    client.send(publish_of(transient.build(&mut Vec::new()), 1));
    assert!(matches!(client.events()[..], [Event::Confirmed { first: 1, last: 1, .. }]));
}

#[test]
fn an_unroutable_message_is_confirmed_and_a_mandatory_one_returned_first() {
    let world = World::new();
    let mut client = world.connect();
    let mut command = publish("amq.direct", "nowhere", "m", 1);
    if let Command::Publish(publish) = &mut command {
        publish.mandatory = true;
    }
    client.events();
    client.send(command);
    let events = client.events();
    let unrouted = PublishOutcome::Unrouted;
    assert!(matches!(events[0], Event::Returned { .. }));
    assert!(matches!(events[1], Event::Confirmed { outcome, .. } if outcome == unrouted));
}

#[test]
fn publishing_to_a_missing_exchange_is_refused() {
    let world = World::new();
    let mut client = world.connect();
    client.events();
    client.publish("nowhere", "k", "m");
    let events = client.events();
    let [Event::PublishRefused { refusal, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(refusal.kind, RefusalKind::NotFound);
}

#[test]
fn redeclaring_with_other_properties_is_refused() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.queue_with("q", &[]);
    let ttl = [("x-message-ttl", Value::I32(5))];
    assert_eq!(kind_of(client.try_ask(|r| declare_queue(r, "q", &ttl))), RefusalKind::Conflict);
}

#[test]
fn integers_of_arguments_compare_by_value() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I32(5))]);
    client.queue_with("q", &[("x-message-ttl", Value::I64(5))]);
}

#[test]
fn an_exclusive_queue_is_locked_for_others_and_ends_with_its_connection() {
    let world = World::new();
    let (mut owner, mut other) = (world.connect(), world.connect());
    owner.ask(|request| exclusive(request, "q"));
    let refused = other.try_ask(|request| exclusive(request, "q"));
    assert_eq!(kind_of(refused), RefusalKind::Locked);
    owner.disconnect();
    assert!(world.broker.queues().is_empty());
}

fn exclusive(request: RequestId, name: &str) -> Command {
    let mut command = declare_queue(request, name, &[]);
    if let Command::DeclareQueue(declare) = &mut command {
        declare.exclusive = true;
    }
    command
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let world = World::new();
    let mut client = world.connect();
    client.ask(|request| {
        let mut command = declare_queue(request, "q", &[]);
        if let Command::DeclareQueue(declare) = &mut command {
            declare.auto_delete = true;
        }
        command
    });
    client.consume("q", 1, 0);
    client.ask(|request| Command::Cancel { request, consumer: ConsumerId(1) });
    assert!(world.broker.queues().is_empty());
}

#[test]
fn a_deleted_queue_tells_its_consumers() {
    let world = World::new();
    let (mut owner, mut other) = (world.connect(), world.connect());
    owner.queue("q");
    other.consume("q", 7, 0);
    other.events();
    owner.ask(|request| Command::DeleteQueue {
        request,
        queue: "q".into(),
        if_unused: false,
        if_empty: false,
    });
    let events = other.events();
    assert!(
        matches!(events[..], [Event::ConsumerCancelled { consumer: ConsumerId(7), .. }]),
        "{events:?}"
    );
}

#[test]
fn a_consumer_is_ended_from_elsewhere_by_its_user_or_an_administrator() {
    let world = World::new();
    let (mut client, vhost) = (world.connect(), VhostName::new("/").unwrap());
    client.ask(|request| {
        let mut command = declare_queue(request, "q", &[]);
        if let Command::DeclareQueue(declare) = &mut command {
            declare.auto_delete = true;
        }
        command
    });
    client.publish("", "q", "held");
    let consume = Consume { tag: "t".to_owned(), ..consume_of("q", 1, 5) };
    client.ask(|request| Command::Consume(Box::new(Consume { request, ..consume })));
    assert_eq!(client.bodies(), ["held"]);
    let consumer = world.broker.consumers(None).unwrap().remove(0);
    let end = |user: &str, tag: &str| {
        let who = Principal::of_user(UserName::new(user).unwrap());
        let meant = (consumer.connection, consumer.channel, tag);
        world.broker.cancel_consumer(&who, (&vhost, "q"), meant, world.now())
    };
    assert_eq!(end("stranger", "t").unwrap_err().kind, RefusalKind::Denied);
    assert_eq!(end("guest", "other").unwrap_err().kind, RefusalKind::NotFound);
    end("guest", "t").unwrap();
    let events = client.events();
    let reason = CancelReason::Administrator;
    let told = Event::ConsumerCancelled { consumer: ConsumerId(1), reason };
    assert_eq!(format!("{events:?}"), format!("{:?}", [told]));
    assert!(world.broker.queues().is_empty(), "nobody uses the queue any more");
}

#[test]
fn queues_bindings_and_messages_survive_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("logs", "topic");
    client.queue("q");
    client.bind("logs", "q", "a.#");
    client.publish("logs", "a.b", "kept");
    client.publish("logs", "a.c", "settled");
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 2, 2, Outcome::Accepted);
    let world = world.restart();
    let mut client = world.connect();
    client.publish("logs", "a.d", "new");
    client.consume("q", 1, 0);
    assert_eq!(client.bodies(), ["kept", "new"]);
}

#[test]
fn a_full_outbox_leaves_messages_in_the_queue_and_room_lets_them_go_on() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.consume("q", 1, 0);
    client.events();
    let body = "x".repeat(100_000);
    for _ in 0..30 {
        client.publish("", "q", &body);
    }
    assert!(client.outbox.bytes() < 2 * 1024 * 1024);
    assert_eq!(client.deliveries().len(), 30);
}

#[test]
fn a_deleted_queue_gives_its_places_of_a_group_back() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.queue("r");
    client.send(Command::SetGroupPrefetch { group: 1, prefetch: 1 });
    client.consume("q", 1, 0);
    client.consume("r", 2, 0);
    client.publish("", "q", "a");
    client.publish("", "r", "b");
    assert_eq!(client.bodies(), ["a"]);
    client.ask(|request| Command::DeleteQueue {
        request,
        queue: "q".to_owned(),
        if_unused: false,
        if_empty: false,
    });
    client.send(Command::Release { consumers: vec![ConsumerId(1)] });
    assert_eq!(client.bodies(), ["b"]);
}

#[test]
fn a_cancelled_consumer_without_deliveries_is_forgotten() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for _ in 0..3 {
        client.consume("q", 1, 0);
        client.ask(|request| Command::Cancel { request, consumer: ConsumerId(1) });
    }
    client.consume("q", 1, 0);
    client.publish("", "q", "a");
    client.ask(|request| Command::Cancel { request, consumer: ConsumerId(1) });
    client.settle(1, 1, 1, Outcome::Returned);
    assert_eq!(client.get("q").as_deref(), Some("a"));
}

#[test]
fn arguments_without_effect_may_differ_when_a_queue_is_declared_again() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I64(1000))]);
    let more = [
        ("x-message-ttl", Value::I32(1000)),
        ("x-anything", Value::Bool(true)),
        ("x-queue-type", Value::String("classic".to_owned())),
    ];
    client.queue_with("q", &more);
}

#[test]
fn a_name_in_the_style_of_the_broker_cannot_be_declared() {
    let world = World::new();
    let mut client = world.connect();
    let refused = client.try_ask(|request| declare_queue(request, "amq.gen-mine", &[]));
    assert_eq!(kind_of(refused), RefusalKind::Reserved);
}

#[test]
fn a_message_that_expires_at_once_reaches_a_waiting_consumer_and_nobody_else() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I64(0))]);
    client.publish("", "q", "too early");
    assert_eq!(client.get("q"), None);
    client.consume("q", 1, 1);
    client.publish("", "q", "in time");
    client.publish("", "q", "beyond the prefetch");
    assert_eq!(client.bodies(), ["in time"]);
    client.settle(1, 1, 1, Outcome::Accepted);
    assert!(client.bodies().is_empty());
}

#[test]
fn a_transaction_with_a_refused_publish_changes_nothing() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "a");
    client.consume("q", 1, 0);
    client.deliveries();
    let publishes = [("", "q", "b"), ("none", "q", "c")].map(|(exchange, key, body)| Publish {
        publisher: PublisherId(1),
        number: 0,
        mandatory: false,
        received: None,
        delay: None,
        message: message(exchange, key, body).build(&mut Vec::new()),
    });
    client.send(Command::Commit(Box::new(Transaction {
        request: RequestId(9),
        publishes: publishes.into(),
        settlements: vec![Settlement {
            consumer: ConsumerId(1),
            deliveries: DeliveryRange { first: 1, last: 1 },
            outcome: Outcome::Accepted,
            note: None,
        }],
    })));
    let events = client.events();
    let refused = |event: &Event| {
        matches!(event, Event::PublishRefused { refusal, .. }
            if refusal.kind == RefusalKind::NotFound)
    };
    assert!(events.iter().any(refused));
    let bodies: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Delivered(delivery) => Some(world::body_of(&delivery.message)),
            _ => None,
        })
        .collect();
    assert_eq!(bodies, ["a"]);
}

#[test]
fn a_commit_is_answered_when_its_settlements_are_durable() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "a");
    client.consume("q", 1, 0);
    client.deliveries();
    // Somebody asks for everything to be written whenever there is something, as a busy broker
    // does.
    let committer = world.broker.committer().clone();
    let kicked = committer.clone();
    committer.set_on_dirty(Box::new(move || kicked.kick()));
    committer.kick();
    world.store.faults().delay_replies(true);
    client.send(Command::Commit(Box::new(Transaction {
        request: RequestId(9),
        publishes: Vec::new(),
        settlements: vec![Settlement {
            consumer: ConsumerId(1),
            deliveries: DeliveryRange { first: 1, last: 1 },
            outcome: Outcome::Accepted,
            note: None,
        }],
    })));
    assert!(client.answer_to(RequestId(9)).is_none(), "the disk has not answered yet");
    world.store.release();
    assert!(client.answer_to(RequestId(9)).is_some());
}

#[test]
fn what_is_beyond_the_length_after_a_return_leaves() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I32(1))]);
    client.publish("", "q", "a");
    client.consume("q", 1, 1);
    assert_eq!(client.bodies(), ["a"]);
    client.publish("", "q", "b");
    client.send(Command::Cancel { request: RequestId(50), consumer: ConsumerId(1) });
    client.settle(1, 1, 1, Outcome::Returned);
    assert_eq!(client.get("q").as_deref(), Some("b"));
    assert_eq!(client.get("q"), None);
}

#[test]
fn a_message_that_fails_too_often_leaves() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    client.queue_with(
        "q",
        &[
            ("x-delivery-limit", Value::I32(1)),
            ("x-dead-letter-exchange", Value::String(String::new())),
            ("x-dead-letter-routing-key", Value::String("dead".into())),
        ],
    );
    client.publish("", "q", "poison");
    client.consume("q", 1, 0);
    for number in 1..=2 {
        assert_eq!(client.bodies(), ["poison"]);
        client.settle(1, number, number, Outcome::Failed);
    }
    assert!(client.bodies().is_empty());
    assert_eq!(client.get("dead").as_deref(), Some("poison"));
}

#[test]
fn arguments_out_of_range_are_refused() {
    let world = World::new();
    let mut client = world.connect();
    for (name, value) in [
        ("x-message-ttl", Value::I64(1 << 40)),
        ("x-expires", Value::I64(1 << 40)),
        ("x-delivery-limit", Value::String("many".into())),
        ("x-delivery-limit", Value::I32(-2)),
        ("x-durability", Value::String("often".into())),
        ("x-durability", Value::String("sync-interval:0".into())),
    ] {
        let arguments = vec![(name.to_owned(), value)];
        let refused = client.try_ask(|request| {
            let declare = declare_queue(request, "q", &[]);
            let Command::DeclareQueue(mut declare) = declare else { panic!("{declare:?}") };
            declare.arguments.clone_from(&arguments);
            Command::DeclareQueue(declare)
        });
        assert_eq!(kind_of(refused), RefusalKind::Invalid, "{name}");
    }
}

#[test]
fn a_confirm_speaks_of_its_own_message() {
    let world = World::new();
    let mut client = world.connect();
    let full =
        [("x-max-length", Value::I32(1)), ("x-overflow", Value::String("reject-publish".into()))];
    client.queue_with("q", &full);
    client.events();
    // Another publisher of the connection, without confirms, is behind it in the same run.
    client.send_all(vec![publish("", "q", "a", 1), publish("", "q", "b", 0)]);
    let routed = PublishOutcome::Routed(Durability::Memory);
    let [Event::Confirmed { first: 1, last: 1, outcome, .. }] = client.events()[..] else {
        panic!("one confirm is expected")
    };
    assert_eq!(outcome, routed);
}

#[test]
fn nothing_happens_behind_a_refused_publish_of_a_channel() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "kept");
    client.events();
    let enter = |publisher| Command::EnterChannel { publisher, channel: publisher.0 };
    let (bad, good) = (PublisherId(1), PublisherId(2));
    let of = |publisher, mut command: Command| {
        if let Command::Publish(publish) = &mut command {
            publish.publisher = publisher;
        }
        command
    };
    client.send_all(vec![
        enter(bad),
        of(bad, publish("none", "q", "refused", 0)),
        of(bad, publish("", "q", "behind", 0)),
        Command::PurgeQueue { request: RequestId(60), queue: "q".to_owned() },
        enter(good),
        of(good, publish("", "q", "of another channel", 0)),
        enter(bad),
        of(bad, publish("", "q", "behind", 0)),
    ]);
    let purged = client.answer_to(RequestId(60)).expect("an answer");
    assert_eq!(kind_of(purged), RefusalKind::Conflict);
    client.send_all(vec![
        Command::LeaveChannel { publisher: bad },
        enter(bad),
        of(bad, publish("", "q", "of a new channel", 0)),
    ]);
    client.consume("q", 1, 0);
    assert_eq!(client.bodies(), ["kept", "of another channel", "of a new channel"]);
}

//! Delayed publishing: what is kept until it is due, and how it leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::ScheduledAt;
use polymq_contract::{Answer, Command, Event, Place, Publish, PublishOutcome, RefusalKind};
use polymq_model::{
    Durability, Message, PublisherId, Value, VhostName, delay::Delay, message::NewMessage,
};
use polymq_store::StoreError;
use world::{Client, World, declare_exchange, message, topic_subscription};

fn delayed(message: Message, delay: Delay) -> Publish {
    Publish {
        publisher: PublisherId(1),
        number: 1,
        mandatory: false,
        received: None,
        delay: Some(delay),
        message,
    }
}

fn send(client: &mut Client, world: &World, key: &str, body: &str, ms: u64) {
    let message = message("", key, body).build(&mut Vec::new());
    client.at(world).send(Command::Publish(delayed(message, Delay::For(ms))));
}

fn vhost() -> VhostName {
    VhostName::new("/").unwrap()
}

fn waiting(world: &World) -> usize {
    world.broker.scheduled_count(&vhost()).unwrap()
}

#[test]
fn a_delayed_message_is_routed_when_it_is_due() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    send(&mut client, &world, "q", "later", 5000);
    client.publish("", "q", "now");
    world.broker.committer().kick();
    world.pass(4999);
    assert_eq!(client.get("q").as_deref(), Some("now"));
    assert_eq!(client.get("q"), None);
    assert_eq!(waiting(&world), 1);
    world.pass(1);
    assert_eq!(client.get("q").as_deref(), Some("later"));
    assert_eq!(waiting(&world), 0);
}

#[test]
fn it_shows_how_long_it_was_delayed_negated() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    send(&mut client, &world, "q", "m", 5000);
    world.pass(5000);
    client.consume("q", 1, 1);
    let delivery = client.deliveries().remove(0);
    let shown = polymq_model::carry::annotation_headers(delivery.message.annotations().unwrap());
    assert_eq!(shown, [("x-delay".to_owned(), Value::I64(-5000))]);
}

#[test]
fn due_messages_leave_in_order_of_due_time_then_of_publishing() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for (body, ms) in [("c", 300), ("a", 100), ("b1", 200), ("b2", 200), ("b3", 200)] {
        send(&mut client, &world, "q", body, ms);
    }
    // Some come from the disk, one from memory.
    world.broker.committer().kick();
    send(&mut client, &world, "q", "a2", 100);
    world.pass(1000);
    let got: Vec<_> = std::iter::from_fn(|| client.get("q")).collect();
    assert_eq!(got, ["a", "a2", "b1", "b2", "b3", "c"]);
}

#[test]
fn thousands_of_due_messages_leave_in_order() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for number in 0..3000_u64 {
        send(&mut client, &world, "q", &number.to_string(), 100 + number % 7);
    }
    world.broker.committer().kick();
    world.pass(1000);
    let got: Vec<_> = std::iter::from_fn(|| client.get("q")).collect();
    let by_due = |remainder| (0..3000_u64).filter(move |number| number % 7 == remainder);
    let wanted: Vec<_> = (0..7).flat_map(by_due).map(|number| number.to_string()).collect();
    assert!(got == wanted);
}

#[test]
fn the_schedule_survives_a_kill() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for (body, ms) in [("soon", 100), ("later", 5000), ("much later", 9000)] {
        send(&mut client, &world, "q", body, ms);
    }
    world.broker.committer().kick();
    world.pass(100);
    assert_eq!(client.get("q").as_deref(), Some("soon"));
    let mut world = world.restart();
    let mut client = world.connect();
    assert_eq!(waiting(&world), 2);
    world.pass(4900);
    assert_eq!(client.get("q").as_deref(), Some("later"));
    // A message published after the restart has a place of its own.
    send(&mut client, &world, "q", "new", 10);
    world.pass(4000);
    assert_eq!(client.get("q").as_deref(), Some("new"));
    assert_eq!(client.get("q").as_deref(), Some("much later"));
    let world = world.restart();
    assert_eq!(waiting(&world), 0);
}

#[test]
fn bindings_of_the_moment_when_it_is_due_count() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.queue("new");
    client.exchange("x", "direct");
    client.bind("x", "q", "k");
    let message = message("x", "k", "m").build(&mut Vec::new());
    client.send(Command::Publish(delayed(message, Delay::For(100))));
    client.bind("x", "new", "k");
    world.pass(100);
    assert_eq!(client.get("q").as_deref(), Some("m"));
    assert_eq!(client.get("new").as_deref(), Some("m"));
}

#[test]
fn a_delayed_message_that_nothing_matches_is_dropped_and_counted() {
    let mut world = World::new();
    let mut client = world.connect();
    send(&mut client, &world, "none", "m", 100);
    world.pass(100);
    let counted = world.broker.counters().total.read();
    assert!(counted.contains(&("delayed_unroutable", 1)), "{counted:?}");
    assert_eq!(waiting(&world), 0);
}

#[test]
fn a_confirm_means_that_the_message_is_kept() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    world.store.faults().delay_replies(true);
    send(&mut client, &world, "q", "m", 100_000);
    assert!(client.events().is_empty());
    world.store.faults().delay_replies(false);
    world.store.release();
    let [Event::Confirmed { first: 1, last: 1, outcome, .. }] = client.events()[..] else {
        panic!("a confirm is expected")
    };
    assert_eq!(outcome, PublishOutcome::Routed(Durability::Memory));
    assert_eq!(waiting(&world.restart()), 1);
}

#[test]
fn whoever_asks_is_told_the_schedule_id() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.send(Command::TellPlaces);
    client.events();
    send(&mut client, &world, "q", "m", 100_000);
    let events = client.events();
    let [Event::Placed { first: 1, last: 1, place, .. }, Event::Confirmed { .. }] = events[..]
    else {
        panic!("{events:?}")
    };
    let views = world.broker.scheduled(&vhost(), None, 2).unwrap();
    assert_eq!(place, Place::Scheduled(views[0].at.id));
}

#[test]
fn mandatory_and_permission_are_checked_at_publish_time() {
    let world = World::new();
    let mut client = world.connect();
    let message = |exchange| message(exchange, "none", "m").build(&mut Vec::new());
    let publish = Publish { mandatory: true, ..delayed(message(""), Delay::For(100)) };
    client.send(Command::Publish(publish));
    let events = client.events();
    assert!(matches!(events[0], Event::Returned { .. }), "{events:?}");
    let unrouted = PublishOutcome::Unrouted;
    assert!(matches!(events[1], Event::Confirmed { outcome, .. } if outcome == unrouted));
    client.send(Command::Publish(delayed(message("missing"), Delay::For(100))));
    let events = client.events();
    let [Event::PublishRefused { refusal, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert_eq!(waiting(&world), 0);
}

#[test]
fn its_expiry_begins_when_it_is_due() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let now_ms = world.now().unix_ms;
    let message =
        NewMessage { deadline_ms: now_ms + 50, arrived_ms: now_ms, ..message("", "q", "m") };
    let message = message.build(&mut Vec::new());
    client.send(Command::Publish(delayed(message.clone(), Delay::For(1000))));
    client.send(Command::Publish(delayed(message, Delay::For(2000))));
    world.pass(1000);
    assert_eq!(client.at(&world).get("q").as_deref(), Some("m"));
    world.pass(1000);
    world.pass(50);
    assert_eq!(client.at(&world).get("q"), None);
}

#[test]
fn a_time_that_is_past_means_now() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let message = message("", "q", "m").build(&mut Vec::new());
    client.send(Command::Publish(delayed(message, Delay::Until(1))));
    world.pass(0);
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

#[test]
fn a_clock_that_jumps_back_holds_nothing_longer() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    send(&mut client, &world, "q", "m", 5000);
    world.jump(-600_000);
    world.pass(4999);
    assert_eq!(client.get("q"), None);
    world.pass(1);
    assert_eq!(client.get("q").as_deref(), Some("m"));
    send(&mut client, &world, "q", "after", 5000);
    world.pass(4999);
    assert_eq!(client.get("q"), None);
    world.pass(1);
    assert_eq!(client.get("q").as_deref(), Some("after"));
}

#[test]
fn a_clock_that_jumps_forward_releases_what_became_due() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    send(&mut client, &world, "q", "m", 5000);
    world.pass(0);
    world.jump(5000);
    world.pass(0);
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

#[test]
fn delayed_messages_are_listed_moved_and_cancelled_by_their_ids() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let start = world.now().unix_ms;
    for (body, ms) in [("a", 1000), ("b", 2000), ("c", 3000)] {
        send(&mut client, &world, "q", body, ms);
    }
    world.broker.committer().kick();
    let list = |world: &World, after| {
        let views = world.broker.scheduled(&vhost(), after, 2).unwrap();
        let shown =
            views.iter().map(|view| (view.at.due_ms - start, world::body_of(&view.message)));
        (shown.collect::<Vec<_>>(), views)
    };
    let (shown, views) = list(&world, None);
    assert_eq!(shown, [(1000, "a".to_owned()), (2000, "b".to_owned())]);
    let (shown, rest) = list(&world, Some(views[1].at));
    assert_eq!(shown, [(3000, "c".to_owned())]);
    let (a, b, c) = (views[0].at, views[1].at, rest[0].at);
    let now = world.now();
    world.broker.move_scheduled(&vhost(), c.id, start + 500, now).unwrap();
    world.broker.cancel_scheduled(&vhost(), a.id).unwrap();
    // What is moved has its new time over a restart, and its id.
    let world = world.restart();
    let (shown, views) = list(&world, None);
    assert_eq!(shown, [(500, "c".to_owned()), (2000, "b".to_owned())]);
    assert_eq!(views[0].at, ScheduledAt { due_ms: start + 500, id: c.id });
    world.broker.move_scheduled(&vhost(), c.id, start + 9000, now).unwrap();
    world.broker.move_scheduled(&vhost(), c.id, start + 9500, now).unwrap();
    world.broker.cancel_scheduled(&vhost(), c.id).unwrap();
    for gone in [a.id, c.id, 99] {
        let refusal = world.broker.cancel_scheduled(&vhost(), gone).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NotFound);
    }
    let world = world.restart();
    assert_eq!(list(&world, None).0, [(2000, "b".to_owned())]);
    assert_eq!(world.broker.scheduled(&vhost(), None, 9).unwrap()[0].at, b);
}

#[test]
fn an_exchange_of_type_x_delayed_message_routes_as_its_delayed_type_says() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let kind = |kind: &str| vec![("x-delayed-type".to_owned(), Value::String(kind.to_owned()))];
    let declare = |client: &mut Client, arguments: Vec<(String, Value)>| {
        client.try_ask(|request| match declare_exchange(request, "x", "x-delayed-message") {
            Command::DeclareExchange(declare) => {
                Command::DeclareExchange(Box::new(polymq_contract::DeclareExchange {
                    arguments,
                    durable: true,
                    ..*declare
                }))
            }
            other => panic!("{other:?}"),
        })
    };
    for wrong in [vec![], kind("x-delayed-message"), kind("none")] {
        assert_eq!(declare(&mut client, wrong).unwrap_err().kind, RefusalKind::Invalid);
    }
    declare(&mut client, kind("topic")).unwrap();
    declare(&mut client, kind("topic")).unwrap();
    let other = declare(&mut client, kind("direct")).unwrap_err();
    assert_eq!(other.kind, RefusalKind::Conflict);
    assert!(other.text.contains("x-delayed-type"), "{}", other.text);
    client.bind("x", "q", "a.#");
    world.broker.committer().kick();
    world = world.restart();
    let mut client = world.connect();
    declare(&mut client, kind("topic")).unwrap();
    let message = message("x", "a.b", "m").build(&mut Vec::new());
    client.send(Command::Publish(delayed(message, Delay::For(100))));
    world.pass(100);
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

#[test]
fn a_subscription_without_local_messages_gets_no_delayed_ones_either() {
    let mut world = World::new();
    let mut client = world.connect();
    client.open(world::session("c", true, 3600));
    let mut subscription = topic_subscription("t", 1);
    subscription.no_local = true;
    client.subscribe_with(subscription);
    let mut other = world.connect();
    for (client, body) in [(&mut client, "mine"), (&mut other, "theirs")] {
        let message = message("amq.topic", "t", body).build(&mut Vec::new());
        client.send(Command::Publish(delayed(message, Delay::For(100))));
    }
    client.events();
    world.pass(100);
    assert_eq!(client.bodies(), ["theirs"]);
}

#[test]
fn a_full_disk_delays_nothing_and_loses_nothing() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    send(&mut client, &world, "q", "kept", 100);
    world.broker.committer().kick();
    client.events();
    world.store.faults().fail_all(Some(StoreError::Full));
    send(&mut client, &world, "q", "refused", 100);
    world.broker.committer().kick();
    send(&mut client, &world, "q", "refused too", 100);
    let outcomes: Vec<_> = client
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Confirmed { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        })
        .collect();
    let failed = PublishOutcome::Refused(RefusalKind::StoreFailed);
    let full = PublishOutcome::Refused(RefusalKind::Full);
    assert_eq!(outcomes, [failed, full]);
    world.pass(100);
    assert_eq!(client.get("q"), None);
    world.store.faults().fail_all(None);
    world.pass(100);
    world.pass(100);
    assert_eq!(client.get("q").as_deref(), Some("kept"));
    assert_eq!(client.get("q"), None);
}

#[test]
fn what_the_store_cannot_read_holds_nothing_up() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    for (body, ms) in [("a", 100), ("b", 200), ("c", 300)] {
        send(&mut client, &world, "q", body, ms);
    }
    world.broker.committer().kick();
    let store: std::sync::Arc<dyn polymq_store::Store> = world.store.clone();
    let opened = polymq_store::wait(|reply| {
        store.open(polymq_store::ShardId(0), polymq_store::OwnerId::default(), reply);
    });
    let opened = opened.unwrap();
    let log = opened.logs.iter().find(|log| log.live_count == 3).unwrap().id;
    let second = polymq_model::Seq(2);
    world.store.faults().damage(Some((log, second, second)));
    let mut world = world.restart();
    let mut client = world.connect();
    world.pass(300);
    let got: Vec<_> = std::iter::from_fn(|| client.get("q")).collect();
    assert_eq!(got, ["a", "c"]);
    world.store.faults().damage(None);
    let mut world = world.restart();
    let mut client = world.connect();
    world.pass(1);
    assert_eq!(client.get("q").as_deref(), Some("b"));
}

#[test]
fn a_reply_to_somebody_who_waits_may_be_delayed() {
    let mut world = World::new();
    let mut asker = world.connect();
    let consume = world::consume_of("amq.rabbitmq.reply-to", 1, 0);
    let answer = asker.ask(|request| {
        Command::Consume(Box::new(polymq_contract::Consume { request, no_ack: true, ..consume }))
    });
    let Answer::Consuming { reply_name: Some(name), .. } = answer else { panic!("{answer:?}") };
    let mut client = world.connect();
    send(&mut client, &world, &name, "answer", 100);
    world.pass(100);
    assert_eq!(asker.bodies(), ["answer"]);
}

#[test]
fn a_message_that_reaches_the_disk_while_others_are_read_from_it_leaves_with_them() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    send(&mut client, &world, "q", "on the disk", 100);
    world.broker.committer().kick();
    world.broker.committer().run_callbacks();
    world.store.faults().delay_replies(true);
    send(&mut client, &world, "q", "in memory", 100);
    world.broker.committer().kick();
    world.store.faults().delay_pages(true);
    world.pass(100);
    world.store.release();
    world.broker.committer().run_callbacks();
    assert!(world.store.faults().release_page(), "the other one was asked for");
    let got: Vec<_> = std::iter::from_fn(|| client.get("q")).collect();
    assert_eq!(got, ["on the disk", "in memory"]);
}

//! SUBSCRIBE and UNSUBSCRIBE.

use polymq_contract::{BindQueue, CancelReason};
use polymq_model::Value;

use super::*;

fn subscribe(headers: &str) -> World {
    let mut world = World::connected("1.2");
    world.send(&format!("SUBSCRIBE\nid:0\nreceipt:r\n{headers}\n\0"));
    world
}

fn refused(headers: &str) -> Said {
    let error = subscribe(headers).error();
    assert_eq!(error.get("receipt-id"), Some("r"));
    error
}

fn binding(world: &World) -> BindQueue {
    let found = world.orders.iter().find_map(|order| match order {
        Command::BindQueue(bind) => Some((**bind).clone()),
        _ => None,
    });
    found.expect("a binding")
}

#[test]
fn queue_is_declared_when_it_is_missing() {
    let mut world = World::connected("1.2");
    world.refuse("declare", RefusalKind::NotFound);
    world.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nreceipt:r\n\n\0");
    assert_eq!(world.receipts(), ["r"]);
    let consume = world.consume();
    assert_eq!((consume.queue.as_str(), consume.no_ack, consume.prefetch), ("q", true, 0));
    let declares = world.declares();
    assert!(declares[0].passive && !declares[1].passive && declares[1].durable);
}

#[test]
fn existing_queue_is_not_declared() {
    let mut world = subscribe("destination:/amq/queue/q\nack:client\nprefetch-count:9\n");
    let consume = world.consume();
    assert_eq!((consume.queue.as_str(), consume.no_ack, consume.prefetch), ("q", false, 9));
    assert!(world.declares().is_empty());
}

#[test]
fn topic_has_a_private_queue_with_a_pattern() {
    for (destination, exchange, key) in [
        ("/topic/a.*.#", "amq.topic", "a.*.#"),
        ("/exchange/x/k", "x", "k"),
        ("/exchange/x", "x", ""),
    ] {
        let mut world = subscribe(&format!("destination:{destination}\n"));
        let bind = binding(&world);
        assert_eq!((bind.exchange.as_str(), bind.key.as_str()), (exchange, key));
        assert_eq!(
            (bind.queue.as_str(), world.consume().queue.as_str()),
            ("amq.gen-1", "amq.gen-1")
        );
        assert_eq!(world.receipts(), ["r"]);
        let declares = world.declares();
        let [made] = &declares[..] else { panic!("{declares:?}") };
        assert!(made.queue.is_empty() && made.exclusive && made.auto_delete && !made.durable);
    }
}

#[test]
fn durable_subscription_has_a_queue_that_its_client_finds_again() {
    let headers = "destination:/topic/t\ndurable:true\nauto-delete:false\n";
    let name = |mut world: World| {
        let declares = world.declares();
        let [made] = &declares[..] else { panic!("{declares:?}") };
        assert!(made.durable && !made.auto_delete && !made.exclusive);
        made.queue.clone()
    };
    let first = name(subscribe(headers));
    assert!(first.starts_with("stomp-subscription-"));
    assert_eq!(first, name(subscribe(headers)));
    assert_ne!(first, name(subscribe("destination:/topic/u\ndurable:true\n")));
    assert_eq!(first, name(subscribe("destination:/topic/t\npersistent:true\n")));
    let named = "destination:/topic/t\ndurable:true\nx-queue-name:mine\n";
    assert_eq!(name(subscribe(named)), "mine");
}

#[test]
fn only_unsubscribe_with_durable_deletes_the_queue() {
    let deleted = |world: &World| {
        world.orders.iter().find_map(|order| match order {
            Command::DeleteQueue { queue, .. } => Some(queue.clone()),
            _ => None,
        })
    };
    let headers = "destination:/topic/t\ndurable:true\n";
    let mut world = subscribe(headers);
    world.send("UNSUBSCRIBE\nid:0\nreceipt:u\n\n\0");
    assert_eq!(world.receipts(), ["r", "u"]);
    assert_eq!(deleted(&world), None);
    let mut world = subscribe(headers);
    world.send("UNSUBSCRIBE\nid:0\ndurable:true\nauto-delete:false\n\n\0");
    assert_eq!(deleted(&world), Some(world.consume().queue));
    let name = world.consume().queue;
    let mut world = World::connected("1.2");
    world.send("UNSUBSCRIBE\nid:0\ndestination:/topic/t\ndurable:true\n\n\0");
    assert_eq!(deleted(&world), Some(name));
    let mut world = subscribe("destination:/queue/q\n");
    world.send("UNSUBSCRIBE\nid:0\ndurable:true\n\n\0");
    assert_eq!(deleted(&world), None, "a queue that others share is no subscription's own");
}

#[test]
fn arguments_go_to_the_queue_and_the_consumer() {
    let mut world = subscribe(
        "destination:/queue/q\nx-max-length:10\nx-priority:5\nx-queue-type:quorum\nother:1\n",
    );
    let text = |name: &str, text: &str| (name.to_owned(), Value::String(text.to_owned()));
    assert_eq!(world.consume().arguments, [text("x-priority", "5")]);
    let declares = world.declares();
    let [made] = &declares[..] else { panic!("{declares:?}") };
    let arguments = [text("x-max-length", "10"), text("x-queue-type", "quorum")];
    assert_eq!(made.arguments, arguments);
    assert!(made.durable && !made.passive);
    let mut world = subscribe("destination:/queue/q\nexclusive:true\nauto-delete:true\n");
    assert!(world.declares()[0].exclusive);
}

#[test]
fn wrong_subscriptions_are_refused() {
    for (headers, message, why) in [
        ("", "malformed frame", "no header 'destination'"),
        ("destination:/queue/q\nack:maybe\n", "invalid argument", "client-individual"),
        ("destination:/queue/q\nselector:a = 1\n", "not available yet", "selectors"),
        ("destination:/queue/q\nprefetch-count:-1\n", "invalid argument", "whole number"),
        ("destination:/queue/q\ndurable:1\n", "invalid argument", "true or false"),
        ("destination:/temp-queue/q\n", "invalid argument", "cannot be subscribed to"),
        ("destination:/reply-queue/q\n", "invalid argument", "cannot be subscribed to"),
        ("destination:/queue/a/b\n", "invalid argument", "%2F"),
    ] {
        let error = refused(headers);
        assert_eq!(error.get("message"), Some(message));
        assert!(error.text().contains(why), "{error:?}");
    }
    for version in ["1.1", "1.2"] {
        let mut world = World::connected(version);
        world.send("SUBSCRIBE\ndestination:/queue/q\n\n\0");
        assert!(world.error().text().contains("no header 'id'"));
    }
}

#[test] // 1.2, SUBSCRIBE id Header.
fn id_is_free_again_after_unsubscribe() {
    let mut world = subscribe("destination:/queue/q\n");
    world.send("UNSUBSCRIBE\nid:0\n\n\0SUBSCRIBE\nid:0\ndestination:/queue/p\nreceipt:2\n\n\0");
    assert_eq!(world.receipts(), ["r", "2"]);
    world.send("SUBSCRIBE\nid:0\ndestination:/queue/q\n\n\0");
    assert!(world.error().text().contains("already"));
    let mut world = World::connected("1.2");
    world.send("UNSUBSCRIBE\nid:7\nreceipt:x\n\n\0");
    assert_eq!(world.error().get("receipt-id"), Some("x"));
}

#[test] // 1.0: subscriptions may have no id.
fn client_of_1_0_names_the_destination() {
    let mut world = World::connected("1.0");
    world.send("SUBSCRIBE\ndestination: /queue/q\n\n\0");
    let consumer = world.consume().consumer;
    world.deliver(consumer, 0, message("", "q", "", b"x"));
    assert_eq!(world.one().get("subscription"), None);
    world.send("UNSUBSCRIBE\ndestination:/queue/q\nreceipt:u\n\n\0");
    assert_eq!(world.receipts(), ["u"]);
}

#[test]
fn refused_steps_end_the_connection() {
    for (step, kind) in [
        ("declare", RefusalKind::Denied),
        ("bind", RefusalKind::NotFound),
        ("consume", RefusalKind::Locked),
    ] {
        let mut world = World::connected("1.2");
        world.refuse(step, kind);
        world.send("SUBSCRIBE\nid:0\nreceipt:r\ndestination:/exchange/x/k\n\n\0");
        let error = world.error();
        assert_eq!(error.get("receipt-id"), Some("r"));
        assert_eq!(error.text(), format!("no {step}"));
    }
}

#[test] // A6
fn subscriptions_have_a_limit() {
    let limits = Limits { destinations_max: 3, ..Limits::default() };
    let mut world = World::with(Settings::default(), limits).connect("1.2");
    for id in 0..4 {
        world.send(&format!("SUBSCRIBE\nid:{id}\ndestination:/topic/t\n\n\0"));
    }
    assert_eq!(world.error().get("message"), Some("limit reached"));
}

#[test]
fn consumer_that_ends_by_itself_is_told() {
    let mut world = subscribe("destination:/queue/q\n");
    let consumer = world.consume().consumer;
    let reason = CancelReason::QueueDeleted;
    world.event(Event::ConsumerCancelled { consumer, reason });
    assert!(world.error().text().contains("subscription '0' has ended: its queue was deleted"));
}

//! Why a message goes where.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::{Explained, PermissionRecord, Step, access::Principal};
use polymq_contract::{BindQueue, Command};
use polymq_model::{Message, UserName, Value, VhostName};
use world::{World, message, with_headers};

fn explain_as(world: &World, user: &str, message: &Message) -> Explained {
    let who = Principal::of_user(UserName::new(user).unwrap());
    let vhost = VhostName::new("/").unwrap();
    world.broker.explain(&who, &vhost, message, false, world.now()).unwrap()
}

fn explain(world: &World, exchange: &str, key: &str) -> Explained {
    explain_as(world, "guest", &message(exchange, key, "m").build(&mut Vec::new()))
}

fn told(steps: &[Step]) -> Vec<String> {
    let one = |step: &Step| {
        let inside = step.children.iter().map(|c| format!("  {} {} {}", c.kind, c.object, c.code));
        let line = format!("{} {} {}", step.kind, step.object, step.outcome);
        std::iter::once(line).chain(inside).collect::<Vec<_>>()
    };
    steps.iter().flat_map(one).collect()
}

#[test]
fn each_binding_says_why_it_matches_or_does_not() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("a");
    client.queue("b");
    client.bind("amq.topic", "a", "orders.*");
    client.bind("amq.topic", "b", "invoices.#");
    let explained = explain(&world, "amq.topic", "orders.eu");
    assert_eq!(explained.queues, ["a"]);
    assert_eq!(
        told(&explained.steps),
        [
            "permission amq.topic allowed",
            "exchange amq.topic matched",
            "  binding a pattern_matches",
            "  binding b pattern_does_not_match",
            "queue a accepted",
        ]
    );
    // Nothing was published.
    assert_eq!(client.get("a"), None);
}

#[test]
fn alternates_and_exchanges_behind_exchanges_are_followed() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("rest");
    client.exchange("second", "fanout");
    client.bind("second", "rest", "");
    client.exchange("third", "direct");
    client.bind_exchange("third", "second", "k");
    let chained = explain(&world, "third", "k");
    assert_eq!(chained.queues, ["rest"]);
    let policy = polymq_broker::PolicyRecord {
        pattern: "third".to_owned(),
        apply_to: polymq_broker::ApplyTo::Exchanges,
        priority: 0,
        definition: vec![("alternate-exchange".to_owned(), Value::String("second".to_owned()))],
    };
    let vhost = VhostName::new("/").unwrap();
    let user = polymq_broker::PolicyKind::User;
    world.broker.put_policy(&vhost, user, "p", policy, world.now()).unwrap();
    let other = explain(&world, "third", "other");
    assert_eq!(
        told(&other.steps),
        [
            "permission third allowed",
            "exchange third no_match",
            "  binding second key_differs",
            "alternate second followed",
            "exchange second matched",
            "  binding rest fanout",
            "queue rest accepted",
        ]
    );
}

#[test]
fn a_queue_that_the_message_makes_is_told() {
    let world = World::new();
    world.broker.serve_mailboxes("d");
    let vhost = VhostName::new("/").unwrap();
    let mailbox = explain(&world, "", "xmpp-mailbox-guest@d/r");
    assert_eq!(mailbox.queues, ["xmpp-mailbox-guest@d"]);
    assert!(explain(&world, "", "xmpp-mailbox-nobody@d").queues.is_empty());
    assert!(explain(&world, "", "new").queues.is_empty());
    let declaring = |user: &str| {
        let who = Principal::of_user(UserName::new(user).unwrap());
        let message = message("", "new", "m").build(&mut Vec::new());
        world.broker.explain(&who, &vhost, &message, true, world.now()).unwrap()
    };
    assert_eq!(declaring("guest").queues, ["new"]);
    let record = PermissionRecord { configure: "^$".to_owned(), ..PermissionRecord::all() };
    let guest = UserName::new("guest").unwrap();
    world.broker.put_permission(vhost.clone(), guest, record, true).unwrap();
    let denied = declaring("guest");
    assert!(denied.queues.is_empty());
    assert_eq!(denied.steps[1].outcome, "denied");
    assert!(world.broker.queues().is_empty(), "nothing was made");
}

#[test]
fn the_header_that_does_not_match_is_named() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("a");
    client.ask(|request| {
        Command::BindQueue(Box::new(BindQueue {
            request,
            queue: "a".to_owned(),
            exchange: "amq.headers".to_owned(),
            key: String::new(),
            arguments: vec![
                ("tenant".to_owned(), Value::I32(1)),
                ("region".to_owned(), Value::String("eu".to_owned())),
            ],
        }))
    });
    let sent = with_headers("amq.headers", "", &[("tenant", Value::I32(1))]);
    let explained = explain_as(&world, "guest", &sent);
    let binding = &explained.steps[1].children[0];
    assert_eq!(binding.code, "header_does_not_match");
    assert!(binding.params.contains(&("header", "region".to_owned())), "{binding:?}");
    assert_eq!(explained.steps.last().unwrap().outcome, "unroutable");
}

#[test]
fn full_queues_and_missing_rights_end_the_way() {
    let world = World::new();
    let mut client = world.connect();
    let one = [
        ("x-max-length", Value::I32(1)),
        ("x-overflow", Value::String("reject-publish".to_owned())),
    ];
    client.queue_with("q", &one);
    client.publish("", "q", "m");
    let explained = explain(&world, "", "q");
    assert_eq!(explained.steps.last().unwrap().code, "queue_full");
    assert_eq!(explain(&world, "", "none").steps[1].children[0].code, "no_queue_of_that_name");
    assert_eq!(explain(&world, "none", "k").steps[0].code, "not_found");

    let vhost = VhostName::new("/").unwrap();
    let record = PermissionRecord { write: String::new(), ..PermissionRecord::all() };
    let user = UserName::new("reader").unwrap();
    world.broker.put_permission(vhost, user, record, false).unwrap();
    let denied = explain_as(&world, "reader", &message("", "q", "m").build(&mut Vec::new()));
    assert_eq!((denied.steps.len(), denied.steps[0].outcome), (1, "denied"));
}

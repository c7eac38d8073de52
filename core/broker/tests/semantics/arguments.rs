//! Sections 3.1 and 3.2: kinds of queues and their arguments.

use polymq_contract::{BindQueue, Command, Consume, RefusalKind};
use polymq_model::Value;

use crate::{
    dead_letters_to, exists, publish_at, ready, text, try_declare, view, with,
    world::{World, kind_of, message, publish_of},
};

#[test]
fn durable_queues_survive_a_restart_with_their_persistent_messages_and_not_the_others() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "persistent");
    let mut transient = message("", "q", "transient");
    transient.durable = false;
    client.send(publish_of(transient.build(&mut Vec::new()), 0));
    let world = world.restart();
    let mut client = world.connect();
    assert_eq!(crate::drain(&mut client, "q"), ["persistent"]);
}

#[test]
fn transient_queues_that_are_not_exclusive_stay_allowed_and_end_with_the_broker() {
    let world = World::new();
    let mut client = world.connect();
    try_declare(&mut client, "q", &[], |declare| declare.durable = false).unwrap();
    client.publish("", "q", "m");
    assert_eq!(client.get("q").as_deref(), Some("m"));
    let world = world.restart();
    assert!(!exists(&world, "q"));
}

#[test]
fn an_empty_name_is_replaced_by_one_of_the_broker() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("");
    client.queue("");
    let names: Vec<_> = world.broker.queues().into_iter().map(|view| view.name).collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.as_str().starts_with("amq.gen-")), "{names:?}");
}

#[test]
fn names_are_at_most_255_bytes() {
    let world = World::new();
    let mut client = world.connect();
    client.queue(&"é".repeat(127));
    let refused = try_declare(&mut client, &"é".repeat(128), &[], |_| ());
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
}

#[test]
fn a_quorum_queue_is_durable_only_and_not_exclusive() {
    let world = World::new();
    let mut client = world.connect();
    let quorum = [("x-queue-type", text("quorum"))];
    client.queue_with("q", &quorum);
    let refused = try_declare(&mut client, "r", &quorum, |declare| declare.durable = false);
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
    let refused = try_declare(&mut client, "r", &quorum, |declare| declare.exclusive = true);
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
}

#[test]
fn a_quorum_queue_has_priorities_0_to_31_with_default_4_and_ignores_x_max_priority() {
    let world = World::new();
    let mut client = world.connect();
    let quorum = [("x-queue-type", text("quorum")), ("x-max-priority", Value::I32(2))];
    client.queue_with("q", &quorum);
    for (body, priority) in
        [("3", Some(3)), ("none", None), ("5", Some(5)), ("40", Some(40)), ("31", Some(31))]
    {
        publish_at(&mut client, "q", body, priority);
    }
    assert_eq!(crate::drain(&mut client, "q"), ["40", "31", "5", "none", "3"]);
}

#[test]
fn a_stream_is_not_available_yet() {
    let world = World::new();
    let mut client = world.connect();
    let refused = try_declare(&mut client, "q", &[("x-queue-type", text("stream"))], |_| ());
    assert_eq!(kind_of(refused), RefusalKind::NotAvailable);
    let refused = try_declare(&mut client, "q", &[("x-overflow", text("block"))], |_| ());
    assert_eq!(kind_of(refused), RefusalKind::NotAvailable);
    let refused = try_declare(&mut client, "q", &[("x-queue-type", text("fancy"))], |_| ());
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
}

#[test]
fn numbers_may_be_any_integer_type_or_decimal_text() {
    let world = World::new();
    let mut client = world.connect();
    for (at, number) in [
        Value::I8(2),
        Value::U8(2),
        Value::I16(2),
        Value::U16(2),
        Value::I32(2),
        Value::U32(2),
        Value::I64(2),
        text("2"),
    ]
    .into_iter()
    .enumerate()
    {
        let queue = format!("q{at}");
        client.queue_with(&queue, &[("x-max-length", number)]);
        for body in ["a", "b", "c"] {
            client.publish("", &queue, body);
        }
        assert_eq!(crate::drain(&mut client, &queue), ["b", "c"], "{queue}");
    }
}

#[test]
fn a_queue_expires_without_consumers_redeclaration_or_get() {
    let mut world = World::new();
    let mut client = world.connect();
    let expires = with(&[("x-expires", Value::I32(100))], &dead_letters_to("dead"));
    client.queue("dead");
    for queue in ["unused", "consumed", "declared", "got"] {
        client.queue_with(queue, &expires);
        client.publish("", queue, "m");
    }
    client.consume("consumed", 1, 1);
    for _ in 0..3 {
        world.pass(60);
        client.at(&world).queue_with("declared", &expires);
        client.get("got");
    }
    assert!(!exists(&world, "unused"));
    assert!(["consumed", "declared", "got"].iter().all(|queue| exists(&world, queue)));
    crate::cancel(&mut client, 1);
    world.pass(100);
    world.pass(100);
    assert!(["consumed", "declared", "got"].iter().all(|queue| !exists(&world, queue)));
    assert_eq!(client.get("dead"), None, "messages of a queue that expires are not dead letters");
}

#[test]
fn the_earlier_of_a_messages_expiry_and_that_of_its_queue_holds() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-message-ttl", Value::I32(100))]);
    crate::publish_for(&world, &mut client, "q", "shorter", 50);
    crate::publish_for(&world, &mut client, "q", "longer", 5_000);
    world.pass(51);
    assert_eq!(view(&world, "q").counts.ready, 1);
    world.pass(50);
    assert_eq!(client.at(&world).get("q"), None);
}

#[test]
fn an_expired_message_leaves_at_the_head_and_counts_until_then() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "head");
    crate::publish_for(&world, &mut client, "q", "behind", 10);
    world.pass(1000);
    assert_eq!(view(&world, "q").counts.ready, 2);
    assert_eq!(client.at(&world).get("q").as_deref(), Some("head"));
    assert_eq!(client.get("q"), None, "what has expired is never got");
    assert_eq!(view(&world, "q").counts.ready, 0);
}

#[test]
fn the_expiry_of_a_queue_is_at_least_1_and_that_of_messages_at_least_0() {
    let world = World::new();
    let mut client = world.connect();
    for (name, wrong, right) in [("x-expires", 0, 1), ("x-message-ttl", -1, 0)] {
        let refused = try_declare(&mut client, name, &[(name, Value::I32(wrong))], |_| ());
        assert_eq!(kind_of(refused), RefusalKind::Invalid);
        client.queue_with(name, &[(name, Value::I32(right))]);
    }
}

#[test]
fn arguments_without_effect_and_unknown_ones_are_accepted() {
    let world = World::new();
    let mut client = world.connect();
    let names = [
        "x-queue-mode",
        "x-queue-version",
        "x-queue-master-locator",
        "x-queue-leader-locator",
        "x-initial-cluster-size",
        "x-quorum-initial-group-size",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-member-placement-tag",
        "x-consumer-disconnected-timeout",
        "x-of-somebody-else",
    ];
    for name in names {
        client.queue_with(name, &[(name, text("anything"))]);
    }
    assert_eq!(world.broker.queues().len(), names.len());
}

#[test] // Sections 1 and 16.
fn planned_features_that_must_not_be_ignored_are_refused_and_counted_by_kind() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let groups = [("x-message-groups", Value::Bool(true))];
    let refusal = try_declare(&mut client, "groups", &groups, |_| ()).expect_err("planned");
    assert_eq!(refusal.kind, RefusalKind::NotAvailable);
    client.queue_with("none", &[("x-message-groups", Value::Bool(false))]);
    let mut consume = crate::world::consume_of("q", 1, 0);
    consume.arguments = vec![("x-selector".to_owned(), text("a = 1"))];
    let refusal = client
        .try_ask(|request| Command::Consume(Box::new(Consume { request, ..consume })))
        .expect_err("planned");
    assert_eq!(refusal.kind, RefusalKind::NotAvailable);
    assert!(refusal.text.contains("x-selector is not available yet"), "{}", refusal.text);
    for argument in [("x-selector", text("a = 1")), ("x-retained", Value::Bool(true))] {
        let (name, value) = argument;
        let refusal = client
            .try_ask(|request| {
                Command::BindQueue(Box::new(BindQueue {
                    request,
                    queue: "q".to_owned(),
                    exchange: "amq.fanout".to_owned(),
                    key: String::new(),
                    arguments: vec![(name.to_owned(), value)],
                }))
            })
            .expect_err("planned");
        assert_eq!(refusal.kind, RefusalKind::NotAvailable);
    }
    client.publish("amq.fanout", "", "m");
    assert_eq!(ready(&world, "q"), 0, "there is no binding that takes everything");
    let counted: Vec<_> =
        world.broker.counters().refusals().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [(RefusalKind::NotAvailable, 4)]);
}

#[test]
fn a_known_argument_with_a_wrong_type_or_range_is_invalid() {
    let world = World::new();
    let mut client = world.connect();
    for (name, value) in [
        ("x-max-length", Value::I32(-1)),
        ("x-max-length", Value::Bool(true)),
        ("x-max-length-bytes", text("much")),
        ("x-max-message-size", Value::I32(-1)),
        ("x-overflow", text("spill")),
        ("x-overflow", Value::I32(1)),
        ("x-dead-letter-exchange", Value::I32(1)),
        ("x-dead-letter-strategy", text("sometimes")),
        ("x-max-priority", Value::I32(256)),
        ("x-max-priority", Value::I32(-1)),
        ("x-single-active-consumer", text("yes")),
        ("x-delivery-limit-counts", text("some")),
        ("x-consumer-timeout", Value::I32(-1)),
        ("x-queue-type", Value::I32(1)),
    ] {
        let refused = try_declare(&mut client, "q", &[(name, value.clone())], |_| ());
        let refusal = refused.expect_err(name);
        assert_eq!(refusal.kind, RefusalKind::Invalid, "{name} {value:?}");
        assert!(refusal.text.contains(name), "{}", refusal.text);
    }
}

#[test]
fn every_wrong_argument_is_told() {
    let world = World::new();
    let mut client = world.connect();
    let wrong = [("x-max-length", Value::I32(-1)), ("x-overflow", text("spill"))];
    let refusal = try_declare(&mut client, "q", &wrong, |_| ()).expect_err("wrong");
    for part in ["x-max-length", "'-1'", "at least 0", "x-overflow", "'spill'", "drop-head"] {
        assert!(refusal.text.contains(part), "{part} in {}", refusal.text);
    }
}

#[test]
fn a_dead_letter_key_without_an_exchange_is_invalid() {
    let world = World::new();
    let mut client = world.connect();
    let refused =
        try_declare(&mut client, "q", &[("x-dead-letter-routing-key", text("k"))], |_| ());
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
}

#[test]
fn a_message_over_x_max_message_size_is_refused_whole() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("small", &[("x-max-message-size", Value::I32(3))]);
    client.queue("any");
    client.exchange("x", "fanout");
    for queue in ["small", "any"] {
        client.bind("x", queue, "");
    }
    client.events();
    client.publish("x", "", "four");
    let events = client.events();
    let [polymq_contract::Event::PublishRefused { refusal, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(refusal.kind, RefusalKind::TooLarge);
    assert!(refusal.text.contains('4') && refusal.text.contains('3'), "{}", refusal.text);
    client.publish("x", "", "abc");
    for queue in ["small", "any"] {
        assert_eq!(crate::drain(&mut client, queue), ["abc"]);
    }
    crate::set_policy(&world, &[("max-message-size", Value::I32(2))]);
    client.publish("", "any", "abc");
    client.publish("", "any", "ab");
    assert_eq!(crate::drain(&mut client, "any"), ["ab"]);
}

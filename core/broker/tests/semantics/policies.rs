//! Section 13: policies and operator policies; section 15: what changes while a queue lives.

use polymq_broker::{ApplyTo, PolicyKind, PolicyRecord};
use polymq_contract::{Outcome, RefusalKind};
use polymq_model::Value;

use crate::{
    dead_letters_to, deaths, drain, exists, policy_on, put_policy, ready, root, set_policy, text,
    view, with,
    world::{Client, World, declare_exchange, publish},
};

const ONE: [(&str, Value); 1] = [("max-length", Value::I32(1))];

fn length(world: &World, client: &mut Client, queue: &str) -> u64 {
    client.send_all((0..20).map(|_| publish("", queue, "m", 0)).collect());
    let length = ready(world, queue);
    drain(client, queue);
    length
}

#[test]
fn the_matching_policy_with_the_highest_priority_applies_and_only_one() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("orders");
    client.queue("others");
    let of = |pattern, priority, definition: &[(&str, Value)]| PolicyRecord {
        priority,
        ..policy_on(pattern, definition)
    };
    let put = |name, record| put_policy(&world, PolicyKind::User, name, record).unwrap();
    put("all", of(".*", 1, &[("max-length", Value::I32(3)), ("expires", Value::I32(100_000))]));
    put("orders", of("^orders$", 7, &[("max-length", Value::I32(5))]));
    assert_eq!(length(&world, &mut client, "others"), 3);
    assert_eq!(length(&world, &mut client, "orders"), 5);
    assert_eq!(view(&world, "orders").policies, (Some("orders".to_owned()), None));
    let mut world = world;
    world.pass(100_000);
    assert!(exists(&world, "orders") && !exists(&world, "others"), "policies are not merged");
}

#[test]
fn apply_to_says_what_a_policy_is_for() {
    for (apply_to, classic, quorum) in [
        (ApplyTo::All, 1, 1),
        (ApplyTo::Queues, 1, 1),
        (ApplyTo::ClassicQueues, 1, 20),
        (ApplyTo::QuorumQueues, 20, 1),
        (ApplyTo::Streams, 20, 20),
        (ApplyTo::Exchanges, 20, 20),
    ] {
        let world = World::new();
        let mut client = world.connect();
        client.queue("c");
        client.queue_with("q", &[("x-queue-type", text("quorum"))]);
        let record = PolicyRecord { apply_to, ..policy_on(".*", &ONE) };
        put_policy(&world, PolicyKind::User, "p", record).unwrap();
        assert_eq!(length(&world, &mut client, "c"), classic, "{apply_to:?}");
        assert_eq!(length(&world, &mut client, "q"), quorum, "{apply_to:?}");
    }
}

#[test]
fn an_argument_wins_over_a_policy_and_for_numbers_the_smaller_value_is_used() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    client.queue("of-the-policy");
    for (queue, max) in [("less", 2), ("more", 9)] {
        let own = [("x-max-length", Value::I32(max)), ("x-overflow", text("drop-head"))];
        client.queue_with(queue, &with(&own, &dead_letters_to("dead")));
    }
    let definition = [
        ("max-length", Value::I32(5)),
        ("overflow", text("reject-publish")),
        ("dead-letter-exchange", text("")),
        ("dead-letter-routing-key", text("of-the-policy")),
    ];
    let record = PolicyRecord { apply_to: ApplyTo::Queues, ..policy_on("less|more", &definition) };
    put_policy(&world, PolicyKind::User, "p", record).unwrap();
    assert_eq!(length(&world, &mut client, "less"), 2);
    assert_eq!(length(&world, &mut client, "more"), 5);
    assert_eq!(ready(&world, "dead"), 18 + 15, "drop-head of the argument, and its dead letters");
    assert_eq!(ready(&world, "of-the-policy"), 0);
}

#[test]
fn an_operator_policy_wins_over_both_by_the_smaller_value() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I32(6)), ("x-overflow", text("drop-head"))]);
    set_policy(&world, &[("max-length", Value::I32(5))]);
    let bound = |max| {
        let definition = [("max-length", Value::I32(max)), ("overflow", text("reject-publish"))];
        put_policy(&world, PolicyKind::Operator, "o", policy_on(".*", &definition)).unwrap();
    };
    bound(3);
    assert_eq!(length(&world, &mut client, "q"), 3);
    bound(9);
    assert_eq!(length(&world, &mut client, "q"), 5, "an upper bound raises nothing");
    for number in 0..6 {
        client.publish("", "q", &number.to_string());
    }
    assert_eq!(client.get("q").as_deref(), Some("0"), "the operator's overflow holds");
    assert_eq!(view(&world, "q").policies, (Some("p".to_owned()), Some("o".to_owned())));
}

#[test]
fn of_delivery_limits_the_stricter_holds() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-delivery-limit", Value::I32(-1))]);
    let record = policy_on(".*", &[("delivery-limit", Value::I32(0))]);
    put_policy(&world, PolicyKind::Operator, "o", record).unwrap();
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 1, 1, Outcome::Failed);
    assert!(client.deliveries().is_empty());
}

#[test]
fn a_change_takes_effect_on_existing_queues_at_once() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    client.queue("q");
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    let set = |world: &World, definition: &[(&str, Value)]| {
        put_policy(world, PolicyKind::User, "p", policy_on("^q$", definition)).unwrap();
    };
    set(&world, &[("max-length", Value::I32(2))]);
    assert_eq!(ready(&world, "q"), 2);
    let to_dead = [("dead-letter-exchange", text("")), ("dead-letter-routing-key", text("dead"))];
    set(&world, &with(&to_dead, &[("message-ttl", Value::I32(50))]));
    world.pass(50);
    assert_eq!((ready(&world, "q"), ready(&world, "dead")), (0, 2));
    set(&world, &[("overflow", text("reject-publish")), ("max-length", Value::I32(1))]);
    for body in ["d", "e"] {
        client.at(&world).publish("", "q", body);
    }
    assert_eq!(drain(&mut client, "q"), ["d"]);
    set(&world, &[("delayed-retry-type", text("all")), ("delayed-retry-min", Value::I32(10))]);
    client.publish("", "q", "f");
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 1, 1, Outcome::Failed);
    assert_eq!(view(&world, "q").counts.delayed, 1);
    crate::cancel(&mut client, 1);
    set(&world, &[("expires", Value::I32(10))]);
    world.pass(10);
    assert!(!exists(&world, "q"));
}

#[test]
fn what_a_policy_said_ends_with_it() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    set_policy(&world, &ONE);
    assert_eq!(length(&world, &mut client, "q"), 1);
    world.broker.remove_policy(&root(), PolicyKind::User, "p", world.now()).unwrap();
    assert_eq!(length(&world, &mut client, "q"), 20);
    let missing = world.broker.remove_policy(&root(), PolicyKind::User, "p", world.now());
    assert_eq!(missing.unwrap_err().kind, RefusalKind::NotFound);
}

#[test]
fn policies_of_both_kinds_survive_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    set_policy(&world, &[("max-length", Value::I32(7))]);
    put_policy(
        &world,
        PolicyKind::Operator,
        "o",
        policy_on(".*", &[("max-length", Value::I32(4))]),
    )
    .unwrap();
    let world = world.restart();
    assert_eq!(length(&world, &mut world.connect(), "q"), 4);
    assert_eq!(world.broker.policies(&root(), PolicyKind::User).unwrap().len(), 1);
    assert_eq!(world.broker.policies(&root(), PolicyKind::Operator).unwrap().len(), 1);
}

#[test]
fn patterns_are_regular_expressions_with_look_around() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("mine");
    client.queue("");
    put_policy(&world, PolicyKind::User, "p", policy_on(r"^(?!amq\.)", &ONE)).unwrap();
    let views = world.broker.queues();
    let generated = views.iter().find(|view| view.name.as_str().starts_with("amq.gen-")).unwrap();
    assert_eq!(length(&world, &mut client, "mine"), 1);
    assert_eq!(length(&world, &mut client, generated.name.as_str()), 20);
}

#[test]
fn a_policy_gives_exchanges_their_alternate() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("rest", "fanout");
    client.queue("q");
    client.bind("rest", "q", "");
    client.ask(|request| declare_exchange(request, "main", "direct"));
    client.publish("main", "k", "before");
    let record = policy_on("^main$", &[("alternate-exchange", text("rest"))]);
    put_policy(&world, PolicyKind::User, "p", record).unwrap();
    client.publish("main", "k", "after");
    assert_eq!(drain(&mut client, "q"), ["after"]);
    let world = world.restart();
    let mut client = world.connect();
    client.publish("main", "k", "restarted");
    assert_eq!(drain(&mut client, "q"), ["restarted"]);
}

#[test]
fn a_wrong_policy_is_refused_as_a_whole_with_every_error_listed() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let definition = [
        ("max-length", Value::I32(1)),
        ("message-ttl", Value::I32(-1)),
        ("overflow", text("spill")),
        ("dead-letter-routing-key", text("k")),
        ("delayed-retry-type", text("all")),
        ("delayed-retry-jitter", Value::I32(7)),
        ("speed", Value::I32(1)),
        ("alternate-exchange", Value::I32(1)),
    ];
    let refusal = put_policy(&world, PolicyKind::User, "p", policy_on("(", &definition));
    let refusal = refusal.expect_err("everything is wrong");
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    for part in [
        "policy 'p'",
        "no regular expression",
        "'message-ttl': '-1'",
        "'overflow': 'spill'",
        "dead-letter-routing-key needs dead-letter-exchange",
        "'delayed-retry-jitter'",
        "'speed'",
        "'alternate-exchange'",
    ] {
        assert!(refusal.text.contains(part), "{part} in {}", refusal.text);
    }
    assert_eq!(length(&world, &mut client, "q"), 20, "nothing of it holds");
}

#[test]
fn a_replaced_policy_that_is_wrong_leaves_the_old_one() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    set_policy(&world, &ONE);
    let wrong = policy_on(".*", &[("max-length", text("many"))]);
    put_policy(&world, PolicyKind::User, "p", wrong).unwrap_err();
    assert_eq!(length(&world, &mut client, "q"), 1);
}

#[test]
fn definitions_of_other_brokers_keep_keys_without_effect() {
    let world = World::new();
    let definition = [
        ("ha-mode", text("all")),
        ("ha-sync-mode", text("automatic")),
        ("queue-mode", text("lazy")),
        ("queue-master-locator", text("min-masters")),
        ("max-length", Value::I32(1)),
    ];
    set_policy(&world, &definition);
    let kept = world.broker.policies(&root(), PolicyKind::User).unwrap();
    assert_eq!(kept[0].1.definition.len(), definition.len());
}

#[test]
fn dead_letters_of_a_policy_keep_the_record_of_the_queue() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    client.queue("q");
    let to_dead = [("dead-letter-exchange", text("")), ("dead-letter-routing-key", text("dead"))];
    put_policy(&world, PolicyKind::User, "p", policy_on("^q$", &to_dead)).unwrap();
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 1, 1, Outcome::Rejected);
    client.consume("dead", 2, 0);
    let letter = client.deliveries().remove(0);
    assert_eq!((deaths(&letter)[0].queue.as_str(), deaths(&letter)[0].count), ("q", 1));
}

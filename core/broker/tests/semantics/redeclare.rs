//! Section 3.2: declaring a queue again.

use polymq_contract::RefusalKind;
use polymq_model::Value;

use crate::{
    text, try_declare,
    world::{World, kind_of},
};

fn every_argument() -> Vec<(&'static str, Value)> {
    vec![
        ("x-consumer-timeout", Value::I32(1000)),
        ("x-dead-letter-exchange", text("dlx")),
        ("x-dead-letter-routing-key", text("k")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-delayed-retry-type", text("all")),
        ("x-delayed-retry-min", Value::I32(10)),
        ("x-delayed-retry-max", Value::I32(100)),
        ("x-delayed-retry-backoff", text("exponential")),
        ("x-delayed-retry-factor", Value::F64(1.5)),
        ("x-delayed-retry-jitter", Value::F64(0.5)),
        ("x-delivery-limit", Value::I32(3)),
        ("x-delivery-limit-counts", text("all")),
        ("x-durability", text("os")),
        ("x-expires", Value::I32(100_000)),
        ("x-max-length", Value::I32(10)),
        ("x-max-length-bytes", Value::I32(1000)),
        ("x-max-message-size", Value::I32(100)),
        ("x-max-priority", Value::I32(3)),
        ("x-message-ttl", Value::I32(1000)),
        ("x-overflow", text("reject-publish")),
        ("x-single-active-consumer", Value::Bool(true)),
    ]
}

#[test]
fn a_queue_with_every_argument_may_be_declared_again_as_it_is_also_after_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &every_argument());
    client.queue_with("q", &every_argument());
    let world = world.restart();
    world.connect().queue_with("q", &every_argument());
}

#[test]
fn each_argument_that_differs_or_is_left_out_is_refused_and_named() {
    let world = World::new();
    let mut client = world.connect();
    let all = every_argument();
    client.queue_with("q", &all);
    for at in 0..all.len() {
        let name = all[at].0;
        let mut fewer = all.clone();
        fewer.remove(at);
        if ["x-dead-letter-exchange", "x-delayed-retry-min"].contains(&name) {
            continue;
        }
        let refusal = try_declare(&mut client, "q", &fewer, |_| ()).expect_err(name);
        assert_eq!(refusal.kind, RefusalKind::Conflict);
        assert!(refusal.text.contains(name), "{name} in {}", refusal.text);
    }
}

#[test]
fn other_properties_are_refused() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let refused = try_declare(&mut client, "q", &[], |declare| declare.durable = false);
    assert_eq!(kind_of(refused), RefusalKind::Conflict);
    let refused = try_declare(&mut client, "q", &[], |declare| declare.auto_delete = true);
    assert_eq!(kind_of(refused), RefusalKind::Conflict);
    let refused = try_declare(&mut client, "q", &[], |declare| declare.exclusive = true);
    assert_eq!(kind_of(refused), RefusalKind::Locked);
}

#[test]
fn integers_compare_by_value() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-max-length", Value::I32(5))]);
    for same in [Value::I64(5), Value::U8(5), text("5")] {
        client.queue_with("q", &[("x-max-length", same)]);
    }
    let refused = try_declare(&mut client, "q", &[("x-max-length", Value::I64(6))], |_| ());
    assert_eq!(kind_of(refused), RefusalKind::Conflict);
}

#[test]
fn a_passive_declaration_looks_at_the_name_only() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &every_argument());
    try_declare(&mut client, "q", &[("x-max-length", Value::I32(-7))], |declare| {
        declare.passive = true;
        declare.durable = false;
    })
    .expect("it is there");
    let refused = try_declare(&mut client, "missing", &[], |declare| declare.passive = true);
    assert_eq!(kind_of(refused), RefusalKind::NotFound);
}

#[test]
fn what_a_policy_says_does_not_count_as_a_difference() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    crate::set_policy(&world, &[("max-length", Value::I32(1))]);
    client.queue("q");
}

#[test]
fn changed_arguments_are_what_a_queue_was_declared_with_also_after_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    let declared = vec![("x-max-length", Value::I32(5)), ("x-max-priority", Value::I32(3))];
    client.queue_with("q", &declared);
    let who = polymq_broker::Principal::of_user(polymq_model::UserName::new("guest").unwrap());
    let root = polymq_model::VhostName::new("/").unwrap();
    let change = [("x-max-length".to_owned(), Some(Value::I32(6)))];
    world.broker.change_queue(&who, (&root, "q"), &change, false, world.now()).unwrap();
    let changed = vec![("x-max-length", Value::I32(6)), ("x-max-priority", Value::I32(3))];
    client.queue_with("q", &changed);
    let fixed = [("x-max-priority".to_owned(), None)];
    let refused = world.broker.change_queue(&who, (&root, "q"), &fixed, false, world.now());
    assert_eq!(refused.unwrap_err().kind, RefusalKind::Conflict);
    drop(client);
    let world = world.restart();
    let mut client = world.connect();
    client.queue_with("q", &changed);
    let old = try_declare(&mut client, "q", &declared, |_| ());
    assert_eq!(kind_of(old), RefusalKind::Conflict);
}

#[test]
fn numbers_and_flags_compare_by_value_with_text_and_text_as_it_is() {
    let world = World::new();
    let mut client = world.connect();
    let all = every_argument();
    client.queue_with("q", &all);
    let as_text: Vec<_> = all
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::I32(number) => text(&number.to_string()),
                Value::F64(number) => text(&number.to_string()),
                Value::Bool(flag) => text(&flag.to_string()),
                other => other.clone(),
            };
            (*name, value)
        })
        .collect();
    client.queue_with("q", &as_text);
    let tenths = |number| Value::Decimal { scale: 1, unscaled: number };
    let others = [("x-delayed-retry-factor", 15), ("x-delayed-retry-jitter", 5)];
    for (name, number) in others {
        let mut again = all.clone();
        again.iter_mut().filter(|(known, _)| *known == name).for_each(|(_, v)| *v = tenths(number));
        client.queue_with("q", &again);
    }
    let key = |key: &str| {
        [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(key))]
    };
    client.queue_with("other", &key("7"));
    let refusal = try_declare(&mut client, "other", &key("07"), |_| ()).expect_err("another key");
    assert_eq!(refusal.kind, RefusalKind::Conflict);
}

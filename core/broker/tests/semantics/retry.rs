//! Section 4.3: messages that come back are held, and leave when they fail too often.

use polymq_contract::{Command, Outcome, RefusalKind};
use polymq_model::{ConsumerId, Value};

use crate::{
    dead_letters_to, deaths, logged, ready, text, try_declare, view, with,
    world::{Client, World, consume_of, kind_of},
};

fn policy(kind: &str, more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let all = [("x-delayed-retry-type", text(kind)), ("x-delayed-retry-min", Value::I32(100))];
    all.iter().chain(more).cloned().collect()
}

/// How long a message that ends each delivery alike is held each time, in ms, as far as 10 ms.
fn delays(arguments: &[(&str, Value)], outcome: Outcome, times: u64) -> Vec<u64> {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", arguments);
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    assert_eq!(client.bodies(), ["m"]);
    let mut delays = Vec::new();
    for number in 1..=times {
        client.at(&world).settle(1, number, number, outcome);
        let mut waited = 0;
        while client.bodies().is_empty() {
            world.pass(10);
            waited += 10;
            assert!(waited < 100_000, "the message comes again");
        }
        delays.push(waited);
    }
    delays
}

#[test]
fn the_linear_delay_is_the_least_times_the_failed_count() {
    assert_eq!(delays(&policy("failed", &[]), Outcome::Failed, 4), [100, 200, 300, 400]);
    let most = [("x-delayed-retry-max", Value::I32(250))];
    assert_eq!(delays(&policy("failed", &most), Outcome::Failed, 4), [100, 200, 250, 250]);
}

#[test]
fn the_exponential_delay_grows_by_the_factor_which_is_2_unless_said() {
    let exponential = [("x-delayed-retry-backoff", text("exponential"))];
    let found = delays(&policy("failed", &exponential), Outcome::Failed, 4);
    assert_eq!(found, [100, 200, 400, 800]);
    let decimal = Value::Decimal { scale: 1, unscaled: 30 };
    for factor in [Value::F64(3.0), Value::F32(3.0), Value::I32(3), text("3.0"), decimal] {
        let by_3 = with(&exponential, &[("x-delayed-retry-factor", factor)]);
        let found = delays(&policy("failed", &by_3), Outcome::Failed, 3);
        assert_eq!(found, [100, 300, 900]);
    }
}

#[test]
fn the_fixed_delay_is_the_least_each_time() {
    let fixed = [("x-delayed-retry-backoff", text("fixed"))];
    assert_eq!(delays(&policy("failed", &fixed), Outcome::Failed, 3), [100, 100, 100]);
}

#[test]
fn the_type_says_which_returns_are_held_back() {
    for (kind, failed, returned) in
        [("disabled", 0, 0), ("failed", 100, 0), ("returned", 0, 100), ("all", 100, 100)]
    {
        let policy = policy(kind, &[]);
        assert_eq!(delays(&policy, Outcome::Failed, 1), [failed], "failed with {kind}");
        assert_eq!(delays(&policy, Outcome::Returned, 1), [returned], "returned with {kind}");
    }
}

#[test]
fn of_plain_returns_the_acquired_count_is_taken() {
    assert_eq!(delays(&policy("all", &[]), Outcome::Returned, 3), [100, 200, 300]);
}

#[test]
fn jitter_takes_away_up_to_its_part() {
    let half =
        [("x-delayed-retry-backoff", text("fixed")), ("x-delayed-retry-jitter", text("0.5"))];
    let found = delays(&policy("failed", &half), Outcome::Failed, 50);
    assert!(found.iter().all(|ms| (50..=100).contains(ms)), "{found:?}");
    assert!(found.iter().any(|ms| *ms < 70) && found.iter().any(|ms| *ms > 80), "{found:?}");
}

#[test]
fn a_held_message_counts_as_delayed_keeps_its_place_and_does_not_block_others() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &policy("failed", &[]));
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 1);
    assert_eq!(client.bodies(), ["a"]);
    client.settle(1, 1, 1, Outcome::Failed);
    assert_eq!(client.bodies(), ["b"]);
    assert_eq!((ready(&world, "q"), view(&world, "q").counts.delayed), (1, 1));
    world.pass(100);
    client.at(&world).settle(1, 2, 2, Outcome::Accepted);
    assert_eq!(client.bodies(), ["a"], "it stands before what was published behind it");
}

#[test]
fn a_held_message_survives_a_restart_and_is_not_delivered_before_its_time() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &policy("failed", &[]));
    for body in ["held", "behind"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 1);
    client.settle(1, 1, 1, Outcome::Failed);
    let mut world = world.restart();
    let mut client = world.connect();
    client.consume("q", 1, 1);
    assert_eq!(client.bodies(), ["behind"]);
    client.settle(1, 1, 1, Outcome::Accepted);
    world.pass(50);
    assert!(client.bodies().is_empty());
    world.pass(50);
    let again = client.deliveries();
    assert_eq!((again.len(), again[0].failed), (1, 1));
}

#[test]
fn purging_takes_held_messages_along() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &policy("failed", &[]));
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.settle(1, 1, 1, Outcome::Failed);
    client.bodies();
    client.ask(|request| Command::PurgeQueue { request, queue: "q".to_owned() });
    world.pass(1000);
    assert!(client.bodies().is_empty());
    assert_eq!(view(&world, "q").counts.delayed, 0);
}

#[test]
fn a_message_leaves_with_reason_delivery_limit_when_the_failed_count_passes_it() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("dead");
    let limit = [("x-delivery-limit", Value::I32(2))];
    client.queue_with("q", &with(&limit, &dead_letters_to("dead")));
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.settle(1, 1, 1, Outcome::Returned);
    for number in 2..=4 {
        assert_eq!(client.deliveries().len(), if number == 2 { 2 } else { 1 });
        client.settle(1, number, number, Outcome::Failed);
    }
    client.consume("dead", 2, 0);
    let letters = client.deliveries();
    assert_eq!((letters.len(), deaths(&letters[0])[0].reason.as_str()), (1, "delivery_limit"));
}

#[test]
fn plain_returns_count_for_the_limit_when_all_count() {
    let world = World::new();
    let mut client = world.connect();
    let all = [("x-delivery-limit", Value::I32(1)), ("x-delivery-limit-counts", text("all"))];
    client.queue_with("q", &all);
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.settle(1, 1, 1, Outcome::Returned);
    assert_eq!(client.deliveries().len(), 2);
    client.settle(1, 2, 2, Outcome::Returned);
    assert!(client.deliveries().is_empty());
}

#[test]
fn the_limit_is_20_for_quorum_queues_none_for_classic_ones_and_none_when_it_is_below_0() {
    let none = ("x-delivery-limit", Value::I32(-1));
    for (arguments, last) in [
        (vec![("x-queue-type", text("quorum"))], Some(21)),
        (vec![("x-queue-type", text("quorum")), none], None),
        (vec![], None),
    ] {
        let world = World::new();
        let mut client = world.connect();
        client.queue_with("q", &arguments);
        client.publish("", "q", "m");
        client.consume("q", 1, 0);
        let left = (1..=100).find(|number| {
            assert_eq!(client.deliveries().len(), 1);
            client.settle(1, *number, *number, Outcome::Failed);
            view(&world, "q").counts.unsettled == 0
        });
        assert_eq!(left, last);
    }
}

#[test]
fn the_log_line_of_a_delivery_limit_names_the_consumer_and_the_number_of_messages() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("orders", &[("x-delivery-limit", Value::I32(0))]);
    let mut consume = consume_of("orders", 1, 0);
    consume.tag = "crasher".to_owned();
    client
        .ask(|request| Command::Consume(Box::new(polymq_contract::Consume { request, ..consume })));
    for _ in 0..3 {
        client.publish("", "orders", "m");
    }
    let lines = logged(|| client.send(Command::Release { consumers: vec![ConsumerId(1)] }));
    assert_eq!(lines.matches("delivery_limit").count(), 1, "{lines}");
    for part in ["orders", "crasher", "messages=3"] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
}

fn fail_often(client: &mut Client, times: u64) {
    for number in 1..=times {
        client.settle(1, number, number, Outcome::Returned);
        client.deliveries();
    }
}

#[test]
fn without_a_policy_a_message_acquired_more_than_1000_times_is_held_for_a_second_each_time() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue("q");
    let mut consume = consume_of("q", 1, 1);
    consume.tag = "looper".to_owned();
    client
        .ask(|request| Command::Consume(Box::new(polymq_contract::Consume { request, ..consume })));
    client.publish("", "q", "m");
    fail_often(&mut client, 999);
    client.settle(1, 1000, 1000, Outcome::Returned);
    assert_eq!(client.deliveries().len(), 1, "1,000 times are not too often");
    let lines = logged(|| client.settle(1, 1001, 1001, Outcome::Returned));
    assert!(lines.contains("hot_loop") && lines.contains("looper"), "{lines}");
    assert!(client.deliveries().is_empty());
    world.pass(999);
    assert!(client.deliveries().is_empty());
    world.pass(1);
    assert_eq!(client.deliveries().len(), 1);
}

#[test]
fn a_policy_without_min_with_a_max_below_it_or_a_factor_of_1_is_invalid() {
    let world = World::new();
    let mut client = world.connect();
    let kind = ("x-delayed-retry-type", text("all"));
    let refused = try_declare(&mut client, "q", std::slice::from_ref(&kind), |_| ());
    assert_eq!(kind_of(refused), RefusalKind::Invalid);
    for (name, wrong) in [
        ("x-delayed-retry-max", Value::I32(99)),
        ("x-delayed-retry-factor", Value::I32(1)),
        ("x-delayed-retry-jitter", Value::F64(1.1)),
        ("x-delayed-retry-backoff", text("random")),
    ] {
        let refused = try_declare(&mut client, "q", &policy("all", &[(name, wrong)]), |_| ());
        assert_eq!(kind_of(refused), RefusalKind::Invalid, "{name}");
    }
}

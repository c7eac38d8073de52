//! Section 4.4: where messages go that die, and what is recorded of it.

use polymq_contract::{Command, Delivery, DeliveryRange, Note, Outcome, Settlement};
use polymq_model::{ConsumerId, Limits, Value};

use crate::{
    counter, dead_letters_to, deaths, drain, exists, logged, publish_for, ready, text, view, with,
    world::{Client, World, body_of, message, publish, publish_of, session},
};

/// The queue `q`, whose dead letters go to the queue `dead`, with a consumer.
fn dying(client: &mut Client, more: &[(&str, Value)]) {
    client.queue("dead");
    client.queue_with("q", &with(more, &dead_letters_to("dead")));
}

fn letters(client: &mut Client) -> Vec<Delivery> {
    client.consume("dead", 90, 0);
    client.deliveries().into_iter().filter(|delivery| delivery.consumer.0 == 90).collect()
}

/// Publishes a message and has a consumer end its delivery.
fn end_one(client: &mut Client, outcome: Outcome) {
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 1, 1, outcome);
}

#[test]
fn each_reason_is_recorded() {
    let reason = |act: &dyn Fn(&mut World, &mut Client)| {
        let mut world = World::new();
        let mut client = world.connect();
        act(&mut world, &mut client);
        let letters = letters(client.at(&world));
        assert_eq!(letters.len(), 1);
        deaths(&letters[0])[0].reason.clone()
    };
    let ends = |outcome| {
        move |_: &mut World, client: &mut Client| {
            dying(client, &[("x-delivery-limit", Value::I32(0))]);
            end_one(client, outcome);
        }
    };
    assert_eq!(reason(&ends(Outcome::Rejected)), "rejected");
    assert_eq!(reason(&ends(Outcome::Failed)), "delivery_limit");
    assert_eq!(reason(&ends(Outcome::TooLarge)), "too_large");
    let expires = |world: &mut World, client: &mut Client| {
        dying(client, &[("x-message-ttl", Value::I32(10))]);
        client.publish("", "q", "m");
        world.pass(10);
    };
    assert_eq!(reason(&expires), "expired");
    let overflows = |_: &mut World, client: &mut Client| {
        dying(client, &[("x-max-length", Value::I32(0))]);
        client.publish("", "q", "m");
    };
    assert_eq!(reason(&overflows), "maxlen");
}

#[test]
fn a_dead_letter_keeps_its_own_key_unless_the_queue_names_one() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("x", "direct");
    client.exchange("dlx", "fanout");
    client.queue("dead");
    client.bind("dlx", "dead", "");
    client.queue_with("q", &[("x-dead-letter-exchange", text("dlx"))]);
    client.bind("x", "q", "k");
    client.publish("x", "k", "m");
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 1, 1, Outcome::Rejected);
    let letters = letters(&mut client);
    let letter = &letters[0].message;
    assert_eq!((letter.exchange(), letter.key()), ("dlx", "k"));
    let record = deaths(&letters[0]);
    assert_eq!(
        (record[0].exchange.as_str(), &record[0].routing_keys[..]),
        ("x", &["k".to_owned()][..])
    );
}

#[test]
fn the_expiry_of_a_message_is_removed_when_it_dies() {
    let mut world = World::new();
    let mut client = world.connect();
    dying(&mut client, &[]);
    publish_for(&world, &mut client, "q", "m", 50);
    world.pass(50);
    let letters = letters(client.at(&world));
    assert_eq!(letters[0].message.deadline_ms(), 0);
    world.pass(100_000);
    assert_eq!(view(&world, "dead").counts.unsettled, 1);
}

#[test]
fn the_record_has_one_entry_per_queue_and_reason_with_a_count_newest_first() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("work", &dead_letters_to("wait"));
    let wait = with(&[("x-message-ttl", Value::I32(10))], &dead_letters_to("work"));
    client.queue_with("wait", &wait);
    client.publish("", "work", "m");
    client.consume("work", 1, 0);
    for number in 1..=3 {
        assert_eq!(client.deliveries().len(), 1);
        client.settle(1, number, number, Outcome::Rejected);
        world.pass(10);
        client.at(&world);
    }
    let delivery = client.deliveries().remove(0);
    let record: Vec<_> = deaths(&delivery)
        .into_iter()
        .map(|death| (death.queue, death.reason, death.count))
        .collect();
    let entry = |queue: &str, reason: &str| (queue.to_owned(), reason.to_owned(), 3);
    assert_eq!(record, [entry("wait", "expired"), entry("work", "rejected")]);
    let annotations = delivery.message.annotations().unwrap();
    let names = |death: &(String, String, String)| (death.0.clone(), death.1.clone());
    let first = annotations.first_death.as_ref().map(names).unwrap();
    let last = annotations.last_death.as_ref().map(names).unwrap();
    assert_eq!(first, ("work".to_owned(), "rejected".to_owned()));
    assert_eq!(last, ("wait".to_owned(), "expired".to_owned()));
}

#[test]
fn a_dead_letter_keeps_both_its_record_and_its_counts_apart() {
    let world = World::new();
    let mut client = world.connect();
    dying(&mut client, &[]);
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    client.settle(1, 1, 1, Outcome::Failed);
    client.deliveries();
    client.settle(1, 2, 2, Outcome::Rejected);
    let letter = letters(&mut client).remove(0);
    assert_eq!((letter.acquired, letter.failed, letter.redelivered), (0, 0, false));
    assert_eq!(deaths(&letter)[0].count, 1);
}

#[test]
fn at_most_once_drops_and_counts_what_nobody_takes() {
    for exchange in ["missing", "amq.direct"] {
        let world = World::new();
        let mut client = world.connect();
        client.queue_with("q", &[("x-dead-letter-exchange", text(exchange))]);
        end_one(&mut client, Outcome::Rejected);
        assert_eq!(counter(&world, "dead_letter_unroutable"), 1, "{exchange}");
        assert_eq!(view(&world, "q").dead_letter_unroutable, 1);
        assert_eq!(view(&world, "q").counts.delayed, 0);
    }
}

#[test]
fn at_least_once_keeps_what_nobody_takes_and_tries_again() {
    let mut world = World::new();
    let mut client = world.connect();
    let once = [("x-dead-letter-strategy", text("at-least-once"))];
    client.queue_with("q", &with(&once, &dead_letters_to("dead")));
    end_one(&mut client, Outcome::Rejected);
    let counts = view(&world, "q").counts;
    assert_eq!((counts.ready, counts.unsettled, counts.delayed), (0, 0, 1));
    client.queue("dead");
    world.pass(1000);
    assert_eq!(view(&world, "q").counts.delayed, 0);
    let letters = letters(client.at(&world));
    assert_eq!((letters.len(), deaths(&letters[0])[0].count), (1, 1));
}

#[test]
fn at_least_once_tries_again_with_the_retry_delays() {
    let mut world = World::new();
    let mut client = world.connect();
    let slow = [
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-delayed-retry-type", text("failed")),
        ("x-delayed-retry-min", Value::I32(5000)),
    ];
    client.queue_with("q", &with(&slow, &dead_letters_to("dead")));
    end_one(&mut client, Outcome::Rejected);
    client.queue("dead");
    world.pass(4999);
    assert_eq!(ready(&world, "dead"), 0);
    world.pass(1);
    assert_eq!(ready(&world, "dead"), 1);
}

#[test]
fn a_dead_letter_that_is_kept_survives_a_restart() {
    let world = World::new();
    let mut client = world.connect();
    let once =
        [("x-dead-letter-strategy", text("at-least-once")), ("x-message-ttl", Value::I32(10))];
    client.queue_with("q", &with(&once, &dead_letters_to("dead")));
    let mut world = world;
    client.publish("", "q", "m");
    world.pass(10);
    assert_eq!(view(&world, "q").counts.delayed, 1);
    let mut world = world.restart();
    let mut client = world.connect();
    client.queue("dead");
    for _ in 0..3 {
        world.pass(1000);
    }
    assert_eq!(drain(client.at(&world), "dead"), ["m"]);
}

#[test]
fn a_dead_letter_that_is_kept_stays_dead_over_a_restart() {
    for (outcome, reason) in [(Outcome::Rejected, "rejected"), (Outcome::Failed, "delivery_limit")]
    {
        let world = World::new();
        let mut client = world.connect();
        let once = [
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-delivery-limit", Value::I32(0)),
        ];
        client.queue_with("q", &with(&once, &dead_letters_to("dead")));
        end_one(&mut client, outcome);
        assert_eq!(view(&world, "q").counts.delayed, 1);
        let mut world = world.restart();
        let mut client = world.connect();
        client.consume("q", 8, 0);
        assert_eq!(client.deliveries().len(), 0, "consumers do not get it again");
        client.queue("dead");
        world.pass(2000);
        client.at(&world).consume("dead", 7, 0);
        let deliveries = client.deliveries();
        assert_eq!(deliveries.len(), 1, "{reason}");
        assert_eq!(deaths(&deliveries[0])[0].reason, reason);
        let counts = view(&world, "q").counts;
        assert_eq!((counts.ready, counts.unsettled, counts.delayed), (0, 0, 0));
    }
}

#[test]
fn a_dead_letter_that_its_only_taker_is_too_slow_for_is_kept() {
    let limits = Limits { direct_bytes_max: 1000, ..Limits::default() };
    let mut world = World::with_limits(limits);
    let mut slow = world.connect();
    slow.open(session("s", true, 0));
    slow.subscribe("dead", 0);
    let in_the_way = "in the way".repeat(100);
    world.connect().publish("amq.topic", "dead", &in_the_way);
    let mut client = world.connect();
    let to = [
        ("x-dead-letter-exchange", text("amq.topic")),
        ("x-dead-letter-routing-key", text("dead")),
        ("x-dead-letter-strategy", text("at-least-once")),
    ];
    client.queue_with("q", &to);
    end_one(&mut client, Outcome::Rejected);
    assert_eq!(view(&world, "q").counts.delayed, 1);
    assert_eq!(slow.bodies(), [&*in_the_way]);
    world.pass(1000);
    assert_eq!(slow.bodies(), ["m"]);
    assert_eq!(view(&world, "q").counts.delayed, 0);
}

#[test]
fn at_least_once_keeps_a_dead_letter_whose_only_target_is_full() {
    let mut world = World::new();
    let mut client = world.connect();
    let full = [("x-max-length", Value::I32(1)), ("x-overflow", text("reject-publish"))];
    client.queue_with("dead", &full);
    client.publish("", "dead", "in the way");
    let once = [("x-dead-letter-strategy", text("at-least-once"))];
    client.queue_with("q", &with(&once, &dead_letters_to("dead")));
    end_one(&mut client, Outcome::Rejected);
    assert_eq!(view(&world, "q").counts.delayed, 1);
    assert_eq!(client.get("dead").as_deref(), Some("in the way"));
    world.pass(1000);
    assert_eq!(client.get("dead").as_deref(), Some("m"));
    assert_eq!(view(&world, "q").counts.delayed, 0);
}

#[test]
fn a_message_that_died_by_maxlen_cannot_be_kept() {
    let world = World::new();
    let mut client = world.connect();
    let once = [("x-dead-letter-strategy", text("at-least-once")), ("x-max-length", Value::I32(0))];
    client.queue_with("q", &with(&once, &dead_letters_to("missing")));
    client.publish("", "q", "m");
    assert_eq!(view(&world, "q").counts.delayed, 0);
    assert_eq!(counter(&world, "dead_letter_unroutable"), 1);
}

#[test]
fn a_message_that_would_enter_a_queue_it_died_in_is_dropped_and_logged_once() {
    let mut world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &with(&[("x-message-ttl", Value::I32(10))], &dead_letters_to("q")));
    let lines = logged(|| {
        for _ in 0..3 {
            client.at(&world).publish("", "q", "m");
            world.pass(10);
        }
    });
    assert_eq!(ready(&world, "q"), 0);
    assert_eq!(lines.matches("dead_letter_cycle").count(), 1, "{lines}");
    assert_eq!(counter(&world, "dead_letter_unroutable"), 3);
}

#[test]
fn a_rejection_in_between_opens_the_circle() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &dead_letters_to("q"));
    client.publish("", "q", "m");
    client.consume("q", 1, 0);
    for number in 1..=5 {
        assert_eq!(client.bodies(), ["m"]);
        client.settle(1, number, number, Outcome::Rejected);
    }
    assert_eq!(deaths(&client.deliveries()[0])[0].count, 5);
}

#[test]
fn dead_letters_enter_each_target_in_the_order_in_which_they_died() {
    let world = World::new();
    let mut client = world.connect();
    dying(&mut client, &[]);
    for number in 1..=5 {
        client.publish("", "q", &number.to_string());
    }
    client.consume("q", 1, 0);
    client.deliveries();
    for number in [4, 1, 5, 2, 3] {
        client.settle(1, number, number, Outcome::Rejected);
    }
    assert_eq!(drain(&mut client, "dead"), ["4", "1", "5", "2", "3"]);
}

#[test]
fn a_dead_letter_is_never_lost_in_between_nor_doubled() {
    let world = World::new();
    let mut client = world.connect();
    dying(&mut client, &[]);
    end_one(&mut client, Outcome::Rejected);
    let world = world.restart();
    let mut client = world.connect();
    assert_eq!(
        (drain(&mut client, "q"), drain(&mut client, "dead")),
        (vec![], vec!["m".to_owned()])
    );
}

#[test]
fn neither_purging_nor_deleting_a_queue_makes_dead_letters() {
    let world = World::new();
    let mut client = world.connect();
    dying(&mut client, &[]);
    client.publish("", "q", "purged");
    client.ask(|request| Command::PurgeQueue { request, queue: "q".to_owned() });
    client.publish("", "q", "deleted");
    crate::delete(&mut client, "q");
    assert!(!exists(&world, "q"));
    assert_eq!(ready(&world, "dead"), 0);
}

#[test]
fn a_dead_letter_keeps_its_priority() {
    let world = World::new();
    let mut client = world.connect();
    let levels = [("x-max-priority", Value::I32(9))];
    client.queue_with("dead", &levels);
    client.queue_with("q", &dead_letters_to("dead"));
    for (body, priority) in [("low", 1), ("high", 7)] {
        let mut new = message("", "q", body);
        new.priority = Some(priority);
        client.send(publish_of(new.build(&mut Vec::new()), 0));
    }
    client.consume("q", 1, 0);
    client.deliveries();
    client.settle(1, 1, 2, Outcome::Rejected);
    let found: Vec<_> = letters(&mut client).iter().map(|d| body_of(&d.message)).collect();
    assert_eq!(found, ["high", "low"]);
}

#[test]
fn the_consumers_own_words_are_kept_in_the_record() {
    let world = World::new();
    let mut client = world.connect();
    dying(&mut client, &[("x-delivery-limit", Value::I32(0))]);
    for body in ["rejected", "failed", "without a word"] {
        client.publish("", "q", body);
    }
    client.consume("q", 1, 0);
    client.deliveries();
    let long = "é".repeat(2000);
    let outcomes = [(Outcome::Rejected, "no such customer"), (Outcome::Failed, &long)];
    for (number, (outcome, detail)) in (1..).zip(outcomes) {
        let deliveries = DeliveryRange { first: number, last: number };
        let note = Note { reason: Some(detail.to_owned()), ..Note::default() };
        let note = Some(Box::new(note));
        client.send(Command::Settle(Settlement {
            consumer: ConsumerId(1),
            deliveries,
            outcome,
            note,
        }));
    }
    client.settle(1, 3, 3, Outcome::Rejected);
    let world = world.restart();
    let found: Vec<_> =
        letters(&mut world.connect()).iter().map(|d| deaths(d)[0].detail.clone()).collect();
    let shortened = "é".repeat(512);
    assert_eq!(found, [Some("no such customer".to_owned()), Some(shortened), None]);
}

#[test]
fn a_dead_letter_stands_behind_what_its_consumer_published_before() {
    let world = World::new();
    let mut client = world.connect();
    dying(&mut client, &[]);
    client.publish("", "q", "dead");
    client.consume("q", 1, 0);
    client.deliveries();
    let deliveries = DeliveryRange { first: 1, last: 1 };
    let outcome = Outcome::Rejected;
    client.send_all(vec![
        publish("", "dead", "published", 0),
        Command::Settle(Settlement::new(ConsumerId(1), deliveries, outcome)),
    ]);
    assert_eq!(drain(&mut client, "dead"), ["published", "dead"]);
}

//! Exchanges that give each message to one binding.

use std::collections::HashMap;

use polymq_contract::RefusalKind;
use polymq_model::Value;

use crate::{
    bind, declare, drain, spread, text, unbind,
    world::{Client, World, kind_of, message, publish_of, with_headers},
};

/// Publishes `count` messages with a key each and returns where each went.
fn places(client: &mut Client, queues: usize, count: usize) -> HashMap<String, usize> {
    for number in 0..count {
        client.publish("x", &format!("key-{number}"), &number.to_string());
    }
    let mut places = HashMap::new();
    for queue in 0..queues {
        for body in drain(client, &format!("q{queue}")) {
            assert_eq!(places.insert(body, queue), None, "a message went to two queues");
        }
    }
    places
}

fn moved(before: &HashMap<String, usize>, after: &HashMap<String, usize>) -> Vec<(usize, usize)> {
    before
        .iter()
        .filter_map(|(key, was)| after.get(key).filter(|is| *is != was).map(|is| (*was, *is)))
        .collect()
}

#[test]
fn a_consistent_hash_gives_each_binding_the_share_of_its_weight() {
    let world = World::new();
    let mut client = world.connect();
    spread(&mut client, "x-consistent-hash", &[], &["1", "2", "5"]);
    let places = places(&mut client, 3, 8000);
    for (queue, share) in [(0, 1000_usize), (1, 2000), (2, 5000)] {
        let count = places.values().filter(|place| **place == queue).count();
        assert!(count.abs_diff(share) < share / 8 + 60, "{count} of {share} in q{queue}");
    }
}

#[test]
fn a_weight_is_a_number_from_1_to_10000() {
    let world = World::new();
    let mut client = world.connect();
    declare(&mut client, "x", "x-consistent-hash", &[]).unwrap();
    client.queue("q");
    for key in ["1", "10000"] {
        bind(&mut client, "x", "q", key, &[]).unwrap();
    }
    for key in ["", "0", "10001", "-1", "1.5", "one"] {
        let refused = bind(&mut client, "x", "q", key, &[]);
        assert_eq!(kind_of(refused), RefusalKind::Invalid, "{key}");
    }
}

#[test]
fn changing_one_weight_moves_only_its_share() {
    let world = World::new();
    let mut client = world.connect();
    spread(&mut client, "x-consistent-hash", &[], &["10"; 10]);
    let before = places(&mut client, 10, 2000);
    bind(&mut client, "x", "q3", "20", &[]).unwrap();
    unbind(&mut client, "x", "q3", "10");
    let heavier = places(&mut client, 10, 2000);
    let gained = moved(&before, &heavier);
    assert!((80..=280).contains(&gained.len()), "{} moved", gained.len());
    assert!(gained.iter().all(|(_, to)| *to == 3));

    unbind(&mut client, "x", "q3", "20");
    let without = places(&mut client, 10, 2000);
    let lost = moved(&heavier, &without);
    assert!(lost.iter().all(|(from, _)| *from == 3));
    assert!(heavier.values().filter(|place| **place == 3).count() == lost.len());

    client.queue("q10");
    bind(&mut client, "x", "q10", "10", &[]).unwrap();
    let with_another = places(&mut client, 11, 2000);
    assert!(moved(&without, &with_another).iter().all(|(_, to)| *to == 10));
}

#[test]
fn hashes_choose_the_same_after_a_restart_whatever_the_order_of_binding() {
    for kind in ["x-consistent-hash", "x-modulus-hash"] {
        let world = World::new();
        let mut client = world.connect();
        spread(&mut client, kind, &[], &["1", "2", "3", "4"]);
        let before = places(&mut client, 4, 200);
        drop(client);
        let world = world.restart();
        let mut client = world.connect();
        assert_eq!(places(&mut client, 4, 200), before, "{kind}");
        for (queue, key) in [("q0", "1"), ("q2", "3")] {
            unbind(&mut client, "x", queue, key);
        }
        for (queue, key) in [("q2", "3"), ("q0", "1")] {
            bind(&mut client, "x", queue, key, &[]).unwrap();
        }
        assert_eq!(places(&mut client, 4, 200), before, "{kind}");
    }
}

#[test]
fn a_consistent_hash_takes_a_header_or_a_property_instead_of_the_key() {
    let world = World::new();
    let mut client = world.connect();
    let cases = [("hash-header", "customer", "customer"), ("hash-property", "message_id", "@id")];
    for (argument, value, header) in cases {
        let name = format!("by-{argument}");
        declare(&mut client, &name, "x-consistent-hash", &[(argument, text(value))]).unwrap();
        for queue in ["a", "b", "c", "d"] {
            client.queue(queue);
            bind(&mut client, &name, queue, "1", &[]).unwrap();
        }
        let mut used = std::collections::BTreeSet::new();
        for customer in 0..20 {
            let mut places = std::collections::BTreeSet::new();
            for (key, sent) in [("k", text(&customer.to_string())), ("l", Value::I32(customer))] {
                // The message id of these tests is text only.
                let sent = if header == "@id" { text(&customer.to_string()) } else { sent };
                client.send(publish_of(with_headers(&name, key, &[(header, sent)]), 0));
                for queue in ["a", "b", "c", "d"] {
                    if !drain(&mut client, queue).is_empty() {
                        places.insert(queue);
                    }
                }
            }
            assert_eq!(places.len(), 1, "customer {customer} by {argument}");
            used.extend(places);
        }
        assert!(used.len() > 1, "all went to one queue");
    }
}

#[test]
fn contradictory_hash_arguments_are_refused() {
    let world = World::new();
    let mut client = world.connect();
    let cases: [&[(&str, Value)]; 5] = [
        &[("hash-header", text("h")), ("hash-property", text("message_id"))],
        &[("hash-property", text("app_id"))],
        &[("hash-property", Value::I32(1))],
        &[("hash-header", text(""))],
        &[("hash-header", Value::I32(1))],
    ];
    for arguments in cases {
        let refused = declare(&mut client, "x", "x-consistent-hash", arguments);
        assert_eq!(kind_of(refused), RefusalKind::Invalid, "{arguments:?}");
    }
    declare(&mut client, "x", "x-consistent-hash", &[("hash-header", text("h"))]).unwrap();
    let differs = declare(&mut client, "x", "x-consistent-hash", &[]);
    assert_eq!(kind_of(differs), RefusalKind::Conflict);
}

#[test]
fn a_random_exchange_gives_each_message_to_one_binding() {
    for kind in ["x-random", "x-local-random"] {
        let world = World::new();
        let mut client = world.connect();
        spread(&mut client, kind, &[], &["", "", ""]);
        for number in 0..300 {
            client.publish("x", "same", &number.to_string());
        }
        let counts = ["q0", "q1", "q2"].map(|queue| drain(&mut client, queue).len());
        assert_eq!(counts.iter().sum::<usize>(), 300);
        assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
    }
}

#[test]
fn further_keys_do_not_give_a_message_to_two_bindings_of_a_hash() {
    let world = World::new();
    let mut client = world.connect();
    spread(&mut client, "x-modulus-hash", &[], &["", "", ""]);
    let keys = (0..20).map(|n| format!("k{n}").into()).collect();
    client.send(publish_of(message("x", "k", "m").build(&mut Vec::new()).with_extra_keys(keys), 0));
    let counts = ["q0", "q1", "q2"].map(|queue| drain(&mut client, queue).len());
    assert_eq!(counts.iter().sum::<usize>(), 1);
}

//! STOMP: the words of ERROR, which names the receipt that was asked for and ends the connection.

use polymq_model::delay::DelayHeaders;

use super::{
    There, a_queue, exclusive_consumer, exclusive_queue, full_queue, hash_exchange,
    internal_exchange, names, nothing, queue_of_small_messages,
};
use crate::{amqp::Amqp, limits::limit_vhost, stomp::Stomp, world::World};

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Header `message` and body of the ERROR that a frame with a receipt ends in.
fn failed(world: &World, act: impl FnOnce(&mut Stomp, Headers<'_>)) -> (String, String) {
    let mut client = Stomp::connect(world);
    act(&mut client, &[("receipt", "r")]);
    let failure = client.failure();
    assert_eq!(failure.get("receipt-id"), Some("r"), "{failure:?}");
    let words = failure.get("message").unwrap().to_owned();
    (words, String::from_utf8(failure.body).unwrap())
}

fn with(there: There) -> World {
    let world = World::new();
    there(&mut Amqp::connect(&world));
    world
}

fn subscribed(world: &World, destination: &str, more: Headers<'_>) -> (String, String) {
    failed(world, |client, receipt| {
        let own = [("id", "1"), ("destination", destination)];
        client.command("SUBSCRIBE", &[&own, receipt, more].concat());
    })
}

/// The body has 4 bytes.
fn sent(world: &World, destination: &str, more: Headers<'_>) -> (String, String) {
    failed(world, |client, receipt| {
        client.send(destination, &[receipt, more].concat(), b"four");
    })
}

#[test]
fn a_subscription_that_cannot_be_is_refused() {
    let rows: [(There, &str, &str, &[&str]); 12] = [
        (exclusive_queue, "/queue/q", "resource locked", &["'q'"]),
        (exclusive_queue, "/amq/queue/q", "resource locked", &["'q'"]),
        (exclusive_consumer, "/queue/q", "access refused", &["'q'"]),
        (exclusive_consumer, "/amq/queue/q", "access refused", &["'q'"]),
        (nothing, "/queue/amq.mine", "access refused", &["'amq.mine'"]),
        (hash_exchange, "/exchange/hash/heavy", "invalid argument", &["'heavy'", "1 to 10000"]),
        (hash_exchange, "/exchange/hash/10001", "invalid argument", &["'10001'"]),
        (nothing, "/topic/#.a.#.b.#", "invalid argument", &[]),
        (nothing, "/temp-queue/q", "invalid argument", &["/temp-queue/q"]),
        (nothing, "/exchange/missing/k", "not found", &["'missing'", "'/'"]),
        (nothing, "/amq/queue/missing", "not found", &["'missing'", "'/'"]),
        (nothing, "/exchange/amq.control/k", "not available yet", &["'amq.control'"]),
    ];
    for (there, destination, wanted, parts) in rows {
        let (words, text) = subscribed(&with(there), destination, &[]);
        assert_eq!(words, wanted, "{destination}: {text}");
        names(&text, parts);
    }
}

#[test]
fn a_message_that_may_not_go_there_is_refused() {
    let rows: [(There, &str, &str, &[&str]); 8] = [
        (internal_exchange, "/exchange/inside/k", "access refused", &["'inside'", "'/'"]),
        (nothing, "/queue/amq.mine", "access refused", &["'amq.mine'"]),
        (nothing, "/exchange/missing/k", "not found", &["'missing'", "'/'"]),
        (nothing, "/exchange/amq.control/k", "not available yet", &["'amq.control'"]),
        (queue_of_small_messages, "/queue/q", "message too large", &["x-max-message-size 3", "4"]),
        (full_queue, "/queue/q", "queue full", &[]),
        (nothing, "/temp-queue/q", "invalid argument", &["/temp-queue/q"]),
        (nothing, "elsewhere", "invalid argument", &["elsewhere"]),
    ];
    for (there, destination, wanted, parts) in rows {
        let (words, text) = sent(&with(there), destination, &[]);
        assert_eq!(words, wanted, "{destination}: {text}");
        names(&text, parts);
    }
}

#[test]
fn a_queue_that_is_there_and_differs_is_a_failed_precondition() {
    let length = [("x-max-length", "1")];
    for refused in [subscribed, sent] {
        let (words, text) = refused(&with(a_queue), "/queue/q", &length);
        assert_eq!(words, "precondition failed");
        names(&text, &["x-max-length", "'q'", "'1'", "none"]);
        let (words, text) = refused(&with(a_queue), "/queue/q", &[("durable", "false")]);
        assert_eq!(words, "precondition failed");
        names(&text, &["durable", "'q'"]);
    }
}

#[test]
fn wrong_arguments_of_queues_are_invalid() {
    for (name, wrong) in [
        ("x-overflow", "spill"),
        ("x-max-length", "-1"),
        ("x-message-ttl", "soon"),
        ("x-expires", "0"),
        ("x-max-priority", "256"),
        ("x-queue-type", "fancy"),
        ("x-dead-letter-routing-key", "k"),
        ("x-delayed-retry-type", "all"),
        ("durable", "perhaps"),
    ] {
        for refused in [subscribed, sent] {
            let (words, text) = refused(&World::new(), "/queue/new", &[(name, wrong)]);
            assert_eq!(words, "invalid argument", "{name}: {text}");
            names(&text, &[name.trim_end_matches("-type")]);
        }
    }
}

#[test]
fn wrong_headers_of_a_subscription_are_invalid() {
    for (name, wrong) in
        [("ack", "perhaps"), ("prefetch-count", "many"), ("x-priority", "high"), ("x-origin", "1")]
    {
        let (words, text) = subscribed(&World::new(), "/queue/new", &[(name, wrong)]);
        assert_eq!(words, "invalid argument", "{name}: {text}");
        names(&text, &[name, &format!("'{wrong}'")]);
    }
}

#[test]
fn wrong_headers_of_a_message_are_invalid() {
    for (name, wrong) in [
        ("expiration", "soon"),
        ("expiration", "-1"),
        ("expires", "1.5"),
        ("x-delay", "soon"),
        ("priority", "256"),
        ("persistent", "perhaps"),
        ("user-id", "u1"),
        ("message-id", "mine"),
    ] {
        let (words, text) = sent(&World::new(), "/topic/t", &[(name, wrong)]);
        assert_eq!(words, "invalid argument", "{name}: {text}");
        names(&text, &[name]);
    }
}

#[test]
fn features_that_are_not_there_yet_are_told_as_that() {
    for (destination, name, value) in [
        ("/queue/new", "x-selector", "a = 1"),
        ("/amq/queue/q", "x-selector", "a = 1"),
        ("/topic/t", "x-selector", "a = 1"),
        ("/topic/t", "selector", "a = 1"),
        ("/queue/new", "x-message-groups", "true"),
        ("/queue/new", "x-queue-type", "stream"),
        ("/queue/new", "x-overflow", "block"),
    ] {
        let (words, text) = subscribed(&with(a_queue), destination, &[(name, value)]);
        assert_eq!(words, "not available yet", "{destination} {name}: {text}");
        names(&text, &[name]);
    }
    for later in DelayHeaders::LATER {
        let (words, text) = sent(&World::new(), "/topic/t", &[(later, "1")]);
        assert_eq!(words, "not available yet", "{later}: {text}");
        names(&text, &[later]);
    }
}

#[test]
fn a_queue_too_many_is_over_the_limit() {
    for destination in ["/queue/second", "/topic/t"] {
        let world = with(a_queue);
        limit_vhost(&world, None, Some(1));
        let (words, text) = subscribed(&world, destination, &[]);
        assert_eq!(words, "limit reached", "{destination}: {text}");
        names(&text, &["queue limit (1)", "'/'"]);
    }
    let world = with(a_queue);
    limit_vhost(&world, None, Some(1));
    assert_eq!(sent(&world, "/queue/second", &[]).0, "limit reached");
}

#[test]
fn what_is_not_there_to_be_settled_or_ended_is_refused() {
    let rows: [(&str, (&str, &str), &str); 5] = [
        ("ACK", ("id", "7"), "invalid argument"),
        ("NACK", ("id", "7"), "invalid argument"),
        ("COMMIT", ("transaction", "7"), "not found"),
        ("ABORT", ("transaction", "7"), "not found"),
        ("UNSUBSCRIBE", ("id", "7"), "not found"),
    ];
    for (command, header, wanted) in rows {
        let (words, text) = failed(&World::new(), |client, receipt| {
            client.command(command, &[&[header], receipt].concat());
        });
        assert_eq!(words, wanted, "{command}: {text}");
        names(&text, &["'7'"]);
    }
}

#[test]
fn a_body_over_the_limit_is_too_large_as_soon_as_it_is_announced() {
    let (words, text) = failed(&World::new(), |client, receipt| {
        let head = [("destination", "/topic/t"), ("content-length", "17825792")];
        client.command("SEND", &[&head, receipt].concat());
    });
    assert_eq!(words, "message too large");
    names(&text, &["16777216", "17825792"]);
}

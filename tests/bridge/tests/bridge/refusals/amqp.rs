//! AMQP 0-9-1: the reply code, and what it closes.

use crate::{
    amqp::{Amqp, Field, Props},
    wire::{put_long, put_short},
    world::World,
};

/// What the server closes with when a fresh client does this; the connection stays unless the code
/// is one of those above 500.
fn closed(act: impl FnOnce(&mut Amqp)) -> (u16, String) {
    let world = World::new();
    let mut client = Amqp::connect(&world);
    closed_for(&mut client, act)
}

fn closed_for(client: &mut Amqp, act: impl FnOnce(&mut Amqp)) -> (u16, String) {
    act(client);
    let (code, text) =
        client.take_closed().expect("the server closes the channel or the connection");
    if code < 500 {
        client.open_channel(2);
        client.expect(20, 11);
    }
    (code, text)
}

fn code(act: impl FnOnce(&mut Amqp)) -> u16 {
    closed(act).0
}

/// The arguments of a method that begin with two bytes that mean nothing.
fn arguments(texts: &[&str], behind: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for text in texts {
        put_short(&mut out, text.as_bytes());
    }
    out.extend_from_slice(behind);
    out
}

fn with_table(texts: &[&str], flags: u8) -> Vec<u8> {
    let mut out = arguments(texts, &[flags]);
    put_long(&mut out, &[]);
    out
}

fn get(client: &mut Amqp, queue: &str) {
    client.method(1, 60, 70, &arguments(&[queue], &[0]));
}

fn consume(client: &mut Amqp, queue: &str, flags: u8) {
    client.method(1, 60, 20, &with_table(&[queue, queue], flags));
}

fn exclusive_queue(client: &mut Amqp, queue: &str) {
    client.method(1, 50, 10, &with_table(&[queue], 0b0_0100));
    client.expect(50, 11);
}

fn publish(client: &mut Amqp, exchange: &str, key: &str, props: &Props) {
    client.publish_raw(exchange, key, &props.encode(), b"m");
}

#[test]
fn unknown_exchange_types_and_wrong_arguments_of_exchanges_and_bindings_are_406() {
    assert_eq!(code(|c| c.ask_for_exchange("x", "fancy", &[])), 406);
    let alternate = [("alternate-exchange", Field::I32(1))];
    assert_eq!(code(|c| c.ask_for_exchange("x", "direct", &alternate)), 406);
    let bind = |kind: &'static str, key: &'static str, wrong: Vec<(&'static str, Field)>| {
        code(move |client| {
            client.declare("q");
            client.declare_exchange("x", kind);
            client.ask_to_bind("q", "x", key, &wrong);
        })
    };
    assert_eq!(bind("x-consistent-hash", "heavy", vec![]), 406);
    assert_eq!(bind("topic", "#.a.#.b.#", vec![]), 406);
    assert_eq!(bind("headers", "", vec![("x-match", Field::text("most"))]), 406);
    assert_eq!(bind("topic", "a.#", vec![("x-topic-syntax", Field::text("regex"))]), 406);
}

#[test]
fn other_properties_and_conditions_that_do_not_hold_are_406() {
    let (code_of_queue, text) = closed(|client| {
        client.declare("q");
        client.ask_for_queue("q", &[("x-max-length", Field::I32(1))]);
    });
    assert_eq!(code_of_queue, 406);
    for part in ["x-max-length", "'q'", "'1'", "none"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let again = code(|client| {
        client.declare_exchange("x", "direct");
        client.ask_for_exchange("x", "topic", &[]);
    });
    assert_eq!(again, 406);
    let if_unused = code(|client| {
        client.declare("q");
        client.consume("q");
        client.method(1, 50, 40, &arguments(&["q"], &[0b001]));
    });
    assert_eq!(if_unused, 406);
    let if_empty = code(|client| {
        client.declare("q");
        client.publish("", "q", &Props::default(), b"m");
        client.method(1, 50, 40, &arguments(&["q"], &[0b010]));
    });
    assert_eq!(if_empty, 406);
    let bound = code(|client| {
        client.declare("q");
        client.declare_exchange("x", "direct");
        client.bind("q", "x", "k");
        client.method(1, 40, 20, &arguments(&["x"], &[0b01]));
    });
    assert_eq!(bound, 406);
}

#[test]
fn transactions_and_confirms_exclude_each_other_with_406() {
    let confirm_on_tx = code(|client| {
        client.method(1, 90, 10, &[]);
        client.expect(90, 11);
        client.method(1, 85, 10, &[0]);
    });
    let tx_on_confirm = code(|client| {
        client.method(1, 85, 10, &[0]);
        client.expect(85, 11);
        client.method(1, 90, 10, &[]);
    });
    let commit_without_tx = code(|client| client.method(1, 90, 20, &[]));
    let rollback_without_tx = code(|client| client.method(1, 90, 30, &[]));
    assert_eq!(
        [confirm_on_tx, tx_on_confirm, commit_without_tx, rollback_without_tx],
        [406, 406, 406, 406]
    );
}

#[test]
fn the_exclusive_queue_of_another_connection_is_405() {
    let requests: [fn(&mut Amqp); 4] = [
        |client| client.ask_for_queue("q", &[]),
        |client| get(client, "q"),
        |client| consume(client, "q", 0),
        |client| client.method(1, 50, 30, &arguments(&["q"], &[0])),
    ];
    for request in requests {
        let world = World::new();
        let mut owner = Amqp::connect(&world);
        exclusive_queue(&mut owner, "q");
        let mut other = Amqp::connect(&world);
        assert_eq!(closed_for(&mut other, request).0, 405);
    }
}

#[test]
fn get_on_a_single_active_consumer_queue_is_405() {
    let found = code(|client| {
        client.declare_with("q", &[("x-single-active-consumer", Field::Bool(true))]);
        get(client, "q");
    });
    assert_eq!(found, 405);
}

#[test]
fn a_second_consumer_beside_an_exclusive_one_is_403() {
    let second = code(|client| {
        client.declare("q");
        client.method(1, 60, 20, &with_table(&["q", "first"], 0b0100));
        client.expect(60, 21);
        consume(client, "q", 0);
    });
    let exclusive = code(|client| {
        client.declare("q");
        client.method(1, 60, 20, &with_table(&["q", "first"], 0));
        client.expect(60, 21);
        consume(client, "q", 0b0100);
    });
    assert_eq!([second, exclusive], [403, 403]);
}

#[test]
fn reserved_names_internal_exchanges_and_bindings_of_the_default_exchange_are_403() {
    assert_eq!(code(|c| c.ask_for_queue("amq.mine", &[])), 403);
    assert_eq!(code(|c| c.ask_for_exchange("amq.mine", "direct", &[])), 403);
    let internal = code(|client| {
        let mut declare = arguments(&["x", "direct"], &[0b0_1000]);
        put_long(&mut declare, &[]);
        client.method(1, 40, 10, &declare);
        client.expect(40, 11);
        publish(client, "x", "k", &Props::default());
    });
    assert_eq!(internal, 403);
    let default = code(|client| {
        client.declare("q");
        client.ask_to_bind("q", "", "k", &[]);
    });
    assert_eq!(default, 403);
}

#[test]
fn wrong_arguments_of_queues_are_406_and_name_what_was_found_and_what_is_allowed() {
    let (found, text) = closed(|c| c.ask_for_queue("q", &[("x-message-ttl", Field::I32(-1))]));
    assert_eq!(found, 406);
    for part in ["x-message-ttl", "'-1'", "at least 0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let all = ("x-delayed-retry-type", Field::text("all"));
    let min = ("x-delayed-retry-min", Field::I32(10));
    for wrong in [
        vec![("x-overflow", Field::text("spill"))],
        vec![("x-expires", Field::I32(0))],
        vec![all.clone()],
        vec![all, min, ("x-delayed-retry-max", Field::I32(9))],
        vec![("x-dead-letter-routing-key", Field::text("k"))],
        vec![("x-max-priority", Field::I32(256))],
        vec![("x-queue-type", Field::text("fancy"))],
    ] {
        assert_eq!(code(|client| client.ask_for_queue("q", &wrong)), 406, "{wrong:?}");
    }
}

#[test]
fn features_that_are_not_there_yet_are_406_as_arguments() {
    for later in [("x-queue-type", "stream"), ("x-overflow", "block"), ("x-message-groups", "true")]
    {
        let (found, text) = closed(|c| c.ask_for_queue("q", &[(later.0, Field::text(later.1))]));
        assert_eq!(found, 406, "{later:?}");
        assert!(text.contains("not available yet"), "{text}");
    }
}

#[test]
fn headers_of_features_that_are_not_there_yet_are_406() {
    for later in polymq_model::delay::DelayHeaders::LATER {
        let (found, text) = closed(|client| {
            client.declare("q");
            publish(client, "", "q", &Props::with_headers(&[(later, Field::text("1"))]));
        });
        assert_eq!(found, 406, "{later}");
        assert!(text.contains("not available yet"), "{text}");
    }
}

#[test]
fn wrong_values_in_a_message_are_406() {
    let sent = |props: Props| {
        code(move |client| {
            client.declare("q");
            publish(client, "", "q", &props);
        })
    };
    for wrong in ["soon", "-1", "1.5", "", "+1"] {
        let expiration = Some(wrong.to_owned());
        assert_eq!(sent(Props { expiration, ..Props::default() }), 406, "{wrong}");
    }
    for (name, wrong) in [
        ("CC", Field::text("q")),
        ("CC", Field::List(vec![Field::I32(1)])),
        ("BCC", Field::I32(1)),
        ("BCC", Field::Table(vec![])),
    ] {
        assert_eq!(sent(Props::with_headers(&[(name, wrong)])), 406, "{name}");
    }
    assert_eq!(sent(Props { user_id: Some("u1".to_owned()), ..Props::default() }), 406);
}

#[test]
fn a_key_that_is_not_utf_8_is_406() {
    let found = code(|client| {
        let mut method = vec![0, 0];
        put_short(&mut method, b"amq.direct");
        put_short(&mut method, b"\xff");
        method.push(0);
        client.method(1, 60, 40, &method);
        client.header_of_nothing();
    });
    assert_eq!(found, 406);
}

#[test]
fn what_does_not_exist_is_404() {
    let requests: [fn(&mut Amqp); 8] = [
        |client| publish(client, "missing", "k", &Props::default()),
        |client| {
            client.declare("q");
            client.ask_to_bind("q", "missing", "k", &[]);
        },
        |client| client.ask_to_bind("missing", "amq.direct", "k", &[]),
        |client| consume(client, "missing", 0),
        |client| get(client, "missing"),
        |client| client.method(1, 50, 30, &arguments(&["missing"], &[0])),
        |client| client.method(1, 50, 10, &with_table(&["missing"], 0b0_0001)),
        |client| {
            let mut passive = arguments(&["missing", "direct"], &[0b0_0001]);
            put_long(&mut passive, &[]);
            client.method(1, 40, 10, &passive);
        },
    ];
    for request in requests {
        let (found, text) = closed(request);
        assert_eq!(found, 404);
        assert!(text.contains("'missing'") && text.contains("'/'"), "{text}");
    }
}

#[test]
fn an_unknown_delivery_tag_is_406() {
    let tag = 7_u64.to_be_bytes();
    let of = |method: u16, flags: u8| {
        code(|client| {
            let mut settle = tag.to_vec();
            settle.push(flags);
            client.method(1, 60, method, &settle);
        })
    };
    assert_eq!([of(80, 0), of(80, 1), of(90, 1), of(120, 0)], [406, 406, 406, 406]);
}

#[test]
fn a_body_over_the_limit_is_406() {
    let announced = closed(|client| {
        client.declare("q");
        client.method(1, 60, 40, &arguments(&["", "q"], &[0]));
        client.header_of(17 * 1024 * 1024);
    });
    assert_eq!(announced.0, 406);
    for part in ["17825792", "16777216"] {
        assert!(announced.1.contains(part), "{part} in {}", announced.1);
    }
    let of_the_queue = closed(|client| {
        client.declare_with("q", &[("x-max-message-size", Field::I32(3))]);
        client.publish_raw("", "q", &Props::default().encode(), b"four");
    });
    assert_eq!(of_the_queue.0, 406);
    assert!(of_the_queue.1.contains("x-max-message-size"), "{}", of_the_queue.1);
}

#[test]
fn a_full_queue_is_a_nack_with_confirms_and_nothing_without() {
    let world = World::new();
    let mut client = Amqp::connect(&world);
    let full = [("x-max-length", Field::I32(0)), ("x-overflow", Field::text("reject-publish"))];
    client.declare_with("q", &full);
    client.publish("", "q", &Props::default(), b"m");
    client.method(1, 85, 10, &[0]);
    client.expect(85, 11);
    client.publish("", "q", &Props::default(), b"m");
    assert_eq!(client.expect(60, 120)[..8], 1_u64.to_be_bytes());
}

#[test]
fn a_full_queue_refuses_a_transaction_with_406() {
    let found = code(|client| {
        let full = [("x-max-length", Field::I32(1)), ("x-overflow", Field::text("reject-publish"))];
        client.declare_with("q", &full);
        client.method(1, 90, 10, &[]);
        client.expect(90, 11);
        for _ in 0..2 {
            client.publish("", "q", &Props::default(), b"m");
        }
        client.method(1, 90, 20, &[]);
    });
    assert_eq!(found, 406);
}

#[test]
fn features_of_the_protocol_that_are_not_available_are_540_and_cost_the_connection() {
    let immediate = code(|client| {
        client.method(1, 60, 40, &arguments(&["", "q"], &[0b10]));
    });
    let bytes = code(|client| client.method(1, 60, 10, &[0, 0, 0, 1, 0, 0, 0]));
    let recover = code(|client| client.method(1, 60, 110, &[0]));
    let flow = code(|client| client.method(1, 20, 20, &[0]));
    assert_eq!([immediate, bytes, recover, flow], [540, 540, 540, 540]);
}

#[test]
fn a_consumer_tag_in_use_is_530() {
    let found = code(|client| {
        client.declare("q");
        client.consume("q");
        consume(client, "q", 0);
    });
    assert_eq!(found, 530);
}

#[test]
fn replies_are_awaited_without_acknowledgement_and_before_they_are_asked_for() {
    assert_eq!(code(|client| consume(client, "amq.rabbitmq.reply-to", 0)), 406);
    let reply_to = Some("amq.rabbitmq.reply-to".to_owned());
    let props = Props { reply_to, ..Props::default() };
    assert_eq!(code(|client| publish(client, "", "q", &props)), 406);
}

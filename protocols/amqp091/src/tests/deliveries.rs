//! Consuming: deliveries, tags, acknowledgements, `get`, `cancel` and what goes with them.

use polymq_contract::{CancelReason, DeliveryRange, Outcome, Settlement};
use polymq_model::{Annotations, message::Death};

use super::*;

fn ack(world: &mut World, delivery_tag: u64, multiple: bool) {
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple }));
}

fn settlement(consumer: ConsumerId, first: u64, last: u64, outcome: Outcome) -> Settlement {
    Settlement::new(consumer, DeliveryRange { first, last }, outcome)
}

fn settlements(world: &mut World) -> Vec<Settlement> {
    let commands = world.commands().into_iter();
    commands
        .map(|command| match command {
            Command::Settle(settlement) => settlement,
            other => panic!("settlement expected, not {other:?}"),
        })
        .collect()
}

#[test]
fn delivery_shows_what_was_published() {
    let mut world = World::open();
    let consumer = world.consume("tag", false);
    let list = props(&Props { message_id: Some(b"m-1"), ..Props::default() });
    let message = message(&list, b"hello");
    world.event(Event::Delivered(Delivery { redelivered: true, message, ..delivery(consumer, 1) }));
    let (method, shown, body) = world.content();
    let expected = basic::Deliver {
        consumer_tag: "tag".into(),
        delivery_tag: 1,
        redelivered: true,
        exchange: "amq.topic".into(),
        routing_key: "a.b".into(),
    };
    assert_eq!(method, basic::AMQPMethod::Deliver(expected));
    assert_eq!((shown, &body[..]), (list, &b"hello"[..]));
}

#[test]
fn long_body_is_cut_into_frames() {
    let mut world = World::open();
    let consumer = world.consume("c", true);
    let body: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let message = message(&[0, 0], &body);
    world.event(Event::Delivered(Delivery { message, ..delivery(consumer, 0) }));
    let sent = world.all();
    assert_eq!(sent.len(), 2 + 3);
    let parts: Vec<u8> = sent
        .into_iter()
        .filter_map(|sent| match sent {
            Sent::Body(1, part) => {
                assert!(part.len() <= 131_072 - 8);
                Some(part)
            }
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(parts, body);
}

#[test]
fn acknowledgements_in_order_become_one_command() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 5);
    let mut all = BytesMut::new();
    for delivery_tag in 1..=4 {
        let ack = basic::Ack { delivery_tag, multiple: false };
        cold::put(&mut all, 1, &AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
    }
    world.bytes(&all);
    assert_eq!(settlements(&mut world), [settlement(consumer, 1, 4, Outcome::Accepted)]);
}

#[test]
fn multiple_settles_each_consumer_up_to_the_tag_and_zero_means_all() {
    let mut world = World::open();
    let (a, b) = (world.consume("a", false), world.consume("b", false));
    let from = |consumer, number| Event::Delivered(delivery(consumer, number));
    world.events(vec![from(a, 1), from(b, 1), from(a, 2), from(b, 2), from(a, 3)]);
    world.all();
    ack(&mut world, 2, false);
    assert_eq!(settlements(&mut world), [settlement(b, 1, 1, Outcome::Accepted)]);
    ack(&mut world, 3, true);
    assert_eq!(settlements(&mut world), [settlement(a, 1, 2, Outcome::Accepted)]);
    let nack = basic::Nack { delivery_tag: 0, multiple: true, requeue: true };
    world.basic(1, basic::AMQPMethod::Nack(nack));
    assert_eq!(
        settlements(&mut world),
        [settlement(b, 2, 2, Outcome::Returned), settlement(a, 3, 3, Outcome::Returned),]
    );
    ack(&mut world, 0, true);
    assert!(settlements(&mut world).is_empty());
    world.expect_nothing();
}

#[test]
fn nack_and_reject_have_their_outcomes() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 4);
    for (tag, method) in [
        (
            1,
            basic::AMQPMethod::Nack(basic::Nack {
                delivery_tag: 1,
                multiple: false,
                requeue: true,
            }),
        ),
        (2, basic::AMQPMethod::Reject(basic::Reject { delivery_tag: 2, requeue: true })),
        (3, basic::AMQPMethod::Reject(basic::Reject { delivery_tag: 3, requeue: false })),
        (
            4,
            basic::AMQPMethod::Nack(basic::Nack {
                delivery_tag: 4,
                multiple: false,
                requeue: false,
            }),
        ),
    ] {
        let outcome = [Outcome::Returned, Outcome::Failed, Outcome::Rejected, Outcome::Rejected]
            [usize::try_from(tag - 1).unwrap()];
        world.basic(1, method);
        assert_eq!(settlements(&mut world), [settlement(consumer, tag, tag, outcome)]);
    }
}

#[test]
fn unknown_delivery_tag_is_406() {
    for (tag, multiple) in [(1, false), (7, true), (0, false)] {
        let mut world = World::open();
        world.consume("c", false);
        ack(&mut world, tag, multiple);
        let text = world.expect_channel_close(406, (60, 80));
        assert_eq!(text, format!("PRECONDITION_FAILED - unknown delivery tag {tag}"));
    }
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 2);
    ack(&mut world, 1, false);
    ack(&mut world, 1, false);
    world.expect_channel_close(406, (60, 80));
}

#[test]
fn deliveries_without_acknowledgement_use_tags_but_cannot_be_settled() {
    let mut world = World::open();
    let (auto, manual) = (world.consume("auto", true), world.consume("manual", false));
    let from = |consumer, number| Event::Delivered(delivery(consumer, number));
    world.events(vec![from(manual, 1), from(auto, 0), from(manual, 2)]);
    world.all();
    ack(&mut world, 3, false);
    assert_eq!(settlements(&mut world), [settlement(manual, 2, 2, Outcome::Accepted)]);
    ack(&mut world, 2, false);
    world.expect_channel_close(406, (60, 80));
}

#[test]
fn thousands_of_tags_settled_out_of_order_are_found() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 2000);
    for tag in (2..=2000).rev().step_by(2) {
        ack(&mut world, tag, false);
        assert_eq!(settlements(&mut world), [settlement(consumer, tag, tag, Outcome::Accepted)]);
    }
    for tag in (1..=1999).step_by(2) {
        ack(&mut world, tag, false);
        assert_eq!(settlements(&mut world), [settlement(consumer, tag, tag, Outcome::Accepted)]);
    }
    world.expect_nothing();
}

#[test]
fn recover_returns_what_is_unsettled() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 3);
    ack(&mut world, 2, false);
    world.commands();
    world.basic(1, basic::AMQPMethod::Recover(basic::Recover { requeue: true }));
    assert_eq!(world.basic_method(), basic::AMQPMethod::RecoverOk(basic::RecoverOk {}));
    assert_eq!(settlements(&mut world), [settlement(consumer, 1, 3, Outcome::Returned)]);
}

#[test]
fn recover_leaves_what_a_transaction_settles() {
    let mut world = World::open();
    world.raw_method(1, &[0, 90, 0, 10]);
    world.method();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 3);
    ack(&mut world, 2, false);
    world.all();
    world.basic(1, basic::AMQPMethod::Recover(basic::Recover { requeue: true }));
    let returned = [
        settlement(consumer, 1, 1, Outcome::Returned),
        settlement(consumer, 3, 3, Outcome::Returned),
    ];
    assert_eq!(settlements(&mut world), returned);
}

#[test]
fn prefetch_applies_to_later_consumers_and_global_to_the_channel() {
    let mut world = World::open();
    world.raw_method(1, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 10, 0]);
    assert_eq!(world.basic_method(), basic::AMQPMethod::QosOk(basic::QosOk {}));
    assert!(world.commands().is_empty());
    world.raw_method(1, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 20, 1]);
    assert!(matches!(world.command(), Command::SetGroupPrefetch { group: 1, prefetch: 20 }));
    world.all();
    world.raw_method(1, &[0, 60, 0, 20, 0, 0, 1, b'q', 0, 0b1100, 0, 0, 0, 0]);
    let Command::Consume(consume) = world.command() else { panic!("consume expected") };
    assert_eq!((consume.prefetch, consume.group), (10, 1));
    assert!(consume.exclusive && !consume.no_ack);
    assert!(consume.tag.starts_with("amq.ctag-"));
    world.answer(consume.request, Ok(Answer::Consuming { reply_name: None }));
    world.expect_nothing();
}

#[test]
fn consumer_arguments_keep_their_types() {
    let mut world = World::open();
    let table: Table = vec![("x-priority".to_owned(), Value::I32(10))];
    let mut payload = vec![0, 60, 0, 20, 0, 0, 1, b'q', 1, b't', 0];
    put_table(&mut payload, &table);
    world.raw_method(1, &payload);
    let Command::Consume(consume) = world.command() else { panic!("consume expected") };
    assert_eq!(consume.arguments, table);
}

#[test]
fn reused_consumer_tag_is_530() {
    let mut world = World::open();
    world.consume("c", false);
    world.raw_method(1, &[0, 60, 0, 20, 0, 0, 1, b'q', 1, b'c', 0, 0, 0, 0, 0]);
    let text = world.expect_connection_close(530, (60, 20));
    assert_eq!(text, "NOT_ALLOWED - attempt to reuse consumer tag 'c'");
}

#[test]
fn cancelled_consumer_gets_nothing_more_and_its_deliveries_can_be_settled() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 1);
    let cancel = basic::Cancel { consumer_tag: "c".into(), nowait: false };
    world.basic(1, basic::AMQPMethod::Cancel(cancel.clone()));
    world.done();
    let ok = basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: "c".into() });
    assert_eq!(world.basic_method(), ok);
    ack(&mut world, 1, false);
    assert_eq!(settlements(&mut world), [settlement(consumer, 1, 1, Outcome::Accepted)]);
    // Cancelling again succeeds without asking the broker.
    world.basic(1, basic::AMQPMethod::Cancel(cancel));
    assert_eq!(world.basic_method(), ok);
    assert!(world.commands().is_empty());
}

#[test]
fn consumer_cancelled_by_the_broker_is_told_or_costs_the_channel() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.event(Event::ConsumerCancelled { consumer, reason: CancelReason::QueueDeleted });
    let cancel = basic::Cancel { consumer_tag: "c".into(), nowait: true };
    assert_eq!(world.basic_method(), basic::AMQPMethod::Cancel(cancel));
    assert!(matches!(world.command(), Command::Release { consumers } if consumers == [consumer]));
    let mut world = World::open_with(Limits::default());
    let consumer = world.consume("c", false);
    world.event(Event::ConsumerCancelled { consumer, reason: CancelReason::QueueDeleted });
    world.expect_channel_close(404, (60, 20));
}

#[test]
fn refused_consumer_leaves_no_trace() {
    let mut world = World::open();
    world.raw_method(1, &[0, 60, 0, 20, 0, 0, 1, b'q', 1, b'c', 0, 0, 0, 0, 0]);
    world.refuse(RefusalKind::NotFound);
    world.expect_channel_close(404, (60, 20));
    assert!(world.commands().is_empty());
}

fn get(world: &mut World, no_ack: bool) -> (RequestId, ConsumerId) {
    world.basic(1, basic::AMQPMethod::Get(basic::Get { queue: "q".into(), no_ack }));
    match world.command() {
        Command::Get { request, consumer, .. } => (request, consumer),
        other => panic!("get expected, not {other:?}"),
    }
}

#[test]
fn get_takes_one_message_or_says_empty() {
    let mut world = World::open();
    let (request, consumer) = get(&mut world, false);
    let delivery = Some(Box::new(delivery(consumer, 1)));
    world.answer(request, Ok(Answer::Got { delivery, remaining: 5 }));
    let (method, _, body) = world.content();
    let expected = basic::GetOk {
        delivery_tag: 1,
        redelivered: false,
        exchange: "amq.topic".into(),
        routing_key: "a.b".into(),
        message_count: 5,
    };
    assert_eq!(method, basic::AMQPMethod::GetOk(expected));
    assert_eq!(body, b"hello");
    ack(&mut world, 1, false);
    assert_eq!(settlements(&mut world), [settlement(consumer, 1, 1, Outcome::Accepted)]);

    let (request, second) = get(&mut world, false);
    assert_ne!(second, consumer);
    world.answer(request, Ok(Answer::Got { delivery: None, remaining: 0 }));
    assert_eq!(world.basic_method(), basic::AMQPMethod::GetEmpty(basic::GetEmpty {}));
}

#[test]
fn got_messages_go_back_when_the_channel_closes() {
    let mut world = World::open();
    let (request, consumer) = get(&mut world, false);
    let delivery = Some(Box::new(delivery(consumer, 1)));
    world.answer(request, Ok(Answer::Got { delivery, remaining: 0 }));
    world.all();
    ack(&mut world, 9, false);
    assert!(matches!(world.command(), Command::Release { consumers } if consumers == [consumer]));
}

#[test]
fn counts_and_death_record_are_added_to_the_headers() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    let own = headers(&[("mine", Value::I32(1))]);
    let list = props(&Props {
        headers: Some(&own),
        expiration: Some(b"100"),
        app_id: Some(b"app"),
        ..Props::default()
    });
    let death = Death {
        queue: "q".to_owned(),
        reason: "expired".to_owned(),
        count: 2,
        time_ms: 1_700_000_000_000,
        exchange: "x".to_owned(),
        routing_keys: vec!["k".to_owned()],
        original_ttl_ms: Some(100),
        detail: None,
    };
    let annotations = Annotations {
        deaths: vec![death],
        first_death: Some(("q".to_owned(), "expired".to_owned(), "x".to_owned())),
        last_death: None,
        delayed: None,
    };
    let message = message(&list, b"").readdressed("dlx", "dead", annotations);
    let delivered = Delivery { acquired: 3, failed: 1, message, ..delivery(consumer, 1) };
    world.event(Event::Delivered(delivered));
    let (_, shown, _) = world.content();
    let shown = Props::parse(&shown).unwrap();
    assert_eq!((shown.app_id, shown.expiration), (Some(&b"app"[..]), None));
    let bounds = crate::codec::table::DECODE_BOUNDS;
    let table = crate::codec::table::decode(shown.headers.unwrap(), bounds).unwrap();
    let names: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "mine",
            "x-death",
            "x-first-death-queue",
            "x-first-death-reason",
            "x-first-death-exchange",
            "x-delivery-count",
            "x-acquired-count",
        ]
    );
    assert_eq!(table[5].1, Value::I64(1));
    assert_eq!(table[6].1, Value::I64(3));
}

#[test]
fn properties_larger_than_a_frame_are_settled_as_too_large() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    let big = headers(&[("big", Value::Bytes(vec![0; 200_000]))]);
    let list = props(&Props { headers: Some(&big), ..Props::default() });
    let message = message(&list, b"");
    world.event(Event::Delivered(Delivery { message, ..delivery(consumer, 1) }));
    world.expect_nothing();
    assert_eq!(settlements(&mut world), [settlement(consumer, 1, 1, Outcome::TooLarge)]);
}

#[test]
fn events_wait_while_the_output_is_full() {
    let mut world = World::open_with(Limits { output_bytes_max: 1000, ..Limits::default() });
    let consumer = world.consume("c", true);
    let mut batch = EventBatch::default();
    for _ in 0..10 {
        let message = message(&[0, 0], &[0; 400]);
        batch.push(Event::Delivered(Delivery { message, ..delivery(consumer, 0) }));
    }
    world.session.on_events(&mut batch, world.now, &mut world.effects);
    assert!(batch.len() >= 7);
    assert!(world.effects.out.len() < 2000);
}

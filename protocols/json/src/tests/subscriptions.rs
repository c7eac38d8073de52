//! `subscribe`, deliveries, `settle`, `credit` and `unsubscribe`.

use polymq_contract::{CancelReason, Delivery, DeliveryRange, Note, Outcome, Settlement};
use polymq_model::{Body, ConsumerId, Message, NewMessage, QueueName, Seq, format::PLAIN_FORMAT};

use super::*;

const CONSUMING: Answer = Answer::Consuming { reply_name: None };

fn message(body: &[u8]) -> Message {
    let new = NewMessage {
        format: &PLAIN_FORMAT,
        exchange: "",
        key: "q",
        props: &[],
        body: Body::Slice(body),
        durable: true,
        priority: None,
        qos: 1,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    };
    new.build(&mut Vec::new())
}

fn delivered(consumer: u32, number: u64, body: &[u8]) -> Event {
    Event::Delivered(Delivery {
        consumer: ConsumerId(consumer),
        redelivered: number > 1,
        acquired: 0,
        failed: 0,
        number,
        seq: Seq(number),
        matched: Default::default(),
        message: message(body),
    })
}

/// A subscription of a queue that consumes.
fn consuming(more: &Value) -> World {
    let mut world = World::open();
    let mut subscribe = json!({"op":"subscribe","id":2,"sub":"s","queue":"q"});
    let fields = more.as_object().cloned().unwrap_or_default();
    subscribe.as_object_mut().unwrap().extend(fields);
    assert!(world.say(&subscribe).is_empty());
    let request = world.request();
    let said = world.answer(request, Ok(CONSUMING));
    assert_eq!(said, [json!({"op":"subscribed","re":2,"sub":"s"})]);
    world
}

#[test]
fn deliveries_have_tags_that_settle_them() {
    let mut world = consuming(&json!({}));
    for number in 1..=4 {
        let said = world.event(delivered(1, number, b"hi"));
        assert_eq!(said[0]["tag"], number);
        assert_eq!(said[0]["message"]["payload"], "hi");
        assert_eq!(said[0]["message"]["redelivered"], number > 1);
    }
    let settle = json!({"op":"settle","id":3,"sub":"s","tags":[2,1,4],"outcome":"ack"});
    assert_eq!(world.say(&settle), [json!({"op":"ok","re":3})]);
    let settled: Vec<_> = world.commands();
    let range = |first, last| DeliveryRange { first, last };
    for (command, range) in settled.iter().zip([range(1, 2), range(4, 4)]) {
        let Command::Settle(settlement) = command else { panic!("unexpected {command:?}") };
        let expected = Settlement::new(ConsumerId(1), range, Outcome::Accepted);
        assert_eq!(*settlement, expected);
    }
    let again = json!({"op":"settle","id":4,"sub":"s","tags":[1,3],"outcome":"requeue","delay":50});
    let said = world.say(&again);
    assert_eq!((&said[0]["code"], &said[0]["tags"]), (&json!("unknown_tag"), &json!([1])));
    let note = Note { retry_after_ms: Some(50), reason: None };
    match &world.commands()[..] {
        [Command::Settle(one)] => {
            assert_eq!((one.deliveries, one.outcome), (range(3, 3), Outcome::Failed));
            assert_eq!(one.note.as_deref(), Some(&note));
        }
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn binary_deliveries_have_the_body_behind_them() {
    let mut world = consuming(&json!({"binary":true}));
    world.hand(delivered(1, 1, &[0, 255]));
    let message = world.messages().pop().expect("a message");
    let (length, rest) = message.split_first_chunk::<4>().unwrap();
    let (json, body) = rest.split_at(u32::from_be_bytes(*length) as usize);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!((&json["op"], &json["tag"]), (&json!("deliver"), &json!(1)));
    assert!(json["message"].get("payload").is_none());
    assert_eq!(body, [0, 255]);
}

#[test]
fn automatic_deliveries_have_no_tag() {
    let mut world = consuming(&json!({"ack":"auto"}));
    let said = world.event(delivered(1, 0, b"hi"));
    assert!(said[0].get("tag").is_none());
}

#[test]
fn an_exchange_is_followed_through_a_queue_of_its_own() {
    let mut world = World::open();
    let subscribe = json!({
        "op":"subscribe","id":2,"sub":"s","exchange":"amq.topic","pattern":"a.#","credit":5
    });
    world.say(&subscribe);
    let Some(Command::DeclareQueue(declare)) = world.commands().pop() else { panic!("a queue") };
    assert!(declare.exclusive && declare.auto_delete && !declare.durable);
    let queue = QueueName::new("amq.gen-1").unwrap();
    let answer = Answer::QueueDeclared { queue, messages: 0, consumers: 0 };
    world.answer(declare.request, Ok(answer));
    let Some(Command::BindQueue(bind)) = world.commands().pop() else { panic!("a binding") };
    assert_eq!((&*bind.exchange, &*bind.key, &*bind.queue), ("amq.topic", "a.#", "amq.gen-1"));
    world.answer(bind.request, Ok(Answer::Done));
    match &world.commands()[..] {
        [Command::SetGroupPrefetch { group: 1, prefetch: 5 }, Command::Consume(consume)] => {
            assert_eq!((&*consume.queue, consume.group), ("amq.gen-1", 1));
        }
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn a_refused_subscription_leaves_nothing_behind() {
    let mut world = World::open();
    let subscribe = json!({"op":"subscribe","id":2,"sub":"s","exchange":"x","pattern":"#"});
    world.say(&subscribe);
    let request = world.request();
    let queue = QueueName::new("amq.gen-1").unwrap();
    world.answer(request, Ok(Answer::QueueDeclared { queue, messages: 0, consumers: 0 }));
    let request = world.request();
    let said = world.answer(request, refused(RefusalKind::NotFound));
    assert_eq!((&said[0]["re"], &said[0]["code"]), (&json!(2), &json!("not_found")));
    assert!(matches!(&world.commands()[..],
        [Command::DeleteQueue { queue, .. }] if queue == "amq.gen-1"));
    world.say(&subscribe);
    assert!(matches!(&world.commands()[..], [Command::DeclareQueue(_)]), "the name is free");
}

#[test]
fn credit_moves_the_bound() {
    let mut world = consuming(&json!({"credit":2}));
    let said = world.say(&json!({"op":"credit","id":3,"sub":"s","add":3}));
    assert_eq!(said, [json!({"op":"ok","re":3})]);
    assert!(matches!(&world.commands()[..], [Command::SetGroupPrefetch { group: 1, prefetch: 5 }]));
    let said = world.say(&json!({"op":"credit","id":4,"sub":"s","add":65_535}));
    assert_eq!(said[0]["code"], "limit");
}

#[test]
fn what_was_not_settled_goes_back_with_its_subscription() {
    let mut world = consuming(&json!({}));
    world.event(delivered(1, 1, b"hi"));
    assert_eq!(
        world.say(&json!({"op":"subscribe","sub":"s","queue":"q"}))[0]["code"],
        "sub_in_use"
    );
    assert!(world.say(&json!({"op":"unsubscribe","id":3,"sub":"s"})).is_empty());
    let request = world.request();
    assert_eq!(world.answer(request, Ok(Answer::Done)), [json!({"op":"ok","re":3})]);
    assert!(matches!(&world.commands()[..],
        [Command::Release { consumers }] if consumers[..] == [ConsumerId(1)]));
    assert!(world.event(delivered(1, 2, b"late")).is_empty());
}

#[test]
fn a_subscription_whose_queue_is_gone_is_told() {
    let mut world = consuming(&json!({}));
    let (consumer, reason) = (ConsumerId(1), CancelReason::QueueDeleted);
    let said = world.event(Event::ConsumerCancelled { consumer, reason });
    assert_eq!(said, [json!({"op":"cancelled","sub":"s","reason":"queue_deleted"})]);
    assert_eq!(world.say(&json!({"op":"unsubscribe","sub":"s"}))[0]["code"], "unknown_sub");
}

//! `publish` and its confirms.

use polymq_contract::{Place, Publish};
use polymq_model::Durability;

use super::*;

fn publish(world: &mut World) -> Publish {
    match world.commands().pop() {
        Some(Command::Publish(publish)) => publish,
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn a_publish_with_an_id_is_confirmed() {
    let mut world = World::open();
    let message = json!({"exchange":"amq.topic","routing_key":"a.b","payload":"hi"});
    for id in 1..=3 {
        world.say(&json!({"op":"publish","id":id,"message":message}));
        let publish = publish(&mut world);
        assert_eq!(publish.number, id);
        assert_eq!((publish.message.exchange(), publish.message.key()), ("amq.topic", "a.b"));
        assert_eq!(publish.message.body(), b"hi");
        assert!(publish.message.is_durable());
    }
    let confirmed = |first, last, outcome| Event::Confirmed {
        publisher: polymq_model::PublisherId(1),
        first,
        last,
        outcome,
    };
    let said = world.event(confirmed(2, 3, PublishOutcome::Routed(Durability::Sync)));
    let confirm = |re| json!({"op":"confirm","re":re,"outcome":"stored","routed":true});
    assert_eq!(said, [confirm(2), confirm(3)]);
    let said = world.event(confirmed(1, 1, PublishOutcome::Unrouted));
    assert_eq!(said, [json!({"op":"confirm","re":1,"outcome":"unrouted","routed":false})]);
    assert!(world.event(confirmed(1, 3, PublishOutcome::Unrouted)).is_empty(), "once is enough");
}

#[test]
fn a_confirm_tells_where_the_message_is() {
    let mut world = World::open();
    let message = json!({"exchange":"amq.topic","routing_key":"a.b","payload":"hi"});
    for id in 1..=3 {
        world.say(&json!({"op":"publish","id":id,"message":message}));
    }
    let publisher = polymq_model::PublisherId(1);
    let placed = |number, place| Event::Placed { publisher, first: number, last: number, place };
    let confirmed =
        |number, outcome| Event::Confirmed { publisher, first: number, last: number, outcome };
    assert!(world.event(placed(1, Place::Queues(2))).is_empty());
    assert!(world.event(placed(2, Place::Scheduled(7))).is_empty());
    assert!(world.event(placed(3, Place::Queues(2))).is_empty());
    let stored = PublishOutcome::Routed(Durability::Sync);
    let said = world.event(confirmed(1, stored));
    let confirm = json!({"op":"confirm","re":1,"outcome":"stored","routed":true,"queues":2});
    assert_eq!(said, [confirm]);
    let said = world.event(confirmed(2, stored));
    assert_eq!((&said[0]["schedule_id"], &said[0]["queues"]), (&json!("7"), &Value::Null));
    let said = world.event(confirmed(3, PublishOutcome::Refused(RefusalKind::StoreFailed)));
    assert_eq!((&said[0]["code"], &said[0]["queues"]), (&json!("store_failed"), &Value::Null));
}

#[test]
fn a_publish_without_an_id_or_a_wish_is_not() {
    let mut world = World::open();
    let message = json!({"exchange":"","routing_key":"q"});
    world.say(&json!({"op":"publish","message":message}));
    assert_eq!(publish(&mut world).number, 0);
    world.say(&json!({"op":"publish","id":1,"message":message,"confirm":"none"}));
    assert_eq!(publish(&mut world).number, 0);
}

#[test]
fn a_refused_publish_names_its_id() {
    let mut world = World::open();
    world.say(&json!({"op":"publish","id":"p","message":{"exchange":"x","routing_key":""}}));
    let number = publish(&mut world).number;
    let refusal = Box::new(Refusal::new(RefusalKind::NotFound, "no exchange"));
    let publisher = polymq_model::PublisherId(1);
    let said = world.event(Event::PublishRefused { publisher, number, refusal });
    assert_eq!(said, [json!({"op":"error","re":"p","code":"not_found","text":"no exchange"})]);
}

#[test]
fn a_binary_publish_has_its_body_behind_it() {
    let mut world = World::open();
    let op = json!({"op":"publish","id":1,"message":{"exchange":"","routing_key":"q"}});
    world.say_binary(&op, &[0, 255]);
    assert_eq!(publish(&mut world).message.body(), [0, 255]);
    let both = json!({"op":"publish","message":{"exchange":"","payload":"x"}});
    assert_eq!(world.say_binary(&both, b"y")[0]["at"], "/payload");
    assert_eq!(world.say_binary(&json!({"op":"ping"}), b"")[0]["code"], "bad_op");
    put_head(MessageKind::Binary, 5, &mut world.input);
    world.input.extend_from_slice(&[0, 0, 0, 9, b'{']);
    assert_eq!(world.turn()[0]["code"], "bad_frame");
    assert!(world.is_closed_by("protocol_error"));
}

#[test]
fn a_message_that_is_too_large_is_refused() {
    let mut world = World::open();
    let message = json!({"exchange":"","routing_key":"q","payload":"x".repeat(20_001)});
    let said = world.say(&json!({"op":"publish","id":1,"message":message}));
    assert_eq!(said[0]["code"], "message_too_large");
}

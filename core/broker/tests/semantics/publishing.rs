//! Sections 7.1 and 7.2: confirms, durability, mandatory.

use polymq_contract::{Command, Event, Place, PublishOutcome, RefusalKind};
use polymq_model::{Durability, Value};
use polymq_store::StoreError;

use crate::{
    text, try_declare,
    world::{Client, World, kind_of, message, publish, publish_of, with_headers},
};

fn confirmed(client: &mut Client) -> Vec<(u64, u64, PublishOutcome)> {
    let events = client.events().into_iter();
    let confirms = events.filter_map(|event| match event {
        Event::Confirmed { first, last, outcome, .. } => Some((first, last, outcome)),
        _ => None,
    });
    confirms.collect()
}

fn mandatory(exchange: &str, key: &str, number: u64) -> Command {
    let mut command = publish(exchange, key, "m", number);
    if let Command::Publish(publish) = &mut command {
        publish.mandatory = true;
    }
    command
}

#[test]
fn a_confirm_covers_every_queue_the_message_was_routed_to() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("x", "fanout");
    client.queue("durable");
    try_declare(&mut client, "transient", &[], |declare| declare.durable = false).unwrap();
    for queue in ["durable", "transient"] {
        client.bind("x", queue, "");
    }
    client.events();
    world.store.faults().delay_replies(true);
    client.send(publish("x", "", "m", 1));
    assert!(confirmed(&mut client).is_empty(), "one of them is on its way to the disk");
    world.store.release();
    assert_eq!(confirmed(&mut client), [(1, 1, PublishOutcome::Routed(Durability::Memory))]);
}

#[test]
fn a_transient_message_or_queue_is_confirmed_when_routed() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("durable");
    try_declare(&mut client, "transient", &[], |declare| declare.durable = false).unwrap();
    let memory = [("x-durability", text("memory"))];
    client.queue_with("memory", &memory);
    client.events();
    world.store.faults().delay_replies(true);
    client.send(publish("", "transient", "m", 1));
    client.send(publish("", "memory", "m", 2));
    let mut transient = message("", "durable", "m");
    transient.durable = false;
    client.send(publish_of(transient.build(&mut Vec::new()), 3));
    let numbers: Vec<_> = confirmed(&mut client).iter().map(|(_, last, _)| *last).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_queue_of_class_memory_keeps_its_definition_and_loses_its_messages() {
    let world = World::new();
    let mut client = world.connect();
    client.queue_with("q", &[("x-durability", text("memory"))]);
    client.publish("", "q", "m");
    let world = world.restart();
    assert_eq!(crate::ready(&world, "q"), 0);
}

#[test]
fn the_class_of_durability_is_one_of_four() {
    let world = World::new();
    let mut client = world.connect();
    for right in ["sync", "sync-interval:50", "os", "memory"] {
        client.queue_with(right, &[("x-durability", text(right))]);
    }
    for wrong in ["", "disk", "sync-interval", "sync-interval:x"] {
        let refused = try_declare(&mut client, "q", &[("x-durability", text(wrong))], |_| ());
        assert_eq!(kind_of(refused), RefusalKind::Invalid, "{wrong}");
    }
}

#[test]
fn an_unroutable_message_is_confirmed_and_a_mandatory_one_returned_before() {
    let world = World::new();
    let mut client = world.connect();
    client.events();
    client.send(publish("amq.direct", "nobody", "m", 1));
    client.send(mandatory("amq.direct", "nobody", 2));
    client.send(mandatory("", "nobody", 3));
    let events = client.events();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Returned { .. } => "returned",
            Event::Confirmed { outcome: PublishOutcome::Unrouted, .. } => "confirmed",
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["confirmed", "returned", "confirmed", "returned", "confirmed"]);
}

#[test]
fn a_mandatory_message_that_an_alternate_exchange_takes_is_not_returned() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("rest", "fanout");
    client.queue("q");
    client.bind("rest", "q", "");
    client.ask(|request| {
        let declare = crate::world::declare_exchange(request, "main", "direct");
        let Command::DeclareExchange(mut declare) = declare else { panic!("{declare:?}") };
        declare.arguments = vec![("alternate-exchange".to_owned(), text("rest"))];
        Command::DeclareExchange(declare)
    });
    client.events();
    client.send(mandatory("main", "k", 1));
    assert_eq!(confirmed(&mut client), [(1, 1, PublishOutcome::Routed(Durability::Memory))]);
}

#[test]
fn publishing_to_a_missing_exchange_is_not_found() {
    let world = World::new();
    let mut client = world.connect();
    client.events();
    client.publish("missing", "k", "m");
    let events = client.events();
    assert!(matches!(&events[..], [Event::PublishRefused { refusal, .. }]
        if refusal.kind == RefusalKind::NotFound));
}

#[test]
fn a_store_that_fails_makes_the_confirm_negative() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.events();
    world.store.faults().fail_all(Some(StoreError::Full));
    client.send(publish("", "q", "m", 1));
    let refused = PublishOutcome::Refused(RefusalKind::StoreFailed);
    assert_eq!(confirmed(&mut client), [(1, 1, refused)]);
}

#[test]
fn whoever_asks_is_told_where_publishes_are() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("x", "fanout");
    let full = [("x-max-length", Value::I32(2)), ("x-overflow", text("reject-publish"))];
    client.queue_with("small", &full);
    client.queue("large");
    for queue in ["small", "large"] {
        client.bind("x", queue, "");
    }
    client.events();
    let placed = |client: &mut Client, messages: Vec<Command>| {
        client.send_all(messages);
        let events = client.events().into_iter();
        let places = events.filter_map(|event| match event {
            Event::Placed { first, last, place, .. } => Some((first, last, place)),
            _ => None,
        });
        places.collect::<Vec<_>>()
    };
    assert!(placed(&mut client, vec![publish("x", "", "m", 1)]).is_empty(), "nobody has asked");
    client.send(Command::TellPlaces);
    let two = vec![publish("x", "", "m", 2), publish("x", "", "too many", 3)];
    assert_eq!(placed(&mut client, two), [(2, 2, Place::Queues(2))]);
    let others = vec![
        publish("", "large", "m", 4),
        publish("", "large", "m", 5),
        publish("", "large", "nobody waits for it", 0),
        publish("", "nowhere", "m", 6),
    ];
    assert_eq!(placed(&mut client, others), [(4, 5, Place::Queues(1))]);
}

#[test]
fn a_header_is_carried_whatever_the_queue_does_with_the_message() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.send(publish_of(with_headers("", "q", &[("mine", Value::I32(7))]), 0));
    client.consume("q", 1, 0);
    let delivery = client.deliveries().remove(0);
    assert_eq!(delivery.message.properties().headers, [("mine".to_owned(), Value::I32(7))]);
}

//! Sections 3.1 and 3.3: queues that end, and who is told.

use polymq_contract::{CancelReason, Command, Event, RefusalKind};
use polymq_model::ConsumerId;

use crate::{
    cancel, delete, exists, try_declare,
    world::{World, kind_of},
};

#[test]
fn an_exclusive_queue_is_visible_to_its_connection_only() {
    let world = World::new();
    let (mut owner, mut other) = (world.connect(), world.connect());
    try_declare(&mut owner, "q", &[], |declare| declare.exclusive = true).unwrap();
    let queue = || "q".to_owned();
    let requests: [fn(polymq_model::RequestId, String) -> Command; 4] = [
        |request, queue| Command::Get { request, queue, no_ack: true, consumer: ConsumerId(9) },
        |request, queue| Command::PurgeQueue { request, queue },
        |request, queue| Command::DeleteQueue { request, queue, if_unused: false, if_empty: false },
        |request, queue| {
            let consume = crate::world::consume_of(&queue, 3, 0);
            Command::Consume(Box::new(polymq_contract::Consume { request, ..consume }))
        },
    ];
    for command in requests {
        let refused = other.try_ask(|request| command(request, queue()));
        assert_eq!(kind_of(refused), RefusalKind::Locked);
    }
    let refused = try_declare(&mut other, "q", &[], |declare| declare.passive = true);
    assert_eq!(kind_of(refused), RefusalKind::Locked);
    other.publish("", "q", "anybody may send to it");
    assert_eq!(owner.get("q").as_deref(), Some("anybody may send to it"));
}

#[test]
fn an_exclusive_queue_ends_with_its_connection_and_does_not_survive_a_restart() {
    let world = World::new();
    let mut owner = world.connect();
    try_declare(&mut owner, "q", &[], |declare| declare.exclusive = true).unwrap();
    try_declare(&mut owner, "r", &[], |declare| declare.exclusive = true).unwrap();
    let world = world.restart();
    assert!(!exists(&world, "q") && !exists(&world, "r"));
    let mut owner = world.connect();
    try_declare(&mut owner, "q", &[], |declare| declare.exclusive = true).unwrap();
    owner.disconnect();
    assert!(!exists(&world, "q"));
}

#[test]
fn auto_delete_acts_after_the_last_consumer_leaves_and_not_before_the_first_comes() {
    let mut world = World::new();
    let mut client = world.connect();
    try_declare(&mut client, "q", &[], |declare| declare.auto_delete = true).unwrap();
    client.get("q");
    world.pass(60_000);
    assert!(exists(&world, "q"), "nobody has consumed yet");
    client.consume("q", 1, 0);
    client.consume("q", 2, 0);
    cancel(&mut client, 1);
    assert!(exists(&world, "q"));
    cancel(&mut client, 2);
    assert!(!exists(&world, "q"));
}

#[test]
fn auto_delete_acts_when_the_last_consumer_is_lost_with_its_connection() {
    let world = World::new();
    let mut client = world.connect();
    try_declare(&mut client, "q", &[], |declare| declare.auto_delete = true).unwrap();
    client.consume("q", 1, 0);
    client.disconnect();
    assert!(!exists(&world, "q"));
}

#[test]
fn consumers_are_told_when_their_queue_is_deleted_or_expires() {
    let world = World::new();
    let (mut owner, mut other) = (world.connect(), world.connect());
    owner.queue("q");
    for consumer in [1, 2] {
        other.consume("q", consumer, 0);
    }
    other.events();
    delete(&mut owner, "q");
    let told: Vec<_> = other
        .events()
        .into_iter()
        .map(|event| match event {
            Event::ConsumerCancelled { consumer, reason } => (consumer.0, reason),
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(told, [(1, CancelReason::QueueDeleted), (2, CancelReason::QueueDeleted)]);
}

#[test]
fn a_queue_is_deleted_if_unused_and_if_empty_only_when_that_holds() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.publish("", "q", "m");
    let ask = |if_unused, if_empty| {
        move |request| Command::DeleteQueue { request, queue: "q".to_owned(), if_unused, if_empty }
    };
    assert_eq!(kind_of(client.try_ask(ask(false, true))), RefusalKind::Conflict);
    client.consume("q", 1, 1);
    assert_eq!(kind_of(client.try_ask(ask(true, false))), RefusalKind::Conflict);
    cancel(&mut client, 1);
    client.try_ask(ask(true, true)).unwrap();
    client.try_ask(ask(true, true)).expect("deleting what is missing succeeds");
}

//! Where messages go.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_contract::{Command, DeclareExchange, RefusalKind};
use polymq_model::Value;
use world::{World, declare_exchange, kind_of};

#[test]
fn a_queue_gets_a_message_once_however_many_bindings_match() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.bind("amq.topic", "q", "a.*");
    client.bind("amq.topic", "q", "#");
    client.publish("amq.topic", "a.b", "m");
    assert_eq!(client.get("q").as_deref(), Some("m"));
    assert_eq!(client.get("q"), None);
}

#[test]
fn exchanges_bound_in_a_circle_are_visited_once() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("a", "fanout");
    client.exchange("b", "fanout");
    client.bind_exchange("a", "b", "");
    client.bind_exchange("b", "a", "");
    client.queue("q");
    client.bind("b", "q", "");
    client.publish("a", "", "m");
    assert_eq!(client.get("q").as_deref(), Some("m"));
    assert_eq!(client.get("q"), None);
}

#[test]
fn the_alternate_exchange_takes_what_no_binding_took() {
    let world = World::new();
    let mut client = world.connect();
    client.exchange("rest", "fanout");
    client.ask(|request| {
        Command::DeclareExchange(Box::new(DeclareExchange {
            request,
            exchange: "main".into(),
            kind: "direct".into(),
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: vec![("alternate-exchange".into(), Value::String("rest".into()))],
        }))
    });
    client.queue("q");
    client.bind("rest", "q", "");
    client.publish("main", "nobody", "m");
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding() {
    let world = World::new();
    let mut client = world.connect();
    client.ask(|request| {
        let mut command = declare_exchange(request, "x", "fanout");
        if let Command::DeclareExchange(declare) = &mut command {
            declare.auto_delete = true;
        }
        command
    });
    client.queue("q");
    client.bind("x", "q", "");
    client.ask(|request| Command::DeleteQueue {
        request,
        queue: "q".into(),
        if_unused: false,
        if_empty: false,
    });
    client.ask(|request| declare_exchange(request, "x", "direct"));
}

#[test]
fn names_with_the_reserved_prefix_cannot_be_declared() {
    let world = World::new();
    let mut client = world.connect();
    let refused = client.try_ask(|request| declare_exchange(request, "amq.mine", "direct"));
    assert_eq!(kind_of(refused), RefusalKind::Reserved);
}

#[test]
fn an_address_as_key_reaches_the_exchange_it_names() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    client.bind("amq.topic", "q", "r.1");
    client.publish("", "amq.address:/exchanges/amq.topic/r.1", "m");
    assert_eq!(client.get("q").as_deref(), Some("m"));
}

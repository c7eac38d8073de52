//! Section 13: separate virtual hosts, and permissions that each operation demands.

use polymq_broker::PermissionRecord;
use polymq_contract::{
    Answer, BindExchange, BindQueue, Command, Consume, DeclareExchange, Event, Refusal, RefusalKind,
};
use polymq_model::{ConsumerId, RequestId, Table, UserName, VhostName};

use crate::{
    root, text, try_declare,
    world::{Client, World, consume_of, declare_exchange, kind_of},
};

fn allow(world: &World, configure: &str, write: &str, read: &str) {
    let user = UserName::new("other").unwrap();
    let record =
        PermissionRecord { configure: configure.into(), write: write.into(), read: read.into() };
    world.broker.put_permission(root(), user, record, true).unwrap();
}

/// A world in which the user `other` may do only this, on objects made by somebody else.
fn world_for(configure: &str, write: &str, read: &str) -> (World, Client) {
    let world = World::new();
    let mut maker = world.connect();
    maker.queue("q");
    maker.exchange("x", "direct");
    maker.exchange("y", "direct");
    allow(&world, configure, write, read);
    let client = world.connect_as("other");
    (world, client)
}

fn denied(found: Result<Answer, Refusal>) -> bool {
    match found {
        Ok(_) => false,
        Err(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::Denied, "{}", refusal.text);
            true
        }
    }
}

fn bind_queue(request: RequestId) -> Command {
    let arguments = Table::new();
    let (queue, exchange) = ("q".to_owned(), "x".to_owned());
    Command::BindQueue(Box::new(BindQueue { request, queue, exchange, key: "k".into(), arguments }))
}

fn bind_exchange(request: RequestId) -> Command {
    Command::BindExchange(Box::new(BindExchange {
        request,
        destination: "y".to_owned(),
        source: "x".to_owned(),
        key: "k".to_owned(),
        arguments: Table::new(),
    }))
}

fn consume(request: RequestId) -> Command {
    Command::Consume(Box::new(Consume { request, ..consume_of("q", 1, 0) }))
}

#[test]
fn declaring_and_deleting_need_configure() {
    for (configure, is_denied) in [("", true), ("q|x|new", false)] {
        let (_world, mut client) = world_for(configure, ".*", ".*");
        assert_eq!(denied(try_declare(&mut client, "new", &[], |_| ())), is_denied);
        let declare = client.try_ask(|request| declare_exchange(request, "new", "direct"));
        assert_eq!(denied(declare), is_denied);
        let (queue, if_unused, if_empty) = ("q".to_owned(), false, false);
        let delete =
            client.try_ask(|request| Command::DeleteQueue { request, queue, if_unused, if_empty });
        assert_eq!(denied(delete), is_denied);
        let exchange = "x".to_owned();
        let delete =
            client.try_ask(|request| Command::DeleteExchange { request, exchange, if_unused });
        assert_eq!(denied(delete), is_denied);
    }
}

#[test]
fn binding_needs_write_on_the_target_and_read_on_the_source() {
    for (write, read, is_denied) in
        [("q|y", "x", false), ("", "x", true), ("q|y", "", true), ("x", "q|y", true)]
    {
        let (_world, mut client) = world_for("", write, read);
        assert_eq!(denied(client.try_ask(bind_queue)), is_denied, "{write} {read}");
        assert_eq!(denied(client.try_ask(bind_exchange)), is_denied, "{write} {read}");
    }
}

#[test]
fn consuming_getting_and_purging_need_read() {
    for (read, is_denied) in [("q", false), ("x", true)] {
        let (_world, mut client) = world_for("", "", read);
        assert_eq!(denied(client.try_ask(consume)), is_denied);
        let purge =
            client.try_ask(|request| Command::PurgeQueue { request, queue: "q".to_owned() });
        assert_eq!(denied(purge), is_denied);
        let get = client.try_ask(|request| Command::Get {
            request,
            queue: "q".to_owned(),
            no_ack: true,
            consumer: ConsumerId(9),
        });
        assert_eq!(denied(get), is_denied);
    }
}

#[test]
fn publishing_needs_write_on_the_exchange_and_a_change_takes_effect_at_once() {
    let (world, mut client) = world_for("", "x", "");
    client.events();
    client.publish("x", "k", "m");
    assert!(client.events().is_empty());
    allow(&world, "", "y", "");
    client.publish("x", "k", "m");
    let events = client.events();
    assert!(
        matches!(&events[..], [Event::PublishRefused { refusal, .. }]
            if refusal.kind == RefusalKind::Denied),
        "{events:?}"
    );
}

#[test]
fn publishing_to_the_default_exchange_needs_write_on_amq_default() {
    for (write, is_denied) in [("^q$", true), (r"amq\.default", false)] {
        let (_world, mut client) = world_for("", write, "");
        client.events();
        client.publish("", "q", "m");
        assert_eq!(!client.events().is_empty(), is_denied, "{write}");
    }
}

#[test]
fn a_dead_letter_exchange_needs_read_on_the_queue_and_write_on_the_exchange() {
    for (write, read, is_denied) in
        [("dlx", "new", false), ("dlx", "", true), ("", "new", true), ("new", "dlx", true)]
    {
        let (_world, mut client) = world_for("new", write, read);
        let dlx = [("x-dead-letter-exchange", text("dlx"))];
        let declared = try_declare(&mut client, "new", &dlx, |_| ());
        assert_eq!(denied(declared), is_denied, "write {write}, read {read}");
    }
}

#[test]
fn an_alternate_exchange_needs_read_on_the_exchange_and_write_on_the_alternate() {
    for (write, read, is_denied) in [("y", "new", false), ("y", "", true), ("", "new", true)] {
        let (_world, mut client) = world_for("new", write, read);
        let declared = client.try_ask(|request| {
            let declare = declare_exchange(request, "new", "direct");
            let Command::DeclareExchange(declare) = declare else { panic!("{declare:?}") };
            let arguments = vec![("alternate-exchange".to_owned(), text("y"))];
            Command::DeclareExchange(Box::new(DeclareExchange { arguments, ..*declare }))
        });
        assert_eq!(denied(declared), is_denied, "write {write}, read {read}");
    }
}

#[test]
fn an_expression_is_found_anywhere_in_a_name_unless_it_is_anchored() {
    let (_world, mut client) = world_for("^tut-", "", "");
    assert!(!denied(try_declare(&mut client, "tut-1", &[], |_| ())));
    assert!(denied(try_declare(&mut client, "my-tut-1", &[], |_| ())));
    let (_world, mut client) = world_for("^q$", "", "");
    assert!(denied(try_declare(&mut client, "q2", &[], |_| ())));
    assert!(denied(try_declare(&mut client, "aq", &[], |_| ())));
}

#[test]
fn whether_something_exists_is_told_to_those_with_a_right_to_it_only() {
    for (configure, write, read) in [("^q$", "", ""), ("", "^q$", ""), ("", "", "^q$")] {
        let (_world, mut client) = world_for(configure, write, read);
        let passive = |declare: &mut polymq_contract::DeclareQueue| declare.passive = true;
        assert!(!denied(try_declare(&mut client, "q", &[], passive)));
        let refused = |found: Result<Answer, Refusal>| found.unwrap_err();
        let mut told = Vec::new();
        // One is there, the other is not.
        for exchange in ["x", "nowhere"] {
            let declare = client.try_ask(|request| {
                let declare = declare_exchange(request, exchange, "direct");
                let Command::DeclareExchange(declare) = declare else { panic!("{declare:?}") };
                Command::DeclareExchange(Box::new(DeclareExchange { passive: true, ..*declare }))
            });
            let refusal = refused(declare);
            told.push((refusal.kind, refusal.text.replace(&format!("'{exchange}'"), "?")));
        }
        assert_eq!(told[0], told[1]);
        assert_eq!(told[0].0, RefusalKind::Denied);
    }
}

#[test]
fn names_of_virtual_hosts_are_fully_separate() {
    let world = World::new();
    let second = VhostName::new("second").unwrap();
    world.broker.create_vhost(second.clone());
    assert_eq!(
        world.try_connect_to(Some("second"), "guest").err().unwrap().kind,
        RefusalKind::Denied
    );
    let guest = UserName::new("guest").unwrap();
    world.broker.put_permission(second, guest, PermissionRecord::all(), true).unwrap();
    let mut here = world.connect();
    let mut there = world.try_connect_to(Some("second"), "guest").unwrap();
    here.queue("q");
    here.exchange("x", "fanout");
    let refused = try_declare(&mut there, "q", &[], |declare| declare.passive = true);
    assert_eq!(kind_of(refused), RefusalKind::NotFound);
    there.queue("q");
    here.publish("", "q", "here");
    there.publish("", "q", "there");
    assert_eq!(here.get("q").as_deref(), Some("here"));
    assert_eq!(there.get("q").as_deref(), Some("there"));
    let missing = world.try_connect_to(Some("third"), "guest").err().unwrap();
    assert_eq!(missing.kind, RefusalKind::Denied, "as if it were not his");
}

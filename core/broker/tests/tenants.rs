//! Limits of virtual hosts and users, and what is known about virtual hosts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_broker::{UserLimits, VhostLimits, VhostRecord, limit_from};
use polymq_contract::{
    Answer, Command, Consume, DeclareQueue, Event, OpenClientSession, Refusal, RefusalKind,
};
use polymq_model::{RequestId, Table, UserName, Value, VhostName};
use world::{Client, World, consume_of, declare_queue, kind_of, message, session, will};

fn root() -> VhostName {
    VhostName::new("/").unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn limit_vhost(world: &World, connections: i64, queues: i64) {
    let limits = VhostLimits {
        connections_max: limit_from(connections),
        queues_max: limit_from(queues),
        ..VhostLimits::default()
    };
    world.broker.set_vhost_limits(&root(), limits).unwrap();
}

fn limit_user(world: &World, name: &str, connections: i64, channels: i64) {
    let limits =
        UserLimits { connections_max: limit_from(connections), channels_max: limit_from(channels) };
    world.broker.set_user_limits(&user(name), limits).unwrap();
}

fn open_channel(client: &mut Client) -> Result<Answer, Refusal> {
    client.try_ask(|request| Command::OpenChannel { request, channel: 1 })
}

fn declare(client: &mut Client, name: &str) -> Result<Answer, Refusal> {
    client.try_ask(|request| declare_queue(request, name, &[]))
}

#[test]
fn a_vhost_takes_as_many_connections_as_its_limit() {
    let world = World::new();
    limit_vhost(&world, 2, -1);
    let first = world.connect();
    let _second = world.connect_as("other");
    assert_eq!(world.try_connect_as("guest").err().unwrap().kind, RefusalKind::Limit);
    first.disconnect();
    let _third = world.connect();
    assert_eq!(world.broker.vhosts()[0].connections, 2);
}

#[test]
fn zero_blocks_and_a_negative_limit_is_none() {
    let world = World::new();
    limit_vhost(&world, 0, 0);
    assert_eq!(world.try_connect_as("guest").err().unwrap().kind, RefusalKind::Limit);
    limit_vhost(&world, -1, 0);
    let mut client = world.connect();
    assert_eq!(kind_of(declare(&mut client, "q")), RefusalKind::Limit);
    limit_vhost(&world, -1, -1);
    declare(&mut client, "q").unwrap();
}

#[test]
fn a_vhost_takes_as_many_queues_as_its_limit() {
    let world = World::new();
    limit_vhost(&world, -1, 2);
    let mut client = world.connect();
    client.queue("a");
    client.queue("b");
    assert_eq!(kind_of(declare(&mut client, "c")), RefusalKind::Limit);
    // One that is there already is no new one.
    client.queue("b");
    client.ask(|request| Command::DeleteQueue {
        request,
        queue: "a".into(),
        if_unused: false,
        if_empty: false,
    });
    client.queue("c");
}

#[test]
fn queues_of_client_sessions_count_too() {
    let world = World::new();
    limit_vhost(&world, -1, 0);
    let mut client = world.connect();
    client.open(session("meter", true, 60));
    client.subscribe("direct/#", 0);
    client.subscribe("kept/#", 1);
    let kinds: Vec<_> = client
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Answered { answer, .. } => Some(answer.err().map(|e| e.kind)),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [None, Some(RefusalKind::Limit)]);
}

#[test]
fn a_user_has_as_many_connections_as_its_limit() {
    let world = World::new();
    limit_user(&world, "guest", 1, -1);
    let first = world.connect();
    assert_eq!(world.try_connect_as("guest").err().unwrap().kind, RefusalKind::Limit);
    let _other = world.connect_as("other");
    first.disconnect();
    world.connect();
}

#[test]
fn a_user_has_as_many_channels_as_its_limit_over_all_connections() {
    let world = World::new();
    limit_user(&world, "guest", -1, 2);
    let (mut one, mut two) = (world.connect(), world.connect());
    open_channel(&mut one).unwrap();
    open_channel(&mut two).unwrap();
    assert_eq!(kind_of(open_channel(&mut two)), RefusalKind::Limit);
    one.send(Command::CloseChannel { channel: 1 });
    open_channel(&mut two).unwrap();
    two.disconnect();
    open_channel(&mut one).unwrap();
    open_channel(&mut one).unwrap();
    assert_eq!(kind_of(open_channel(&mut one)), RefusalKind::Limit);
}

fn limit_size(world: &World, message_bytes_max: Option<u64>) {
    let limits = VhostLimits { message_bytes_max, ..VhostLimits::default() };
    world.broker.set_vhost_limits(&root(), limits).unwrap();
}

#[test]
fn a_message_over_the_size_of_its_vhost_is_refused_wherever_it_goes() {
    let world = World::new();
    let (mut client, mut subscriber) = (world.connect(), world.connect());
    client.queue("q");
    client.queue_with("small", &[("x-max-message-size", Value::I32(2))]);
    subscriber.open(session("s", true, 0));
    subscriber.subscribe("t", 0);
    let mut refused = |exchange: &str, key: &str, body: &str| {
        client.events();
        client.publish(exchange, key, body);
        client.events().into_iter().find_map(|event| match event {
            Event::PublishRefused { refusal, .. } => Some((refusal.kind, refusal.text)),
            _ => None,
        })
    };
    let places = [("", "q"), ("amq.topic", "t"), ("amq.topic", "nobody")];
    for (exchange, key) in places {
        assert_eq!(refused(exchange, key, "four"), None, "{key}");
    }
    limit_size(&world, Some(3));
    let wanted = "message size 4 is larger than max-message-size 3 of its virtual host";
    for (exchange, key) in places {
        let found = refused(exchange, key, "four");
        assert_eq!(found, Some((RefusalKind::TooLarge, wanted.to_owned())), "{key}");
        assert_eq!(refused(exchange, key, "abc"), None, "{key}");
    }
    let (_, text) = refused("", "small", "abc").unwrap();
    assert!(text.contains("x-max-message-size 2 of a queue"), "{text}");
    assert_eq!(subscriber.bodies(), ["four", "abc"]);
    limit_size(&world, None);
    assert_eq!(refused("amq.topic", "t", "four"), None);
    limit_size(&world, Some(3));
    let world = world.restart();
    let mut client = world.connect();
    client.publish("", "q", "four");
    assert!(matches!(&client.events()[..], [Event::PublishRefused { .. }]));
}

#[test]
fn a_reply_and_a_will_have_the_size_of_the_vhost_too() {
    let world = World::new();
    limit_size(&world, Some(3));
    let mut asking = world.connect();
    let consume = Consume { no_ack: true, ..consume_of("amq.rabbitmq.reply-to", 1, 0) };
    let answer = asking.ask(|request| Command::Consume(Box::new(Consume { request, ..consume })));
    let Answer::Consuming { reply_name: Some(name) } = answer else { panic!("{answer:?}") };
    let mut server = world.connect();
    server.publish("", &name, "four");
    server.publish("", &name, "abc");
    assert_eq!(asking.bodies(), ["abc"]);
    let mut client = world.connect();
    let mut open = |body: &str| {
        let open = OpenClientSession {
            will: will(message("amq.topic", "t", body).build(&mut Vec::new()), 0),
            ..session("s", true, 0)
        };
        client.try_ask(|request| {
            Command::OpenClientSession(Box::new(OpenClientSession { request, ..open }))
        })
    };
    assert_eq!(kind_of(open("four")), RefusalKind::TooLarge);
    open("abc").unwrap();
}

#[test]
fn limits_and_what_is_known_survive_a_restart() {
    let world = World::new();
    let record = VhostRecord {
        description: "orders".into(),
        tags: vec!["production".into()],
        default_queue_type: Some("quorum".into()),
        protected_from_deletion: true,
    };
    world.broker.put_vhost(root(), record.clone()).unwrap();
    limit_vhost(&world, 5, 7);
    limit_user(&world, "guest", 3, 4);
    let world = world.restart();
    let view = world.broker.vhosts().remove(0);
    assert_eq!(view.record, record);
    assert_eq!(
        view.limits,
        VhostLimits { connections_max: Some(5), queues_max: Some(7), ..VhostLimits::default() }
    );
    let wanted = UserLimits { connections_max: Some(3), channels_max: Some(4) };
    assert_eq!(world.broker.user_limits(&user("guest")), wanted);
    world.broker.remove_user(&user("guest"));
    let world = world.restart();
    assert_eq!(world.broker.user_limits(&user("guest")), UserLimits::default());
}

#[test]
fn limits_of_what_is_missing_are_not_found() {
    let world = World::new();
    let vhost =
        world.broker.set_vhost_limits(&VhostName::new("no").unwrap(), VhostLimits::default());
    assert_eq!(vhost.unwrap_err().kind, RefusalKind::NotFound);
    let user = world.broker.set_user_limits(&user("nobody"), UserLimits::default());
    assert_eq!(user.unwrap_err().kind, RefusalKind::NotFound);
}

#[test]
fn a_default_queue_type_is_one_that_is_there() {
    let world = World::new();
    for (kind, wanted) in [("stream", RefusalKind::NotAvailable), ("fancy", RefusalKind::Invalid)] {
        let record =
            VhostRecord { default_queue_type: Some(kind.to_owned()), ..VhostRecord::default() };
        assert_eq!(world.broker.put_vhost(root(), record).unwrap_err().kind, wanted);
    }
}

#[test]
fn queues_without_a_type_are_of_the_default_type() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("before");
    let quorum = Some("quorum".to_owned());
    let record = VhostRecord { default_queue_type: quorum, ..VhostRecord::default() };
    world.broker.put_vhost(root(), record).unwrap();
    let typed = |kind: &str| [("x-queue-type", Value::String(kind.to_owned()))];
    let declare = |client: &mut Client, name: &str, arguments: &[(&str, Value)]| {
        client.try_ask(|request| declare_queue(request, name, arguments))
    };
    client.queue("new");
    declare(&mut client, "new", &typed("quorum")).unwrap();
    assert_eq!(kind_of(declare(&mut client, "new", &typed("classic"))), RefusalKind::Conflict);
    // Queues that were there keep their type, and queues that end by themselves stay classic.
    declare(&mut client, "before", &[]).unwrap();
    declare(&mut client, "before", &typed("classic")).unwrap();
    client.ask(|request| exclusive(request, "mine"));
    declare(&mut client, "old", &typed("classic")).unwrap();
}

#[test]
fn a_deleted_vhost_takes_everything_in_it_along() {
    let mut world = World::new();
    let mut client = world.connect();
    client.exchange("x", "topic");
    client.queue("q");
    client.bind("x", "q", "#");
    client.publish("x", "k", "m");
    client.open(session("meter", true, 60));
    client.subscribe("kept/#", 1);
    world.broker.delete_vhost(&root()).unwrap();
    let told = client.events().into_iter().any(|event| matches!(event, Event::Closing { .. }));
    assert!(told, "connections are told");
    assert_eq!(world.try_connect_as("other").err().unwrap().kind, RefusalKind::Denied);
    world.pass(100);
    let again = world.broker.put_vhost(root(), VhostRecord::default());
    assert_eq!(again.unwrap_err().kind, RefusalKind::Conflict, "it still has a connection");
    client.disconnect();
    world.pass(100);
    assert!(world.broker.vhosts().is_empty());
    // The world of these tests makes the virtual host anew, and there is nothing in it.
    let world = world.restart();
    let view = world.broker.vhosts().remove(0);
    assert_eq!((view.queues, world.broker.session_counts()), (0, (0, 0)));
    let mut client = world.connect();
    let found = client.try_ask(|request| world::declare_exchange(request, "x", "fanout"));
    found.expect("another exchange of this name can be declared");
}

#[test]
fn a_protected_vhost_is_not_deleted() {
    let world = World::new();
    let record = VhostRecord { protected_from_deletion: true, ..VhostRecord::default() };
    world.broker.put_vhost(root(), record).unwrap();
    let refused = world.broker.delete_vhost(&root()).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Conflict);
    world.connect();
}

fn exclusive(request: RequestId, name: &str) -> Command {
    Command::DeclareQueue(Box::new(DeclareQueue {
        request,
        queue: name.to_owned(),
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: false,
        arguments: Table::new(),
    }))
}

//! Section 13: topic permissions, on top of those of exchanges.

use polymq_broker::{Manager, Principal, TopicPermissionRecord, TopicSyntax, UserRecord};
use polymq_contract::{
    Answer, BindExchange, BindQueue, Command, DeclareExchange, Event, Refusal, RefusalKind,
    Subscription, SubscriptionTarget,
};
use polymq_model::{ConsumerId, Message, RequestId, Table, UserName};

use crate::{
    counter, root, text, try_declare,
    world::{
        Client, World, declare_exchange, message, publish_of, session, topic_subscription, will,
    },
};

pub(crate) fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

/// An administrator.
pub(crate) fn manager(world: &World) -> Manager {
    let record = UserRecord {
        password_hash: String::new(),
        scram: String::new(),
        tags: vec!["administrator".to_owned()],
        loopback_only: false,
    };
    world.broker.put_user(user("boss"), record, true);
    world.broker.manage(&Principal::of_user(user("boss")), "test")
}

pub(crate) fn bound(world: &World, exchange: &str, write: &str, read: &str, syntax: TopicSyntax) {
    let record = TopicPermissionRecord { write: write.into(), read: read.into(), syntax };
    manager(world).put_topic_permission(&root(), &user("other"), exchange, record).unwrap();
}

/// A world in which the user `other` may write and read only these topics of `amq.topic`.
fn world_for(write: &str, read: &str) -> World {
    let world = World::new();
    bound(&world, "amq.topic", write, read, TopicSyntax::Slash);
    world
}

fn is_denied(found: Result<Answer, Refusal>) -> bool {
    match found {
        Ok(_) => false,
        Err(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::Denied, "{}", refusal.text);
            true
        }
    }
}

/// Whether a publish was refused for lack of rights.
pub(crate) fn publish_is_denied(client: &mut Client, exchange: &str, key: &str) -> bool {
    client.publish(exchange, key, "m");
    let events = client.events();
    let refused = events.iter().find_map(|event| match event {
        Event::PublishRefused { refusal, .. } => Some(refusal.kind),
        _ => None,
    });
    assert!(refused.is_none_or(|kind| kind == RefusalKind::Denied));
    refused.is_some()
}

fn subscribe_is_denied(client: &mut Client, subscription: Subscription) -> bool {
    is_denied(client.try_ask(|request| Command::Subscribe {
        request,
        subscription: Box::new(subscription),
        resume: false,
    }))
}

fn mqtt(world: &World, client_id: &str) -> Client {
    let mut client = world.connect_as("other");
    client.open(session(client_id, true, 3600));
    client
}

fn retained(key: &str) -> Message {
    let mut new = message("amq.topic", key, "m");
    new.retain = true;
    new.build(&mut Vec::new())
}

#[test]
fn publishing_needs_the_topic_on_every_exchange_that_has_a_topic_permission() {
    let world = world_for("1000/#", "");
    let mut client = world.connect_as("other");
    client.exchange("x", "fanout");
    bound(&world, "x", "a/+", "", TopicSyntax::Slash);
    assert!(!publish_is_denied(&mut client, "amq.topic", "1000.temp"));
    assert!(!publish_is_denied(&mut client, "amq.topic", "1000"));
    assert!(publish_is_denied(&mut client, "amq.topic", "1001.temp"));
    assert!(!publish_is_denied(&mut client, "x", "a.b"));
    assert!(publish_is_denied(&mut client, "x", "a.b.c"));
    // Exchanges and users without one are as before.
    assert!(!publish_is_denied(&mut client, "amq.direct", "anything"));
    assert!(!publish_is_denied(&mut world.connect(), "amq.topic", "1001.temp"));
}

#[test]
fn every_key_of_a_message_needs_its_topic() {
    let world = world_for("a/#", "");
    let mut client = world.connect_as("other");
    let send = |client: &mut Client, extra: &str| {
        let mut new = message("amq.topic", "a.b", "m");
        new.extra_keys = vec![extra.into()];
        client.send(publish_of(new.build(&mut Vec::new()), 0));
        !client.events().is_empty()
    };
    assert!(!send(&mut client, "a.c"));
    assert!(send(&mut client, "secret"));
}

#[test]
fn a_transaction_with_a_topic_that_is_denied_does_nothing() {
    let world = world_for("a/#", "");
    let mut reader = world.connect();
    reader.queue("q");
    reader.bind("amq.topic", "q", "#");
    let mut client = world.connect_as("other");
    let publishes = ["a.b", "secret"].map(|key| crate::in_transaction("amq.topic", key, "m"));
    client.send(Command::Commit(Box::new(polymq_contract::Transaction {
        request: RequestId(77),
        publishes: publishes.into(),
        settlements: Vec::new(),
    })));
    let refused = client.events().into_iter().find_map(|event| match event {
        Event::PublishRefused { refusal, .. } => Some(refusal.kind),
        _ => None,
    });
    assert_eq!(refused, Some(RefusalKind::Denied));
    assert_eq!(reader.get("q"), None);
}

#[test]
fn a_subscription_must_lie_wholly_inside_what_may_be_read() {
    for (filter, denied) in [
        ("1000/#", false),
        ("1000/+/temp", false),
        ("1000", false),
        ("#", true),
        ("+/temp", true),
        ("1001/#", true),
        ("$SYS/#", true),
    ] {
        let world = world_for("", "1000/#");
        let mut client = mqtt(&world, "c");
        for qos in 0..2 {
            let subscription = topic_subscription(filter, qos);
            assert_eq!(subscribe_is_denied(&mut client, subscription), denied, "{filter}");
        }
        let mut pattern = String::new();
        polymq_model::topic::swap_separators(filter, &mut pattern);
        let share = Subscription {
            filter: format!("$share/g/{filter}"),
            target: SubscriptionTarget::Share {
                queue: "share".into(),
                exchange: "amq.topic".into(),
                pattern,
            },
            consumer: ConsumerId(9),
            ..topic_subscription(filter, 1)
        };
        assert_eq!(subscribe_is_denied(&mut client, share), denied, "share of {filter}");
    }
}

#[test]
fn a_binding_must_lie_wholly_inside_what_may_be_read() {
    let world = world_for("", "1000/#");
    let mut client = world.connect_as("other");
    client.queue("q");
    client.exchange("x", "fanout");
    bound(&world, "x", "", "1000/#", TopicSyntax::Slash);
    bound(&world, "amq.direct", "", "a\nb", TopicSyntax::Dot);
    let mut bind = |exchange: &str, key: &str| {
        let (exchange, key) = (exchange.to_owned(), key.to_owned());
        is_denied(client.try_ask(|request| {
            let (queue, arguments) = ("q".to_owned(), Table::new());
            Command::BindQueue(Box::new(BindQueue { request, queue, exchange, key, arguments }))
        }))
    };
    assert!(!bind("amq.topic", "1000.#") && !bind("amq.topic", "1000.*.temp"));
    assert!(bind("amq.topic", "#") && bind("amq.topic", "*.temp"));
    assert!(!bind("amq.direct", "a") && bind("amq.direct", "c"));
    // A fanout exchange takes every topic, whatever the key of the binding says.
    assert!(bind("x", "1000.#"));
}

#[test]
fn what_leads_to_an_exchange_needs_its_topics_as_a_publish_does() {
    let world = world_for("a/#", "#");
    let mut client = world.connect_as("other");
    client.exchange("topics", "topic");
    client.exchange("all", "fanout");
    let mut bind = |source: &str, key: &str| {
        let (source, key) = (source.to_owned(), key.to_owned());
        is_denied(client.try_ask(|request| {
            let (destination, arguments) = ("amq.topic".to_owned(), Table::new());
            let bind = BindExchange { request, destination, source, key, arguments };
            Command::BindExchange(Box::new(bind))
        }))
    };
    assert!(!bind("topics", "a.*") && bind("topics", "#"));
    assert!(bind("all", "a"));
    let alternate = client.try_ask(|request| {
        let declare = declare_exchange(request, "new", "direct");
        let Command::DeclareExchange(declare) = declare else { panic!("{declare:?}") };
        let arguments = vec![("alternate-exchange".to_owned(), text("amq.topic"))];
        Command::DeclareExchange(Box::new(DeclareExchange { arguments, ..*declare }))
    });
    assert!(is_denied(alternate));
    let dead = |key: Option<&str>| {
        let mut arguments = vec![("x-dead-letter-exchange", text("amq.topic"))];
        arguments.extend(key.map(|key| ("x-dead-letter-routing-key", text(key))));
        arguments
    };
    assert!(is_denied(try_declare(&mut client, "q1", &dead(None), |_| ())));
    assert!(is_denied(try_declare(&mut client, "q1", &dead(Some("secret")), |_| ())));
    assert!(!is_denied(try_declare(&mut client, "q1", &dead(Some("a.dead")), |_| ())));
}

#[test]
fn a_message_is_looked_at_again_when_it_is_delivered() {
    // A fanout exchange brings every topic, so that the filter alone keeps nothing out.
    for qos in 0..2 {
        let world = World::new();
        let mut maker = world.connect();
        maker.exchange("x", "fanout");
        bound(&world, "x", "", "#", TopicSyntax::Slash);
        let mut client = mqtt(&world, "c");
        let target = SubscriptionTarget::Topic { exchange: "x".into(), pattern: "public.#".into() };
        let subscription = Subscription { target, ..topic_subscription("public/#", qos) };
        assert!(!subscribe_is_denied(&mut client, subscription));
        maker.publish("x", "secret.a", "before");
        assert_eq!(client.bodies(), ["before"]);
        bound(&world, "x", "", "public/#", TopicSyntax::Slash);
        maker.publish("x", "secret.a", "secret");
        maker.publish("x", "public.a", "public");
        assert_eq!(client.bodies(), ["public"], "quality of service {qos}");
        assert_eq!(counter(&world, "dropped_permission"), 1);
    }
}

#[test]
fn retained_messages_are_kept_from_those_who_may_not_read_them() {
    let world = world_for("", "a/#\nb/+");
    let mut maker = world.connect();
    for key in ["a.x", "b.x", "c.x", "b.x.y"] {
        maker.send(publish_of(retained(key), 0));
    }
    let mut client = mqtt(&world, "c");
    client.subscribe("a/#", 1);
    client.subscribe("b/+", 0);
    client.subscribe("#", 1);
    let mut found: Vec<_> =
        client.deliveries().iter().map(|d| d.message.key().to_owned()).collect();
    found.sort();
    assert_eq!(found, ["a.x", "b.x"]);
    let recall = client.try_ask(|request| Command::Recall {
        request,
        exchange: "amq.topic".into(),
        pattern: "#".into(),
        count_max: 10,
    });
    assert!(is_denied(recall));
}

#[test]
fn forgetting_a_retained_message_needs_the_topic_as_publishing_it_does() {
    let world = world_for("a/#", "#");
    let mut maker = world.connect();
    for key in ["a.x", "b.x"] {
        maker.send(publish_of(retained(key), 0));
    }
    let who = Principal::of_user(user("other"));
    let forget = |key: &str| world.broker.forget_retained(&who, &root(), key, world.now());
    forget("a.x").unwrap();
    assert_eq!(forget("b.x").unwrap_err().kind, RefusalKind::Denied);
}

#[test]
fn dead_letters_and_wills_are_kept_from_those_who_may_not_read_them() {
    let world = World::new();
    let mut maker = world.connect();
    maker.exchange("x", "fanout");
    let target = SubscriptionTarget::Topic { exchange: "x".into(), pattern: "#".into() };
    let mut client = mqtt(&world, "c");
    let subscription = Subscription { target, ..topic_subscription("#", 0) };
    assert!(!subscribe_is_denied(&mut client, subscription));
    bound(&world, "x", "", "#\n$none/#", TopicSyntax::Slash);
    // Dead letters of a queue whose maker may write everything.
    let dead = [("x-dead-letter-exchange", text("x"))];
    maker.queue_with("q", &[("x-max-length", polymq_model::Value::I64(0)), dead[0].clone()]);
    maker.publish("", "q", "dead");
    assert_eq!(client.bodies(), ["dead"]);
    let mut dying = world.connect();
    let message = message("x", "$secret.a", "will").build(&mut Vec::new());
    let open =
        polymq_contract::OpenClientSession { will: will(message, 0), ..session("dying", true, 0) };
    dying.open(open);
    dying.disconnect();
    assert_eq!(client.bodies(), Vec::<String>::new());
    assert_eq!(counter(&world, "dropped_permission"), 1);
}

#[test]
fn a_will_needs_its_topic_when_it_is_published() {
    let world = world_for("a/{client_id}/#", "");
    let mut reader = world.connect();
    reader.queue("q");
    reader.bind("amq.topic", "q", "#");
    for (client_id, key) in [("c1", "a.c1.will"), ("c1", "a.c2.will"), ("c1", "b")] {
        let message = message("amq.topic", key, key).build(&mut Vec::new());
        let mut client = world.connect_as("other");
        let open = session(client_id, true, 0);
        client.open(polymq_contract::OpenClientSession { will: will(message, 0), ..open });
        client.disconnect();
    }
    assert_eq!(reader.get("q").as_deref(), Some("a.c1.will"));
    assert_eq!(reader.get("q"), None);
}

#[test]
fn a_delayed_publish_needs_its_topic() {
    let world = world_for("a/#", "");
    let mut client = world.connect_as("other");
    let mut publish = crate::in_transaction("amq.topic", "secret", "m");
    publish.delay = Some(polymq_model::delay::Delay::For(1000));
    client.send(Command::Publish(publish));
    assert!(matches!(client.events()[..], [Event::PublishRefused { .. }]));
}

#[test]
fn placeholders_stand_for_user_and_client() {
    let world = world_for("of/{username}/{client_id}/#", "of/{username}/{client_id}/#");
    let mut client = mqtt(&world, "c1");
    assert!(!publish_is_denied(&mut client, "amq.topic", "of.other.c1.x"));
    assert!(publish_is_denied(&mut client, "amq.topic", "of.other.c2.x"));
    assert!(!subscribe_is_denied(&mut client, topic_subscription("of/other/c1/+", 0)));
    assert!(subscribe_is_denied(&mut client, topic_subscription("of/other/+/x", 0)));
    // An id that looks like a pattern stands for nothing.
    let mut client = mqtt(&world, "#");
    assert!(publish_is_denied(&mut client, "amq.topic", "of.other.#.x"));
    assert!(subscribe_is_denied(&mut client, topic_subscription("of/other/#", 0)));
    // Without a client id there is nothing to stand for.
    let mut client = world.connect_as("other");
    assert!(publish_is_denied(&mut client, "amq.topic", "of.other..x"));
}

#[test]
fn topic_permissions_of_rabbitmq_are_expressions_on_the_key() {
    let world = World::new();
    bound(&world, "amq.topic", r"^{username}\.", r"^(a|b)\..*$", TopicSyntax::Regex);
    let mut client = mqtt(&world, "c");
    assert!(!publish_is_denied(&mut client, "amq.topic", "other.x"));
    assert!(publish_is_denied(&mut client, "amq.topic", "x.other.x"));
    assert!(!subscribe_is_denied(&mut client, topic_subscription("a/+", 0)));
    assert!(!subscribe_is_denied(&mut client, topic_subscription("b/+/x", 1)));
    assert!(subscribe_is_denied(&mut client, topic_subscription("+/x", 0)));
}

#[test]
fn topic_permissions_outlive_a_restart_and_go_with_user_and_virtual_host() {
    let world = world_for("a/#", "").restart();
    assert!(publish_is_denied(&mut world.connect_as("other"), "amq.topic", "b"));
    manager(&world).remove_topic_permissions(&root(), &user("other"), None).unwrap();
    assert!(!publish_is_denied(&mut world.connect_as("other"), "amq.topic", "b"));
    let world = world.restart();
    assert!(!publish_is_denied(&mut world.connect_as("other"), "amq.topic", "b"));
    bound(&world, "amq.topic", "a/#", "", TopicSyntax::Slash);
    world.broker.remove_user(&user("other"));
    assert!(world.restart().broker.access().topic_permissions().is_empty());
}

#[test]
fn a_default_exchange_with_a_topic_permission_bounds_queues() {
    let world = World::new();
    bound(&world, "amq.default", "q.*", "", TopicSyntax::Dot);
    let mut client = world.connect_as("other");
    assert!(!publish_is_denied(&mut client, "", "q.1"));
    assert!(publish_is_denied(&mut client, "", "p.1"));
}

#[test]
fn a_binding_is_allowed_beforehand_as_it_is_when_it_is_made() {
    let world = world_for("a/#", "a/#");
    let mut client = world.connect_as("other");
    client.queue("q");
    client.exchange("x", "topic");
    let who = Principal::of_user(user("other"));
    for (source, destination, to_queue, key, may) in [
        ("amq.topic", "q", true, "a.b", true),
        ("amq.topic", "q", true, "#", false),
        ("x", "q", true, "#", true),
        ("x", "amq.topic", false, "a.*", true),
        ("x", "amq.topic", false, "b", false),
    ] {
        let binding = polymq_broker::BindingView {
            vhost: root(),
            source: source.into(),
            destination: destination.into(),
            to_queue,
            key: key.into(),
            arguments: Table::new().into(),
        };
        let told = world.broker.check_binding_rights(&who, &binding, true);
        assert_eq!(told.is_ok(), may, "{binding:?}: {told:?}");
        // Taking it away needs no topics.
        world.broker.check_binding_rights(&who, &binding, false).unwrap();
        let made = match to_queue {
            true => client.try_ask(|request| {
                Command::BindQueue(Box::new(BindQueue {
                    request,
                    queue: destination.into(),
                    exchange: source.into(),
                    key: key.into(),
                    arguments: Table::new(),
                }))
            }),
            false => client.try_ask(|request| {
                Command::BindExchange(Box::new(BindExchange {
                    request,
                    destination: destination.into(),
                    source: source.into(),
                    key: key.into(),
                    arguments: Table::new(),
                }))
            }),
        };
        assert_eq!(is_denied(made), !may, "{binding:?}");
    }
}

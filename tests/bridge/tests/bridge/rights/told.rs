//! How a client learns that it may not, or may no longer.

use polymq_broker::{Credentials, TopicSyntax, UserChange};

use super::{USER, allow, bound, manager, user};
use crate::{
    amqp::{Amqp, Props},
    mqtt::{Mqtt, Properties, Version, publish},
    stomp::Stomp,
    world::World,
    xmpp_client::{CLIENT, Xmpp},
};

/// The queue `q`, a client of each protocol that consumes from it, and nobody else.
fn queue(world: &World) {
    Amqp::connect(world).declare("q");
}

#[test]
fn amqp_consumer_is_cancelled_when_its_user_may_not_read_any_more() {
    let world = World::new();
    queue(&world);
    let mut amqp = Amqp::connect_as(&world, USER);
    amqp.consume("q");
    amqp.publish("", "q", &Props::default(), b"m");
    assert_eq!(amqp.unsettled().len(), 1);
    allow(&world, ".*", ".*", "^other$");
    // This client has not said that it understands `basic.cancel`, so its channel is closed.
    let (code, text) = amqp.closed().expect("the channel is closed");
    assert_eq!(code, 403);
    assert!(text.contains("may no longer read"), "{text}");
    let mut guest = Amqp::connect(&world);
    guest.consume("q");
    assert!(guest.delivery().redelivered);
}

#[test]
fn mqtt_client_is_told_not_authorized() {
    let world = World::new();
    queue(&world);
    for filter in ["$queue/q", "b/#"] {
        let mut mqtt = Mqtt::connect_as(&world, Version::V5, "c", USER, &[]);
        mqtt.subscribe(filter, 1);
        mqtt.subscribe("a/#", 1);
        match filter {
            "b/#" => bound(&world, "", "a/#", TopicSyntax::Slash),
            _ => allow(&world, ".*", ".*", "^amq"),
        }
        let (first, body) = mqtt.answer().expect("DISCONNECT");
        assert_eq!((first, body[0]), (0xE0, 0x87), "{filter}");
        assert!(!mqtt.is_connected());
        let mut mqtt = Mqtt::connect_as(&world, Version::V5, "c", USER, &[]);
        mqtt.subscribe("a/#", 1);
        assert_eq!(mqtt.subscribe_with(filter, 1, None), 0x87);
        mqtt.cut();
    }
}

#[test]
fn mqtt_3_client_is_closed() {
    let world = World::new();
    let mut mqtt = Mqtt::connect_as(&world, Version::V311, "c", USER, &[]);
    mqtt.subscribe("b/#", 0);
    bound(&world, "", "a/#", TopicSyntax::Slash);
    assert!(!mqtt.is_connected());
    let mut mqtt = Mqtt::connect_as(&world, Version::V311, "c", USER, &[]);
    assert_eq!(mqtt.subscribe_with("b/#", 1, None), 0x80);
}

#[test]
fn stomp_client_gets_an_error() {
    let world = World::new();
    queue(&world);
    let mut stomp = Stomp::connect_as(&world, "1.2", USER);
    stomp.subscribe("/amq/queue/q");
    allow(&world, ".*", ".*", "^other$");
    let told = stomp.error();
    assert!(told.contains("may not read it any more"), "{told}");
}

#[test]
fn stomp_subscription_of_topics_ends_with_the_right_to_them() {
    let world = World::new();
    let mut stomp = Stomp::connect_as(&world, "1.2", USER);
    stomp.subscribe("/topic/b.#");
    bound(&world, "", "a/#", TopicSyntax::Slash);
    let told = stomp.error();
    assert!(told.contains("may not read it any more"), "{told}");
}

#[test]
fn xmpp_client_loses_queues_and_topics_and_stays() {
    let world = World::new();
    queue(&world);
    let mut xmpp = Xmpp::connect(&world, USER, "r");
    xmpp.consume("q@queues.d");
    xmpp.subscribe("a.#");
    xmpp.subscribe("b.#");
    allow(&world, ".*", ".*", "^amq");
    bound(&world, "", "a/#", TopicSyntax::Slash);
    let mut guest = Amqp::connect(&world);
    guest.publish("", "q", &Props::default(), b"m");
    guest.publish_topic("b.x", &Props::default(), b"b");
    let told = xmpp.messages();
    let event = "http://jabber.org/protocol/pubsub#event";
    let ended = told.first().and_then(|message| message.child(event, "event"));
    let ended = ended.and_then(|ended| ended.child(event, "subscription")).expect("its end");
    let (node, state) = (ended.attr("node"), ended.attr("subscription"));
    assert_eq!((told.len(), node, state), (1, Some("b.#"), Some("none")));
    guest.publish_topic("a.x", &Props::default(), b"a");
    assert_eq!(xmpp.messages().len(), 1);
    // Its mailbox is its own.
    Xmpp::connect(&world, "u1", "r").send("<message to='u2@d'><body>hi</body></message>");
    assert_eq!(xmpp.message().text_of(CLIENT, "body"), Some("hi"));
}

#[test]
fn every_client_of_a_user_goes_with_it_and_with_its_password() {
    for is_deleted in [false, true] {
        let world = World::new();
        let mut amqp = Amqp::connect_as(&world, USER);
        let mut mqtt = Mqtt::connect_as(&world, Version::V5, "c", USER, &[]);
        let mut stomp = Stomp::connect_as(&world, "1.2", USER);
        let boss = manager(&world);
        match is_deleted {
            true => boss.remove_user(&user(USER)).unwrap(),
            false => {
                let new = Credentials { password_hash: "new".into(), scram: String::new() };
                let change = UserChange { credentials: Some(new), tags: None };
                boss.put_user(&user(USER), change).map(drop).unwrap();
            }
        }
        world.settle();
        let (code, _) = amqp.closed().expect("the connection is closed");
        assert_eq!(code, 320);
        let (first, body) = mqtt.answer().expect("DISCONNECT");
        assert_eq!((first, body[0]), (0xE0, 0x98));
        assert!(stomp.error().contains("the user"));
    }
}

/// What the user says about itself in each protocol, and what of it arrives.
fn claimed(world: &World, claim: &str) -> Vec<Option<String>> {
    let mut watcher = Amqp::connect(world);
    watcher.listen("watch", "#");
    let mut seen = || {
        let deliveries = watcher.deliveries();
        assert!(deliveries.len() <= 1);
        deliveries.first().and_then(|delivery| delivery.props.user_id.clone())
    };
    let mut all = Vec::new();
    let props = Props { user_id: Some(claim.to_owned()), ..Props::persistent() };
    Amqp::connect_as(world, USER).publish_raw("amq.topic", "t", &props.encode(), b"m");
    all.push(seen());
    let properties = Properties::of_user(&[("x-mq-user", claim)]);
    let mut mqtt = Mqtt::connect_as(world, Version::V5, "c", USER, &[]);
    mqtt.publish(publish("t", b"m").with(&properties));
    all.push(seen());
    Stomp::connect_as(world, "1.2", USER).send("/topic/t", &[("user-id", claim)], b"m");
    all.push(seen());
    Xmpp::connect(world, USER, "r").send(&format!(
        "<message to='t@topics.d'><body>m</body><properties xmlns='urn:polymq:properties:1'>\
         <p f='user_id'>{claim}</p></properties></message>"
    ));
    all.push(seen());
    all
}

#[test]
fn nobody_speaks_for_another_without_the_tag_in_any_protocol() {
    let world = World::new();
    assert_eq!(claimed(&world, USER), vec![Some(USER.to_owned()); 4]);
    let world = World::new();
    assert_eq!(claimed(&world, "u1"), vec![None; 4]);
    let world = World::new();
    let tags = Some(vec!["impersonator".to_owned()]);
    manager(&world).put_user(&user(USER), UserChange { credentials: None, tags }).unwrap();
    assert_eq!(claimed(&world, "u1"), vec![Some("u1".to_owned()); 4]);
}

#[test]
fn a_refused_topic_is_told_in_the_terms_of_each_protocol() {
    let world = World::new();
    bound(&world, "a/#", "a/#", TopicSyntax::Slash);
    let mut amqp = Amqp::connect_as(&world, USER);
    amqp.publish_raw("amq.topic", "secret", &[0, 0], b"m");
    let (code, text) = amqp.closed().expect("the channel is closed");
    assert_eq!(code, 403);
    assert!(text.contains("topic 'secret' in exchange 'amq.topic'"), "{text}");
    let mut mqtt = Mqtt::connect_as(&world, Version::V5, "c", USER, &[]);
    assert_eq!(mqtt.publish(publish("secret", b"m")), 0x87);
    assert_eq!(mqtt.publish(publish("secret", b"m").qos(2)), 0x87);
    assert_eq!(mqtt.subscribe_with("#", 0, None), 0x87);
    assert!(mqtt.is_connected());
    let mut mqtt = Mqtt::connect_as(&world, Version::V311, "d", USER, &[]);
    assert_eq!(mqtt.subscribe_with("#", 0, None), 0x80);
    mqtt.send(publish("secret", b"m"));
    assert!(!mqtt.is_connected());
    let mut stomp = Stomp::connect_as(&world, "1.2", USER);
    stomp.send("/topic/secret", &[("receipt", "r")], b"m");
    assert!(stomp.error().contains("refused for user 'u2'"));
    let mut xmpp = Xmpp::connect(&world, USER, "r");
    let answer = xmpp.publish("secret", "i", "<x xmlns='urn:x'/>", "");
    assert_eq!(answer.attr("type"), Some("error"), "{answer:?}");
    let error = answer.child(CLIENT, "error").unwrap();
    let stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";
    assert!(error.child(stanzas, "forbidden").is_some(), "{error:?}");
}

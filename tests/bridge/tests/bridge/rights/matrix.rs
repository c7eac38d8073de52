//! One address by every protocol and every path: the decision is the same, and it is the one that
//! management tells.

use polymq_broker::{PermissionQuestion, TopicSyntax};
use serde_json::json;

use super::{USER, bound, manager, root, user};
use crate::{
    amqp::{Amqp, Field, Props, table},
    http::Http,
    mqtt::{Mqtt, Publish, Version, publish},
    stomp::Stomp,
    wire::{put_long, put_short},
    world::World,
    xmpp_client::Xmpp,
};

/// Rules in every syntax. Each allows `ok`.
const RULES: [(&str, TopicSyntax); 6] = [
    ("a/#\nok", TopicSyntax::Slash),
    ("a.*\nok", TopicSyntax::Dot),
    ("{username}.#\nok", TopicSyntax::Dot),
    (r"^(a\.|ok$)", TopicSyntax::Regex),
    (r"^(?!secret)", TopicSyntax::Regex),
    ("ok", TopicSyntax::Slash),
];

const KEYS: [&str; 5] = ["a", "a.b", "a.b.c", "u2.x", "secret.a"];

fn slash(key: &str) -> String {
    key.replace('.', "/")
}

fn mqtt_as_user(world: &World, client_id: &str, version: Version) -> Mqtt {
    Mqtt::connect_as(world, version, client_id, USER, &[])
}

fn props(header: &str, value: Field) -> Vec<u8> {
    Props::with_headers(&[(header, value)]).encode()
}

fn bind_exchange(amqp: &mut Amqp, destination: &str, source: &str, key: &str) {
    let mut arguments = vec![0, 0];
    for text in [destination, source, key] {
        put_short(&mut arguments, text.as_bytes());
    }
    arguments.push(0);
    put_long(&mut arguments, &table(&[]));
    amqp.method(1, 40, 30, &arguments);
}

/// Puts what is published to it on `amq.topic` with a key of its own.
fn declare_dying(amqp: &mut Amqp, key: &str) {
    amqp.ask_for_queue(
        "dying",
        &[
            ("x-max-length", Field::I32(0)),
            ("x-dead-letter-exchange", Field::text("amq.topic")),
            ("x-dead-letter-routing-key", Field::text(key)),
        ],
    );
}

type Write = fn(&World, &str);

/// Ways in which the user gets a message to a topic.
const WRITES: &[(&str, Write)] = &[
    ("amqp", |world, key| {
        Amqp::connect_as(world, USER).publish_raw("amq.topic", key, &[0, 0], b"m");
    }),
    ("amqp, an answer to an address", |world, key| {
        let to = format!("amq.address:/exchanges/amq.topic/{key}");
        Amqp::connect_as(world, USER).publish_raw("", &to, &[0, 0], b"m");
    }),
    ("amqp, one key more", |world, key| {
        let extra = props("CC", Field::List(vec![Field::text(key)]));
        Amqp::connect_as(world, USER).publish_raw("amq.topic", "ok", &extra, b"m");
    }),
    ("amqp, later", |world, key| {
        let delay = props("x-delay", Field::I32(1000));
        Amqp::connect_as(world, USER).publish_raw("amq.topic", key, &delay, b"m");
        world.pass(1100);
    }),
    ("amqp, in a transaction", |world, key| {
        let mut amqp = Amqp::connect_as(world, USER);
        amqp.method(1, 90, 10, &[]);
        amqp.publish_raw("amq.topic", key, &[0, 0], b"m");
        amqp.method(1, 90, 20, &[]);
    }),
    ("amqp, through a binding between exchanges", |world, key| {
        let mut amqp = Amqp::connect_as(world, USER);
        amqp.declare_exchange("mine", "direct");
        bind_exchange(&mut amqp, "amq.topic", "mine", key);
        Amqp::connect_as(world, USER).publish_raw("mine", key, &[0, 0], b"m");
    }),
    ("amqp, as a dead letter", |world, key| {
        declare_dying(&mut Amqp::connect_as(world, USER), key);
        Amqp::connect_as(world, USER).publish_raw("", "dying", &[0, 0], b"m");
    }),
    ("mqtt 5, quality of service 0", |world, key| {
        mqtt_as_user(world, "c", Version::V5).publish(publish(&slash(key), b"m").qos(0));
    }),
    ("mqtt 5, quality of service 2", |world, key| {
        mqtt_as_user(world, "c", Version::V5).publish(publish(&slash(key), b"m").qos(2));
    }),
    ("mqtt 3.1.1", |world, key| {
        mqtt_as_user(world, "c", Version::V311).send(publish(&slash(key), b"m"));
    }),
    ("mqtt, retained", |world, key| {
        let retained = Publish { retain: true, ..publish(&slash(key), b"m") };
        mqtt_as_user(world, "c", Version::V5).publish(retained);
    }),
    ("mqtt, a will", |world, key| {
        Mqtt::with_will(world, "dying", &publish(&slash(key), b"m")).cut();
    }),
    ("stomp", |world, key| {
        Stomp::connect_as(world, "1.2", USER).send(&format!("/topic/{key}"), &[], b"m");
    }),
    ("stomp, in a transaction", |world, key| {
        let mut stomp = Stomp::connect_as(world, "1.2", USER);
        stomp.command("BEGIN", &[("transaction", "t")]);
        stomp.send(&format!("/topic/{key}"), &[("transaction", "t")], b"m");
        stomp.command("COMMIT", &[("transaction", "t")]);
    }),
    ("xmpp, a message", |world, key| {
        Xmpp::connect(world, USER, "r")
            .send(&format!("<message to='{key}@topics.d'><body>m</body></message>"));
    }),
    ("json over web socket", |world, key| {
        Http::connect_as(world, USER).publish(key, &json!({}), "m");
    }),
    ("json over web socket, retained", |world, key| {
        Http::connect_as(world, USER).publish(key, &json!({ "retain": true }), "m");
    }),
    ("json over web socket, later", |world, key| {
        Http::connect_as(world, USER).publish(key, &json!({ "delay": 1000 }), "m");
        world.pass(1100);
    }),
    ("json over web socket, an answer to an address", |world, key| {
        let to = format!("amq.address:/exchanges/amq.topic/{key}");
        Http::connect_as(world, USER).publish_to_queue(&to, &json!({}), "m");
    }),
    ("xmpp, an item", |world, key| {
        Xmpp::connect(world, USER, "r").publish(key, "i", "<x xmlns='urn:x'/>", "");
    }),
];

type Read = fn(&World, &str) -> usize;

fn from_guest(world: &World, key: &str) {
    Amqp::connect(world).publish("amq.topic", key, &Props::default(), b"m");
}

/// A client of MQTT that asks for one topic, before or after something happens.
fn over_mqtt(world: &World, key: &str, qos: u8, happens: impl FnOnce()) -> usize {
    let mut mqtt = mqtt_as_user(world, "reader", Version::V5);
    mqtt.subscribe_with(&slash(key), qos, None);
    happens();
    mqtt.all().len()
}

/// Ways in which the user gets a message of a topic; how many it got.
const READS: &[(&str, Read)] = &[
    ("amqp", |world, key| {
        let mut amqp = Amqp::connect_as(world, USER);
        amqp.declare("q");
        amqp.ask_to_bind("q", "amq.topic", key, &[]);
        from_guest(world, key);
        let mut amqp = Amqp::connect_as(world, USER);
        amqp.consume("q");
        amqp.deliveries().len()
    }),
    ("amqp, got", |world, key| {
        let mut amqp = Amqp::connect_as(world, USER);
        amqp.declare("q");
        amqp.ask_to_bind("q", "amq.topic", key, &[]);
        from_guest(world, key);
        let mut amqp = Amqp::connect_as(world, USER);
        amqp.method(1, 60, 70, &[0, 0, 1, b'q', 1]);
        amqp.deliveries().len()
    }),
    ("mqtt, quality of service 0", |world, key| {
        over_mqtt(world, key, 0, || from_guest(world, key))
    }),
    ("mqtt, quality of service 1", |world, key| {
        over_mqtt(world, key, 1, || from_guest(world, key))
    }),
    ("mqtt 3.1.1", |world, key| {
        let mut mqtt = mqtt_as_user(world, "reader", Version::V311);
        mqtt.subscribe_with(&slash(key), 1, None);
        from_guest(world, key);
        mqtt.all().len()
    }),
    ("mqtt, retained", |world, key| {
        let retained = Publish { retain: true, ..publish(&slash(key), b"m") };
        Mqtt::v5(world, "writer").publish(retained);
        over_mqtt(world, key, 1, || ())
    }),
    ("mqtt, shared", |world, key| {
        let mut mqtt = mqtt_as_user(world, "reader", Version::V5);
        mqtt.subscribe_with(&format!("$share/g/{}", slash(key)), 1, None);
        from_guest(world, key);
        mqtt.all().len()
    }),
    ("mqtt, a will", |world, key| {
        over_mqtt(world, key, 0, || {
            Mqtt::with_will(world, "dying", &publish(&slash(key), b"m")).cut();
        })
    }),
    ("mqtt, a dead letter", |world, key| {
        over_mqtt(world, key, 1, || {
            let mut amqp = Amqp::connect(world);
            declare_dying(&mut amqp, key);
            amqp.expect(50, 11);
            amqp.publish("", "dying", &Props::default(), b"m");
        })
    }),
    ("mqtt, delayed", |world, key| {
        over_mqtt(world, key, 1, || {
            let delayed = Props::with_headers(&[("x-delay", Field::I32(1000))]);
            Amqp::connect(world).publish("amq.topic", key, &delayed, b"m");
            world.pass(1100);
        })
    }),
    ("mqtt, through another exchange", |world, key| {
        over_mqtt(world, key, 1, || {
            let mut amqp = Amqp::connect(world);
            amqp.declare_exchange("other", "fanout");
            bind_exchange(&mut amqp, "amq.topic", "other", "");
            amqp.expect(40, 31);
            amqp.publish("other", key, &Props::default(), b"m");
        })
    }),
    ("mqtt, through an alternate exchange", |world, key| {
        over_mqtt(world, key, 0, || {
            let mut amqp = Amqp::connect(world);
            let alternate = [("alternate-exchange", Field::text("amq.topic"))];
            amqp.declare_exchange_with("other", "direct", &alternate);
            amqp.publish("other", key, &Props::default(), b"m");
        })
    }),
    ("stomp", |world, key| {
        let mut stomp = Stomp::connect_as(world, "1.2", USER);
        let destination = format!("/topic/{key}");
        stomp.command("SUBSCRIBE", &[("id", "1"), ("destination", &destination)]);
        from_guest(world, key);
        stomp.all().iter().filter(|frame| frame.command == "MESSAGE").count()
    }),
    ("json over web socket", |world, key| {
        let http = Http::connect_as(world, USER);
        http.subscribe(key);
        from_guest(world, key);
        http.ops().iter().filter(|op| *op == "deliver").count()
    }),
    ("xmpp", |world, key| {
        let mut xmpp = Xmpp::connect(world, USER, "r");
        ask_for_topic(&mut xmpp, key);
        from_guest(world, key);
        xmpp.messages().len()
    }),
    ("xmpp, the last item", |world, key| {
        let retained = Publish { retain: true, ..publish(&slash(key), b"m") };
        Mqtt::v5(world, "writer").publish(retained);
        let mut xmpp = Xmpp::connect(world, USER, "r");
        let items = format!(
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{key}'/></pubsub>"
        );
        usize::from(xmpp.ask("get", Some("topics.d"), &items).attr("type") == Some("result"))
    }),
];

fn ask_for_topic(xmpp: &mut Xmpp, key: &str) {
    let payload = format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <subscribe node='{key}' jid='{}'/></pubsub>",
        xmpp.jid()
    );
    xmpp.ask("set", Some("topics.d"), &payload);
}

/// What management says about the user and a topic.
fn verdict(world: &World, action: &str, key: &str) -> bool {
    let asked = PermissionQuestion {
        user: user(USER),
        vhost: root(),
        action: action.to_owned(),
        object: "amq.topic".to_owned(),
        topic: Some(key.to_owned()),
        client_id: None,
    };
    manager(world).test_permission(&asked).unwrap().allowed
}

#[test]
fn a_topic_is_written_by_every_way_or_by_none() {
    for (rule, syntax) in RULES {
        for key in KEYS {
            let mut decisions = Vec::new();
            for (way, write) in WRITES {
                let world = World::new();
                let mut watcher = Amqp::connect(&world);
                watcher.listen("watch", "#");
                bound(&world, rule, "", syntax);
                write(&world, key);
                let arrived = watcher.deliveries().len();
                assert!(arrived <= 1, "{way}");
                decisions.push((*way, arrived == 1, verdict(&world, "write", key)));
            }
            assert!(
                decisions.iter().all(|(_, is, told)| is == told),
                "{rule} {key}: {decisions:?}"
            );
        }
    }
}

#[test]
fn a_topic_is_read_by_every_way_or_by_none() {
    for (rule, syntax) in RULES {
        for key in KEYS {
            let mut decisions = Vec::new();
            for (way, read) in READS {
                let world = World::new();
                let write = if syntax == TopicSyntax::Regex { ".*" } else { "#" };
                bound(&world, write, rule, syntax);
                let got = read(&world, key);
                assert!(got <= 1, "{way}");
                decisions.push((*way, got == 1, verdict(&world, "read", key)));
            }
            assert!(
                decisions.iter().all(|(_, is, told)| is == told),
                "{rule} {key}: {decisions:?}"
            );
        }
    }
}

//! Whatever a message holds, it returns from XMPP, and stanzas return from others, as they were.

use std::cell::RefCell;

use proptest::{collection::vec, option, prelude::*};

use crate::{
    amqp::Amqp,
    http::Http,
    lossless::{odd_text, properties, runner},
    mqtt::{Mqtt, Properties, Publish, publish},
    stomp::{Frame, Stomp},
    stomp_lossless::own_headers,
    world::World,
    xmpp_client::{CLIENT, Xml, Xmpp},
};

const PROPERTIES: &str = "urn:polymq:properties:1";

/// What a service adds to a stanza that has another sender or waited.
const OF_THE_SERVER: [&str; 3] =
    ["urn:xmpp:delay", "http://jabber.org/protocol/address", "http://jabber.org/protocol/amp"];

#[test]
fn whatever_stomp_says_returns_from_xmpp() {
    for version in ["1.0", "1.1", "1.2"] {
        let world = World::new();
        let mut stomp = Stomp::connect_as(&world, version, "guest");
        stomp.subscribe("/queue/back");
        Amqp::connect(&world).declare("there");
        let mut xmpp = Xmpp::connect(&world, "guest", "r");
        xmpp.consume("there@queues.d");
        xmpp.messages();
        let clients = RefCell::new((stomp, xmpp));
        let cases = (own_headers(version), vec(any::<u8>(), 0..20));
        runner(128)
            .run(&cases, |(sent, body)| {
                let (stomp, xmpp) = &mut *clients.borrow_mut();
                stomp.send_headers("/queue/there", &sent, &body);
                let seen = xmpp.message();
                xmpp.republish(&seen, "back@queues.d");
                let Frame { headers, body: found, .. } = own(stomp.message());
                prop_assert_eq!(found, body);
                // Who answers to a stanza that names nobody answers to its sender.
                let has_reply = sent.iter().any(|(name, _)| name == "reply-to");
                let headers: Vec<_> =
                    headers.into_iter().filter(|(n, _)| has_reply || n != "reply-to").collect();
                prop_assert_eq!(headers, sent);
                Ok(())
            })
            .unwrap();
    }
}

fn own(frame: Frame) -> Frame {
    Frame { headers: frame.own(), ..frame }
}

#[test]
fn whatever_mqtt_5_says_returns_from_a_queue_of_xmpp() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    assert_eq!(mqtt.subscribe_with("back/#", 2 | 8, None), 2);
    let mut amqp = Amqp::connect(&world);
    amqp.declare("there");
    amqp.bind("there", "amq.topic", "there");
    let mut xmpp = Xmpp::connect(&world, "guest", "r");
    xmpp.consume("there@queues.d");
    xmpp.messages();
    let clients = RefCell::new((mqtt, xmpp));
    runner(128)
        .run(&(properties(), 0..=2u8, vec(any::<u8>(), 0..20)), |(properties, qos, payload)| {
            let (mqtt, xmpp) = &mut *clients.borrow_mut();
            let is_text = std::str::from_utf8(&payload).is_ok();
            let properties = Properties {
                format: properties.format.filter(|f| *f == 0 || is_text),
                ..properties
            };
            let sent = Publish { qos, properties, ..publish("there", &payload) };
            mqtt.publish(sent.clone());
            let seen = xmpp.message();
            xmpp.republish(&seen, "back.x@topics.d");
            let back = mqtt.one();
            let mut expected = sent.properties;
            expected.response_topic =
                expected.response_topic.or_else(|| back.properties.response_topic.clone());
            prop_assert_eq!(back.properties, expected);
            prop_assert_eq!((back.qos, back.payload), (qos, payload));
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_mqtt_3_says_returns_from_everybody() {
    let world = World::new();
    let mut old = Mqtt::v311(&world, "old");
    old.subscribe("back", 2);
    let (mut new, mut amqp) = (Mqtt::v5(&world, "new"), Amqp::connect(&world));
    new.subscribe("there", 2);
    amqp.listen("there", "there");
    let (mut stomp, mut xmpp) = (Stomp::connect(&world), Xmpp::connect(&world, "guest", "r"));
    stomp.subscribe("/topic/there");
    amqp.declare("chat");
    amqp.bind("chat", "amq.topic", "there");
    xmpp.consume("chat@queues.d");
    xmpp.messages();
    let clients = RefCell::new((old, new, amqp, stomp, xmpp));
    runner(128)
        .run(&(0..=2u8, vec(any::<u8>(), 0..20)), |(qos, payload)| {
            let (old, new, amqp, stomp, xmpp) = &mut *clients.borrow_mut();
            let returns = |old: &mut Mqtt, by: &str| {
                let back = old.one();
                prop_assert_eq!((back.qos, &back.payload), (qos, &payload), "{}", by);
                Ok(())
            };
            old.publish(publish("there", &payload).qos(qos));
            let seen = new.one();
            new.republish(&seen, "back");
            returns(old, "MQTT 5")?;
            let seen = amqp.delivery();
            amqp.publish_topic("back", &seen.props, &seen.body);
            returns(old, "AMQP")?;
            let seen = stomp.message();
            stomp.republish(&seen, "/topic/back");
            returns(old, "STOMP")?;
            let seen = xmpp.message();
            xmpp.republish(&seen, "back@topics.d");
            returns(old, "XMPP")
        })
        .unwrap();
}

/// Texts that XML can hold.
fn text() -> impl Strategy<Value = String> {
    odd_text().prop_map(|text| text.replace(['\u{1}', '\u{10FFFF}'], "<&>'\""))
}

fn leaf(ns: &str, name: &str, text: String) -> Xml {
    Xml { ns: ns.to_owned(), name: name.to_owned(), text, ..Xml::default() }
}

fn foreign() -> impl Strategy<Value = Xml> {
    (text(), text(), option::of(text())).prop_map(|(attribute, text, inner)| Xml {
        attributes: vec![("a".to_owned(), attribute)],
        children: inner.into_iter().map(|text| leaf("urn:inner", "y", text)).collect(),
        ..leaf("urn:foreign", "x", text)
    })
}

fn hint() -> impl Strategy<Value = Xml> {
    let names = vec!["no-store", "no-permanent-store", "no-copy", "store"];
    prop::sample::select(names).prop_map(|name| leaf("urn:xmpp:hints", name, String::new()))
}

/// An entry of our list: a field, or a header with or without a type.
fn entry() -> impl Strategy<Value = Xml> {
    let of = |attributes: &[(&str, &str)], text: String| Xml {
        attributes: attributes.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        ..leaf(PROPERTIES, "p", text)
    };
    prop_oneof![
        (text(), text()).prop_map(move |(name, text)| of(&[("n", &format!("h{name}"))], text)),
        any::<i32>().prop_map(move |n| of(&[("n", "i"), ("t", "i32")], n.to_string())),
        any::<bool>().prop_map(move |b| of(&[("n", "b"), ("t", "bool")], b.to_string())),
        any::<u8>().prop_map(move |n| of(&[("f", "priority"), ("t", "u8")], n.to_string())),
        text().prop_map(move |text| of(&[("f", "type")], text)),
        text().prop_map(move |text| of(&[("f", "app_id")], text)),
        text().prop_map(move |text| of(&[("f", "group_id")], text)),
        Just(of(&[("f", "timestamp"), ("t", "ts")], "2023-11-14T22:13:20.123Z".to_owned())),
    ]
}

/// A chat message without its receiver.
fn stanza() -> impl Strategy<Value = Xml> {
    let body = prop_oneof![
        4 => text().prop_map(|text| Some(leaf(CLIENT, "body", text))),
        1 => Just(None),
        1 => any::<i16>().prop_map(|n| Some(leaf("urn:xmpp:json:0", "json", n.to_string()))),
    ];
    let optional = |name: &'static str| {
        option::of(text()).prop_map(move |text| text.map(|text| leaf(CLIENT, name, text)))
    };
    let language = option::of(prop::sample::select(vec!["it", "de-AT"]));
    let id = option::of(text().prop_filter("an id says something", |id| !id.is_empty()));
    let others = (vec(foreign(), 0..3), option::of(hint()))
        .prop_map(|(foreign, hint)| foreign.into_iter().chain(hint).collect::<Vec<_>>());
    let entries = vec(entry(), 0..4);
    (body, optional("thread"), optional("subject"), others, entries, language, id).prop_map(
        |(body, thread, subject, others, mut entries, language, id)| {
            let mut names = std::collections::HashSet::new();
            entries.retain(|entry| names.insert(entry.attributes[0].clone()));
            let list = (!entries.is_empty()).then(|| Xml {
                children: entries,
                ..leaf(PROPERTIES, "properties", String::new())
            });
            let attributes = [
                ("type", Some("chat".to_owned())),
                ("xml:lang", language.map(str::to_owned)),
                ("id", id),
            ];
            let attributes = attributes.into_iter().filter_map(|(n, v)| Some((n.to_owned(), v?)));
            let children = body.into_iter().chain(thread).chain(subject).chain(others).chain(list);
            Xml {
                attributes: attributes.collect(),
                children: children.collect(),
                ..leaf(CLIENT, "message", String::new())
            }
        },
    )
}

/// What of a stanza another protocol keeps, in an order of its own.
fn said(stanza: &Xml) -> Vec<String> {
    let attributes = stanza.attributes.iter().filter(|(name, _)| name != "from" && name != "to");
    let attributes = attributes.map(|attribute| format!("{attribute:?}"));
    let is_own = |child: &&Xml| !OF_THE_SERVER.contains(&child.ns.as_str());
    let is_list = |child: &&Xml| child.ns == PROPERTIES;
    let children = stanza.children.iter().filter(is_own);
    let entries = stanza.children.iter().filter(is_list).flat_map(|list| &list.children);
    // A message from elsewhere says where answers go, and one of STOMP may not say how durable it
    // is.
    let is_told = |entry: &&Xml| matches!(entry.attr("f"), Some("reply_to" | "durable"));
    let entries = entries.filter(|entry| !is_told(entry));
    let children = children.filter(|child| !is_list(child)).chain(entries);
    let mut all: Vec<_> = attributes.chain(children.map(|child| format!("{child:?}"))).collect();
    all.sort();
    all
}

/// A user of XMPP who sends to `there`, and one who gets what comes back to the mailbox.
struct Chat {
    one: Xmpp,
    two: Xmpp,
}

impl Chat {
    fn new(world: &World) -> Self {
        Self { one: Xmpp::connect(world, "u1", "r"), two: Xmpp::connect(world, "u2", "r") }
    }

    fn send(&mut self, stanza: &Xml) {
        let mut stanza = stanza.clone();
        stanza.attributes.push(("to".to_owned(), "there@topics.d".to_owned()));
        let mut text = String::new();
        stanza.write(&mut text);
        self.one.send(&text);
    }
}

const MAILBOX: &str = "xmpp-mailbox-u2@d";

#[test]
fn whatever_a_stanza_says_returns_from_amqp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "there");
    let clients = RefCell::new((Chat::new(&world), amqp));
    runner(256)
        .run(&stanza(), |sent| {
            let (chat, amqp) = &mut *clients.borrow_mut();
            chat.send(&sent);
            let seen = amqp.delivery();
            amqp.publish("", MAILBOX, &seen.props, &seen.body);
            prop_assert_eq!(said(&chat.two.message()), said(&sent));
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_a_stanza_says_returns_from_mqtt_5() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("there", 2);
    let clients = RefCell::new((Chat::new(&world), mqtt));
    runner(256)
        .run(&stanza(), |sent| {
            let (chat, mqtt) = &mut *clients.borrow_mut();
            chat.send(&sent);
            let seen = mqtt.one();
            mqtt.republish(&seen, &format!("$queue/{MAILBOX}"));
            prop_assert_eq!(said(&chat.two.message()), said(&sent));
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_a_stanza_says_returns_from_http() {
    let world = World::new();
    let clients = RefCell::new((Chat::new(&world), Http::listen(&world, "there")));
    runner(256)
        .run(&stanza(), |sent| {
            let (chat, http) = &mut *clients.borrow_mut();
            chat.send(&sent);
            http.republish_to_queue(&http.message(), MAILBOX);
            prop_assert_eq!(said(&chat.two.message()), said(&sent));
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_a_stanza_says_returns_from_stomp() {
    for version in ["1.0", "1.1", "1.2"] {
        let world = World::new();
        let mut stomp = Stomp::connect_as(&world, version, "guest");
        stomp.subscribe("/topic/there");
        let clients = RefCell::new((Chat::new(&world), stomp));
        runner(128)
            .run(&stanza(), |mut sent| {
                let (chat, stomp) = &mut *clients.borrow_mut();
                // What is not persistent says nothing in STOMP.
                sent.children.retain(|child| child.name != "no-store");
                chat.send(&sent);
                let seen = stomp.message();
                stomp.republish(&seen, &format!("/amq/queue/{MAILBOX}"));
                prop_assert_eq!(said(&chat.two.message()), said(&sent));
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn what_mqtt_3_cannot_say_of_stomp_and_xmpp_is_counted() {
    let world = World::new();
    let mut mqtt = Mqtt::v311(&world, "m");
    mqtt.subscribe("t", 1);
    Stomp::connect(&world).send("/topic/t", &[("content-type", "a/b"), ("h", "1")], b"hi");
    assert_eq!(mqtt.one().payload, b"hi");
    assert_eq!(world.conversions("stomp", "mqtt311"), 1);
    assert_eq!(world.mqtt_count("no_place"), 2);
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.send("<message to='t@topics.d'><body>hi</body><thread>t</thread></message>");
    assert_eq!(mqtt.one().payload, b"hi");
    assert_eq!(world.conversions("xmpp", "mqtt311"), 1);
    // Its type, that it is text, the thread, and where answers go.
    assert_eq!(world.mqtt_count("no_place"), 6);
}

//! XMPP beside the others: the cases of the published table, and what returns from it.

use polymq_model::carry::rfc3339_to_ms;
use proptest::{collection::vec, prelude::*};
use serde_json::json;

use crate::{
    amqp::{Amqp, Delivery, Field, Props},
    http::Http,
    lossless::{properties, props, runner},
    mqtt::{Mqtt, Properties, Publish, publish},
    world::World,
    xmpp_client::{CLIENT, Xml, Xmpp},
};

const DATA: &str = "urn:polymq:data:1";
const EVENT: &str = "http://jabber.org/protocol/pubsub#event";
const ATOM: &str = "http://www.w3.org/2005/Atom";

fn item(event: &Xml) -> (&str, &Xml) {
    let items = event.child(EVENT, "event").and_then(|event| event.child(EVENT, "items")).unwrap();
    (items.attr("node").unwrap(), items.child(EVENT, "item").unwrap())
}

#[test]
fn chat_to_amqp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "chat.#");
    let mut xmpp = Xmpp::connect(&world, "u1", "phone");
    xmpp.send(
        "<message type='chat' to='chat.x@topics.d'><body>hi</body><thread>t</thread></message>",
    );
    let seen = amqp.delivery();
    assert_eq!((seen.key.as_str(), seen.body.as_slice()), ("chat.x", &b"hi"[..]));
    assert_eq!(seen.props.content_type.as_deref(), Some("text/plain;charset=utf-8"));
    assert_eq!(seen.props.correlation_id.as_deref(), Some("t"));
    assert_eq!(seen.props.delivery_mode, Some(2));
    let reply_to = seen.props.reply_to.clone().unwrap();
    assert_eq!(reply_to, "amq.address:/jids/u1%40d%2Fphone");
    let answer = Props { correlation_id: Some("t".into()), ..seen.props };
    amqp.publish("", &reply_to, &answer, b"answer");
    let answer = xmpp.message();
    assert_eq!(answer.text_of(CLIENT, "body"), Some("answer"));
    assert_eq!(answer.text_of(CLIENT, "thread"), Some("t"));
    // Another resource has the mailbox, and the named one gets the answer all the same.
    let mut other = Xmpp::connect(&world, "u1", "desk");
    amqp.publish("", &reply_to, &Props::persistent(), b"again");
    assert_eq!((xmpp.messages().len(), other.messages().len()), (1, 0));
}

#[test]
fn xmpp_children_survive() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "there");
    amqp.declare("back");
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.consume("back@queues.d");
    xmpp.messages();
    let children = "<active xmlns='http://jabber.org/protocol/chatstates'/>\
                    <x xmlns='urn:foreign' a='&lt;&apos;'>text<y/>\u{e9}</x>\
                    <no-store xmlns='urn:xmpp:hints'/>";
    xmpp.send(&format!(
        "<message type='chat' xml:lang='it' to='there@topics.d'><body>hi</body>{children}</message>"
    ));
    let seen = amqp.delivery();
    assert_eq!(seen.props.delivery_mode, Some(1));
    assert_eq!(seen.text_header("x-mq-xmpp-type"), Some("chat"));
    assert_eq!(seen.text_header("x-mq-lang"), Some("it"));
    assert!(seen.text_header("x-mq-xmpp").unwrap().contains("urn:foreign"));
    amqp.publish("", "back", &seen.props, &seen.body);
    let back = xmpp.message();
    assert_eq!(back.attr("xml:lang"), Some("it"));
    assert_eq!(back.text_of(CLIENT, "body"), Some("hi"));
    let foreign = back.child("urn:foreign", "x").unwrap();
    assert_eq!((foreign.attr("a"), foreign.text.as_str()), (Some("<'"), "text\u{e9}"));
    assert_eq!(foreign.children.len(), 1);
    assert!(back.child("http://jabber.org/protocol/chatstates", "active").is_some());
    assert!(back.child("urn:xmpp:hints", "no-store").is_some());
}

#[test]
fn binary_to_xmpp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("bytes");
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.consume("bytes@queues.d");
    xmpp.messages();
    let text = Props { content_type: Some("text/plain".into()), ..Props::persistent() };
    for (props, body, encoded) in
        [(Props::persistent(), &b"\x00\xff"[..], "AP8="), (text, b"a\x01b", "YQFi")]
    {
        amqp.publish("", "bytes", &props, body);
        let seen = xmpp.message();
        assert_eq!(seen.attr("from"), Some("bytes@queues.d"));
        assert!(seen.child(CLIENT, "body").is_none());
        let data = seen.child(DATA, "data").unwrap();
        assert_eq!((data.attr("encoding"), data.text.as_str()), (Some("base64"), encoded));
    }
}

#[test]
fn xml_item() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("news/#", 1);
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.subscribe("back.#");
    let entry = format!("<entry xmlns='{ATOM}'><title>x &amp; y</title></entry>");
    let answer = xmpp.publish("news.x", "i1", &entry, "");
    assert_eq!(answer.attr("type"), Some("result"));
    let seen = mqtt.one();
    assert_eq!(seen.topic, "news/x");
    assert_eq!(seen.properties.content_type.as_deref(), Some("application/xml"));
    assert_eq!(std::str::from_utf8(&seen.payload), Ok(entry.as_str()));
    mqtt.republish(&seen, "back/x");
    let event = xmpp.message();
    let (node, item) = item(&event);
    assert_eq!((node, item.attr("id")), ("back.x", Some("i1")));
    let entry = item.child(ATOM, "entry").unwrap();
    assert_eq!(entry.text_of(ATOM, "title"), Some("x & y"));
}

#[test]
fn upper_case_queue_jid() {
    let world = World::new();
    Amqp::connect(&world).declare("Orders");
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.consume("queues.d/Orders");
    xmpp.messages();
    Http::connect_as(&world, "guest").publish_to_queue("Orders", &json!({}), "x");
    assert_eq!(xmpp.message().attr("from"), Some("queues.d/Orders"));
}

#[test]
fn mailbox_keeps_what_another_protocol_sends() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    let text = Props { content_type: Some("text/plain".into()), ..Props::persistent() };
    amqp.publish("", "xmpp-mailbox-u2@d", &text, b"while away");
    amqp.publish("", "amq.address:/jids/u2%40d", &text, b"by address");
    assert_eq!(world.ready("xmpp-mailbox-u2@d"), Some(2));
    amqp.publish("", "xmpp-mailbox-nobody@d", &text, b"lost");
    assert_eq!(world.ready("xmpp-mailbox-nobody@d"), None, "only users have mailboxes");
    amqp.publish("", "xmpp-mailbox-u2@elsewhere", &text, b"lost");
    assert_eq!(world.ready("xmpp-mailbox-u2@elsewhere"), None, "only our domain has mailboxes");
    world.restart();
    world.pass(1000);
    let mut xmpp = Xmpp::away(&world, "u2", "r");
    xmpp.send("<presence/>");
    let all = xmpp.messages();
    let bodies: Vec<_> = all.iter().map(|m| m.text_of(CLIENT, "body").unwrap()).collect();
    assert_eq!(bodies, ["while away", "by address"]);
    assert!(all.iter().all(|m| m.child("urn:xmpp:delay", "delay").is_some()));
    assert_eq!(world.ready("xmpp-mailbox-u2@d"), Some(0));
}

#[test]
fn expiry_is_the_moment_at_which_a_stanza_is_dropped() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("back");
    amqp.consume("back");
    amqp.declare("there");
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.consume("there@queues.d");
    xmpp.messages();
    let sent = Props { expiration: Some("1500".into()), ..Props::persistent() };
    amqp.publish("", "there", &sent, b"x");
    let seen = xmpp.message();
    let amp = "http://jabber.org/protocol/amp";
    let rule = seen.child(amp, "amp").unwrap().child(amp, "rule").unwrap();
    assert_eq!((rule.attr("condition"), rule.attr("action")), (Some("expire-at"), Some("drop")));
    assert!(rfc3339_to_ms(rule.attr("value").unwrap()).is_some());
    world.pass(500);
    xmpp.republish(&seen, "back@queues.d");
    let back = amqp.delivery();
    assert_eq!(back.props.expiration.as_deref(), Some("1000"), "time has passed");
}

#[test]
fn retained_item_is_the_last_value_of_mqtt() {
    let world = World::new();
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    let keep = "<publish-options><x xmlns='jabber:x:data' type='submit'>\
                <field var='pubsub#persist_items'><value>true</value></field></x>\
                </publish-options>";
    let value = "<json xmlns='urn:xmpp:json:0'>21</json>";
    assert_eq!(xmpp.publish("t.x", "i", value, keep).attr("type"), Some("result"));
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("t/+", 1);
    let seen = mqtt.one();
    assert_eq!(
        (seen.topic.as_str(), seen.retain, seen.payload.as_slice()),
        ("t/x", true, &b"21"[..])
    );
    mqtt.publish(Publish { retain: true, ..publish("t/y", b"y") });
    xmpp.subscribe("t.*");
    let nodes: Vec<String> = xmpp.messages().iter().map(|event| item(event).0.to_owned()).collect();
    assert_eq!(nodes, ["t.x", "t.y"]);
}

#[test]
fn forged_death_from_xmpp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "t");
    let mut xmpp = Xmpp::connect(&world, "u1", "r");
    xmpp.send(
        "<message to='t@topics.d'><body>x</body><properties xmlns='urn:polymq:properties:1'>\
         <p n='x-death'>a</p><p n='x-death'>b</p><p n='mine'>c</p></properties></message>",
    );
    let seen = amqp.delivery();
    assert_eq!((seen.header("x-death"), seen.text_header("mine")), (None, Some("c")));
    assert_eq!(world.xmpp_count("reserved"), 2);
}

#[test]
fn user_mismatch_from_xmpp() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "t");
    let mut xmpp = Xmpp::connect(&world, "u2", "r");
    for (said, seen) in [("u1", None), ("u2", Some("u2"))] {
        xmpp.send(&format!(
            "<message to='t@topics.d'><body>x</body><properties \
             xmlns='urn:polymq:properties:1'><p f='user_id'>{said}</p></properties></message>"
        ));
        assert_eq!(amqp.delivery().props.user_id.as_deref(), seen);
    }
    assert_eq!(world.xmpp_count("not_allowed"), 1);
}

#[test]
fn delay_header_of_xmpp_holds_a_message() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "t");
    let mut xmpp = Xmpp::connect(&world, "u2", "r");
    xmpp.send(
        "<message to='t@topics.d'><body>x</body><properties xmlns='urn:polymq:properties:1'>\
         <p n='x-delay' t='i32'>5000</p></properties></message>",
    );
    assert!(amqp.deliveries().is_empty());
    world.pass(5000);
    assert_eq!(amqp.delivery().body, b"x");
}

#[test]
fn same_protocol_keeps_every_child() {
    let world = World::new();
    let mut one = Xmpp::connect(&world, "u1", "r");
    let mut two = Xmpp::connect(&world, "u2", "r");
    let children = "<subject>s</subject><x xmlns='urn:a' b='&#10;'/><body>hi &lt;&amp;</body>\
                    <thread parent='p'>t</thread><y xmlns=''><z xmlns='urn:b'/></y>";
    one.send(&format!("<message type='chat' id='m1' to='u2@d'>{children}</message>"));
    let seen = two.message();
    let jid = one.jid().to_owned();
    let attributes = [("id", "m1"), ("from", jid.as_str()), ("to", "u2@d/r"), ("type", "chat")];
    for (name, value) in attributes {
        assert_eq!(seen.attr(name), Some(value));
    }
    let names: Vec<_> = seen.children.iter().map(|c| (c.ns.as_str(), c.name.as_str())).collect();
    let expected =
        [(CLIENT, "subject"), ("urn:a", "x"), (CLIENT, "body"), (CLIENT, "thread"), ("", "y")];
    assert_eq!(names, expected);
    assert_eq!(seen.children[1].attr("b"), Some("\n"));
    assert_eq!(seen.text_of(CLIENT, "body"), Some("hi <&"));
    assert_eq!(seen.children[4].children[0].ns, "urn:b");
}

/// AMQP, XMPP, AMQP.
struct OverXmpp {
    amqp: Amqp,
    xmpp: Xmpp,
}

impl OverXmpp {
    fn new() -> Self {
        let world = World::new();
        let mut amqp = Amqp::connect(&world);
        amqp.declare("there");
        amqp.declare("back");
        amqp.consume("back");
        let mut xmpp = Xmpp::connect(&world, "guest", "r");
        xmpp.consume("there@queues.d");
        xmpp.messages();
        Self { amqp, xmpp }
    }

    fn send(&mut self, props: &Props, body: &[u8]) -> Delivery {
        self.amqp.publish("", "there", props, body);
        let seen = self.xmpp.message();
        self.xmpp.republish(&seen, "back@queues.d");
        self.amqp.delivery()
    }
}

#[test]
fn whatever_amqp_says_returns_from_xmpp() {
    let over = std::cell::RefCell::new(OverXmpp::new());
    runner(256)
        .run(&(props(), vec(any::<u8>(), 0..20)), |(sent, body)| {
            let back = over.borrow_mut().send(&sent, &body);
            let mut expected = sent;
            // Who answers to a stanza that names nobody answers to its sender.
            expected.reply_to = expected.reply_to.or_else(|| back.props.reply_to.clone());
            prop_assert_eq!(format!("{:?}", back.props), format!("{:?}", expected));
            prop_assert_eq!(back.body, body);
            Ok(())
        })
        .unwrap();
}

#[test]
fn texts_of_every_kind_return_from_xmpp() {
    let mut over = OverXmpp::new();
    for (content_type, body) in [
        ("text/plain", &b"hi\r\n"[..]),
        ("text/plain;charset=utf-8", b"hi"),
        ("text/html", b"<p>"),
        ("application/json", b"{\"a\":[1,null]}"),
        ("application/json", b"no json"),
        ("application/vnd.x+json", b" 1 "),
        ("application/xml", b"<a xmlns='urn:x'>t<b/></a>"),
        ("application/xml", b"<a>"),
        ("application/xml", b"<a/>"),
        ("", b"x"),
    ] {
        let sent = Props { content_type: Some(content_type.to_owned()), ..Props::persistent() };
        let back = over.send(&sent, body);
        assert_eq!(back.props.content_type.as_deref(), Some(content_type));
        assert_eq!(back.props.headers, None, "{content_type}");
        assert_eq!(back.body, body, "{content_type}");
    }
}

#[test]
fn header_types_return_from_xmpp() {
    let mut over = OverXmpp::new();
    let headers = [
        ("i", Field::I32(5)),
        ("ok", Field::Bool(true)),
        ("f", Field::F64(1.5)),
        ("l", Field::List(vec![Field::U8(1), Field::Void])),
        ("m", Field::Table(vec![("b".into(), Field::Bytes(vec![0, 255]))])),
        ("nul\0", Field::text("a\0b")),
    ];
    let sent = Props::with_headers(&headers);
    assert_eq!(over.send(&sent, b"").props.headers, sent.headers);
}

/// The stanza of an event, published again as an item to another node.
fn republish_item(xmpp: &mut Xmpp, event: &Xml, node: &str) {
    let (_, item) = item(event);
    let mut payload = String::new();
    item.children.iter().for_each(|child| child.write(&mut payload));
    let mut beside = String::new();
    let fields = event.children.iter().filter(|child| child.ns != EVENT);
    let fields = fields.filter(|child| child.ns != "urn:xmpp:delay");
    fields.for_each(|child| child.write(&mut beside));
    let answer = xmpp.publish(node, item.attr("id").unwrap_or_default(), &payload, &beside);
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
}

#[test]
fn whatever_mqtt_5_says_returns_from_an_item_of_xmpp() {
    let world = World::new();
    let mut mqtt = Mqtt::v5(&world, "m");
    assert_eq!(mqtt.subscribe_with("back/#", 2 | 8, None), 2);
    let mut xmpp = Xmpp::connect(&world, "guest", "r");
    xmpp.subscribe("there.x");
    let clients = std::cell::RefCell::new((mqtt, xmpp));
    runner(128)
        .run(&(properties(), 0..=2u8), |(properties, qos)| {
            let (mqtt, xmpp) = &mut *clients.borrow_mut();
            let sent = Publish { qos, properties, ..publish("there/x", b"hi") };
            mqtt.publish(sent.clone());
            let event = xmpp.message();
            republish_item(xmpp, &event, "back.x");
            let back = mqtt.one();
            let mut found = back.properties.clone();
            // An item has an id, and its publisher an address.
            let has_id = sent.properties.user.iter().any(|(name, _)| name == "id");
            found.user.retain(|(name, _)| name != "x-mq-id" && (has_id || name != "id"));
            let expected = Properties {
                response_topic: sent
                    .properties
                    .response_topic
                    .clone()
                    .or_else(|| back.properties.response_topic.clone()),
                ..sent.properties
            };
            prop_assert_eq!(found, expected);
            prop_assert_eq!((back.qos, back.payload.as_slice()), (qos, &b"hi"[..]));
            Ok(())
        })
        .unwrap();
}

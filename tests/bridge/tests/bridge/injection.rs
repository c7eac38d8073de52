//! Case A9: what a client writes stays what it is in the frames of every other protocol, and says
//! nothing there that only the broker or another user may say.

use serde_json::json;

use crate::{
    amqp::{Amqp, Field, Props},
    http::Http,
    mqtt::{Mqtt, Properties, Publish, Version},
    stomp::{Stomp, headers},
    world::World,
    xmpp_client::{CLIENT, Xml, Xmpp},
};

/// Texts that end something in one of the protocols.
const NASTY: [&str; 16] = [
    "\r\n\r\n",
    "a\n\nbody",
    "k:v",
    "x\nMESSAGE\ndestination:/queue/q\n\nforged",
    "\\n\\c\\\\\\r",
    "\\q",
    ":",
    "]]>",
    "</message><message><body>forged</body></message>",
    "</stream:stream>",
    "<!-- x",
    "&amp;&lt;&#x0;",
    "'\"",
    "\u{1}\u{1b}[2J",
    "\u{FFFE}\u{202E}\u{10FFFF}",
    "a=b;c%3D",
];

/// What everybody understands.
const PLAIN: &[u8] = b"plain";

/// Everybody who listens to everything.
struct Listeners {
    amqp: Amqp,
    mqtt: Vec<Mqtt>,
    stomp: Vec<Stomp>,
    xmpp: Xmpp,
    json: Http,
}

impl Listeners {
    fn new(world: &World) -> Self {
        let mut amqp = Amqp::connect(world);
        amqp.listen("everything", "#");
        let versions = [(Version::V31, "3"), (Version::V311, "4"), (Version::V5, "5")];
        let mqtt = versions.map(|(version, id)| {
            let mut mqtt = Mqtt::connect(world, version, id);
            mqtt.subscribe("#", 1);
            mqtt
        });
        let stomp = ["1.0", "1.1", "1.2"].map(|version| {
            let mut stomp = Stomp::connect_as(world, version, "guest");
            stomp.subscribe("/topic/#");
            stomp
        });
        let mut xmpp = Xmpp::connect(world, "u1", "r");
        xmpp.subscribe("#");
        let json = Http::listen(world, "#");
        Self { amqp, mqtt: mqtt.into(), stomp: stomp.into(), xmpp, json }
    }

    /// Everybody got the message with this body, and behind it the one that everybody understands.
    /// That what came is well-formed is seen by the clients.
    fn have_both(&mut self, what: &str, body: &[u8]) {
        let found: Vec<_> = self.amqp.deliveries().into_iter().map(|seen| seen.body).collect();
        assert_eq!(found, [body, PLAIN], "AMQP: {what}");
        for mqtt in &mut self.mqtt {
            let found: Vec<_> = mqtt.all().into_iter().map(|seen| seen.payload).collect();
            assert_eq!(found, [body, PLAIN], "MQTT: {what}");
        }
        for stomp in &mut self.stomp {
            let all = stomp.all();
            assert!(all.iter().all(|frame| frame.command == "MESSAGE"), "STOMP: {what}: {all:?}");
            let found: Vec<_> = all.into_iter().map(|frame| frame.body).collect();
            assert_eq!(found, [body, PLAIN], "STOMP: {what}");
        }
        let found = self.xmpp.messages();
        assert_eq!(found.len(), 2, "XMPP: {what}: {found:?}");
        for event in &found {
            let items = event.children.iter().filter(|child| child.name == "event");
            assert_eq!(items.count(), 1, "XMPP: {what}: {event:?}");
            assert!(event.child(CLIENT, "message").is_none(), "XMPP: {what}: {event:?}");
        }
        let found = self.json.payloads();
        assert_eq!(found, [body, PLAIN], "JSON: {what}");
    }
}

/// At most 100 bytes, so that it fits everywhere.
fn key(nasty: &str) -> String {
    format!("n.{nasty}.{}", nasty.len())
}

#[test]
fn nothing_in_a_message_of_amqp_ends_a_frame_of_others() {
    let world = World::new();
    let mut listeners = Listeners::new(&world);
    let mut amqp = Amqp::connect(&world);
    for nasty in NASTY.into_iter().chain(["nul\0"]) {
        let text = || Some(nasty.to_owned());
        let headers = [(nasty, Field::text(nasty)), ("h", Field::List(vec![Field::text(nasty)]))];
        let props = Props {
            content_type: text(),
            content_encoding: text(),
            correlation_id: text(),
            message_id: text(),
            reply_to: text(),
            kind: text(),
            app_id: text(),
            ..Props::with_headers(&headers)
        };
        amqp.publish_topic(&key(&nasty.replace('\0', "")), &props, nasty.as_bytes());
        amqp.publish_topic("plain", &Props::persistent(), PLAIN);
        listeners.have_both(nasty, nasty.as_bytes());
    }
}

#[test]
fn nothing_in_a_message_of_mqtt_ends_a_frame_of_others() {
    let world = World::new();
    let mut listeners = Listeners::new(&world);
    let mut mqtt = Mqtt::v5(&world, "sender");
    for nasty in NASTY {
        let text = || Some(nasty.to_owned());
        let properties = Properties {
            content_type: text(),
            response_topic: Some(format!("r{}", nasty.replace(['+', '#'], ""))),
            correlation: Some([nasty.as_bytes(), b"\0\n\xFF"].concat()),
            ..Properties::of_user(&[(nasty, nasty), (nasty, "again"), ("h", nasty)])
        };
        let publish = |topic: String, properties: &Properties, payload: &[u8]| Publish {
            topic,
            payload: payload.to_vec(),
            properties: properties.clone(),
            qos: 1,
            ..Publish::default()
        };
        let topic = format!("n/{}", nasty.replace(['+', '#'], ""));
        mqtt.publish(publish(topic, &properties, nasty.as_bytes()));
        mqtt.publish(publish("plain".to_owned(), &Properties::default(), PLAIN));
        listeners.have_both(nasty, nasty.as_bytes());
    }
}

#[test]
fn nothing_in_a_message_of_stomp_ends_a_frame_of_others() {
    let world = World::new();
    let mut listeners = Listeners::new(&world);
    let mut stomp = Stomp::connect(&world);
    for nasty in NASTY {
        let fields =
            ["content-type", "content-encoding", "correlation-id", "amqp-message-id", "reply-to"];
        let mut own: Vec<_> = fields.iter().map(|field| (*field, nasty)).collect();
        own.extend([("type", nasty), ("app-id", nasty), (nasty, nasty), (nasty, "again")]);
        let encoded: String = nasty.bytes().map(|byte| format!("%{byte:02X}")).collect();
        stomp.send_headers(&format!("/topic/n.{encoded}"), &headers(&own), nasty.as_bytes());
        stomp.send("/topic/plain", &[], PLAIN);
        listeners.have_both(nasty, nasty.as_bytes());
    }
}

#[test]
fn nothing_in_a_message_of_json_ends_a_frame_of_others() {
    let world = World::new();
    let mut listeners = Listeners::new(&world);
    let json = Http::connect_as(&world, "guest");
    let binary = [&b"\r\n\0\xFF</message>"[..], "]]>\u{FFFE}".as_bytes()].concat();
    for nasty in NASTY.into_iter().chain(["nul\0"]) {
        let properties = json!({
            "content_type": nasty, "content_encoding": nasty, "correlation_id": nasty,
            "message_id": nasty, "reply_to": nasty, "type": nasty, "app_id": nasty,
            "headers": { nasty: nasty, "h": [nasty, { nasty: nasty }] },
        });
        let key = key(&nasty.replace('\0', ""));
        json.publish(&key, &properties, nasty);
        json.publish("plain", &json!({}), "plain");
        assert!(json.ops().is_empty(), "nothing of {nasty:?} is refused");
        listeners.have_both(nasty, nasty.as_bytes());
        json.publish_bytes(&key, &properties, &binary);
        json.publish("plain", &json!({}), "plain");
        listeners.have_both(nasty, &binary);
    }
}

#[test]
fn nothing_in_a_stanza_ends_a_frame_of_others() {
    let world = World::new();
    let mut listeners = Listeners::new(&world);
    let mut xmpp = Xmpp::connect(&world, "guest", "sender");
    let is_legal = |c: char| !matches!(c, '\u{1}' | '\u{1b}' | '\u{FFFE}');
    for nasty in NASTY.map(|text| text.replace(|c| !is_legal(c), "")) {
        let element = |ns: &str, name: &str, attributes: &[(&str, &str)], text: &str| Xml {
            ns: ns.to_owned(),
            name: name.to_owned(),
            attributes: attributes.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            text: text.to_owned(),
            children: Vec::new(),
        };
        let properties = "urn:polymq:properties:1";
        let entries = [
            element(properties, "p", &[("n", &nasty)], &nasty),
            element(properties, "p", &[("f", "type")], &nasty),
            element(properties, "p", &[("f", "app_id")], &nasty),
            element(properties, "p", &[("f", "content_encoding")], &nasty),
        ];
        let mut stanza = element(CLIENT, "message", &[("to", "n@topics.d"), ("id", &nasty)], "");
        stanza.children = vec![
            element(CLIENT, "body", &[], &nasty),
            element(CLIENT, "thread", &[], &nasty),
            element(CLIENT, "subject", &[], &nasty),
            element("urn:x", "x", &[("a", &nasty)], &nasty),
            Xml { children: entries.into(), ..element(properties, "properties", &[], "") },
        ];
        let mut text = String::new();
        stanza.write(&mut text);
        xmpp.send(&text);
        xmpp.send("<message to='plain@topics.d'><body>plain</body></message>");
        listeners.have_both(&nasty, nasty.as_bytes());
    }
}

/// A header inside the text that carries what a target could not hold.
const EXTRA: &str = r#"[["x-death","str","forged"],["x-mq-user","str","u1"],["mine","str","v"]]"#;

#[test]
fn reserved_names_and_other_users_do_not_come_back_out_of_carry_keys() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "there");
    let mut mqtt = Mqtt::v5(&world, "m");
    mqtt.subscribe("there", 1);
    let (mut sender, mut other) = (Mqtt::v5(&world, "s"), Stomp::connect_as(&world, "1.2", "u2"));
    let mut xmpp = Xmpp::connect(&world, "u2", "r");
    let publish = Publish { topic: "there".into(), qos: 1, ..Publish::default() };
    sender.publish(publish.with(&Properties::of_user(&[("x-mq-extra", EXTRA)])));
    other.send("/topic/there", &[("x-mq-extra", EXTRA)], b"");
    xmpp.send(&format!(
        "<message to='there@topics.d'><properties xmlns='urn:polymq:properties:1'>\
         <p n='x-mq-extra'>{EXTRA}</p></properties></message>"
    ));
    let seen = amqp.deliveries();
    assert_eq!(seen.len(), 3);
    for delivery in seen {
        assert_eq!(delivery.header("x-death"), None);
        assert_eq!((delivery.header("x-mq-user"), &delivery.props.user_id), (None, &None));
        assert_eq!(delivery.text_header("mine"), Some("v"));
    }
    mqtt.all();

    let table = Props::with_headers(&[("x-mq-extra", Field::text(EXTRA))]);
    Amqp::connect_as(&world, "u2").publish_topic("there", &table, b"");
    let seen = mqtt.one();
    assert_eq!((seen.user("x-death"), seen.user("x-mq-user")), (None, None));
    assert_eq!(seen.user("mine"), Some("v"));
}

#[test]
fn stanza_names_another_user_in_no_way() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "there");
    let mut xmpp = Xmpp::connect(&world, "u2", "r");
    let ours = "urn:polymq:properties:1";
    let shim = "http://jabber.org/protocol/shim";
    let ways = [
        format!("<properties xmlns='{ours}'><p n='x-mq-user'>u1</p></properties>"),
        format!("<properties xmlns='{ours}'><p n64='eC1tcS11c2Vy'>u1</p></properties>"),
        format!("<properties xmlns='{ours}'><p f='user_id' t='str64'>dTE=</p></properties>"),
        format!("<headers xmlns='{shim}'><header name='x-mq-user'>u1</header></headers>"),
    ];
    for way in &ways {
        xmpp.send(&format!("<message to='there@topics.d'><body>x</body>{way}</message>"));
        let seen = amqp.delivery();
        assert_eq!((&seen.props.user_id, seen.header("x-mq-user")), (&None, None), "{way}");
    }
    assert_eq!(world.xmpp_count("not_allowed"), 4);
    xmpp.send(&format!(
        "<message to='there@topics.d'><body>x</body><headers xmlns='{shim}'>\
         <header name='x-death'>d</header><header name='mine'>v</header></headers></message>"
    ));
    let seen = amqp.delivery();
    assert_eq!((seen.header("x-death"), seen.text_header("mine")), (None, Some("v")));
    assert_eq!(world.xmpp_count("reserved"), 1);
}

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::*;
use crate::{
    delay::Delay,
    limits::Limits,
    message::Body,
    value::{Table, Value},
};

const NOW_MS: u64 = 1_700_000_000_000;

fn build(
    properties: serde_json::Value,
    impersonator: bool,
) -> Result<(Message, Option<Delay>), BadField> {
    let new = NewJsonMessage {
        exchange: "",
        key: "q",
        properties: serde_json::from_value(properties).unwrap(),
        body: Body::Slice(b"hi"),
        sender: Sender { user: "u", impersonator },
    };
    new.build(NOW_MS, &Limits::default(), &mut Vec::new())
}

#[test]
fn plain_message_has_no_property_bytes() {
    for plain in [json!({}), json!({ "delivery_mode": 2, "priority": 4 })] {
        let (message, _) = build(plain, false).unwrap();
        assert_eq!(message.native_props(), b"");
        assert!(message.is_durable());
    }
    let (transient, _) = build(json!({ "delivery_mode": 1 }), false).unwrap();
    assert!(!transient.is_durable());
}

#[test]
fn head_holds_what_the_broker_asks_for() {
    let said = json!({
        "priority": 7, "expiration": "5000", "retain": true, "qos": 2, "delay": 60_000,
        "headers": { "x-retain": false, "x-durability": "os" },
    });
    let (message, delay) = build(said, false).unwrap();
    assert_eq!(message.priority(), Some(7));
    assert_eq!(message.deadline_ms(), NOW_MS + 5000);
    assert_eq!((message.retain(), message.qos()), (true, 2));
    assert_eq!(message.durability(), crate::Durability::Os);
    assert_eq!(delay, Some(Delay::For(60_000)));
    let (message, _) = build(json!({ "expires_at": "2023-11-14T22:13:30Z" }), false).unwrap();
    assert_eq!(message.deadline_ms(), NOW_MS + 10_000);
    let (message, delay) = build(json!({ "delay": -5, "ttl": 5 }), false).unwrap();
    assert_eq!((message.deadline_ms(), delay), (0, None));
}

#[test]
fn names_of_the_broker_and_of_others_are_removed() {
    let said = json!({ "headers": { "x-death": 1, "x-mq-user": "other", "mine": 1 } });
    let (message, _) = build(said.clone(), false).unwrap();
    assert_eq!(message.properties().headers, [("mine".to_owned(), Value::I64(1))]);
    let (message, _) = build(said, true).unwrap();
    assert_eq!(message.properties().user_id.as_deref(), Some("other"));
}

#[test]
fn cc_and_bcc_add_keys_and_nobody_sees_the_latter() {
    let said = json!({ "headers": { "CC": ["a", "b"], "BCC": ["c"], "cc": "mine" } });
    let (message, _) = build(said, false).unwrap();
    let keys: Vec<&str> = message.extra_keys().iter().map(|key| &**key).collect();
    assert_eq!(keys.len(), 3);
    assert!(["a", "b", "c"].iter().all(|key| keys.contains(key)), "{keys:?}");
    let headers = &message.properties().headers;
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["CC", "cc"]);
}

#[test]
fn what_cannot_be_names_its_place() {
    let deep = format!("{{\"headers\":{{\"a\":{}{}}}}}", "[".repeat(33), "]".repeat(33));
    for (said, at) in [
        (json!({ "delivery_mode": 3 }), "/properties/delivery_mode"),
        (json!({ "user_id": "other" }), "/properties/user_id"),
        (json!({ "expires_at": "soon" }), "/properties/expires_at"),
        (json!({ "correlation_kind": "x" }), "/properties/correlation_kind"),
        (json!({ "headers": {}, "header_list": [] }), "/properties/header_list"),
        (json!({ "header_types": { "/a": "i8" } }), "/properties/header_types"),
        (
            json!({ "headers": { "a": 300 }, "header_types": { "/a": "i8" } }),
            "/properties/header_types",
        ),
        (
            json!({ "headers": { "a": 1 }, "header_types": { "/b": "i8" } }),
            "/properties/header_types",
        ),
        (json!({ "headers": { "x-durability": "disk" } }), "/properties/headers"),
        (json!({ "headers": { "x-delay": "soon" } }), "/properties/headers"),
        (json!({ "headers": { "CC": "a" } }), "/properties/headers"),
        (json!({ "headers": { "BCC": ["a", 1] } }), "/properties/headers"),
        (serde_json::from_str(&deep).unwrap(), "/properties/headers"),
    ] {
        let bad = build(said.clone(), false).map(|_| ()).unwrap_err();
        assert_eq!((bad.at.as_str(), bad.kind), (at, BadKind::Wrong), "{said}");
    }
    let large = json!({ "headers": { "a": "x".repeat(65_536) } });
    assert_eq!(build(large, false).map(|_| ()).unwrap_err().kind, BadKind::TooLarge);
}

#[test]
fn payload_is_what_its_encoding_says() {
    let body = |text: &str| {
        serde_json::from_str::<IncomingMessage>(text).unwrap().body().map_err(|bad| bad.at)
    };
    assert_eq!(body(r#"{"payload":"h\u00e9"}"#), Ok("hé".as_bytes().to_vec()));
    assert_eq!(body(r#"{"payload":"/wA=","payload_encoding":"base64"}"#), Ok(vec![0xff, 0]));
    // As it stands there, so that no number changes.
    let json = br#"{"a" : 1.00}"#;
    let text = r#"{"payload":{"a" : 1.00},"payload_encoding":"json"}"#;
    assert_eq!(body(text), Ok(json.to_vec()));
    assert_eq!(body("{}"), Ok(Vec::new()));
    assert_eq!(body(r#"{"payload":1}"#), Err("/payload".to_owned()));
    assert_eq!(body(r#"{"payload":"?","payload_encoding":"base64"}"#), Err("/payload".to_owned()));
    assert!(serde_json::from_str::<IncomingMessage>(r#"{"paylod":""}"#).is_err());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i64>().prop_map(Value::I64),
        any::<u64>().prop_map(Value::U64),
        (-1e300..1e300_f64).prop_map(Value::F64),
        any::<i128>().prop_map(|unscaled| Value::Decimal { scale: 3, unscaled }),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        vec(any::<u8>(), 0..5).prop_map(Value::Bytes),
        vec(any::<u8>(), 0..5).prop_map(Value::LongString),
        "[$tv~/ é\\n]{0,5}".prop_map(Value::String),
        any::<char>().prop_map(Value::Char),
        "[a-z]{0,3}".prop_map(Value::Symbol),
    ];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            vec(("[$tv~/a]{0,3}", inner), 0..3).prop_map(Value::Map),
        ]
    })
}

fn headers() -> impl Strategy<Value = Table> {
    vec(("[$tv~/ab]{0,3}", value()), 0..5)
}

proptest! {
    #![proptest_config(crate::test_config(256))]

    /// Whatever headers hold, a client that sends on what it received sends the same.
    #[test]
    fn headers_return_with_their_types(table in headers()) {
        let first = JsonProperties {
            header_list: Some(HeaderTable { table: table.clone(), style: Style::Typed }),
            ..JsonProperties::default()
        };
        let new = |properties| NewJsonMessage {
            exchange: "",
            key: "q",
            properties,
            body: Body::Slice(b""),
            sender: Sender { user: "u", impersonator: false },
        };
        let limits = Limits::default();
        let (message, _) = new(first).build(NOW_MS, &limits, &mut Vec::new()).unwrap();
        prop_assert_eq!(&message.properties().headers, &table);
        let shown = Shown::new(&message, NOW_MS, Style::Bare).to_json();
        let again: IncomingMessage = serde_json::from_str(&shown).unwrap();
        let (again, _) = new(again.properties).build(NOW_MS, &limits, &mut Vec::new()).unwrap();
        prop_assert_eq!(&again.properties().headers, &table);
    }

    /// No text makes reading panic.
    #[test]
    fn any_json_is_read_or_refused(text in "\\PC{0,80}") {
        let _ = serde_json::from_str::<IncomingMessage>(&text);
        let _ = serde_json::from_str::<JsonProperties>(&text);
    }
}

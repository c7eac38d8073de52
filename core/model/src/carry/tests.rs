use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    address::{Address, TOPIC_EXCHANGE},
    message::{Annotations, Death},
    properties::{Ident, Properties},
    value::{Table, Value},
};

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn table(list: &[(&str, Value)]) -> Table {
    list.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn nothing_is_dropped(field: &'static str, outcome: Outcome) {
    panic!("{field} was dropped: {outcome:?}");
}

fn to_text(props: &Properties) -> Vec<(String, String)> {
    to_text_headers(props, &MQTT5, &Writing::default(), &mut nothing_is_dropped)
}

fn to_table(props: &Properties) -> Table {
    to_table_headers(props, &Writing::default(), &mut nothing_is_dropped)
}

/// What an AMQP writer and reader make of the properties that have a native place.
fn over_amqp(props: &Properties, shown: Option<u64>) -> Properties {
    let writing = Writing { expiry_shown_ms: shown, ..Writing::default() };
    let headers = to_table_headers(props, &writing, &mut nothing_is_dropped);
    let short = |text: &Option<String>| text.clone().filter(|text| text.len() <= SHORT_BYTES_MAX);
    let ident = |ident: &Option<Ident>| {
        let text = ident_to_text(ident.as_ref()?);
        (text.len() <= SHORT_BYTES_MAX).then(|| ident_from_text(&text, None))
    };
    let mut back = Properties {
        id: ident(&props.id),
        correlation: ident(&props.correlation),
        content_type: props.content_type.clone(),
        content_encoding: short(&props.content_encoding),
        kind: short(&props.kind),
        app_id: short(&props.app_id),
        durable: props.durable,
        priority: props.priority,
        ttl_ms: shown,
        timestamp_ms: props
            .timestamp_ms
            .and_then(seconds_down)
            .map(|secs| i64::try_from(secs).unwrap() * 1000),
        reply_to: props
            .reply_to
            .as_ref()
            .and_then(Address::to_amqp)
            .map(|text| Address::from_amqp(&text)),
        user_id: short(&props.user_id),
        qos: u8::from(props.durable == Some(true)),
        ..Properties::default()
    };
    from_table_headers(headers, &mut back, &mut nothing_is_dropped);
    back
}

/// What an MQTT 5 writer and reader make of the properties that have a native place.
fn over_mqtt(props: &Properties, shown: Option<u64>) -> Properties {
    let writing = Writing { expiry_shown_ms: shown, ..Writing::default() };
    let headers = to_text_headers(props, &MQTT5, &writing, &mut nothing_is_dropped);
    let mut back = Properties {
        correlation: props.correlation.as_ref().map(|i| ident_from_bytes(&ident_to_bytes(i), None)),
        content_type: props.content_type.clone(),
        text: props.text,
        durable: props.durable,
        ttl_ms: shown,
        reply_to: props
            .reply_to
            .as_ref()
            .and_then(|address| address.to_mqtt_topic(TOPIC_EXCHANGE))
            .map(|topic| Address::from_mqtt_topic(&topic, TOPIC_EXCHANGE)),
        retain: props.retain,
        qos: props.qos,
        ..Properties::default()
    };
    from_text_headers(headers, &mut back, &mut nothing_is_dropped);
    back
}

#[test]
fn plain_headers_need_no_carry_key() {
    let props = Properties { headers: table(&[("a", string("1"))]), ..Properties::default() };
    assert_eq!(to_text(&props), pairs(&[("a", "1")]));
    assert_eq!(to_table(&props), props.headers);
}

#[test]
fn typed_headers_become_text_with_types() {
    let headers = table(&[
        ("i", Value::I32(5)),
        ("b", Value::Bool(true)),
        ("f", Value::F64(1.5)),
        ("l", Value::List(vec![Value::I64(1), string("x"), Value::U8(2)])),
        ("m", Value::Map(table(&[("raw", Value::Bytes(vec![0, 255]))]))),
        ("s", string("text")),
        ("n;=%\n", Value::Null),
    ]);
    let props = Properties { headers, ..Properties::default() };
    let written = to_text(&props);
    let expected = pairs(&[
        ("i", "5"),
        ("b", "true"),
        ("f", "1.5"),
        ("l", r#"[1,"x",{"$t":"u8","v":2}]"#),
        ("m", r#"{"raw":{"$t":"bytes","v":"AP8="}}"#),
        ("s", "text"),
        ("n;=%\n", ""),
        ("x-mq-types", "i=i32;b=bool;f=f64;l=list;m=map;n%3B%3D%25%0A=null"),
    ]);
    assert_eq!(written, expected);
    assert_eq!(over_mqtt(&props, None), props);
}

#[test]
fn values_have_the_texts_of_the_manual() {
    for (value, text, code) in [
        (Value::Null, "", "null"),
        (Value::Decimal { scale: 2, unscaled: 1250 }, "12.50", "dec"),
        (Value::Decimal { scale: 3, unscaled: -5 }, "-0.005", "dec"),
        (Value::Decimal { scale: 0, unscaled: 7 }, "7", "dec"),
        (Value::Timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z", "ts"),
        (Value::Timestamp(-1), "1969-12-31T23:59:59.999Z", "ts"),
        (Value::Timestamp(i64::MAX), "9223372036854775807", "ts"),
        (Value::Uuid([0xab; 16]), "abababab-abab-abab-abab-abababababab", "uuid"),
        (Value::LongString(vec![255, 0]), "/wA=", "lstr"),
        (string("a\0"), "YQA=", "str64"),
        (Value::F32(0.1), "0.1", "f32"),
        (Value::F64(f64::INFINITY), "inf", "f64"),
        (Value::F64(f64::NEG_INFINITY), "-inf", "f64"),
        (Value::U64(u64::MAX), "18446744073709551615", "u64"),
        (Value::Char('é'), "é", "char"),
    ] {
        let (written, written_code) = value_to_text(&value, |c| c == '\0');
        assert_eq!((written.as_str(), written_code), (text, Some(code)));
        assert_eq!(value_from_text(text, code), Some(value));
    }
    assert_eq!(value_to_text(&Value::F64(f64::NAN), |_| false).0, "NaN");
    assert_eq!(value_to_text(&string("x"), |_| false), ("x".to_owned(), None));
    for (text, code) in [
        ("256", "u8"),
        ("", "i32"),
        ("yes", "bool"),
        ("1.", "dec"),
        (".5", "dec"),
        ("--1", "dec"),
        ("ab", "char"),
        ("x", "uuid"),
        ("%", "bytes"),
        ("{}", "list"),
        ("[", "list"),
        ("x", "?"),
        ("2023-02-29T00:00:00Z", "ts"),
        ("2023-02-28T24:00:00Z", "ts"),
        ("é", "ts"),
        ("+babababa-abab-abab-abab-ababababab", "uuid"),
    ] {
        assert_eq!(value_from_text(text, code), None, "{text} {code}");
    }
}

#[test]
fn rfc_3339_is_read_with_offset_and_fraction() {
    for (text, ms) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31t22:30:00.5-01:30", 500),
        ("2024-02-29T12:00:00.123456Z", 1_709_208_000_123),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("-5", -5),
    ] {
        assert_eq!(rfc3339_to_ms(text), Some(ms), "{text}");
    }
}

#[test]
fn json_keeps_types_order_and_repeated_names() {
    let map = Value::Map(table(&[
        ("z", Value::I64(1)),
        ("a", Value::F64(f64::NAN)),
        ("$t", string("i32")),
        ("$$t", Value::U64(5)),
        ("$x", Value::Map(table(&[("r", Value::I64(1)), ("r", Value::I8(2))]))),
    ]));
    let text = value_to_json(&map);
    assert_eq!(
        text,
        r#"{"z":1,"a":{"$t":"f64","v":"NaN"},"$$t":"i32","$$$t":{"$t":"u64","v":5},"#.to_owned()
            + r#""$x":{"$t":"map","v":[["r",1],["r",{"$t":"i8","v":2}]]}}"#
    );
    let Some(Value::Map(read)) = value_from_json(&text) else { panic!("{text}") };
    assert_eq!(format!("{:?}", Value::Map(read)), format!("{map:?}"));
    let plain = value_from_json(r#"{"b":[1,"x",18446744073709551615,1.0]}"#);
    let items = vec![Value::I64(1), string("x"), Value::U64(u64::MAX), Value::F64(1.0)];
    assert_eq!(plain, Some(Value::Map(table(&[("b", Value::List(items))]))));
}

#[test]
fn json_that_is_nested_too_deep_is_refused() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(value_from_json(&nested(DEPTH_MAX)).is_some());
    assert!(value_from_json(&nested(DEPTH_MAX + 1)).is_none());
    assert!(value_from_json(&nested(100_000)).is_none());
}

#[test]
fn idents_have_the_texts_of_the_manual() {
    let text = |text: &str| Ident::Text(text.to_owned());
    let binary = |bytes: &[u8]| Ident::Binary(bytes.to_vec());
    assert_eq!(ident_to_text(&binary(&[255, 0])), "b64:/wA=");
    assert_eq!(ident_from_text("b64:/wA=", None), binary(&[255, 0]));
    assert_eq!(ident_to_text(&text("b64:YWJj")), "b64:YWJj");
    assert_eq!(ident_from_text("b64:YWJj", None), text("b64:YWJj"));
    let twice = ident_to_text(&text("b64:/wA="));
    assert_ne!(twice, "b64:/wA=");
    assert_eq!(ident_from_text(&twice, None), text("b64:/wA="));
    assert_eq!(ident_to_text(&Ident::Ulong(7)), "7");
    let uuid = "urn:uuid:00000000-0000-0000-0000-000000000000";
    assert_eq!(ident_to_text(&Ident::Uuid([0; 16])), uuid);
}

#[test]
fn repeated_properties_come_back_in_order() {
    let long = "n".repeat(300);
    let headers =
        table(&[("a", string("1")), ("b", string("2")), ("a", string("3")), (&long, string("4"))]);
    let props = Properties { headers, qos: 0, ..Properties::default() };
    let written = to_table(&props);
    let expected = table(&[
        ("a", Value::List(vec![string("1"), string("3")])),
        ("b", string("2")),
        ("x-mq-multi", string("a,b,a")),
        ("x-mq-extra", string(&format!(r#"[["{long}","str","4"]]"#))),
    ]);
    assert_eq!(written, expected);
    assert_eq!(over_amqp(&props, None), props);
}

#[test]
fn a_header_added_on_the_way_stays() {
    let headers = table(&[("a", string("1")), ("a", string("2"))]);
    let props = Properties { headers, ..Properties::default() };
    let mut written = to_table(&props);
    written.insert(0, ("new".to_owned(), string("x")));
    let mut back = Properties::default();
    from_table_headers(written, &mut back, &mut nothing_is_dropped);
    let expected = table(&[("a", string("1")), ("a", string("2")), ("new", string("x"))]);
    assert_eq!(back.headers, expected);
}

#[test]
fn expiry_rounds_up_and_never_grows() {
    assert_eq!(expiry_shown_ms(0, 5, 1000), None);
    assert_eq!(expiry_shown_ms(1_999, 1_000, 1000), Some(1000));
    assert_eq!(expiry_shown_ms(2_500, 1_000, 1000), Some(2000));
    assert_eq!(expiry_shown_ms(1_000, 1_000, 1000), Some(1000));
    let props = Properties { ttl_ms: Some(1500), ..Properties::default() };
    let writing = Writing { expiry_shown_ms: Some(2000), ..Writing::default() };
    let written = to_text_headers(&props, &MQTT5, &writing, &mut nothing_is_dropped);
    assert_eq!(written, pairs(&[("x-mq-ttl", "1500")]));
    assert_eq!(over_mqtt(&props, Some(2000)).ttl_ms, Some(1500));
    assert_eq!(over_mqtt(&props, Some(1000)).ttl_ms, Some(1000));
    assert_eq!(to_text(&props), pairs(&[]), "an expiry that is not shown is not carried");
    assert_eq!(smaller_ttl(None, Some(5)), None);
}

#[test]
fn a_timestamp_keeps_its_milliseconds_unless_a_client_wrote_another() {
    let props = Properties { timestamp_ms: Some(1_700_000_000_123), ..Properties::default() };
    let carried = ("x-mq-timestamp", Value::I64(1_700_000_000_123));
    assert_eq!(to_table(&props), table(std::slice::from_ref(&carried)));
    let mut newer = Properties { timestamp_ms: Some(1_800_000_000_000), ..Properties::default() };
    from_table_headers(table(&[carried]), &mut newer, &mut nothing_is_dropped);
    assert_eq!(newer.timestamp_ms, Some(1_800_000_000_000));
    assert!(newer.headers.is_empty());
    let whole = Properties { timestamp_ms: Some(1_700_000_000_000), ..Properties::default() };
    assert!(to_table(&whole).is_empty());
}

#[test]
fn native_fields_win_over_carried_ones() {
    let headers = pairs(&[("x-mq-priority", "7"), ("x-mq-id", "carried"), ("x-mq-qos", "2")]);
    let mut props = Properties { priority: Some(1), ..Properties::default() };
    from_text_headers(headers, &mut props, &mut nothing_is_dropped);
    assert_eq!(props.priority, Some(1));
    assert_eq!(props.id, Some(Ident::Text("carried".to_owned())));
    assert_eq!((props.qos, props.headers), (2, Table::new()));
}

#[test]
fn a_carry_key_that_cannot_be_read_stays_a_header() {
    let headers = pairs(&[("x-mq-priority", "high"), ("x-mq-extra", "{"), ("x-mq-own", "1")]);
    let mut props = Properties::default();
    from_text_headers(headers, &mut props, &mut nothing_is_dropped);
    assert_eq!(props.priority, None);
    assert_eq!(props.headers.len(), 3);
}

#[test]
fn names_of_other_brokers_are_read() {
    let headers = table(&[
        ("x-correlation-id", Value::LongString(vec![255])),
        ("x-message-id", string("m")),
        ("x-basic-type", string("t")),
        ("x-reply-to-topic", string("r.1")),
        ("JMSXGroupID", string("g")),
        ("x-retain", Value::Bool(true)),
    ]);
    let mut props = Properties::default();
    from_table_headers(headers, &mut props, &mut nothing_is_dropped);
    let expected = Properties {
        correlation: Some(Ident::Binary(vec![255])),
        id: Some(Ident::Text("m".to_owned())),
        kind: Some("t".to_owned()),
        reply_to: Some(Address::from_mqtt_topic("r/1", TOPIC_EXCHANGE)),
        group_id: Some("g".to_owned()),
        retain: true,
        ..Properties::default()
    };
    assert_eq!(props, expected);
}

#[test]
fn forged_deaths_are_removed_and_counted() {
    let headers = pairs(&[("x-death", "1"), ("a", "b"), ("x-death", "2")]);
    let mut count = 0;
    let mut props = Properties::default();
    from_text_headers(headers, &mut props, &mut |field, outcome| {
        assert_eq!((field, outcome), ("header", Outcome::Reserved));
        count += 1;
    });
    assert_eq!((count, props.headers), (2, table(&[("a", string("b"))])));
}

#[test]
fn without_carrying_each_field_is_counted() {
    let props = Properties {
        priority: Some(7),
        headers: table(&[("i", Value::I32(5))]),
        ..Properties::default()
    };
    let mut counted = Vec::new();
    let writing = Writing { carry: Carry::None, ..Writing::default() };
    let written = to_text_headers(&props, &MQTT5, &writing, &mut |field, outcome| {
        counted.push((field, outcome.label()));
    });
    assert_eq!(written, pairs(&[("i", "5")]));
    assert_eq!(counted, [("priority", "carry_off"), ("header", "carry_off")]);
}

#[test]
fn carry_keys_leave_a_packet_that_is_too_large() {
    let mut headers = pairs(&[("a", "1"), ("x-mq-id", "m"), ("x-mq-types", "a=i8")]);
    let mut counted = Vec::new();
    drop_carry_keys(&mut headers, &mut |field, outcome| counted.push((field, outcome.label())));
    assert_eq!(headers, pairs(&[("a", "1")]));
    assert_eq!(counted, [("id", "packet_size"), ("header", "packet_size")]);
}

#[test]
fn texts_over_the_limit_are_dropped_and_counted() {
    let props = Properties {
        id: Some(Ident::Text("i".repeat(70_000))),
        headers: table(&[("big", string(&"x".repeat(65_536))), ("fits", string("x"))]),
        ..Properties::default()
    };
    let mut counted = Vec::new();
    let written = to_text_headers(&props, &MQTT5, &Writing::default(), &mut |field, outcome| {
        counted.push((field, outcome));
    });
    assert_eq!(written, pairs(&[("fits", "x")]));
    assert_eq!(counted, [("header", Outcome::TooLong), ("id", Outcome::TooLong)]);
}

#[test]
fn what_amqp_cannot_hold_is_text_with_its_type() {
    let headers = table(&[
        ("u", Value::U64(u64::MAX)),
        ("small", Value::U64(5)),
        ("d", Value::Decimal { scale: 2, unscaled: i128::MAX }),
        ("ts", Value::Timestamp(1_500)),
        ("m", Value::Map(table(&[("id", Value::Uuid([1; 16]))]))),
        ("sym", Value::Symbol("s".to_owned())),
    ]);
    let mut props = Properties { headers, ..Properties::default() };
    let written = to_table(&props);
    assert_eq!(written.first().map(|(_, v)| v), Some(&string("18446744073709551615")));
    assert_eq!(written.get(1).map(|(_, v)| v), Some(&Value::I64(5)));
    assert_eq!(written.get(3).map(|(_, v)| v), Some(&Value::I64(1_500)));
    assert_eq!(
        written.last(),
        Some(&("x-mq-types".to_owned(), string("u=u64;d=dec;ts=ts;m=map;sym=sym"),))
    );
    let back = over_amqp(&props, None);
    if let Some((_, small)) = props.headers.get_mut(1) {
        *small = Value::I64(5);
    }
    assert_eq!(back, props);
}

#[test]
fn text_encodings_of_amqp_assert_a_text() {
    let mut props =
        Properties { content_encoding: Some("UTF-8".to_owned()), ..Properties::default() };
    from_table_headers(Table::new(), &mut props, &mut nothing_is_dropped);
    assert_eq!(props.text, Some(true));
    assert!(to_table(&props).is_empty());
    props.text = Some(false);
    assert_eq!(to_table(&props), table(&[("x-mq-text", Value::Bool(false))]));
}

#[test]
fn annotations_are_shown_and_stored() {
    let record = ("q".to_owned(), "rejected".to_owned(), "x".to_owned());
    let annotations = Annotations {
        deaths: vec![Death {
            queue: "q".to_owned(),
            reason: "rejected".to_owned(),
            count: 2,
            time_ms: 1_700_000_000_999,
            exchange: "x".to_owned(),
            routing_keys: vec!["k".to_owned()],
            original_ttl_ms: None,
            detail: None,
        }],
        first_death: Some(record.clone()),
        last_death: Some(record),
        delayed: None,
    };
    let stored = serde_json::to_vec(&annotations).unwrap();
    assert_eq!(serde_json::from_slice::<Annotations>(&stored).unwrap(), annotations);
    let stored_before = br#"{"deaths":[{"queue":"q","reason":"expired","count":1,"time_ms":1,
        "exchange":"","routing_keys":[]}],"first_death":null,"last_death":null}"#;
    let read: Annotations = serde_json::from_slice(stored_before).unwrap();
    assert_eq!(read.deaths[0].original_ttl_ms, None);
    let headers = annotation_headers(&annotations);
    assert_eq!(headers.len(), 7);
    assert!(headers.iter().all(|(name, _)| is_reserved(name)));
    let text = annotation_text_headers(&annotations);
    assert_eq!(
        text.first(),
        Some(&(
            "x-death".to_owned(),
            concat!(
                r#"[{"count":2,"reason":"rejected","queue":"q","#,
                r#""time":{"$t":"ts","v":"2023-11-14T22:13:20.000Z"},"exchange":"x","#,
                r#""routing-keys":["k"]}]"#
            )
            .to_owned()
        ))
    );
}

fn text() -> impl Strategy<Value = String> {
    "[a-c%=;,\"\\\\$té𝄞\n:+/#\\.]{0,8}"
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![text(), "[a\\x00\\x1f]{0,4}"]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        any::<f64>().prop_map(Value::F64),
        (any::<u8>(), any::<i32>())
            .prop_map(|(scale, v)| Value::Decimal { scale, unscaled: v.into() }),
        (0..4_000_000_000_i64).prop_map(|secs| Value::Timestamp(secs * 1000)),
        vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
        vec(any::<u8>(), 0..6).prop_map(Value::LongString),
        any_text().prop_map(Value::String),
    ]
}

fn wide_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::U64),
        (any::<u8>(), any::<i128>())
            .prop_map(|(scale, unscaled)| Value::Decimal { scale, unscaled }),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        any_text().prop_map(Value::Symbol),
        any::<char>().prop_map(Value::Char),
    ]
}

fn value(scalars: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    scalars.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::List),
            vec((any_text(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

fn ident() -> impl Strategy<Value = Ident> {
    let escapes = vec(any::<u8>(), 0..4).prop_map(|bytes| ident_to_text(&Ident::Binary(bytes)));
    let nested = vec(any::<u8>(), 0..4)
        .prop_map(|bytes| ident_to_text(&Ident::Text(ident_to_text(&Ident::Binary(bytes)))));
    prop_oneof![
        any_text().prop_map(Ident::Text),
        "[b64:YWJj/A=]{0,9}|b64:[YWJj/A=]{4}|[x]{300}".prop_map(Ident::Text),
        nested.clone().prop_map(|text| Ident::Binary(text.into_bytes())),
        nested.prop_map(Ident::Text),
        escapes.prop_map(Ident::Text),
        vec(any::<u8>(), 0..6).prop_map(Ident::Binary),
        any::<[u8; 16]>().prop_map(Ident::Uuid),
        any::<u64>().prop_map(Ident::Ulong),
    ]
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        text().prop_map(|name| Address::Queue(format!("q{name}"))),
        "q[x]{300}".prop_map(Address::Queue),
        (text(), option::of(text()))
            .prop_map(|(exchange, key)| Address::Exchange { exchange, key }),
        text().prop_map(|jid| Address::Jid(format!("j{jid}"))),
        Just(Address::Opaque("$SYS/x".to_owned())),
    ]
}

/// Texts that an AMQP text property can hold, now and then too long for it.
fn field() -> impl Strategy<Value = Option<String>> {
    option::of(prop_oneof![text(), Just("é".repeat(200))])
}

fn properties(headers: impl Strategy<Value = Table>) -> impl Strategy<Value = Properties> {
    let first = (option::of(ident()), option::of(ident()), field(), field(), field(), field());
    let second = (
        option::of(any::<bool>()),
        any::<bool>(),
        option::of(any::<u8>()),
        option::of(0..5000_u64),
        option::of(any::<i64>()),
        option::of(address()),
        option::of(text()),
        any::<bool>(),
    );
    (first, second, headers).prop_map(|(first, second, headers)| {
        let (id, correlation, content_encoding, kind, app_id, user_id) = first;
        let (text, durable, priority, ttl_ms, timestamp_ms, reply_to, group_id, retain) = second;
        // Kinds of ids belong to AMQP 1.0 and have no carry key.
        let id = id.map(|id| ident_from_text(&ident_to_text(&id), None));
        Properties {
            id,
            correlation,
            content_encoding,
            kind,
            app_id,
            text,
            durable: Some(durable),
            priority,
            ttl_ms,
            timestamp_ms,
            reply_to,
            user_id,
            group_id,
            retain,
            qos: u8::from(durable) * 2,
            headers,
            ..Properties::default()
        }
    })
}

/// Values compare by their text, because a NaN equals nothing.
fn same(left: &Properties, right: &Properties) -> bool {
    format!("{left:?}") == format!("{right:?}")
}

proptest! {
    #![proptest_config(crate::test_config(200))]

    #[test]
    fn values_survive_text(value in value(prop_oneof![scalar(), wide_scalar()])) {
        let (text, code) = value_to_text(&value, |c| c == '\0');
        prop_assert!(!text.contains('\0'));
        let back = value_from_text(&text, code.unwrap_or("str"));
        prop_assert_eq!(format!("{back:?}"), format!("{:?}", Some(value)));
    }

    #[test]
    fn values_survive_json(value in value(prop_oneof![scalar(), wide_scalar()])) {
        let back = value_from_json(&value_to_json(&value));
        prop_assert_eq!(format!("{back:?}"), format!("{:?}", Some(value)));
    }

    #[test]
    fn idents_survive_text_and_bytes(ident in ident()) {
        let kind = ident_kind(&ident);
        prop_assert_eq!(&ident_from_text(&ident_to_text(&ident), kind), &ident);
        prop_assert_eq!(&ident_from_bytes(&ident_to_bytes(&ident), kind), &ident);
    }

    #[test]
    fn every_text_is_read_and_written_back(ident in ident()) {
        let text = ident_to_text(&ident);
        prop_assert_eq!(ident_to_text(&ident_from_text(&text, None)), text);
        let bytes = ident_to_bytes(&ident);
        prop_assert_eq!(ident_to_bytes(&ident_from_bytes(&bytes, None)), bytes);
    }

    #[test]
    fn mqtt_5_gives_an_amqp_message_back(
        props in properties(vec((text(), value(scalar())), 0..6)), shown in 1..5000_u64,
    ) {
        let shown = props.ttl_ms.map(|ttl| ttl.max(shown));
        prop_assert!(same(&over_mqtt(&props, shown), &props));
    }

    #[test]
    fn amqp_gives_an_mqtt_5_message_back(
        props in properties(vec(
            (prop_oneof![text(), Just("n".repeat(300))], text().prop_map(Value::String)),
            0..8,
        )),
    ) {
        prop_assert!(same(&over_amqp(&props, props.ttl_ms), &props));
    }

    #[test]
    fn amqp_gives_a_message_with_wide_types_back(
        headers in vec((text(), value(prop_oneof![scalar(), wide_scalar()])), 0..6),
    ) {
        let mut props = Properties { headers, ..Properties::default() };
        // AMQP has no unsigned 64 bits, and no need for them in this range.
        props.headers.retain(|(_, value)| !format!("{value:?}").contains("U64"));
        prop_assert!(same(&over_amqp(&props, None), &props));
    }

    #[test]
    fn no_header_of_a_client_is_a_reason_to_panic(
        headers in vec((
            prop_oneof![
                text(),
                proptest::sample::select(Field::ALL).prop_map(|field| field.key().to_owned()),
            ],
            "(a|b|list|map|ts|[=;,%\\[\\]{}\"0-9:$tv.]){0,12}",
        ), 0..8),
    ) {
        let mut props = Properties::default();
        from_text_headers(headers, &mut props, &mut |_, _| {});
        to_text_headers(&props, &MQTT5, &Writing::default(), &mut |_, _| {});
        to_table_headers(&props, &Writing::default(), &mut |_, _| {});
    }
}

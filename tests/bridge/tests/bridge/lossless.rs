//! Whatever a message holds, it returns from the other protocol as it was.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

use crate::{
    amqp::{Amqp, Field, Props},
    mqtt::{Mqtt, Properties, Publish, publish},
    round_trip::{OverAmqp, OverMqtt},
    world::World,
};

/// The same cases at each run, unless `PROPTEST_RNG_SEED` in the environment asks for others.
pub(crate) fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(match config.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(1), ..config },
        RngSeed::Fixed(_) => config,
    })
}

/// Texts rich in what conversions escape.
pub(crate) fn odd_text() -> impl Strategy<Value = String> {
    let odd = prop_oneof![
        Just("b64:"),
        Just("urn:uuid:"),
        Just("%2B"),
        Just("%"),
        Just(","),
        Just(";"),
        Just("="),
        Just("\""),
        Just("$t"),
        Just("é"),
        Just("\u{10FFFF}"),
        Just("\u{1}"),
        Just("\n"),
        Just(" "),
        Just("a"),
        Just("YWJj"),
        Just("/"),
        Just("."),
        Just("1"),
        Just("true"),
        Just("amq.address:"),
        Just("/exchanges/"),
        Just("/queues/q"),
        Just("$queue/"),
    ];
    vec(odd, 0..6).prop_map(|parts| parts.concat())
}

fn short_text() -> impl Strategy<Value = String> {
    prop_oneof![4 => odd_text(), 1 => Just("x".repeat(255))]
}

fn text_with_nul() -> impl Strategy<Value = String> {
    prop_oneof![6 => short_text(), 1 => odd_text().prop_map(|text| format!("{text}\0"))]
}

/// Names of headers that mean nothing to the broker.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => odd_text().prop_map(|text| format!("h{text}")), 1 => Just("n".repeat(255))]
}

fn field() -> impl Strategy<Value = Field> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Field::Bool),
        any::<i8>().prop_map(Field::I8),
        any::<u8>().prop_map(Field::U8),
        any::<i16>().prop_map(Field::I16),
        any::<u16>().prop_map(Field::U16),
        any::<i32>().prop_map(Field::I32),
        any::<u32>().prop_map(Field::U32),
        any::<i64>().prop_map(Field::I64),
        prop_oneof![any::<f32>(), Just(f32::NAN), Just(-0.0)].prop_map(Field::F32),
        prop_oneof![any::<f64>(), Just(f64::INFINITY), Just(1e300)].prop_map(Field::F64),
        (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| Field::Decimal(scale, value)),
        odd_text().prop_map(|text| Field::text(&text)),
        Just(Field::Text(b"a\0b".to_vec())),
        vec(any::<u8>(), 0..8).prop_map(Field::Text),
        vec(any::<u8>(), 0..8).prop_map(Field::Bytes),
        prop_oneof![0..5_000_000_000u64, 0..i64::MAX as u64 / 1000].prop_map(Field::Time),
        Just(Field::Void),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Field::List),
            vec((short_text(), inner), 0..4).prop_map(Field::Table),
        ]
    })
}

fn headers() -> impl Strategy<Value = Option<Vec<(String, Field)>>> {
    let name = prop_oneof![8 => name(), 1 => odd_text(), 1 => Just("x\0".to_owned())];
    vec((name, field()), 0..6).prop_map(|mut headers| {
        let mut names = std::collections::HashSet::new();
        headers.retain(|(name, _)| names.insert(name.clone()));
        (!headers.is_empty()).then_some(headers)
    })
}

/// All properties but the cluster id, which no other protocol knows.
pub(crate) fn props() -> impl Strategy<Value = Props> {
    let texts = (option::of(short_text()), [(); 3].map(|()| option::of(text_with_nul())));
    let ids =
        (option::of(text_with_nul()), option::of(text_with_nul()), option::of(text_with_nul()));
    let numbers = (
        1..=2u8,
        option::of(any::<u8>()),
        option::of(prop_oneof![1..5u64, 1..100_000u64, 1..=u64::from(u32::MAX)]),
        option::of(prop_oneof![0..5_000_000_000u64, 0..i64::MAX as u64 / 1000]),
        any::<bool>(),
    );
    (texts, ids, numbers, headers()).prop_map(|(texts, ids, numbers, headers)| {
        let (content_type, [content_encoding, kind, app_id]) = texts;
        let (correlation_id, message_id, reply_to) = ids;
        let (delivery_mode, priority, expiration, timestamp, has_user) = numbers;
        Props {
            content_type,
            content_encoding,
            headers,
            delivery_mode: Some(delivery_mode),
            priority,
            correlation_id,
            // An address comes back in its canonical form.
            reply_to: reply_to.filter(|to| !to.is_empty() && !to.starts_with("amq.address:/")),
            expiration: expiration.map(|ms| ms.to_string()),
            message_id,
            timestamp,
            kind,
            user_id: has_user.then(|| "guest".to_owned()),
            app_id,
            cluster_id: None,
        }
    })
}

pub(crate) fn properties() -> impl Strategy<Value = Properties> {
    let user_name = prop_oneof![6 => name(), 2 => Just("h".to_owned()), 1 => Just("n".repeat(300))];
    let event_name = prop::sample::select(vec!["specversion", "id", "type", "time", "x"])
        .prop_map(str::to_owned);
    let topic = prop_oneof![
        odd_text().prop_map(|text| format!("r{text}")),
        odd_text().prop_map(|text| format!("$exchange/x/{text}")),
        Just("$queue/a%2Fb".to_owned()),
        Just("/".to_owned()),
        Just("$nowhere/x".to_owned()),
    ];
    (
        option::of(0..=1u8),
        option::of(1..4_000_000u32),
        option::of(odd_text()),
        option::of(topic),
        option::of(prop_oneof![
            vec(any::<u8>(), 0..8),
            odd_text().prop_map(String::into_bytes),
            Just(vec![0xFE; 300]),
        ]),
        vec(
            (
                prop_oneof![12 => user_name, 1 => odd_text(), 2 => event_name],
                prop_oneof![odd_text(), Just("v".repeat(70))],
            ),
            0..6,
        ),
    )
        .prop_map(|(format, expiry, content_type, response_topic, correlation, user)| {
            Properties {
                format,
                expiry,
                content_type,
                response_topic,
                correlation,
                subscription_ids: Vec::new(),
                user,
            }
        })
}

#[test]
fn whatever_amqp_says_returns_from_mqtt_5() {
    let mut over = OverMqtt::new();
    let over = std::cell::RefCell::new(&mut over);
    let cases = (props(), vec(any::<u8>(), 0..20));
    runner(256)
        .run(&cases, |(sent, body)| {
            let (_, back) = over.borrow_mut().send(&sent, &body);
            // As texts, because NaN is not equal to itself.
            prop_assert_eq!(format!("{:?}", back.props), format!("{:?}", sent));
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_mqtt_5_says_returns_from_amqp() {
    let mut over = OverAmqp::new();
    let over = std::cell::RefCell::new(&mut over);
    let cases = (properties(), 0..=2u8, any::<bool>());
    runner(256)
        .run(&cases, |(properties, qos, retain)| {
            let sent =
                Publish { qos, retain, properties, payload: b"hi".to_vec(), ..Default::default() };
            let expected = sent.properties.clone();
            let (_, back) = over.borrow_mut().send(sent);
            prop_assert_eq!(back.properties, expected);
            Ok(())
        })
        .unwrap();
}

/// Topics of MQTT, without wildcards.
fn topic() -> impl Strategy<Value = String> {
    let parts = ["a", ".", "/", "*", "%", "2", "5", "B", "3", "%2B", "%23", "%252B", " ", "é", "$"];
    vec(prop::sample::select(parts.to_vec()), 1..12)
        .prop_map(|parts| parts.concat())
        .prop_filter("the broker's own", |topic| !topic.starts_with('$'))
}

#[test]
fn whatever_a_topic_holds_names_the_same_place() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.listen("q", "#");
    let mut mqtt = Mqtt::v311(&world, "m");
    mqtt.subscribe("#", 1);
    let clients = std::cell::RefCell::new((amqp, mqtt));
    runner(256)
        .run(&topic(), |topic| {
            let (amqp, mqtt) = &mut *clients.borrow_mut();
            mqtt.publish(publish(&topic, b""));
            prop_assert_eq!(&mqtt.one().topic, &topic);
            let key = amqp.delivery().key;
            amqp.publish_topic(&key, &Props::persistent(), b"");
            prop_assert_eq!(&amqp.delivery().key, &key);
            prop_assert_eq!(&mqtt.one().topic, &topic);
            Ok(())
        })
        .unwrap();
    // Keys of AMQP may also hold what would be a wildcard in MQTT.
    let key = (topic(), prop::sample::select(vec!["#", "+", "a", ".", "$"]), topic());
    runner(256)
        .run(&key, |(start, odd, end)| {
            let (amqp, mqtt) = &mut *clients.borrow_mut();
            let key = start + odd + &end;
            amqp.publish_topic(&key, &Props::persistent(), b"");
            prop_assert_eq!(&amqp.delivery().key, &key);
            let topic = mqtt.one().topic;
            prop_assert!(!topic.contains(['+', '#']));
            mqtt.publish(publish(&topic, b""));
            prop_assert_eq!(&amqp.delivery().key, &key);
            prop_assert_eq!(&mqtt.one().topic, &topic);
            Ok(())
        })
        .unwrap();
}

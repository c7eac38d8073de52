use proptest::prelude::*;

use super::*;

fn queue(name: &str) -> Address {
    Address::Queue(name.to_owned())
}

fn exchange(exchange: &str, key: Option<&str>) -> Address {
    Address::Exchange { exchange: exchange.to_owned(), key: key.map(str::to_owned) }
}

#[test]
fn addresses_have_the_texts_of_the_manual() {
    let jid = Address::Jid("u1@d/phone".to_owned());
    for (address, canonical, amqp, mqtt) in [
        (queue("q"), "/queues/q", "q", "$queue/q"),
        (queue("a/b"), "/queues/a%2Fb", "a/b", "$queue/a%2Fb"),
        (
            exchange(TOPIC_EXCHANGE, Some("r.1")),
            "/exchanges/amq.topic/r.1",
            "amq.address:/exchanges/amq.topic/r.1",
            "r/1",
        ),
        (exchange("x", Some("k")), "/exchanges/x/k", "amq.address:/exchanges/x/k", "$exchange/x/k"),
        (
            exchange("x", None),
            "/exchanges/x",
            "amq.address:/exchanges/x",
            "$queue/amq.address:%2Fexchanges%2Fx",
        ),
        (
            exchange(TOPIC_EXCHANGE, Some("$SYS.x")),
            "/exchanges/amq.topic/%24SYS.x",
            "amq.address:/exchanges/amq.topic/%24SYS.x",
            "$exchange/amq.topic/$SYS/x",
        ),
        (
            jid,
            "/jids/u1%40d%2Fphone",
            "amq.address:/jids/u1%40d%2Fphone",
            "$queue/amq.address:%2Fjids%2Fu1%2540d%252Fphone",
        ),
    ] {
        assert_eq!(address.to_text(), canonical);
        assert_eq!(address.to_amqp().as_deref(), Some(amqp));
        assert_eq!(address.to_mqtt_topic(TOPIC_EXCHANGE).as_deref(), Some(mqtt));
        assert_eq!(Address::parse(canonical), address);
        assert_eq!(Address::from_amqp(amqp), address);
        assert_eq!(Address::from_mqtt_topic(mqtt, TOPIC_EXCHANGE), address);
    }
}

#[test]
fn malformed_addresses_are_opaque_text() {
    for text in ["", "/", "/queues", "/queues/", "/queues/a/b", "/queues/%4", "/queues/%FF", "x"] {
        assert_eq!(Address::parse(text), Address::Opaque(text.to_owned()));
    }
    let odd = "amq.address:/nowhere/x";
    assert_eq!(Address::from_amqp(odd), Address::Opaque(odd.to_owned()));
    assert_eq!(Address::from_amqp(odd).to_amqp().as_deref(), Some(odd));
    let system = Address::from_mqtt_topic("$SYS/x", TOPIC_EXCHANGE);
    assert_eq!(system, Address::Opaque("$SYS/x".to_owned()));
    assert_eq!(system.to_amqp(), None, "AMQP would read it as a queue");
    assert_eq!(system.to_mqtt_topic(TOPIC_EXCHANGE).as_deref(), Some("$SYS/x"));
}

#[test]
fn publish_topics_address_the_places_of_the_manual() {
    use MqttDestination as D;
    assert_eq!(D::publish("a/b"), Ok(D::Topic("a/b")));
    let plain = D::Queue { name: "q".into(), written: "q", with_origin: false };
    assert_eq!(D::publish("$queue/q"), Ok(plain.clone()));
    let named = D::Queue { name: "a/b".into(), written: "a%2fb", with_origin: false };
    assert_eq!(D::publish("$queue/a%2fb"), Ok(named));
    let logs = D::Exchange { exchange: "logs".into(), written: "logs", key: "app/error" };
    assert_eq!(D::publish("$exchange/logs/app/error"), Ok(logs));
    let later = D::Delayed { seconds: 5, to: Box::new(plain) };
    assert_eq!(D::publish("$delayed/5/$queue/q"), Ok(later));
    for refused in [
        "$SYS/x",
        "$foo",
        "$",
        "$queue",
        "$queue/",
        "$queue/a/b",
        "$queue/%FF",
        "$exchange/x",
        "$exchange//k",
        "$share/g/t",
        "$delayed/x/t",
        "$delayed/+5/t",
        "$delayed/5",
        "$delayed/1/$delayed/1/t",
        "$queue/q/#",
    ] {
        assert!(D::publish(refused).is_err(), "{refused}");
    }
}

#[test]
fn filters_address_the_places_of_the_manual() {
    use MqttDestination as D;
    assert_eq!(D::subscribe("a/+/#"), Ok(D::Topic("a/+/#")));
    let queue = D::Queue { name: "a/b".into(), written: "a%2Fb", with_origin: true };
    assert_eq!(D::subscribe("$queue/a%2Fb/#"), Ok(queue));
    let logs = D::Exchange { exchange: "logs".into(), written: "logs", key: "+/#" };
    assert_eq!(D::subscribe("$exchange/logs/+/#"), Ok(logs));
    assert_eq!(D::subscribe("$share/g/jobs/#"), Ok(D::Shared { group: "g", filter: "jobs/#" }));
    assert_eq!(D::subscribe("$SYS/#"), Ok(D::System("$SYS/#")));
    for refused in [
        "$foo/#",
        "$queue/+",
        "$queue/#",
        "$queue/a/b",
        "$exchange/+/k",
        "$share/g",
        "$share//f",
        "$share/+/f",
        "$share/g/",
        "$share/g/$queue/q",
        "$delayed/5/t",
    ] {
        assert!(D::subscribe(refused).is_err(), "{refused}");
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a./*#+%25B3$ é𝄞:\\x00]{0,12}"
}

proptest! {
    #![proptest_config(crate::test_config(500))]

    #[test]
    fn every_address_survives_its_texts(name in text(), key in text(), kind in 0..4) {
        let address = match kind {
            0 => Address::Queue(format!("q{name}")),
            1 => Address::Exchange { exchange: name, key: Some(key) },
            2 => Address::Exchange { exchange: name, key: None },
            _ => Address::Jid(format!("j{name}")),
        };
        prop_assert_eq!(&Address::parse(&address.to_text()), &address);
        let amqp = address.to_amqp().unwrap();
        prop_assert_eq!(&Address::from_amqp(&amqp), &address);
        let mqtt = address.to_mqtt_topic(TOPIC_EXCHANGE).unwrap();
        prop_assert!(!mqtt.contains(['+', '#', '\0']));
        prop_assert_eq!(&Address::from_mqtt_topic(&mqtt, TOPIC_EXCHANGE), &address);
    }

    #[test]
    fn every_text_of_a_protocol_is_read_and_written_back(name in text()) {
        let amqp = format!("amq.address:{name}");
        for text in [&name, &amqp] {
            if let Some(back) = Address::from_amqp(text).to_amqp() {
                prop_assert_eq!(&back, text);
            }
        }
        let address = Address::from_mqtt_topic(&name, TOPIC_EXCHANGE);
        if let Some(back) = address.to_mqtt_topic(TOPIC_EXCHANGE) {
            prop_assert_eq!(Address::from_mqtt_topic(&back, TOPIC_EXCHANGE), address);
        }
    }
}

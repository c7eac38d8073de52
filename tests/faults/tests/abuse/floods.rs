//! Cases A4, A6 and A8: connections without end, more of everything than anybody needs, and credit
//! without bound.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{Amqp, Method},
    broker::{Broker, Home},
    mqtt::{Login, Mqtt, packet, text},
    report::{say, setting},
    talk::{Talk, connect_from},
    web::{self, GUEST, Page},
};
use serde_json::{Value, json};

use crate::served::Honest;

/// Where the flood comes from.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 9];

#[test]
fn a04_connections_that_come_and_go_hold_up_nobody() {
    let count = setting("POLYMQ_FLOOD_CONNECTIONS", 10_000);
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let ports = broker.ports;
    let began = Instant::now();
    let flood = std::thread::spawn(move || {
        let ports = [ports.amqp, ports.mqtt, ports.stomp, ports.xmpp];
        for number in 0..count {
            let port = ports[usize::try_from(number % 4).unwrap()];
            // Ports of one address run out when all wait for their time after the end.
            let last = u8::try_from(number / 20_000).unwrap();
            let from = [ELSEWHERE[0], ELSEWHERE[1], 1 + last, ELSEWHERE[3]];
            let mut stream = connect_from(from, port).unwrap();
            if number % 3 == 0 {
                // It may be closed already.
                let _ = stream.write_all(b"AMQP\x00");
            }
        }
    });
    let mut rounds = 0;
    while !flood.is_finished() {
        honest.is_served();
        rounds += 1;
    }
    flood.join().unwrap();
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let grown = broker.resident_kib().unwrap().saturating_sub(before) / 1024;
    say(&format!(
        "A4: {count} connections, {rate:.0} a second: {grown} MiB; {rounds} honest round trips, \
         slowest {} ms",
        honest.slowest.as_millis()
    ));
    assert!(honest.slowest < Duration::from_secs(2), "{:?}", honest.slowest);
    assert!(grown < 96, "{grown} MiB");
    let open = || broker.metric("polymq_sockets").unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    // The two that are honest stay, and one asks.
    while open() > 3.0 {
        assert!(Instant::now() < until, "{} sockets are open", open());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(broker.is_alive());
}

#[test]
fn a06_many_queues_and_bindings_cost_what_they_are() {
    let count = setting("POLYMQ_ENTITIES", 10_000);
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    for number in 0..count {
        let queue = format!("q{number}");
        // Transient, so that no disk is waited for.
        let declare = Method::new((50, 10)).u16(0).short(&queue).u8(0).long(&[]);
        let bind = Method::new((50, 20)).u16(0).short(&queue).short("amq.topic");
        let bind = bind.short(&format!("#.{number}.*.#")).u8(0).long(&[]);
        client.send(&[declare.frame(1), bind.frame(1)].concat()).unwrap();
        if number % 256 == 255 {
            while client.expect((50, 11)).is_ok() && client.expect((50, 21)).is_ok() {
                if !client.has_input() {
                    break;
                }
            }
            honest.is_served();
        }
    }
    // Three times `#` would make a search among them slow.
    let bad = Method::new((50, 20)).u16(0).short("q0").short("amq.topic").short("#.a.#.b.#");
    let mut other = Amqp::open(broker.ports.amqp).unwrap();
    assert!(other.call(&bad.u8(0).long(&[]), (50, 21)).is_err(), "three `#` are refused");
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    let each = grown as f64 / count as f64;
    let began = Instant::now();
    let rounds = 50;
    (0..rounds).for_each(|_| honest.is_served());
    let round = began.elapsed() / rounds;
    say(&format!(
        "A6: {count} queues, each with a binding `#.n.*.#`: {each:.1} KiB each; an honest round \
         trip takes {} us, the slowest took {} ms",
        round.as_micros(),
        honest.slowest.as_millis()
    ));
    assert!(each < 12.0, "{each:.1} KiB each");
    assert!(round < Duration::from_millis(100), "{round:?}");
    assert!(broker.is_alive());
}

#[test]
fn a06_subscriptions_of_a_client_have_a_bound_in_every_protocol() {
    let mut home = Home::new().unwrap();
    home.always(&["--set", "mqtt.subscriptions_max=100", "--set", "stomp.subscriptions_max=100"]);
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);

    let login = Login { level: 5, client_id: "greedy", clean: true };
    let mut mqtt = Mqtt::open(broker.ports.mqtt, login).unwrap();
    let mut body = vec![0, 1, 0];
    for number in 0..101 {
        // Depth without end, and wildcards at every level.
        let filter = format!("a/+/+/+/+/+/+/+/{number}/#");
        body.extend(text(filter.as_bytes()));
        body.push(0);
    }
    mqtt.send(&packet(0x82, &body)).unwrap();
    let suback = mqtt.next_packet().unwrap().unwrap();
    assert_eq!(suback.first, 0x90);
    let refused = suback.body.iter().filter(|code| **code == 0x97).count();
    assert_eq!(refused, 1, "one is too much: {:?}", suback.body);

    let mut stomp = Talk::stomp(broker.ports.stomp).unwrap();
    for number in 0..101 {
        let frame = format!("SUBSCRIBE\nid:{number}\ndestination:/topic/a.{number}\n\n\0");
        stomp.say(&frame).unwrap();
    }
    let said = stomp.last_words().unwrap();
    assert!(said.contains("ERROR\n") && said.contains("100"), "{said}");

    // The bound of STOMP is that of whoever names subscriptions, pages too.
    let mut page = page(&broker);
    let pattern = |number| json!({ "exchange": "amq.topic", "pattern": format!("a.{number}.#") });
    let codes: Vec<_> = (0..101).map(|number| subscribe(&mut page, pattern(number))).collect();
    let (last, before) = codes.split_last().unwrap();
    assert!(before.iter().all(|code| code == "subscribed"), "{codes:?}");
    assert_eq!(last, "limit");

    let mut xmpp = Talk::xmpp(broker.ports.xmpp, "greedy").unwrap();
    for number in 0..1100 {
        let declare = format!(
            "<iq type='set' id='d{number}' to='q{number}@queues.localhost'>\
             <command xmlns='http://jabber.org/protocol/commands' \
             node='urn:polymq:command:declare'><x xmlns='jabber:x:data' type='submit'>\
             <field var='queue'><value>q{number}</value></field>\
             <field var='durable'><value>false</value></field></x></command></iq>"
        );
        xmpp.say(&declare).unwrap();
        let presence = format!(
            "<presence to='q{number}@queues.localhost'><consume xmlns='urn:polymq:queue:1'/>\
             </presence>"
        );
        xmpp.say(&presence).unwrap();
    }
    // Its own resource and its mailbox, which may come a moment later, are two of the 1,000 places
    // of a stream.
    let (mut taken, mut refused) = (0, 0);
    while taken + refused < 1100 {
        let said = xmpp.hear(">").unwrap();
        taken += said.matches("<presence from='q").count();
        refused += said.matches("<resource-constraint").count();
    }
    assert!((998..=999).contains(&taken), "{taken} of 1,100");
    honest.is_served();
    assert!(broker.is_alive());
}

#[test]
fn a06_subscriptions_of_topics_are_places_of_their_stream() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut xmpp = Talk::xmpp(broker.ports.xmpp, "reader").unwrap();
    for number in 0..1100 {
        let subscribe = format!(
            "<iq type='set' id='s{number}' to='topics.localhost'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'>\
             <subscribe node='a.{number}' jid='guest@localhost/reader'/></pubsub></iq>"
        );
        xmpp.say(&subscribe).unwrap();
        // One after the other: those that are on their way do not count yet.
        let said = xmpp.hear("</iq>").unwrap();
        assert_eq!(said.contains("<resource-constraint"), number >= 998, "{number}: {said}");
    }
}

/// A client of `/ws/json` that has logged in.
fn page(broker: &Broker) -> Page {
    let socket = TcpStream::connect(("127.0.0.1", broker.ports.http)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut page = Page::over(socket).unwrap();
    assert!(page.log_in("guest", "guest").unwrap());
    page
}

/// Has a page subscribe, and returns how that is answered: the word, or the code of the error.
fn subscribe(page: &mut Page, what: Value) -> String {
    let mut op = json!({ "op": "subscribe", "id": 1, "sub": what.to_string() });
    for (name, value) in what.as_object().unwrap() {
        op[name] = value.clone();
    }
    page.say(&op).unwrap();
    let said = page.hear().unwrap().unwrap();
    said.get("code").or_else(|| said.get("op")).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a08_credit_without_bound_is_capped_or_refused() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);

    let qos = |size: u32, count: u16| Method::new((60, 10)).u32(size).u16(count).u8(0);
    let mut amqp = Amqp::open(broker.ports.amqp).unwrap();
    amqp.call(&qos(0, u16::MAX), (60, 11)).unwrap();
    assert!(amqp.call(&qos(u32::MAX, 1), (60, 11)).is_err(), "bytes cannot be promised");

    // Receive Maximum 0 is an error of the protocol (MQTT 5, section 3.1.2.11.3).
    let mut mqtt = Mqtt::dial(broker.ports.mqtt).unwrap();
    let mut body = text(b"MQTT");
    body.extend([5, 2, 0, 0, 3, 0x21, 0, 0]);
    body.extend(text(b"zero"));
    mqtt.send(&packet(0x10, &body)).unwrap();
    let words = mqtt.last_words().unwrap();
    assert!(words.iter().all(|packet| packet.body.get(1) != Some(&0)), "{words:?}");

    for (count, is_taken) in [("65535", true), ("4294967295", true), ("-1", false), ("x", false)] {
        let mut stomp = Talk::stomp(broker.ports.stomp).unwrap();
        let frame = format!(
            "SUBSCRIBE\nid:0\ndestination:/queue/credit\nack:client\nprefetch-count:{count}\n\
             receipt:s\n\n\0"
        );
        stomp.say(&frame).unwrap();
        let said = stomp.hear("\0").unwrap();
        assert_eq!(said.contains("RECEIPT"), is_taken, "{count}: {said}");
    }

    for (count, is_taken) in [("0", true), ("4294967295", true), ("4294967296", false)] {
        let mut xmpp = Talk::xmpp(broker.ports.xmpp, "credit").unwrap();
        xmpp.say(&format!(
            "<presence to='credit@queues.localhost'><consume xmlns='urn:polymq:queue:1' \
             prefetch='{count}'/></presence>"
        ))
        .unwrap();
        let said = xmpp.hear("from='credit@queues.localhost'").unwrap();
        assert_eq!(!said.contains("type='error'"), is_taken, "{count}: {said}");
    }

    let mut page = page(&broker);
    for (credit, answer) in [
        (json!(65_535), "subscribed"),
        (json!(0), "bad_field"),
        (json!(65_536), "bad_field"),
        (json!(4_294_967_295_u32), "bad_field"),
        (json!(4_294_967_296_u64), "bad_field"),
        (json!(-1), "bad_field"),
    ] {
        assert_eq!(subscribe(&mut page, json!({ "queue": "credit", "credit": credit })), answer);
    }
    page.say(&json!({ "op": "ping" })).unwrap();
    assert_eq!(page.hear().unwrap().unwrap()["op"], "pong");
    for (count, status) in [("1001", 400), ("4294967296", 400), ("-1", 400)] {
        let mut socket = TcpStream::connect(("127.0.0.1", broker.ports.http)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let body = format!("{{\"max\":{count}}}");
        let request = format!(
            "POST /api/v1/vhosts/~/queues/credit/messages:receive HTTP/1.1\r\nHost: x\r\n\
             Authorization: {GUEST}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).unwrap();
        assert_eq!(web::answer(&mut socket).unwrap().0, status, "{count}");
    }
    honest.is_served();
    assert!(broker.is_alive());
}

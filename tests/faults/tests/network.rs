//! Cases C10 and C11: a network that loses, repeats, delays and cuts, and a client that is gone
//! without a word.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use polymq_faults::{
    amqp::{self, Amqp, Incoming, number},
    broker::{Broker, Home, Ports},
    ledger::Body,
    load::Run,
    mqtt::{self, Login, Mqtt, packet, text},
    netns,
    proxy::{Fault, Proxy},
    random::Random,
    report::{say, setting, skip},
};

/// How long one kind of network lasts.
const ROUND: Duration = Duration::from_millis(250);
/// And at most, when it does nothing.
const ROUND_MAX: Duration = Duration::from_secs(5);
/// How long a client waits that has said something wrong and is not told so.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a network may do to a connection of TCP; `at` is somewhere behind the login.
fn faults_of_tcp(at: u64) -> [Fault; 6] {
    [
        Fault::Delay(Duration::from_millis(20)),
        Fault::ByteByByte,
        Fault::CutAt(at),
        Fault::ResetAt(at),
        Fault::HalfCloseAt(at),
        Fault::SilenceAt(at),
    ]
}

#[test]
fn c10_a_bad_network_loses_no_confirmed_message_and_invents_none() {
    let rounds = setting("POLYMQ_ROUNDS", 4);
    let mut random = Random::new(setting("POLYMQ_SEED", 10));
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let run = Run::new(0x4310_0000, 100);
    run.open(&broker).unwrap();
    // Nobody comes before there is a network.
    run.stage.down();
    let mut harmed = 0;
    let broker = run.under_load(|| {
        for _ in 0..rounds {
            for fault in faults_of_tcp(random.between(2_000, 40_000)) {
                harmed += round(&run, &broker, fault);
            }
        }
        run.stage.up(broker.ports);
        thread::sleep(ROUND);
        broker
    });
    let found = run.finish("C10", broker, home).unwrap();
    say(&format!("C10: {harmed} connections harmed"));
    assert!(harmed >= rounds * 6, "hardly any fault");
    assert!(found.counted.confirmed > rounds * 100, "hardly any load: {found}");
}

/// Everybody connects through this network for a while.
fn round(run: &Run, broker: &Broker, fault: Fault) -> u64 {
    // What is left of a connection would overtake the next one of its client.
    await_connections(broker, "amqp", 0.0);
    await_connections(broker, "mqtt", 0.0);
    let ports = [broker.ports.amqp, broker.ports.mqtt];
    let proxies = ports.map(|port| Proxy::start(port, fault).unwrap());
    let [amqp, mqtt] = &proxies;
    run.stage.up(Ports { amqp: amqp.port, mqtt: mqtt.port, ..broker.ports });
    thread::sleep(ROUND);
    let began = Instant::now();
    let harmed = || proxies.iter().map(Proxy::harmed).sum();
    // On a slow machine it takes longer until something has happened to somebody.
    while harmed() == 0 && began.elapsed() < ROUND_MAX {
        thread::sleep(Duration::from_millis(10));
    }
    // Whoever is left hears of the end with the proxies.
    run.stage.down();
    harmed()
}

/// What TCP does not do, and a broken middlebox may.
fn garbled(at: u64, random: &mut Random) -> Fault {
    match random.between(0, 4) {
        0 => Fault::Lose { at, count: random.between(1, 8) },
        1 => Fault::Repeat { at, times: usize::try_from(random.between(1, 4)).unwrap() },
        _ => Fault::Corrupt { at, bits: 1 << random.between(0, 8) },
    }
}

#[test]
fn c10_bytes_that_are_not_what_was_sent_end_their_connection_or_change_a_body() {
    let rounds = setting("POLYMQ_CORRUPTIONS", 400);
    let mut random = Random::new(setting("POLYMQ_SEED", 11));
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    consumer.declare("q").unwrap();
    consumer.bind_topic("q", "q").unwrap();
    let mut ends = BTreeMap::<String, u64>::new();
    for n in 0..rounds {
        let is_amqp = n % 2 == 0;
        // About so many bytes are sent.
        let at = random.between(0, if is_amqp { 700 } else { 430 });
        let fault = garbled(at, &mut random);
        let body = Body { run: 10, producer: 1, n }.encode(100);
        let port = if is_amqp { broker.ports.amqp } else { broker.ports.mqtt };
        let proxy = Proxy::start(port, fault).unwrap();
        let done = if is_amqp { by_amqp(&proxy, &body) } else { by_mqtt(&proxy, &body) };
        let end = match done {
            Ok(()) => "noticed by nobody".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(!end.contains("541"), "an internal error after {fault:?}: {}", home.log());
        *ends.entry(end).or_default() += 1;
    }
    let (mut changed, mut whole) = (0, BTreeMap::<u64, u64>::new());
    while let Some(found) = consumer.get("q").unwrap() {
        match Body::decode(&found.body) {
            Ok(body) => *whole.entry(body.n).or_default() += 1,
            Err(_) => changed += 1,
        }
    }
    let count: u64 = whole.values().sum();
    say(&format!("C10 garbled: {rounds} connections: {ends:?}"));
    say(&format!("C10 garbled: {changed} messages changed, {count} whole"));
    assert!(broker.is_alive() && !home.log().contains("panicked"), "{}", home.log());
    assert!(ends.len() > 5, "hardly anything was noticed");
    assert!(whole.values().all(|times| *times <= 3), "a message has come more often than sent");
    assert!(changed <= rounds, "one change has touched two messages");
}

/// Three messages and a goodbye.
fn by_amqp(proxy: &Proxy, body: &[u8]) -> Result<()> {
    let mut client = Amqp::dial(proxy.port)?;
    client.set_patience(PATIENCE)?;
    client.send(amqp::PROTOCOL_HEADER)?;
    next_method(&mut client, (10, 10))?;
    client.send(&amqp::start_ok(&[]).frame(0))?;
    next_method(&mut client, (10, 30))?;
    let tune_ok = amqp::Method::new((10, 31)).u16(16).u32(131_072).u16(0);
    let open = amqp::Method::new((10, 40)).short("/").short("").u8(0);
    client.send(&[tune_ok.frame(0), open.frame(0)].concat())?;
    next_method(&mut client, (10, 41))?;
    client.send(&amqp::Method::new((20, 10)).short("").frame(1))?;
    next_method(&mut client, (20, 11))?;
    client.send(&amqp::Method::new((85, 10)).u8(0).frame(1))?;
    next_method(&mut client, (85, 11))?;
    for _ in 0..3 {
        client.send(&amqp::publish("", "q", body))?;
        next_method(&mut client, (60, 80))?;
    }
    let close = amqp::Method::new((10, 50)).u16(200).short("bye").u16(0).u16(0);
    client.send(&close.frame(0))?;
    next_method(&mut client, (10, 51))
}

/// Errors: what comes instead, in few words.
fn next_method(client: &mut Amqp, wanted: amqp::Id) -> Result<()> {
    match client.next_event() {
        Ok(Some(Incoming::Method(id, _))) if id == wanted => Ok(()),
        Ok(Some(Incoming::Method(id @ ((10, 50) | (20, 40)), arguments))) => {
            let what = if id.0 == 10 { "connection" } else { "channel" };
            bail!("AMQP {what} closed with {}", number(&arguments, 0)?)
        }
        Ok(Some(Incoming::Method(id, _))) => bail!("AMQP {id:?}"),
        Ok(Some(Incoming::Delivery(_))) => bail!("AMQP delivery"),
        Ok(None) => bail!("AMQP waits for more"),
        Err(_) => bail!("AMQP socket closed"),
    }
}

fn by_mqtt(proxy: &Proxy, body: &[u8]) -> Result<()> {
    let mut client = Mqtt::dial(proxy.port)?;
    client.set_patience(PATIENCE)?;
    client.send(&mqtt::connect(Login { level: 4, client_id: "c10", clean: true }))?;
    let mut publishes = Vec::new();
    for id in 1..=3 {
        publishes.extend(mqtt::publish("q", id, body));
    }
    client.send(&publishes)?;
    for _ in 0..4 {
        match client.next_packet() {
            Ok(Some(packet)) if packet.first == 0x20 => {
                ensure!(packet.body[1] == 0, "MQTT refused with {}", packet.body[1]);
            }
            Ok(Some(_)) => {}
            Ok(None) => bail!("MQTT waits for more"),
            Err(_) => bail!("MQTT socket closed"),
        }
    }
    client.close()
}

/// Waits until so many connections of a protocol are open.
fn await_connections(broker: &Broker, protocol: &str, count: f64) -> Duration {
    let began = Instant::now();
    let name = format!("polymq_connections{{protocol=\"{protocol}\"}}");
    while broker.metric(&name).unwrap_or(0.0) > count {
        assert!(began.elapsed() < Duration::from_secs(20), "it stays connected");
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// Ten confirmed messages in `q`.
fn ten(port: u16) -> Amqp {
    let mut client = Amqp::open(port).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    for number in 0..10_u8 {
        client.send(&amqp::publish("", "q", &[number])).unwrap();
        client.expect((60, 80)).unwrap();
    }
    client
}

/// A consumer takes all ten and acknowledges none.
fn take_ten(mut consumer: Amqp) -> Amqp {
    consumer.consume("q", 0).unwrap();
    for _ in 0..10 {
        assert!(matches!(consumer.next_event().unwrap(), Some(Incoming::Delivery(_))));
    }
    consumer
}

/// They are here again, each once and with the mark.
fn come_back(client: &mut Amqp) {
    for number in 0..10_u8 {
        let found = client.get("q").unwrap().unwrap();
        assert_eq!((found.body.as_slice(), found.redelivered), (&[number][..], true));
    }
    assert_eq!(client.get("q").unwrap(), None, "one came twice");
}

#[test]
fn c11_messages_of_a_client_that_is_gone_come_back_once() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = ten(broker.ports.amqp);
    let proxy = Proxy::start(broker.ports.amqp, Fault::None).unwrap();
    let gone = take_ten(Amqp::open_with_heartbeat(proxy.port, 1).unwrap());
    proxy.fall_silent();
    let after = await_connections(&broker, "amqp", 1.0);
    come_back(&mut client);
    drop(gone);
    say(&format!("C11: AMQP with a heartbeat of 1 s is closed {} ms after", after.as_millis()));
}

#[test]
fn c11_a_client_whose_packets_reach_nobody_is_closed_with_bytes_on_their_way() {
    let mut home = Home::new().unwrap();
    netns::isolate(&mut home);
    let Ok(broker) = home.start() else {
        return skip("C11 without a route", "no network of one's own can be had");
    };
    let inside = || {
        netns::enter(broker.pid())?;
        let mut client = ten(broker.ports.amqp);
        let socket = netns::connect_from(netns::FAR, broker.ports.amqp)?;
        let mut gone = Amqp::over(socket)?;
        gone.log_in(1)?;
        gone = take_ten(gone);
        netns::cut(netns::FAR)?;
        // The broker has something for it that it cannot send.
        for number in 10..20_u8 {
            client.send(&amqp::publish("", "q", &[number]))?;
            client.expect((60, 80))?;
        }
        let after = await_connections(&broker, "amqp", 1.0);
        for number in 0..20_u8 {
            let found = client.get("q")?.unwrap();
            assert_eq!((found.body.as_slice(), found.redelivered), (&[number][..], true));
        }
        assert_eq!(client.get("q")?, None, "one came twice");
        gone.set_patience(PATIENCE)?;
        assert_eq!(gone.next_event()?, None, "the route was there");
        say(&format!("C11: AMQP without a route is closed {} ms after", after.as_millis()));
        anyhow::Ok(())
    };
    // A thread cannot leave its network again.
    thread::scope(|scope| scope.spawn(inside).join().unwrap()).unwrap();
}

#[test]
fn c11_an_mqtt_client_that_is_gone_is_noticed_by_its_keep_alive() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut gone = Mqtt::dial(broker.ports.mqtt).unwrap();
    let connect = [&text(b"MQTT")[..], &[4, 0, 0, 1], &text(b"gone")].concat();
    gone.send(&packet(0x10, &connect)).unwrap();
    assert_eq!(gone.next_packet().unwrap().unwrap().first, 0x20);
    gone.subscribe("t", 1).unwrap();
    let login = Login { level: 4, client_id: "publisher", clean: true };
    let mut client = Mqtt::open(broker.ports.mqtt, login).unwrap();
    client.send(&mqtt::publish("t", 1, b"once")).unwrap();
    assert_eq!(client.next_packet().unwrap().unwrap().puback(), Some(1));
    assert!(gone.next_packet().unwrap().unwrap().publish().is_some());
    let after = await_connections(&broker, "mqtt", 1.0);
    let login = Login { level: 4, client_id: "gone", clean: false };
    let mut back = Mqtt::open(broker.ports.mqtt, login).unwrap();
    let again = back.next_packet().unwrap().unwrap().publish().unwrap();
    assert_eq!((again.payload.as_slice(), again.dup), (&b"once"[..], true));
    back.puback(again.packet_id).unwrap();
    back.set_patience(Duration::from_millis(500)).unwrap();
    assert_eq!(back.next_packet().unwrap(), None, "it came twice");
    say(&format!("C11: MQTT with a keep-alive of 1 s is closed {} ms after", after.as_millis()));
}

#[test]
fn publisher_that_goes_while_it_is_blocked_is_noticed_at_once() {
    let home = Home::new().unwrap();
    // More than that is used, so that every publisher waits.
    let broker = home.start_with(&["--set", "limits.memory_high=1MiB"]).unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while broker.metric("polymq_alarm").unwrap() < 1.0 {
        assert!(Instant::now() < until, "there is no alarm");
        thread::sleep(Duration::from_millis(20));
    }
    // So much waits inside the broker that it reads no further, and a bit more.
    let message = amqp::publish("", "q", &[7; 64 * 1024]);
    for _ in 0..18 {
        client.send(&message).unwrap();
    }
    drop(client);
    let after = await_connections(&broker, "amqp", 0.0);
    say(&format!("a blocked publisher that goes is noticed after {} ms", after.as_millis()));
    assert!(after < Duration::from_secs(2), "{after:?}");
}

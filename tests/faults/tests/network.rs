//! Cases C10 and C11: a network that loses, repeats, delays and cuts, and a client that is gone
//! without a word.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming},
    broker::{Broker, Home, Ports},
    ledger::Body,
    load::Run,
    mqtt::{self, Login, Mqtt, packet, text},
    proxy::{Fault, Proxy},
    random::Random,
    report::{say, setting},
};

/// How long one kind of network lasts.
const ROUND: Duration = Duration::from_millis(250);
/// How long a client waits that has said something wrong and is not told so.
const PATIENCE: Duration = Duration::from_millis(200);

/// What TCP may do to a connection; `at` is somewhere behind the login.
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
    let rounds = setting("POLYMQ_ROUNDS", 3);
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
            let at = random.between(2_000, 40_000);
            for fault in faults_of_tcp(at) {
                harmed += round(&run, &broker, fault, fault);
            }
            // AMQP ends each frame with a mark, so that what is lost or comes twice is noticed.
            let (count, times) = (random.between(1, 8), 3);
            harmed += round(&run, &broker, Fault::Lose { at, count }, Fault::None);
            harmed += round(&run, &broker, Fault::Repeat { at, times }, Fault::None);
        }
        run.stage.up(broker.ports);
        broker
    });
    let found = run.finish("C10", broker, home).unwrap();
    say(&format!("C10: {harmed} connections harmed"));
    assert!(harmed > rounds * 10, "hardly any fault");
    assert!(found.counted.confirmed > rounds * 100, "hardly any load: {found}");
}

/// Everybody connects through these networks for a while.
fn round(run: &Run, broker: &Broker, amqp: Fault, mqtt: Fault) -> u64 {
    let proxies = [(broker.ports.amqp, amqp), (broker.ports.mqtt, mqtt)]
        .map(|(port, fault)| Proxy::start(port, fault).unwrap());
    let [amqp, mqtt] = &proxies;
    run.stage.up(Ports { amqp: amqp.port, mqtt: mqtt.port, ..broker.ports });
    thread::sleep(ROUND);
    // Whoever is left hears of the end with the proxies.
    run.stage.down();
    proxies.iter().map(Proxy::harmed).sum()
}

#[test]
fn c10_bytes_that_change_end_a_connection_or_a_body_and_nothing_else() {
    let rounds = setting("POLYMQ_CORRUPTIONS", 300);
    let mut random = Random::new(setting("POLYMQ_SEED", 11));
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    consumer.declare("q").unwrap();
    consumer.bind_topic("q", "q").unwrap();
    consumer.consume("q", 0).unwrap();
    consumer.set_patience(Duration::from_millis(300)).unwrap();
    let (mut ended, mut changed, mut whole) = (0, 0, 0);
    for n in 0..rounds {
        let is_amqp = n % 2 == 0;
        // About so many bytes are sent.
        let at = random.between(0, if is_amqp { 700 } else { 400 });
        let fault = Fault::Corrupt { at, bits: 1 << random.between(0, 8) };
        let body = Body { run: 10, producer: 1, n }.encode(100);
        let port = if is_amqp { broker.ports.amqp } else { broker.ports.mqtt };
        let proxy = Proxy::start(port, fault).unwrap();
        let done = if is_amqp { by_amqp(&proxy, &body) } else { by_mqtt(&proxy, &body) };
        ended += u64::from(done.is_err());
    }
    while let Some(Incoming::Delivery(delivery)) = consumer.next_event().unwrap() {
        match Body::decode(&delivery.body) {
            Ok(_) => whole += 1,
            Err(_) => changed += 1,
        }
    }
    say(&format!(
        "C10 corrupt: {ended} of {rounds} ended, {changed} bodies changed, {whole} whole"
    ));
    assert!(broker.is_alive(), "{}", home.log());
    assert!(ended > rounds / 10, "hardly anything was noticed");
    assert!(changed <= rounds, "one change has touched two messages");
    assert!(!home.log().contains("panicked"), "{}", home.log());
}

/// Three messages and a goodbye.
fn by_amqp(proxy: &Proxy, body: &[u8]) -> anyhow::Result<()> {
    let mut client = Amqp::dial(proxy.port)?;
    client.set_patience(PATIENCE)?;
    client.log_in(0)?;
    client.confirm_select()?;
    for _ in 0..3 {
        client.send(&amqp::publish("", "q", body))?;
        client.expect((60, 80))?;
    }
    client.close()
}

fn by_mqtt(proxy: &Proxy, body: &[u8]) -> anyhow::Result<()> {
    let mut client = Mqtt::dial(proxy.port)?;
    client.set_patience(PATIENCE)?;
    client.send(&mqtt::connect(Login { level: 4, client_id: "c10", clean: true }))?;
    for id in 1..=3 {
        client.send(&mqtt::publish("q", id, body))?;
    }
    for _ in 0..4 {
        anyhow::ensure!(client.next_packet()?.is_some(), "no answer");
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

#[test]
fn c11_messages_of_a_client_that_is_gone_come_back_once() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    for number in 0..10_u8 {
        client.send(&amqp::publish("", "q", &[number])).unwrap();
        client.expect((60, 80)).unwrap();
    }
    // So many bytes that all of the login and of the subscription pass.
    let proxy = Proxy::start(broker.ports.amqp, Fault::SilenceAt(100_000)).unwrap();
    let mut gone = Amqp::open_with_heartbeat(proxy.port, 1).unwrap();
    gone.consume("q", 0).unwrap();
    for _ in 0..10 {
        assert!(matches!(gone.next_event().unwrap(), Some(Incoming::Delivery(_))));
    }
    // It sends no heartbeat, as one that is gone.
    let after = await_connections(&broker, "amqp", 1.0);
    client.set_patience(Duration::from_millis(500)).unwrap();
    client.consume("q", 0).unwrap();
    for number in 0..10_u8 {
        let Some(Incoming::Delivery(found)) = client.next_event().unwrap() else {
            panic!("message {number} has not come back")
        };
        assert_eq!((found.body.as_slice(), found.redelivered), (&[number][..], true));
        client.ack(found.tag, false).unwrap();
    }
    assert_eq!(client.next_event().unwrap(), None, "one came twice");
    say(&format!("C11: AMQP with a heartbeat of 1 s is closed {} ms after", after.as_millis()));
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
    back.set_patience(Duration::from_millis(500)).unwrap();
    let again = back.next_packet().unwrap().unwrap().publish().unwrap();
    assert_eq!((again.payload.as_slice(), again.dup), (&b"once"[..], true));
    back.puback(again.packet_id).unwrap();
    assert_eq!(back.next_packet().unwrap(), None, "it came twice");
    say(&format!("C11: MQTT with a keep-alive of 1 s is closed {} ms after", after.as_millis()));
}

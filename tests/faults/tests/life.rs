//! Clean stops, and case K19: one data directory, one broker.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::io::Read;

use polymq_faults::{
    amqp::{self, Amqp, Incoming, Method, number},
    broker::{Home, wait_for_end},
    mqtt::{self, Login, Mqtt, Packet},
};

fn publish(client: &mut Amqp, queue: &str, body: &str) {
    client.send(&amqp::publish("", queue, body.as_bytes())).unwrap();
    client.expect((60, 80)).unwrap();
}

fn delivery(client: &mut Amqp) -> amqp::Delivery {
    match client.next_event().unwrap() {
        Some(Incoming::Delivery(delivery)) => delivery,
        other => panic!("no delivery but {other:?}"),
    }
}

#[test]
fn clean_stop_tells_the_clients_and_keeps_what_was_not_acknowledged() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut publisher = Amqp::open(broker.ports.amqp).unwrap();
    publisher.declare("q").unwrap();
    publisher.confirm_select().unwrap();
    publish(&mut publisher, "q", "acknowledged");
    publish(&mut publisher, "q", "delivered only");
    publish(&mut publisher, "q", "never delivered");
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    consumer.consume("q", 2).unwrap();
    let first = delivery(&mut consumer);
    assert_eq!(first.body, b"acknowledged");
    let second = delivery(&mut consumer);
    consumer.ack(first.tag, false).unwrap();
    // The third message comes when the acknowledgement has been done.
    assert_eq!(delivery(&mut consumer).body, b"never delivered");
    assert_eq!(second.body, b"delivered only");

    let login = Login { level: 5, client_id: "five", clean: true };
    let mut five = Mqtt::open(broker.ports.mqtt, login).unwrap();
    let login = Login { level: 4, client_id: "four", clean: true };
    let mut four = Mqtt::open(broker.ports.mqtt, login).unwrap();

    broker.terminate().unwrap();
    for client in [&mut publisher, &mut consumer] {
        let arguments = client.expect((10, 50)).unwrap();
        assert_eq!(number(&arguments, 0).unwrap(), 320, "connection-forced");
        client.send(&Method::new((10, 51)).frame(0)).unwrap();
        assert_eq!(client.last_words().unwrap(), []);
    }
    match five.last_words().unwrap().as_slice() {
        [Packet { first: 0xE0, body }] => assert_eq!(body.first(), Some(&0x8B)),
        other => panic!("no DISCONNECT but {other:?}"),
    }
    assert_eq!(four.last_words().unwrap(), [], "MQTT 3.1.1 has no word for it");
    assert!(broker.wait().unwrap().success(), "{}", home.log());

    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!(client.declare("q").unwrap(), 2);
    client.consume("q", 0).unwrap();
    assert_eq!(delivery(&mut client).body, b"delivered only");
    assert_eq!(delivery(&mut client).body, b"never delivered");
}

#[test]
fn clean_stop_does_not_wait_for_clients_that_do_not_answer() {
    let home = Home::new().unwrap();
    let broker = home.start_with(&["--set", "server.drain_timeout=1s"]).unwrap();
    let silent = Amqp::open(broker.ports.amqp).unwrap();
    let stranger = Amqp::dial(broker.ports.amqp).unwrap();
    assert!(broker.stop().unwrap().success(), "{}", home.log());
    drop((silent, stranger));
}

#[test]
fn k19_second_broker_on_the_same_directory_is_refused() {
    let home = Home::new().unwrap();
    let mut first = home.start().unwrap();
    let before = home.log().len();
    let mut second = home.spawn(&[]).unwrap();
    let status = wait_for_end(&mut second).unwrap();
    assert_eq!(status.code(), Some(1), "the exit code of a refused start");
    let mut said = String::new();
    second.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "it never was ready");
    let log = home.log().split_off(before);
    let last = log.lines().last().unwrap_or_default();
    let holder = format!("held by process {}", first.pid());
    assert!(last.starts_with("polymq: ") && last.contains(&holder), "{log}");

    assert!(first.is_alive());
    let login = Login { level: 4, client_id: "c", clean: true };
    let mut client = Mqtt::open(first.ports.mqtt, login).unwrap();
    client.send(&mqtt::publish("t", 1, b"x")).unwrap();
    assert_eq!(client.next_packet().unwrap().unwrap().puback(), Some(1));

    // The lock goes with its process, however that ends.
    first.kill();
    assert!(home.start().unwrap().stop().unwrap().success());
}

//! What a broker costs that has nothing to do.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{thread, time::Duration};

use polymq_faults::{
    amqp::{self, Amqp, Method},
    broker::{Broker, Home},
    report::say,
};

const QUEUES: usize = 10_000;
/// How long the broker is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// CPU time in ms that the broker takes while nobody talks to it.
fn idle_ms(broker: &Broker) -> u64 {
    let before = broker.cpu_ms().unwrap();
    thread::sleep(WATCHED);
    broker.cpu_ms().unwrap() - before
}

/// A durable queue whose messages live for an hour.
fn declare(client: &mut Amqp, queue: &str) {
    let mut expiry = vec![13];
    expiry.extend(b"x-message-ttlI");
    expiry.extend(3_600_000_u32.to_be_bytes());
    let method = Method::new((50, 10)).u16(0).short(queue).u8(2).long(&expiry);
    client.call(&method, (50, 11)).unwrap();
}

#[test]
fn ten_thousand_queues_with_expiry_cost_no_cpu_when_idle() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let alone = idle_ms(&broker);
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    for number in 0..QUEUES {
        declare(&mut client, &format!("q{number}"));
    }
    let empty = idle_ms(&broker);
    client.confirm_select().unwrap();
    for number in 0..QUEUES {
        client.send(&amqp::publish("", &format!("q{number}"), b"x")).unwrap();
        client.expect((60, 80)).unwrap();
    }
    let filled = idle_ms(&broker);
    say(&format!(
        "idle for {WATCHED:?}: {alone} ms of CPU without queues, {empty} ms with {QUEUES} queues \
         with expiry, {filled} ms with a message in each"
    ));
    // A scan of all of them ten times a second would take many times as much.
    let allowed = alone + 200;
    assert!(empty <= allowed && filled <= allowed, "{alone}, {empty}, {filled} ms");
}

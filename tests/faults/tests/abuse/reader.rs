//! Case A7: a reader that never reads.

use std::{
    any::Any,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp},
    broker::{Broker, Home},
    mqtt::{self, Login, Mqtt},
    report::say,
    talk::Talk,
    web::Page,
};
use serde_json::json;

use crate::served::Honest;

const MESSAGE: usize = 4096;
/// 200 MiB, many times what may wait for one connection.
const FLOOD: usize = 51_200;
/// Messages that one who reads may be behind: 4 MiB, far less than may wait for it.
const BEHIND: usize = 1024;

#[test]
fn a07_subscriber_that_never_reads_costs_bounded_memory() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let open = |client_id| {
        let login = Login { level: 4, client_id, clean: true };
        Mqtt::open(broker.ports.mqtt, login).unwrap()
    };
    let (mut lazy, mut busy, mut publisher) = (open("lazy"), open("busy"), open("publisher"));
    lazy.subscribe("flood", 0).unwrap();
    busy.subscribe("flood", 0).unwrap();
    busy.subscribe("end", 1).unwrap();
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let reading = std::thread::spawn(move || {
        loop {
            let publish = busy.next_packet().unwrap().unwrap().publish().unwrap();
            if publish.packet_id > 0 {
                return counted.load(Ordering::SeqCst);
            }
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut most = before;
    let flood = mqtt::publish("flood", 0, &[7; MESSAGE]);
    for number in 0..FLOOD {
        publisher.send(&flood).unwrap();
        if number % 512 == 0 {
            honest.is_served();
            most = most.max(broker.resident_kib().unwrap());
        }
        // The busy one has a bound, too, and is slow when the machine is.
        let began = Instant::now();
        while number > seen.load(Ordering::SeqCst) + BEHIND {
            assert!(began.elapsed() < Duration::from_secs(60), "the busy one gets nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    publisher.send(&mqtt::publish("end", 1, b"")).unwrap();
    let count = reading.join().unwrap();
    honest.is_served();
    most = most.max(broker.resident_kib().unwrap());
    let grown = (most - before) / 1024;
    say(&format!(
        "A7: {} MiB past a lazy subscriber grew the broker by {grown} MiB; the busy one got \
         {count} of {FLOOD}; slowest honest round trip {} ms",
        (FLOOD * MESSAGE) >> 20,
        honest.slowest.as_millis()
    ));
    assert!(grown < 36, "{grown} MiB for one lazy subscriber, which may hold 16");
    assert_eq!(count, FLOOD, "the busy subscriber got only {count}");
    drop(lazy);
}

#[test]
fn a07_consumer_that_never_reads_leaves_the_messages_in_the_queue() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let mut lazy = Amqp::open(broker.ports.amqp).unwrap();
    lazy.declare("flood").unwrap();
    // No prefetch: the client asks for everything.
    lazy.consume("flood", 0).unwrap();
    let mut publisher = Amqp::open(broker.ports.amqp).unwrap();
    publisher.confirm_select().unwrap();
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    let count = 8192_usize;
    let flood = amqp::publish("", "flood", &[7; MESSAGE]);
    let mut confirmed = 0;
    for number in 1..=count {
        publisher.send(&flood).unwrap();
        if number % 512 == 0 {
            while confirmed < number as u64 {
                let arguments = publisher.expect((60, 80)).unwrap();
                confirmed = amqp::long_number(&arguments, 0).unwrap();
            }
            honest.is_served();
        }
    }
    let grown = broker.resident_kib().unwrap().saturating_sub(before) / 1024;
    let sent = (count * MESSAGE) >> 20;
    let ready = publisher.declare("flood").unwrap();
    say(&format!(
        "A7: {sent} MiB for a lazy consumer grew the broker by {grown} MiB; {ready} of {count} \
         messages stayed ready"
    ));
    assert!(ready > 0, "everything was written for a client that does not read");
    // What the queue keeps in memory, and what may wait for a connection.
    assert!(grown < 16 + 40, "{grown} MiB for {sent} MiB");
    drop(lazy);
    // What was on its way to the lazy one comes back, in order and complete.
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    while publisher.declare("flood").unwrap() as usize != count {
        honest.is_served();
    }
    consumer.consume("flood", 100).unwrap();
    assert!(consumer.next_event().unwrap().is_some());
}

#[test]
fn a07_acknowledgements_of_a_consumer_that_reads_nothing_meanwhile_are_taken() {
    const COUNT: u64 = 20_000;
    const ACKED: u64 = 1000;
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut publisher = Amqp::open(broker.ports.amqp).unwrap();
    publisher.declare("q").unwrap();
    publisher.confirm_select().unwrap();
    let message = amqp::publish("", "q", &[7; 1000]);
    let mut confirmed = 0;
    for number in 1..=COUNT {
        publisher.send(&message).unwrap();
        while number % 500 == 0 && confirmed < number {
            let arguments = publisher.expect((60, 80)).unwrap();
            confirmed = amqp::long_number(&arguments, 0).unwrap();
        }
    }
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    consumer.consume("q", 0).unwrap();
    let waiting = || broker.metric("polymq_queue_messages{state=\"ready\"}").unwrap();
    // Everything between the broker and the client is full when no more leaves the queue.
    let mut ready = waiting();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "{ready} are ready, and they change");
        std::thread::sleep(Duration::from_millis(300));
        let now = waiting();
        if now == ready && now < COUNT as f64 {
            break;
        }
        ready = now;
    }
    assert!(ready > 0.0, "nothing is full");
    for tag in 1..=ACKED {
        consumer.ack(tag, false).unwrap();
    }
    let all = || waiting() + broker.metric("polymq_queue_messages{state=\"unacked\"}").unwrap();
    let began = Instant::now();
    while all() > (COUNT - ACKED) as f64 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of {COUNT} are left", all());
        std::thread::sleep(Duration::from_millis(20));
    }
    say("A7: acknowledgements are taken from a consumer that reads nothing meanwhile");
}

/// Readers of each protocol at a time.
const READERS: usize = 4;
/// Messages for each: 12 MiB, more than the system takes for a connection. All queues together stay
/// below the 64 MiB from which they keep less in memory, with readers and without.
const EACH: usize = 3072;
/// What may wait for a connection inside the broker, and encoded for it.
const OUTBOUND_KIB: u64 = 1024 + 256;
/// What else a connection may take.
const CONNECTION_KIB: u64 = 1536;

/// A consumer of a queue that never reads what comes; nobody consumes for `None`.
fn open_reader(broker: &Broker, protocol: &str, queue: &str) -> Option<Box<dyn Any>> {
    match protocol {
        "amqp" => {
            let mut client = Amqp::open(broker.ports.amqp).unwrap();
            client.consume(queue, 0).unwrap();
            Some(Box::new(client))
        }
        "mqtt" => {
            let login = Login { level: 5, client_id: queue, clean: true };
            let mut client = Mqtt::open(broker.ports.mqtt, login).unwrap();
            client.subscribe(&format!("$queue/{queue}"), 1).unwrap();
            Some(Box::new(client))
        }
        "stomp" => {
            let mut client = Talk::stomp(broker.ports.stomp).unwrap();
            let frame = format!(
                "SUBSCRIBE\nid:0\ndestination:/queue/{queue}\nack:client-individual\n\
                 receipt:s\n\n\0"
            );
            client.say(&frame).unwrap();
            client.hear("receipt-id:s").unwrap();
            Some(Box::new(client))
        }
        "xmpp" => {
            let mut client = Talk::xmpp(broker.ports.xmpp, queue).unwrap();
            let presence = format!(
                "<presence to='{queue}@queues.localhost'><consume xmlns='urn:polymq:queue:1' \
                 prefetch='0' ack='individual'/></presence>"
            );
            client.say(&presence).unwrap();
            client.hear(&format!("from='{queue}@queues.localhost'")).unwrap();
            Some(Box::new(client))
        }
        "json" => {
            let socket = TcpStream::connect(("127.0.0.1", broker.ports.http)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut page = Page::over(socket).unwrap();
            assert!(page.log_in("guest", "guest").unwrap());
            let subscribe = json!({
                "op": "subscribe", "id": 1, "sub": "s", "queue": queue, "credit": 65_535
            });
            page.say(&subscribe).unwrap();
            assert_eq!(page.hear().unwrap().unwrap()["op"], "subscribed");
            Some(Box::new(page))
        }
        _ => None,
    }
}

/// How much the broker grows when each of some queues gets 12 MiB, with a reader each that does not
/// read.
fn growth_kib(protocol: &str) -> u64 {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut publisher = Amqp::open(broker.ports.amqp).unwrap();
    let queues: Vec<_> = (0..READERS).map(|number| format!("lazy{number}")).collect();
    queues.iter().for_each(|queue| assert_eq!(publisher.declare(queue).unwrap(), 0));
    let readers: Vec<_> =
        queues.iter().map(|queue| open_reader(&broker, protocol, queue)).collect();
    publisher.confirm_select().unwrap();
    let before = broker.resident_kib().unwrap();
    let mut confirmed = 0;
    for number in 1..=EACH {
        for queue in &queues {
            publisher.send(&amqp::publish("", queue, &[7; MESSAGE])).unwrap();
        }
        while number % 32 == 0 && confirmed < (number * READERS) as u64 {
            let arguments = publisher.expect((60, 80)).unwrap();
            confirmed = amqp::long_number(&arguments, 0).unwrap();
        }
    }
    let ready = broker.metric("polymq_queue_messages{state=\"ready\"}").unwrap();
    assert!(ready > 0.0, "{protocol}: all went to clients that do not read");
    // What the allocator gives back comes within a second or so.
    let resident = (0..12).map(|_| {
        std::thread::sleep(Duration::from_millis(200));
        broker.resident_kib().unwrap()
    });
    let grown = resident.min().unwrap().saturating_sub(before);
    drop(readers);
    grown
}

#[test]
fn a07_readers_that_never_read_take_their_outbound_limit_each() {
    // What the queues themselves keep in memory.
    let alone = growth_kib("nobody");
    for protocol in ["amqp", "mqtt", "stomp", "xmpp", "json"] {
        let each = growth_kib(protocol).saturating_sub(alone) / READERS as u64;
        say(&format!(
            "A7: {READERS} lazy readers of {protocol}: {each} KiB each beside {alone} KiB of queues"
        ));
        assert!(each < OUTBOUND_KIB + CONNECTION_KIB, "{protocol}: {each} KiB each");
    }
}

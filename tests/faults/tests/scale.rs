//! Cases K21 to K26: many messages, many queues, few file descriptors, little memory.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming, Method, long_number},
    broker::{Broker, Home},
    disk::{bytes_below, has},
    random::Random,
    report::{say, setting, skip},
};

/// Publishes that are on their way at a time.
const WINDOW: u64 = 1000;
const SQLITE: [&str; 2] = ["--set", "storage.backend=sqlite"];
/// The log takes little, whatever is in it, and most of the messages are in segments.
const SMALL: [&str; 2] = ["--set", "storage.file.segment_size=1MiB"];

fn home_with(flags: &[&str]) -> Home {
    let mut home = Home::new().unwrap();
    home.always(flags);
    home
}

/// Fills a queue with bodies of 128 bytes that begin with their numbers, all confirmed.
fn fill(client: &mut Amqp, queue: &str, count: u64) {
    client.confirm_select().unwrap();
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < count {
        let mut bytes = Vec::new();
        while sent < count && sent - confirmed < WINDOW {
            let mut body = [0; 128];
            body[..8].copy_from_slice(&u64::to_be_bytes(sent));
            bytes.extend(amqp::publish("", queue, &body));
            sent += 1;
        }
        client.send(&bytes).unwrap();
        while confirmed < count && sent - confirmed > WINDOW / 2
            || sent == count && confirmed < sent
        {
            match client.next_event().unwrap() {
                Some(Incoming::Method((60, 80), arguments)) => {
                    confirmed = long_number(&arguments, 0).unwrap();
                }
                other => panic!("{other:?} for a publisher"),
            }
        }
    }
}

/// Takes everything, in order, and acknowledges it.
fn drain(client: &mut Amqp, queue: &str, count: u64) {
    client.consume(queue, 2000).unwrap();
    for number in 0..count {
        let Some(Incoming::Delivery(delivery)) = client.next_event().unwrap() else {
            panic!("no message {number}");
        };
        let found = u64::from_be_bytes(*delivery.body.first_chunk().unwrap());
        assert_eq!(found, number, "out of order");
        if delivery.tag % 500 == 0 || number + 1 == count {
            client.ack(delivery.tag, true).unwrap();
        }
    }
}

/// A limit for the memory of a process and its page cache; gone when dropped.
struct Cage(PathBuf);

impl Cage {
    fn new(bytes: u64) -> Option<Self> {
        static CAGES: AtomicU32 = AtomicU32::new(0);
        let number = CAGES.fetch_add(1, Ordering::Relaxed);
        let name = format!("polymq-faults-{}-{number}", std::process::id());
        let path = PathBuf::from("/sys/fs/cgroup/memory").join(name);
        fs::create_dir(&path).ok()?;
        let cage = Self(path);
        fs::write(cage.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(cage)
    }

    fn holds(&self, broker: &Broker) {
        fs::write(self.0.join("cgroup.procs"), broker.pid().to_string()).unwrap();
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // The processes in it must have ended, which they have when a test ends well.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn k22_a_deep_backlog_takes_no_memory_and_no_time_to_start() {
    deep_backlog("K22", setting("POLYMQ_BACKLOG", 1_000_000), &[]);
}

#[test]
fn k22_with_sqlite() {
    deep_backlog("K22 with SQLite", setting("POLYMQ_BACKLOG", 200_000), &SQLITE);
}

fn deep_backlog(case: &str, count: u64, flags: &[&str]) {
    let home = home_with(flags);
    let cage = Cage::new(256 << 20);
    if cage.is_none() {
        say("K22: no memory limit can be set here; resident memory is measured alone");
    }
    let broker = home.start().unwrap();
    cage.iter().for_each(|cage| cage.holds(&broker));
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    let empty = broker.resident_kib().unwrap();
    let started = Instant::now();
    fill(&mut client, "q", count);
    let filled = started.elapsed();
    let full = broker.resident_kib().unwrap();
    let disk = bytes_below(&home.data());
    let live = count * (128 + 60);
    broker.kill();
    let broker = home.start().unwrap();
    cage.iter().for_each(|cage| cage.holds(&broker));
    let ready = broker.ready_after;
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!(u64::from(client.declare("q").unwrap()), count);
    let started = Instant::now();
    drain(&mut client, "q", count);
    let drained = started.elapsed();
    let rate = |took: Duration| count as f64 / took.as_secs_f64() / 1000.0;
    say(&format!(
        "{case}: {count} messages; memory {} MiB empty, {} MiB full; {} MiB on disk for {} MiB; \
         start {} ms; filled at {:.0}k, drained at {:.0}k a second by a client of this test",
        empty >> 10,
        full >> 10,
        disk >> 20,
        live >> 20,
        ready.as_millis(),
        rate(filled),
        rate(drained)
    ));
    assert!(full.saturating_sub(empty) < 64 << 10, "memory grows with the backlog");
    assert!(ready < Duration::from_secs(2), "{ready:?}");
    assert!(disk < 2 * live + (400 << 20), "{disk} bytes for {live}");
    assert!(broker.stop().unwrap().success());
}

#[test]
fn k21_few_file_descriptors_make_strangers_wait_and_nobody_else() {
    few_descriptors("K21", &[]);
}

#[test]
fn k21_with_sqlite() {
    few_descriptors("K21 with SQLite", &SQLITE);
}

fn few_descriptors(case: &str, flags: &[&str]) {
    let mut home = home_with(flags);
    if !has("prlimit") {
        return skip(case, "there is no prlimit");
    }
    home.wrap(&["prlimit", "--nofile=256"]);
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    for number in 0..1000 {
        client.declare(&format!("q{number}")).unwrap();
    }
    let crowd: Vec<_> = (0..400).filter_map(|_| Amqp::dial(broker.ports.amqp).ok()).collect();
    client.confirm_select().unwrap();
    for number in 0..1000 {
        client.send(&amqp::publish("", &format!("q{number}"), b"x")).unwrap();
        client.expect((60, 80)).unwrap();
    }
    drop(crowd);
    let waited = Instant::now();
    let mut newcomer = loop {
        match Amqp::open(broker.ports.amqp) {
            Ok(newcomer) => break newcomer,
            Err(error) => assert!(waited.elapsed() < Duration::from_secs(20), "{error:#}"),
        }
    };
    assert_eq!(newcomer.declare("q999").unwrap(), 1);
    let waited = waited.elapsed().as_millis();
    say(&format!("{case}: a newcomer is served {waited} ms after the crowd"));
}

#[test]
fn k23_one_message_that_stays_pins_nothing_but_itself() {
    pinned("K23", setting("POLYMQ_PINNED_MIB", 1024), &[]);
}

#[test]
fn k23_with_sqlite() {
    pinned("K23 with SQLite", setting("POLYMQ_PINNED_MIB", 512), &SQLITE);
}

fn pinned(case: &str, mib: u64, flags: &[&str]) {
    const BODY: usize = 64 << 10;
    const TOGETHER: u64 = 64;
    let home = home_with(flags);
    let broker = home.start().unwrap();
    let mut pinning = Amqp::open(broker.ports.amqp).unwrap();
    pinning.declare("q").unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.confirm_select().unwrap();
    client.send(&amqp::publish("", "q", b"pinned")).unwrap();
    client.expect((60, 80)).unwrap();
    pinning.consume("q", 1).unwrap();
    assert!(matches!(pinning.next_event().unwrap(), Some(Incoming::Delivery(_))));
    client.consume("q", 0).unwrap();
    let message = amqp::publish("", "q", &vec![7; BODY]);
    let (mut sent, mut most) = (0, 0);
    while sent * BODY as u64 <= mib << 20 {
        for _ in 0..TOGETHER {
            client.send(&message).unwrap();
        }
        sent += TOGETHER;
        let (mut confirmed, mut delivered) = (0, 0);
        while confirmed <= sent || delivered < TOGETHER {
            match client.next_event().unwrap().unwrap() {
                Incoming::Method(_, arguments) => {
                    confirmed = long_number(&arguments, 0).unwrap();
                }
                Incoming::Delivery(found) => {
                    delivered += 1;
                    client.ack(found.tag, false).unwrap();
                }
            }
        }
        most = most.max(bytes_below(&home.data()));
    }
    say(&format!("{case}: one message of {mib} MiB stays; at most {} MiB on disk", most >> 20));
    // Log files: two that wait, the one that is written, the next one; the reserve; a base file.
    assert!(most < 400 << 20, "{most} bytes on disk");
    broker.kill();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.consume("q", 0).unwrap();
    let Some(Incoming::Delivery(found)) = client.next_event().unwrap() else {
        panic!("the pinned message is gone")
    };
    assert_eq!(found.body, b"pinned");
}

#[test]
fn k24_idle_empty_queues_take_little_disk_and_little_time() {
    idle_queues("K24", setting("POLYMQ_QUEUES", 5_000), &SMALL);
}

#[test]
fn k24_with_sqlite() {
    idle_queues("K24 with SQLite", setting("POLYMQ_QUEUES", 2_000), &SQLITE);
}

fn idle_queues(case: &str, queues: u64, flags: &[&str]) {
    let home = home_with(flags);
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.confirm_select().unwrap();
    let before = bytes_below(&home.data());
    for number in 0..queues {
        let name = format!("q{number}");
        client.declare(&name).unwrap();
        client.send(&amqp::publish("", &name, b"x")).unwrap();
        client.expect((60, 80)).unwrap();
        let purge = Method::new((50, 30)).u16(0).short(&name).u8(0);
        client.call(&purge, (50, 31)).unwrap();
    }
    assert!(broker.stop().unwrap().success());
    let broker = home.start().unwrap();
    let ready = broker.ready_after;
    let each = bytes_below(&home.data()).saturating_sub(before) / queues;
    say(&format!("{case}: {queues} queues, {each} bytes each, start {} ms", ready.as_millis()));
    assert!(each < 4096, "{each} bytes for an empty queue");
    assert!(ready < Duration::from_secs(3), "{ready:?}");
}

#[test]
fn k25_acknowledgements_in_any_order_survive_a_kill() {
    acks_in_any_order("K25", &SMALL);
}

#[test]
fn k25_with_sqlite() {
    acks_in_any_order("K25 with SQLite", &SQLITE);
}

fn acks_in_any_order(case: &str, flags: &[&str]) {
    let count = setting("POLYMQ_ACKS", 50_000);
    let mut random = Random::new(setting("POLYMQ_SEED", 25));
    let home = home_with(flags);
    let broker = home.start().unwrap();
    let empty = broker.resident_kib().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.declare("end").unwrap();
    fill(&mut client, "q", count);
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    consumer.consume("q", 0).unwrap();
    let mut tags: Vec<u64> = (1..=count).collect();
    for number in 1..=count {
        assert!(matches!(consumer.next_event().unwrap(), Some(Incoming::Delivery(_))), "{number}");
    }
    for at in (1..tags.len()).rev() {
        tags.swap(at, usize::try_from(random.between(0, at as u64)).unwrap());
    }
    let (acked, left) = tags.split_at(tags.len() / 2);
    for tag in acked {
        consumer.ack(*tag, false).unwrap();
    }
    // A confirm of something later says that the acknowledgements before it are written.
    consumer.confirm_select().unwrap();
    consumer.send(&amqp::publish("", "end", b"end")).unwrap();
    consumer.expect((60, 80)).unwrap();
    let (full, base) =
        (broker.resident_kib().unwrap(), bytes_below(&home.data().join("store/base")));
    broker.kill();
    let broker = home.start().unwrap();
    let ready = broker.ready_after;
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    let found = u64::from(client.declare("q").unwrap());
    assert_eq!(found, left.len() as u64);
    client.consume("q", 0).unwrap();
    let expected: BTreeSet<u64> = left.iter().map(|tag| tag - 1).collect();
    for number in expected {
        let Some(Incoming::Delivery(delivery)) = client.next_event().unwrap() else {
            panic!("no message {number}");
        };
        assert_eq!(u64::from_be_bytes(*delivery.body.first_chunk().unwrap()), number);
    }
    say(&format!(
        "{case}: {count} messages, half acknowledged in random order, the rest in order; \
         base files {base} bytes; memory {} MiB empty, {} MiB with all on their way; start {} ms",
        empty >> 10,
        full >> 10,
        ready.as_millis()
    ));
    // A bit a message, twice while a file is replaced.
    assert!(base < count / 4 + (256 << 10), "{base} bytes for {count} messages");
}

#[test]
fn k26_a_poison_message_ends_as_a_dead_letter() {
    poisoned("K26", &[]);
}

#[test]
fn k26_with_sqlite() {
    poisoned("K26 with SQLite", &SQLITE);
}

fn poisoned(case: &str, flags: &[&str]) {
    let home = home_with(flags);
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("dead").unwrap();
    let mut table = Vec::new();
    for (name, value) in [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "dead")] {
        table.push(u8::try_from(name.len()).unwrap());
        table.extend(name.as_bytes());
        table.push(b'S');
        table.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        table.extend(value.as_bytes());
    }
    table.extend(b"\x10x-delivery-limitI\x00\x00\x00\x05");
    let declare = Method::new((50, 10)).u16(0).short("q").u8(2).long(&table);
    client.call(&declare, (50, 11)).unwrap();
    client.confirm_select().unwrap();
    client.send(&amqp::publish("", "q", b"poison")).unwrap();
    client.expect((60, 80)).unwrap();
    client.consume("q", 1).unwrap();
    client.set_patience(Duration::from_millis(200)).unwrap();
    let mut other = Amqp::open(broker.ports.amqp).unwrap();
    let (mut tries, began) = (0, Instant::now());
    while other.declare("dead").unwrap() == 0 {
        if let Some(Incoming::Delivery(delivery)) = client.next_event().unwrap() {
            tries += 1;
            client.send(&Method::new((60, 90)).u64(delivery.tag).u8(1).frame(1)).unwrap();
        }
        assert!(tries < 100, "the message goes round for ever");
        assert!(began.elapsed() < Duration::from_secs(60), "it is nowhere after {tries} tries");
    }
    assert_eq!(client.next_event().unwrap(), None, "it is dead and alive");
    say(&format!("{case}: dead after {tries} deliveries"));
    assert_eq!(tries, 6);
}

//! A store with queues of every kind, and what is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming, long_number},
    broker::{Broker, Home, wait_for_end},
    files::{Files, position},
    ledger::Body,
};
use serde_json::Value;

const RUN: u64 = 0x6B16_00D7;
/// Every so many messages are acknowledged.
const ACKED_EACH: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(60);
/// Files of 1 MiB, so that a store of some MiB has all kinds of them.
const FLAGS: [&str; 6] = [
    "--set",
    "storage.file.segment_size=1MiB",
    "--set",
    "limits.disk_free.low=1B",
    "--set",
    "limits.disk_free.resume=1B",
];

/// What was published to a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    pub(crate) name: &'static str,
    pub(crate) producer: u32,
    /// Bytes of a body beside its head.
    filler: usize,
    /// Its messages have numbers from 1 to this, which stand at positions from 0 on.
    pub(crate) count: u64,
    is_consumed: bool,
}

const fn queue(name: &'static str, producer: u32, filler: usize, count: u64) -> Queue {
    Queue { name, producer, filler, count, is_consumed: true }
}

/// A segment of its own.
pub(crate) const BIG: Queue = queue("big", 1, 2000, 300);
/// One segment together.
pub(crate) const FEW: [Queue; 3] =
    [queue("few0", 2, 300, 30), queue("few1", 3, 300, 30), queue("few2", 4, 300, 30)];
/// So much that everything before it is in segments.
pub(crate) const REST: Queue = Queue { is_consumed: false, ..queue("rest", 5, 60_000, 80) };
/// In the log, each message in a batch of its own.
pub(crate) const LATE: Queue = queue("late", 6, 300, 40);
pub(crate) const ALL: [Queue; 6] = [BIG, FEW[0], FEW[1], FEW[2], REST, LATE];

impl Queue {
    /// The same with another number of messages.
    pub(crate) fn of(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// The body of a message.
    pub(crate) fn body(&self, n: u64) -> Vec<u8> {
        Body { run: RUN, producer: self.producer, n }.encode(self.filler)
    }

    /// The numbers that nobody has acknowledged.
    pub(crate) fn live(&self) -> Vec<u64> {
        (1..=self.count).filter(|n| !self.is_consumed || n % ACKED_EACH > 0).collect()
    }
}

/// How the broker ended that has filled the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    Killed,
}

/// A store that cases take copies of.
pub(crate) struct Filled {
    home: Home,
    early: Files,
}

/// Publishes all messages of a queue.
pub(crate) fn fill(broker: &Broker, queue: &Queue) {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare(queue.name).unwrap();
    client.confirm_select().unwrap();
    publish(&mut client, queue, &mut 0, 500);
}

impl Filled {
    pub(crate) fn new(end: End) -> Self {
        let mut home = Home::new().unwrap();
        home.always(&FLAGS);
        let files = Files::below(home.data().join("store"));
        let broker = home.start().unwrap();
        let mut client = Amqp::open(broker.ports.amqp).unwrap();
        for queue in ALL {
            client.declare(queue.name).unwrap();
        }
        client.confirm_select().unwrap();
        let mut confirmed = 0;
        for queue in FEW {
            publish(&mut client, &queue, &mut confirmed, 100);
            acknowledge(&broker, &queue);
        }
        publish(&mut client, &BIG, &mut confirmed, 100);
        publish(&mut client, &REST.of(REST.count / 2), &mut confirmed, 10);
        await_base(&files);
        // Yesterday's files.
        let early = files.copy_to(&home.file("early")).unwrap();
        publish_from(REST.count / 2 + 1, &mut client, &REST, &mut confirmed, 10);
        await_flush(&files);
        acknowledge(&broker, &BIG);
        publish(&mut client, &LATE, &mut confirmed, 1);
        acknowledge(&broker, &LATE);
        // Everything before this is in the log when it is confirmed.
        client.declare("end").unwrap();
        client.send(&amqp::publish("", "end", b"end")).unwrap();
        client.expect((60, 80)).unwrap();
        match end {
            End::Clean => assert!(broker.stop().unwrap().success()),
            End::Killed => broker.kill(),
        }
        Self { home, early }
    }

    /// A copy to be harmed.
    pub(crate) fn case(&self) -> Case {
        Case::copy_of(&self.home, &self.early)
    }
}

/// Publishes so many messages at a time, and awaits their confirms.
fn publish(client: &mut Amqp, queue: &Queue, confirmed: &mut u64, together: usize) {
    publish_from(1, client, queue, confirmed, together);
}

fn publish_from(
    first: u64,
    client: &mut Amqp,
    queue: &Queue,
    confirmed: &mut u64,
    together: usize,
) {
    let numbers: Vec<u64> = (first..=queue.count).collect();
    for numbers in numbers.chunks(together) {
        for n in numbers {
            client.send(&amqp::publish("", queue.name, &queue.body(*n))).unwrap();
        }
        let last = *confirmed + numbers.len() as u64;
        while *confirmed < last {
            await_confirm(client, confirmed);
        }
    }
}

fn await_confirm(client: &mut Amqp, confirmed: &mut u64) {
    match client.next_event().unwrap() {
        Some(Incoming::Method((60, 80), arguments)) => {
            *confirmed = long_number(&arguments, 0).unwrap();
        }
        other => panic!("{other:?} for a publisher"),
    }
}

fn acknowledge(broker: &Broker, queue: &Queue) {
    let mut consumer = Amqp::open(broker.ports.amqp).unwrap();
    consumer.consume(queue.name, 0).unwrap();
    for n in 1..=queue.count {
        let Some(Incoming::Delivery(found)) = consumer.next_event().unwrap() else {
            panic!("no message {n} of {}", queue.name)
        };
        if n % ACKED_EACH == 0 {
            consumer.ack(found.tag, false).unwrap();
        }
    }
    consumer.close().unwrap();
}

fn await_base(files: &Files) {
    let began = Instant::now();
    while !files.names().unwrap().iter().any(|name| name.starts_with("base/")) {
        assert!(began.elapsed() < PATIENCE, "nothing is flushed");
    }
}

fn await_flush(files: &Files) {
    let began = Instant::now();
    for queue in FEW.into_iter().chain([BIG]) {
        let last = queue.body(queue.count - 1);
        while files.find("seg/", &last).unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "{} is not flushed", queue.name);
        }
    }
}

/// Messages by queue and number.
pub(crate) type Lost = BTreeSet<(&'static str, u64)>;

/// What a queue has given, and whether it says that something in it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) numbers: Vec<u64>,
    pub(crate) stops: bool,
}

/// What a store has not kept.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Messages that are gone.
    pub(crate) lost: Lost,
    /// Messages that were acknowledged and are there.
    pub(crate) back: Lost,
}

/// A store of its own, to be harmed, looked at and repaired.
pub(crate) struct Case {
    pub(crate) home: Home,
    pub(crate) files: Files,
    pub(crate) early: Files,
}

impl Case {
    fn copy_of(other: &Home, early: &Files) -> Self {
        let case = Self::empty();
        Files::below(other.data()).copy_to(&case.home.data()).unwrap();
        Self { early: early.clone(), ..case }
    }

    /// One with nothing in it.
    pub(crate) fn empty() -> Self {
        let mut home = Home::new().unwrap();
        home.always(&FLAGS);
        let files = Files::below(home.data().join("store"));
        Self { home, early: files.clone(), files }
    }

    /// A copy that is harmed as this one is.
    pub(crate) fn again(&self) -> Self {
        Self::copy_of(&self.home, &self.early)
    }

    /// Where a message stands in the files whose names begin so.
    pub(crate) fn place(&self, folder: &str, queue: &Queue, n: u64) -> (String, u64) {
        self.files.find(folder, &queue.body(n)).unwrap().unwrap()
    }

    /// The broker does not start, and touches nothing; what it says last.
    pub(crate) fn refused(&self, flags: &[&str]) -> String {
        let (before, log) = (self.files.prints().unwrap(), self.home.log().len());
        let status = wait_for_end(&mut self.home.spawn(flags).unwrap()).unwrap();
        let said = self.home.log().split_off(log);
        assert_eq!(status.code(), Some(1), "{said}");
        let what = said.find("polymq: ").unwrap_or_else(|| panic!("no reason given: {said}"));
        assert_eq!(self.files.prints().unwrap(), before, "a refused store was touched: {said}");
        said[what..].to_owned()
    }

    /// Runs `polymq storage`: its exit code, and what it says.
    pub(crate) fn storage(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.home.storage(words).unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// `polymq storage repair` that repairs nothing: its exit code, and what it says.
    pub(crate) fn examined(&self) -> (Option<i32>, String) {
        let before = self.files.prints().unwrap();
        let found = self.storage(&["repair"]);
        assert_eq!(self.files.prints().unwrap(), before, "a look has touched: {}", found.1);
        found
    }

    /// Takes every message of every queue; all must be whole, in order, and not acknowledged.
    pub(crate) fn drain(&self, broker: &Broker) -> BTreeMap<&'static str, Seen> {
        ALL.iter().map(|queue| (queue.name, drain(broker, queue))).collect()
    }

    /// What is not among what was seen, and what was acknowledged and is; no queue may stop.
    pub(crate) fn judge(&self, found: &BTreeMap<&'static str, Seen>) -> Judged {
        let (mut lost, mut back) = (Lost::new(), Lost::new());
        for queue in ALL {
            let (seen, live) = (&found[queue.name], queue.live());
            assert!(!seen.stops, "{} stops", queue.name);
            let again = seen.numbers.iter().filter(|n| !live.contains(n));
            back.extend(again.map(|n| (queue.name, *n)));
            let gone = live.iter().filter(|n| !seen.numbers.contains(n));
            lost.extend(gone.map(|n| (queue.name, *n)));
        }
        Judged { lost, back }
    }

    /// Everything is there but these, and no queue stops.
    pub(crate) fn drain_all_but(&self, broker: &Broker, lost: &Lost) {
        let found = self.judge(&self.drain(broker));
        assert_eq!((&found.lost, found.back), (lost, Lost::new()));
    }

    /// The messages nobody has acknowledged that stand in this range of a file.
    pub(crate) fn standing_in(&self, file: &str, (from, to): (u64, u64)) -> Lost {
        let content = self.files.read(file).unwrap();
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap().min(content.len());
        let numbers = |queue: &'static Queue| queue.live().into_iter().map(move |n| (queue, n));
        let all = ALL.iter().flat_map(numbers);
        let stand = all.filter(|(queue, n)| {
            let body = queue.body(*n);
            let at = position(&content, &body);
            at.is_some_and(|at| at < range.end && range.start < at + body.len())
        });
        stand.map(|(queue, n)| (queue.name, n)).collect()
    }

    /// Repairs, after a look that says the same; what the repair says.
    pub(crate) fn repaired(&self) -> String {
        let (code, found) = self.examined();
        assert_eq!(code, Some(1), "{found}");
        let (code, said) = self.storage(&["repair", "--yes"]);
        assert_eq!(code, Some(0), "{said}");
        let (code, sound) = self.examined();
        assert_eq!((code, sound.contains("is sound")), (Some(0), true), "{sound}");
        let (code, sound) = self.storage(&["verify"]);
        assert_eq!((code, sound.contains("is sound")), (Some(0), true), "{sound}");
        said
    }

    /// Lines of the log about this event.
    pub(crate) fn told(&self, event: &str) -> Vec<Value> {
        let log = self.home.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// The names of what is in quarantine.
    pub(crate) fn quarantine(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.files.path("quarantine"));
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }
}

/// Takes every message of a queue.
pub(crate) fn drain(broker: &Broker, queue: &Queue) -> Seen {
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    let (mut numbers, mut last) = (Vec::new(), 0);
    // A queue that is lost with its definition is declared anew, and empty.
    client.declare(queue.name).unwrap();
    let stops = loop {
        match client.get(queue.name) {
            Ok(None) => break false,
            Ok(Some(found)) => {
                let body = Body::decode(&found.body).unwrap();
                assert_eq!((body.run, body.producer), (RUN, queue.producer), "{}", queue.name);
                assert!(body.n > last, "{}: {} behind {last}", queue.name, body.n);
                last = body.n;
                numbers.push(body.n);
            }
            Err(error) if error.to_string().contains("cannot be read") => break true,
            Err(error) => panic!("{}: {error:#}", queue.name),
        }
    };
    Seen { numbers, stops }
}

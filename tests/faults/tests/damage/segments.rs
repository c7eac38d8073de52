//! Damage in segments: what of it a broker notices, tells, and loses.

use std::{
    fs,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp},
    broker::Broker,
    files::Files,
    report::say,
};

use crate::filled::{BIG, Case, End, FEW, Filled, Lost, Queue, REST, Seen};

const SKIP: [&str; 2] = ["--set", "storage.file.on_damage=skip"];
const REFUSE: [&str; 2] = ["--set", "storage.file.on_damage=refuse"];
const PATIENCE: Duration = Duration::from_secs(30);

/// Changes a bit in the middle of a message.
fn flip(case: &Case, queue: &Queue, n: u64) -> String {
    let (file, at) = case.place("seg/", queue, n);
    case.files.flip(&file, at + 100).unwrap();
    file
}

fn lost(queue: &Queue, numbers: &[u64]) -> Lost {
    numbers.iter().map(|n| (queue.name, *n)).collect()
}

/// What health and metrics say is damaged: messages and places.
fn counted(broker: &Broker) -> (u64, u64) {
    let metric = |name: &str| broker.metric(name).unwrap() as u64;
    let found = (metric("polymq_store_damaged_messages"), metric("polymq_store_damaged_ranges"));
    let (status, health) = broker.get("/health/ready").unwrap();
    assert_eq!(status, 200, "others are served: {health}");
    let words = format!("{} stored messages at {} places", found.0, found.1);
    assert_eq!(health.contains(&words), found.1 > 0, "{health}");
    assert_eq!(health.contains(r#""status":"degraded""#), found.1 > 0, "{health}");
    found
}

/// The log has named exactly these messages of one queue, each place once; its copies are kept.
/// `harmed` has the files as they were before.
fn told(case: &Case, harmed: &Files, queue: &Queue, ranges: &[(u64, u64)]) {
    let lines = case.told("messages_damaged");
    let mut found = Vec::new();
    for line in &lines {
        assert_eq!(line["queue"], format!("//{}", queue.name), "{line}");
        found.push((line["first"].as_u64().unwrap(), line["last"].as_u64().unwrap()));
        let (at, bytes) = (line["offset"].as_u64().unwrap(), line["bytes"].as_u64().unwrap());
        let file = harmed.read(line["file"].as_str().unwrap()).unwrap();
        let kept = case.files.read(line["kept_as"].as_str().unwrap()).unwrap();
        let (from, to) = (usize::try_from(at).unwrap(), usize::try_from(at + bytes).unwrap());
        assert_eq!(kept, file[from..to], "the copy is of the damaged bytes: {line}");
        let why = format!("{}.txt", line["kept_as"].as_str().unwrap());
        let why = String::from_utf8(case.files.read(&why).unwrap()).unwrap();
        assert!(why.contains(queue.name) && why.contains("not readable at bytes"), "{why}");
    }
    found.sort_unstable();
    assert_eq!(found, ranges, "{lines:?}");
    assert_eq!(case.quarantine().len(), 2 * ranges.len(), "a copy and a text for each");
}

#[test]
fn k16_a_queue_stops_at_a_damaged_message_and_the_others_go_on() {
    let filled = Filled::new(End::Clean);
    let case = filled.case();
    let file = flip(&case, &BIG, 17);
    let broker = case.home.start().unwrap();
    assert_eq!(counted(&broker), (0, 0), "nothing was read so far");
    let mut found = case.drain(&broker);
    let big = found.remove(BIG.name).unwrap();
    let before = BIG.live().into_iter().take_while(|n| *n < 17).collect();
    assert_eq!(big, Seen { numbers: before, stops: true });
    assert!(found.values().all(|seen| !seen.stops), "{found:?}");
    assert_eq!(counted(&broker), (1, 1));
    told(&case, &case.files, &BIG, &[(17, 17)]);
    // What is published to it waits as well, and is confirmed.
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.confirm_select().unwrap();
    client.send(&amqp::publish("", BIG.name, b"new")).unwrap();
    client.expect((60, 80)).unwrap();
    let behind = BIG.live().len() - 15 + 1;
    assert_eq!(client.declare(BIG.name).unwrap() as usize, behind);
    assert!(broker.stop().unwrap().success());

    let (code, said) = case.storage(&["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("log 1, message 17 is not readable") && said.contains(&file), "{said}");
    let said = case.repaired();
    assert!(said.contains("log 1 `//big`, positions 17 to 17: 1 message is lost"), "{said}");
    assert!(said.contains("1 place, 1 messages lost."), "{said}");
    let broker = case.home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    for n in BIG.live().into_iter().filter(|n| *n > 17) {
        assert_eq!(client.get(BIG.name).unwrap().unwrap().body, BIG.body(n));
    }
    assert_eq!(client.get(BIG.name).unwrap().unwrap().body, b"new");
    assert_eq!(client.get(BIG.name).unwrap(), None);
    assert_eq!(counted(&broker), (0, 0));
    say("K16 stop: one bit, one message named, kept in quarantine, and lost by the repair alone");
}

#[test]
fn k16_a_queue_goes_on_behind_damaged_messages_when_it_is_told_to_skip_them() {
    let filled = Filled::new(End::Clean);
    let case = filled.case();
    for n in [41, 42, 43, 99, 299] {
        flip(&case, &BIG, n);
    }
    let harmed = case.again();
    let gone = lost(&BIG, &[41, 42, 43, 99, 299]);
    let broker = case.home.start_with(&SKIP).unwrap();
    case.drain_all_but(&broker, &gone);
    assert_eq!(counted(&broker), (5, 3));
    told(&case, &harmed.files, &BIG, &[(41, 43), (99, 99), (299, 299)]);
    let skipped: u64 =
        case.told("messages_skipped").iter().map(|l| l["messages"].as_u64().unwrap()).sum();
    assert_eq!(skipped, 5);
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    assert_eq!(client.declare(BIG.name).unwrap(), 0, "what was skipped is not counted any more");
    assert!(broker.stop().unwrap().success());
    let (code, said) = case.examined();
    assert_eq!(code, Some(0), "skipped and acknowledged, nothing is damaged any more: {said}");
    say("K16 skip: 5 messages at 3 places named and skipped, the others delivered in order");
}

#[test]
fn k16_a_broker_that_is_to_refuse_damage_does_not_start_with_it() {
    let filled = Filled::new(End::Clean);
    let case = filled.case();
    let file = flip(&case, &FEW[1], 15);
    flip(&case, &BIG, 201);
    let said = case.refused(&REFUSE);
    for words in
        [&file[..], "`//few1`, positions 15 to 15: 1 message", "2 places", "storage repair"]
    {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    // Without that it starts, and queues that share the segment are whole.
    let again = case.again();
    let broker = again.home.start_with(&SKIP).unwrap();
    let gone = [lost(&BIG, &[201]), lost(&FEW[1], &[15])].into_iter().flatten().collect();
    again.drain_all_but(&broker, &gone);
    let said = case.repaired();
    assert!(said.contains("2 places, 2 messages lost."), "{said}");
    let broker = case.home.start_with(&REFUSE).unwrap();
    case.drain_all_but(&broker, &gone);
    say("K16 refuse: not started, nothing touched, both messages named; started after the repair");
}

#[test]
fn k16_damage_that_nobody_waits_for_costs_nothing() {
    let filled = Filled::new(End::Clean);
    let case = filled.case();
    // This one is acknowledged.
    let file = flip(&case, &BIG, 50);
    let again = case.again();
    let broker = again.home.start().unwrap();
    again.drain_all_but(&broker, &Lost::new());
    assert_eq!(counted(&broker), (0, 0));
    let said = case.repaired();
    assert!(said.contains("positions 50 to 50: nothing that anybody waited for"), "{said}");
    case.drain_all_but(&case.home.start().unwrap(), &Lost::new());

    // The table behind the records only leads to them.
    let case = filled.case();
    let len = case.files.read(&file).unwrap().len() as u64;
    case.files.zero(&file, len - 40, 40).unwrap();
    let again = case.again();
    let broker = again.home.start().unwrap();
    again.drain_all_but(&broker, &Lost::new());
    let said = case.repaired();
    assert!(said.contains("the table behind the records is damaged; it is made again"), "{said}");
    case.drain_all_but(&case.home.start().unwrap(), &Lost::new());
    say("K16: an acknowledged message, and a table: nothing lost");
}

#[test]
fn k16_damage_is_found_before_a_consumer_comes_to_it() {
    let filled = Filled::new(End::Clean);
    let case = filled.case();
    let broker = case.home.start_with(&["--set", "storage.file.scrub_every=1s"]).unwrap();
    let began = Instant::now();
    while broker.metric("polymq_store_scrubs_total").unwrap() < 1.0 {
        assert!(began.elapsed() < PATIENCE, "no scrub comes to its end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(counted(&broker), (0, 0));
    // It happens under a broker that runs.
    flip(&case, &FEW[0], 7);
    flip(&case, &BIG, 151);
    let began = Instant::now();
    while case.told("messages_damaged").len() < 2 {
        assert!(began.elapsed() < PATIENCE, "{:?}", case.told("messages_damaged"));
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = began.elapsed();
    let told: Vec<_> = case.told("messages_damaged").iter().map(|l| l["first"].clone()).collect();
    assert!(told.contains(&7.into()) && told.contains(&151.into()), "{told:?}");
    assert_eq!(counted(&broker), (2, 2));
    say(&format!("K16 scrub: found after {} ms", found.as_millis()));
}

/// Whatever has become of a segment, exactly the messages in it are lost.
fn segment(filled: &Filled, what: &str, queue: &Queue, harm: impl Fn(&Case, &str) -> Lost) {
    let case = filled.case();
    let (file, _) = case.place("seg/", queue, 1);
    let gone = harm(&case, &file);
    let said = case.refused(&REFUSE);
    assert!(said.contains(&file), "{what}: {said}");
    let again = case.again();
    let broker = again.home.start_with(&SKIP).unwrap();
    again.drain_all_but(&broker, &gone);
    let told: u64 =
        again.told("messages_damaged").iter().map(|l| l["messages"].as_u64().unwrap()).sum();
    assert_eq!(told, gone.len() as u64, "{what}: {}", again.home.log());
    assert_eq!(counted(&broker).0, told, "{what}");
    let said = case.repaired();
    assert!(said.contains(&format!("{} messages lost.", gone.len())), "{what}: {said}");
    case.drain_all_but(&case.home.start().unwrap(), &gone);
    say(&format!("K17: {what}: {} messages named, no other one lost", gone.len()));
}

#[test]
fn k17_a_segment_that_is_cut_zeroed_missing_or_stale_costs_what_stood_in_it() {
    let filled = Filled::new(End::Clean);
    let other = Filled::new(End::Clean);
    let other = other.case();
    let all = |case: &Case, file: &str| case.standing_in(file, (0, u64::MAX));
    segment(&filled, "a segment cut in the middle", &BIG, |case, file| {
        let (of, at) = case.place("seg/", &BIG, 201);
        assert_eq!(of, file);
        let gone = case.standing_in(file, (at + 10, u64::MAX));
        case.files.cut(file, at + 10).unwrap();
        gone
    });
    segment(&filled, "zeros in a segment of many queues", &FEW[0], |case, file| {
        let (_, at) = case.place("seg/", &FEW[1], 11);
        let gone = case.standing_in(file, (at, at + 3000));
        case.files.zero(file, at, 3000).unwrap();
        gone
    });
    segment(&filled, "a segment of zeros", &FEW[2], |case, file| {
        let gone = all(case, file);
        case.files.zero(file, 0, u64::MAX).unwrap();
        gone
    });
    segment(&filled, "an empty segment", &BIG, |case, file| {
        let gone = all(case, file);
        case.files.cut(file, 0).unwrap();
        gone
    });
    segment(&filled, "a segment that is missing", &FEW[0], |case, file| {
        let gone = all(case, file);
        case.files.lose(file).unwrap();
        gone
    });
    segment(&filled, "another segment in its place", &BIG, |case, file| {
        let gone = all(case, file);
        let (name, _) = case.place("seg/", &REST, 1);
        fs::copy(case.files.path(&name), case.files.path(file)).unwrap();
        gone
    });
    segment(&filled, "the segment of another store", &BIG, |case, file| {
        let gone = all(case, file);
        let (name, _) = other.place("seg/", &BIG, 1);
        fs::copy(other.files.path(&name), case.files.path(file)).unwrap();
        gone
    });
}

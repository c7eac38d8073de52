use super::*;

const MS: u64 = 1_000_000;

/// Producer 1 publishes to queue 7.
fn plan() -> Plan {
    Plan { routes: [(1, vec![7])].into(), ack_loss_max_ns: 100 * MS }
}

/// A ledger written as `"s1 c1 d1 f r D1"`: a letter, a number, one millisecond after each other.
/// `D` is a marked redelivery, `x` a damaged one, `@` begins another connection, and `r` another
/// life of the broker.
fn records(script: &str) -> Vec<Record> {
    let (mut connection, mut life) = (1, 1);
    let mut found = Vec::new();
    for (at, word) in script.split_whitespace().enumerate() {
        let (letter, n) = word.split_at(1);
        let n = n.parse().unwrap_or(0);
        let (kind, flags) = match letter {
            "@" => {
                connection += 1;
                continue;
            }
            "D" => (Kind::Delivered, REDELIVERED),
            "x" => (Kind::Delivered, DAMAGED),
            _ => (Kind::of(letter.as_bytes()[0]).expect("a known letter"), 0),
        };
        life += u64::from(kind == Kind::Ready);
        let queue =
            if matches!(kind, Kind::Delivered | Kind::Acked | Kind::AckDurable) { 7 } else { 0 };
        let time_ns = at as u64 * MS;
        let record = Record::new(kind);
        let value = life;
        found.push(Record { flags, producer: 1, n, queue, connection, time_ns, value, ..record });
    }
    found
}

fn judged(script: &str) -> Findings {
    check(&plan(), &records(script))
}

/// The findings with the counts left out.
fn wrong(script: &str) -> Findings {
    Findings { counted: Counted::default(), ..judged(script) }
}

#[test]
fn orderly_run_is_clean() {
    let found = judged("s1 s2 c1 c2 d1 d2 a1 a2 k1 k2");
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.counted.confirmed, found.counted.delivered), (2, 2));
}

#[test]
fn kill_between_delivery_and_ack_is_clean() {
    let found = judged("s1 s2 c1 d1 f u2 r @ d1 a1");
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.counted.unknown, found.counted.unmarked_after_fault), (1, 1));
    assert_eq!((found.counted.faults, found.counted.slowest_recovery_ns), (1, 2 * MS));
}

#[test]
fn confirmed_and_not_delivered_is_lost() {
    assert_eq!(wrong("s1 s2 c1 c2 d2"), Findings { lost: vec![(1, 1, 7)], ..Default::default() });
}

#[test]
fn unknown_and_refused_messages_may_be_missing_or_there() {
    assert!(judged("s1 s2 s3 u1 n2 u3 d3").is_clean());
}

#[test]
fn delivery_of_what_nobody_sent_is_invented() {
    let expected = Findings { invented: vec![(1, 9, 7)], ..Default::default() };
    assert_eq!(wrong("s1 c1 d1 d9"), expected);
}

#[test]
fn damaged_delivery_is_invented_and_does_not_count_as_delivery() {
    let found = wrong("s1 c1 x1");
    assert_eq!(found.invented, [(1, 1, 7)]);
    assert_eq!(found.lost, [(1, 1, 7)]);
}

#[test]
fn delivery_to_a_queue_without_a_route_is_invented() {
    let mut wrong_queue = records("s1 c1 d1 d1");
    wrong_queue[3].queue = 8;
    let found = check(&plan(), &wrong_queue);
    assert_eq!(found.invented, [(1, 1, 8)]);
}

#[test]
fn delivery_after_a_durable_ack_is_revived() {
    let expected = Findings { revived: vec![(1, 1, 7)], ..Default::default() };
    assert_eq!(wrong("s1 c1 d1 a1 k1 f r @ D1"), expected);
}

#[test]
fn ack_shortly_before_a_fault_may_be_forgotten() {
    let found = judged("s1 c1 d1 a1 f r @ D1");
    assert!(found.is_clean(), "{found}");
    assert_eq!(found.counted.redelivered_after_ack, 1);
    assert_eq!(found.counted.oldest_lost_ack_ns, MS);
}

#[test]
fn ack_long_before_a_fault_may_not_be_forgotten() {
    let waiting = "u0 ".repeat(150);
    let found = wrong(&format!("s1 c1 d1 a1 {waiting} f r @ D1"));
    assert_eq!(found, Findings { forgotten_ack: vec![(1, 1, 7)], ..Default::default() });
}

#[test]
fn ack_without_a_fault_may_not_be_forgotten() {
    let expected = Findings { forgotten_ack: vec![(1, 1, 7)], ..Default::default() };
    assert_eq!(wrong("s1 c1 d1 a1 @ D1"), expected);
}

#[test]
fn repeat_without_a_mark_and_without_a_fault_is_a_duplicate() {
    let expected = Findings { duplicate: vec![(1, 1, 7)], ..Default::default() };
    assert_eq!(wrong("s1 c1 d1 @ d1"), expected);
    assert!(judged("s1 c1 d1 @ D1").is_clean());
}

#[test]
fn number_that_goes_down_is_out_of_order() {
    let expected = Findings { out_of_order: vec![(1, 1, 7)], ..Default::default() };
    assert_eq!(wrong("s1 s2 c1 c2 d2 d1"), expected);
    assert!(judged("s1 s2 c1 c2 d2 D1").is_clean());
    assert!(judged("s1 s2 c1 c2 d2 @ d1").is_clean());
}

#[test]
fn publish_without_any_answer_is_silent() {
    assert_eq!(wrong("s1 s2 c1 d1"), Findings { silent: vec![(1, 2)], ..Default::default() });
}

#[test]
fn records_read_back_and_take_forty_bytes() {
    let record = Record {
        kind: Kind::Delivered,
        protocol: Protocol::Mqtt,
        flags: REDELIVERED,
        producer: 0x0403_0201,
        n: u64::MAX - 1,
        queue: 7,
        connection: 8,
        time_ns: 9,
        value: 10,
    };
    let bytes = record.encode();
    assert_eq!(bytes[..8], [b'd', 2, 1, 0, 1, 2, 3, 4]);
    assert_eq!(Record::decode(&bytes), Some(record));
    assert_eq!(Record::decode(&[0; RECORD_BYTES]), None);
}

#[test]
fn changed_bodies_are_noticed() {
    let body = Body { run: 5, producer: 1, n: 3 };
    for filler in [0, 1, 100] {
        let bytes = body.encode(filler);
        assert_eq!((bytes.len(), Body::decode(&bytes)), (28 + filler, Ok(body)));
        assert_eq!(Body::decode(&bytes[..bytes.len() - 1]), Err(BadBody));
        assert_eq!(Body::decode(&[&bytes[..], &[0]].concat()), Err(BadBody));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert_eq!(Body::decode(&bytes), Err(BadBody), "byte {at}");
        }
    }
}

//! Messages that change their place inside the broker, over `kill -9`: each is in one of the two
//! places, whenever the broker dies.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use polymq_faults::{
    amqp::{self, Amqp, Field, Incoming, Method, body_frame, frame, long_number, table},
    broker::{Broker, Home},
    disk::has,
    random::Random,
    report::{say, setting, skip},
    strace::killer,
};

const CHANNEL: u16 = 1;
/// Publishes that are on their way at a time.
const WINDOW: u64 = 200;
/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A persistent message with a delay.
fn publish_delayed(queue: &str, delay_ms: u64, body: &[u8]) -> Vec<u8> {
    let method = Method::new((60, 40)).u16(0).short("").short(queue).u8(0).frame(CHANNEL);
    let headers = table(&[("x-delay", Field::Number(i64::try_from(delay_ms).unwrap()))]);
    let mut header = vec![0, 60, 0, 0];
    header.extend(u64::try_from(body.len()).unwrap().to_be_bytes());
    header.extend([0x30, 0x00]);
    header.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    header.extend(headers);
    header.push(2);
    [method, frame(2, CHANNEL, &header), body_frame(body)].concat()
}

/// What was published, by number: true once it was confirmed.
type Ledger = BTreeMap<u64, bool>;

/// Publishes new numbers until the connection breaks.
fn publish_until_the_end(
    client: &mut Amqp,
    ledger: &mut Ledger,
    mut message: impl FnMut(&[u8]) -> Vec<u8>,
) -> Result<()> {
    client.confirm_select()?;
    let first = ledger.len() as u64;
    let (mut sent, mut confirmed) = (0, 0);
    loop {
        let mut bytes = Vec::new();
        while sent - confirmed < WINDOW {
            bytes.extend(message(&(first + sent).to_be_bytes()));
            ledger.insert(first + sent, false);
            sent += 1;
        }
        client.send(&bytes)?;
        while sent - confirmed > WINDOW / 2 {
            match client.next_event()? {
                Some(Incoming::Method((60, 80), arguments)) => {
                    let to = long_number(&arguments, 0)?;
                    let is_multiple = arguments.get(8) == Some(&1);
                    for number in if is_multiple { confirmed + 1..=to } else { to..=to } {
                        ledger.insert(first + number - 1, true);
                    }
                    confirmed = confirmed.max(to);
                }
                other => bail!("{other:?} for a publisher"),
            }
        }
    }
}

/// Where the process ends when it is not at a random moment: before the store has the batch of a
/// move, when it has written it and has not been told that it lasts, and when it has told.
const POINTS: [(&str, &str, &[&str]); 3] = [
    ("before the write", "pwritev,pwrite64", WAL),
    ("before the sync", "fdatasync", WAL),
    ("after both", "sendto,writev,sendmsg,write", &[]),
];
const WAL: &[&str] = &["store/wal/*.wal"];
/// A point that is not reached for this long is left out.
const POINT_PATIENCE: Duration = Duration::from_millis(1500);

/// What is done until the kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// New messages come, and those there are move.
    Publish(u64),
    /// Only what is there moves, in the round of this number.
    Move(u64),
}

/// The place in [`POINTS`] of the point where the process ends in this round.
fn point_of(round: u64) -> usize {
    usize::try_from(round).unwrap() % POINTS.len()
}

/// Starts, works and kills, again and again: at random moments while messages come, and at the
/// points while those that are there move. `work` ends when the connection breaks. `first_call` is
/// the first of a thread's calls that ends the process at a point. Returns the rounds whose point
/// was reached.
fn kill_often(
    home: &mut Home,
    random: &mut Random,
    first_call: u64,
    mut work: impl FnMut(&mut Amqp, Work) + Send,
) -> BTreeSet<u64> {
    let kills = setting("POLYMQ_MOVE_KILLS", 24);
    let mut hits = BTreeSet::new();
    for round in 0..kills {
        let (_, calls, files) = POINTS[point_of(round)];
        let broker = home.start().unwrap();
        let mut client = Amqp::open(broker.ports.amqp).unwrap();
        let (publish, time) = (Work::Publish(random.next_u64()), random.between(30, 400));
        thread::scope(|scope| {
            scope.spawn(|| work(&mut client, publish));
            thread::sleep(Duration::from_millis(time));
            broker.kill();
        });
        // Messages are where the kill has left them, and move on from there.
        let when = u32::try_from(first_call + round / POINTS.len() as u64).unwrap();
        let words = killer(home, calls, files, when);
        home.wrap(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let started = home.start();
        home.wrap(&[]);
        // It may end before it is ready, or before it is spoken to.
        let Ok(mut broker) = started else {
            hits.insert(round);
            continue;
        };
        thread::scope(|scope| {
            if let Ok(mut client) = Amqp::open(broker.ports.amqp) {
                let work = &mut work;
                scope.spawn(move || work(&mut client, Work::Move(round)));
            }
            if broker.ended_within(POINT_PATIENCE).unwrap().is_some() {
                hits.insert(round);
            }
            broker.kill();
        });
    }
    let of = |point: usize| hits.iter().filter(|round| point_of(**round) == point).count();
    let counts: Vec<_> = (0..POINTS.len()).map(|point| (of(point), POINTS[point].0)).collect();
    say(&format!("{kills} kills at random, and at the points: {counts:?}"));
    assert!(counts.iter().all(|(hits, _)| *hits > 0), "a point was never reached: {counts:?}");
    hits
}

/// Does nothing until the connection breaks, or nothing can move any more.
fn look_on(client: &mut Amqp) {
    let _ = client.set_patience(POINT_PATIENCE);
    let _ = client.next_event();
}

/// Takes everything that is in a queue.
fn take_all(client: &mut Amqp, queue: &str) -> BTreeMap<u64, u32> {
    let mut found = BTreeMap::new();
    take_bodies(client, queue, |body| *found.entry(number_in(body, 0)).or_default() += 1);
    found
}

/// Takes everything that is in a queue, and shows each body.
fn take_bodies(client: &mut Amqp, queue: &str, mut see: impl FnMut(&[u8])) {
    let mut left = client.declare(queue).unwrap();
    client.consume(queue, 0).unwrap();
    while left > 0 {
        let Some(Incoming::Delivery(delivery)) = client.next_event().unwrap() else {
            panic!("{left} messages do not come")
        };
        see(&delivery.body);
        client.ack(delivery.tag, false).unwrap();
        left -= 1;
    }
}

/// The number that begins at this byte of a body.
fn number_in(body: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(*body[at..].first_chunk().unwrap())
}

/// What was confirmed is there once; what was not is there once or not at all.
fn balance(case: &str, ledger: &Ledger, found: &BTreeMap<u64, u32>) {
    let confirmed = ledger.values().filter(|confirmed| **confirmed).count();
    let lost: Vec<_> = ledger.iter().filter(|(n, is)| **is && !found.contains_key(n)).collect();
    let double: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    let invented: Vec<_> = found.keys().filter(|number| !ledger.contains_key(number)).collect();
    say(&format!(
        "{case}: {} published, {confirmed} confirmed, {} arrived, {} lost, {} double, {} invented",
        ledger.len(),
        found.len(),
        lost.len(),
        double.len(),
        invented.len()
    ));
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(double.is_empty(), "double: {double:?}");
    assert!(invented.is_empty(), "invented: {invented:?}");
    assert!(confirmed > 0, "nothing was confirmed");
}

fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() {
        assert!(started.elapsed() < PATIENCE, "{what} takes too long");
        thread::sleep(Duration::from_millis(20));
    }
}

fn delayed(broker: &Broker) -> f64 {
    broker.metric("polymq_delayed_messages").unwrap()
}

#[test]
fn delayed_messages_arrive_once_over_kills() {
    if !has("strace") {
        return skip("moves: delays", "there is no strace");
    }
    let mut home = Home::new().unwrap();
    let mut random = Random::new(setting("POLYMQ_SEED", 1));
    let mut ledger = Ledger::new();
    kill_often(&mut home, &mut random, 1, |client, work| {
        let Work::Publish(seed) = work else { return look_on(client) };
        let mut random = Random::new(seed);
        if client.declare("q").is_ok() {
            let message = |body: &[u8]| publish_delayed("q", random.between(1, 500), body);
            let _ = publish_until_the_end(client, &mut ledger, message);
        }
    });
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    wait_until("the schedule", || delayed(&broker) == 0.0);
    balance("delay", &ledger, &take_all(&mut client, "q"));
    assert!(broker.stop().unwrap().success());
}

#[test]
fn dead_letters_arrive_once_over_kills() {
    if !has("strace") {
        return skip("moves: dead letters", "there is no strace");
    }
    let mut home = Home::new().unwrap();
    let mut random = Random::new(setting("POLYMQ_SEED", 2));
    let mut ledger = Ledger::new();
    let to = |queue| {
        [
            ("x-message-ttl", Field::Number(20)),
            ("x-dead-letter-exchange", Field::Text("")),
            ("x-dead-letter-routing-key", Field::Text(queue)),
        ]
    };
    kill_often(&mut home, &mut random, 1, |client, work| {
        if matches!(work, Work::Move(_)) {
            return look_on(client);
        }
        let declared = client
            .declare("dead")
            .and_then(|_| client.declare_with("second", &to("dead")))
            .and_then(|_| client.declare_with("first", &to("second")));
        if declared.is_ok() {
            let message = |body: &[u8]| amqp::publish("", "first", body);
            let _ = publish_until_the_end(client, &mut ledger, message);
        }
    });
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    // Dead letters on their way are in no queue's count, so their end is told by their number.
    let confirmed = ledger.values().filter(|confirmed| **confirmed).count();
    wait_until("dying twice", || client.declare("dead").unwrap() as usize >= confirmed);
    let mut before = 0;
    wait_until("dying twice", || {
        thread::sleep(Duration::from_millis(300));
        let now = client.declare("dead").unwrap();
        std::mem::replace(&mut before, now) == now
    });
    balance("dead letters", &ledger, &take_all(&mut client, "dead"));
    assert!(broker.stop().unwrap().success());
}

/// How far a transaction came, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The commit was not sent, or broke off with the connection.
    Open,
    Sent,
    Answered,
}

#[derive(Debug)]
struct Transaction {
    messages: u64,
    stage: Stage,
    /// The round with a point in which it was done.
    round: Option<u64>,
}

/// Moves messages from one queue to another by transactions until the connection breaks. What is
/// moved carries the number of its transaction behind its own.
fn move_by_transactions(
    client: &mut Amqp,
    done: &mut Vec<Transaction>,
    round: Option<u64>,
) -> Result<()> {
    client.call(&Method::new((90, 10)), (90, 11))?;
    client.consume("from", 50)?;
    // Deliveries that came before the answer to a commit.
    let mut early = VecDeque::new();
    loop {
        let number = done.len() as u64;
        done.push(Transaction { messages: 0, stage: Stage::Open, round });
        let transaction = done.last_mut().unwrap();
        let mut last = 0;
        for _ in 0..10 {
            let delivery = match early.pop_front() {
                Some(delivery) => delivery,
                None => match client.next_event()? {
                    Some(Incoming::Delivery(delivery)) => delivery,
                    Some(other) => bail!("{other:?} for a consumer"),
                    None => break,
                },
            };
            let own = number_in(&delivery.body, 0);
            let body = [own.to_be_bytes(), number.to_be_bytes()].concat();
            client.send(&amqp::publish("", "to", &body))?;
            transaction.messages += 1;
            last = delivery.tag;
        }
        if last == 0 {
            return Ok(());
        }
        client.ack(last, true)?;
        transaction.stage = Stage::Sent;
        client.send(&Method::new((90, 20)).frame(CHANNEL))?;
        loop {
            match client.next_event()? {
                Some(Incoming::Method((90, 21), _)) => break,
                Some(Incoming::Delivery(delivery)) => early.push_back(delivery),
                other => bail!("{other:?} for a commit"),
            }
        }
        transaction.stage = Stage::Answered;
    }
}

/// Each transaction has moved all of its messages or none: all once its commit was answered, and
/// none when the commit was not sent, or the process ended before it wrote it.
fn judge(done: &[Transaction], moved: &BTreeMap<u64, u64>, hits: &BTreeSet<u64>) {
    // Of those whose commit was sent and not answered, by point: not done, done.
    let mut outcomes = [[0; 2]; POINTS.len()];
    for (transaction, number) in done.iter().zip(0..) {
        let found = moved.get(&number).copied().unwrap_or(0);
        let Transaction { messages, stage, round } = *transaction;
        assert!([0, messages].contains(&found), "{found} of transaction {number}: {transaction:?}");
        match stage {
            Stage::Open => assert_eq!(found, 0, "not committed: {number}, {transaction:?}"),
            Stage::Answered => assert_eq!(found, messages, "answered: {number}, {transaction:?}"),
            Stage::Sent => {
                let hit = round.filter(|round| hits.contains(round));
                if let Some(round) = hit {
                    outcomes[point_of(round)][usize::from(found > 0)] += 1;
                }
            }
        }
    }
    let invented: Vec<_> = moved.keys().filter(|n| **n >= done.len() as u64).collect();
    assert!(invented.is_empty(), "transactions that nobody began: {invented:?}");
    let answered = done.iter().filter(|t| t.stage == Stage::Answered).count();
    let named: Vec<_> = POINTS.iter().map(|point| point.0).zip(outcomes).collect();
    say(&format!("transactions: {answered} answered; not done and done by point: {named:?}"));
    // One may be done all the same: it was written, and the write that was not done was the next
    // one, while its answer was still on the way to the client.
    assert!(outcomes[0][0] > 0, "no commit was on its way at the write");
    assert!(outcomes[1][1] > 0, "no commit was on its way at the sync");
    assert!(outcomes[2][1] > 0, "no commit was on its way at the answer");
    assert!(answered > 0, "no commit was answered");
}

#[test]
fn transactions_that_move_messages_are_atomic_over_kills() {
    if !has("strace") {
        return skip("moves: transactions", "there is no strace");
    }
    let mut home = Home::new().unwrap();
    let mut random = Random::new(setting("POLYMQ_SEED", 3));
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    for queue in ["from", "to"] {
        client.declare(queue).unwrap();
    }
    broker.kill();
    let (mut ledger, mut done) = (Ledger::new(), Vec::new());
    // Beyond what a connection needs before its first commit.
    let hits = kill_often(&mut home, &mut random, 12, |client, work| {
        let is_first = ledger.is_empty();
        let _ = match work {
            // Others fill the queue, so that there is always something to move.
            Work::Publish(seed) if is_first || seed % 2 == 0 => {
                publish_until_the_end(client, &mut ledger, |body| amqp::publish("", "from", body))
            }
            Work::Publish(_) => move_by_transactions(client, &mut done, None),
            Work::Move(round) => move_by_transactions(client, &mut done, Some(round)),
        };
    });
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    let mut found = take_all(&mut client, "from");
    let left = found.len();
    let mut other = Amqp::open(broker.ports.amqp).unwrap();
    let mut moved = BTreeMap::new();
    take_bodies(&mut other, "to", |body| {
        *found.entry(number_in(body, 0)).or_default() += 1;
        *moved.entry(number_in(body, 8)).or_default() += 1;
    });
    balance("transactions", &ledger, &found);
    judge(&done, &moved, &hits);
    say(&format!("transactions: {left} messages were not moved"));
    assert!(broker.stop().unwrap().success());
}

/// Gives everything back until nothing comes any more.
fn return_all(client: &mut Amqp, queue: &str) -> Result<()> {
    client.consume(queue, 100)?;
    while let Some(Incoming::Delivery(delivery)) = client.next_event()? {
        // basic.reject with requeue counts as failed.
        client.send(&Method::new((60, 90)).u64(delivery.tag).u8(1).frame(CHANNEL))?;
    }
    Ok(())
}

#[test]
fn retried_messages_are_kept_once_over_kills() {
    if !has("strace") {
        return skip("moves: retries", "there is no strace");
    }
    let mut home = Home::new().unwrap();
    let mut random = Random::new(setting("POLYMQ_SEED", 4));
    let retrying = || {
        [
            ("x-delayed-retry-type", Field::Text("all")),
            ("x-delayed-retry-min", Field::Number(30)),
            ("x-delivery-limit", Field::Number(2)),
            ("x-delivery-limit-counts", Field::Text("all")),
            ("x-dead-letter-exchange", Field::Text("")),
            ("x-dead-letter-routing-key", Field::Text("dead")),
        ]
    };
    let mut ledger = Ledger::new();
    kill_often(&mut home, &mut random, 1, |client, work| {
        let declared = client.declare("dead").and_then(|_| client.declare_with("q", &retrying()));
        if declared.is_err() {
            return;
        }
        // One round adds messages, the next gives them back.
        if matches!(work, Work::Move(_)) {
            let _ = return_all(client, "q");
        } else {
            let message = |body: &[u8]| amqp::publish("", "q", body);
            let _ = publish_until_the_end(client, &mut ledger, message);
        }
    });
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    let confirmed = ledger.values().filter(|confirmed| **confirmed).count();
    // What waits for its next try is in no queue's count, so the end is told by the dead.
    wait_until("dying of retries", || {
        let mut returning = Amqp::open(broker.ports.amqp).unwrap();
        returning.set_patience(Duration::from_millis(500)).unwrap();
        return_all(&mut returning, "q").unwrap();
        returning.close().unwrap();
        client.declare_with("q", &retrying()).unwrap() == 0
            && client.declare("dead").unwrap() as usize >= confirmed
    });
    balance("retries", &ledger, &take_all(&mut client, "dead"));
    assert!(broker.stop().unwrap().success());
}

#[test]
fn many_delayed_messages_take_little_memory() {
    let count = setting("POLYMQ_DELAYED", 200_000);
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    let empty = broker.resident_kib().unwrap();
    let mut random = Random::new(5);
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < count {
        let mut bytes = Vec::new();
        while sent < count && sent - confirmed < 1000 {
            let delay_ms = random.between(3_600_000, 36_000_000);
            bytes.extend(publish_delayed("q", delay_ms, &[0; 128]));
            sent += 1;
        }
        client.send(&bytes).unwrap();
        while sent - confirmed > 500 || (sent == count && confirmed < sent) {
            let Some(Incoming::Method((60, 80), arguments)) = client.next_event().unwrap() else {
                panic!("a confirm is expected")
            };
            confirmed = long_number(&arguments, 0).unwrap();
        }
    }
    assert_eq!(delayed(&broker), count as f64);
    let full = broker.resident_kib().unwrap();
    broker.kill();
    let broker = home.start().unwrap();
    assert_eq!(delayed(&broker), count as f64);
    let again = broker.resident_kib().unwrap();
    say(&format!(
        "delay: {count} messages; memory {} MiB empty, {} MiB full, {} MiB after a start of {} ms",
        empty >> 10,
        full >> 10,
        again >> 10,
        broker.ready_after.as_millis()
    ));
    // 100 bytes a message, and what the log keeps in memory however many there are; 100 MB for a
    // million.
    let most = (count * 100 / 1024 + (40 << 10)).min(100_000_000 / 1024);
    assert!(full.saturating_sub(empty) < most, "{full} KiB is too much");
    assert!(again.saturating_sub(empty) < most, "{again} KiB is too much");
    assert!(broker.stop().unwrap().success());
}

//! Bytes, events, answers and timers in the right order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use polymq_contract::Event;
use polymq_model::RequestId;

use crate::toy::{Client, CountedWrites, House, Seen, answer, peer, protocols};

const PIPE: usize = 64 * 1024;

#[tokio::test]
async fn many_lines_of_one_read_are_answered_in_order() {
    let mut house = House::new();
    let (mut client, _) = house.guest(PIPE).await;
    client.send("say one\nask four\nsay two\nask seventeen\nsay three\n").await;
    for line in ["one", "answer 4", "two", "answer 9", "three"] {
        client.expect(line).await;
    }
}

#[tokio::test]
async fn bytes_that_come_one_at_a_time_are_understood() {
    let mut house = House::new();
    let (mut client, _) = house.guest(1).await;
    for _ in 0..3 {
        client.send("ask a question of some length\n").await;
        client.expect("answer 25").await;
    }
}

#[tokio::test]
async fn a_line_longer_than_any_buffer_arrives_whole() {
    let mut house = House::new();
    let (mut client, _) = house.guest(PIPE).await;
    for length in [70_000, 1_000_000, 3_000_000, 10] {
        client.send(&format!("length {}\n", "x".repeat(length))).await;
        client.expect(&length.to_string()).await;
    }
}

#[tokio::test]
async fn input_waits_while_an_answer_is_due() {
    let mut house = House::new();
    let (mut client, outbox) = house.guest(PIPE).await;
    client.send("ask later\nsay after\nask x\nsay last\n").await;
    assert!(matches!(house.next().await, Seen::Asked(name) if name == "later"));
    outbox.push(Event::Blocked { reason: "another event".into() });
    client.expect("another event").await;
    outbox.push(answer(RequestId(1), 42));
    for line in ["answer 42", "after", "answer 1", "last"] {
        client.expect(line).await;
    }
}

#[tokio::test]
async fn bytes_sent_while_an_answer_is_due_are_read_after_it() {
    let mut house = House::new();
    let (mut client, outbox) = house.guest(PIPE).await;
    client.send("ask later\n").await;
    assert!(matches!(house.next().await, Seen::Asked(name) if name == "later"));
    client.send("say after\n").await;
    outbox.push(answer(RequestId(1), 42));
    client.expect("answer 42").await;
    client.expect("after").await;
}

#[tokio::test]
async fn events_reach_a_peer_that_says_nothing() {
    let mut house = House::new();
    let (mut client, outbox) = house.guest(PIPE).await;
    for text in ["one", "two"] {
        outbox.push(Event::Blocked { reason: text.into() });
        client.expect(text).await;
    }
    outbox.push_all(["three", "four"].map(|text| Event::Blocked { reason: text.into() }));
    client.expect("three").await;
    client.expect("four").await;
}

#[tokio::test]
async fn what_others_are_about_to_say_leaves_in_the_same_write() {
    let mut house = House::new();
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = CountedWrites { stream: theirs, writes: Arc::clone(&writes) };
    house.driver.adopt(counted, protocols(), peer());
    let mut client = Client::new(ours);
    client.log_in().await;
    let outbox = house.connected().await;
    // The connection goes to sleep.
    tokio::task::yield_now().await;
    let before = writes.load(Ordering::SeqCst);
    outbox.push(Event::Blocked { reason: "one".into() });
    tokio::spawn(async move { outbox.push(Event::Blocked { reason: "two".into() }) });
    client.expect("one").await;
    client.expect("two").await;
    assert_eq!(writes.load(Ordering::SeqCst) - before, 1);
}

#[tokio::test]
async fn reading_pauses_while_the_broker_says_so() {
    let mut house = House::new();
    let (mut client, outbox) = house.guest(PIPE).await;
    house.broker.may_read.store(false, Ordering::SeqCst);
    client.send("say held\n").await;
    outbox.push(Event::Blocked { reason: "full".into() });
    client.expect("full").await;
    house.broker.may_read.store(true, Ordering::SeqCst);
    outbox.push(Event::Unblocked);
    client.expect("unblocked").await;
    client.expect("held").await;
}

#[tokio::test]
async fn a_nudge_reaches_the_broker_side_of_the_connection() {
    let mut house = House::new();
    let (_client, outbox) = house.guest(PIPE).await;
    outbox.nudge();
    assert!(matches!(house.next().await, Seen::Room));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_called_when_its_time_has_come() {
    let mut house = House::new();
    let (mut client, _) = house.guest(PIPE).await;
    for millis in [5000, 20, 30_000] {
        let before = tokio::time::Instant::now();
        client.send(&format!("alarm {millis}\n")).await;
        client.expect("ring").await;
        let waited = before.elapsed();
        let alarm = Duration::from_millis(millis);
        assert!((alarm..alarm + Duration::from_millis(3)).contains(&waited), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_goes_on_after_its_buffers_were_freed() {
    let mut house = House::new();
    let (mut client, outbox) = house.guest(PIPE).await;
    client.send("say part").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    client.send("ial\n").await;
    client.expect("partial").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    outbox.push(Event::Unblocked);
    client.expect("unblocked").await;
}

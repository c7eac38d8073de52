//! BEGIN, COMMIT and ABORT.

use polymq_contract::{DeliveryRange, Outcome};

use super::*;

fn transaction() -> World {
    let mut world = World::connected("1.2");
    world.send("BEGIN\ntransaction:t\nreceipt:b\n\n\0");
    assert_eq!(world.receipts(), ["b"]);
    world
}

#[test]
fn sends_wait_for_the_commit() {
    let mut world = transaction();
    world.holds_commits = true;
    world.send("SEND\ndestination:/topic/a\ntransaction:t\nreceipt:1\n\nx\0");
    world.send("SEND\ndestination:/topic/b\ntransaction:t\n\ny\0");
    assert_eq!(world.receipts(), ["1"]);
    assert!(world.orders.is_empty());
    world.send("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    let commit = world.commit();
    let keys: Vec<_> = commit.publishes.iter().map(|publish| publish.message.key()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(world.said().is_empty());
    let answer = Box::new(Ok(Answer::Done));
    world.event(Event::Answered { request: commit.request, answer });
    assert_eq!(world.receipts(), ["c"]);
}

#[test]
fn aborted_sends_are_forgotten_and_settlements_undone() {
    let mut world = transaction();
    world.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client-individual\n\n\0");
    let consumer = world.consume().consumer;
    world.deliver(consumer, 1, message("", "q", "", b"x"));
    let id = world.one().get("message-id").unwrap().to_owned();
    world.orders.clear();
    let ack = format!("ACK\nid:{id}\ntransaction:t\n\n\0");
    world.send(&ack);
    world.send("SEND\ndestination:/topic/a\ntransaction:t\n\nx\0");
    world.send("ABORT\ntransaction:t\nreceipt:a\n\n\0");
    assert_eq!(world.receipts(), ["a"]);
    assert!(world.orders.is_empty());
    world.send(&format!("ACK\nid:{id}\n\n\0"));
    assert!(matches!(world.orders[..], [Command::Settle(_)]));
}

#[test]
fn settlements_of_a_transaction_do_not_span_others() {
    let mut world = transaction();
    world.send("BEGIN\ntransaction:u\n\n\0");
    world.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0");
    let consumer = world.consume().consumer;
    for number in 1..=6 {
        world.deliver(consumer, number, message("", "q", "", b"x"));
    }
    let ids: Vec<_> =
        world.said().iter().map(|said| said.get("message-id").unwrap().to_owned()).collect();
    world.send(&format!("ACK\nid:{}\ntransaction:t\n\n\0", ids[1]));
    world.send(&format!("NACK\nid:{}\ntransaction:u\nrequeue:false\n\n\0", ids[3]));
    world.send(&format!("ACK\nid:{}\ntransaction:t\n\n\0", ids[4]));
    world.send("COMMIT\ntransaction:t\n\n\0");
    let settled = |world: &mut World| -> Vec<_> {
        let settlements = world.commit().settlements;
        settlements.iter().map(|s| (s.deliveries.first, s.deliveries.last, s.outcome)).collect()
    };
    assert_eq!(settled(&mut world), [(1, 2, Outcome::Accepted), (5, 5, Outcome::Accepted)]);
    world.send("ABORT\ntransaction:u\n\n\0");
    world.send(&format!("ACK\nid:{}\n\n\0", ids[5]));
    let ranges: Vec<_> = world
        .orders
        .iter()
        .filter_map(|order| match order {
            Command::Settle(settlement) => Some(settlement.deliveries),
            _ => None,
        })
        .collect();
    assert_eq!(ranges, [DeliveryRange { first: 3, last: 4 }, DeliveryRange { first: 6, last: 6 }]);
}

#[test]
fn refused_commit_is_an_error_with_its_receipt() {
    let mut world = transaction();
    world.holds_commits = true;
    world.send("SEND\ndestination:/exchange/x/k\ntransaction:t\nreceipt:s\n\nx\0");
    world.send("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    let number = world.commit().publishes[0].number;
    let refusal = Box::new(Refusal::new(RefusalKind::NotFound, "no exchange 'x'"));
    world.event(Event::PublishRefused { publisher: PublisherId(0), number, refusal });
    let error = world.error();
    assert_eq!((error.get("receipt-id"), error.text()), (Some("c"), "no exchange 'x'"));
}

#[test]
fn unknown_and_repeated_transactions_are_refused() {
    for (frame, why) in [
        ("COMMIT\ntransaction:x\n\n\0", "no transaction 'x'"),
        ("ABORT\ntransaction:x\n\n\0", "no transaction 'x'"),
        ("SEND\ndestination:/topic/a\ntransaction:x\n\ny\0", "no transaction 'x'"),
        ("BEGIN\ntransaction:t\n\n\0", "has begun already"),
        ("BEGIN\n\n\0", "no header 'transaction'"),
    ] {
        let mut world = transaction();
        world.send(frame);
        assert!(world.error().text().contains(why));
    }
}

#[test] // A6
fn transactions_have_limits() {
    let mut world = transaction();
    for name in 0..100 {
        world.send(&format!("BEGIN\ntransaction:{name}\n\n\0"));
    }
    assert_eq!(world.error().get("message"), Some("limit reached"));
    let limits = Limits { transaction_bytes_max: 10_000, ..Limits::default() };
    let mut world = World::with(Settings::default(), limits).connect("1.2");
    world.send("BEGIN\ntransaction:a\n\n\0BEGIN\ntransaction:b\n\n\0");
    for name in ["a", "b", "a", "b"] {
        let body = "x".repeat(3000);
        world.send(&format!("SEND\ndestination:/topic/t\ntransaction:{name}\n\n{body}\0"));
    }
    assert_eq!(world.error().get("message"), Some("message too large"));
}

#[test] // A6
fn settlements_of_a_transaction_have_the_limit_of_its_sends() {
    for ack in ["client", "client-individual"] {
        let limits = Limits { transaction_bytes_max: 1000, ..Limits::default() };
        let mut world = World::with(Settings::default(), limits).connect("1.2");
        world.send(&format!("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:{ack}\n\n\0"));
        let consumer = world.consume().consumer;
        for number in 1..=200 {
            world.deliver(consumer, number, message("", "q", "", b"x"));
        }
        let said = world.said();
        let ids: Vec<_> = said.iter().map(|said| said.get("message-id").unwrap()).collect();
        world.send("BEGIN\ntransaction:t\n\n\0");
        // One that stands for all before it, or each for itself.
        let named = if ack == "client" { &ids[199..] } else { &ids[..] };
        for id in named {
            world.send(&format!("ACK\nid:{id}\ntransaction:t\n\n\0"));
        }
        assert!(world.error().text().contains("at most 1000 bytes"), "{ack}");
    }
}

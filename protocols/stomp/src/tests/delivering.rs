//! MESSAGE, ACK and NACK.

use polymq_contract::{DeliveryRange, Note, Outcome, Settlement};

use super::*;

struct Reader {
    world: World,
    consumer: ConsumerId,
}

fn reading(version: &str, ack: &str) -> Reader {
    let mut world = World::connected(version);
    world.send(&format!("SUBSCRIBE\nid:s 1\ndestination:/queue/q\nack:{ack}\n\n\0"));
    let consumer = world.consume().consumer;
    world.orders.clear();
    Reader { world, consumer }
}

impl Reader {
    /// Delivers messages and returns what ACK calls them.
    fn deliver(&mut self, count: u64) -> Vec<String> {
        for number in 1..=count {
            self.world.deliver(self.consumer, number, message("", "q", "", b"x"));
        }
        let id = |said: Said| said.get("message-id").unwrap().to_owned();
        self.world.said().into_iter().map(id).collect()
    }

    fn settled(&mut self) -> Vec<(u64, u64, Outcome)> {
        let orders = std::mem::take(&mut self.world.orders);
        orders
            .into_iter()
            .filter_map(|order| match order {
                Command::Settle(Settlement {
                    deliveries: DeliveryRange { first, last },
                    outcome,
                    ..
                }) => Some((first, last, outcome)),
                _ => None,
            })
            .collect()
    }
}

#[test] // 1.2, MESSAGE.
fn message_says_where_it_comes_from_and_how_long_it_is() {
    let Reader { mut world, consumer } = reading("1.2", "client");
    world.deliver(consumer, 1, message("amq.topic", "é.x", "mine:a\\nb\nk\\c:v\n", b"a\0b"));
    let said = world.one();
    let id = said.get("message-id").unwrap().to_owned();
    let expected = [
        ("subscription", "s 1"),
        ("destination", "/topic/%C3%A9.x"),
        ("message-id", &id),
        ("ack", &id),
        ("mine", "a\\nb"),
        ("k\\c", "v"),
        ("content-length", "3"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        said,
        Said { command: "MESSAGE".to_owned(), headers: expected.into(), body: b"a\0b".into() }
    );
}

#[test]
fn destination_of_a_message_is_one_that_can_be_sent_to() {
    let Reader { mut world, consumer } = reading("1.2", "auto");
    for (exchange, key, destination) in [
        ("", "a/b", "/queue/a%2Fb"),
        ("amq.topic", "", "/topic/"),
        ("x", "k", "/exchange/x/k"),
        ("x", "k", "/exchange/x/k"),
        ("amq.topic", "k", "/topic/k"),
        ("amq.topic", ".a..b.", "/topic/.a..b."),
    ] {
        world.deliver(consumer, 0, message(exchange, key, "", b""));
        assert_eq!(world.one().get("destination"), Some(destination));
    }
}

#[test]
fn ack_header_is_for_1_2_and_clients_that_acknowledge() {
    for (version, ack, has_ack) in
        [("1.2", "client", true), ("1.2", "auto", false), ("1.1", "client", false)]
    {
        let Reader { mut world, consumer } = reading(version, ack);
        world.deliver(consumer, u64::from(ack != "auto"), message("", "q", "", b""));
        assert_eq!(world.one().get("ack").is_some(), has_ack);
    }
}

#[test]
fn earlier_deliveries_are_told() {
    let Reader { mut world, consumer } = reading("1.2", "client");
    let first = delivery(consumer, 1, message("", "q", "", b""));
    let again = Delivery { redelivered: true, acquired: 2, failed: 1, ..first };
    world.event(Event::Delivered(again));
    let said = world.one();
    assert_eq!(said.get("redelivered"), Some("true"));
    assert_eq!(said.get("x-acquired-count"), Some("2"));
    assert_eq!(said.get("x-delivery-count"), Some("1"));
}

#[test]
fn origin_is_told_to_who_asks() {
    let mut world = World::connected("1.2");
    world.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nx-origin:true\n\n\0");
    let consumer = world.consume().consumer;
    world.deliver(consumer, 0, message("", "q", "", b""));
    let said = world.one();
    assert_eq!(said.get("x-origin-protocol"), Some("stomp"));
    assert_eq!(said.get("x-enqueued-at"), Some("1700000000000"));
}

#[test] // 1.1 and 1.0 lack escapes: what they cannot say is base64, and its type says so.
fn older_versions_are_sent_what_they_can_read() {
    let lines = "a:x\\ny\nb:1\\c2\nc:p\\rq\nd\\ce:z\n";
    let Reader { mut world, consumer } = reading("1.1", "auto");
    world.deliver(consumer, 0, message("", "q", lines, b""));
    let said = world.one();
    assert_eq!(said.get("a"), Some("x\\ny"));
    assert_eq!(said.get("b"), Some("1\\c2"));
    assert_eq!(said.get("c"), Some("cA1x"));
    assert_eq!(said.get("x-mq-types"), Some("c=str64"));
    let Reader { mut world, consumer } = reading("1.0", "auto");
    world.deliver(consumer, 0, message("", "q", lines, b""));
    let said = world.one();
    assert_eq!(said.get("a"), Some("eAp5"));
    assert_eq!(said.get("b"), Some("1:2"));
    assert_eq!(said.get("x-mq-types"), Some("a=str64;c=str64"));
    assert_eq!(said.get("x-mq-extra"), Some("[[\"d:e\",\"str\",\"z\"]]"));
    let Reader { mut world, consumer } = reading("1.1", "auto");
    world.deliver(consumer, 0, message("", "q", "a:x\\ny\n", b""));
    assert_eq!(world.one().get("a"), Some("x\\ny"));
}

#[test] // ack mode client is cumulative.
fn ack_of_a_client_takes_those_before_it() {
    let mut reader = reading("1.2", "client");
    let ids = reader.deliver(5);
    reader.world.send(&format!("ACK\nid:{}\n\n\0", ids[2]));
    assert_eq!(reader.settled(), [(1, 3, Outcome::Accepted)]);
    reader.world.send(&format!("NACK\nid:{}\n\n\0", ids[4]));
    assert_eq!(reader.settled(), [(4, 5, Outcome::Returned)]);
    reader.world.send(&format!("ACK\nid:{}\nreceipt:r\n\n\0", ids[0]));
    let error = reader.world.error();
    assert_eq!(
        (error.get("message"), error.get("receipt-id")),
        (Some("invalid argument"), Some("r"))
    );
}

#[test]
fn individual_acks_take_one_and_run_together() {
    let mut reader = reading("1.2", "client-individual");
    let ids = reader.deliver(4);
    let acks = [1, 2, 0].map(|at| format!("ACK\nid:{}\n\n\0", ids[at]));
    reader.world.send(&acks.concat());
    assert_eq!(reader.settled(), [(2, 3, Outcome::Accepted), (1, 1, Outcome::Accepted)]);
    reader.world.send(&acks[0]);
    assert!(reader.world.error().text().contains("waits for none"));
}

#[test]
fn nack_says_what_is_to_happen() {
    let mut reader = reading("1.2", "client-individual");
    let ids = reader.deliver(3);
    reader.world.send(&format!("NACK\nid:{}\nrequeue:false\nx-reason:bad\\cdata\n\n\0", ids[0]));
    reader.world.send(&format!("NACK\nid:{}\nx-retry-after:1500\n\n\0", ids[1]));
    reader.world.send(&format!("NACK\nid:{}\nrequeue:true\n\n\0", ids[2]));
    let orders = std::mem::take(&mut reader.world.orders);
    let notes: Vec<_> = orders
        .iter()
        .map(|order| match order {
            Command::Settle(settlement) => {
                (settlement.outcome, settlement.note.as_deref().cloned())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let rejected = Note { retry_after_ms: None, reason: Some("bad:data".to_owned()) };
    let later = Note { retry_after_ms: Some(1500), reason: None };
    assert_eq!(
        notes,
        [
            (Outcome::Rejected, Some(rejected)),
            (Outcome::Returned, Some(later)),
            (Outcome::Returned, None),
        ]
    );
    let settings = Settings { nack_requeues: false, ..Settings::default() };
    let mut world = World::with(settings, Limits::default()).connect("1.2");
    world.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0");
    let consumer = world.consume().consumer;
    let mut reader = Reader { world, consumer };
    let ids = reader.deliver(1);
    reader.world.send(&format!("NACK\nid:{}\n\n\0", ids[0]));
    assert_eq!(reader.settled(), [(1, 1, Outcome::Rejected)]);
}

#[test] // 1.1: ACK names message and subscription. 1.0 has no NACK.
fn older_versions_name_the_message() {
    let mut reader = reading("1.1", "client");
    let ids = reader.deliver(2);
    reader.world.send(&format!("ACK\nmessage-id:{}\nsubscription:s 1\n\n\0", ids[0]));
    assert_eq!(reader.settled(), [(1, 1, Outcome::Accepted)]);
    reader.world.send(&format!("ACK\nmessage-id:{}\nsubscription:other\n\n\0", ids[1]));
    assert!(reader.world.error().text().contains("was not sent to subscription 'other'"));
    let mut reader = reading("1.0", "client");
    let ids = reader.deliver(1);
    reader.world.send(&format!("ACK\nmessage-id: {}\n\n\0", ids[0]));
    assert_eq!(reader.settled(), [(1, 1, Outcome::Accepted)]);
    reader.world.send(&format!("NACK\nmessage-id:{}\n\n\0", ids[0]));
    assert!(reader.world.error().text().contains("no NACK"));
}

#[test] // Net::Stomp of Debian does so.
fn acks_may_leave_out_what_newer_versions_added() {
    for version in ["1.1", "1.2"] {
        let mut reader = reading(version, "client");
        let ids = reader.deliver(1);
        reader.world.send(&format!("ACK\nmessage-id:{}\n\n\0", ids[0]));
        assert_eq!(reader.settled(), [(1, 1, Outcome::Accepted)]);
    }
    let mut reader = reading("1.2", "client");
    reader.world.send("ACK\n\n\0");
    assert!(reader.world.error().text().contains("no header 'message-id'"));
}

#[test]
fn acks_of_strangers_are_refused() {
    for id in ["", "1", "x-1-1", "-1-1", "1-1-1-1"] {
        let mut reader = reading("1.2", "client");
        reader.deliver(1);
        reader.world.send(&format!("ACK\nid:{id}\n\n\0"));
        assert!(reader.world.error().text().contains("waits for none"), "{id}");
    }
    let mut reader = reading("1.2", "auto");
    reader.world.deliver(reader.consumer, 0, message("", "q", "", b""));
    let id = reader.world.one().get("message-id").unwrap().to_owned();
    reader.world.send(&format!("ACK\nid:{id}\n\n\0"));
    assert!(reader.world.error().text().contains("waits for none"));
}

#[test]
fn receipt_of_an_ack_says_that_it_lasts() {
    let mut reader = reading("1.2", "client");
    reader.world.holds_commits = true;
    let ids = reader.deliver(2);
    reader.world.send(&format!("ACK\nid:{}\nreceipt:a\n\n\0", ids[1]));
    assert!(reader.world.said().is_empty());
    let commit = reader.world.commit();
    assert_eq!(commit.settlements[0].deliveries, DeliveryRange { first: 1, last: 2 });
    let request = commit.request;
    reader.world.event(Event::Answered { request, answer: Box::new(Ok(Answer::Done)) });
    assert_eq!(reader.world.receipts(), ["a"]);
}

#[test]
fn deliveries_may_be_settled_after_unsubscribe() {
    let mut reader = reading("1.2", "client-individual");
    let ids = reader.deliver(2);
    reader.world.send("UNSUBSCRIBE\nid:s 1\n\n\0");
    reader.world.send(&format!("ACK\nid:{}\n\n\0ACK\nid:{}\n\n\0", ids[0], ids[1]));
    assert_eq!(reader.settled(), [(1, 2, Outcome::Accepted)]);
    reader.world.send(&format!("ACK\nid:{}\n\n\0", ids[1]));
    assert!(reader.world.is_closed());
}

#[test]
fn a_large_body_leaves_by_reference() {
    let Reader { mut world, consumer } = reading("1.2", "auto");
    world.deliver(consumer, 0, message("", "q", "", &vec![0; 100_000]));
    assert_eq!(world.one().body.len(), 100_000);
}

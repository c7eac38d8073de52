//! What a client session remembers of deliveries on their way to its client.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use polymq_contract::{Command, InFlight, Outcome, Subscription, SubscriptionTarget};
use polymq_model::{ConsumerId, Seq};
use world::{World, session, topic_subscription};

fn in_flight(packet_id: u16, consumer: u32, seq: Seq) -> InFlight {
    InFlight { packet_id, consumer: ConsumerId(consumer), seq, qos: 2, released: false }
}

fn leave(client: &mut world::Client, in_flight: Vec<InFlight>) {
    client.send(Command::CloseClientSession { in_flight, will: false, expiry_secs: None });
}

fn keep(client: &mut world::Client, in_flight: InFlight) {
    let in_flight = vec![in_flight];
    client.ask(|request| Command::KeepInFlight { request, in_flight });
}

/// A client that has joined a share under consumer 2.
fn member(world: &World, client_id: &str, clean_start: bool) -> world::Client {
    let mut client = world.connect();
    client.open(session(client_id, clean_start, 3600));
    client.subscribe_with(share_subscription());
    client
}

fn share_subscription() -> Subscription {
    let target = SubscriptionTarget::Share {
        queue: "$share/g/a".to_owned(),
        exchange: "amq.topic".to_owned(),
        pattern: "a".to_owned(),
    };
    let filter = "$share/g/a".to_owned();
    Subscription { filter, target, consumer: ConsumerId(2), ..topic_subscription("a", 2) }
}

#[test]
fn deliveries_in_flight_survive_a_crash_of_the_broker() {
    let world = World::new();
    let mut client = world.connect();
    client.open(session("s", true, 3600));
    client.subscribe("a", 2);
    let mut publisher = world.connect();
    for body in ["received", "begun", "done", "unknown"] {
        publisher.publish("amq.topic", "a", body);
    }
    let seqs: Vec<_> = client.deliveries().iter().map(|delivery| delivery.seq).collect();
    for (packet_id, seq) in [(7, seqs[0]), (8, seqs[1]), (9, seqs[2])] {
        keep(&mut client, in_flight(packet_id, 0, seq));
    }
    let received = InFlight { released: true, ..in_flight(7, 0, seqs[0]) };
    // The broker ends before the acknowledgement of the received one is stored.
    keep(&mut client, received);
    client.settle(0, 3, 3, Outcome::Accepted);
    client.send(Command::ForgetInFlight { packet_id: 9 });
    let world = world.restart();
    let mut client = world.connect();
    let opened = client.open(session("s", false, 3600));
    assert_eq!(opened.in_flight, [in_flight(8, 0, seqs[1]), received]);
    assert_eq!(client.bodies(), ["begun", "unknown"]);
    assert!(opened.unsure_before > seqs[3]);
}

#[test] // [MQTT-4.8.2-4]
fn a_share_keeps_what_its_member_has_begun_and_gives_the_rest_to_others() {
    let world = World::new();
    let mut first = member(&world, "one", true);
    let mut publisher = world.connect();
    publisher.publish("amq.topic", "a", "begun");
    publisher.publish("amq.topic", "a", "not sent");
    let seqs: Vec<_> = first.deliveries().iter().map(|delivery| delivery.seq).collect();
    let mut second = member(&world, "two", true);
    leave(&mut first, vec![in_flight(1, 2, seqs[0])]);
    assert_eq!(second.bodies(), ["not sent"]);
    let mut first = world.connect();
    let opened = first.open(session("one", false, 3600));
    assert_eq!(opened.in_flight, [in_flight(1, 2, seqs[0])]);
    let again = first.deliveries();
    assert_eq!((again[0].seq, again[0].redelivered, again[0].number), (seqs[0], true, 1));
    // Nothing new comes before the subscription goes on.
    first.settle(2, 1, 1, Outcome::Accepted);
    publisher.publish("amq.topic", "a", "for two");
    assert!(first.bodies().is_empty());
    assert_eq!(second.bodies(), ["for two"]);
    first.subscribe_with(share_subscription());
    second.disconnect();
    publisher.publish("amq.topic", "a", "for one");
    assert_eq!(first.bodies().last().map(String::as_str), Some("for one"));
}

#[test] // [MQTT-4.8.2-4]
fn a_share_keeps_what_its_member_has_begun_over_a_crash() {
    let world = World::new();
    let mut first = member(&world, "one", true);
    let mut second = member(&world, "two", true);
    let mut publisher = world.connect();
    publisher.publish("amq.topic", "a", "for one");
    publisher.publish("amq.topic", "a", "for two");
    let one = in_flight(1, 2, first.deliveries()[0].seq);
    let two = in_flight(1, 2, second.deliveries()[0].seq);
    keep(&mut first, one);
    keep(&mut second, two);
    let world = world.restart();
    let mut second = member(&world, "two", false);
    assert_eq!(second.bodies(), ["for two"]);
    let mut first = member(&world, "one", false);
    assert_eq!(first.bodies(), ["for one"]);
}

#[test] // [MQTT-4.8.2-5]
fn what_a_member_had_begun_goes_with_its_session() {
    let mut world = World::new();
    let mut first = member(&world, "one", true);
    world.connect().publish("amq.topic", "a", "begun");
    let seq = first.deliveries()[0].seq;
    let mut second = member(&world, "two", true);
    leave(&mut first, vec![in_flight(1, 2, seq)]);
    world.pass(3_600_000);
    assert!(second.bodies().is_empty());
    let queue = &world.broker.queues()[0];
    assert_eq!(queue.counts.unsettled, 0, "{queue:?}");
}

#[test]
fn a_share_without_members_stays_while_it_keeps_something_for_one() {
    let mut world = World::new();
    let mut only = member(&world, "one", true);
    world.connect().publish("amq.topic", "a", "begun");
    let seq = only.deliveries()[0].seq;
    let expiry_secs = Some(10 * 86_400);
    let in_flight = vec![in_flight(1, 2, seq)];
    only.send(Command::CloseClientSession { in_flight, will: false, expiry_secs });
    world.pass(5 * 86_400_000);
    let mut only = world.connect();
    assert!(only.open(session("one", false, 3600)).present);
    assert_eq!(only.bodies(), ["begun"]);
}

//! Bad input, and how each protocol says no to it: one test for each row of the table that lists
//! it, and each protocol.

mod amqp;
mod http;
mod mqtt;
mod stomp;
mod xmpp;

use crate::{
    amqp::{Amqp, Field, Props},
    wire::{put_long, put_short},
};

/// What is there before somebody asks for what is refused.
type There = fn(&mut Amqp);

fn nothing(_: &mut Amqp) {}

fn a_queue(client: &mut Amqp) {
    client.declare("q");
}

fn a_queue_with_a_message(client: &mut Amqp) {
    client.declare("q");
    client.publish("", "q", &Props::default(), b"m");
}

/// Its owner stays connected.
fn exclusive_queue(client: &mut Amqp) {
    let mut declare = vec![0, 0];
    put_short(&mut declare, b"q");
    declare.push(0b0_0100);
    put_long(&mut declare, &[]);
    client.method(1, 50, 10, &declare);
    client.expect(50, 11);
}

fn exclusive_consumer(client: &mut Amqp) {
    client.declare("q");
    let mut consume = vec![0, 0];
    put_short(&mut consume, b"q");
    put_short(&mut consume, b"first");
    consume.push(0b0100);
    put_long(&mut consume, &[]);
    client.method(1, 60, 20, &consume);
    client.expect(60, 21);
}

fn a_consumer(client: &mut Amqp) {
    client.declare("q");
    client.consume("q");
}

/// The queue `q` takes bodies of at most 3 bytes.
fn queue_of_small_messages(client: &mut Amqp) {
    client.declare_with("q", &[("x-max-message-size", Field::I32(3))]);
}

/// The queue `q` has room for nothing.
fn full_queue(client: &mut Amqp) {
    let full = [("x-max-length", Field::I32(0)), ("x-overflow", Field::text("reject-publish"))];
    client.declare_with("q", &full);
}

fn internal_exchange(client: &mut Amqp) {
    let mut declare = vec![0, 0];
    put_short(&mut declare, b"inside");
    put_short(&mut declare, b"fanout");
    declare.push(0b0_1000);
    put_long(&mut declare, &[]);
    client.method(1, 40, 10, &declare);
    client.expect(40, 11);
}

/// The key of a binding to the exchange `hash` is a weight.
fn hash_exchange(client: &mut Amqp) {
    client.declare("q");
    client.declare_exchange("hash", "x-consistent-hash");
}

/// That all of these stand in what a client is told.
fn names(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part} in {told}");
    }
}

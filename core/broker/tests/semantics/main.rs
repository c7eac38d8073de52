//! What queues, exchanges and deliveries do: one test for each rule, named as the rule is said.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arguments;
mod dead_letters;
mod delivery;
mod endings;
mod limits;
mod order;
mod pause;
mod permissions;
mod policies;
mod priorities;
mod publishing;
mod redeclare;
mod replies;
mod retry;
mod rights;
mod settling;
mod timeouts;
mod topic_permissions;
mod transactions;
#[path = "../world/mod.rs"]
mod world;

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use polymq_broker::{ApplyTo, PolicyKind, PolicyRecord, QueueView};
use polymq_contract::{Answer, Command, DeclareQueue, Delivery, Publish, Refusal};
use polymq_model::{ConsumerId, Death, PublisherId, RequestId, Table, Value, VhostName};
use world::{Client, World, declare_queue, message};

type Arguments<'a> = [(&'a str, Value)];

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn table(pairs: &Arguments<'_>) -> Table {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn root() -> VhostName {
    VhostName::new("/").unwrap()
}

/// Arguments that send dead letters to a queue.
fn dead_letters_to(queue: &str) -> [(&'static str, Value); 2] {
    [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(queue))]
}

fn with<'a>(some: &Arguments<'a>, more: &Arguments<'a>) -> Vec<(&'a str, Value)> {
    some.iter().chain(more).cloned().collect()
}

/// Declares a queue after a change to the declaration.
fn try_declare(
    client: &mut Client,
    name: &str,
    arguments: &Arguments<'_>,
    change: impl FnOnce(&mut DeclareQueue),
) -> Result<Answer, Refusal> {
    let Command::DeclareQueue(mut declare) = declare_queue(RequestId(0), name, arguments) else {
        panic!("not a declaration")
    };
    change(&mut declare);
    client.try_ask(|request| Command::DeclareQueue(Box::new(DeclareQueue { request, ..*declare })))
}

fn put_policy(
    world: &World,
    kind: PolicyKind,
    name: &str,
    record: PolicyRecord,
) -> Result<(), Refusal> {
    world.broker.put_policy(&root(), kind, name, record, world.now())
}

fn policy_on(pattern: &str, definition: &Arguments<'_>) -> PolicyRecord {
    PolicyRecord {
        pattern: pattern.to_owned(),
        apply_to: ApplyTo::All,
        priority: 0,
        definition: table(definition),
    }
}

/// A policy of a user for everything.
fn set_policy(world: &World, definition: &Arguments<'_>) {
    put_policy(world, PolicyKind::User, "p", policy_on(".*", definition)).unwrap();
}

fn view(world: &World, queue: &str) -> QueueView {
    let views = world.broker.queues();
    views.into_iter().find(|view| view.name.as_str() == queue).expect("the queue is there")
}

fn ready(world: &World, queue: &str) -> u64 {
    view(world, queue).counts.ready
}

fn exists(world: &World, queue: &str) -> bool {
    world.broker.queues().iter().any(|view| view.name.as_str() == queue)
}

fn deaths(delivery: &Delivery) -> Vec<Death> {
    delivery.message.annotations().map(|known| known.deaths.clone()).unwrap_or_default()
}

/// Everything in a queue, taken out.
fn drain(client: &mut Client, queue: &str) -> Vec<String> {
    std::iter::from_fn(|| client.get(queue)).collect()
}

fn counter(world: &World, name: &str) -> u64 {
    let counters = world.broker.counters().total.read();
    counters.into_iter().find(|(known, _)| *known == name).expect("a known counter").1
}

fn delete(client: &mut Client, queue: &str) {
    let queue = queue.to_owned();
    client.ask(|request| Command::DeleteQueue {
        request,
        queue,
        if_unused: false,
        if_empty: false,
    });
}

fn cancel(client: &mut Client, consumer: u32) {
    client.ask(|request| Command::Cancel { request, consumer: ConsumerId(consumer) });
}

/// A publish of a priority.
fn publish_at(client: &mut Client, queue: &str, body: &str, priority: Option<u8>) {
    let mut new = message("", queue, body);
    new.priority = priority;
    client.send(world::publish_of(new.build(&mut Vec::new()), 0));
}

/// A publish that lives so many ms.
fn publish_for(world: &World, client: &mut Client, queue: &str, body: &str, ms: u64) {
    let mut new = message("", queue, body);
    new.deadline_ms = world.now().unix_ms + ms;
    client.at(world).send(world::publish_of(new.build(&mut Vec::new()), 0));
}

fn publish_of_bytes(client: &mut Client, queue: &str, bytes: usize, number: u64) {
    client.send(world::publish("", queue, &"x".repeat(bytes), number));
}

fn in_transaction(exchange: &str, key: &str, body: &str) -> Publish {
    Publish {
        publisher: PublisherId(1),
        number: 0,
        mandatory: false,
        received: None,
        delay: None,
        message: message(exchange, key, body).build(&mut Vec::new()),
    }
}

/// What is logged while `work` runs.
fn logged(work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

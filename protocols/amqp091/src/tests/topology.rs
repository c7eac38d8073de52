//! Exchanges, queues and bindings as commands and answers.

use amq_protocol::protocol::{exchange, queue};
use polymq_model::QueueName;

use super::*;

fn queue_method(world: &mut World, method: queue::AMQPMethod) {
    world.send(1, AMQPClass::Queue(method));
}

fn exchange_method(world: &mut World, method: exchange::AMQPMethod) {
    world.send(1, AMQPClass::Exchange(method));
}

fn queue_declared(name: &str) -> Result<Answer, Refusal> {
    let queue = QueueName::new(name).unwrap();
    Ok(Answer::QueueDeclared { queue, messages: u64::MAX, consumers: 2 })
}

fn declare(name: &str, passive: bool) -> queue::AMQPMethod {
    queue::AMQPMethod::Declare(queue::Declare {
        queue: name.into(),
        passive,
        durable: true,
        exclusive: true,
        auto_delete: false,
        nowait: false,
        arguments: Default::default(),
    })
}

#[test]
fn declared_queue_is_answered_with_its_name_and_counts() {
    let mut world = World::open();
    queue_method(&mut world, declare("", false));
    let Command::DeclareQueue(command) = world.command() else { panic!("declare expected") };
    assert!(command.durable && command.exclusive && !command.auto_delete && !command.passive);
    world.answer(command.request, queue_declared("amq.gen-1"));
    let ok =
        queue::DeclareOk { queue: "amq.gen-1".into(), message_count: u32::MAX, consumer_count: 2 };
    assert_eq!(world.method(), (1, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok))));
}

#[test]
fn arguments_keep_order_repeats_and_types() {
    let mut world = World::open();
    let table: Table = vec![
        ("z".to_owned(), Value::U8(200)),
        ("a".to_owned(), Value::I8(-1)),
        ("z".to_owned(), Value::Map(vec![("x-max-length".to_owned(), Value::I64(5))])),
        ("list".to_owned(), Value::List(vec![Value::Null, Value::F64(1.5)])),
    ];
    let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0b10000];
    put_table(&mut payload, &table);
    world.raw_method(1, &payload);
    let Command::DeclareQueue(command) = world.command() else { panic!("declare expected") };
    assert_eq!(command.arguments, table);
    world.answer(command.request, queue_declared("q"));
    // The client asked for no answer.
    world.expect_nothing();
}

#[test]
fn empty_name_stands_for_the_queue_declared_last_but_not_when_declaring() {
    let mut world = World::open();
    let purge = || queue::AMQPMethod::Purge(queue::Purge { queue: "".into(), nowait: false });
    queue_method(&mut world, purge());
    let text = world.expect_channel_close(404, (50, 30));
    assert_eq!(text, "NOT_FOUND - no previously declared queue");

    let mut world = World::open();
    queue_method(&mut world, declare("work", false));
    let request = world.request();
    world.answer(request, queue_declared("work"));
    world.all();
    queue_method(&mut world, purge());
    let Command::PurgeQueue { request, queue } = world.command() else { panic!("purge expected") };
    assert_eq!(queue, "work");
    world.answer(request, Ok(Answer::QueuePurged { messages: 3 }));
    let ok = queue::AMQPMethod::PurgeOk(queue::PurgeOk { message_count: 3 });
    assert_eq!(world.method(), (1, AMQPClass::Queue(ok)));

    queue_method(
        &mut world,
        queue::AMQPMethod::Bind(queue::Bind {
            queue: "".into(),
            exchange: "x".into(),
            routing_key: "".into(),
            nowait: false,
            arguments: Default::default(),
        }),
    );
    let Command::BindQueue(bind) = world.command() else { panic!("bind expected") };
    assert_eq!((&*bind.queue, &*bind.exchange, &*bind.key), ("work", "x", "work"));
    world.answer(bind.request, Ok(Answer::Done));
    let ok = queue::AMQPMethod::BindOk(queue::BindOk {});
    assert_eq!(world.method(), (1, AMQPClass::Queue(ok)));

    queue_method(&mut world, declare("", true));
    let Command::DeclareQueue(command) = world.command() else { panic!("declare expected") };
    assert_eq!((&*command.queue, command.passive), ("", true));
}

#[test]
fn each_method_has_its_own_answer() {
    let mut world = World::open();
    let bind = |key: &str| exchange::Bind {
        destination: "d".into(),
        source: "s".into(),
        routing_key: key.into(),
        nowait: false,
        arguments: Default::default(),
    };
    let cases = [
        (
            exchange::AMQPMethod::Declare(exchange::Declare {
                exchange: "x".into(),
                kind: "topic".into(),
                passive: false,
                durable: true,
                auto_delete: true,
                internal: true,
                nowait: false,
                arguments: Default::default(),
            }),
            exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {}),
        ),
        (exchange::AMQPMethod::Bind(bind("k")), exchange::AMQPMethod::BindOk(exchange::BindOk {})),
        (
            exchange::AMQPMethod::Unbind(exchange::Unbind {
                destination: "d".into(),
                source: "s".into(),
                routing_key: "k".into(),
                nowait: false,
                arguments: Default::default(),
            }),
            exchange::AMQPMethod::UnbindOk(exchange::UnbindOk {}),
        ),
        (
            exchange::AMQPMethod::Delete(exchange::Delete {
                exchange: "x".into(),
                if_unused: true,
                nowait: false,
            }),
            exchange::AMQPMethod::DeleteOk(exchange::DeleteOk {}),
        ),
    ];
    for (method, ok) in cases {
        exchange_method(&mut world, method);
        world.done();
        assert_eq!(world.method(), (1, AMQPClass::Exchange(ok)));
    }
    queue_method(
        &mut world,
        queue::AMQPMethod::Unbind(queue::Unbind {
            queue: "q".into(),
            exchange: "x".into(),
            routing_key: "k".into(),
            arguments: Default::default(),
        }),
    );
    world.done();
    let ok = queue::AMQPMethod::UnbindOk(queue::UnbindOk {});
    assert_eq!(world.method(), (1, AMQPClass::Queue(ok)));
    queue_method(
        &mut world,
        queue::AMQPMethod::Delete(queue::Delete {
            queue: "q".into(),
            if_unused: true,
            if_empty: false,
            nowait: false,
        }),
    );
    let Command::DeleteQueue { request, if_unused: true, if_empty: false, .. } = world.command()
    else {
        panic!("delete expected")
    };
    world.answer(request, Ok(Answer::QueueDeleted { messages: 7 }));
    let ok = queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count: 7 });
    assert_eq!(world.method(), (1, AMQPClass::Queue(ok)));
}

#[test]
fn ticket_is_given_to_those_who_ask() {
    let mut world = World::open();
    world.raw_method(1, &[0, 30, 0, 10, 1, b'/', 0b11111]);
    assert!(matches!(world.method(), (1, AMQPClass::Access(_))));
}

//! Publisher confirms and transactions.

use amq_protocol::protocol::{confirm, tx};
use polymq_contract::{ChannelMode, Outcome, PublishOutcome};
use polymq_model::{Durability, PublisherId};

use super::*;

fn select_confirms(world: &mut World, nowait: bool) {
    let select = confirm::Select { nowait };
    world.send(1, AMQPClass::Confirm(confirm::AMQPMethod::Select(select)));
}

/// A channel with confirms that has published `count` messages.
fn confirming(count: u64) -> (World, PublisherId) {
    let mut world = World::open();
    select_confirms(&mut world, false);
    let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
    assert_eq!(world.method(), (1, AMQPClass::Confirm(ok)));
    for _ in 0..count {
        world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"x"]));
    }
    let commands = world.commands();
    let numbers: Vec<u64> = commands
        .iter()
        .map(|command| match command {
            Command::Publish(publish) => publish.number,
            other => panic!("publish expected, not {other:?}"),
        })
        .collect();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    let Some(Command::Publish(publish)) = commands.first() else { panic!("no publish") };
    (world, publish.publisher)
}

fn confirmed(publisher: PublisherId, first: u64, last: u64) -> Event {
    Event::Confirmed { publisher, first, last, outcome: PublishOutcome::Routed(Durability::Sync) }
}

fn refused(publisher: PublisherId, first: u64, last: u64) -> Event {
    let outcome = PublishOutcome::Refused(RefusalKind::Full);
    Event::Confirmed { publisher, first, last, outcome }
}

/// Confirms as (acknowledged, number, multiple).
fn told(world: &mut World) -> Vec<(bool, u64, bool)> {
    let all = world.all().into_iter();
    all.map(|sent| match sent {
        Sent::Method(1, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
            (true, ack.delivery_tag, ack.multiple)
        }
        Sent::Method(1, AMQPClass::Basic(basic::AMQPMethod::Nack(nack))) => {
            (false, nack.delivery_tag, nack.multiple)
        }
        other => panic!("confirm expected, not {other:?}"),
    })
    .collect()
}

#[test]
fn confirms_of_one_turn_become_one_frame() {
    let (mut world, p) = confirming(10);
    world.events(vec![confirmed(p, 1, 1), confirmed(p, 2, 4), confirmed(p, 5, 5)]);
    assert_eq!(told(&mut world), [(true, 5, true)]);
    world.event(confirmed(p, 6, 6));
    assert_eq!(told(&mut world), [(true, 6, false)]);
}

#[test]
fn multiple_never_covers_a_number_that_is_not_resolved() {
    let (mut world, p) = confirming(10);
    world.event(confirmed(p, 3, 4));
    assert_eq!(told(&mut world), [(true, 3, false), (true, 4, false)]);
    world.event(confirmed(p, 2, 2));
    assert_eq!(told(&mut world), [(true, 2, false)]);
    world.events(vec![confirmed(p, 1, 1), confirmed(p, 5, 6)]);
    assert_eq!(told(&mut world), [(true, 1, false), (true, 6, true)]);
}

#[test]
fn confirms_in_any_order_are_sorted_within_a_turn() {
    let (mut world, p) = confirming(10);
    world.events(vec![confirmed(p, 4, 6), confirmed(p, 1, 3), confirmed(p, 8, 8)]);
    assert_eq!(told(&mut world), [(true, 6, true), (true, 8, false)]);
    world.event(confirmed(p, 7, 7));
    assert_eq!(told(&mut world), [(true, 7, false)]);
    world.event(confirmed(p, 9, 10));
    assert_eq!(told(&mut world), [(true, 10, true)]);
}

#[test]
fn refused_publishes_are_nacked_without_covering_acknowledged_ones() {
    let (mut world, p) = confirming(10);
    world.events(vec![confirmed(p, 1, 2), refused(p, 3, 4), confirmed(p, 5, 6)]);
    assert_eq!(told(&mut world), [(true, 2, true), (false, 4, true), (true, 6, true)]);
}

#[test]
fn return_comes_before_its_confirm() {
    let (mut world, publisher) = confirming(1);
    let outcome = PublishOutcome::Unrouted;
    world.events(vec![
        Event::Returned { publisher, message: message(&[0, 0], b"") },
        Event::Confirmed { publisher, first: 1, last: 1, outcome },
    ]);
    assert!(matches!(world.content().0, basic::AMQPMethod::Return(_)));
    assert_eq!(told(&mut world), [(true, 1, false)]);
}

#[test]
fn confirms_of_an_earlier_channel_with_the_same_number_are_ignored() {
    let (mut world, publisher) = confirming(3);
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 9, multiple: false }));
    world.expect_channel_close(406, (60, 80));
    world.send(1, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
    world.open_channel(1);
    select_confirms(&mut world, true);
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"x"]));
    assert_ne!(world.published().publisher, publisher);
    world.event(confirmed(publisher, 1, 3));
    world.expect_nothing();
}

fn tx(world: &mut World, method: tx::AMQPMethod) {
    world.send(1, AMQPClass::Tx(method));
}

/// A transactional channel with two deliveries of a consumer.
fn transactional() -> (World, ConsumerId) {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 2);
    tx(&mut world, tx::AMQPMethod::Select(tx::Select {}));
    let ok = tx::AMQPMethod::SelectOk(tx::SelectOk {});
    assert_eq!(world.method(), (1, AMQPClass::Tx(ok)));
    (world, consumer)
}

#[test]
fn transaction_waits_for_its_commit() {
    let (mut world, consumer) = transactional();
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"one"]));
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 1, multiple: false }));
    world.basic(1, basic::AMQPMethod::Reject(basic::Reject { delivery_tag: 2, requeue: false }));
    assert!(world.commands().is_empty());
    tx(&mut world, tx::AMQPMethod::Commit(tx::Commit {}));
    let Command::Commit(commit) = world.command() else { panic!("commit expected") };
    assert_eq!(commit.publishes.len(), 1);
    let settled: Vec<_> = commit
        .settlements
        .iter()
        .map(|s| (s.consumer, s.deliveries.first, s.deliveries.last, s.outcome))
        .collect();
    assert_eq!(settled, [(consumer, 1, 1, Outcome::Accepted), (consumer, 2, 2, Outcome::Rejected)]);
    world.expect_nothing();
    world.answer(commit.request, Ok(Answer::Done));
    let ok = tx::AMQPMethod::CommitOk(tx::CommitOk {});
    assert_eq!(world.method(), (1, AMQPClass::Tx(ok)));
}

/// What the commands since the last look say of channel 1, the last of them.
fn described(world: &mut World) -> Option<ChannelMode> {
    let commands = std::mem::take(&mut world.effects.commands);
    let of = |command: Command| match command {
        Command::DescribeChannel { channel: 1, mode } => Some(mode),
        _ => None,
    };
    commands.into_iter().filter_map(of).next_back()
}

#[test]
fn people_are_told_what_waits_for_a_commit() {
    let (mut world, _) = transactional();
    let waiting =
        |publishes, settlements| Some(ChannelMode::Transaction { publishes, settlements });
    assert_eq!(described(&mut world), waiting(0, 0));
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"one"]));
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 2, multiple: true }));
    assert_eq!(described(&mut world), waiting(1, 2));
    tx(&mut world, tx::AMQPMethod::Rollback(tx::Rollback {}));
    assert_eq!(described(&mut world), waiting(0, 0));
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"one"]));
    tx(&mut world, tx::AMQPMethod::Commit(tx::Commit {}));
    assert_eq!(described(&mut world), waiting(0, 0));
    let mut world = World::open();
    select_confirms(&mut world, true);
    assert_eq!(described(&mut world), Some(ChannelMode::Confirms));
}

#[test]
fn rollback_forgets_publishes_and_restores_deliveries() {
    let (mut world, consumer) = transactional();
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"one"]));
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 2, multiple: false }));
    tx(&mut world, tx::AMQPMethod::Rollback(tx::Rollback {}));
    world.all();
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 0, multiple: true }));
    tx(&mut world, tx::AMQPMethod::Commit(tx::Commit {}));
    let Command::Commit(commit) = world.command() else { panic!("commit expected") };
    assert!(commit.publishes.is_empty());
    let [settled] = &commit.settlements[..] else { panic!("one settlement expected") };
    assert_eq!(
        (settled.consumer, settled.deliveries.first, settled.deliveries.last),
        (consumer, 1, 2)
    );
}

#[test]
fn transaction_over_its_limit_is_406() {
    let limits = Limits { transaction_bytes_max: 10_000, ..Limits::default() };
    let mut world = World::open_with(limits);
    tx(&mut world, tx::AMQPMethod::Select(tx::Select {}));
    world.all();
    let body = [0; 4000];
    for _ in 0..3 {
        world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[&body]));
    }
    world.expect_channel_close(406, (60, 40));
    assert!(world.commands().is_empty());
}

#[test]
fn transactions_and_confirms_do_not_mix_and_commit_needs_a_transaction() {
    let mut world = World::open();
    select_confirms(&mut world, true);
    tx(&mut world, tx::AMQPMethod::Select(tx::Select {}));
    world.expect_channel_close(406, (90, 10));
    let (mut world, _) = transactional();
    select_confirms(&mut world, true);
    world.expect_channel_close(406, (85, 10));
    let mut world = World::open();
    tx(&mut world, tx::AMQPMethod::Commit(tx::Commit {}));
    world.expect_channel_close(406, (90, 20));
    let mut world = World::open();
    tx(&mut world, tx::AMQPMethod::Rollback(tx::Rollback {}));
    world.expect_channel_close(406, (90, 30));
}

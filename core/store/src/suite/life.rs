//! What goes is gone, and what stays is counted.

use std::collections::BTreeSet;

use super::{Engine, LOG, Rng, Session};
use crate::{Close, CursorId, Hold, LogId, Seq, wait};

pub(super) fn counts(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..300);
    session.write(|w| w.ack(LOG, &[(Seq(0), Seq(99)), (Seq(150), Seq(159))]));
    session = session.reopen(engine, Close::Abandon);
    let messages = session.messages(LOG);
    let bytes: usize = messages.iter().map(|m| m.props.len() + m.body.len()).sum();
    let log = &session.opened.logs[0];
    assert_eq!((log.live_count, log.live_bytes), (190, bytes as u64));
    assert_eq!((messages.len(), log.floor), (190, Seq(100)));
}

pub(super) fn acks_survive(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..20);
    session.write(|w| {
        w.ack(LOG, &[(Seq(0), Seq(2)), (Seq(5), Seq(6)), (Seq(9), Seq(9))]);
        w.hold(LOG, Seq(3), 2, 4, 77);
        w.hold(LOG, Seq(10), 1, 1, 0);
        w.hold(LOG, Seq(4), 1, 1, 0);
    });
    session.write(|w| {
        w.floor(LOG, Seq(3));
        w.ack(LOG, &[(Seq(4), Seq(4))]);
        w.hold(LOG, Seq(10), 3, 5, 9);
    });
    for _ in 0..2 {
        let cursor = CursorId(u64::from(LOG.0));
        let state = wait(|reply| session.store.cursor(cursor, reply)).unwrap();
        assert_eq!(state.floor, Seq(3));
        assert_eq!(state.acked, [(Seq(4), Seq(6)), (Seq(9), Seq(9))]);
        let held = [(3, 2, 4, 77), (10, 3, 5, 9)];
        let found = state.held.iter().map(|held| {
            let Hold { delivery_count, acquired_count, due_ms } = held.hold;
            (held.seq.0, delivery_count, acquired_count, due_ms)
        });
        assert!(found.eq(held));
        let first = session.messages(LOG).remove(0);
        let hold = Hold { delivery_count: 2, acquired_count: 4, due_ms: 77 };
        assert_eq!((first.seq, first.hold), (Seq(3), Some(hold)));
        session = session.reopen(engine, Close::Abandon);
    }
}

pub(super) fn random_acks(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    let mut rng = Rng(42);
    session.write(|w| w.log_create(LOG, "queue"));
    let (mut live, mut next) = (BTreeSet::new(), 0);
    for round in 0..60 {
        session.write(|w| {
            for _ in 0..rng.below(30) {
                next += 1 + rng.below(2);
                w.publish(LOG, Seq(next), 0, 0, &[], &next.to_le_bytes());
                live.insert(next);
            }
            let mut ranges = Vec::new();
            for _ in 0..rng.below(90) {
                let first = rng.below(next + 2);
                let last = first + rng.below(3);
                ranges.push((Seq(first), Seq(last)));
                live.retain(|seq| *seq < first || *seq > last);
            }
            w.ack(LOG, &ranges);
        });
        if round % 20 == 19 {
            session = session.reopen(engine, Close::Abandon);
        }
        assert!(session.seqs(LOG).into_iter().eq(live.iter().copied()), "round {round}");
    }
}

pub(super) fn purge_and_delete(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..50);
    session.write(|w| {
        w.log_create(LogId(2), "second");
        w.publish(LogId(2), Seq(0), 0, 0, &[], b"gone");
        w.purge(LOG, Seq(40));
        w.publish(LOG, Seq(50), 0, 0, &[], b"after the purge");
        w.log_delete(LogId(2));
        w.publish(LogId(2), Seq(1), 0, 0, &[], b"too late");
        w.ack(LogId(2), &[(Seq(0), Seq(0))]);
    });
    for _ in 0..2 {
        assert_eq!(session.seqs(LOG), (40..=50).collect::<Vec<_>>());
        assert!(session.messages(LogId(2)).is_empty());
        session = session.reopen(engine, Close::Abandon);
        assert_eq!(session.opened.logs.len(), 1);
        assert_eq!(session.opened.logs[0].live_count, 11);
    }
    session.write(|w| w.purge(LOG, Seq(1_000)));
    session = session.reopen(engine, Close::Clean);
    let log = &session.opened.logs[0];
    assert_eq!((log.live_count, log.live_bytes, log.next_seq), (0, 0, Seq(1_000)));
}

pub(super) fn log_numbers(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write(|w| {
        w.log_create(LogId(4), "first");
        w.log_create(LogId(9), "second");
    });
    session.write(|w| w.log_delete(LogId(9)));
    session = session.reopen(engine, Close::Clean);
    assert_eq!(session.opened.next_log, LogId(10));
    assert_eq!(session.opened.logs.len(), 1);
}

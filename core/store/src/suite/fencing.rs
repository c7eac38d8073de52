//! Who may write, what is answered, and in which order.

use std::sync::mpsc::channel;

use super::{Engine, LOG, Session, batch};
use crate::{
    Close, Durability, Epoch, Outcome, OwnerId, ReadLimit, Seq, ShardBatch, StoreError, wait,
};

pub(super) fn replies_in_order(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..1);
    let (sender, answers) = channel();
    for n in 1..=50_u64 {
        let number = ShardBatch(session.last.0 + n);
        let batch = batch(session.opened.epoch, number, |w| {
            w.publish(LOG, Seq(n), 0, 0, &[], b"body");
        });
        let sender = sender.clone();
        let reply = Box::new(move |answer| sender.send(answer).unwrap());
        session.store.submit(batch, Durability::Sync, reply);
    }
    drop(sender);
    let answers: Vec<_> = answers.iter().map(|answer| answer.unwrap().0).collect();
    assert!(answers.into_iter().eq(session.last.0 + 1..=session.last.0 + 50));
}

pub(super) fn stale_epoch(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..1);
    let old = session.opened.epoch;
    session = session.reopen(engine, Close::Clean);
    let stale = batch(old, session.last.next(), |w| {
        w.publish(LOG, Seq(1), 0, 0, &[], b"stale");
        w.meta_put("key", b"stale");
    });
    assert_eq!(session.submit(stale), Err(StoreError::Fenced));
    let ahead = batch(Epoch(session.opened.epoch.0 + 1), session.last.next(), |w| {
        w.meta_put("key", b"from nobody");
    });
    assert_eq!(session.submit(ahead), Err(StoreError::Fenced));
    session.write(|w| {
        w.publish(LOG, Seq(1), 0, 0, &[], b"fresh");
    });
    session = session.reopen(engine, Close::Abandon);
    assert_eq!(&session.messages(LOG)[1].body[..], b"fresh");
    assert!(session.opened.metas.is_empty());
}

pub(super) fn resent_batch(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..3);
    session.write(|w| w.ack(LOG, &[(Seq(0), Seq(1))]));
    let again = batch(session.opened.epoch, ShardBatch(session.last.0 - 1), |w| {
        w.publish(LOG, Seq(0), 0, 0, &[], b"again");
    });
    assert_eq!(session.submit(again).unwrap(), ShardBatch(session.last.0 - 1));
    for _ in 0..2 {
        assert_eq!(session.seqs(LOG), [2]);
        session = session.reopen(engine, Close::Abandon);
    }
}

pub(super) fn missing_batch(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..3);
    let late = batch(session.opened.epoch, ShardBatch(session.last.0 + 2), |w| {
        w.publish(LOG, Seq(9), 0, 0, &[], b"after a gap");
    });
    assert!(matches!(session.submit(late), Err(StoreError::Fatal(_))));
    assert_eq!(session.seqs(LOG), [0, 1, 2]);
}

pub(super) fn outcome(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..3);
    let store = &session.store;
    let outcome = |number| wait(|reply| store.outcome(super::SHARD, number, reply)).unwrap();
    assert_eq!(outcome(session.last), Outcome::Committed);
    assert_eq!(outcome(session.last.next()), Outcome::NotCommitted);
}

pub(super) fn second_opener(engine: &dyn Engine) {
    if !engine.refuses_second_opener() {
        return;
    }
    let mut session = Session::start(engine);
    session.write_messages(0..3);
    let second = engine.start();
    let refused = wait(|reply| second.open(super::SHARD, OwnerId(2), reply));
    let Err(StoreError::Held(by)) = refused else { panic!("a second owner got in") };
    assert!(!by.is_empty(), "the holder is named");
    drop(second);
    session.write(|w| w.ack(LOG, &[(Seq(0), Seq(0))]));
    assert_eq!(session.seqs(LOG), [1, 2]);
}

pub(super) fn closed_store(engine: &dyn Engine) {
    let session = Session::start(engine);
    wait(|reply| session.store.close(Close::Clean, reply)).unwrap();
    let batch = session.batch(|w| w.log_create(LOG, "too late"));
    assert_eq!(session.submit(batch), Err(StoreError::Closed));
    drop(session);
    assert!(Session::start(engine).opened.logs.is_empty());
}

pub(super) fn large_batch(engine: &dyn Engine) {
    const BODY: usize = 8 * 1024 * 1024;
    let mut session = Session::start(engine);
    let body: Vec<u8> = (0..BODY).map(|n| (n % 251) as u8).collect();
    session.write(|w| {
        w.log_create(LOG, "queue");
        for seq in 0..8 {
            w.publish(LOG, Seq(seq), 0, 0, &[], &body);
        }
    });
    session.write(|w| w.ack(LOG, &[(Seq(0), Seq(5))]));
    session = session.reopen(engine, Close::Abandon);
    let limit = ReadLimit { messages_max: 10, bytes_max: 1 };
    let page = session.read(LOG, Seq(0), limit);
    assert_eq!((page.messages.len(), page.next), (1, Some(Seq(7))));
    assert!(page.messages[0].body == body);
}

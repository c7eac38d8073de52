use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use polymq_store::{
    Committer, LogId, OwnerId, Seq, ShardId, Store, StoreError,
    suite::{self, Engine},
    wait,
};

use crate::MemoryStore;

#[test]
fn delayed_batch_is_durable_only_after_its_release() {
    let store = Arc::new(MemoryStore::new());
    let opened = wait(|reply| store.open(ShardId(0), OwnerId(1), reply)).unwrap();
    let committer = Committer::new(store.clone(), ShardId(0), &opened);
    store.faults().delay_replies(true);
    let (batch, _) = committer.append(|w| {
        w.log_create(LogId(1), "q");
        w.publish(LogId(1), Seq(1), 0, 0, &[b"props"], b"body");
    });
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    committer.when_durable(batch, move |result| {
        result.unwrap();
        seen.fetch_add(1, Ordering::SeqCst);
    });
    committer.kick();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    store.release();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(committer.durable(), batch);
    let again = wait(|reply| store.open(ShardId(0), OwnerId(2), reply)).unwrap();
    assert_eq!(again.logs[0].live_count, 1);
    assert_eq!(again.epoch.0, 2);
}

struct Memory(Arc<MemoryStore>);

impl Engine for Memory {
    fn start(&self) -> Arc<dyn Store> {
        self.0.clone()
    }

    fn refuses_second_opener(&self) -> bool {
        false
    }
}

#[test]
fn memory_keeps_the_rules_of_every_engine() {
    suite::run(&|| Box::new(Memory(Arc::new(MemoryStore::new()))));
}

fn opened(store: &Arc<MemoryStore>) -> Arc<Committer> {
    let opened = wait(|reply| store.open(ShardId(0), OwnerId(1), reply)).unwrap();
    Committer::new(store.clone(), ShardId(0), &opened)
}

fn publish(committer: &Committer, seq: u64) -> Result<(), StoreError> {
    let (batch, _) =
        committer.append(|w| w.publish(LogId(1), Seq(seq), 0, 0, &[b"props"], b"body"));
    committer.kick();
    wait(|reply| committer.when_durable(batch, reply))
}

#[test]
fn full_store_takes_messages_again_when_it_has_room() {
    let store = Arc::new(MemoryStore::new());
    let committer = opened(&store);
    committer.append(|w| w.log_create(LogId(1), "queue"));
    assert_eq!(publish(&committer, 0), Ok(()));
    store.faults().fail_all(Some(StoreError::Full));
    committer.append(|w| {
        w.meta_put("kept", b"definition");
        w.ack(LogId(1), &[(Seq(0), Seq(0))]);
    });
    assert_eq!(publish(&committer, 1), Err(StoreError::Full));
    assert_eq!(publish(&committer, 2), Err(StoreError::Full));
    store.faults().fail_all(None);
    assert_eq!(publish(&committer, 3), Ok(()));
    let again = wait(|reply| store.open(ShardId(0), OwnerId(1), reply)).unwrap();
    assert_eq!((again.logs[0].live_count, again.logs[0].floor), (1, Seq(3)));
    assert_eq!(again.metas[0].0, "kept");
}

#[test]
fn unknown_answers_are_resolved_by_their_outcome() {
    let store = Arc::new(MemoryStore::new());
    let committer = opened(&store);
    committer.append(|w| w.log_create(LogId(1), "queue"));
    store.faults().fail_after_commit(1, StoreError::Unknown);
    assert_eq!(publish(&committer, 0), Ok(()));
    store.faults().fail_submit(1, StoreError::Unknown);
    assert_eq!(publish(&committer, 1), Ok(()));
    let again = wait(|reply| store.open(ShardId(0), OwnerId(1), reply)).unwrap();
    assert_eq!(again.logs[0].live_count, 2);
}

#[test]
fn older_owner_is_fenced_by_a_newer_one() {
    let store = Arc::new(MemoryStore::new());
    let (older, newer) = (opened(&store), opened(&store));
    assert_eq!(publish(&older, 0), Err(StoreError::Fenced));
    assert_eq!(publish(&newer, 0), Ok(()));
}

#[test]
fn batches_lost_in_a_crash_are_never_confirmed() {
    let store = Arc::new(MemoryStore::new());
    let committer = opened(&store);
    store.faults().delay_replies(true);
    let (batch, ()) = committer.append(|w| w.meta_put("key", b"value"));
    committer.kick();
    store.faults().lose_delayed();
    let answer = wait(|reply| committer.when_durable(batch, reply));
    assert!(matches!(answer, Err(StoreError::Fatal(_))));
    store.faults().delay_replies(false);
    let again = wait(|reply| store.open(ShardId(0), OwnerId(1), reply)).unwrap();
    assert!(again.metas.is_empty());
}

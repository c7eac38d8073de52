#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use polymq_store::{
    Committer, LogId, OwnerId, Seq, ShardId, Store,
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

//! The log on a real disk.

use std::sync::{Arc, mpsc::channel};

use polymq_store::{
    Committer, OwnerId, ShardId, Store, StoreError,
    suite::{self, Engine},
    wait,
};
use tempfile::TempDir;

use crate::{
    LogConfig, LogStore,
    sim::{SimClock, SimDisk},
};

struct OnDisk {
    dir: TempDir,
    config: LogConfig,
}

impl Engine for OnDisk {
    fn start(&self) -> Arc<dyn Store> {
        let on_fatal = |_: &str| {};
        Arc::new(LogStore::at(self.dir.path().join("data"), self.config, on_fatal).unwrap())
    }
}

#[test]
fn log_keeps_the_rules_of_every_engine() {
    let config =
        LogConfig { wal_file_bytes: 1 << 20, first_file_bytes: 1 << 16, ..LogConfig::default() };
    suite::run(&|| Box::new(OnDisk { dir: TempDir::new().unwrap(), config }));
}

#[test]
fn log_keeps_the_rules_while_it_flushes_and_merges_all_the_time() {
    let config = super::SMALL;
    suite::run(&|| Box::new(OnDisk { dir: TempDir::new().unwrap(), config }));
}

#[test]
fn failed_sync_ends_the_process_and_confirms_nothing() {
    let disk = SimDisk::new(3);
    let (ended, why) = channel();
    let on_fatal = move |why: &str| ended.send(why.to_owned()).unwrap();
    let clock = Arc::new(SimClock);
    let store = LogStore::on(Arc::new(disk.clone()), clock, super::SMALL, on_fatal).unwrap();
    let opened = wait(|reply| store.open(ShardId(0), OwnerId(1), reply)).unwrap();
    let committer = Committer::new(Arc::new(store), ShardId(0), &opened);
    let write = |name: &str| {
        let (batch, ()) = committer.append(|w| w.meta_put(name, b"value"));
        let (sender, answer) = channel();
        committer.when_durable(batch, move |result| sender.send(result).unwrap());
        committer.kick();
        answer.recv().unwrap()
    };
    assert_eq!(write("first"), Ok(()));
    // The next file is prepared meanwhile and may meet a failure instead, which harms nobody.
    let failed = (0..1000).find_map(|_| {
        disk.fail_sync_after(1);
        write("second").err()
    });
    assert!(matches!(failed, Some(StoreError::Fatal(_))), "{failed:?}");
    assert!(why.recv().unwrap().contains("the disk did not answer"));
    assert!(matches!(write("third"), Err(StoreError::Fatal(_))));
}

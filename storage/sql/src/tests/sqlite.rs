//! SQLite on a real disk.

use std::sync::Arc;

use polymq_store::{
    BatchWriter, Committer, Seq, Store, StoreError,
    suite::{self, Engine},
    wait,
};
use sqlx::{Connection, SqliteConnection, raw_sql, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::{LOG, SHARD, opened, until};
use crate::{SqlStore, SqliteConfig, failure::Failure, sqlite::failure};

pub(super) struct OnDisk(TempDir);

impl OnDisk {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn store(&self) -> SqlStore {
        let path = self.0.path().join("polymq.db");
        SqlStore::sqlite(SqliteConfig::new(path), |_| {}).unwrap()
    }
}

impl Engine for OnDisk {
    fn start(&self) -> Arc<dyn Store> {
        Arc::new(self.store())
    }
}

#[test]
fn sqlite_keeps_the_rules_of_every_engine() {
    suite::run(&|| Box::new(OnDisk::new()));
}

#[test]
fn file_that_is_no_database_is_refused_and_left_alone() {
    let disk = OnDisk::new();
    let path = disk.0.path().join("polymq.db");
    let text = "notes of somebody, ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let refused = opened(&disk.store(), 1);
    let Err(StoreError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("polymq.db"), "{why}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn folder_that_is_not_there_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("none/polymq.db");
    let store = SqlStore::sqlite(SqliteConfig::new(path), |_| {}).unwrap();
    let refused = opened(&store, 1);
    let Err(StoreError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("none/polymq.db"), "{why}");
}

#[test]
fn copy_of_a_database_that_was_not_closed_is_refused_until_the_operator_agrees() {
    let (disk, copy) = (OnDisk::new(), OnDisk::new());
    let store = Arc::new(disk.store());
    let committer = Committer::new(store.clone(), SHARD, &opened(&*store, 1).unwrap());
    written(&committer, |w| w.log_create(LOG, "queue"));
    let name = |of: &OnDisk, ending: &str| of.0.path().join(format!("polymq.db{ending}"));
    for ending in ["", "-wal", ".lock"] {
        std::fs::copy(name(&disk, ending), name(&copy, ending)).unwrap();
    }
    let refused = opened(&copy.store(), 2);
    let Err(StoreError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("polymq backup create"), "{why}");
    std::fs::remove_file(name(&copy, ".lock")).unwrap();
    assert_eq!(opened(&copy.store(), 2).unwrap().logs.len(), 1);
    // What was closed is whole, wherever it is.
    wait(|reply| committer.close(reply)).unwrap();
    drop((committer, store));
    std::fs::remove_file(name(&copy, "")).unwrap();
    for ending in ["", ".lock"] {
        std::fs::copy(name(&disk, ending), name(&copy, ending)).unwrap();
    }
    assert_eq!(opened(&copy.store(), 3).unwrap().logs.len(), 1);
    assert_eq!(opened(&disk.store(), 3).unwrap().logs.len(), 1);
}

#[test]
fn write_ahead_file_is_emptied_before_it_grows_long() {
    let disk = OnDisk::new();
    let store = Arc::new(disk.store());
    let committer = Committer::new(store.clone(), SHARD, &opened(&*store, 1).unwrap());
    written(&committer, |w| w.log_create(LOG, "queue"));
    for seq in 0..100 {
        written(&committer, |w| {
            w.publish(LOG, Seq(seq), 0, 0, &[], &[7; 1024 * 1024]);
        });
    }
    let bytes = std::fs::metadata(disk.0.path().join("polymq.db-wal")).unwrap().len();
    assert!(bytes < 24 * 1024 * 1024, "{bytes}");
}

fn written(committer: &Committer, write: impl FnOnce(&mut BatchWriter<'_>)) {
    let (batch, ()) = committer.append(write);
    committer.kick();
    wait(|reply| committer.when_durable(batch, reply)).unwrap();
}

#[test]
fn rows_of_emptied_and_deleted_logs_are_removed_little_by_little() {
    let disk = OnDisk::new();
    let store = Arc::new(disk.store());
    let committer = Committer::new(store.clone(), SHARD, &opened(&*store, 1).unwrap());
    let other = polymq_store::LogId(2);
    written(&committer, |w| {
        for log in [LOG, other] {
            w.log_create(log, "queue");
            for seq in 0..12_000 {
                w.publish(log, Seq(seq), 0, 0, &[], b"body");
            }
        }
    });
    written(&committer, |w| {
        w.purge(LOG, Seq(12_000));
        w.publish(LOG, Seq(12_000), 0, 0, &[], b"stays");
        w.log_delete(other);
    });
    until("no row is left to remove", || store.has_no_garbage());
    let opened = opened(&*store, 1).unwrap();
    assert_eq!(opened.logs.len(), 1);
    let log = &opened.logs[0];
    assert_eq!((log.live_count, log.live_bytes, log.floor), (1, 5, Seq(12_000)));
    assert!(store.has_no_garbage());
}

#[tokio::test(flavor = "current_thread")]
async fn errors_of_sqlite_mean_what_the_committer_does_about_them() {
    let dir = TempDir::new().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("small.db"))
        .create_if_missing(true)
        .pragma("max_page_count", "8");
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let mut run = async |sql: &'static str| {
        raw_sql(sql).execute(&mut connection).await.map_err(failure).map(|_| ())
    };
    run("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    let full = run("INSERT INTO t VALUES (1, zeroblob(100000))").await;
    assert!(matches!(full, Err(Failure::Full(_))), "{full:?}");
    run("INSERT INTO t VALUES (1, x'')").await.unwrap();
    let twice = run("INSERT INTO t VALUES (1, x'')").await;
    assert!(matches!(twice, Err(Failure::Fatal(_))), "{twice:?}");
    run("PRAGMA query_only = ON").await.unwrap();
    let refused = run("INSERT INTO t VALUES (2, x'')").await;
    assert!(matches!(refused, Err(Failure::ReadOnly(_))), "{refused:?}");
}

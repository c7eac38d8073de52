//! Who owns the shard of a database, and what an old owner can still do.

use std::{
    thread,
    time::{Duration, Instant},
};

use polymq_store::{Health, Seq, Store, StoreError};

use super::{Open, config, opened, postgres::LEASE, until};
use crate::{SqlStore, testing::PostgresServer};

const SHORT: Duration = Duration::from_secs(1);

#[test]
fn old_owner_writes_nothing_more_and_ends() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, LEASE, 1);
    open.create_log();
    open.publish(0).unwrap();
    server.sql(&url, "UPDATE pmq_shard SET epoch = epoch + 1, owner = gen_random_uuid()");
    assert_eq!(open.publish(1), Err(StoreError::Fenced));
    assert!(open.ended.recv().unwrap().contains("took over"));
    assert_eq!(server.sql(&url, "SELECT count(*), max(seq) FROM pmq_msg"), "1|0");
}

#[test]
fn old_owner_ends_also_when_it_has_nothing_to_write() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, SHORT, 1);
    server.sql(&url, "UPDATE pmq_shard SET epoch = epoch + 1, owner = gen_random_uuid()");
    assert!(open.ended.recv().unwrap().contains("took over"));
    assert!(matches!(open.store.health(), Health::Failed(_)));
}

#[test]
fn lease_of_a_dead_owner_is_waited_for() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, LEASE, 1);
    open.create_log();
    open.publish(0).unwrap();
    let epoch = opened(&*open.store, 1).unwrap().epoch;
    drop(open);
    let started = Instant::now();
    server.sql(
        &url,
        "UPDATE pmq_shard SET owner = gen_random_uuid(), lease_until = now() + interval '1 s'",
    );
    let next = SqlStore::postgres(config(&url, LEASE), |_| {}).unwrap();
    let opened = opened(&next, 2).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!((opened.epoch.0, opened.logs[0].live_count), (epoch.0 + 1, 1));
}

#[test]
fn owner_that_is_idle_keeps_its_lease_and_gives_it_back_when_it_stops() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, LEASE, 1);
    let until_now = || server.sql(&url, "SELECT lease_until FROM pmq_shard");
    let first = until_now();
    until("the lease is prolonged", || until_now() != first);
    let second = SqlStore::postgres(config(&url, LEASE), |_| {}).unwrap();
    let Err(StoreError::Held(by)) = opened(&second, 2) else { panic!("a second owner got in") };
    assert!(by.contains("broker 00000000-0000-0000-0000-000000000001"), "{by}");
    open.close();
    let started = Instant::now();
    opened(&second, 2).unwrap();
    assert!(started.elapsed() < LEASE);
}

#[test]
fn database_that_stands_still_is_told_and_loses_nothing() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, SHORT, 1);
    open.create_log();
    open.publish(0).unwrap();
    let (server, url) = (&server, &url);
    thread::scope(|scope| {
        scope.spawn(|| {
            server.sql(url, "BEGIN; SELECT 1 FROM pmq_shard FOR UPDATE; SELECT pg_sleep(4); COMMIT")
        });
        until("the database does not answer", || matches!(open.store.health(), Health::Failed(_)));
        open.publish(1).unwrap();
        until("it answers again", || open.store.health() == Health::Ok);
    });
    let log = opened(&*open.store, 1).unwrap().logs.remove(0);
    assert_eq!((log.live_count, log.next_seq), (2, Seq(2)));
}

/// Two stores that fight for one shard at the same time: one gets it.
#[test]
fn one_of_two_that_open_at_once_is_the_owner() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let stores = [1, 2].map(|me| (me, SqlStore::postgres(config(&url, LEASE), |_| {}).unwrap()));
    let results: Vec<_> = thread::scope(|scope| {
        let open = |(me, store): &'_ (u128, SqlStore)| opened(store, *me);
        let running: Vec<_> = stores.iter().map(|store| scope.spawn(move || open(store))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let owners = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(owners, 1, "{results:?}");
}

#[test]
fn database_of_an_older_backup_is_refused_until_the_operator_agrees() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen");
    let store = || SqlStore::postgres(config(&url, LEASE).remembering(&file), |_| {}).unwrap();
    let first = store();
    assert_eq!(opened(&first, 1).unwrap().epoch.0, 1);
    drop(first);
    let second = store();
    assert_eq!(opened(&second, 1).unwrap().epoch.0, 2);
    drop(second);
    server.sql(&url, "UPDATE pmq_shard SET epoch = 0");
    let Err(StoreError::Refused(why)) = opened(&store(), 1) else { panic!("it was opened") };
    assert!(why.contains("went back in time") && why.contains("remove `"), "{why}");
    // Another database is not an older one.
    server.sql(&url, "UPDATE pmq_shard SET epoch = 0, store = gen_random_uuid()");
    assert_eq!(opened(&store(), 1).unwrap().epoch.0, 1);
    std::fs::write(&file, "nonsense").unwrap();
    opened(&store(), 1).unwrap();
    server.sql(&url, "UPDATE pmq_shard SET epoch = 0");
    std::fs::remove_file(&file).unwrap();
    opened(&store(), 1).unwrap();
}

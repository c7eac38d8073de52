//! What a broken connection and a broken database may cost: time, and nothing else.

use std::{
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use polymq_store::{Health, LogId, Seq, Store, StoreError, wait};

use super::{
    LOG, Open, opened,
    postgres::LEASE,
    proxy::{Break, Proxy},
    until,
};
use crate::testing::PostgresServer;

/// Longer than any batch waits for a database that is killed and begun again.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn batch_whose_answer_is_lost_is_confirmed_and_kept_once() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let proxy = Proxy::before(server.socket());
    let open = Open::postgres(&proxy.url(&url), LEASE, 1);
    open.create_log();
    for seq in 0..3 {
        open.publish(seq).unwrap();
    }
    proxy.break_next(Break::Answer);
    open.committer.append(|w| w.ack(LOG, &[(Seq(0), Seq(1))]));
    open.publish(3).unwrap();
    // What the lost answer would have told is known nevertheless.
    open.publish(4).unwrap();
    assert_eq!(open.store.health(), Health::Ok);
    let log = opened(&*open.store, 1).unwrap().logs.remove(0);
    assert_eq!((log.live_count, log.live_bytes, log.floor), (3, 27, Seq(2)));
}

#[test]
fn batch_that_does_not_arrive_is_sent_again() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let proxy = Proxy::before(server.socket());
    let open = Open::postgres(&proxy.url(&url), LEASE, 1);
    open.create_log();
    open.publish(0).unwrap();
    proxy.break_next(Break::Question);
    open.publish(1).unwrap();
    assert_eq!(open.committer.durable(), opened(&*open.store, 1).unwrap().last_batch);
    assert_eq!(server.sql(&url, "SELECT count(*) FROM pmq_msg"), "2");
}

#[test]
fn killed_database_costs_no_confirmed_message_and_doubles_none() {
    let server = PostgresServer::start(&[]);
    let url = server.new_database();
    let open = Open::postgres(&url, LEASE, 1);
    open.create_log();
    open.publish(0).unwrap();
    let committer = &open.committer;
    let (next, confirmed) = (AtomicU64::new(1), AtomicU64::new(1));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while confirmed.load(Ordering::Relaxed) < 1_200 {
                    // Numbers are given in the order of the batches, as a queue does.
                    let (batch, _) = committer.append(|w| {
                        let seq = next.fetch_add(1, Ordering::Relaxed);
                        w.publish(LOG, Seq(seq), 0, 0, &[], b"body")
                    });
                    committer.kick();
                    // When the test fails while there is no database, no answer comes.
                    let (done, answer) = mpsc::channel();
                    committer.when_durable(batch, move |result| drop(done.send(result)));
                    answer.recv_timeout(PATIENCE).unwrap().unwrap();
                    confirmed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for killed_at in [300, 700] {
            until("enough is confirmed", || confirmed.load(Ordering::Relaxed) > killed_at);
            server.kill();
            server.begin();
        }
    });
    let confirmed = confirmed.load(Ordering::Relaxed);
    let kept = server.sql(&url, "SELECT count(*) || ' ' || max(seq) FROM pmq_msg");
    assert_eq!(kept, format!("{confirmed} {}", confirmed - 1));
    let log = opened(&*open.store, 1).unwrap().logs.remove(0);
    assert_eq!(log.live_count, confirmed);
}

#[test]
fn database_that_became_read_only_refuses_until_it_is_writable_again() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, Duration::from_secs(1), 1);
    open.create_log();
    open.publish(0).unwrap();
    let database = server.sql(&url, "SELECT current_database()");
    let elsewhere = url.replace(&format!("/{database}?"), "/postgres?");
    let set = |value: &str| {
        let setting = "default_transaction_read_only";
        server.sql(&elsewhere, &format!("ALTER DATABASE {database} SET {setting} = {value}"));
    };
    set("on");
    server.sql(
        &url,
        "SELECT pg_terminate_backend(pid)
         FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    until("it is seen", || matches!(open.store.health(), Health::ReadOnly(_)));
    assert_eq!(open.publish(1), Err(StoreError::ReadOnly));
    set("off");
    open.publish(2).unwrap();
    assert_eq!(open.store.health(), Health::Ok);
    let log = opened(&*open.store, 1).unwrap().logs.remove(0);
    assert_eq!((log.live_count, log.next_seq), (2, Seq(3)));
}

#[test]
fn database_that_went_back_in_time_is_not_served() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let proxy = Proxy::before(server.socket());
    let open = Open::postgres(&proxy.url(&url), LEASE, 1);
    open.create_log();
    for seq in 0..3 {
        open.publish(seq).unwrap();
    }
    server.sql(&url, "UPDATE pmq_shard SET last_batch = 1");
    assert!(matches!(open.publish(3), Err(StoreError::Fatal(_))));
    let why = open.ended.recv().unwrap();
    assert!(why.contains("the database went back: batch 3 was there"), "{why}");
}

#[test]
fn database_that_went_back_in_time_is_noticed_without_a_batch() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, LEASE, 1);
    open.create_log();
    for seq in 0..3 {
        open.publish(seq).unwrap();
    }
    server.sql(
        &url,
        "UPDATE pmq_shard SET last_batch = 1;
         SELECT pg_terminate_backend(pid)
         FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let why = open.ended.recv().unwrap();
    assert!(why.contains("the database went back: batch 3 was there"), "{why}");
}

#[test]
fn body_for_many_queues_travels_once() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let proxy = Proxy::before(server.socket());
    let open = Open::postgres(&proxy.url(&url), LEASE, 1);
    let body = vec![7; 100_000];
    let before = proxy.bytes();
    let (batch, ()) = open.committer.append(|w| {
        for log in 1..=200 {
            w.log_create(LogId(log), "queue");
        }
        let first = w.publish(LOG, Seq(0), 0, 0, &[b"props"], &body);
        for log in 2..=200 {
            assert!(w.publish_same(LogId(log), Seq(0), 0, first));
        }
    });
    open.committer.kick();
    wait(|reply| open.committer.when_durable(batch, reply)).unwrap();
    assert!(proxy.bytes() - before < 200_000, "{}", proxy.bytes() - before);
    assert_eq!(server.sql(&url, "SELECT sum(length(body)) FROM pmq_msg"), "20000000");
}

//! PostgreSQL, on a server that these tests start.

use std::{sync::Arc, time::Duration};

use polymq_store::{
    Seq, Store, StoreError,
    suite::{self, Engine},
};

use super::{LOG, Open, config, opened, proxy::Proxy, until};
use crate::{SqlStore, testing::PostgresServer};

/// Long enough for a slow machine, short enough for a test that sees it prolonged.
pub(super) const LEASE: Duration = Duration::from_secs(5);

pub(super) struct OnServer {
    _server: Arc<PostgresServer>,
    url: String,
}

impl OnServer {
    pub(super) fn on(server: &Arc<PostgresServer>) -> Self {
        Self { _server: Arc::clone(server), url: server.new_database() }
    }
}

impl Engine for OnServer {
    fn start(&self) -> Arc<dyn Store> {
        Arc::new(SqlStore::postgres(config(&self.url, LEASE), |_| {}).unwrap())
    }
}

#[test]
fn postgres_keeps_the_rules_of_every_engine() {
    let server = PostgresServer::shared();
    suite::run(&|| Box::new(OnServer::on(&server)));
}

#[test]
fn one_batch_is_one_round_trip() {
    let server = PostgresServer::shared();
    let proxy = Proxy::before(server.socket());
    let open = Open::postgres(&proxy.url(&server.new_database()), LEASE, 1);
    open.create_log();
    // The first one is planned.
    open.publish(0).unwrap();
    let before = proxy.turns();
    for seq in 1..=50 {
        open.committer.append(|w| {
            w.ack(LOG, &[(Seq(seq - 1), Seq(seq - 1))]);
            w.meta_put("key", b"value");
        });
        open.publish(seq).unwrap();
    }
    assert_eq!(proxy.turns() - before, 50);
    open.close();
}

#[test]
fn database_that_may_lose_commits_is_refused() {
    for setting in ["fsync", "full_page_writes"] {
        let server = PostgresServer::start(&[&format!("{setting}=off")]);
        let store = SqlStore::postgres(config(&server.new_database(), LEASE), |_| {}).unwrap();
        let Err(StoreError::Refused(why)) = opened(&store, 1) else { panic!("it was opened") };
        assert!(why.contains(&format!("{setting} = off")), "{why}");
    }
}

#[test]
fn tables_of_a_newer_version_are_refused() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    Open::postgres(&url, LEASE, 1).close();
    server.sql(&url, "INSERT INTO _sqlx_migrations VALUES (999, 'later', now(), true, '\\x00', 0)");
    let store = SqlStore::postgres(config(&url, LEASE), |_| {}).unwrap();
    let Err(StoreError::Refused(why)) = opened(&store, 1) else { panic!("it was opened") };
    assert!(why.contains("newer version"), "{why}");
}

#[test]
fn database_that_is_not_there_is_named_and_its_password_is_not() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let wrong = url.replace("polymq@", "polymq:s3cret@").replace("/polymq_", "/none_");
    let store = SqlStore::postgres(config(&wrong, LEASE), |_| {}).unwrap();
    let Err(StoreError::Refused(why)) = opened(&store, 1) else { panic!("it was opened") };
    assert!(why.contains("/none_") && !why.contains("s3cret"), "{why}");
    assert!(!format!("{:?}", config(&wrong, LEASE)).contains("s3cret"));
}

#[test]
fn rows_of_an_emptied_log_are_removed_little_by_little() {
    let server = PostgresServer::shared();
    let url = server.new_database();
    let open = Open::postgres(&url, LEASE, 1);
    open.create_log();
    open.committer.append(|w| {
        for seq in 0..12_000 {
            w.publish(LOG, Seq(seq), 0, 0, &[], b"body");
        }
    });
    open.publish(12_000).unwrap();
    open.committer.append(|w| w.purge(LOG, Seq(12_001)));
    open.publish(12_001).unwrap();
    until("all rows but one are gone", || {
        server.sql(&url, "SELECT count(*) FROM pmq_msg") == "1"
            && server.sql(&url, "SELECT count(*) FROM pmq_garbage") == "0"
    });
    open.close();
    let again = Open::postgres(&url, LEASE, 1);
    let log = &opened(&*again.store, 1).unwrap().logs[0];
    assert_eq!((log.live_count, log.live_bytes, log.floor), (1, 9, Seq(12_001)));
}

//! PostgreSQL, on a server that these tests start.

use std::{sync::Arc, time::Duration};

use polymq_store::{
    Store,
    suite::{self, Engine},
};

use crate::{PostgresConfig, SqlStore, testing::PostgresServer};

/// Long enough for a slow machine, short enough for a test that sees it prolonged.
const LEASE: Duration = Duration::from_secs(5);

struct OnServer {
    _server: Arc<PostgresServer>,
    url: String,
}

fn config(url: &str) -> PostgresConfig {
    PostgresConfig::new(url, None, LEASE, 2).unwrap()
}

impl Engine for OnServer {
    fn start(&self) -> Arc<dyn Store> {
        Arc::new(SqlStore::postgres(config(&self.url), |_| {}).unwrap())
    }
}

#[test]
fn postgres_keeps_the_rules_of_every_engine() {
    let server = PostgresServer::shared();
    suite::run(&|| {
        let url = server.new_database();
        Box::new(OnServer { _server: Arc::clone(&server), url })
    });
}

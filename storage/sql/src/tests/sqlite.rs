//! SQLite on a real disk.

use std::sync::Arc;

use polymq_store::{
    Store,
    suite::{self, Engine},
};
use tempfile::TempDir;

use crate::{SqlStore, SqliteConfig};

struct OnDisk(TempDir);

impl Engine for OnDisk {
    fn start(&self) -> Arc<dyn Store> {
        let path = self.0.path().join("polymq.db");
        Arc::new(SqlStore::sqlite(SqliteConfig { path }, |_| {}).unwrap())
    }
}

#[test]
fn sqlite_keeps_the_rules_of_every_engine() {
    suite::run(&|| Box::new(OnDisk(TempDir::new().unwrap())));
}

//! The log on a real disk.

use std::sync::Arc;

use polymq_store::{
    Store,
    suite::{self, Engine},
};
use tempfile::TempDir;

use crate::{LogConfig, LogStore};

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
fn log_keeps_the_rules_while_it_rewrites_all_the_time() {
    let config = super::SMALL;
    suite::run(&|| Box::new(OnDisk { dir: TempDir::new().unwrap(), config }));
}

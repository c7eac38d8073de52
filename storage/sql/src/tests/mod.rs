mod faults;
mod model;
mod ownership;
mod postgres;
mod proxy;
mod sqlite;

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use polymq_store::{Committer, LogId, Opened, OwnerId, Seq, ShardId, Store, StoreError, wait};

use crate::{PostgresConfig, SqlStore};

const LOG: LogId = LogId(1);
const SHARD: ShardId = ShardId(0);

fn config(url: &str, lease: Duration) -> PostgresConfig {
    PostgresConfig::new(url, None, lease, 2).unwrap()
}

fn opened(store: &dyn Store, me: u128) -> Result<Opened, StoreError> {
    wait(|reply| store.open(SHARD, OwnerId(me), reply))
}

/// An open store, its committer, and what it told when the process should end.
struct Open {
    store: Arc<SqlStore>,
    committer: Arc<Committer>,
    ended: Receiver<String>,
}

impl Open {
    fn postgres(url: &str, lease: Duration, me: u128) -> Self {
        let (sender, ended) = channel();
        let on_fatal = move |why: &str| sender.send(why.to_owned()).unwrap();
        let store = Arc::new(SqlStore::postgres(config(url, lease), on_fatal).unwrap());
        let opened = opened(&*store, me).unwrap();
        let committer = Committer::new(store.clone(), SHARD, &opened);
        Self { store, committer, ended }
    }

    fn publish(&self, seq: u64) -> Result<(), StoreError> {
        let (batch, _) =
            self.committer.append(|w| w.publish(LOG, Seq(seq), 0, 0, &[b"props"], b"body"));
        self.committer.kick();
        wait(|reply| self.committer.when_durable(batch, reply))
    }

    fn create_log(&self) {
        self.committer.append(|w| w.log_create(LOG, "queue"));
    }

    fn close(self) {
        wait(|reply| self.committer.close(reply)).unwrap();
    }
}

/// Looks again and again until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "never came: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

//! Measures a database:
//! `cargo run --release -p polymq-sql --features testing --example sql_commit_speed [URL | FILE]`,
//! by default a PostgreSQL that this program starts and ends.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use polymq_sql::{PostgresConfig, SqlStore, SqliteConfig, testing::PostgresServer};
use polymq_store::{Committer, LogId, OwnerId, ReadLimit, Seq, ShardId, Store, wait};

const LOG: LogId = LogId(1);
const RUN: Duration = Duration::from_secs(5);
const PUBLISHERS: u32 = 50;
const BODY: [u8; 118] = [7; 118];
const LEASE: Duration = Duration::from_secs(10);

fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn main() {
    let mut server = None;
    let place = std::env::args().nth(1).unwrap_or_else(|| {
        let started = server.insert(PostgresServer::start(&[]));
        started.new_database()
    });
    let on_fatal = |why: &str| panic!("{why}");
    let store = if place.starts_with("postgres") {
        SqlStore::postgres(PostgresConfig::new(&place, None, LEASE, 2).unwrap(), on_fatal).unwrap()
    } else {
        SqlStore::sqlite(SqliteConfig::new(place), on_fatal).unwrap()
    };
    let store = Arc::new(store);
    let me = OwnerId(u128::from(std::process::id()) << 64 | u128::from(nanos()));
    let opened = wait(|reply| store.open(ShardId(0), me, reply)).unwrap();
    let committer = Committer::new(store.clone(), ShardId(0), &opened);
    committer.set_clock(nanos);
    let next = AtomicU64::new(opened.logs.first().map_or(0, |log| log.next_seq.0));
    committer.append(|w| w.log_create(LOG, "speed"));
    for window in [1, 20, 200] {
        publish(&committer, &next, window, false);
    }
    publish(&committer, &next, 20, true);
    read(&store, next.load(Ordering::Relaxed));
    let (done, closed) = channel();
    committer.close(move |result| done.send(result).unwrap());
    closed.recv().unwrap().unwrap();
    drop(committer);
    drop(store);
    let started = Instant::now();
    drop(server);
    println!("stop of the server: {:?}", started.elapsed());
}

/// Each publisher has up to `window` messages without a confirm; with `acks` it acknowledges each
/// message once it is confirmed, so that the log stays short.
fn publish(committer: &Arc<Committer>, next: &AtomicU64, window: u32, acks: bool) {
    let before = committer.stats();
    let (started, confirmed) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                let (sender, durable) = channel();
                let mut open = 0;
                loop {
                    let is_over = started.elapsed() >= RUN;
                    while open < window && !is_over {
                        let seq = next.fetch_add(1, Ordering::Relaxed);
                        let (batch, _) = committer
                            .append(|w| w.publish(LOG, Seq(seq), 0, 0, &[b"properties"], &BODY));
                        let sender = sender.clone();
                        committer.when_durable(batch, move |result| {
                            result.unwrap();
                            sender.send(seq).unwrap();
                        });
                        open += 1;
                    }
                    committer.kick();
                    if open == 0 {
                        break;
                    }
                    let mut done = vec![durable.recv().unwrap()];
                    done.extend(durable.try_iter());
                    open -= u32::try_from(done.len()).unwrap();
                    confirmed.fetch_add(done.len() as u64, Ordering::Relaxed);
                    if acks {
                        let ranges: Vec<_> =
                            done.iter().map(|seq| (Seq(*seq), Seq(*seq))).collect();
                        committer.append(|w| w.ack(LOG, &ranges));
                    }
                }
            });
        }
    });
    let took = started.elapsed().as_secs_f64();
    let after = committer.stats();
    let batches = after.batches - before.batches;
    let confirmed = confirmed.load(Ordering::Relaxed);
    let kind = if acks { ", acknowledged" } else { "" };
    let each =
        Duration::from_nanos((after.sync_nanos_total - before.sync_nanos_total) / batches.max(1));
    println!(
        "{PUBLISHERS} publishers, {window} open{kind}: {:.0} confirms/s, {:.0} batches/s, {:.1} in \
         a batch, {each:?} for it",
        confirmed as f64 / took,
        batches as f64 / took,
        confirmed as f64 / batches as f64,
    );
}

fn read(store: &Arc<SqlStore>, end: u64) {
    let limit = ReadLimit { messages_max: 1000, bytes_max: 1 << 20 };
    let (started, mut from, mut count) = (Instant::now(), Seq(0), 0);
    while from.0 < end && started.elapsed() < RUN {
        let page = wait(|reply| store.read(LOG, from, limit, reply)).unwrap();
        count += page.messages.len();
        let Some(next) = page.next else { break };
        from = next;
    }
    let took = started.elapsed().as_secs_f64();
    println!("read in pages of 1000: {:.0} messages/s of {count}", count as f64 / took);
}

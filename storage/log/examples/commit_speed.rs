//! Measures the log on a real disk: `cargo run --release -p polymq-log --example commit_speed DIR`.
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

use polymq_log::{LogConfig, LogStore};
use polymq_store::{Committer, LogId, OwnerId, Seq, ShardId, Store, wait};

const LOG: LogId = LogId(1);
const RUN: Duration = Duration::from_secs(5);

fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn main() {
    let dir = std::env::args().nth(1).expect("the directory to write to");
    let on_fatal = |why: &str| panic!("{why}");
    let store = Arc::new(LogStore::at(dir, LogConfig::default(), on_fatal).unwrap());
    let started = Instant::now();
    let opened = wait(|reply| store.open(ShardId(0), OwnerId(rand_owner()), reply)).unwrap();
    let live = opened.logs.first().map_or(0, |log| log.live_count);
    println!("open with {live} live messages: {:?}", started.elapsed());
    let committer = Committer::new(store, ShardId(0), &opened);
    committer.set_clock(nanos);
    let next = AtomicU64::new(opened.logs.first().map_or(0, |log| log.next_seq.0));
    committer.append(|w| w.log_create(LOG, "speed"));
    appends(&committer, &next);
    large_batches(&committer, &next);
    for publishers in [1, 50] {
        waiting_publishers(&committer, &next, publishers);
    }
    // The next run opens with this backlog.
    for _ in 0..1_000_000 {
        publish(&committer, &next, &[7; 118]);
    }
    let (done, closed) = channel();
    committer.close(move |result| done.send(result).unwrap());
    closed.recv().unwrap().unwrap();
}

fn rand_owner() -> u128 {
    u128::from(std::process::id()) << 64 | u128::from(nanos())
}

fn publish(committer: &Committer, next: &AtomicU64, body: &[u8]) {
    let seq = next.fetch_add(1, Ordering::Relaxed);
    committer.append(|w| w.publish(LOG, Seq(seq), 0, 0, &[b"properties"], body));
}

fn settle(committer: &Committer, next: &AtomicU64) {
    let last = next.load(Ordering::Relaxed);
    let (batch, ()) = committer.append(|w| w.purge(LOG, Seq(last)));
    let (sender, durable) = channel();
    committer.when_durable(batch, move |result| sender.send(result).unwrap());
    committer.kick();
    durable.recv().unwrap().unwrap();
}

/// One thread appends messages of 128 bytes to the open batch; nothing waits.
fn appends(committer: &Committer, next: &AtomicU64) {
    const COUNT: u32 = 1_000_000;
    let (started, mut best) = (Instant::now(), f64::MAX);
    for _ in 0..10 {
        let part = Instant::now();
        for _ in 0..COUNT / 10 {
            publish(committer, next, &[7; 118]);
        }
        best = best.min(part.elapsed().as_secs_f64());
        settle(committer, next);
    }
    let rate = f64::from(COUNT / 10) / best;
    println!("append of 128 B: {rate:.0}/s at best; all with syncs {:?}", started.elapsed());
}

fn large_batches(committer: &Committer, next: &AtomicU64) {
    let before = committer.stats();
    for _ in 0..50 {
        for _ in 0..8192 {
            publish(committer, next, &[7; 86]);
        }
        settle(committer, next);
    }
    let after = committer.stats();
    let nanos = (after.sync_nanos_total - before.sync_nanos_total) / 50;
    println!(
        "batch of 8192 records, 1 MiB: {:?} from submit to answer",
        Duration::from_nanos(nanos)
    );
}

fn waiting_publishers(committer: &Arc<Committer>, next: &AtomicU64, publishers: u32) {
    let before = committer.stats();
    let (started, confirmed) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..publishers {
            scope.spawn(|| {
                while started.elapsed() < RUN {
                    let seq = next.fetch_add(1, Ordering::Relaxed);
                    let (batch, _) = committer
                        .append(|w| w.publish(LOG, Seq(seq), 0, 0, &[b"properties"], &[7; 118]));
                    let (sender, durable) = channel();
                    committer.when_durable(batch, move |result| sender.send(result).unwrap());
                    committer.kick();
                    durable.recv().unwrap().unwrap();
                    confirmed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let after = committer.stats();
    let batches = after.batches - before.batches;
    let confirmed = confirmed.load(Ordering::Relaxed);
    println!(
        "{publishers} waiting publishers: {} confirms/s, {} syncs/s, {:.1} a sync, {:?} a sync",
        confirmed / RUN.as_secs(),
        batches / RUN.as_secs(),
        confirmed as f64 / batches as f64,
        Duration::from_nanos((after.sync_nanos_total - before.sync_nanos_total) / batches.max(1)),
    );
    settle(committer, next);
}

//! Measures a deep backlog on a real disk:
//! `cargo run --release -p polymq-log --example deep_backlog DIR [MESSAGES [LOGS]]`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc::channel},
    time::{Duration, Instant},
};

use polymq_log::{LogConfig, LogStore};
use polymq_store::{
    Committer, LogId, Opened, OwnerId, ReadLimit, Seq, ShardBatch, ShardId, Store, wait,
};

const BODY: [u8; 118] = [7; 118];
const PAGE: ReadLimit = ReadLimit { messages_max: 1000, bytes_max: 1024 * 1024 };
const WAL_BYTES_OPEN_MAX: usize = 8 * 1024 * 1024;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("the directory to write to"));
    let count = args.next().map_or(20_000_000, |count| count.parse().unwrap());
    let logs = args.next().map_or(1, |count| count.parse().unwrap());
    println!("resident at start: {}", resident());
    fill(&dir, count, logs);
    println!("on disk: {} MB, live: {} MB", disk_bytes(&dir) / 1_000_000, count * 128 / 1_000_000);
    let (store, opened) = open(&dir);
    assert_eq!(opened.logs.iter().map(|log| log.live_count).sum::<u64>(), count);
    println!("resident after reopening: {}", resident());
    drain(&store, &opened, count);
    println!("on disk after draining: {} MB", disk_bytes(&dir) / 1_000_000);
    println!("resident after draining: {}", resident());
}

fn open(dir: &Path) -> (Arc<LogStore>, Opened) {
    let started = Instant::now();
    let on_fatal = |why: &str| panic!("{why}");
    let store = Arc::new(LogStore::at(dir, LogConfig::default(), on_fatal).unwrap());
    let owner = u128::from(std::process::id()) << 64 | u128::from(disk_bytes(dir));
    let opened = wait(|reply| store.open(ShardId(0), OwnerId(owner), reply)).unwrap();
    println!("open: {:?}", started.elapsed());
    (store, opened)
}

fn fill(dir: &Path, count: u64, logs: u32) {
    let (store, opened) = open(dir);
    let committer = Committer::new(store, ShardId(0), &opened);
    committer.set_clock(nanos);
    for log in 0..logs {
        committer.append(|w| w.log_create(LogId(log), "deep"));
    }
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut resident_max = 0;
    for n in 0..count {
        let (log, seq) = (LogId((n % u64::from(logs)) as u32), Seq(n / u64::from(logs)));
        let (batch, _) = committer.append(|w| w.publish(log, seq, 0, 0, &[b"properties"], &BODY));
        if n % 1000 == 0 {
            committer.kick();
            resident_max = resident_max.max(resident_bytes());
            if committer.pending_bytes() > WAL_BYTES_OPEN_MAX {
                durable(&committer, batch);
            }
        }
    }
    let (batch, ()) = committer.append(|w| w.meta_put("last", b""));
    durable(&committer, batch);
    report("filled", count, started, cpu);
    let stats = committer.stats();
    let mean = Duration::from_nanos(stats.sync_nanos_total / stats.batches.max(1));
    let max = Duration::from_nanos(stats.sync_nanos_max);
    println!("{} batches, {mean:.1?} each, {max:.1?} at most", stats.batches);
    println!("resident at most: {} MB, then: {}", resident_max / 1_000_000, resident());
    let (done, closed) = channel();
    committer.close(move |result| done.send(result).unwrap());
    closed.recv().unwrap().unwrap();
}

fn durable(committer: &Committer, batch: ShardBatch) {
    let (sender, answer) = channel();
    committer.when_durable(batch, move |result| sender.send(result).unwrap());
    committer.kick();
    answer.recv().unwrap().unwrap();
}

fn drain(store: &Arc<LogStore>, opened: &Opened, count: u64) {
    let committer = Committer::new(store.clone(), ShardId(0), opened);
    let (started, cpu) = (Instant::now(), cpu_time());
    let (mut drained, mut batch) = (0, ShardBatch(0));
    for log in &opened.logs {
        let mut from = Some(Seq(0));
        while let Some(at) = from {
            let page = wait(|reply| store.read(log.id, at, PAGE, reply)).unwrap();
            let (Some(first), Some(last)) = (page.messages.first(), page.messages.last()) else {
                break;
            };
            drained += page.messages.len() as u64;
            (batch, ()) = committer.append(|w| w.ack(log.id, &[(first.seq, last.seq)]));
            committer.kick();
            from = page.next;
        }
    }
    durable(&committer, batch);
    assert_eq!(drained, count);
    report("drained", count, started, cpu);
    let (done, closed) = channel();
    committer.close(move |result| done.send(result).unwrap());
    closed.recv().unwrap().unwrap();
}

fn report(what: &str, count: u64, started: Instant, cpu_before: Duration) {
    let (wall, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu_before));
    let rate = |time: Duration| count as f64 / time.as_secs_f64() / 1e6;
    println!(
        "{what} {count} messages: {wall:.1?}, {:.2} M/s; {cpu:.1?} of CPU, {:.2} M/s of CPU",
        rate(wall),
        rate(cpu)
    );
}

fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What all threads of this process have used, in ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn resident() -> String {
    format!("{} MB", resident_bytes() / 1_000_000)
}

fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() { disk_bytes(&entry.path()) } else { meta.len() }
    };
    entries.map(|entry| bytes(entry.unwrap())).sum()
}

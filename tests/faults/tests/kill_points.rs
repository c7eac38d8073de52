//! Case K3: the process ends exactly at a system call that matters.
//!
//! `strace` sends SIGKILL when a thread enters its n-th call of a kind, so that this call is not
//! done and the one before it is: a kill at the sync is one after the write, a kill at the confirm
//! one after the sync.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt, time::Duration};

use polymq_faults::{
    broker::Home,
    disk::has,
    load::Run,
    report::{say, setting, skip},
    strace::killer,
};

/// Small files, so that flushes and merges come often.
const SMALL: [&str; 2] = ["--set", "storage.file.segment_size=1MiB"];
const SQLITE: [&str; 2] = ["--set", "storage.backend=sqlite"];
/// A point that is not reached for this long is left out.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where the process ends.
struct Point {
    name: &'static str,
    calls: &'static str,
    /// Files of the store that the calls are about, `*` for any number; empty for all files.
    files: &'static [&'static str],
    /// Which calls of one thread.
    when: &'static [u32],
}

const fn point(
    name: &'static str,
    calls: &'static str,
    files: &'static [&'static str],
    when: &'static [u32],
) -> Point {
    Point { name, calls, files, when }
}

const WAL: &[&str] = &["store/wal/*.wal"];
const SEGMENT: &[&str] = &["store/seg/*.seg"];
const BASE: &[&str] = &["store/base/*.base"];
const MANIFEST: &[&str] = &["store/MANIFEST-*.tmp"];
const CURRENT: &[&str] = &["store/CURRENT.tmp"];
const FOLDERS: &[&str] = &["store/", "store/wal", "store/seg", "store/base"];
const SYNC: &str = "fdatasync,fsync";

const POINTS: [Point; 17] = [
    point("write to the log", "pwritev,pwrite64", WAL, &[7, 60, 333]),
    point("sync of the log", "fdatasync", WAL, &[3, 50, 222]),
    point("file of the log prepared", "fsync", WAL, &[1, 2, 5]),
    point("confirm", "sendto,writev,sendmsg,write", &[], &[40, 177, 400]),
    point("write to a segment", "pwritev", SEGMENT, &[1, 2, 9]),
    point("sync of a segment", SYNC, SEGMENT, &[1, 2, 5]),
    point("write to a base file", "pwritev", BASE, &[1, 3, 5]),
    point("sync of a base file", SYNC, BASE, &[1, 2, 3]),
    point("write of the manifest", "pwritev", MANIFEST, &[1, 2, 3]),
    point("sync of the manifest", SYNC, MANIFEST, &[1, 2, 3]),
    point("write of CURRENT", "pwritev", CURRENT, &[1, 2, 3]),
    point("rename of the manifest", "rename", MANIFEST, &[1, 2, 3]),
    point("rename of CURRENT", "rename", CURRENT, &[1, 2, 3]),
    point("sync of a directory", "fsync", FOLDERS, &[1, 4, 9, 14]),
    point("file of the log deleted", "unlink", WAL, &[1, 2, 4]),
    point("segment deleted after a merge", "unlink", SEGMENT, &[1, 2, 5]),
    point("base file deleted", "unlink", BASE, &[1, 2]),
];

const SQLITE_LOG: &[&str] = &["polymq.db-wal"];
const SQLITE_FILE: &[&str] = &["polymq.db"];

const POINTS_OF_SQLITE: [Point; 5] = [
    point("write to the write-ahead file", "write,pwrite64", SQLITE_LOG, &[7, 60, 333]),
    point("sync of the write-ahead file", SYNC, SQLITE_LOG, &[3, 20, 77]),
    point("confirm", "sendto,writev,sendmsg,write", &[], &[40, 177, 400]),
    point("write of a checkpoint", "write,pwrite64", SQLITE_FILE, &[1, 9, 200]),
    point("sync of a checkpoint", SYNC, SQLITE_FILE, &[1, 2]),
];

#[test]
fn k03_a_kill_at_each_point_of_writing_loses_nothing() {
    kill_at_each("K3", 0x6B33_0000, &SMALL, &POINTS);
}

#[test]
fn k03_with_sqlite() {
    kill_at_each("K3 with SQLite", 0x6B33_0001, &SQLITE, &POINTS_OF_SQLITE);
}

fn kill_at_each(case: &str, number: u64, flags: &[&str], points: &[Point]) {
    if !has("strace") {
        return skip(case, "there is no strace");
    }
    let rounds = setting("POLYMQ_ROUNDS", 1);
    let mut home = Home::new().unwrap();
    home.always(flags);
    let run = Run::new(number, 1500);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let mut hits = BTreeMap::new();
    let broker = run.under_load(|| {
        run.stage.down();
        broker.kill();
        let sweep =
            points.iter().flat_map(|point| point.when.iter().map(move |when| (point, *when)));
        for (point, when) in (0..rounds).flat_map(|_| sweep.clone()) {
            let words = killer(&home, point.calls, point.files, when);
            home.wrap(&words.iter().map(String::as_str).collect::<Vec<_>>());
            let hit = hits.entry(point.name).or_insert(0);
            // It may end before it is ready, and that is another kill during recovery.
            let Ok(mut started) = home.start() else {
                *hit += 1;
                continue;
            };
            run.stage.up(started.ports);
            let end = started.ended_within(PATIENCE).unwrap();
            run.stage.down();
            match end {
                Some(status) => {
                    assert_eq!(status.signal(), Some(9), "{status}: {}", home.log());
                    *hit += 1;
                }
                None => started.kill(),
            }
        }
        home.wrap(&[]);
        broker = home.start().unwrap();
        run.stage.up(broker.ports);
        broker
    });
    let total: u32 = hits.values().sum();
    for (name, hit) in &hits {
        say(&format!("{case}: {hit} kills at: {name}"));
    }
    let found = run.finish(case, broker, home).unwrap();
    say(&format!("{case}: {total} kills at {} points; {found}", hits.len()));
    assert!(hits.values().all(|hit| *hit > 0), "a point was never reached: {hits:?}");
}

//! Copies of a store that is being written to.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use polymq_store::{
    Close, Committer, LogId, OwnerId, ReadLimit, Seq, ShardId, Store, StoreError, wait,
};
use tempfile::TempDir;

use super::SMALL;
use crate::{LogConfig, LogStore, back_up, examine};

const LOG: LogId = LogId(1);
const ALL: ReadLimit = ReadLimit { messages_max: u32::MAX, bytes_max: u64::MAX };

fn opened(store: Arc<LogStore>) -> (Arc<LogStore>, Arc<Committer>) {
    let opened = wait(|reply| store.open(ShardId(0), OwnerId(7), reply)).unwrap();
    let committer = Committer::new(store.clone(), ShardId(0), &opened);
    (store, committer)
}

fn store_at(path: &Path) -> (Arc<LogStore>, Arc<Committer>) {
    opened(Arc::new(LogStore::at(path, SMALL, |why| panic!("{why}")).unwrap()))
}

fn write(committer: &Committer, write: impl FnOnce(&mut polymq_store::BatchWriter<'_>)) {
    let (batch, ()) = committer.append(write);
    committer.kick();
    wait(|reply| committer.when_durable(batch, reply)).unwrap();
}

/// The positions of the messages in a copy, which must be sound.
fn kept(copy: &Path) -> Vec<u64> {
    let found = examine(copy, SMALL, &mut |_, _| {}).unwrap();
    assert_eq!(found.findings, []);
    let (store, _) = opened(Arc::new(LogStore::untouched(copy, SMALL).unwrap()));
    let page = wait(|reply| store.read(LOG, Seq(0), ALL, reply)).unwrap();
    wait(|reply| store.close(Close::Abandon, reply)).unwrap();
    page.messages.iter().map(|message| message.seq.0).collect()
}

/// Ends the writer, also when the test fails: it would wait for the writer for good otherwise.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn copies_of_a_store_in_use_open_with_all_that_was_confirmed_before() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store");
    let (store, committer) = store_at(&path);
    write(&committer, |w| w.log_create(LOG, "queue"));
    let (confirmed, acked, ends) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let ending = Ends(&ends);
        scope.spawn(|| {
            let mut seq = 0;
            while !ends.load(Ordering::Relaxed) {
                write(&committer, |w| {
                    for _ in 0..10 {
                        w.publish(LOG, Seq(seq), 0, 0, &[], &seq.to_le_bytes().repeat(20));
                        seq += 1;
                    }
                });
                confirmed.store(seq, Ordering::Relaxed);
                if seq % 400 == 0 {
                    // Most of it goes, so that segments are merged and deleted.
                    acked.store(seq - 100, Ordering::Relaxed);
                    write(&committer, |w| w.ack(LOG, &[(Seq(0), Seq(seq - 101))]));
                }
            }
        });
        for number in 0..40 {
            let copy = dir.path().join(format!("copy-{number}"));
            std::fs::create_dir(&copy).unwrap();
            let before = confirmed.load(Ordering::Relaxed);
            back_up(&path, &copy, &mut |_, _| {}).unwrap();
            let may_be_gone = acked.load(Ordering::Relaxed);
            let found = kept(&copy);
            let first = found.first().copied().unwrap_or(before);
            assert!(first <= may_be_gone, "copy {number} begins with {first}");
            let expected: Vec<u64> = (first..first + found.len() as u64).collect();
            assert_eq!(found, expected, "copy {number}");
            let end = first + found.len() as u64;
            assert!(end >= before, "copy {number}: {before} were confirmed, it ends with {end}");
            std::fs::remove_dir_all(&copy).unwrap();
        }
        drop(ending);
    });
    wait(|reply| committer.close(reply)).unwrap();
    drop((store, committer));
}

#[test]
fn copy_can_be_written_to_and_leaves_the_store_alone() {
    let dir = TempDir::new().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    std::fs::create_dir(&copy).unwrap();
    let (store, committer) = store_at(&path);
    let publish = |committer: &Committer, seq| {
        write(committer, |w| {
            w.publish(LOG, Seq(seq), 0, 0, &[], &[7; 1000]);
        });
    };
    write(&committer, |w| w.log_create(LOG, "queue"));
    (0..300).for_each(|seq| publish(&committer, seq));
    back_up(&path, &copy, &mut |_, _| {}).unwrap();
    let (other, other_committer) = store_at(&copy);
    (300..600).for_each(|seq| publish(&other_committer, seq));
    wait(|reply| other_committer.close(reply)).unwrap();
    drop((other, other_committer));
    (300..400).for_each(|seq| publish(&committer, seq));
    wait(|reply| committer.close(reply)).unwrap();
    drop((store, committer));
    assert!(kept(&copy).into_iter().eq(0..600));
    assert!(kept(&path).into_iter().eq(0..400));
}

#[test]
fn damaged_store_is_not_copied_as_if_it_were_sound() {
    let dir = TempDir::new().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    std::fs::create_dir(&copy).unwrap();
    let refused = back_up(dir.path(), &copy, &mut |_, _| {});
    assert!(matches!(&refused, Err(StoreError::Damaged(why)) if why.contains("no store")));
    let config = LogConfig { scrub_secs: 0, ..SMALL };
    let (store, committer) =
        opened(Arc::new(LogStore::at(&path, config, |why| panic!("{why}")).unwrap()));
    write(&committer, |w| w.log_create(LOG, "queue"));
    for seq in 0..300 {
        write(&committer, |w| {
            w.publish(LOG, Seq(seq), 0, 0, &[], &[7; 1000]);
        });
    }
    wait(|reply| committer.close(reply)).unwrap();
    drop((store, committer));
    // All of them, as some may not be needed any more.
    for segment in std::fs::read_dir(path.join("seg")).unwrap() {
        std::fs::remove_file(segment.unwrap().path()).unwrap();
    }
    let refused = back_up(&path, &copy, &mut |_, _| {});
    assert!(
        matches!(&refused, Err(StoreError::Damaged(why)) if why.contains(".seg is missing")),
        "{refused:?}"
    );
}

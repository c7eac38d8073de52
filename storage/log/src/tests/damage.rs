//! Files that are not what they were.

use polymq_store::{LogId, ReadLimit, Seq, StoreError};

use super::{commit, epoch, model::Model, open};
use crate::{
    core::LogCore,
    error::Failure,
    messages::At,
    part::Source,
    read,
    sim::{Rng, SimDisk},
};

/// A disk with some confirmed batches, and what they hold.
fn filled(batches: u32) -> (SimDisk, LogCore, Model) {
    let disk = SimDisk::new(1);
    let mut core = open(&disk).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng::new(1));
    for _ in 0..batches {
        let (batch, next) = model.random_batch(&mut rng, epoch(&core));
        core.commit(&batch, polymq_store::Durability::Sync).unwrap();
        model = next;
    }
    (disk, core, model)
}

/// Where the last batch of a file starts.
fn last_batch(bytes: &[u8]) -> usize {
    (0..bytes.len()).step_by(4096).rfind(|at| bytes[*at..].starts_with(b"PQBT")).unwrap()
}

fn refused(disk: &SimDisk) -> Failure {
    let before = disk.snapshot();
    let Err(failure) = open(disk) else { panic!("a damaged store was opened") };
    assert!(disk.snapshot() == before, "a refused store stays untouched");
    failure
}

#[test]
fn damaged_confirmed_batch_is_reported_and_nothing_is_touched() {
    let (disk, core, _) = filled(10);
    drop(core);
    disk.kill_process();
    disk.damage("wal/1.wal", 4096 + 70);
    let Failure::Damaged(what) = refused(&disk) else { panic!("not reported as damage") };
    assert!(what.contains("wal/1.wal is not readable from byte 4096 on"), "{what}");
    assert!(what.contains("batches 1 to"), "{what}");
}

#[test]
fn torn_last_batch_is_cut() {
    let (disk, core, _) = filled(10);
    let number = core.head_number();
    drop(core);
    disk.kill_process();
    let name = format!("wal/{number}.wal");
    disk.damage(&name, last_batch(&disk.snapshot()[&name]) + 70);
    let found = Model::of(&open(&disk).unwrap());
    assert_eq!(found.last_batch, 9);
}

#[test]
fn missing_last_batch_after_a_clean_stop_is_damage() {
    let (disk, mut core, _) = filled(10);
    core.close_clean().unwrap();
    let number = core.head_number();
    drop(core);
    let name = format!("wal/{number}.wal");
    disk.damage(&name, last_batch(&disk.snapshot()[&name]) + 70);
    assert!(matches!(refused(&disk), Failure::Damaged(_)));
}

#[test]
fn every_damaged_byte_of_a_base_file_is_noticed() {
    let disk = SimDisk::new(1);
    let mut core = open(&disk).unwrap();
    commit(&mut core, |w| w.log_create(LogId(1), "queue"));
    for seq in 0..100 {
        commit(&mut core, |w| {
            w.publish(LogId(1), Seq(seq), 0, 0, &[], b"body");
        });
    }
    while core.tidy().unwrap() {}
    let base = core.flusher.lock().manifest.bases[0];
    drop(core);
    disk.kill_process();
    let name = format!("base/{}.base", base.file_seq);
    for at in [0, 30, 4096, 4096 + 60, 4096 + 64, 4096 + 99] {
        disk.damage(&name, at);
        assert!(matches!(refused(&disk), Failure::Damaged(_)), "byte {at}");
        disk.damage(&name, at);
    }
    assert!(open(&disk).is_ok());
}

#[test]
fn unreadable_message_is_named_and_the_others_are_read() {
    let (disk, core, model) = filled(10);
    let (id, log) = model.logs.iter().find(|(_, log)| log.messages.len() > 1).unwrap();
    let (first, second) = {
        let mut seqs = log.messages.keys();
        (*seqs.next().unwrap(), *seqs.next().unwrap())
    };
    let loc = {
        let shared = core.shared.lock();
        let messages = shared.state.log(LogId(*id)).unwrap().messages();
        match messages.next_live(Seq(first)).unwrap().1 {
            At::Tail(index) => *index.at(Seq(first)).unwrap(),
            At::Part(part) => {
                let Source::Wal(_, index) = &part.source else { panic!("it was flushed") };
                *index.at(Seq(first)).unwrap()
            }
        }
    };
    let offset = usize::try_from(loc.offset()).unwrap();
    disk.damage(&format!("wal/{}.wal", loc.file()), offset + 33);
    let limit = ReadLimit { messages_max: 1, bytes_max: u64::MAX };
    let read = |seq| read::read(&core.shared, LogId(*id), Seq(seq), limit);
    let Err(Failure::Unreadable(what)) = read(first) else { panic!("a damaged message was read") };
    assert_eq!((what.log, what.first, what.last), (LogId(*id), Seq(first), Seq(first)));
    assert_eq!(read(second).unwrap().messages[0].seq, Seq(second));
}

#[test]
fn newer_format_is_refused_untouched() {
    let (disk, core, _) = filled(3);
    drop(core);
    let mut bytes = disk.snapshot()["STORE"].clone();
    bytes[4] = 2;
    let crc = polymq_store::record::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    disk.overwrite("STORE", &bytes);
    let failure = refused(&disk);
    assert!(matches!(failure, Failure::TooNew(_)), "{failure}");
    assert!(matches!(StoreError::from(failure), StoreError::Refused(_)));
}

#[test]
fn unknown_files_are_kept_aside() {
    let (disk, core, model) = filled(3);
    drop(core);
    for name in ["notes.txt", "wal/old.wal", "base/7.base", "wal/x"] {
        disk.overwrite(name, b"somebody may want this");
    }
    assert_eq!(Model::of(&open(&disk).unwrap()), model);
    let files = disk.snapshot();
    let kept: Vec<_> = files.keys().filter(|name| name.starts_with("quarantine/")).collect();
    assert_eq!(kept.len(), 4, "{kept:?}");
    assert!(kept.iter().all(|name| files[*name] == b"somebody may want this"));
}

#[test]
fn second_process_is_refused_by_name() {
    let (disk, core, _) = filled(1);
    let Err(Failure::Held(owner)) = open(&disk) else { panic!("two owners") };
    assert!(owner.starts_with("process "));
    drop(core);
    assert!(open(&disk).is_ok());
}

//! Segments: what is read from them, what goes, and what happens when they are damaged.

use polymq_store::{LogId, MessageRef, ReadLimit, Seq};

use super::{commit, model::Model, open};
use crate::{
    core::LogCore,
    error::{Failure, Unreadable},
    names::seg_name,
    part::Source,
    read, scrub,
    sim::{Rng, SimClock, SimDisk},
};

const LOG: LogId = LogId(1);
const ALL: ReadLimit = ReadLimit { messages_max: u32::MAX, bytes_max: u64::MAX };

/// A store whose first messages are in segments.
fn flushed(disk: &SimDisk, messages: u64, size: impl Fn(u64) -> usize) -> LogCore {
    let mut core = open(disk).unwrap();
    commit(&mut core, |w| w.log_create(LOG, "queue"));
    for first in (0..messages).step_by(50) {
        commit(&mut core, |w| {
            for seq in first..first + 50 {
                w.publish(LOG, Seq(seq), seq, 2, &[b"props"], &vec![1; size(seq)]);
            }
        });
    }
    core.roll(1).unwrap();
    settle(&mut core);
    core
}

fn settle(core: &mut LogCore) {
    while core.tidy().unwrap() {}
}

fn reopened(core: LogCore, disk: &SimDisk) -> LogCore {
    drop(core);
    disk.kill_process();
    open(disk).unwrap()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let files = disk.snapshot();
    files.keys().filter(|name| name.starts_with("seg/")).cloned().collect()
}

fn seqs(core: &LogCore) -> Vec<u64> {
    let page = read::read(&core.shared, LOG, Seq(0), ALL).unwrap();
    page.messages.iter().map(|message| message.seq.0).collect()
}

/// Where message 0 stands.
fn first_segment(core: &LogCore) -> String {
    let shared = core.shared.lock();
    let messages = shared.state.log(LOG).unwrap().messages();
    let Source::File(place) = &messages.parts()[0].source else { panic!("not flushed") };
    seg_name(place.file.number())
}

fn unreadable(core: &LogCore, seq: u64) -> Unreadable {
    match read::read(&core.shared, LOG, Seq(seq), ALL) {
        Err(Failure::Unreadable(what)) => *what,
        other => panic!("message {seq} was read: {other:?}"),
    }
}

#[test]
fn acknowledgements_in_random_order_agree_with_a_model() {
    const COUNT: u64 = 3_000;
    let disk = SimDisk::new(1);
    let mut core = flushed(&disk, COUNT, |seq| usize::try_from(seq % 90).unwrap());
    let mut rng = Rng::new(1);
    let mut live: Vec<u64> = (0..COUNT).collect();
    for round in 0..40 {
        for _ in 0..70 {
            let at = usize::try_from(rng.below(live.len() as u64)).unwrap();
            let seq = Seq(live.remove(at));
            commit(&mut core, |w| w.ack(LOG, &[(seq, seq)]));
            if rng.chance(10) {
                core.tidy().unwrap();
            }
        }
        if round % 8 == 7 {
            core = reopened(core, &disk);
        }
        // Counts, bytes and contents are compared with each other there.
        let log = &Model::of(&core).logs[&LOG.0];
        assert!(log.messages.keys().copied().eq(live.iter().copied()), "round {round}");
    }
    settle(&mut core);
    let bytes: usize = segments(&disk).iter().map(|name| disk.snapshot()[name].len()).sum();
    assert!(bytes < 200 * 1024, "{} messages take {bytes} bytes of segments", live.len());
}

#[test]
fn segments_of_acknowledged_messages_go() {
    let disk = SimDisk::new(2);
    let mut core = flushed(&disk, 2_000, |_| 100);
    assert!(segments(&disk).len() > 3);
    commit(&mut core, |w| w.ack(LOG, &[(Seq(0), Seq(1_998))]));
    core.roll(1).unwrap();
    settle(&mut core);
    assert_eq!(segments(&disk).len(), 1, "one message is left");
    let mut core = reopened(core, &disk);
    assert_eq!(seqs(&core), [1_999]);
    commit(&mut core, |w| w.log_delete(LOG));
    core.roll(1).unwrap();
    settle(&mut core);
    assert!(segments(&disk).is_empty());
}

#[test]
fn one_old_message_pins_no_more_than_its_own_segment() {
    let disk = SimDisk::new(3);
    let mut core = flushed(&disk, 50, |_| 100);
    let mut used_max = 0;
    for seq in 50..6_000 {
        commit(&mut core, |w| {
            w.publish(LOG, Seq(seq), 0, 0, &[], &[3; 400]);
            if seq > 60 {
                w.ack(LOG, &[(Seq(seq - 10), Seq(seq - 10)), (Seq(1), Seq(49))]);
            }
        });
        core.tidy().unwrap();
        used_max = used_max.max(disk.used());
    }
    assert!(used_max < 16 * super::SMALL.wal_file_bytes, "{used_max} bytes used");
    assert_eq!(seqs(&reopened(core, &disk))[0], 0);
}

#[test]
fn many_small_logs_share_segments() {
    let disk = SimDisk::new(4);
    let mut core = open(&disk).unwrap();
    for round in 0..12 {
        commit(&mut core, |w| {
            for log in 1..=40 {
                if round == 0 {
                    w.log_create(LogId(log), "small");
                }
                w.publish(LogId(log), Seq(round), 0, 0, &[b"props"], &[1; 20]);
            }
        });
        core.roll(1).unwrap();
        settle(&mut core);
    }
    assert!(segments(&disk).len() < 6, "{:?}", segments(&disk));
    let core = reopened(core, &disk);
    let model = Model::of(&core);
    assert!(model.logs.values().all(|log| log.messages.keys().copied().eq(0..12)));
    let at: Vec<_> = (1..=40).map(|log| MessageRef { log: LogId(log), seq: Seq(5) }).collect();
    assert_eq!(read::read_at(&core.shared, &at).unwrap().messages.len(), 40);
}

#[test]
fn damaged_segment_is_named_and_what_stands_behind_is_read() {
    let disk = SimDisk::new(5);
    let core = flushed(&disk, 300, |_| 400);
    let core = reopened(core, &disk);
    let name = first_segment(&core);
    disk.damage(&name, 4096 + 100);
    let what = unreadable(&core, 0);
    assert_eq!((what.first, what.last, what.messages), (Seq(0), Seq(0), 1));
    assert_eq!((what.file, what.offset, what.bytes), (name, 4096, 440));
    // The page before ends at it, and reading goes on behind it.
    let next = read::read(&core.shared, LOG, Seq(1), ALL).unwrap();
    assert_eq!((next.messages.len(), next.next), (299, None));
    let limit = ReadLimit { messages_max: 1, bytes_max: u64::MAX };
    let behind = read::read(&core.shared, LOG, Seq(299), limit).unwrap();
    assert_eq!(behind.messages[0].seq, Seq(299));
    // Flushing and merging go on with the other segments.
    let mut core = core;
    commit(&mut core, |w| w.ack(LOG, &[(Seq(1), Seq(250))]));
    core.roll(1).unwrap();
    for _ in 0..200 {
        core.tidy().unwrap();
    }
    let core = reopened(core, &disk);
    assert!(read::read(&core.shared, LOG, Seq(251), ALL).is_ok());
    assert!(read::read(&core.shared, LOG, Seq(0), ALL).is_err());
}

#[test]
fn records_behind_a_bad_length_are_read() {
    let disk = SimDisk::new(9);
    let core = reopened(flushed(&disk, 300, |seq| 300 + usize::try_from(seq % 70).unwrap()), &disk);
    let name = first_segment(&core);
    let bytes = disk.snapshot()[&name].clone();
    let record = |seq: u64| {
        let mut at = 4096;
        for before in 0..seq {
            at += (32 + 5 + 300 + usize::try_from(before % 70).unwrap()).next_multiple_of(8);
        }
        at
    };
    assert_eq!(bytes[record(20) + 16], 20);
    // The lengths of three records, two of them neighbours.
    for seq in [20, 30, 31] {
        disk.damage(&name, record(seq) + 4);
    }
    for (first, last) in [(20, 20), (30, 31)] {
        let what = unreadable(&core, first);
        assert_eq!((what.first, what.last), (Seq(first), Seq(last)));
        let (from, to) = (record(first) as u64, record(last + 1) as u64);
        assert_eq!((what.offset, what.bytes), (from, to - from));
        let page = read::read(&core.shared, LOG, Seq(last + 1), ALL).unwrap();
        assert_eq!(page.messages[0].seq, Seq(last + 1));
    }
    assert_eq!(unreadable(&core, 31).first, Seq(31));
    let limit = ReadLimit { messages_max: 1, bytes_max: u64::MAX };
    for seq in (0..300).filter(|seq| ![20, 30, 31].contains(seq)) {
        let page = read::read(&core.shared, LOG, Seq(seq), limit).unwrap();
        assert_eq!(page.messages[0].seq, Seq(seq));
    }
}

#[test]
fn what_stands_before_the_end_of_a_segment_that_was_cut_is_read() {
    let disk = SimDisk::new(14);
    let core = flushed(&disk, 300, |_| 400);
    let name = first_segment(&core);
    drop(core);
    disk.kill_process();
    let mut bytes = disk.snapshot()[&name].clone();
    // In the middle of message 17.
    bytes.truncate(4096 + 17 * 440 + 100);
    disk.lose(&name);
    disk.overwrite(&name, &bytes);
    let core = open(&disk).unwrap();
    let (mut from, mut found) = (Seq(0), Vec::new());
    while from < Seq(17) {
        let page = read::read(&core.shared, LOG, from, ALL).unwrap();
        found.extend(page.messages.iter().map(|message| message.seq.0));
        from = page.next.unwrap();
    }
    assert!(found.into_iter().eq(0..17));
    let what = unreadable(&core, 17);
    assert_eq!((what.first, &what.file, what.offset), (Seq(17), &name, 4096 + 17 * 440));
    let page = read::read(&core.shared, LOG, Seq(what.last.0 + 1), ALL).unwrap();
    assert_eq!(17 + what.messages + page.messages.len() as u64, 300);
}

#[test]
fn missing_segment_costs_its_messages_until_it_is_back() {
    let disk = SimDisk::new(6);
    let mut core = flushed(&disk, 300, |_| 100);
    commit(&mut core, |w| {
        w.log_create(LogId(2), "other");
        w.publish(LogId(2), Seq(0), 0, 0, &[], b"here");
    });
    let name = first_segment(&core);
    drop(core);
    disk.kill_process();
    let bytes = disk.snapshot()[&name].clone();
    disk.lose(&name);
    let core = open(&disk).unwrap();
    let missing = core.shared.lock().damages.summary();
    assert_eq!(missing.ranges, 1);
    let what = unreadable(&core, 0);
    assert_eq!((what.first, &what.file, what.messages), (Seq(0), &name, missing.messages));
    let behind = read::read(&core.shared, LOG, Seq(what.last.0 + 1), ALL).unwrap();
    assert_eq!(behind.messages.len() as u64, 300 - what.messages);
    assert_eq!(read::read(&core.shared, LogId(2), Seq(0), ALL).unwrap().messages.len(), 1);
    drop(core);
    disk.kill_process();
    disk.overwrite(&name, &bytes);
    assert_eq!(seqs(&open(&disk).unwrap()).len(), 300);
}

#[test]
fn segment_of_another_store_in_the_place_of_ours_is_damage() {
    let (disk, other) = (SimDisk::new(10), SimDisk::new(11));
    let core = reopened(flushed(&disk, 300, |_| 100), &disk);
    let fill = |core: &mut LogCore| {
        commit(core, |w| {
            w.log_create(LOG, "queue");
            (0..300).for_each(|seq| {
                w.publish(LOG, Seq(seq), seq, 2, &[b"props"], &[9; 100]);
            });
        });
        core.roll(1).unwrap();
    };
    let me = polymq_store::OwnerId(8);
    let clock = std::sync::Arc::new(SimClock);
    let disk_of_other = std::sync::Arc::new(other.clone());
    let mut theirs = LogCore::open(disk_of_other, clock, super::SMALL, me, &|_| {}).unwrap();
    fill(&mut theirs);
    settle(&mut theirs);
    let (ours, foreign) = (first_segment(&core), first_segment(&theirs));
    disk.overwrite(&ours, &other.snapshot()[&foreign]);
    assert_eq!(unreadable(&core, 0).file, ours);
}

#[test]
fn messages_that_die_while_they_are_flushed_leave_no_file() {
    let disk = SimDisk::new(7);
    let mut core = open(&disk).unwrap();
    commit(&mut core, |w| {
        w.log_create(LOG, "queue");
        w.log_create(LogId(2), "small");
        w.publish(LOG, Seq(0), 0, 0, &[], &[1; 20_000]);
        w.publish(LogId(2), Seq(0), 0, 0, &[], b"small");
    });
    core.roll(1).unwrap();
    // What is to be flushed is chosen, and not copied yet.
    assert!(core.tidy().unwrap());
    commit(&mut core, |w| {
        w.ack(LOG, &[(Seq(0), Seq(0))]);
        w.log_delete(LogId(2));
    });
    settle(&mut core);
    assert!(segments(&disk).is_empty(), "{:?}", segments(&disk));
    assert!(seqs(&reopened(core, &disk)).is_empty());
}

#[test]
fn damaged_message_of_the_log_is_flushed_as_it_is() {
    let disk = SimDisk::new(8);
    let mut core = open(&disk).unwrap();
    commit(&mut core, |w| {
        w.log_create(LOG, "queue");
        for seq in 0..30 {
            w.publish(LOG, Seq(seq), 0, 0, &[b"props"], &[1; 200]);
        }
    });
    let name = format!("wal/{}.wal", core.head_number());
    let body = disk.snapshot()[&name].windows(200).position(|bytes| bytes == [1; 200]).unwrap();
    // The records are 240 bytes long: this is the eleventh.
    disk.damage(&name, body + 10 * 240);
    core.roll(1).unwrap();
    settle(&mut core);
    assert!(!segments(&disk).is_empty());
    let core = reopened(core, &disk);
    let first = read::read(&core.shared, LOG, Seq(0), ALL).unwrap();
    assert_eq!((first.messages.len(), first.next), (10, Some(Seq(10))));
    let damaged = read::read(&core.shared, LOG, Seq(10), ALL);
    assert!(matches!(damaged, Err(Failure::Unreadable(_))));
    assert_eq!(read::read(&core.shared, LOG, Seq(11), ALL).unwrap().messages.len(), 19);
    let log = &core.opened().logs[0];
    assert_eq!((log.live_count, log.live_bytes), (30, 30 * 205));
}

#[test]
fn scrub_finds_each_damaged_message_once_and_leaves_the_others() {
    let disk = SimDisk::new(12);
    let mut core = reopened(flushed(&disk, 300, |_| 400), &disk);
    let name = first_segment(&core);
    for message in [3, 4, 9] {
        disk.damage(&name, 4096 + message * 440 + 50);
    }
    // Nobody waits for this one any more.
    commit(&mut core, |w| w.ack(LOG, &[(Seq(9), Seq(9))]));
    let config = crate::LogConfig { scrub_secs: 1, scrub_bytes_per_sec: 1, ..super::SMALL };
    for round in 1..3 {
        scrub::round(&core.shared, &config, |_| false).unwrap();
        let found = core.shared.lock().damages.summary();
        assert_eq!((found.ranges, found.messages, found.scrubs), (1, 2, round));
        assert!(found.scrubbed_bytes >= round * 300 * 440);
    }
    let kept = format!("quarantine/seg-{}.{}-{}", &name[4..], 4096 + 3 * 440, 4096 + 5 * 440);
    let files = disk.snapshot();
    assert_eq!(files[&kept], files[&name][4096 + 3 * 440..4096 + 5 * 440]);
    let report = String::from_utf8(files[&format!("{kept}.txt")].clone()).unwrap();
    assert!(report.contains("log 1, messages 3 to 4") && report.contains("`queue`"), "{report}");
}

#[test]
fn store_that_is_read_at_start_is_refused_with_what_is_damaged() {
    let disk = SimDisk::new(13);
    let core = flushed(&disk, 300, |_| 400);
    let name = first_segment(&core);
    drop(core);
    disk.kill_process();
    let strict = || {
        let config = crate::LogConfig { is_read_at_start: true, ..super::SMALL };
        let (disk, clock) = (std::sync::Arc::new(disk.clone()), std::sync::Arc::new(SimClock));
        LogCore::open(disk, clock, config, polymq_store::OwnerId(7), &|_| {})
    };
    drop(strict().unwrap());
    disk.kill_process();
    disk.damage(&name, 4096 + 440 + 50);
    let Err(Failure::Damaged(what)) = strict() else { panic!("opened") };
    let place = format!("{name}, bytes {} to {}", 4096 + 440, 4096 + 880);
    assert!(what.contains(&place) && what.contains("positions 1 to 1: 1 message"), "{what}");
    assert!(open(&disk).is_ok());
}

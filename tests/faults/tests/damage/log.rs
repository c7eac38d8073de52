//! Damage in files of the log, which hold what was confirmed last.

use std::fs;

use polymq_faults::{amqp::Amqp, report::say};

use crate::filled::{Case, End, Filled, Judged, LATE, Lost, REST, Seen, drain, fill};

const FLAGS: [[&str; 2]; 3] = [
    ["--set", "storage.file.on_damage=stop"],
    ["--set", "storage.file.on_damage=skip"],
    ["--set", "storage.file.on_damage=refuse"],
];

/// A log that is damaged is refused in every mode, and serves again after a repair. Answers the
/// words of refusal and repair, and what was lost.
fn refused(what: &str, case: &Case, names: &str) -> (String, String, Lost) {
    let said: Vec<_> = FLAGS.iter().map(|flags| case.refused(flags)).collect();
    for said in &said {
        assert!(said.contains(names), "{what}: {said}");
        assert!(said.contains("`polymq storage repair`"), "{what}: {said}");
    }
    let (code, verified) = case.storage(&["verify"]);
    assert_eq!((code, verified.contains(names)), (Some(1), true), "{what}: {verified}");
    let repaired = case.repaired();
    assert!(repaired.contains(names), "{what}: {repaired}");
    let broker = case.home.start_with(&FLAGS[2]).unwrap();
    let Judged { lost, back } = case.judge(&case.drain(&broker));
    let is_said = repaired.contains("cannot be known") || repaired.contains("nobody can tell");
    assert!(back.is_empty() || is_said, "{what}: {back:?} without a word: {repaired}");
    let (lost_count, back) = (lost.len(), back.len());
    say(&format!("K16, K17: {what}: repaired, {lost_count} messages lost, {back} came back"));
    (said.into_iter().next().unwrap(), repaired, lost)
}

/// Bytes 4096 further on, where the next batch begins when this one is short.
fn batch_of(case: &Case, n: u64) -> (String, u64) {
    let (file, at) = case.place("wal/", &LATE, n);
    (file, at / 4096 * 4096)
}

fn late(numbers: impl IntoIterator<Item = u64>) -> Lost {
    numbers.into_iter().filter(|n| n % 10 > 0).map(|n| (LATE.name, n)).collect()
}

#[test]
fn k16_a_bit_of_the_log_is_refused_and_costs_one_message() {
    for end in [End::Clean, End::Killed] {
        let filled = Filled::new(end);
        let case = filled.case();
        let (file, at) = case.place("wal/", &LATE, 15);
        case.files.flip(&file, at + 100).unwrap();
        let batch = at / 4096 * 4096;
        let (said, repaired, lost) = refused("a bit of a message", &case, &file);
        assert!(said.contains(&format!("is not readable from byte {batch} on")), "{said}");
        assert!(repaired.contains("1 of its records are lost: probably message 15"), "{repaired}");
        assert_eq!(lost, late([15]), "{repaired}");
        let kept = case.quarantine();
        assert_eq!(kept.len(), 2, "the file and a text: {kept:?}");

        let case = filled.case();
        let (file, at) = batch_of(&case, 23);
        case.files.flip(&file, at + 20).unwrap();
        let (_, repaired, lost) = refused("a bit of the header of a batch", &case, &file);
        assert_eq!(lost, Lost::new(), "all records are there: {repaired}");
    }
}

#[test]
fn k16_the_end_of_the_log_is_torn_after_a_kill_and_damage_after_a_clean_stop() {
    let last = |case: &Case| {
        let (file, at) = case.files.find("wal/", b"end").unwrap().unwrap();
        // The name of the queue comes first, in an earlier batch.
        let content = case.files.read(&file).unwrap();
        let at = content.windows(3).rposition(|bytes| bytes == b"end").unwrap_or(at as usize);
        case.files.flip(&file, at as u64).unwrap();
        file
    };
    let filled = Filled::new(End::Clean);
    let case = filled.case();
    let file = last(&case);
    refused("the last message after a clean stop", &case, &file);
    let filled = Filled::new(End::Killed);
    let case = filled.case();
    last(&case);
    // Nobody can tell this from a write that the kill has cut.
    let broker = case.home.start_with(&FLAGS[2]).unwrap();
    case.drain_all_but(&broker, &Lost::new());
    say("K16: the very last batch after a kill: cut as torn");
}

#[test]
fn k17_a_file_of_the_log_that_is_cut_zeroed_missing_or_stale_is_refused() {
    let filled = Filled::new(End::Clean);
    let behind = |from: u64| late(from..=LATE.count);

    let case = filled.case();
    let (file, at) = batch_of(&case, 20);
    case.files.cut(&file, at + 100).unwrap();
    let (_, said, lost) = refused("a file cut in the middle", &case, &file);
    assert_eq!(lost, behind(20), "{said}");

    let case = filled.case();
    let (file, at) = batch_of(&case, 17);
    case.files.zero(&file, at, 2 * 4096).unwrap();
    let (_, said, lost) = refused("two batches of zeros", &case, &file);
    assert_eq!(lost, late([17, 18]), "{said}");
    assert!(said.contains("log 6 `//late`, positions 17 to 18: whatever"), "{said}");

    let case = filled.case();
    let (file, _) = batch_of(&case, 17);
    case.files.zero(&file, 0, 4096).unwrap();
    let (_, said, lost) = refused("the first page of a file", &case, "wal/");
    assert_eq!(lost, Lost::new(), "{said}");

    let case = filled.case();
    let (file, _) = batch_of(&case, 17);
    let gone = case.standing_in(&file, (0, u64::MAX));
    case.files.lose(&file).unwrap();
    let (_, said, lost) = refused("a file that is missing", &case, "wal/");
    assert_eq!(lost, gone, "{said}");

    // The file before it, as if the disk had put a write in the wrong place.
    let case = filled.case();
    let (file, _) = batch_of(&case, 17);
    let gone = case.standing_in(&file, (0, u64::MAX));
    // Where one file ends and the next begins is not the same in every run.
    let place = |body: Vec<u8>| case.files.find("wal/", &body).unwrap().map(|(found, _)| found);
    let bodies = (1..=REST.count).rev().map(|n| REST.body(n));
    let mut others = bodies.chain((1..=LATE.count).map(|n| LATE.body(n))).filter_map(place);
    let other = others.find(|found| *found != file).expect("the log has two files");
    fs::copy(case.files.path(&other), case.files.path(&file)).unwrap();
    let (_, said, lost) = refused("another file in its place", &case, "wal/");
    assert_eq!(lost, gone, "{said}");
}

#[test]
fn k16_a_bit_of_the_log_that_changes_under_a_broker_costs_its_message() {
    // A queue reads 2 MiB ahead, and these take 24.
    const COUNT: u64 = 400;
    const BAD: u64 = 390;
    for mode in ["stop", "skip"] {
        let case = Case::empty();
        let flag = format!("storage.file.on_damage={mode}");
        let flags = ["--set", &flag, "--set", "storage.file.segment_size=64MiB"];
        let broker = case.home.start_with(&flags).unwrap();
        let queue = REST.of(COUNT);
        fill(&broker, &queue);
        // A start writes the last batch again, which is this one.
        Amqp::open(broker.ports.amqp).unwrap().declare("end").unwrap();
        // Nothing of it is in memory any more.
        broker.kill();
        let broker = case.home.start_with(&flags).unwrap();
        let (file, at) = case.place("wal/", &queue, BAD);
        case.files.flip(&file, at + 100).unwrap();
        let found = drain(&broker, &queue);
        assert!(broker.stop().unwrap().success());
        let told = case.told("messages_damaged");
        assert_eq!(told.len(), 1, "{mode}: {told:?}");
        assert_eq!((&told[0]["first"], &told[0]["last"]), (&BAD.into(), &BAD.into()));
        let last = if mode == "stop" { BAD - 1 } else { COUNT };
        let numbers = (1..=last).filter(|n| *n != BAD).collect();
        assert_eq!(found, Seen { numbers, stops: mode == "stop" });
    }
    say("K16: a bit of the log under a broker that runs: its message named, stopped at or skipped");
}

#[test]
fn k16_messages_whose_queue_is_lost_are_kept_for_an_export() {
    let case = Case::empty();
    let broker = case.home.start().unwrap();
    // Each in a batch of its own, behind that of the declaration.
    let queue = LATE.of(3);
    fill(&broker, &queue);
    assert!(broker.stop().unwrap().success());
    let (file, at) = case.files.find("wal/", b"//late").unwrap().unwrap();
    case.files.zero(&file, at / 4096 * 4096, 4096).unwrap();
    case.refused(&[]);
    let said = case.repaired();
    assert!(said.contains("its messages are in `lost-and-found-"), "{said}");
    let (code, exported) = case.storage(&["export", "-"]);
    assert_eq!(code, Some(0), "{exported}");
    assert!(exported.contains("lost-and-found-"), "{exported}");
    let messages = exported.lines().filter(|line| line.contains("\"body\"")).count();
    assert_eq!(messages, 3, "{exported}");
    assert!(case.home.start().unwrap().stop().unwrap().success());
    say("K16: the declaration of a queue lost: its messages kept as lost-and-found, exported");
}

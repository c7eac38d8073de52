//! Any damage of any file, by a seed: whatever is gone was named, and nothing else is gone.

use std::{collections::BTreeMap, fs};

use polymq_faults::{
    random::Random,
    report::{say, setting},
};

use crate::filled::{ALL, Case, End, Filled, Judged, Lost, Seen};

const FOLDERS: [&str; 6] = ["wal/", "wal/", "seg/", "seg/", "base/", ""];

/// Harms a file, and says how.
fn harm(case: &Case, random: &mut Random) -> String {
    let mut pick = |count: usize| usize::try_from(random.between(0, count as u64)).unwrap();
    let folder = FOLDERS[pick(FOLDERS.len())];
    let mut names = case.files.names().unwrap();
    names.retain(|name| name.starts_with(folder) && (!folder.is_empty() || !name.contains('/')));
    let name = &names[pick(names.len())];
    let content = case.files.read(name).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = pick(used) as u64;
    match pick(7) {
        0..3 => {
            case.files.flip(name, at).unwrap();
            format!("a bit of byte {at} of {name}")
        }
        3 => {
            case.files.cut(name, at).unwrap();
            format!("{name} cut at {at}")
        }
        4 => {
            let count = 1 + pick(9000) as u64;
            case.files.zero(name, at, count).unwrap();
            format!("{count} zeros at {at} of {name}")
        }
        5 => {
            case.files.lose(name).unwrap();
            format!("{name} lost")
        }
        _ => {
            let early = case.early.read(name).unwrap();
            let other = &names[pick(names.len())];
            let (content, what) = match early.is_empty() {
                true => (case.files.read(other).unwrap(), format!("{other} in place of {name}")),
                false => (early, format!("yesterday's {name}")),
            };
            fs::write(case.files.path(name), content).unwrap();
            what
        }
    }
}

/// Positions that were named: queue, first and last.
type Ranges = Vec<(String, u64, u64)>;

fn names(ranges: &Ranges, queue: &str, n: u64) -> bool {
    let fits = |(of, first, last): &(String, u64, u64)| {
        of.strip_prefix("//") == Some(queue) && (*first..=*last).contains(&n)
    };
    ranges.iter().any(fits)
}

/// What the broker has said is damaged.
fn told(case: &Case) -> Ranges {
    let lines = case.told("messages_damaged");
    let range = |line: &serde_json::Value| {
        let number = |name: &str| line[name].as_u64().unwrap();
        (line["queue"].as_str().unwrap().to_owned(), number("first"), number("last"))
    };
    lines.iter().map(range).collect()
}

/// What a repair says is lost: with numbers of messages, their sum, and without.
fn said(text: &str) -> (Ranges, u64, Ranges) {
    let (mut exact, mut count, mut vague) = (Ranges::new(), 0, Ranges::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("  log ")) {
        let (_, rest) = line.split_once(" `").unwrap();
        let (name, rest) = rest.split_once("`, positions ").unwrap();
        let (range, what) = rest.split_once(": ").unwrap();
        let (first, last) = range.split_once(" to ").unwrap();
        let range = (name.to_owned(), first.parse().unwrap(), last.parse().unwrap());
        if what.starts_with("whatever") {
            vague.push(range);
        } else {
            let number = what.split(' ').next().unwrap();
            count += number.parse().unwrap_or(0);
            exact.push(range);
        }
    }
    (exact, count, vague)
}

/// What a broker serves from a harmed store; `None` when it refuses, and then touches nothing.
fn served(case: &Case, what: &str) -> Option<BTreeMap<&'static str, Seen>> {
    let before = case.files.prints().unwrap();
    let Ok(broker) = case.home.start() else {
        assert_eq!(case.files.prints().unwrap(), before, "{what}: refused, and touched");
        let log = case.home.log();
        assert!(log.contains("polymq: ") && !log.contains("panicked"), "{what}: {log}");
        return None;
    };
    let found = case.drain(&broker);
    assert!(broker.stop().unwrap().success(), "{what}");
    let told = told(case);
    for queue in ALL {
        let seen = &found[queue.name];
        let live = queue.live();
        assert!(seen.numbers.iter().all(|n| live.contains(n)), "{what}: {} back", queue.name);
        let gone: Vec<u64> = live.into_iter().filter(|n| !seen.numbers.contains(n)).collect();
        match (gone.first(), seen.stops) {
            (Some(first), true) => {
                assert!(names(&told, queue.name, *first), "{what}: {first} not in {told:?}");
                assert_eq!(gone.len(), queue.live().len() - seen.numbers.len());
            }
            (None, false) => {}
            (gone, stops) => panic!("{what}: {}: {gone:?} gone, stops {stops}", queue.name),
        }
    }
    Some(found)
}

/// Repairs, when there is something to, and judges what is there then.
fn repaired(case: &Case, what: &str, is_whole: bool) -> &'static str {
    let (code, text) = case.examined();
    if code == Some(0) {
        assert!(is_whole && text.contains("is sound"), "{what}: not noticed: {text}");
        let found = case.judge(&case.drain(&case.home.start().unwrap()));
        assert!(found.lost.is_empty() && found.back.is_empty(), "{what}: {found:?}");
        return "harmless";
    }
    assert_eq!(code, Some(1), "{what}: {text}");
    if text.contains("cannot be repaired") {
        assert!(!is_whole && text.contains("restore"), "{what}: {text}");
        return "to be restored";
    }
    let text = case.repaired();
    let (exact, count, vague) = said(&text);
    let is_unknown = text.contains("cannot be known") || text.contains("nobody can tell");
    let Judged { lost, back } = case.judge(&case.drain(&case.home.start().unwrap()));
    assert!(back.is_empty() || is_unknown, "{what}: {back:?} back without a word\n{text}");
    let named = |ranges| -> Lost {
        let is_named = |(queue, n): &&(&'static str, u64)| names(ranges, queue, *n);
        lost.iter().filter(is_named).copied().collect()
    };
    assert_eq!(named(&exact).len() as u64, count, "{what}: counts are exact\n{text}");
    let is_partly = |n: u64| text.contains(&format!("message {n} of log"));
    for (queue, n) in &lost {
        let is_named = names(&exact, queue, *n) || names(&vague, queue, *n);
        assert!(is_named || is_unknown || is_partly(*n), "{what}: {queue} {n} gone\n{text}");
    }
    if lost.is_empty() { "repaired without loss" } else { "repaired, loss named" }
}

#[test]
fn k16_k17_whatever_is_harmed_is_named_and_nothing_else_is_lost() {
    let first = setting("POLYMQ_SEED", 0);
    let filled = Filled::new(End::Clean);
    let mut ends = BTreeMap::<&str, u32>::new();
    for seed in first..first + setting("POLYMQ_DAMAGES", 40) {
        let case = filled.case();
        let what = format!("seed {seed}, {}", harm(&case, &mut Random::new(seed)));
        let again = case.again();
        let served = served(&again, &what);
        let is_whole = served.is_some_and(|found| found.values().all(|seen| !seen.stops));
        *ends.entry(repaired(&case, &what, is_whole)).or_default() += 1;
    }
    say(&format!("K16, K17: harmed by seeds from {first} on: {ends:?}"));
}

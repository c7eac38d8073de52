//! Repair: what can be read stays, nothing else comes, and nothing is found twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use polymq_store::{
    Durability,
    record::{Checks, Record, Records, publish_at},
};

use super::{SMALL, epoch, model::Model, open};
use crate::{
    error::Failure,
    repair::{Examined, Finding, Repair, repair_on},
    sim::{Rng, SimClock, SimDisk},
};

/// Properties and body of everything that was ever published.
type History = BTreeMap<(u32, u64), BTreeSet<(Vec<u8>, Vec<u8>)>>;

struct Store {
    disk: SimDisk,
    history: History,
    /// What it holds, and what it held before each batch.
    model: Model,
    before: Vec<Model>,
    /// An earlier state of every file.
    earlier: BTreeMap<String, Vec<u8>>,
    is_clean: bool,
}

fn store(seed: u64) -> Store {
    let disk = SimDisk::new(seed);
    let mut rng = Rng::new(seed);
    let mut core = open(&disk).unwrap();
    let (mut model, mut before) = (Model::default(), Vec::new());
    let (mut history, mut earlier) = (History::new(), BTreeMap::new());
    let batches = 30 + rng.below(150);
    for number in 0..batches {
        let (batch, next) = model.random_batch(&mut rng, epoch(&core));
        core.commit(&batch, Durability::Sync).unwrap();
        before.push(std::mem::replace(&mut model, next));
        for (_, _, record) in Records::new(&batch.payload, Checks::Checksums).flatten() {
            let (log, seq, content) = match record {
                Record::Publish(p) => (p.log, p.seq, p),
                Record::PublishSame { log, seq, first, .. } => {
                    let content = publish_at(&batch.payload, first as usize, Checks::Checksums);
                    (log, seq, content.unwrap().1)
                }
                _ => continue,
            };
            let content = (content.props.to_vec(), content.body.to_vec());
            history.entry((log.0, seq.0)).or_default().insert(content);
        }
        if rng.chance(30) {
            while core.tidy().unwrap() {}
        }
        if number == batches / 2 {
            earlier = disk.snapshot();
        }
    }
    let is_clean = rng.chance(50);
    if is_clean {
        core.close_clean().unwrap();
    }
    drop(core);
    disk.kill_process();
    Store { disk, history, model, before, earlier, is_clean }
}

fn examined(disk: &SimDisk) -> Result<Repair, Failure> {
    let examined = Examined::of(Arc::new(disk.clone()), Arc::new(SimClock), SMALL, &mut |_, _| {});
    examined.map(|examined| examined.report)
}

fn repaired(disk: &SimDisk) -> Result<Repair, Failure> {
    repair_on(Arc::new(disk.clone()), Arc::new(SimClock), SMALL)
}

fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let mut files = disk.snapshot();
    files.retain(|name, _| name != "LOCK");
    files
}

/// Damages a file in some way; says what was done.
fn damage(store: &Store, rng: &mut Rng) -> (String, String) {
    let files = store.disk.snapshot();
    let names: Vec<_> = files
        .keys()
        .filter(|name| !["LOCK", "ballast"].contains(&name.as_str()))
        .filter(|name| !name.starts_with("quarantine/"))
        .collect();
    let dirs = ["wal/", "wal/", "seg/", "seg/", "base/", ""];
    let dir = dirs[usize::try_from(rng.below(6)).unwrap()];
    let of_dir: Vec<_> = names.iter().filter(|name| name.starts_with(dir)).collect();
    let Some(index) = rng.below(of_dir.len().max(1) as u64).checked_rem(of_dir.len() as u64) else {
        return ("none".into(), "nothing".into());
    };
    let name = of_dir[usize::try_from(index).unwrap()].to_string();
    let mut bytes = files[&name].clone();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
    let at = usize::try_from(rng.below(used)).unwrap();
    let what = match rng.below(7) {
        0..3 => {
            store.disk.damage(&name, at);
            return (name, format!("byte {at} flipped"));
        }
        3 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        4 => {
            let end = (at + usize::try_from(rng.below(9_000)).unwrap()).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        5 => {
            store.disk.lose(&name);
            return (name, "removed".into());
        }
        _ => {
            let others: Vec<_> = names.iter().filter(|other| other.starts_with(dir)).collect();
            let other = others[usize::try_from(rng.below(others.len() as u64)).unwrap()];
            let is_old = rng.chance(50) && store.earlier.contains_key(&name);
            bytes = if is_old { store.earlier[&name].clone() } else { files[*other].clone() };
            format!("replaced by an earlier one ({is_old}) or by {other}")
        }
    };
    store.disk.lose(&name);
    store.disk.overwrite(&name, &bytes);
    (name, what)
}

fn says_so(findings: &[Finding], log: u32, seq: u64, only_exact: bool) -> bool {
    findings.iter().flat_map(|finding| &finding.lost).any(|lost| {
        lost.log == log
            && (lost.first..=lost.last).contains(&seq)
            && (lost.messages.is_some() || !only_exact)
    })
}

/// Repairs, and compares what is there with what was.
fn check(store: &Store, file: &str, what: &str) {
    let before = files(&store.disk);
    let dry = examined(&store.disk);
    assert!(files(&store.disk) == before, "{what}: a dry run touches nothing");
    let report = match (repaired(&store.disk), dry) {
        (Ok(report), Ok(dry)) => {
            assert_eq!(report.findings.len(), dry.findings.len(), "{what}");
            report
        }
        (Err(Failure::Damaged(why)), Err(_)) => {
            assert!(file.starts_with("base/") || file.starts_with("MANI"), "{what}: {why}");
            assert!(why.contains("restore"), "{what}: {why}");
            assert!(files(&store.disk) == before, "{what}: refused and touched");
            return;
        }
        (repaired, dry) => panic!("{what}: {repaired:?}, {dry:?}"),
    };
    let findings = &report.findings;
    let all = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let again = examined(&store.disk).unwrap();
    assert_eq!(again.findings, [], "{what}: found again, after\n{all}");
    let core = open(&store.disk).unwrap_or_else(|failure| panic!("{what}: {failure}\n{all}"));
    let after = Model::of(&core);
    drop(core);
    store.disk.kill_process();
    if findings.is_empty() {
        // The end of a log that was not closed may always be torn.
        let is_torn = !store.is_clean && store.before.contains(&after);
        assert!(after == store.model || is_torn, "{what}: not noticed");
        return;
    }
    for (id, log) in &after.logs {
        for (seq, message) in &log.messages {
            let content = (message.props.clone(), message.body.clone());
            let known = store.history.get(&(*id, *seq));
            assert!(known.is_some_and(|all| all.contains(&content)), "{what}: {id}/{seq} made up");
        }
    }
    let is_unknown = all.contains("cannot be known") || all.contains("nobody can tell");
    let is_partly = all.contains("of its records are lost");
    let mut exact = 0;
    for (id, log) in &store.model.logs {
        for seq in log.messages.keys() {
            if after.logs.get(id).is_some_and(|log| log.messages.contains_key(seq)) {
                continue;
            }
            let is_said = says_so(findings, *id, *seq, true);
            exact += u64::from(is_said);
            assert!(
                is_said || is_unknown || is_partly,
                "{what}: {id}/{seq} is gone without a word\n{all}"
            );
        }
    }
    let counted: u64 = findings.iter().flat_map(|f| &f.lost).filter_map(|l| l.messages).sum();
    assert_eq!(counted, exact, "{what}: counts are exact\n{all}");
    let kept = store.disk.snapshot();
    for name in findings.iter().filter_map(|finding| finding.kept_as.as_ref()) {
        assert!(kept.contains_key(name) && kept.contains_key(&format!("{name}.txt")), "{what}");
    }
}

#[test]
fn repair_keeps_what_is_readable_and_makes_nothing_up() {
    let seeds = std::env::var("POLYMQ_REPAIR_SEEDS").ok().and_then(|n| n.parse().ok());
    let only = std::env::var("POLYMQ_REPAIR_SEED").ok().and_then(|n| n.parse().ok());
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..seeds.unwrap_or(300),
    };
    for seed in seeds {
        let store = store(seed);
        let mut rng = Rng::new(seed ^ 0xDA_0A6E);
        let (file, what) = damage(&store, &mut rng);
        check(&store, &file, &format!("seed {seed}, {file} {what}"));
    }
}

#[test]
fn sound_store_needs_no_repair() {
    for seed in 0..20 {
        let store = store(seed);
        let before = files(&store.disk);
        let report = repaired(&store.disk).unwrap();
        assert_eq!(report.findings, []);
        assert!(files(&store.disk) == before);
    }
}

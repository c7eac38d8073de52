//! Damage in the files by which everything else is found.

use std::fs;

use polymq_faults::{files::Files, report::say};

use crate::filled::{Case, End, Filled, Lost};

/// The only file whose name begins so.
fn named(files: &Files, start: &str) -> String {
    let mut names = files.names().unwrap();
    names.retain(|name| name.starts_with(start));
    assert_eq!(names.len(), 1, "{names:?}");
    names.pop().unwrap()
}

/// A file that the others can replace: refused, and nothing is lost by the repair.
fn replaced(filled: &Filled, what: &str, start: &str, harm: impl Fn(&Case, &str)) {
    let case = filled.case();
    let file = named(&case.files, start);
    harm(&case, &file);
    case.refused(&[]);
    let (code, verified) = case.storage(&["verify"]);
    assert_eq!(code, Some(1), "{what}: {verified}");
    let repaired = case.repaired();
    assert!(repaired.contains("0 messages lost."), "{what}: {repaired}");
    case.drain_all_but(&case.home.start().unwrap(), &Lost::new());
    say(&format!("K16, K17: {what} of {file}: repaired from the others"));
}

#[test]
fn k16_k17_what_the_other_files_say_as_well_costs_nothing() {
    let filled = Filled::new(End::Clean);
    for start in ["CURRENT", "MANIFEST", "STORE"] {
        replaced(&filled, "a bit", start, |case, file| case.files.flip(file, 9).unwrap());
        replaced(&filled, "the end", start, |case, file| case.files.cut(file, 11).unwrap());
        replaced(&filled, "zeros", start, |case, file| case.files.zero(file, 0, 4096).unwrap());
        replaced(&filled, "the loss", start, |case, file| case.files.lose(file).unwrap());
    }
    replaced(&filled, "yesterday's copy", "CURRENT", |case, file| {
        case.files.take_from(&case.early, file).unwrap();
    });
}

/// A file without which nothing can be told: refused by all, untouched, until it is put back.
fn needed(filled: &Filled, what: &str, start: &str, harm: impl Fn(&Case, &str)) {
    let case = filled.case();
    let file = named(&case.files, start);
    let sound = case.files.read(&file).unwrap();
    harm(&case, &file);
    let said = case.refused(&[]);
    assert!(said.contains("restore"), "{what}: {said}");
    let (code, examined) = case.examined();
    assert_eq!((code, examined.contains("restore")), (Some(1), true), "{what}: {examined}");
    let before = case.files.prints().unwrap();
    let (code, repaired) = case.storage(&["repair", "--yes"]);
    assert_eq!((code, repaired.contains("cannot be repaired")), (Some(1), true), "{repaired}");
    assert_eq!(case.files.prints().unwrap(), before, "{what}: {repaired}");
    fs::write(case.files.path(&file), sound).unwrap();
    case.drain_all_but(&case.home.start().unwrap(), &Lost::new());
    say(&format!("K16, K17: {what} of {file}: refused untouched, served when it was put back"));
}

#[test]
fn k16_k17_a_store_without_its_base_file_waits_for_a_backup() {
    let filled = Filled::new(End::Clean);
    needed(&filled, "a bit", "base/", |case, file| case.files.flip(file, 4096 + 200).unwrap());
    needed(&filled, "the end", "base/", |case, file| case.files.cut(file, 4096 + 300).unwrap());
    needed(&filled, "zeros", "base/", |case, file| case.files.zero(file, 4096, 4096).unwrap());
    needed(&filled, "the loss", "base/", |case, file| case.files.lose(file).unwrap());
    needed(&filled, "yesterday's copy", "base/", |case, file| {
        let names = case.early.names().unwrap();
        let early = names.into_iter().find(|name| name.starts_with("base/")).unwrap();
        assert_ne!(early, file);
        fs::copy(case.early.path(&early), case.files.path(file)).unwrap();
    });
}

//! The project keeps its own rules.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use polymq_tidy::{
    arrows, documents, events,
    exceptions::{self, against},
    project::{TextFile, text_files},
    shape::{self, Finding},
};

fn check(known: &[&str], find: fn(&[TextFile]) -> Vec<Finding>) {
    let told = against(known, &find(&text_files().unwrap()));
    assert!(told.is_empty(), "\n{}\n", told.join("\n"));
}

#[test]
fn no_crate_knows_what_it_must_not_know() {
    let told = arrows::wrong_arrows(&text_files().unwrap()).unwrap();
    assert!(told.is_empty(), "\n{}\n", told.join("\n"));
}

#[test]
fn files_are_short() {
    check(exceptions::LONG_FILES, shape::long_files);
}

#[test]
fn functions_are_short() {
    check(exceptions::LONG_FUNCTIONS, shape::long_functions);
}

#[test]
fn lines_are_narrow() {
    check(exceptions::WIDE_LINES, shape::wide_lines);
}

#[test]
fn crates_forbid_unsafe_code() {
    check(exceptions::UNSAFE, shape::crates_that_allow_unsafe);
}

#[test]
fn folders_explain_themselves() {
    check(exceptions::WITHOUT_README, documents::folders_without_readme);
}

#[test]
fn the_log_says_what_the_documents_explain() {
    check(&[], events::wrong_events);
}

#[test]
fn links_lead_somewhere() {
    check(exceptions::BROKEN_LINKS, documents::broken_links);
}

#[test]
fn nothing_speaks_of_one_machine_or_tracker() {
    check(exceptions::PRIVATE_WORDS, documents::private_words);
}

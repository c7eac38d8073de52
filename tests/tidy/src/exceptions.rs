//! What does not keep the rules yet. The lists only get shorter: a new finding fails, and so does
//! an exception that nothing needs any more.

use crate::shape::Finding;

/// Files that are too long.
pub const LONG_FILES: &[&str] = &[];
/// Functions that are too long.
pub const LONG_FUNCTIONS: &[&str] = &[
    // A table of requests and answers.
    "protocols/amqp091/src/tests/topology.rs::each_method_has_its_own_answer",
];
/// Files with lines that are too wide.
pub const WIDE_LINES: &[&str] = &[];
/// Crates that do not forbid unsafe code.
pub const UNSAFE: &[&str] = &[];
/// Folders without a README.
pub const WITHOUT_README: &[&str] = &[];
/// Links to what is not there.
pub const BROKEN_LINKS: &[&str] = &[];
/// Words that mean nothing elsewhere.
pub const PRIVATE_WORDS: &[&str] = &[];

/// Sentences about new findings, and about exceptions that are no longer needed.
pub fn against(known: &[&str], findings: &[Finding]) -> Vec<String> {
    let is_known = |finding: &&Finding| known.contains(&finding.key.as_str());
    let new = findings.iter().filter(|finding| !is_known(finding));
    let is_needed = |key: &&str| findings.iter().any(|finding| finding.key == *key);
    let unneeded = known.iter().filter(|key| !is_needed(key)).map(|key| {
        format!("{key} keeps the rule now: remove it from tests/tidy/src/exceptions.rs")
    });
    new.map(|finding| finding.text.clone()).chain(unneeded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_findings_and_unneeded_exceptions_are_told() {
        let finding = |key: &str| Finding { key: key.to_owned(), text: format!("{key} is bad") };
        let told = against(&["old", "mended"], &[finding("old"), finding("new")]);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], "new is bad");
        assert!(told[1].starts_with("mended keeps the rule now"));
    }
}

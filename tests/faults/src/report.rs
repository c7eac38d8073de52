//! What a case has measured, and what it could not do on this machine.

use std::io::Write;

/// Prints a line of results, shown even when the test passes.
pub fn say(line: &str) {
    // The test harness captures the print macros of passing tests, and these lines are results.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Says which case could not run, and why.
pub fn skip(case: &str, reason: &str) {
    say(&format!("SKIPPED {case}, because {reason}"));
}

/// A number from the environment, for longer runs than the usual one.
pub fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

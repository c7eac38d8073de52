//! The log: every line has an `event` that the documents explain, and they explain no other.

use std::collections::BTreeMap;

use crate::{project::TextFile, rust_text::code_only, shape::Finding};

/// The list of events.
const DOCUMENT: &str = "docs/log-events.md";
/// Where the program is.
const SOURCES: [&str; 3] = ["core/", "protocols/", "storage/"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Lines of the log without an event, events that are not explained, or with another level, and
/// explained ones that no code logs.
pub fn wrong_events(files: &[TextFile]) -> Vec<Finding> {
    let document = files.iter().find(|file| file.path == DOCUMENT);
    let mut explained = document.map(|file| rows(&file.text)).unwrap_or_default();
    let mut findings = Vec::new();
    let mut find = |key: String, text: String| findings.push(Finding { key, text });
    let is_program = |file: &&TextFile| SOURCES.iter().any(|folder| file.path.starts_with(folder));
    for file in files.iter().filter(|file| file.is_rust() && !file.is_test()).filter(is_program) {
        // Tests of a file stand at its end.
        let program = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for Line { at, level, event } in lines(program) {
            let place = format!("{}:{at}", file.path);
            let Some(event) = event else {
                find(place.clone(), format!("{place} logs a line without `event = \"...\"`"));
                continue;
            };
            match explained.get_mut(&event) {
                None => find(event.clone(), format!("{place}: {DOCUMENT} lacks `{event}`")),
                Some(row) if !row.levels.contains(&level) => {
                    find(event.clone(), format!("{place}: {DOCUMENT} has no {level} `{event}`"));
                }
                Some(row) => row.is_used = true,
            }
        }
    }
    // One line is made without the macros: that some are missing.
    let is_named = |event: &str| {
        let named = format!("event = \"{event}\"");
        files.iter().any(|file| file.is_rust() && file.text.contains(&named))
    };
    let unused = explained.iter().filter(|(event, row)| !row.is_used && !is_named(event));
    findings.extend(unused.map(|(event, _)| Finding {
        key: event.clone(),
        text: format!("{DOCUMENT} explains `{event}`, which nothing logs"),
    }));
    findings
}

struct Row {
    levels: Vec<String>,
    is_used: bool,
}

/// The rows of the tables whose first cell is a word in code and whose second is a level.
fn rows(text: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, event, levels, ..] = cells.as_slice() else { continue };
        let Some(event) = event.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
            continue;
        };
        let levels: Vec<_> = levels.split(',').map(|level| level.trim().to_owned()).collect();
        if levels.iter().all(|level| LEVELS.contains(&level.as_str())) {
            rows.insert(event.to_owned(), Row { levels, is_used: false });
        }
    }
    rows
}

/// A place that logs.
struct Line {
    at: usize,
    level: String,
    event: Option<String>,
}

fn lines(text: &str) -> Vec<Line> {
    let (code, text): (Vec<char>, Vec<char>) =
        (code_only(text).chars().collect(), text.chars().collect());
    let mut found = Vec::new();
    for at in 0..code.len() {
        for level in LEVELS {
            let call: Vec<char> = format!("tracing::{level}!(").chars().collect();
            if !code[at..].starts_with(&call) {
                continue;
            }
            let begin = at + call.len();
            let inside: String = text[begin..end_of_call(&code, begin)].iter().collect();
            let event = inside.split_once("event = \"").and_then(|(_, rest)| rest.split_once('"'));
            found.push(Line {
                at: text[..at].iter().filter(|sign| **sign == '\n').count() + 1,
                level: level.to_owned(),
                event: event.map(|(event, _)| event.to_owned()),
            });
        }
    }
    found
}

/// Where the parenthesis closes that is open at `begin`.
fn end_of_call(code: &[char], begin: usize) -> usize {
    let mut depth = 1;
    for (offset, sign) in code[begin..].iter().enumerate() {
        match sign {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return begin + offset;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str, code: &str) -> Vec<String> {
        let files = [TextFile::new(DOCUMENT, document), TextFile::new("core/x/src/a.rs", code)];
        wrong_events(&files).into_iter().map(|finding| finding.key).collect()
    }

    #[test]
    fn code_and_document_agree_or_are_found() {
        let document = "| event | level |\n| --- | --- |\n| `a` | warn, info | Text. |\n";
        assert!(found(document, "tracing::warn!(event = \"a\", x = f(1), \"text (\");").is_empty());
        assert_eq!(found(document, "tracing::error!(event = \"a\");"), ["a"]);
        assert_eq!(found(document, "tracing::info!(\n    event = \"b\"\n);"), ["b", "a"]);
        assert_eq!(found("", "\ntracing::info!(\"text\");"), ["core/x/src/a.rs:2"]);
        assert_eq!(found("", "// tracing::info!(\"text\")"), [""; 0]);
    }
}

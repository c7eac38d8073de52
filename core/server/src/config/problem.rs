//! A mistake in the configuration, and how it is shown: where, what, and what to write instead.

use std::{fmt::Write, ops::Range};

use super::mask;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// Bytes of the file.
    File(Range<usize>),
    /// A variable of the environment.
    Env(String),
    /// A flag, as written, without its value.
    Flag(String),
}

/// One mistake.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) origin: Origin,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// A file that was read.
#[derive(Debug, Default, Clone)]
pub(crate) struct FileText {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl FileText {
    /// Line and column of a byte, both from 1; the column counts characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The origin in a few words, for `polymq check`.
    pub(crate) fn place(&self, origin: &Origin) -> String {
        match origin {
            Origin::Default => "default".to_owned(),
            Origin::File(span) => format!("{}:{}", self.name, self.position(span.start).0),
            Origin::Env(name) => format!("env {name}"),
            Origin::Flag(flag) => format!("flag {flag}"),
        }
    }

    fn excerpt(&self, span: &Range<usize>) -> String {
        let (line, column) = self.position(span.start);
        let lines: Vec<_> = self.text.lines().take(line).collect();
        let table = mask::table_of(lines.iter().copied());
        let shown = mask::line(lines.get(line - 1).copied().unwrap_or(""), table);
        let rest = shown.chars().count().saturating_sub(column - 1).max(1);
        let marked = self.text.get(span.clone()).map_or(1, |text| text.chars().count());
        let carets = "^".repeat(marked.clamp(1, rest));
        let number = line.to_string();
        let (gap, indent) = (" ".repeat(number.len()), " ".repeat(column - 1));
        format!(
            "{gap}--> {}:{line}:{column}\n{gap} |\n{number} | {shown}\n{gap} | {indent}{carets}\n",
            self.name
        )
    }
}

impl Problem {
    /// The paragraph a person reads.
    pub(crate) fn render(&self, file: &FileText) -> String {
        let mut text = format!("error: {}\n", self.message);
        match &self.origin {
            Origin::File(span) => text.push_str(&file.excerpt(span)),
            Origin::Default => {}
            Origin::Env(_) | Origin::Flag(_) => {
                let _ = writeln!(text, " --> {}", file.place(&self.origin));
            }
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "  = {help}");
        }
        text
    }
}

impl Problem {
    /// The same in one line, without the line of the file.
    pub(crate) fn brief(&self, file: &FileText) -> String {
        let place = match &self.origin {
            Origin::File(span) => {
                let (line, column) = file.position(span.start);
                format!("{}:{line}:{column}: ", file.name)
            }
            Origin::Default => String::new(),
            Origin::Env(_) | Origin::Flag(_) => format!("{}: ", file.place(&self.origin)),
        };
        let help = self.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{place}{}{help}", self.message)
    }
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distances =
        candidates.into_iter().map(|candidate| (edit_distance(word, candidate), candidate));
    let (distance, candidate) = distances.min()?;
    // More than a third of the letters wrong is another word.
    (distance <= word.chars().count().max(3) / 3 + 1).then_some(candidate)
}

/// Letters to insert, remove, replace or swap with their neighbour to turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

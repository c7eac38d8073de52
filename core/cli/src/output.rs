//! Rows and documents as tables, JSON, lines of JSON, or CSV.

use std::{
    borrow::Cow,
    io::{self, Write},
    str::FromStr,
};

use serde_json::Value;

use crate::{arguments::Common, failure::Failure};

/// How a reading command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One document.
    Json,
    /// One document a line.
    JsonLines,
    /// Comma-separated values (RFC 4180).
    Csv,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::JsonLines),
            "csv" => Ok(Self::Csv),
            _ => Err("expected table, json, jsonl or csv".to_owned()),
        }
    }
}

/// What is written, and how.
#[derive(Debug, Clone, Default)]
pub struct Output {
    pub(crate) format: Format,
    /// Dotted names of the fields to show; empty for those a command shows by itself.
    pub(crate) columns: Vec<String>,
    pub(crate) has_headers: bool,
}

impl Output {
    /// What the flags of a command say.
    pub(crate) fn of(common: &Common) -> Self {
        Self {
            format: common.output,
            columns: common.columns.clone(),
            has_headers: !common.no_headers,
        }
    }

    /// Tables and documents in a format, with everything that the command shows.
    pub fn new(format: Format) -> Self {
        Self { format, columns: Vec::new(), has_headers: true }
    }

    /// Writes a list.
    ///
    /// Errors: when standard output takes no more.
    pub fn rows(&self, rows: &[Value], usual: &[&str]) -> io::Result<()> {
        let columns = self.columns_or(usual);
        self.write(&mut io::stdout().lock(), rows, &columns)
    }

    /// Writes one document; as a table, a line for each of its fields.
    ///
    /// Errors: when standard output takes no more.
    pub fn document(&self, document: &Value) -> io::Result<()> {
        let mut names = Vec::new();
        flatten("", document, &mut names);
        let is_unknown = |column: &&String| !names.iter().any(|(name, _)| is_within(name, column));
        if let Some(column) = self.columns.iter().find(is_unknown) {
            let text = format!("there is no field `{column}`");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut out = io::stdout().lock();
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, document)?;
                out.write_all(b"\n")
            }
            Format::JsonLines => writeln!(out, "{document}"),
            Format::Table => {
                let mut lines = Vec::new();
                flatten("", document, &mut lines);
                if !self.columns.is_empty() {
                    lines.retain(|(name, _)| self.columns.iter().any(|c| is_within(name, c)));
                }
                let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                for (name, value) in lines {
                    writeln!(out, "{name:width$}  {value}")?;
                }
                Ok(())
            }
            Format::Csv => {
                let mut fields = Vec::new();
                flatten("", document, &mut fields);
                let names: Vec<_> = fields.into_iter().map(|(name, _)| name).collect();
                let columns = if self.columns.is_empty() { &names } else { &self.columns };
                self.csv(&mut out, std::slice::from_ref(document), columns)
            }
        }
    }

    /// Rows that are written as they come.
    pub(crate) fn stream(&self, usual: &[&str]) -> Rows<'_> {
        Rows { output: self, columns: self.columns_or(usual), count: 0 }
    }

    /// Errors: a list that may never end cannot be one document.
    pub(crate) fn check_end(&self, has_end: bool) -> Result<(), Failure> {
        if has_end || self.format != Format::Json {
            return Ok(());
        }
        let text = "-o json is one document, and this has no end: use -o jsonl, or -n";
        Err(Failure::Usage(text.to_owned()))
    }

    /// Errors: a column that is in none of these objects.
    pub(crate) fn check_columns(&self, rows: &[Value]) -> Result<(), Failure> {
        let Some(first) = rows.first().and_then(Value::as_object) else { return Ok(()) };
        let knows = |row: &Value, column: &String| {
            let head = column.split('.').next().unwrap_or_default();
            row.get(column).is_some() || row.get(head).is_some()
        };
        let unknown = self.columns.iter().find(|column| !rows.iter().any(|row| knows(row, column)));
        let Some(column) = unknown else { return Ok(()) };
        let names: Vec<_> = first.keys().map(String::as_str).collect();
        let text = format!("there is no field `{column}`; there are {}", names.join(", "));
        Err(Failure::Usage(text))
    }

    /// The fields that were asked for, under their dotted names; all of them when none was.
    fn picked<'v>(&self, row: &'v Value) -> Cow<'v, Value> {
        if self.columns.is_empty() {
            return Cow::Borrowed(row);
        }
        let pick =
            |column: &String| (column.clone(), at(row, column).cloned().unwrap_or(Value::Null));
        Cow::Owned(Value::Object(self.columns.iter().map(pick).collect()))
    }

    fn columns_or(&self, usual: &[&str]) -> Vec<String> {
        if self.columns.is_empty() {
            usual.iter().map(|column| (*column).to_owned()).collect()
        } else {
            self.columns.clone()
        }
    }

    fn write(&self, out: &mut impl Write, rows: &[Value], columns: &[String]) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let rows: Vec<_> = rows.iter().map(|row| self.picked(row)).collect();
                serde_json::to_writer_pretty(&mut *out, &rows)?;
                out.write_all(b"\n")
            }
            Format::JsonLines => {
                rows.iter().try_for_each(|row| writeln!(out, "{}", self.picked(row)))
            }
            Format::Csv => self.csv(out, rows, columns),
            Format::Table => self.table(out, rows, columns),
        }
    }

    fn table(&self, out: &mut impl Write, rows: &[Value], columns: &[String]) -> io::Result<()> {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| columns.iter().map(|column| cell(row, column)).collect())
            .collect();
        let is_number: Vec<bool> = columns
            .iter()
            .map(|column| {
                let mut values = rows.iter().filter_map(|row| at(row, column)).peekable();
                values.peek().is_some() && values.all(Value::is_number)
            })
            .collect();
        let width = |index: usize, column: &String| {
            let header = if self.has_headers { column.chars().count() } else { 0 };
            let widest = cells.iter().filter_map(|row| row.get(index)).map(|c| c.chars().count());
            widest.max().unwrap_or(0).max(header)
        };
        let widths: Vec<usize> = columns.iter().enumerate().map(|(i, c)| width(i, c)).collect();
        let mut line = |row: &[String]| {
            let padded = row.iter().zip(&widths).zip(&is_number).map(|((cell, width), number)| {
                if *number { format!("{cell:>width$}") } else { format!("{cell:width$}") }
            });
            writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
        };
        if self.has_headers {
            line(&columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>())?;
        }
        cells.iter().try_for_each(|row| line(row))
    }

    fn csv(&self, out: &mut impl Write, rows: &[Value], columns: &[String]) -> io::Result<()> {
        if self.has_headers {
            let names: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
            write!(out, "{}\r\n", names.join(","))?;
        }
        rows.iter().try_for_each(|row| Self::csv_line(out, row, columns))
    }

    fn csv_line(out: &mut impl Write, row: &Value, columns: &[String]) -> io::Result<()> {
        let cells: Vec<_> = columns.iter().map(|column| quoted(&cell(row, column))).collect();
        write!(out, "{}\r\n", cells.join(","))
    }
}

/// A list that is written as its rows come.
pub(crate) struct Rows<'o> {
    output: &'o Output,
    columns: Vec<String>,
    count: u64,
}

impl Rows<'_> {
    /// Writes a row at once.
    ///
    /// Errors: when standard output takes no more.
    pub(crate) fn push(&mut self, row: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.write(&mut out, row)?;
        out.flush()
    }

    /// Ends the list.
    ///
    /// Errors: when standard output takes no more.
    pub(crate) fn end(self) -> io::Result<()> {
        match (self.output.format, self.count) {
            (Format::Json, 0) => io::stdout().write_all(b"[]\n"),
            (Format::Json, _) => io::stdout().write_all(b"\n]\n"),
            (Format::Table | Format::JsonLines | Format::Csv, _) => Ok(()),
        }
    }

    fn write(&mut self, out: &mut impl Write, row: &Value) -> io::Result<()> {
        let is_first = self.count == 0;
        self.count += 1;
        match self.output.format {
            Format::Json => {
                out.write_all(if is_first { b"[\n" } else { b",\n" })?;
                serde_json::to_writer(out, &*self.output.picked(row))?;
                Ok(())
            }
            Format::JsonLines => writeln!(out, "{}", self.output.picked(row)),
            Format::Csv if is_first => {
                self.output.csv(out, std::slice::from_ref(row), &self.columns)
            }
            Format::Csv => Output::csv_line(out, row, &self.columns),
            Format::Table => {
                let cells: Vec<_> = self.columns.iter().map(|column| cell(row, column)).collect();
                writeln!(out, "{}", cells.join("  "))
            }
        }
    }
}

/// The field with a dotted name; names that hold dots themselves are found as well. A number is a
/// place in a list.
fn at<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let of = |name: &str| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    };
    if let Some(found) = of(name) {
        return Some(found).filter(|found| !found.is_null());
    }
    name.match_indices('.').find_map(|(dot, _)| at(of(&name[..dot])?, &name[dot + 1..]))
}

/// Whether a field is one, or is within it.
fn is_within(field: &str, column: &str) -> bool {
    field.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn cell(row: &Value, column: &str) -> String {
    at(row, column).map(text).unwrap_or_default()
}

/// A text in one line. Control characters are escaped: names come from strangers, and a terminal
/// would obey them.
pub(crate) fn one_line(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.escape_debug().to_string()
    } else {
        text.to_owned()
    }
}

/// A value in one line.
fn text(value: &Value) -> String {
    let plain = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Array(list) if list.iter().all(|item| item.is_string() || item.is_number()) => {
            list.iter().map(text).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    one_line(&plain)
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let name =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, lines);
            }
        }
        other => lines.push((prefix.to_owned(), text(other))),
    }
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(format: Format, rows: &[Value], columns: &[&str]) -> String {
        let output = Output { format, columns: Vec::new(), has_headers: true };
        let columns = output.columns_or(columns);
        let mut out = Vec::new();
        output.write(&mut out, rows, &columns).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let rows = [
            json!({ "name": "a", "messages": { "ready": 5 } }),
            json!({ "name": "orders", "messages": { "ready": 1234 } }),
        ];
        let text = written(Format::Table, &rows, &["name", "messages.ready"]);
        let expected = "NAME    MESSAGES.READY\na                    5\norders            1234\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn csv_quotes_what_must_be_quoted() {
        let rows = [json!({ "name": "a,\"b\"", "n": 1 }), json!({ "name": "c" })];
        let text = written(Format::Csv, &rows, &["name", "n"]);
        assert_eq!(text, "name,n\r\n\"a,\"\"b\"\"\",1\r\nc,\r\n");
    }

    #[test]
    fn terminals_do_not_obey_names() {
        let rows = [json!({ "name": "a\u{1b}[2Jb\nc" })];
        let text = written(Format::Table, &rows, &["name"]);
        assert_eq!(text, "NAME\na\\u{1b}[2Jb\\nc\n");
    }

    #[test]
    fn json_is_a_document_and_jsonl_a_line_for_each() {
        let rows = [json!({ "a": 1 }), json!({ "a": 2 })];
        let parsed: Value = serde_json::from_str(&written(Format::Json, &rows, &[])).unwrap();
        assert_eq!(parsed, json!(rows));
        assert_eq!(written(Format::JsonLines, &rows, &[]), "{\"a\":1}\n{\"a\":2}\n");
    }

    #[test]
    fn rows_that_come_one_by_one_are_one_document() {
        let output = Output::new(Format::Json);
        let mut rows = output.stream(&["a"]);
        let mut out = Vec::new();
        for row in [json!({ "a": 1 }), json!({ "a": 2 })] {
            rows.write(&mut out, &row).unwrap();
        }
        out.extend_from_slice(b"\n]\n");
        let parsed: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(parsed, json!([{ "a": 1 }, { "a": 2 }]));
        assert!(output.check_end(false).is_err() && output.check_end(true).is_ok());
        assert!(Output::new(Format::JsonLines).check_end(false).is_ok());
    }

    #[test]
    fn a_column_that_no_object_has_is_refused() {
        let rows = [json!({ "name": "a", "policy": null, "arguments": {} })];
        let of = |column: &str| {
            let columns = vec![column.to_owned()];
            Output { columns, ..Output::new(Format::Table) }.check_columns(&rows)
        };
        assert!(of("name").is_ok() && of("policy").is_ok() && of("arguments.x.y").is_ok());
        let told = of("nme").unwrap_err().to_string();
        assert_eq!(told, "there is no field `nme`; there are arguments, name, policy");
        assert!(
            Output { columns: vec!["x".to_owned()], ..Output::default() }
                .check_columns(&[])
                .is_ok()
        );
    }

    #[test]
    fn names_with_dots_are_found() {
        let row = json!({ "arguments": { "x.y": 7 }, "a": { "b": 1 } });
        assert_eq!(cell(&row, "arguments.x.y"), "7");
        assert_eq!(cell(&row, "a.b"), "1");
        assert_eq!(cell(&row, "a.c"), "");
        let row = json!({ "death": [{ "reason": "expired" }] });
        assert_eq!(cell(&row, "death.0.reason"), "expired");
        assert_eq!(cell(&row, "death.1.reason"), "");
    }
}

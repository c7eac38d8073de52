//! Rows and documents as tables, JSON, lines of JSON, or CSV.

use std::{
    borrow::Cow,
    io::{self, Write},
    str::FromStr,
};

use serde_json::Value;

use crate::arguments::Common;

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
                    lines.retain(|(name, _)| self.columns.contains(name));
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

    /// Writes one row at once, for lists that never end.
    pub(crate) fn row(&self, row: &Value, usual: &[&str]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Json | Format::JsonLines => writeln!(out, "{}", self.picked(row))?,
            Format::Csv => Self::csv_line(&mut out, row, &self.columns_or(usual))?,
            Format::Table => {
                let cells: Vec<_> =
                    self.columns_or(usual).iter().map(|column| cell(row, column)).collect();
                writeln!(out, "{}", cells.join("  "))?;
            }
        }
        out.flush()
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

fn cell(row: &Value, column: &str) -> String {
    at(row, column).map(text).unwrap_or_default()
}

/// A value in one line. Control characters are escaped: names come from strangers, and a terminal
/// would obey them.
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
    if plain.chars().any(char::is_control) { plain.escape_debug().to_string() } else { plain }
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

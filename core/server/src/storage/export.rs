//! A store as lines of JSON: one for each definition, log and message, between a head that names
//! the format and an end that says what must have been read.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use polymq_store::{
    Hold, LogId, Opened, OpenedLog, Seq, Store, StoreError, StoredMessage,
    copy::{LogSummary, Progress, Summary, Visitor, Writer, summarise, visit},
};
use serde::{Deserialize, Serialize};

/// Version of the format; a reader takes no later one.
const FORMAT: u32 = 1;
/// Messages that are written as one batch when they are read back.
const PART: usize = 4096;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    PolymqExport(u32),
    /// Key and value.
    Definition(String, Base64),
    Log {
        id: u32,
        name: String,
        next_seq: u64,
    },
    Message(Box<Message>),
    End {
        next_log: u32,
        definitions: u64,
        checksum: u64,
        logs: Vec<EndOfLog>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    seq: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    expiry_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    flags: u64,
    props: Base64,
    body: Base64,
    /// Delivery count, acquired count, due time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<(u32, u32, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EndOfLog {
    messages: u64,
    bytes: u64,
    checksum: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Bytes as text.
#[derive(Debug)]
struct Base64(Bytes);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes.into()))
    }
}

/// Writes everything to a file that did not exist, or to standard output for `-`.
///
/// Errors: when the store cannot be read or the file cannot be written.
pub(super) fn write(
    file: &Path,
    store: &dyn Store,
    opened: &Opened,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<()> {
    let out: Box<dyn Write> = match file.to_str() {
        Some("-") => Box::new(std::io::stdout().lock()),
        _ => Box::new(
            File::create_new(file)
                .with_context(|| format!("`{}` cannot be made", file.display()))?,
        ),
    };
    let summary = summarise(store, opened, &mut |_| {}).context("the store cannot be read")?;
    let mut lines = Lines { out: BufWriter::new(out), failure: None };
    lines.put(&Line::PolymqExport(FORMAT));
    let visited = visit(store, opened, &mut lines, progress);
    let end_of = |log: &LogSummary| EndOfLog {
        messages: log.messages,
        bytes: log.bytes,
        checksum: log.checksum,
    };
    lines.put(&Line::End {
        next_log: opened.next_log.0,
        definitions: summary.definitions,
        checksum: summary.checksum,
        logs: summary.logs.iter().map(end_of).collect(),
    });
    if let Some(failure) = lines.failure {
        return Err(failure).with_context(|| format!("`{}` cannot be written", file.display()));
    }
    visited.context("the store cannot be read")?;
    lines.out.flush().with_context(|| format!("`{}` cannot be written", file.display()))
}

struct Lines<W: Write> {
    out: W,
    /// The first failure; nothing is written after it.
    failure: Option<std::io::Error>,
}

impl<W: Write> Lines<W> {
    fn put(&mut self, line: &Line) {
        if self.failure.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut self.out, line).map_err(std::io::Error::from);
        self.failure = written.and_then(|()| self.out.write_all(b"\n")).err();
    }

    fn go_on(&self) -> Result<(), StoreError> {
        if self.failure.is_some() { Err(StoreError::Closed) } else { Ok(()) }
    }
}

impl<W: Write> Visitor for Lines<W> {
    fn definition(&mut self, key: &str, value: &Bytes) -> Result<(), StoreError> {
        self.put(&Line::Definition(key.to_owned(), Base64(value.clone())));
        self.go_on()
    }

    fn log(&mut self, log: &OpenedLog) -> Result<(), StoreError> {
        let (id, name, next_seq) = (log.id.0, log.name.clone(), log.next_seq.0);
        self.put(&Line::Log { id, name, next_seq });
        self.go_on()
    }

    fn messages(&mut self, messages: &[StoredMessage]) -> Result<(), StoreError> {
        for message in messages {
            let hold = message.hold.map(|h| (h.delivery_count, h.acquired_count, h.due_ms));
            self.put(&Line::Message(Box::new(Message {
                seq: message.seq.0,
                expiry_ms: message.expiry_ms,
                flags: message.flags.into(),
                props: Base64(message.props.clone()),
                body: Base64(message.body.clone()),
                hold,
            })));
        }
        self.go_on()
    }
}

/// Reads a file, or standard input for `-`, into a store that is empty; returns what the file says
/// that must be found there.
///
/// Errors: when the file cannot be read, is no export or is not whole; when the store cannot be
/// written to.
pub(super) fn read(file: &Path, writer: Writer) -> anyhow::Result<Summary> {
    let input: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(
            File::open(file).with_context(|| format!("`{}` cannot be read", file.display()))?,
        ),
    };
    let mut import =
        Import { writer, logs: Vec::new(), messages: Vec::with_capacity(PART), end: None };
    for (number, line) in BufReader::new(input).lines().enumerate() {
        let at = || format!("`{}`, line {}", file.display(), number + 1);
        let line: Line = serde_json::from_str(&line.with_context(at)?).with_context(at)?;
        let is_head = matches!(line, Line::PolymqExport(_));
        if is_head != (number == 0) {
            bail!("{}: the file is no export of a store", at());
        }
        import.take(line).with_context(at)?;
    }
    import.finish().with_context(|| format!("`{}`", file.display()))
}

struct Import {
    writer: Writer,
    logs: Vec<OpenedLog>,
    messages: Vec<StoredMessage>,
    end: Option<(LogId, Summary)>,
}

impl Import {
    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        if self.end.is_some() {
            bail!("something stands behind the end");
        }
        match line {
            Line::PolymqExport(FORMAT) => {}
            Line::PolymqExport(later) => {
                bail!("the format is {later}, and this program reads {FORMAT}")
            }
            Line::Definition(key, value) => self.writer.definition(&key, &value.0)?,
            Line::Log { id, name, next_seq } => {
                self.flush()?;
                let (id, next_seq) = (LogId(id), Seq(next_seq));
                let log = OpenedLog { id, name, next_seq, ..OpenedLog::default() };
                self.writer.log(&log)?;
                self.logs.push(log);
            }
            Line::Message(message) => {
                let log = self.logs.last().context("a message stands before its log")?.id;
                self.messages.push(message.stored(log)?);
                if self.messages.len() >= PART {
                    self.flush()?;
                }
            }
            Line::End { next_log, definitions, checksum, logs } => {
                self.flush()?;
                if logs.len() != self.logs.len() {
                    bail!("{} logs were read, and the end says {}", self.logs.len(), logs.len());
                }
                let summary = |(log, end): (&OpenedLog, &EndOfLog)| LogSummary {
                    id: log.id,
                    name: log.name.clone(),
                    next_seq: log.next_seq,
                    messages: end.messages,
                    bytes: end.bytes,
                    checksum: end.checksum,
                };
                let logs = self.logs.iter().zip(&logs).map(summary).collect();
                self.end = Some((LogId(next_log), Summary { logs, definitions, checksum }));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.messages.is_empty() {
            self.writer.messages(&self.messages)?;
            self.messages.clear();
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Summary> {
        let (next_log, summary) = self.end.context("the file ends before its end")?;
        self.writer.finish(next_log)?;
        Ok(summary)
    }
}

impl Message {
    fn stored(self, log: LogId) -> anyhow::Result<StoredMessage> {
        let hold = self.hold.map(|(delivery_count, acquired_count, due_ms)| Hold {
            delivery_count,
            acquired_count,
            due_ms,
        });
        Ok(StoredMessage {
            log,
            seq: Seq(self.seq),
            expiry_ms: self.expiry_ms,
            flags: u8::try_from(self.flags).context("flags of a message")?,
            props: self.props.0,
            body: self.body.0,
            hold,
        })
    }
}

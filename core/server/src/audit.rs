//! The audit file: what administrators have changed, one line of JSON each.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use anyhow::Context;
use polymq_broker::{AuditEntry, AuditSink};

/// Lines that wait for the disk.
const WAITING_MAX: usize = 1024;
/// At this size the file is renamed, and a new one begun.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What is read of it at a start.
const RECALLED_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// How long the last lines of a process may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The file, written by a thread of its own.
#[derive(Clone)]
pub(crate) struct AuditFile(SyncSender<Item>);

impl AuditFile {
    /// Opens the file, or makes it for its owner only.
    ///
    /// Errors: when it cannot be opened, or the system gives no thread.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file = append_to(&path).with_context(|| {
            format!("logging.audit_file `{}` cannot be written", path.display())
        })?;
        let (send, receive) = sync_channel(WAITING_MAX);
        thread::Builder::new()
            .name("polymq-audit".into())
            .spawn(move || write_all(&receive, &path, file))?;
        Ok(Self(send))
    }

    /// What the broker hands changes to.
    pub(crate) fn sink(&self) -> AuditSink {
        let lines = self.0.clone();
        Box::new(move |entry: &AuditEntry| {
            let Ok(mut line) = serde_json::to_vec(entry) else { return };
            line.push(b'\n');
            if lines.try_send(Item::Line(line)).is_err() {
                tracing::error!(
                    event = "audit_lost",
                    number = entry.number,
                    "the disk is too slow"
                );
            }
        })
    }

    /// Waits until what has been handed over is written, unless that takes long.
    pub(crate) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.0.try_send(Item::Flush(done)).is_ok() {
            // Nobody can do anything about a disk that does not answer.
            let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// The latest entries of a file, the oldest first; none when there is no file. Lines that cannot be
/// read are passed over.
///
/// Errors: those of reading.
pub(crate) fn latest(path: &Path) -> std::io::Result<Vec<AuditEntry>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(RECALLED_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(RECALLED_BYTES_MAX).read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

fn append_to(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn write_all(lines: &Receiver<Item>, path: &Path, mut file: File) {
    while let Ok(item) = lines.recv() {
        let line = match item {
            Item::Line(line) => line,
            Item::Flush(done) => {
                // Whoever asked may have given up.
                let _ = done.send(());
                continue;
            }
        };
        let written = write_one(&line, path, &mut file);
        if let Err(error) = written {
            tracing::error!(event = "audit_lost", %error, "the audit file cannot be written");
        }
    }
}

fn write_one(line: &[u8], path: &Path, file: &mut File) -> std::io::Result<()> {
    if file.metadata()?.len() + line.len() as u64 > FILE_BYTES_MAX {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        std::fs::rename(path, older)?;
        *file = append_to(path)?;
    }
    file.write_all(line)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use polymq_broker::AuditResult;

    use super::*;

    fn entry(number: u64) -> AuditEntry {
        AuditEntry {
            number,
            at: "2026-01-01T00:00:00Z".into(),
            user: "ann".into(),
            token: None,
            from: "127.0.0.1:1".into(),
            action: "user.put".into(),
            object: "/users/bob".into(),
            result: AuditResult::Done,
            before: serde_json::Value::Null,
            after: serde_json::json!({ "tags": ["x".repeat(1000)] }),
        }
    }

    #[test]
    fn changes_are_lines_of_json_that_only_the_owner_reads() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        for number in 1..3 {
            let file = AuditFile::open(path.clone()).unwrap();
            file.sink()(&entry(number));
            file.flush();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let numbers: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| line["number"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(latest(&path).unwrap(), [entry(1), entry(2)]);
        assert_eq!(latest(Path::new("/no/such/file")).unwrap(), []);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_large_file_makes_room_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let large = File::create(&path).unwrap();
        large.set_len(FILE_BYTES_MAX).unwrap();
        let file = AuditFile::open(path.clone()).unwrap();
        file.sink()(&entry(1));
        file.flush();
        assert_eq!(
            std::fs::metadata(folder.path().join("audit.jsonl.1")).unwrap().len(),
            FILE_BYTES_MAX
        );
        assert!(std::fs::metadata(&path).unwrap().len() < 10_000);
    }
}

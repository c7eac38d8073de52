//! Lines of the log on their way to standard error. Who logs never waits for who reads.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait; further ones are dropped.
const LINES_MAX: usize = 2048;
/// How long the last lines of a process may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<SyncSender<Item>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts the thread that writes.
///
/// Errors: when no thread can be started.
pub(crate) fn start(out: impl Write + Send + 'static, is_json: bool) -> io::Result<Lines> {
    let (send, receive) = sync_channel(LINES_MAX);
    thread::Builder::new()
        .name("polymq-log-lines".into())
        .spawn(move || write_all(&receive, out, is_json))?;
    Ok(Lines(QUEUE.get_or_init(|| send).clone()))
}

/// Lines that nobody took, because standard error was full or its reader slow.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until what has been logged is written, unless that takes long.
pub(crate) fn flush() {
    let (done, is_done) = sync_channel(1);
    let Some(queue) = QUEUE.get() else { return };
    // A full queue is one that nobody reads.
    if queue.try_send(Item::Flush(done)).is_ok() {
        let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Takes lines and drops those that find no room.
#[derive(Clone)]
pub(crate) struct Lines(SyncSender<Item>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.try_send(Item::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(lines: &Receiver<Item>, mut out: impl Write, is_json: bool) {
    let mut told = 0;
    for item in lines {
        match item {
            Item::Line(line) => {
                if out.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let dropped = dropped();
                if dropped > told && out.write_all(&told_line(dropped - told, is_json)).is_ok() {
                    told = dropped;
                }
            }
            Item::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// Says how many lines are missing.
fn told_line(count: u64, is_json: bool) -> Vec<u8> {
    let event = "log_lines_dropped";
    let line = if is_json {
        format!("{{\"level\":\"WARN\",\"event\":\"{event}\",\"count\":{count}}}\n")
    } else {
        format!("WARN event=\"{event}\" count={count}\n")
    };
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing until it is told to.
    struct Stopped(Receiver<()>, SyncSender<Vec<u8>>);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().ok();
            self.1.send(bytes.to_vec()).ok();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_counted() {
        let (go, goes) = sync_channel(0);
        let (written, lines) = sync_channel(2 * LINES_MAX);
        let mut log = start(Stopped(goes, written), true).unwrap();
        for _ in 0..LINES_MAX + 100 {
            log.write_all(b"line\n").unwrap();
        }
        assert!((99..=100).contains(&dropped()), "{}", dropped());
        drop(go);
        let second = lines.iter().nth(1).unwrap();
        assert_eq!(second, told_line(dropped(), true));
    }

    #[test]
    fn the_missing_are_told_as_lines_look() {
        let json: serde_json::Value = serde_json::from_slice(&told_line(7, true)).unwrap();
        assert_eq!(json["count"], 7);
        assert!(String::from_utf8(told_line(7, false)).unwrap().contains("count=7"));
    }
}

//! Reads every segment now and then, slowly, so that damage is found before a consumer comes to it,
//! while there may still be a backup.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use polymq_store::{LogId, Seq};

use crate::{
    config::LogConfig,
    error::Failure,
    part::{FilePart, Source},
    place::Shared,
    read::bad_range,
    segment::{self, Checked},
    store::note,
};

/// A store is read at least this fast, so that a small one is done soon.
const BYTES_PER_SEC_MIN: u64 = 64 * 1024;
/// About what is read between two pauses.
const STEP_BYTES: u64 = 256 * 1024;
/// The first round waits, so that a start has the disk for itself.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The thread; dropping it ends it.
pub(crate) struct Scrub {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    is_stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits; true when it is time to end.
    fn wait(&self, time: Duration) -> bool {
        let mut is_stopped = self.is_stopped.lock();
        if !*is_stopped {
            let _ = self.changed.wait_for(&mut is_stopped, time);
        }
        *is_stopped
    }
}

impl Scrub {
    /// `None` when it is switched off.
    ///
    /// Errors: when no thread can be started.
    pub(crate) fn start(shared: Arc<Mutex<Shared>>, config: LogConfig) -> io::Result<Option<Self>> {
        if config.scrub_secs == 0 || config.scrub_bytes_per_sec == 0 {
            return Ok(None);
        }
        let stop = Arc::new(Stop::default());
        let mine = stop.clone();
        let thread = thread::Builder::new()
            .name("polymq-log-scrub".into())
            .spawn(move || run(&shared, &config, &mine))?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        *self.stop.is_stopped.lock() = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Mutex<Shared>, config: &LogConfig, stop: &Stop) {
    let every = Duration::from_secs(config.scrub_secs);
    if stop.wait(FIRST_PAUSE.min(every)) {
        return;
    }
    loop {
        let started = Instant::now();
        let is_stopped = round(shared, config, |pause| stop.wait(pause)).is_err();
        if is_stopped || stop.wait(every.saturating_sub(started.elapsed())) {
            return;
        }
    }
}

/// Reads everything once; `pause` says whether to stop.
///
/// Errors: [`Failure::Closed`] when it was stopped.
pub(crate) fn round(
    shared: &Mutex<Shared>,
    config: &LogConfig,
    mut pause: impl FnMut(Duration) -> bool,
) -> Result<(), Failure> {
    let (parts, bytes) = parts(&shared.lock());
    let rate = (bytes / config.scrub_secs.max(1)).max(BYTES_PER_SEC_MIN);
    let rate = rate.min(config.scrub_bytes_per_sec).max(1);
    let damages = shared.lock().damages.clone();
    let (mut since_pause, mut before) = (0, None);
    for (log, first) in parts {
        // Parts become one while this goes on.
        if before.is_some_and(|(of, last)| of == log && last >= first) {
            continue;
        }
        let Some((part, last)) = part_at(&shared.lock(), log, first) else { continue };
        before = Some((log, last));
        let segments = shared.lock().segments.clone();
        segment::check(&segments, &part, log, 0, |checked| {
            let bytes = match checked {
                Checked::Good(visit) => visit.len as u64,
                Checked::Bad(bad) => {
                    tell(shared, log, first, &part, &bad);
                    bad.bytes
                }
            };
            damages.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
            since_pause += bytes;
            if since_pause < STEP_BYTES {
                return Ok(());
            }
            let time = Duration::from_millis(since_pause.saturating_mul(1000) / rate);
            since_pause = 0;
            if pause(time) { Err(Failure::Closed) } else { Ok(()) }
        })?;
    }
    damages.scrubs.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Only the first positions are kept: whoever keeps a part keeps its file.
fn parts(shared: &Shared) -> (Vec<(LogId, u64)>, u64) {
    let (mut parts, mut bytes) = (Vec::new(), 0);
    for (id, log) in shared.state.logs() {
        for part in log.messages().parts() {
            if let Source::File(place) = &part.source {
                parts.push((id, part.first()));
                bytes += place.bytes;
            }
        }
    }
    (parts, bytes)
}

fn part_at(shared: &Shared, log: LogId, first: u64) -> Option<(FilePart, u64)> {
    let part = shared.state.log(log)?.messages().part_at(Seq(first))?;
    match &part.source {
        Source::File(place) => Some((place.clone(), part.last())),
        Source::Wal(..) => None,
    }
}

/// Says what is damaged, if anybody still waits for it.
fn tell(shared: &Mutex<Shared>, log: LogId, first: u64, part: &FilePart, bad: &segment::Bad) {
    let range = {
        let shared = shared.lock();
        let found = shared.state.log(log).and_then(|log| log.messages().part_at(Seq(first)));
        let found = found.filter(|found| found.is_at(part));
        found.map(|found| bad_range(log, part, bad, Some(&found.dead)))
    };
    if let Some(range) = range.filter(|range| range.messages > 0) {
        note(shared, &range);
    }
}

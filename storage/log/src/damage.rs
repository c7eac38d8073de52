//! What was found damaged while the store is open: each range is logged, counted and copied to
//! `quarantine/` once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use polymq_store::{Damage, LogId, Seq};

use crate::{disk::Disk, error::Unreadable, quarantine};

pub(crate) struct Damages {
    disk: Arc<dyn Disk>,
    /// By log and first position.
    seen: Mutex<BTreeMap<(LogId, Seq), Unreadable>>,
    /// What the scrub has read, and how often it came to the end.
    pub(crate) scrubbed_bytes: AtomicU64,
    pub(crate) scrubs: AtomicU64,
}

impl Damages {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        let (scrubbed_bytes, scrubs) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { disk, seen: Mutex::default(), scrubbed_bytes, scrubs }
    }

    /// Takes note of a range of the log with this name; false when it was known.
    pub(crate) fn note(&self, range: &Unreadable, name: &str) -> bool {
        {
            let mut seen = self.seen.lock();
            let before = seen.range(..=(range.log, range.first)).next_back();
            let is_known = |(_, known): (_, &Unreadable)| {
                known.log == range.log && known.last >= range.last && known.file == range.file
            };
            if before.is_some_and(is_known) {
                return false;
            }
            seen.insert((range.log, range.first), range.clone());
        }
        let kept = match range.bytes {
            0 => None,
            bytes => {
                let why = format!("{range}; its name is `{}`", name.escape_debug());
                let disk = &*self.disk;
                match quarantine::keep_range(disk, &range.file, range.offset, bytes, &why) {
                    Ok(kept) => Some(kept),
                    Err(failure) => {
                        tracing::warn!(
                            event = "damage_not_copied", %failure,
                            "damaged bytes stay only where they are"
                        );
                        None
                    }
                }
            }
        };
        tracing::error!(
            event = "messages_damaged",
            queue = name,
            log = range.log.0,
            first = range.first.0,
            last = range.last.0,
            messages = range.messages,
            file = range.file,
            offset = range.offset,
            bytes = range.bytes,
            kept_as = kept.as_deref().unwrap_or("none"),
            "stored messages are damaged"
        );
        true
    }

    pub(crate) fn summary(&self) -> Damage {
        let seen = self.seen.lock();
        Damage {
            ranges: seen.len() as u64,
            messages: seen.values().map(|range| range.messages).sum(),
            scrubbed_bytes: self.scrubbed_bytes.load(Ordering::Relaxed),
            scrubs: self.scrubs.load(Ordering::Relaxed),
        }
    }
}

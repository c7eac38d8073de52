//! Decides when publishers must wait because memory or disk runs short.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::config::{DiskFree, value::MemoryMark};

/// Which marks are reached at present, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    memory: AtomicBool,
    disk: AtomicBool,
}

impl Reached {
    /// The marks by the name of their resource.
    pub(crate) fn read(&self) -> [(&'static str, bool); 2] {
        let read = |mark: &AtomicBool| mark.load(Ordering::Relaxed);
        [("memory", read(&self.memory)), ("disk", read(&self.disk))]
    }
}

/// The marks, and what was decided last.
#[derive(Debug)]
pub(crate) struct Alarms {
    memory_high_bytes: Option<u64>,
    disk_low_bytes: u64,
    disk_resume_bytes: u64,
    disk_is_low: bool,
    reached: Arc<Reached>,
}

/// What was measured; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) disk_free_bytes: Option<u64>,
    /// The store writes nothing at present.
    pub(crate) store_fails: bool,
}

impl Alarms {
    /// Alarms at these marks, when the process may use `allowed_bytes`.
    pub(crate) fn new(mark: MemoryMark, disk: &DiskFree, allowed_bytes: Option<u64>) -> Self {
        Self {
            memory_high_bytes: memory_high_bytes(mark, allowed_bytes),
            disk_low_bytes: disk.low.0,
            disk_resume_bytes: disk.resume.0,
            disk_is_low: false,
            reached: Arc::default(),
        }
    }

    /// The mark of memory in bytes, if there is one.
    pub(crate) fn memory_high_bytes(&self) -> Option<u64> {
        self.memory_high_bytes
    }

    /// What the last check has found, for others to see.
    pub(crate) fn reached(&self) -> Arc<Reached> {
        Arc::clone(&self.reached)
    }

    /// The reason for publishers to wait.
    pub(crate) fn check(&mut self, measured: Measured) -> Option<String> {
        if let Some(free) = measured.disk_free_bytes {
            let mark = if self.disk_is_low { self.disk_resume_bytes } else { self.disk_low_bytes };
            self.disk_is_low = free < mark;
        }
        let used = measured.resident_bytes.zip(self.memory_high_bytes);
        let used = used.filter(|(resident, high)| resident > high);
        self.reached.memory.store(used.is_some(), Ordering::Relaxed);
        self.reached.disk.store(self.disk_is_low, Ordering::Relaxed);
        if let Some((resident, high)) = used {
            return Some(format!(
                "memory: {} of {} MiB used (limits.memory_high)",
                mib(resident),
                mib(high)
            ));
        }
        if self.disk_is_low {
            return Some(format!(
                "disk: {} MiB free, {} MiB needed (limits.disk_free)",
                mib(measured.disk_free_bytes.unwrap_or(0)),
                mib(self.disk_resume_bytes)
            ));
        }
        // Clients are told this text, and why it is so is none of their business.
        measured.store_fails.then(|| "store: it takes no writes at present".to_owned())
    }
}

/// The mark in bytes; `None` when it is a share of something unknown.
fn memory_high_bytes(mark: MemoryMark, allowed_bytes: Option<u64>) -> Option<u64> {
    match mark {
        MemoryMark::Bytes(bytes) => Some(bytes.0),
        MemoryMark::Percent(share) => allowed_bytes.map(|bytes| bytes / 100 * u64::from(share)),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::ByteCount;

    const MIB: u64 = 1 << 20;

    fn alarms() -> Alarms {
        let disk = DiskFree { low: ByteCount(2 * MIB), resume: ByteCount(3 * MIB) };
        Alarms::new(MemoryMark::Percent(60), &disk, Some(100 * MIB))
    }

    fn disk(free: u64) -> Measured {
        Measured { disk_free_bytes: Some(free), ..Measured::default() }
    }

    #[test]
    fn disk_alarm_stands_until_the_higher_mark_is_reached() {
        let mut alarms = alarms();
        assert_eq!(alarms.check(disk(2 * MIB)), None);
        assert!(alarms.check(disk(2 * MIB - 1)).is_some_and(|text| text.contains("1 MiB free")));
        assert_eq!(alarms.reached().read(), [("memory", false), ("disk", true)]);
        assert!(alarms.check(disk(3 * MIB - 1)).is_some());
        assert_eq!(alarms.check(disk(3 * MIB)), None);
        assert_eq!(alarms.check(disk(2 * MIB)), None);
    }

    #[test]
    fn memory_alarm_stands_above_its_share() {
        let mut alarms = alarms();
        let memory = |bytes| Measured { resident_bytes: Some(bytes), ..Measured::default() };
        assert_eq!(alarms.check(memory(60 * MIB)), None);
        assert!(alarms.check(memory(61 * MIB)).is_some_and(|text| text.contains("61 of 60 MiB")));
        assert_eq!(alarms.reached().read(), [("memory", true), ("disk", false)]);
        assert_eq!(alarms.check(memory(60 * MIB)), None);
        assert_eq!(alarms.reached().read(), [("memory", false), ("disk", false)]);
    }

    #[test]
    fn store_that_does_not_write_makes_publishers_wait() {
        let reason = alarms().check(Measured { store_fails: true, ..Measured::default() });
        assert!(reason.is_some_and(|text| text.starts_with("store:")));
    }

    #[test]
    fn what_cannot_be_measured_raises_no_alarm() {
        assert_eq!(alarms().check(Measured::default()), None);
        let bytes = MemoryMark::Bytes(ByteCount(5));
        assert_eq!(memory_high_bytes(bytes, None), Some(5));
        assert_eq!(memory_high_bytes(MemoryMark::Percent(60), None), None);
    }
}

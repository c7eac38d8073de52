//! Decides when publishers must wait because memory or disk runs short.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::config::{DiskFree, value::MemoryMark};

/// The marks in bytes, which may change while the server runs, and which of them are reached.
#[derive(Debug)]
pub(crate) struct Marks {
    /// What the process may use, as far as the system says.
    allowed_bytes: Option<u64>,
    /// The largest number when there is none.
    memory_high: AtomicU64,
    disk_low: AtomicU64,
    disk_resume: AtomicU64,
    memory_is_reached: AtomicBool,
    disk_is_reached: AtomicBool,
}

impl Marks {
    /// These marks, when the process may use `allowed_bytes`.
    pub(crate) fn new(mark: MemoryMark, disk: &DiskFree, allowed_bytes: Option<u64>) -> Arc<Self> {
        let marks = Self {
            allowed_bytes,
            memory_high: AtomicU64::default(),
            disk_low: AtomicU64::default(),
            disk_resume: AtomicU64::default(),
            memory_is_reached: AtomicBool::default(),
            disk_is_reached: AtomicBool::default(),
        };
        marks.set(mark, disk);
        Arc::new(marks)
    }

    /// Other marks from now on.
    pub(crate) fn set(&self, mark: MemoryMark, disk: &DiskFree) {
        let memory = memory_high_bytes(mark, self.allowed_bytes).unwrap_or(u64::MAX);
        self.memory_high.store(memory, Ordering::Relaxed);
        self.disk_low.store(disk.low.0, Ordering::Relaxed);
        self.disk_resume.store(disk.resume.0, Ordering::Relaxed);
    }

    /// The mark of memory, if there is one.
    pub(crate) fn memory_high_bytes(&self) -> Option<u64> {
        Some(self.memory_high.load(Ordering::Relaxed)).filter(|bytes| *bytes < u64::MAX)
    }

    /// Publishers wait when less is free.
    pub(crate) fn disk_low_bytes(&self) -> u64 {
        self.disk_low.load(Ordering::Relaxed)
    }

    /// They go on when so much is free.
    pub(crate) fn disk_resume_bytes(&self) -> u64 {
        self.disk_resume.load(Ordering::Relaxed)
    }

    /// Which are reached, by the name of their resource.
    pub(crate) fn reached(&self) -> [(&'static str, bool); 2] {
        let read = |mark: &AtomicBool| mark.load(Ordering::Relaxed);
        [("memory", read(&self.memory_is_reached)), ("disk", read(&self.disk_is_reached))]
    }
}

/// What was decided last.
#[derive(Debug)]
pub(crate) struct Alarms {
    marks: Arc<Marks>,
    disk_is_low: bool,
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
    /// Alarms at these marks.
    pub(crate) fn new(marks: Arc<Marks>) -> Self {
        Self { marks, disk_is_low: false }
    }

    /// The reason for publishers to wait.
    pub(crate) fn check(&mut self, measured: Measured) -> Option<String> {
        let (low, resume) = (self.marks.disk_low_bytes(), self.marks.disk_resume_bytes());
        if let Some(free) = measured.disk_free_bytes {
            self.disk_is_low = free < if self.disk_is_low { resume } else { low };
        }
        let used = measured.resident_bytes.zip(self.marks.memory_high_bytes());
        let used = used.filter(|(resident, high)| resident > high);
        self.marks.memory_is_reached.store(used.is_some(), Ordering::Relaxed);
        self.marks.disk_is_reached.store(self.disk_is_low, Ordering::Relaxed);
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
                mib(resume)
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

    fn free(low: u64, resume: u64) -> DiskFree {
        DiskFree { low: ByteCount(low * MIB), resume: ByteCount(resume * MIB) }
    }

    fn alarms() -> Alarms {
        Alarms::new(Marks::new(MemoryMark::Percent(60), &free(2, 3), Some(100 * MIB)))
    }

    fn disk(free: u64) -> Measured {
        Measured { disk_free_bytes: Some(free), ..Measured::default() }
    }

    #[test]
    fn disk_alarm_stands_until_the_higher_mark_is_reached() {
        let mut alarms = alarms();
        assert_eq!(alarms.check(disk(2 * MIB)), None);
        assert!(alarms.check(disk(2 * MIB - 1)).is_some_and(|text| text.contains("1 MiB free")));
        assert_eq!(alarms.marks.reached(), [("memory", false), ("disk", true)]);
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
        assert_eq!(alarms.marks.reached(), [("memory", true), ("disk", false)]);
        assert_eq!(alarms.check(memory(60 * MIB)), None);
        assert_eq!(alarms.marks.reached(), [("memory", false), ("disk", false)]);
    }

    #[test]
    fn marks_change_while_alarms_stand() {
        let mut alarms = alarms();
        assert!(alarms.check(disk(MIB)).is_some());
        alarms.marks.set(MemoryMark::Percent(10), &free(0, 1));
        assert_eq!(alarms.check(disk(MIB)), None);
        let memory = Measured { resident_bytes: Some(11 * MIB), ..Measured::default() };
        assert!(alarms.check(memory).is_some_and(|text| text.contains("11 of 10 MiB")));
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

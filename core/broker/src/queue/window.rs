//! How much of a queue is kept in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use polymq_model::Limits;
use polymq_store::ReadLimit;

/// What an entry takes beside its body: itself, the message's head, properties.
const ENTRY_BYTES: usize = 256;
/// Queues report a change of what they take when it is larger than this.
const REPORTED_BYTES: usize = 64 * 1024;

/// What so many entries with so many bytes of bodies take in memory.
pub(super) fn weight(entries: usize, body_bytes: usize) -> usize {
    body_bytes + entries * ENTRY_BYTES
}

/// The part of a queue that is kept in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    pub(super) entries_max: usize,
    pub(super) bytes_max: usize,
}

impl Window {
    /// How many entries stay when it overflows.
    pub(super) fn entries_kept(self) -> usize {
        (self.entries_max / 2).max(1)
    }

    /// How many bytes stay when it overflows.
    pub(super) fn bytes_kept(self) -> usize {
        self.bytes_max / 2
    }

    /// The next page is read when there are fewer entries than this.
    pub(super) fn entries_low(self) -> usize {
        (self.entries_max / 8).max(1)
    }

    /// What is read at a time.
    pub(super) fn page(self) -> ReadLimit {
        let messages_max = u32::try_from(self.entries_low()).unwrap_or(u32::MAX);
        ReadLimit { messages_max, bytes_max: (self.bytes_max / 8) as u64 }
    }
}

/// What the windows of all queues take together.
#[derive(Debug)]
pub(crate) struct WindowBudget {
    used: AtomicUsize,
    used_max: usize,
    window: Window,
}

impl WindowBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            used: AtomicUsize::new(0),
            used_max: limits.queues_bytes_in_memory_max,
            window: Window {
                entries_max: limits.queue_messages_in_memory_max,
                bytes_max: limits.queue_bytes_in_memory_max,
            },
        }
    }

    /// What one queue may keep now.
    pub(super) fn window(&self) -> Window {
        if self.used.load(Ordering::Relaxed) <= self.used_max {
            return self.window;
        }
        Window {
            entries_max: (self.window.entries_max / 16).max(1),
            bytes_max: self.window.bytes_max / 16,
        }
    }

    /// A queue takes `now` where it had reported `before`; returns what it has reported now.
    pub(super) fn report(&self, before: usize, now: usize) -> usize {
        if now.abs_diff(before) < REPORTED_BYTES && (now != 0 || before == 0) {
            return before;
        }
        // Additions wrap to what a subtraction would leave.
        self.used.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shrink_when_all_together_take_too_much() {
        let limits = Limits { queues_bytes_in_memory_max: 1_000_000, ..Limits::default() };
        let budget = WindowBudget::new(&limits);
        let whole = budget.window().entries_max;
        let first = budget.report(0, 900_000);
        let second = budget.report(0, 200_000);
        assert_eq!(budget.window().entries_max, whole / 16);
        assert_eq!(budget.report(second, 0), 0);
        assert_eq!(budget.window().entries_max, whole);
        assert_eq!(budget.report(first, first + 1000), first, "small changes wait");
    }
}

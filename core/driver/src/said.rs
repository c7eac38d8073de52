//! Log lines that strangers can cause, at most one a second for each place in the code.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// True when a line may be written; `last` is the memory of its place.
pub(crate) fn is_due(last: &AtomicU64) -> bool {
    static START: OnceLock<Instant> = OnceLock::new();
    // Counted from 1, so that the first line is always written.
    let now = START.get_or_init(Instant::now).elapsed().as_secs() + 1;
    last.swap(now, Ordering::Relaxed) != now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written() {
        assert!(is_due(&AtomicU64::new(0)));
    }
}

//! The one place where this crate reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use polymq_model::Now;

/// The time. The steady clock is that of the runtime, so that tests can hold it.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        instant: tokio::time::Instant::now().into_std(),
        unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
    }
}

//! The one place where this crate reads the clock.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use polymq_model::Now;

/// Steady nanoseconds since the first call.
pub(crate) fn nanos() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The time. The steady clock is that of the runtime, so that tests can hold it.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        instant: tokio::time::Instant::now().into_std(),
        unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
    }
}

/// So many seconds that a connection may take. In tests of this crate a second has 100 ms.
pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_millis(if cfg!(test) { count * 100 } else { count * 1000 })
}

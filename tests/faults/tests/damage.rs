//! Cases K16 and K17: files of the store that are not what they were.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

#[path = "damage/any.rs"]
mod any;
#[path = "damage/filled.rs"]
mod filled;
#[path = "damage/log.rs"]
mod log;
#[path = "damage/segments.rs"]
mod segments;
#[path = "damage/top.rs"]
mod top;

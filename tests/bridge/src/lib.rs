//! Nothing but tests: what a message is after it went from one protocol to another.
#![forbid(unsafe_code)]

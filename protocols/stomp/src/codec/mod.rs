//! Frames by hand, on bytes: where one ends, what its headers say, and how ours are written.
//!
//! Specification: STOMP 1.0, 1.1 and 1.2, sections on frames and value encoding.
#![warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)]

mod command;
mod escape;
mod frame;
mod splitter;
mod version;
pub(crate) mod writer;

pub use command::Command;
pub use escape::{BadEscape, put_escaped, unescape};
pub use frame::{BadFrame, Frame, HeaderAt, HeaderBounds};
pub use splitter::{Bounds, Splitter, TooLong, Whole};
pub use version::Version;

#[cfg(test)]
mod tests;

//! Checks of the project itself: who may know whom, sizes, documents. Each is a function from
//! texts to findings, so that a test can show that it can fail.
//!
//! It compiles nothing and needs no network.
#![forbid(unsafe_code)]

pub mod arrows;
pub mod documents;
pub mod events;
pub mod exceptions;
pub mod project;
mod rust_text;
pub mod shape;

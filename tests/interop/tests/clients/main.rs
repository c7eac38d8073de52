//! Client libraries as people use them, unchanged, against a broker of their own each.
//!
//! The expectations stand in the scripts, one line of output per case; see `README.md`.

#![forbid(unsafe_code)]

mod scripts;

//! Names of files: numbers the store chooses.

pub(crate) const WAL_DIR: &str = "wal";
pub(crate) const BASE_DIR: &str = "base";
pub(crate) const SEG_DIR: &str = "seg";
pub(crate) const QUARANTINE_DIR: &str = "quarantine";

pub(crate) fn wal_name(file_seq: u32) -> String {
    format!("{WAL_DIR}/{file_seq}.wal")
}

pub(crate) fn base_name(file_seq: u32) -> String {
    format!("{BASE_DIR}/{file_seq}.base")
}

pub(crate) fn seg_name(file_seq: u32) -> String {
    format!("{SEG_DIR}/{file_seq}.seg")
}

/// The number in the name of a file, with or without its directory.
pub(crate) fn file_seq(name: &str, extension: &str) -> Option<u32> {
    let (number, found) = name.rsplit('/').next()?.split_once('.')?;
    let canonical = number.parse().ok().filter(|n: &u32| n.to_string() == number);
    canonical.filter(|_| found == extension)
}

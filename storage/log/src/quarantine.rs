//! Copies of what is damaged, each with a text beside it that says what it is. Nothing in
//! `quarantine/` is ever read, changed or deleted by the store.

use crate::{
    disk::Disk,
    error::{Failure, fatal_at, io_at},
    names::QUARANTINE_DIR,
};

const DOING: &str = "keeping what is damaged in quarantine";
const PIECE: u64 = 1024 * 1024;

/// Keeps `bytes` from `offset` of a file, and says `why`. Returns the name of the copy; what was
/// kept before is not kept twice.
pub(crate) fn keep_range(
    disk: &dyn Disk,
    path: &str,
    offset: u64,
    bytes: u64,
    why: &str,
) -> Result<String, Failure> {
    let name = format!("{}.{offset}-{}", path.replace('/', "-"), offset + bytes);
    let taken = disk.list(QUARANTINE_DIR).map_err(io_at(DOING))?;
    if !taken.contains(&name) {
        copy(disk, path, offset, bytes, &name)?;
        explain(disk, &name, why)?;
    }
    Ok(format!("{QUARANTINE_DIR}/{name}"))
}

/// Keeps a whole file under a name that is free.
pub(crate) fn keep_file(disk: &dyn Disk, path: &str, why: &str) -> Result<String, Failure> {
    let taken = disk.list(QUARANTINE_DIR).map_err(io_at(DOING))?;
    let flat = path.replace('/', "-");
    let free = |name: &String| !taken.contains(name);
    let name = (0..=taken.len()).map(|n| format!("{flat}.{n}")).find(free).unwrap_or(flat);
    let bytes = disk.open(path).and_then(|file| file.byte_len()).map_err(io_at(DOING))?;
    copy(disk, path, 0, bytes, &name)?;
    explain(disk, &name, why)?;
    Ok(format!("{QUARANTINE_DIR}/{name}"))
}

/// What cannot be read is kept as zeros.
fn copy(disk: &dyn Disk, path: &str, offset: u64, bytes: u64, name: &str) -> Result<(), Failure> {
    let from = disk.open(path).map_err(io_at(DOING))?;
    let to = disk.create(&format!("{QUARANTINE_DIR}/{name}.tmp")).or_else(|_| {
        // A copy that was interrupted.
        disk.remove(&format!("{QUARANTINE_DIR}/{name}.tmp"))?;
        disk.create(&format!("{QUARANTINE_DIR}/{name}.tmp"))
    });
    let to = to.map_err(io_at(DOING))?;
    let len = from.byte_len().map_err(io_at(DOING))?.saturating_sub(offset).min(bytes);
    let mut at = 0;
    while at < len {
        let count = PIECE.min(len - at);
        let mut piece = vec![0; usize::try_from(count).unwrap_or(0)];
        if from.read_at(&mut piece, offset + at).is_err() {
            piece.fill(0);
        }
        to.write_at(&[&piece], at).map_err(io_at(DOING))?;
        at += count;
    }
    to.sync_all().map_err(fatal_at(DOING))?;
    let name = format!("{QUARANTINE_DIR}/{name}");
    disk.rename(&format!("{name}.tmp"), &name).map_err(io_at(DOING))
}

fn explain(disk: &dyn Disk, name: &str, why: &str) -> Result<(), Failure> {
    let path = format!("{QUARANTINE_DIR}/{name}.txt");
    let _ = disk.remove(&path);
    let file = disk.create(&path).map_err(io_at(DOING))?;
    file.write_at(&[why.as_bytes(), b"\n"], 0).map_err(io_at(DOING))?;
    file.sync_all().map_err(fatal_at(DOING))?;
    disk.sync_dir(QUARANTINE_DIR).map_err(fatal_at(DOING))
}

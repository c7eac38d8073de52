//! Files that do not count: ours go, others are kept aside. What we do not understand is never
//! deleted.

use std::num::NonZeroU32;

use crate::{
    ballast::BALLAST,
    core::Home,
    error::{Failure, io_at},
    manifest::{Manifest, manifest_name, manifest_number},
    names::{BASE_DIR, QUARANTINE_DIR, SEG_DIR, WAL_DIR, file_seq},
    scan::Scanned,
    segment::Segments,
};

/// Removes files that were prepared and never used; keeps aside those that hold something.
pub(crate) fn remove_unused(home: &Home, unused: Vec<Scanned>) -> Result<(), Failure> {
    for file in unused {
        remove_or_keep_aside(home, &file)?;
    }
    Ok(())
}

/// Looks at every file of the store.
pub(crate) fn sweep(home: &Home, manifest: &Manifest, segments: &Segments) -> Result<(), Failure> {
    let list = |dir: &str| home.disk.list(dir).map_err(io_at("looking for remains"));
    for name in list("")? {
        let is_current = name == manifest_name(manifest.number);
        if is_current || ["LOCK", "STORE", "CURRENT", BALLAST].contains(&name.as_str()) {
            continue;
        }
        let whole = name.strip_suffix(".tmp");
        let is_ours = whole.is_some_and(|name| {
            ["STORE", "CURRENT"].contains(&name) || manifest_number(name).is_some()
        });
        if is_ours || manifest_number(&name).is_some() {
            home.disk.remove(&name).map_err(io_at("removing remains"))?;
        } else {
            keep_aside(home, &name)?;
        }
    }
    for name in list(WAL_DIR)? {
        match file_seq(&name, "wal") {
            Some(number) if number >= manifest.first_wal => {}
            number => remnant(home, WAL_DIR, &name, number)?,
        }
    }
    for name in list(BASE_DIR)? {
        match file_seq(&name, "base") {
            Some(number) if manifest.bases.iter().any(|base| base.file_seq == number) => {}
            number => remnant(home, BASE_DIR, &name, number)?,
        }
    }
    for name in list(SEG_DIR)? {
        match file_seq(&name, "seg") {
            Some(number) if segments.is_known(number) => {}
            number => remnant(home, SEG_DIR, &name, number)?,
        }
    }
    Ok(())
}

fn remnant(home: &Home, dir: &str, name: &str, number: Option<u32>) -> Result<(), Failure> {
    let path = format!("{dir}/{name}");
    match number.and_then(NonZeroU32::new) {
        Some(number) => {
            let file = home.disk.open(&path).map_err(io_at("looking for remains"))?;
            remove_or_keep_aside(home, &Scanned::open(path, number, file, home.uuid)?)
        }
        None => keep_aside(home, &path),
    }
}

fn remove_or_keep_aside(home: &Home, file: &Scanned) -> Result<(), Failure> {
    if file.header.is_some() || file.is_blank()? {
        home.disk.remove(&file.name).map_err(io_at("removing remains"))
    } else {
        keep_aside(home, &file.name)
    }
}

fn keep_aside(home: &Home, path: &str) -> Result<(), Failure> {
    let doing = "moving an unknown file to quarantine";
    let taken = home.disk.list(QUARANTINE_DIR).map_err(io_at(doing))?;
    let flat = path.replace('/', "-");
    let free = |name: &String| !taken.contains(name);
    let name = (0..=taken.len()).map(|n| format!("{flat}.{n}")).find(free).unwrap_or(flat);
    tracing::warn!(
        event = "unknown_file",
        file = path,
        kept_as = name,
        "unknown file moved to quarantine"
    );
    home.disk.rename(path, &format!("{QUARANTINE_DIR}/{name}")).map_err(io_at(doing))
}

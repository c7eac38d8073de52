//! Whose directory it is: taking one that is nobody's, and recognising one that is ours.

use polymq_store::OwnerId;

use crate::{
    clock::Clock,
    core::Home,
    disk::Disk,
    error::{Failure, io_at},
    format::StoreUuid,
    manifest::{self, Manifest},
    names::{BASE_DIR, QUARANTINE_DIR, SEG_DIR, WAL_DIR},
};

/// The store's uuid; makes the directory a store when it is nobody's.
pub(crate) fn own_store(
    disk: &dyn Disk,
    clock: &dyn Clock,
    me: OwnerId,
) -> Result<StoreUuid, Failure> {
    disk.sync_dir("").map_err(io_at("opening the data directory"))?;
    if let Some(uuid) = manifest::read_store(disk)? {
        for dir in [WAL_DIR, BASE_DIR, SEG_DIR, QUARANTINE_DIR] {
            disk.make_dir(dir).map_err(io_at("making the data directory"))?;
        }
        return Ok(uuid);
    }
    for dir in [WAL_DIR, BASE_DIR, SEG_DIR, QUARANTINE_DIR] {
        disk.make_dir(dir).map_err(io_at("making the data directory"))?;
    }
    for dir in [WAL_DIR, BASE_DIR, SEG_DIR] {
        if !disk.list(dir).map_err(io_at("reading the data directory"))?.is_empty() {
            return Err(Failure::Damaged(format!(
                "{dir} has files, but STORE is missing; restore it, or let `polymq storage repair` \
                 make it"
            )));
        }
    }
    let uuid = StoreUuid(me.0.to_le_bytes());
    manifest::write_store(disk, uuid, clock.unix_ms())?;
    Ok(uuid)
}

/// The manifest; writes the first one of a store that is new.
pub(crate) fn own_manifest(home: &Home) -> Result<Manifest, Failure> {
    let disk = &*home.disk;
    if let Some(manifest) = manifest::read_manifest(disk, home.uuid)? {
        return Ok(manifest);
    }
    for dir in [WAL_DIR, BASE_DIR, SEG_DIR] {
        if !disk.list(dir).map_err(io_at("reading the data directory"))?.is_empty() {
            return Err(Failure::Damaged(format!(
                "{dir} has files, but CURRENT is missing; restore it, or let `polymq storage \
                 repair` make it"
            )));
        }
    }
    let mut manifest = Manifest { first_wal: 1, next_file: 1, ..Manifest::default() };
    manifest::write_manifest(disk, home.uuid, &mut manifest)?;
    Ok(manifest)
}

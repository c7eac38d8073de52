//! `STORE` says whose directory this is; `CURRENT` names the manifest; the manifest says which
//! files count.
//!
//! ```text
//! STORE, 64 B, written once
//!   0 magic "PQST" | 4 fmt u16 | 6 flags u16 | 8 store_uuid 16 B | 24 created_ms u64 | 60 crc
//! CURRENT, text: name of the manifest, space, CRC-32C of the name in hexadecimal
//! MANIFEST-<n>, one frame: len u32 | crc u32 (of what follows) | edit_seq u64 | snapshot
//!   snapshot: magic "PQMF" | fmt u16 | flags u16 | store_uuid 16 B | epoch u64 | first_wal u64
//!   prev_wal_seq u64 | base_batch u64 | clean_close u64 | next_file u64 | prev_crc u32 | bases u32
//!   last_wal u64 | durable_seq u64 (these two from format 3 on)
//!   bases x {file_seq u64, bytes u64, batches u32, last_crc u32}
//! ```
//!
//! A change is a new file with everything in it, synced, and then a new `CURRENT`.

use polymq_store::record::crc32c;

use crate::{
    disk::Disk,
    error::{Failure, fatal_at, io_at},
    format::{FORMAT, HEADER, StoreUuid, get16, get32, get64, put16, put32, put64},
};

/// The version of the manifest. The first one knew no segments, the second did not say how
/// far the log was durable; both are read as well.
const MANIFEST_FORMAT: u16 = 3;
const STORE_MAGIC: &[u8; 4] = b"PQST";
const MANIFEST_MAGIC: &[u8; 4] = b"PQMF";
const FRAME_BYTES: usize = 16;
const FIXED_BYTES: usize = 96;
const FIXED_BYTES_BEFORE_3: usize = 80;
const BASE_BYTES: usize = 24;
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file of rewritten live messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BaseFile {
    pub(crate) file_seq: u32,
    pub(crate) bytes: u64,
    pub(crate) batches: u32,
    pub(crate) last_crc: u32,
}

/// Which files count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Manifest {
    /// The number in the name of its file.
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    /// Replay starts with this file of the log.
    pub(crate) first_wal: u32,
    /// The batch before that file, and the checksum of its header.
    pub(crate) prev_wal_seq: u64,
    pub(crate) prev_crc: u32,
    /// The last batch of the shard whose effect is in the base files.
    pub(crate) base_batch: u64,
    /// Everything up to here was synced by a clean close; 0 when there was none.
    pub(crate) clean_close: u64,
    /// No file had this number or a higher one.
    pub(crate) next_file: u32,
    /// This file of the log was durable, with its header; 0 when nobody knows. It must be there
    /// unless it is older than `first_wal`.
    pub(crate) last_wal: u32,
    /// Batches up to this one were synced when this was written.
    pub(crate) durable_seq: u64,
    pub(crate) bases: Vec<BaseFile>,
}

impl Manifest {
    /// The last batch that is certain to have been durable.
    pub(crate) fn durable(&self) -> u64 {
        self.clean_close.max(self.durable_seq)
    }
}

/// Whose directory this is; `None` when nobody's yet.
pub(crate) fn read_store(disk: &dyn Disk) -> Result<Option<StoreUuid>, Failure> {
    let names = disk.list("").map_err(io_at("reading the data directory"))?;
    if !names.iter().any(|name| name == "STORE") {
        return Ok(None);
    }
    let bytes = read_whole(disk, "STORE")?;
    if bytes.len() != HEADER
        || bytes[..4] != *STORE_MAGIC
        || crc32c(&bytes[..60]) != get32(&bytes, 60)
    {
        return Err(Failure::Damaged("STORE does not say whose directory this is".into()));
    }
    check_format("STORE", get16(&bytes, 4), FORMAT)?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[8..24]);
    Ok(Some(StoreUuid(uuid)))
}

pub(crate) fn write_store(disk: &dyn Disk, uuid: StoreUuid, now_ms: u64) -> Result<(), Failure> {
    let mut out = [0; HEADER];
    out[..4].copy_from_slice(STORE_MAGIC);
    put16(&mut out, 4, FORMAT);
    out[8..24].copy_from_slice(&uuid.0);
    put64(&mut out, 24, now_ms);
    let crc = crc32c(&out[..60]);
    put32(&mut out, 60, crc);
    replace(disk, "STORE", &out)
}

/// The manifest that `CURRENT` names; `None` when there is no `CURRENT`.
pub(crate) fn read_manifest(disk: &dyn Disk, uuid: StoreUuid) -> Result<Option<Manifest>, Failure> {
    let names = disk.list("").map_err(io_at("reading the data directory"))?;
    if !names.iter().any(|name| name == "CURRENT") {
        return Ok(None);
    }
    let text = read_whole(disk, "CURRENT")?;
    let number = current_number(&text)
        .ok_or_else(|| Failure::Damaged("CURRENT does not name a manifest".into()))?;
    read_one(disk, uuid, number).map(Some)
}

/// The manifest with this number.
pub(crate) fn read_one(disk: &dyn Disk, uuid: StoreUuid, number: u64) -> Result<Manifest, Failure> {
    let name = manifest_name(number);
    let bytes = read_whole(disk, &name)?;
    decode(&bytes, uuid, number, &name)
}

fn current_number(text: &[u8]) -> Option<u64> {
    let (name, crc) = std::str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c(name.as_bytes()) {
        return None;
    }
    manifest_number(name)
}

/// Writes `manifest` under the next number and makes it the current one.
///
/// Errors: after [`Failure::Full`] and [`Failure::ReadOnly`] the old one is still current.
pub(crate) fn write_manifest(
    disk: &dyn Disk,
    uuid: StoreUuid,
    manifest: &mut Manifest,
) -> Result<(), Failure> {
    let old = manifest_name(manifest.number);
    manifest.number += 1;
    let name = manifest_name(manifest.number);
    replace(disk, &name, &encode(manifest, uuid))?;
    let current = format!("{name} {:08x}\n", crc32c(name.as_bytes()));
    replace(disk, "CURRENT", current.as_bytes())?;
    // Nothing refers to the old one any more; what is left behind goes at the next start.
    let _ = disk.remove(&old);
    Ok(())
}

pub(crate) fn manifest_name(number: u64) -> String {
    format!("MANIFEST-{number}")
}

pub(crate) fn manifest_number(name: &str) -> Option<u64> {
    name.strip_prefix("MANIFEST-")?.parse().ok()
}

fn encode(manifest: &Manifest, uuid: StoreUuid) -> Vec<u8> {
    let mut out = vec![0; FRAME_BYTES + FIXED_BYTES];
    put64(&mut out, 8, manifest.number);
    let fixed = &mut out[FRAME_BYTES..];
    fixed[..4].copy_from_slice(MANIFEST_MAGIC);
    put16(fixed, 4, MANIFEST_FORMAT);
    fixed[8..24].copy_from_slice(&uuid.0);
    put64(fixed, 24, manifest.epoch);
    put64(fixed, 32, u64::from(manifest.first_wal));
    put64(fixed, 40, manifest.prev_wal_seq);
    put64(fixed, 48, manifest.base_batch);
    put64(fixed, 56, manifest.clean_close);
    put64(fixed, 64, u64::from(manifest.next_file));
    put32(fixed, 72, manifest.prev_crc);
    put32(fixed, 76, u32::try_from(manifest.bases.len()).unwrap_or(u32::MAX));
    put64(fixed, 80, u64::from(manifest.last_wal));
    put64(fixed, 88, manifest.durable_seq);
    for base in &manifest.bases {
        let mut entry = [0; BASE_BYTES];
        put64(&mut entry, 0, u64::from(base.file_seq));
        put64(&mut entry, 8, base.bytes);
        put32(&mut entry, 16, base.batches);
        put32(&mut entry, 20, base.last_crc);
        out.extend_from_slice(&entry);
    }
    let len = u32::try_from(out.len()).unwrap_or(u32::MAX);
    put32(&mut out, 0, len);
    let crc = crc32c(&out[8..]);
    put32(&mut out, 4, crc);
    out
}

fn decode(bytes: &[u8], uuid: StoreUuid, number: u64, name: &str) -> Result<Manifest, Failure> {
    let damaged = |what: &str| Failure::Damaged(format!("{name} {what}"));
    if bytes.len() < FRAME_BYTES + FIXED_BYTES_BEFORE_3
        || get32(bytes, 0) as usize != bytes.len()
        || crc32c(&bytes[8..]) != get32(bytes, 4)
        || get64(bytes, 8) != number
    {
        return Err(damaged("is not a whole manifest"));
    }
    let fixed = &bytes[FRAME_BYTES..];
    check_format(name, get16(fixed, 4), MANIFEST_FORMAT)?;
    if fixed[..4] != *MANIFEST_MAGIC || fixed[8..24] != uuid.0 {
        return Err(damaged("belongs to another store"));
    }
    let file = |value: u64| u32::try_from(value).map_err(|_| damaged("has a bad file number"));
    let has_last = get16(fixed, 4) >= 3;
    let fixed_bytes = if has_last { FIXED_BYTES } else { FIXED_BYTES_BEFORE_3 };
    let entries = fixed.get(fixed_bytes..).ok_or_else(|| damaged("is cut"))?;
    if entries.len() != get32(fixed, 76) as usize * BASE_BYTES {
        return Err(damaged("has a cut list of files"));
    }
    let mut bases = Vec::new();
    for entry in entries.chunks_exact(BASE_BYTES) {
        bases.push(BaseFile {
            file_seq: file(get64(entry, 0))?,
            bytes: get64(entry, 8),
            batches: get32(entry, 16),
            last_crc: get32(entry, 20),
        });
    }
    Ok(Manifest {
        number,
        epoch: get64(fixed, 24),
        first_wal: file(get64(fixed, 32))?,
        prev_wal_seq: get64(fixed, 40),
        prev_crc: get32(fixed, 72),
        base_batch: get64(fixed, 48),
        clean_close: get64(fixed, 56),
        next_file: file(get64(fixed, 64))?,
        last_wal: if has_last { file(get64(fixed, 80))? } else { 0 },
        durable_seq: if has_last { get64(fixed, 88) } else { 0 },
        bases,
    })
}

fn check_format(name: &str, format: u16, known: u16) -> Result<(), Failure> {
    match format {
        1.. if format <= known => Ok(()),
        0 => Err(Failure::Damaged(format!("{name} has format 0"))),
        newer => Err(Failure::TooNew(format!(
            "{name} has format {newer}, this program knows {known}; start the newer program"
        ))),
    }
}

fn read_whole(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, Failure> {
    let file = disk.open(name).map_err(io_at(&format!("opening {name}")))?;
    let at = format!("reading {name}");
    // The page cache may hold what the disk does not.
    file.sync_all().map_err(io_at(&at))?;
    let len = file.byte_len().map_err(io_at(&at))?;
    if len > MANIFEST_BYTES_MAX {
        return Err(Failure::Damaged(format!("{name} is longer than anything written here")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_at(&mut bytes, 0).map_err(io_at(&at))?;
    Ok(bytes)
}

/// Puts a file with these contents in the place of `name`: either the old or the new one is there
/// after a crash.
fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let at = format!("writing {name}");
    let temporary = format!("{name}.tmp");
    if disk.list("").map_err(io_at(&at))?.contains(&temporary) {
        disk.remove(&temporary).map_err(io_at(&at))?;
    }
    let file = disk.create(&temporary).map_err(io_at(&at))?;
    file.write_at(&[bytes], 0).map_err(io_at(&at))?;
    // From here on nobody can tell what a failure leaves behind.
    file.sync_all().map_err(fatal_at(&at))?;
    disk.rename(&temporary, name).map_err(fatal_at(&at))?;
    disk.sync_dir("").map_err(fatal_at(&at))
}

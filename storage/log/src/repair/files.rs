//! The files everything else is found by: `STORE`, `CURRENT` and the manifest.

use std::num::NonZeroU32;

use crate::{
    core::Home,
    disk::Disk,
    error::{Failure, io_at},
    format::{BadHeader, FLAG_BASE, FileHeader, HEADER, PAGE, StoreUuid},
    manifest::{self, BaseFile, Manifest, manifest_name, manifest_number},
    names::{BASE_DIR, SEG_DIR, WAL_DIR, base_name, file_seq, wal_name},
    repair::{Finding, Keep},
    scan::Scanned,
};

/// What stands in them, or what they are made from.
pub(super) struct Top {
    pub(super) uuid: StoreUuid,
    pub(super) manifest: Manifest,
    has_store: bool,
}

impl Top {
    /// Errors: [`Failure::Damaged`] with what to restore when nothing else says it.
    pub(super) fn read(disk: &dyn Disk, findings: &mut Vec<Finding>) -> Result<Self, Failure> {
        let (uuid, has_store) = match manifest::read_store(disk) {
            Ok(Some(uuid)) => (uuid, true),
            Err(failure @ Failure::TooNew(_)) => return Err(failure),
            Ok(None) | Err(_) => {
                let uuid = uuid_of_files(disk)?;
                findings.push(Finding::new(
                    "STORE",
                    (0, 0),
                    keep_if_there(disk, "STORE"),
                    "the file does not say whose directory this is; the others do",
                ));
                (uuid, false)
            }
        };
        let manifest = match manifest::read_manifest(disk, uuid) {
            Ok(Some(manifest)) => manifest,
            Err(failure @ Failure::TooNew(_)) => return Err(failure),
            Ok(None) | Err(_) => find_manifest(disk, uuid, findings)?,
        };
        Ok(Self { uuid, manifest, has_store })
    }

    /// Writes what was not there. The manifest is written with every start.
    pub(super) fn write(&self, home: &Home) -> Result<(), Failure> {
        if self.has_store {
            return Ok(());
        }
        manifest::write_store(&*home.disk, home.uuid, home.clock.unix_ms())
    }
}

fn keep_if_there(disk: &dyn Disk, name: &str) -> Keep {
    if disk.open(name).is_ok() { Keep::File } else { Keep::Nothing }
}

/// Every file begins with the name of its store.
fn uuid_of_files(disk: &dyn Disk) -> Result<StoreUuid, Failure> {
    let mut found: Vec<StoreUuid> = Vec::new();
    for (dir, extension) in [(WAL_DIR, "wal"), (BASE_DIR, "base"), (SEG_DIR, "seg")] {
        for name in disk.list(dir).unwrap_or_default() {
            let Some(number) = file_seq(&name, extension) else { continue };
            let mut header = [0; HEADER];
            let file = disk.open(&format!("{dir}/{name}"));
            if !file.is_ok_and(|file| file.read_at(&mut header, 0).is_ok()) {
                continue;
            }
            let Some(uuid) = header[8..24].first_chunk() else { continue };
            let uuid = StoreUuid(*uuid);
            match FileHeader::decode(&header, uuid, number) {
                Ok(_) if !found.contains(&uuid) => found.push(uuid),
                Ok(_) | Err(BadHeader::Invalid | BadHeader::Newer(_)) => {}
            }
        }
    }
    match found.as_slice() {
        [uuid] => Ok(*uuid),
        [] => Err(Failure::Damaged(
            "STORE is not readable, and no other file says whose directory this is; is this the \
             folder of a store? Restore STORE from a backup"
                .into(),
        )),
        _ => Err(Failure::Damaged(
            "STORE is not readable, and the files of this directory belong to several stores; \
             restore STORE from a backup"
                .into(),
        )),
    }
}

/// The newest whole manifest: it was written to the end before anything was done that needs it.
fn find_manifest(
    disk: &dyn Disk,
    uuid: StoreUuid,
    findings: &mut Vec<Finding>,
) -> Result<Manifest, Failure> {
    let names = disk.list("").map_err(io_at("reading the data directory"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| manifest_number(name)).collect();
    numbers.sort_unstable();
    let mut newest = None;
    for number in numbers.into_iter().rev() {
        let name = manifest_name(number);
        match manifest::read_one(disk, uuid, number) {
            Ok(manifest) if has_its_files(disk, &manifest) => {
                newest = Some(manifest);
                break;
            }
            Err(failure @ Failure::TooNew(_)) => return Err(failure),
            Ok(_) => {
                let what = "this manifest is of another time: files it names are not there";
                findings.push(Finding::new(&name, (0, 0), Keep::File, what));
            }
            Err(_) => {
                let what = "the manifest is damaged";
                findings.push(Finding::new(&name, (0, 0), Keep::File, what));
            }
        }
    }
    let keep = keep_if_there(disk, "CURRENT");
    if let Some(manifest) = newest {
        let newest = manifest_name(manifest.number);
        let what = format!("it does not name a manifest that is whole; {newest} is the newest");
        findings.push(Finding::new("CURRENT", (0, 0), keep, what));
        return Ok(manifest);
    }
    let manifest = made_manifest(disk, uuid, findings.len() as u64)?;
    let what = "no manifest is readable; it is made again from the log and the base file. Whether \
                the end of the log is complete cannot be known";
    findings.push(Finding::new("CURRENT", (0, 0), keep, what));
    Ok(manifest)
}

fn has_its_files(disk: &dyn Disk, manifest: &Manifest) -> bool {
    manifest.bases.iter().all(|base| disk.open(&base_name(base.file_seq)).is_ok())
}

/// A manifest from what the files say of themselves, as far as only one is possible.
fn made_manifest(disk: &dyn Disk, uuid: StoreUuid, above: u64) -> Result<Manifest, Failure> {
    let refuse = |why: &str| {
        Failure::Damaged(format!(
            "no manifest is readable, and {why}; restore the MANIFEST and CURRENT of this store, \
             or the whole directory, from a backup"
        ))
    };
    let logs = scanned(disk, uuid, WAL_DIR, "wal")?;
    let names = disk.list("").map_err(io_at("reading the data directory"))?;
    let number = names.iter().filter_map(|name| manifest_number(name)).max().unwrap_or(0) + above;
    let next_file = logs.last().map_or(1, |file| file.number.get()).saturating_add(1);
    let begins_with = |file: &Scanned, header: FileHeader| Manifest {
        number,
        first_wal: file.number.get(),
        prev_wal_seq: header.prev_wal_seq,
        prev_crc: header.prev_crc,
        next_file,
        ..Manifest::default()
    };
    let mut bases = scanned(disk, uuid, BASE_DIR, "base")?;
    bases.retain(|file| file.header.is_some_and(|header| header.flags & FLAG_BASE != 0));
    if let [base] = bases.as_slice()
        && let Some((base, batch, epoch)) = whole_base(base)?
    {
        // The log goes on behind it with this file.
        for (index, file) in logs.iter().enumerate() {
            let begins = file.batch_header_at(PAGE)?.map(|(header, _)| header.shard_batch);
            let is_next = match begins {
                Some(begins) => begins == batch + 1,
                None => index + 1 == logs.len(),
            };
            if let Some(header) = file.header.filter(|_| is_next) {
                let manifest = begins_with(file, header);
                return Ok(Manifest { epoch, base_batch: batch, bases: vec![base], ..manifest });
            }
        }
    }
    // Nothing was ever flushed: the log has all of it.
    let first = logs.first().and_then(|file| Some((file, file.header?)));
    if let Some((file, header)) = first.filter(|(_, header)| header.prev_wal_seq == 0) {
        return Ok(begins_with(file, header));
    }
    Err(refuse(match bases.len() {
        0 => "the base file is not readable either",
        1 => "the log does not go on where the base file ends",
        _ => "which of several base files counts cannot be known",
    }))
}

/// A base file as a manifest names it, the last batch in it, and its epoch; `None` when it is
/// damaged.
fn whole_base(file: &Scanned) -> Result<Option<(BaseFile, u64, u64)>, Failure> {
    let (mut offset, mut batches, mut last_crc) = (PAGE, 0, 0);
    let (mut batch, mut epoch) = (0, 0);
    while let Some(scan) = file.batch_at(offset)? {
        offset += scan.header.stride();
        batches += 1;
        last_crc = scan.crc;
        (batch, epoch) = (scan.header.shard_batch, scan.header.epoch);
    }
    let base = BaseFile { file_seq: file.number.get(), bytes: offset, batches, last_crc };
    Ok((batches > 0 && offset >= file.bytes).then_some((base, batch, epoch)))
}

/// The files of a folder in the order of their numbers.
fn scanned(
    disk: &dyn Disk,
    uuid: StoreUuid,
    dir: &str,
    extension: &str,
) -> Result<Vec<Scanned>, Failure> {
    let names = disk.list(dir).map_err(io_at("reading the data directory"))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|n| file_seq(n, extension)).collect();
    numbers.sort_unstable();
    let mut files = Vec::new();
    for number in numbers.into_iter().filter_map(NonZeroU32::new) {
        let name = if dir == WAL_DIR { wal_name(number.get()) } else { base_name(number.get()) };
        let file = disk.open(&name).map_err(io_at("reading the data directory"))?;
        files.push(Scanned::open(name, number, file, uuid)?);
    }
    Ok(files)
}

//! A copy of a store that another process may be writing to, which opens like the store of a
//! broker that ended at that moment.
//!
//! Files that a manifest names do not change, but for those of the log, and they go only when a
//! later manifest does without them. So a manifest is read, its log is held open, and segments and
//! base files are linked; when one has gone meanwhile, a later manifest is there to begin with.
//!
//! The log is read batch by batch for as long as each follows the one before. So the copy has a
//! last batch, and nothing half written behind it; everything confirmed before the copy began lies
//! before that batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use polymq_store::StoreError;

use crate::{
    clock::SystemClock,
    config::LogConfig,
    core::Home,
    damage::Damages,
    disk::{Disk, RealDisk},
    error::{Failure, io_at},
    format::{BatchHeader, FileHeader, PAGE, StoreUuid},
    manifest::{self, Manifest},
    names::{BASE_DIR, QUARANTINE_DIR, SEG_DIR, WAL_DIR, base_name, seg_name, wal_name},
    overlay::Overlay,
    part::Source,
    place::{Shared, WalEnd},
    recovery::{load_base, log_files},
    scan::{Scan, Scanned},
    segment::Segments,
};

/// How often a copy begins anew because files went meanwhile. Each time the segments that are
/// copied already stay.
const TRIES_MAX: u32 = 100;
const DOING: &str = "writing the backup";

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackedUp {
    /// Segments of messages, which are linked where that is possible.
    pub segments: u64,
    /// The bytes of all files.
    pub bytes: u64,
}

/// Copies the store at `from`, whether a process has it open or not, into the folder `to`, which
/// must be there and empty. Nothing at `from` changes. `progress` is told how many bytes are done,
/// of how many.
///
/// Errors: when the store is damaged or cannot be read, when there is no room.
pub fn back_up(
    from: impl Into<PathBuf>,
    to: impl Into<PathBuf>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackedUp, StoreError> {
    let (from, to) = (from.into(), to.into());
    let mut tries = 0;
    loop {
        let before = files_that_change(&from);
        let done = Copy { from: &from, to: &to, progress: &mut *progress }.run();
        tries += 1;
        if done.is_ok() || tries == TRIES_MAX || files_that_change(&from) == before {
            return Ok(done?);
        }
    }
}

/// What differs when another process has taken files away: the manifest that is in force, and which
/// files the log has. One that is made ready for later goes, or gets another name, without a
/// manifest.
fn files_that_change(from: &Path) -> (Option<Vec<u8>>, BTreeSet<OsString>) {
    let log = fs::read_dir(from.join(WAL_DIR)).into_iter().flatten();
    let log = log.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    (fs::read(from.join("CURRENT")).ok(), log)
}

struct Copy<'a> {
    from: &'a Path,
    to: &'a Path,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Copy<'_> {
    fn run(self) -> Result<BackedUp, Failure> {
        let disk = Arc::new(Overlay::new(self.from));
        let uuid = manifest::read_store(&*disk)?.ok_or_else(|| no_store("STORE"))?;
        let manifest = manifest::read_manifest(&*disk, uuid)?.ok_or_else(|| no_store("CURRENT"))?;
        let config = LogConfig::default();
        let home = Home { disk, clock: Arc::new(SystemClock), config, uuid };
        // From here on these are read, whoever deletes them.
        let files = opened_log(&home, &manifest)?;
        let segments = segments_of(&home, &manifest)?;
        self.prepare()?;
        // Links come before the log, which takes longer: then few of them are gone.
        for base in &manifest.bases {
            self.link(&base_name(base.file_seq), None)?;
        }
        let all: u64 = segments.values().sum();
        let mut done = 0;
        for (number, bytes) in &segments {
            (self.progress)(done, all);
            self.link(&seg_name(*number), Some(*bytes))?;
            done += bytes;
        }
        let mut log = LogCopy::behind(&manifest, files, self.to);
        log.run(uuid)?;
        if log.end.wal_seq < manifest.durable() {
            return Err(Failure::Damaged(format!(
                "the log ends with batch {}, and batch {} was durable",
                log.end.wal_seq,
                manifest.durable()
            )));
        }
        (self.progress)(done, all);
        self.link("STORE", None)?;
        self.finish(uuid, manifest, &log, &segments)
    }

    /// Makes the folders, and removes what an earlier try has left, but for segments.
    fn prepare(&self) -> Result<(), Failure> {
        let to = RealDisk::new(self.to);
        for dir in [WAL_DIR, BASE_DIR, SEG_DIR, QUARANTINE_DIR] {
            to.make_dir(dir).map_err(io_at(DOING))?;
        }
        for dir in [WAL_DIR, BASE_DIR] {
            for name in to.list(dir).map_err(io_at(DOING))? {
                to.remove(&format!("{dir}/{name}")).map_err(io_at(DOING))?;
            }
        }
        Ok(())
    }

    /// Has a file that never changes in the copy as well, with `bytes` where they are known.
    fn link(&self, name: &str, bytes: Option<u64>) -> Result<(), Failure> {
        let (from, to) = (self.from.join(name), self.to.join(name));
        if !to.exists() {
            match fs::hard_link(&from, &to) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Failure::Damaged(format!("{name} is missing")));
                }
                // Another disk, or one without links.
                Err(_) => copy(&from, &to).map_err(io_at(DOING))?,
            }
        }
        let found = fs::metadata(&to).map_err(io_at(DOING))?.len();
        match bytes.filter(|bytes| *bytes != found) {
            None => Ok(()),
            Some(bytes) => Err(Failure::Damaged(format!("{name} has {found} of {bytes} bytes"))),
        }
    }

    /// Writes down which files count, last.
    fn finish(
        self,
        uuid: StoreUuid,
        manifest: Manifest,
        log: &LogCopy<'_>,
        segments: &BTreeMap<u32, u64>,
    ) -> Result<BackedUp, Failure> {
        let to = RealDisk::new(self.to);
        for name in to.list(SEG_DIR).map_err(io_at(DOING))? {
            if !segments.keys().any(|number| seg_name(*number).ends_with(&format!("/{name}"))) {
                to.remove(&format!("{SEG_DIR}/{name}")).map_err(io_at(DOING))?;
            }
        }
        for dir in [WAL_DIR, BASE_DIR, SEG_DIR] {
            to.sync_dir(dir).map_err(io_at(DOING))?;
        }
        // All of it is on the disk here, so whatever is missing later is damage.
        let durable_seq = log.end.wal_seq.max(manifest.durable_seq);
        let last_wal = log.last_file.max(manifest.last_wal);
        let bases: u64 = manifest.bases.iter().map(|base| base.bytes).sum();
        let mut manifest = Manifest { durable_seq, last_wal, ..manifest };
        manifest::write_manifest(&to, uuid, &mut manifest)?;
        let bytes = segments.values().sum::<u64>() + bases + log.bytes;
        Ok(BackedUp { segments: segments.len() as u64, bytes })
    }
}

fn no_store(name: &str) -> Failure {
    Failure::Damaged(format!("there is no store: {name} is missing"))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Files of the log in the order of their numbers, whether they were begun or not.
fn opened_log(home: &Home, manifest: &Manifest) -> Result<Vec<Scanned>, Failure> {
    let (mut files, unused) = log_files(home, manifest)?;
    files.extend(unused);
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// The segments that the base files name, with their bytes.
fn segments_of(home: &Home, manifest: &Manifest) -> Result<BTreeMap<u32, u64>, Failure> {
    let segments = Arc::new(Segments::new(home.disk.clone(), home.uuid));
    let mut shared = Shared::new(segments, Arc::new(Damages::new(home.disk.clone())));
    for base in &manifest.bases {
        load_base(home, manifest, base, &mut shared)?;
    }
    let mut found = BTreeMap::new();
    for (_, log) in shared.state.logs() {
        for part in log.messages().parts() {
            if let Source::File(place) = &part.source {
                found.insert(place.file.number(), place.file.bytes());
            }
        }
    }
    Ok(found)
}

/// The log, batch by batch.
struct LogCopy<'a> {
    files: Vec<Scanned>,
    to: &'a Path,
    /// The last batch that was copied.
    end: WalEnd,
    last_file: u32,
    bytes: u64,
}

impl<'a> LogCopy<'a> {
    fn behind(manifest: &Manifest, files: Vec<Scanned>, to: &'a Path) -> Self {
        let end = WalEnd {
            wal_seq: manifest.prev_wal_seq,
            crc: manifest.prev_crc,
            batch: manifest.base_batch,
        };
        Self { files, to, end, last_file: 0, bytes: 0 }
    }

    fn run(&mut self, uuid: StoreUuid) -> Result<(), Failure> {
        let mut next = self.begun_from(0, uuid)?;
        while let Some((index, header)) = next {
            if !self.continues(&header) {
                return Err(self.broken(index, PAGE));
            }
            next = self.copy_file(index, header, uuid)?;
        }
        Ok(())
    }

    /// Copies one file to its end, or to where the next one continues it. Returns that one.
    fn copy_file(
        &mut self,
        index: usize,
        header: FileHeader,
        uuid: StoreUuid,
    ) -> Result<Option<(usize, FileHeader)>, Failure> {
        let (number, bytes) = (self.files[index].number.get(), self.files[index].bytes);
        let out = File::create_new(self.to.join(wal_name(number))).map_err(io_at(DOING))?;
        out.set_len(bytes).map_err(io_at(DOING))?;
        out.write_all_at(&header.encode(uuid), 0).map_err(io_at(DOING))?;
        let mut offset = PAGE;
        let next = loop {
            // What the next file continues was written before it was begun.
            let next = self.begun_from(index + 1, uuid)?;
            if next.as_ref().is_some_and(|(_, header)| self.continues(header)) {
                break next;
            }
            let scan = self.files[index].batch_at(offset)?;
            let Some(scan) = scan.filter(|scan| self.follows(&scan.header)) else {
                if next.is_some() {
                    return Err(self.broken(index, offset));
                }
                break None;
            };
            write(&out, offset, &scan, uuid, number).map_err(io_at(DOING))?;
            let BatchHeader { wal_seq, shard_batch: batch, .. } = scan.header;
            self.end = WalEnd { wal_seq, crc: scan.crc, batch };
            offset += scan.header.stride();
        };
        out.sync_all().map_err(io_at(DOING))?;
        self.last_file = number;
        self.bytes += offset;
        Ok(next)
    }

    /// The first file from `index` on that has been begun by now.
    fn begun_from(
        &self,
        index: usize,
        uuid: StoreUuid,
    ) -> Result<Option<(usize, FileHeader)>, Failure> {
        for (at, file) in self.files.iter().enumerate().skip(index) {
            let now = Scanned::open(file.name.clone(), file.number, file.file.clone(), uuid)?;
            if let Some(header) = now.header {
                return Ok(Some((at, header)));
            }
        }
        Ok(None)
    }

    fn continues(&self, header: &FileHeader) -> bool {
        header.prev_wal_seq == self.end.wal_seq && header.prev_crc == self.end.crc
    }

    fn follows(&self, header: &BatchHeader) -> bool {
        header.wal_seq == self.end.wal_seq + 1
            && header.prev_crc == self.end.crc
            && header.shard_batch == self.end.batch + 1
    }

    fn broken(&self, index: usize, offset: u64) -> Failure {
        let name = &self.files[index].name;
        Failure::Damaged(format!(
            "{name} does not go on with batch {} at byte {offset}",
            self.end.wal_seq + 1
        ))
    }
}

fn write(out: &File, at: u64, scan: &Scan, uuid: StoreUuid, number: u32) -> io::Result<()> {
    let (header, _) = scan.header.encode(uuid, number);
    out.write_all_at(&header, at)?;
    out.write_all_at(&scan.payload, at + header.len() as u64)
}

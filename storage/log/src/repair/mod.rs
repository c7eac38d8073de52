//! `polymq storage repair`: looks at everything, and then writes anew what can be read, so that
//! the store opens and says exactly what is gone. What is damaged is copied to `quarantine/`
//! before anything else is written. A repair that is interrupted finds the same again.

mod files;
mod finding;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use polymq_store::{LogId, Seq, StoreError, state::Messages};

use crate::{
    clock::{Clock, SystemClock},
    config::LogConfig,
    core::{Home, LogCore},
    disk::{Disk, Lock, RealDisk},
    error::{Failure, io_at},
    manifest::Manifest,
    names::{BASE_DIR, QUARANTINE_DIR, SEG_DIR, WAL_DIR, seg_name},
    overlay::Overlay,
    part::{FilePart, Part, Source},
    place::{Shared, WalFile},
    quarantine,
    read::bad_range,
    recovery::{self, Recovered},
    segment::{self, Checked},
};

use files::Top;
pub(crate) use finding::Keep;
pub use finding::{Finding, Lost};

/// Told how much is done, of how much.
type Progress<'p> = &'p mut dyn FnMut(u64, u64);

/// What a repair has found, and done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repair {
    /// Everything that is damaged.
    pub findings: Vec<Finding>,
}

/// Says what is damaged in the store at `path`, and touches nothing. `progress` is told how many
/// bytes of segments have been read, of how many.
///
/// Errors: when another process has the store, or when something is missing without which nothing
/// can be told; the text says what to restore.
pub fn examine(
    path: impl Into<PathBuf>,
    config: LogConfig,
    progress: Progress<'_>,
) -> Result<Repair, StoreError> {
    let disk = Arc::new(Overlay::new(path));
    let examined = Examined::of(disk, Arc::new(SystemClock), config, progress)?;
    Ok(examined.report)
}

/// Repairs the store at `path`; does nothing when nothing is damaged.
///
/// Errors: as of [`examine`], and when there is no room. The store is then as damaged as before.
pub fn repair(path: impl Into<PathBuf>, config: LogConfig) -> Result<Repair, StoreError> {
    let disk = Arc::new(RealDisk::new(path));
    Ok(repair_on(disk, Arc::new(SystemClock), config)?)
}

pub(crate) fn repair_on(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    config: LogConfig,
) -> Result<Repair, Failure> {
    let examined = Examined::of(disk, clock, config, &mut |_, _| {})?;
    if examined.report.findings.is_empty() { Ok(examined.report) } else { examined.repair() }
}

/// A store whose damage is known. Nothing is written so far.
pub(crate) struct Examined {
    pub(crate) report: Repair,
    home: Home,
    top: Top,
    recovered: Recovered,
    /// Segments of which something is to be written anew.
    damaged: BTreeSet<u32>,
    gone: Vec<(LogId, u64, u64)>,
    lock: Option<Box<dyn Send>>,
}

impl Examined {
    pub(crate) fn of(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: LogConfig,
        progress: Progress<'_>,
    ) -> Result<Self, Failure> {
        let owner = format!("process {}, which repairs it", std::process::id());
        let lock = match disk.lock("LOCK", &owner).map_err(io_at("locking the data directory"))? {
            Lock::Taken(lock) => Some(lock),
            Lock::HeldBy(owner) => return Err(Failure::Held(owner)),
        };
        for dir in [WAL_DIR, BASE_DIR, SEG_DIR] {
            disk.make_dir(dir).map_err(io_at("opening the data directory"))?;
        }
        let mut findings = Vec::new();
        let top = Top::read(&*disk, &mut findings)?;
        let home = Home { disk, clock, config, uuid: top.uuid };
        let mut recovered = recovery::recover(&home, &top.manifest, &|_| {}, Some(findings))?;
        let mut findings = recovered.findings.take().unwrap_or_default();
        let (mut damaged, mut gone) = (BTreeSet::new(), Vec::new());
        scan(&recovered.shared, progress, |log, part, bad, finding| {
            damaged.insert(part);
            gone.extend(bad.map(|(first, last)| (log, first, last)));
            findings.push(finding);
        });
        let report = Repair { findings };
        Ok(Self { report, home, top, recovered, damaged, gone, lock })
    }

    fn repair(self) -> Result<Repair, Failure> {
        let Self { mut report, home, top, mut recovered, damaged, gone, mut lock } = self;
        home.disk.make_dir(QUARANTINE_DIR).map_err(io_at("making the quarantine"))?;
        keep(&*home.disk, &mut report.findings)?;
        for (log, first, last) in gone {
            if let Some(log) = recovered.shared.state.log_mut(log) {
                log.messages_mut().remove(Seq(first), Seq(last));
            }
        }
        top.write(&home)?;
        let (epoch, end) = (recovered.epoch + 1, recovered.end);
        let manifest = Manifest { epoch, ..top.manifest };
        let mut core = LogCore::begin(home, manifest, recovered, &mut lock)?;
        let before = WalFile { number: core.head_number() - 1, bytes: 0, end };
        core.flusher.lock().rewrite(&damaged, before)?;
        core.close_clean()?;
        Ok(report)
    }
}

/// Reads every segment before the store opens.
///
/// Errors: [`Failure::Damaged`] with everything that is not what was written.
pub(crate) fn refuse_damage(shared: &Shared) -> Result<(), Failure> {
    const NAMED_MAX: usize = 20;
    let (mut text, mut count) = (String::new(), 0);
    scan(shared, &mut |_, _| {}, |_, _, _, finding| {
        count += 1;
        if count <= NAMED_MAX {
            text.push_str(&format!("\n{finding}"));
        }
    });
    match count {
        0 => Ok(()),
        _ => Err(Failure::Damaged(format!(
            "{count} places, and a store with damage is not to be opened; restore a backup, or let \
             `polymq storage repair` keep what is readable{text}"
        ))),
    }
}

/// Copies what is damaged before anything else is written.
fn keep(disk: &dyn Disk, findings: &mut [Finding]) -> Result<(), Failure> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for finding in findings {
        let why = finding.to_string();
        let (from, to) = finding.bytes;
        let before = kept.iter().find(|(file, _)| *file == finding.file);
        finding.kept_as = match (finding.keep, before) {
            (Keep::Nothing, _) => None,
            (Keep::File, Some((_, name))) => Some(name.clone()),
            (Keep::File, None) => {
                let name = quarantine::keep_file(disk, &finding.file, &why)?;
                kept.push((finding.file.clone(), name.clone()));
                Some(name)
            }
            (Keep::Range, _) => {
                Some(quarantine::keep_range(disk, &finding.file, from, to - from, &why)?)
            }
        };
    }
    Ok(())
}

/// Reads every record of every segment, and calls `found` with what is not sound: log, file,
/// positions, and words for it.
pub(crate) fn scan(
    shared: &Shared,
    progress: Progress<'_>,
    mut found: impl FnMut(LogId, u32, Option<(u64, u64)>, Finding),
) {
    let bytes = |part: &Part| match &part.source {
        Source::File(place) => place.bytes,
        Source::Wal(..) => 0,
    };
    let parts = shared.state.logs().flat_map(|(_, log)| log.messages().parts());
    let (mut done, all) = (0, parts.map(bytes).sum());
    for (id, log) in shared.state.logs() {
        for part in log.messages().parts() {
            progress(done, all);
            done += bytes(part);
            let Source::File(place) = &part.source else { continue };
            let segments = &shared.segments;
            let number = place.file.number();
            // Only `visit` could fail.
            let _ = segment::check(segments, place, id, 0, |checked| {
                let Checked::Bad(bad) = checked else { return Ok(()) };
                let range = bad_range(id, place, &bad, Some(&part.dead));
                let (first, last) = (range.first.0, range.last.0);
                let end = range.offset + range.bytes;
                let is_all = bad.bytes == place.bytes;
                let (bytes, keep, what) = match segments.open(number) {
                    Err(_) => ((0, 0), Keep::Nothing, "the segment is missing"),
                    Ok(_) if is_all && !segments.has_own_header(number) => {
                        let what = "this is not the segment that was written here: another file, \
                                    or one of another time";
                        ((range.offset, end), Keep::File, what)
                    }
                    Ok(_) => ((range.offset, end), Keep::Range, "records are not what was written"),
                };
                let mut finding = Finding::new(&range.file, bytes, keep, what);
                let (log, name) = (id.0, log.name().to_owned());
                let messages = Some(range.messages);
                finding.lost.push(Lost { log, name, first, last, messages });
                found(id, number, Some((first, last)), finding);
                Ok(())
            });
            check_table(shared, place, |finding| found(id, number, None, finding));
        }
    }
}

/// A table that is damaged alone costs nothing but the way to its records.
fn check_table(shared: &Shared, part: &FilePart, found: impl FnOnce(Finding)) {
    let segments = &shared.segments;
    let number = part.file.number();
    if !segments.has_own_header(number) || segments.table_bytes(part).is_ok() {
        return;
    }
    let start = part.offset + part.bytes;
    let end = start + u64::from(part.table_bytes);
    let what = "the table behind the records is damaged; it is made again";
    let name = seg_name(number);
    found(Finding::new(&name, (start, end), Keep::Range, what));
}

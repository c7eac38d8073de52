//! What the files say at start: nothing here changes a file, so that a directory this program
//! must refuse stays untouched.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    num::NonZeroU32,
    sync::Arc,
};

use bytes::Bytes;

use polymq_store::{
    LogId, ShardBatch,
    record::Checks,
    state::{Found, ShardState},
};

use crate::{
    core::Home,
    damage::Damages,
    error::{Failure, Unreadable, io_at},
    format::{BatchHeader, FLAG_BASE, HEADER, PAGE},
    manifest::{BaseFile, Manifest},
    messages::LogMessages,
    names::{BASE_DIR, SEG_DIR, WAL_DIR, base_name, file_seq, wal_name},
    part::Source,
    place::{Loc, Shared, WalEnd, WalFile},
    read::bad_range,
    repair::Finding,
    scan::{Scan, Scanned},
    segment::{Bad, Segments},
};

use tolerant::Gap;

mod tolerant;

/// A file whose number is further ahead of the manifest than this is not ours.
const NUMBERS_AHEAD: u32 = 1 << 20;

/// A batch that was found whole, but of which nothing says that it was synced.
pub(crate) struct Unproven {
    pub(crate) header: BatchHeader,
    pub(crate) payload: Bytes,
}

/// What recovery found.
pub(crate) struct Recovered {
    pub(crate) shared: Shared,
    /// Files that were prepared, or begun and never finished.
    pub(crate) unused: Vec<Scanned>,
    /// To be written once more before anybody sees them.
    pub(crate) unproven: VecDeque<Unproven>,
    /// The last proven batch.
    pub(crate) end: WalEnd,
    pub(crate) epoch: u64,
    pub(crate) next_file: u32,
    /// What was tolerated; `None` when nothing is.
    pub(crate) findings: Option<Vec<Finding>>,
}

struct Replay {
    out: Recovered,
    /// The last batch read, which may be unproven.
    wal_seq: u64,
    crc: u32,
    shard_batch: u64,
    /// Where unproven batches stand until they are proven.
    pending: VecDeque<Pending>,
    /// What is not readable of the log so far.
    gaps: Vec<Gap>,
    /// The logs that were created behind one.
    logs_behind: BTreeSet<LogId>,
}

struct Pending {
    file: NonZeroU32,
    offset: u64,
    scan: Scan,
}

/// Reads base files and log; of segments it only looks whether they are there.
///
/// With `findings`, damage of the log is added to them and recovery goes on behind it.
///
/// Errors: [`Failure::Damaged`] when something is missing that was durable.
pub(crate) fn recover(
    home: &Home,
    manifest: &Manifest,
    progress: &dyn Fn(u8),
    findings: Option<Vec<Finding>>,
) -> Result<Recovered, Failure> {
    home.disk.sync_dir(BASE_DIR).map_err(io_at("opening the base files"))?;
    home.disk.sync_dir(SEG_DIR).map_err(io_at("opening the segments"))?;
    home.disk.sync_dir(WAL_DIR).map_err(io_at("opening the log"))?;
    let mut shared = Shared::new(
        Arc::new(Segments::new(home.disk.clone(), home.uuid)),
        Arc::new(Damages::new(home.disk.clone())),
    );
    for base in &manifest.bases {
        load_base(home, manifest, base, &mut shared)?;
    }
    // The name of a file that was never finished is not used again: its removal may come late.
    let mut next_file = manifest.next_file.max(1);
    for (dir, extension) in [(BASE_DIR, "base"), (SEG_DIR, "seg")] {
        let names = home.disk.list(dir).map_err(io_at("looking for remains"))?;
        let numbers = names.iter().filter_map(|name| file_seq(name, extension));
        let likely =
            numbers.filter(|number| *number <= manifest.next_file.saturating_add(NUMBERS_AHEAD));
        let last = likely.max().unwrap_or(0);
        next_file = next_file.max(last.saturating_add(1));
    }
    shared.state.set_last_batch(ShardBatch(manifest.base_batch));
    adopt_segments(home, &mut shared)?;
    let end = WalEnd {
        wal_seq: manifest.prev_wal_seq,
        crc: manifest.prev_crc,
        batch: manifest.base_batch,
    };
    let replay = Replay {
        out: Recovered {
            shared,
            unused: Vec::new(),
            unproven: VecDeque::new(),
            end,
            epoch: manifest.epoch,
            next_file,
            findings,
        },
        wal_seq: end.wal_seq,
        crc: end.crc,
        shard_batch: end.batch,
        pending: VecDeque::new(),
        gaps: Vec::new(),
        logs_behind: BTreeSet::new(),
    };
    replay.run(home, manifest, progress)
}

/// Each part names its segment; parts of the same one share it from here on. A segment that is
/// missing is damage to the logs it had messages of, and to no other one.
fn adopt_segments(home: &Home, shared: &mut Shared) -> Result<(), Failure> {
    let names = home.disk.list(SEG_DIR).map_err(io_at("looking for segments"))?;
    let present: BTreeSet<u32> = names.iter().filter_map(|n| file_seq(n, "seg")).collect();
    let (segments, damages) = (shared.segments.clone(), shared.damages.clone());
    for (id, log) in shared.state.logs_mut() {
        let name = log.name().to_owned();
        for part in log.messages_mut().parts_mut() {
            let Source::File(place) = &mut part.source else { continue };
            if !present.contains(&place.file.number()) {
                let missing = bad_range(id, place, &Bad::whole(place), Some(&part.dead));
                damages.note(&Unreadable { bytes: 0, ..missing }, &name);
            }
            place.file = segments.adopt(place.file.clone());
        }
    }
    Ok(())
}

pub(crate) fn load_base(
    home: &Home,
    manifest: &Manifest,
    base: &BaseFile,
    shared: &mut Shared,
) -> Result<(), Failure> {
    let name = base_name(base.file_seq);
    let damaged = |at: u64| {
        Failure::Damaged(format!(
            "{name} is not readable from byte {at} on. It alone says which queues there are and \
             what is acknowledged: restore it, or the whole directory, from a backup"
        ))
    };
    let number = NonZeroU32::new(base.file_seq).ok_or_else(|| damaged(0))?;
    let file = match home.disk.open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged(0)),
        file => file.map_err(io_at(&format!("opening {name}")))?,
    };
    let scanned = Scanned::open(name.clone(), number, file, home.uuid)?;
    if scanned.header.is_none_or(|header| header.flags & FLAG_BASE == 0) {
        return Err(damaged(0));
    }
    let (mut offset, mut crc, mut batches) = (PAGE, 0, 0);
    while offset < base.bytes {
        let scan = scanned.batch_at(offset)?.ok_or_else(|| damaged(offset))?;
        if scan.header.prev_crc != crc {
            return Err(damaged(offset));
        }
        apply(&mut shared.state, manifest.base_batch, number, offset, &scan.payload)
            .ok_or_else(|| damaged(offset))?;
        crc = scan.crc;
        batches += 1;
        offset += scan.header.stride();
    }
    if shared.state.logs().any(|(_, log)| log.messages().has_tail()) {
        return Err(Failure::TooNew(format!(
            "{name} has messages, as versions before segments wrote them; empty the queues with \
             the version that wrote it"
        )));
    }
    if offset != base.bytes || crc != base.last_crc || batches != base.batches {
        return Err(damaged(offset));
    }
    Ok(())
}

/// Applies a payload whose checksum was right; `None` when it is nonsense nevertheless.
pub(crate) fn apply(
    state: &mut ShardState<LogMessages>,
    number: u64,
    file: NonZeroU32,
    batch_offset: u64,
    payload: &[u8],
) -> Option<()> {
    let start = batch_offset + HEADER as u64;
    let place = |found: &Found<'_>| Loc::of(found, file, start);
    state.apply(ShardBatch(number), payload, Checks::LengthsOnly, place).ok()
}

impl Replay {
    fn run(
        mut self,
        home: &Home,
        manifest: &Manifest,
        progress: &dyn Fn(u8),
    ) -> Result<Recovered, Failure> {
        let (mut files, mut unused) = log_files(home, manifest)?;
        if let Some(last) = files.iter().chain(&unused).map(|file| file.number.get()).max() {
            self.out.next_file = self.out.next_file.max(last.saturating_add(1));
        }
        if self.out.findings.is_some() {
            self.adopt_without_header(&mut files, &mut unused)?;
        }
        let count = files.len().max(1);
        // Where the next file says that its predecessor ends.
        let mut ends: VecDeque<_> = files.iter().skip(1).map(prev_wal_seq).collect();
        let mut last = None;
        for (index, file) in files.drain(..).enumerate() {
            progress(u8::try_from(index * 100 / count).unwrap_or(99));
            let end = ends.pop_front();
            self.replay_file(&file, end, manifest.durable())?;
            self.out.shared.files.insert(file.number.get(), file.file.clone());
            match end {
                Some(_) => self.freeze(&file),
                None => last = Some(file),
            }
        }
        for file in unused.iter().filter(|_| self.out.findings.is_none()) {
            let proven = file.proven_behind(PAGE)?;
            if proven > self.wal_seq {
                return Err(self.damaged(file, PAGE, proven));
            }
        }
        self.refuse_missing_file(manifest, &unused)?;
        if self.wal_seq < manifest.durable() {
            self.lost_at_the_end(manifest.durable())?;
        }
        // A repair writes all of it anew before anybody sees it.
        let proven = if self.out.findings.is_some() { u64::MAX } else { manifest.durable() };
        self.proven(proven)?;
        if let Some(last) = &last {
            self.freeze(last);
        }
        self.close_gaps();
        self.out.unused = unused;
        let pending = self.pending.into_iter();
        self.out.unproven =
            pending.map(|p| Unproven { header: p.scan.header, payload: p.scan.payload }).collect();
        Ok(self.out)
    }

    /// No batch of this file is added any more.
    fn freeze(&mut self, file: &Scanned) {
        let (number, bytes, end) = (file.number.get(), file.bytes, self.out.end);
        self.out.shared.freeze(WalFile { number, bytes, end });
    }

    /// Replays one file, to batch `end` when the next file says where this one ends.
    fn replay_file(
        &mut self,
        file: &Scanned,
        end: Option<u64>,
        durable: u64,
    ) -> Result<(), Failure> {
        let continues = file.header.is_some_and(|header| {
            header.prev_wal_seq == self.wal_seq && header.prev_crc == self.crc
        });
        if !continues && !self.begins_behind_a_gap(file)? {
            return Ok(());
        }
        let mut offset = PAGE;
        while end.is_none_or(|end| self.wal_seq < end) {
            let scan = file.batch_at(offset)?.filter(|scan| self.follows(&scan.header));
            let Some(scan) = scan else {
                // The log ends here. That is a torn tail, unless something says that more was
                // durable.
                let proven = match end {
                    Some(end) => end,
                    None => file.proven_behind(offset)?.max(durable),
                };
                if proven <= self.wal_seq {
                    self.refuse_cut_file(file, offset)?;
                    break;
                }
                offset = self.skip_damage(file, offset, end, proven)?;
                continue;
            };
            self.proven(scan.header.last_durable)?;
            self.wal_seq = scan.header.wal_seq;
            self.shard_batch = scan.header.shard_batch;
            self.crc = scan.crc;
            self.out.epoch = self.out.epoch.max(scan.header.epoch);
            let batch_offset = offset;
            offset += scan.header.stride();
            self.pending.push_back(Pending { file: file.number, offset: batch_offset, scan });
        }
        // The next file was begun after this batch had been synced.
        self.proven(end.unwrap_or(0))
    }

    fn follows(&self, header: &BatchHeader) -> bool {
        header.wal_seq == self.wal_seq + 1
            && header.prev_crc == self.crc
            && header.shard_batch == self.shard_batch + 1
    }

    /// Batches up to `wal_seq` are known to be on the disk: apply them.
    fn proven(&mut self, wal_seq: u64) -> Result<(), Failure> {
        while let Some(pending) = self.pending.pop_front_if(|p| p.scan.header.wal_seq <= wal_seq) {
            let Pending { file, offset, scan } = pending;
            self.make_lost_logs(&scan.payload);
            let state = &mut self.out.shared.state;
            apply(state, scan.header.shard_batch, file, offset, &scan.payload).ok_or_else(
                || {
                    let name = wal_name(file.get());
                    Failure::Damaged(format!(
                        "the batch at byte {offset} of {name} has bad records"
                    ))
                },
            )?;
            let batch = scan.header.shard_batch;
            self.out.end = WalEnd { wal_seq: scan.header.wal_seq, crc: scan.crc, batch };
        }
        if self.pending.is_empty() {
            let (wal_seq, crc) = (self.wal_seq, self.crc);
            self.out.end = WalEnd { wal_seq, crc, batch: self.shard_batch };
        }
        Ok(())
    }

    fn damaged(&self, file: &Scanned, offset: u64, last: u64) -> Failure {
        Failure::Damaged(format!(
            "{} is not readable from byte {offset} on: confirmed batches {} to {last} are lost; \
             restore a backup, or let `polymq storage repair` keep what is readable",
            file.name,
            self.wal_seq + 1
        ))
    }
}

fn prev_wal_seq(file: &Scanned) -> u64 {
    file.header.map_or(0, |header| header.prev_wal_seq)
}

/// The files of the log in order, and those whose header is not valid.
pub(crate) fn log_files(
    home: &Home,
    manifest: &Manifest,
) -> Result<(Vec<Scanned>, Vec<Scanned>), Failure> {
    let names = home.disk.list(WAL_DIR).map_err(io_at("listing the log"))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| file_seq(name, "wal")).collect();
    numbers.sort_unstable();
    let (mut files, mut unused) = (Vec::new(), Vec::new());
    for number in numbers.into_iter().filter(|number| *number >= manifest.first_wal) {
        let Some(number) = NonZeroU32::new(number) else { continue };
        let name = wal_name(number.get());
        let file = home.disk.open(&name).map_err(io_at(&format!("opening {name}")))?;
        let scanned = Scanned::open(name, number, file, home.uuid)?;
        if scanned.header.is_some() {
            files.push(scanned);
        } else {
            unused.push(scanned);
        }
    }
    Ok((files, unused))
}

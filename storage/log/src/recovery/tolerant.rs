//! Going on behind damage of the log, when an operator has asked for that. What stands behind a
//! damaged batch counts: it was confirmed as well, and its records say where they belong.

use bytes::{Bytes, BytesMut};

use polymq_store::{
    LogId, Seq, ShardBatch,
    record::{Checks, HEADER_BYTES, Head, Record, Records, aligned, kind, put},
    state::{Found, LogState},
};

use super::{Pending, Replay};
use crate::{
    error::Failure,
    format::{BatchHeader, FileHeader, HEADER, PAGE, get32, get64, put32},
    manifest::Manifest,
    messages::LogMessages,
    names::wal_name,
    place::WalEnd,
    repair::{Finding, Keep, Lost},
    scan::{Scan, Scanned},
};

/// A type of record that nobody uses and everybody skips.
const KIND_NOTHING: u8 = 0x7F;

/// Batches that are not readable.
pub(super) struct Gap {
    /// The finding it belongs to.
    finding: usize,
    /// Where each log stood before it.
    next_seqs: Vec<(LogId, String, Seq)>,
    next_log: LogId,
}

/// Records of a damaged batch that are what was written.
struct Salvaged {
    payload: Bytes,
    lost: Vec<String>,
}

impl Replay {
    fn is_tolerant(&self) -> bool {
        self.out.findings.is_some()
    }

    fn find(&mut self, finding: Finding) {
        if let Some(findings) = &mut self.out.findings {
            findings.push(finding);
        }
    }

    /// A file whose first page is damaged is one of the log when its batches are newer than all
    /// before them. A start that did not come to its end leaves one with copies.
    pub(super) fn adopt_without_header(
        &mut self,
        files: &mut Vec<Scanned>,
        unused: &mut Vec<Scanned>,
    ) -> Result<(), Failure> {
        for mut file in std::mem::take(unused) {
            let mut last = self.wal_seq;
            for before in files.iter().filter(|before| before.number < file.number) {
                last = last.max(before.last_wal_seq()?);
            }
            match file.batch_header_behind(0, last)? {
                None => unused.push(file),
                Some((_, first, _)) => {
                    file.header = Some(FileHeader {
                        flags: 0,
                        file_seq: file.number.get(),
                        prev_wal_seq: first.wal_seq - 1,
                        prev_crc: first.prev_crc,
                        created_ms: 0,
                        size: 0,
                    });
                    let what = "the header of the file is damaged; its batches say where they \
                                belong";
                    self.find(Finding::new(&file.name, (0, PAGE), Keep::File, what));
                    files.push(file);
                }
            }
        }
        files.sort_by_key(|file| file.number);
        Ok(())
    }

    /// The file does not follow the one before: false when it does not count at all.
    pub(super) fn begins_behind_a_gap(&mut self, file: &Scanned) -> Result<bool, Failure> {
        let Some(header) = file.header.filter(|_| self.is_tolerant()) else {
            return Err(self.damaged(file, PAGE, self.wal_seq + 1));
        };
        if header.prev_wal_seq < self.wal_seq {
            let what = "this file does not continue the log; it is of another time, and does not \
                        count";
            self.find(Finding::new(&file.name, (0, file.bytes), Keep::File, what));
            return Ok(false);
        }
        if header.prev_wal_seq > self.wal_seq {
            self.proven(self.wal_seq)?;
            let (first, last) = (self.wal_seq + 1, header.prev_wal_seq);
            let what = format!("the log before this file is missing. {}", unknown(first, last));
            self.open_gap(Finding::new(&file.name, (0, 0), Keep::Nothing, what));
        }
        self.go_on(header.prev_wal_seq, header.prev_crc);
        Ok(true)
    }

    /// Takes what is sound of the batch at `offset`, and returns where the next one begins.
    ///
    /// Errors: [`Failure::Damaged`] unless this was asked for.
    pub(super) fn skip_damage(
        &mut self,
        file: &Scanned,
        offset: u64,
        end: Option<u64>,
        proven: u64,
    ) -> Result<u64, Failure> {
        if !self.is_tolerant() {
            return Err(self.damaged(file, offset, proven));
        }
        // Something later was durable, so all of this was.
        self.proven(self.wal_seq)?;
        if let Some((header, crc)) = file.batch_header_at(offset)?.filter(|(h, _)| self.follows(h))
        {
            let behind = offset + header.stride();
            let payload = file.bytes_at(offset + HEADER as u64, header.payload_len.into());
            self.take_damaged(file, (offset, behind), (header, crc), salvage(&payload, &header))?;
            return Ok(behind);
        }
        let next = file.batch_header_behind(offset, self.wal_seq)?;
        let next = next.filter(|(_, header, _)| end.is_none_or(|end| header.wal_seq <= end));
        let Some((behind, next, _)) = next else {
            let what = unknown(self.wal_seq + 1, proven);
            self.open_gap(Finding::new(&file.name, (offset, file.bytes), Keep::File, what));
            self.go_on(proven, 0);
            return Ok(file.bytes);
        };
        if next.wal_seq == self.wal_seq + 2 {
            let header = BatchHeader {
                wal_seq: self.wal_seq + 1,
                shard_batch: self.shard_batch + 1,
                ..BatchHeader::default()
            };
            let start = offset + HEADER as u64;
            let payload = file.bytes_at(start, behind.saturating_sub(start));
            let crc = next.prev_crc;
            let salvaged = salvage_without_header(&payload);
            self.take_damaged(file, (offset, behind), (header, crc), salvaged)?;
            return Ok(behind);
        }
        let what = unknown(self.wal_seq + 1, next.wal_seq - 1);
        self.open_gap(Finding::new(&file.name, (offset, behind), Keep::File, what));
        self.go_on(next.wal_seq - 1, next.prev_crc);
        Ok(behind)
    }

    fn take_damaged(
        &mut self,
        file: &Scanned,
        (offset, behind): (u64, u64),
        (header, crc): (BatchHeader, u32),
        salvaged: Option<Salvaged>,
    ) -> Result<(), Failure> {
        let batch = header.wal_seq;
        let Some(salvaged) = salvaged else {
            let what = unknown(batch, batch);
            self.open_gap(Finding::new(&file.name, (offset, behind), Keep::File, what));
            self.go_on(batch, crc);
            return Ok(());
        };
        let count = salvaged.lost.len();
        let lost = salvaged.lost.join("; ");
        let what = match count {
            0 => format!("batch {batch} is damaged between its records, which are kept"),
            _ => format!("batch {batch} is damaged, {count} of its records are lost: {lost}"),
        };
        let finding = Finding::new(&file.name, (offset, behind), Keep::File, what);
        if count == 0 {
            self.find(finding)
        } else {
            self.open_gap(finding)
        }
        self.go_on(batch, crc);
        let scan = Scan { header, crc, payload: salvaged.payload };
        self.pending.push_back(Pending { file: file.number, offset, scan });
        self.proven(batch)
    }

    /// Goes on as if everything up to batch `wal_seq` had been read.
    fn go_on(&mut self, wal_seq: u64, crc: u32) {
        self.shard_batch += wal_seq - self.wal_seq;
        (self.wal_seq, self.crc) = (wal_seq, crc);
        self.out.end = WalEnd { wal_seq, crc, batch: self.shard_batch };
    }

    fn open_gap(&mut self, finding: Finding) {
        let state = &self.out.shared.state;
        let at = |(id, log): (LogId, &LogState<LogMessages>)| {
            (id, log.name().to_owned(), log.next_seq())
        };
        let (next_seqs, next_log) = (state.logs().map(at).collect(), state.next_log());
        let number = self.out.findings.as_ref().map_or(0, Vec::len);
        self.gaps.push(Gap { finding: number, next_seqs, next_log });
        self.find(finding.unknown());
    }

    /// Says at which positions messages may have been lost: those between what was known before a
    /// gap and what is known behind it.
    pub(super) fn close_gaps(&mut self) {
        if !self.is_tolerant() {
            return;
        }
        self.out.shared.state.set_last_batch(ShardBatch(self.shard_batch));
        let state = &self.out.shared.state;
        let Some(findings) = &mut self.out.findings else { return };
        for gap in &self.gaps {
            let Some(finding) = findings.get_mut(gap.finding) else { continue };
            for (id, name, next) in &gap.next_seqs {
                let Some(log) = state.log(*id) else { continue };
                let behind = log.messages().next_live(*next);
                let behind = behind.map_or_else(|| log.next_seq(), |(seq, _)| seq);
                if behind > *next {
                    let (first, last) = (next.0, behind.0 - 1);
                    let (log, name, messages) = (id.0, name.clone(), None);
                    finding.lost.push(Lost { log, name, first, last, messages });
                }
            }
        }
    }

    /// Batches that were durable when the manifest was written are not there.
    pub(super) fn lost_at_the_end(&mut self, last: u64) -> Result<(), Failure> {
        let first = self.wal_seq + 1;
        if !self.is_tolerant() {
            return Err(Failure::Damaged(format!(
                "batches {first} to {last} of the log are missing, and they were durable; restore \
                 a backup, or let `polymq storage repair` keep what is readable"
            )));
        }
        self.proven(self.wal_seq)?;
        let what = format!("the end of the log is missing. {}", unknown(first, last));
        self.open_gap(Finding::new("wal", (0, 0), Keep::Nothing, what));
        self.go_on(last, 0);
        Ok(())
    }

    /// A file is prepared before its header is written, so one that is shorter was cut later, and
    /// nobody knows what stood behind its end.
    pub(super) fn refuse_cut_file(&mut self, file: &Scanned, offset: u64) -> Result<(), Failure> {
        let Some(header) = file.header.filter(|header| file.bytes < header.size) else {
            return Ok(());
        };
        let name = &file.name;
        if !self.is_tolerant() {
            return Err(Failure::Damaged(format!(
                "{name} ends at byte {} and was {} bytes long: whatever was confirmed behind byte \
                 {offset} is lost; restore a backup, or let `polymq storage repair` keep what is \
                 readable",
                file.bytes, header.size
            )));
        }
        let what = format!(
            "the file was {} bytes long and ends at byte {}. Whatever was written behind batch {} \
             is lost, and nobody can tell what that was",
            header.size, file.bytes, self.wal_seq
        );
        let bytes = (offset, file.bytes.max(offset));
        self.find(Finding::new(name, bytes, Keep::File, what).unknown());
        Ok(())
    }

    /// A file of the log was there, with its header, and is not any more.
    pub(super) fn refuse_missing_file(
        &mut self,
        manifest: &Manifest,
        unused: &[Scanned],
    ) -> Result<(), Failure> {
        let last = manifest.last_wal;
        if last < manifest.first_wal || self.out.shared.files.contains_key(&last) {
            return Ok(());
        }
        let name = wal_name(last);
        let unknown = format!("whatever was confirmed behind batch {} is lost", self.wal_seq);
        if !self.is_tolerant() {
            return Err(Failure::Damaged(format!(
                "{name} is missing, or is another file: {unknown}; restore a backup, or let \
                 `polymq storage repair` keep what is readable"
            )));
        }
        let is_there = unused.iter().any(|file| file.number.get() == last);
        let keep = if is_there { Keep::File } else { Keep::Nothing };
        let what = format!(
            "the file is missing, or is another one: {unknown}. What it was nobody can tell"
        );
        self.find(Finding::new(&name, (0, 0), keep, what).unknown());
        Ok(())
    }

    /// The creation of a log may be lost while its messages are there: they get a log with a name
    /// that says so, because nobody else will ever have its number.
    pub(super) fn make_lost_logs(&mut self, payload: &[u8]) {
        let Some(first_new) = self.gaps.first().map(|gap| gap.next_log) else { return };
        for (_, _, record) in Records::new(payload, Checks::LengthsOnly).flatten() {
            let log = match record {
                Record::Publish(publish) => publish.log,
                Record::PublishSame { log, .. } => log,
                Record::LogCreate { log, .. } => {
                    self.logs_behind.insert(log);
                    continue;
                }
                _ => continue,
            };
            let state = &mut self.out.shared.state;
            let is_known = log < first_new || state.log(log).is_some();
            // One that was known behind the gap and is not any more was deleted there.
            if is_known || !self.logs_behind.insert(log) {
                continue;
            }
            let name = format!("lost-and-found-{}", log.0);
            let mut create = BytesMut::new();
            let head = Head { kind: kind::LOG_CREATE, log: log.0, ..Head::default() };
            put(&mut create, head, &[name.as_bytes()], &[]);
            let number = state.last_batch();
            let nowhere = |_: &Found<'_>| unreachable!("it has no message");
            let _ = state.apply(number, &create, Checks::LengthsOnly, nowhere);
            if let Some(finding) = self.gaps.last().map(|gap| gap.finding)
                && let Some(finding) =
                    self.out.findings.as_mut().and_then(|all| all.get_mut(finding))
            {
                finding.what.push_str(&format!(
                    "; the name of log {} is among it: its messages are in `{name}`",
                    log.0
                ));
            }
        }
    }
}

fn unknown(first: u64, last: u64) -> String {
    format!(
        "batches {first} to {last} are lost. Which messages, definitions and acknowledgements were \
         in them cannot be known: what was acknowledged there is delivered again, what was deleted \
         there is back"
    )
}

/// The records of a payload whose checksum is wrong. Their lengths count when they lead to its
/// end and are as many as were written; each record has a checksum of its own.
fn salvage(payload: &[u8], header: &BatchHeader) -> Option<Salvaged> {
    let (mut offsets, mut at) = (Vec::new(), 0);
    while at < payload.len() {
        let len = aligned(get32(payload, at + 4) as usize);
        if len < HEADER_BYTES || len > payload.len() - at {
            return None;
        }
        offsets.push(at..at + len);
        at += len;
    }
    if offsets.len() != header.records as usize {
        return None;
    }
    let mut kept = payload.to_vec();
    let mut lost = Vec::new();
    for range in offsets {
        let record = &payload[range.clone()];
        let first = match Records::new(record, Checks::Checksums).next() {
            Some(Ok((_, _, Record::PublishSame { first, .. }))) => first as usize,
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => usize::MAX,
        };
        // A record that points to another one needs that.
        let content = payload.get(first..).unwrap_or_default();
        if matches!(
            Records::new(content, Checks::Checksums).next(),
            Some(Ok((_, _, Record::Publish(_))))
        ) {
            continue;
        }
        lost.push(named(record));
        let blank = &mut kept[range];
        let len = u32::try_from(blank.len()).unwrap_or(u32::MAX);
        blank[..HEADER_BYTES].fill(0);
        put32(blank, 4, len);
        blank[8] = KIND_NOTHING;
    }
    Some(Salvaged { payload: kept.into(), lost })
}

/// Without a header nobody knows how many records there were, so all of them must be sound.
fn salvage_without_header(bytes: &[u8]) -> Option<Salvaged> {
    let mut records = Records::new(bytes, Checks::Checksums);
    let mut any = false;
    let end = loop {
        let at = records.offset();
        if bytes.len() - at < PAGE as usize && bytes[at..].iter().all(|byte| *byte == 0) {
            break at;
        }
        records.next()?.ok()?;
        any = true;
    };
    let payload = Bytes::copy_from_slice(&bytes[..end]);
    any.then_some(Salvaged { payload, lost: Vec::new() })
}

/// What a damaged record seems to have been.
fn named(record: &[u8]) -> String {
    let (kind, log) = (record.get(8).copied().unwrap_or(0), get32(record, 12));
    let seq = get64(record, 16);
    match kind {
        kind::PUB | kind::PUBSAME => format!("probably message {seq} of log {log}"),
        kind::META => "probably a definition".to_owned(),
        kind::LOG_CREATE | kind::LOG_DELETE => format!("probably beginning or end of log {log}"),
        _ => format!("probably acknowledgements of log {log}"),
    }
}

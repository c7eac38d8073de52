//! Copies what lives of some parts into new segments: a log with enough of it gets a segment of
//! its own, the rest share one.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use polymq_store::{
    LogId, MessageRef, Seq,
    record::{FLAGS_OF_PUBLISHER, HEADER_BYTES, Head, kind, put},
    state::{Index, Messages, Place},
};

use crate::{
    core::Home,
    dead::Dead,
    error::{Failure, fatal_at},
    names::{SEG_DIR, seg_name},
    numbers::FileNumbers,
    part::{FilePart, Part, Source},
    place::{Loc, Shared, WalFile},
    read::{Content, Wanted, contents},
    segment::{self, Checked, Sealed, SegmentWriter, Segments, Start, Visit},
    store::note,
};

/// About what is read at once.
const READ_BYTES: u64 = 256 * 1024;
/// Logs that are switched while readers wait.
const SWITCHES_PER_STEP: usize = 256;

pub(crate) struct Copying {
    why: Why,
    groups: VecDeque<Group>,
    /// The segment of one large log.
    alone: Option<(LogId, Open)>,
    /// The segment that small logs share.
    together: Option<Open>,
    moved: Vec<Moved>,
    created: Vec<u32>,
    /// The segment that is being read.
    reading: Option<u32>,
}

/// A segment that is being written, and whose messages are in it.
struct Open {
    writer: SegmentWriter,
    parts: Vec<(Group, Option<Sealed>)>,
}

enum Why {
    Flush(WalFile),
    Merge(Vec<u32>),
    /// What is sound of damaged segments.
    Repair,
}

/// Neighbouring parts of one log, which become one.
pub(crate) struct Group {
    log: LogId,
    first: u64,
    last: u64,
    sources: Vec<(u64, Source)>,
    /// Roughly what they take.
    bytes: u64,
}

struct Moved {
    log: LogId,
    first: u64,
    last: u64,
    to: Option<FilePart>,
}

impl Group {
    pub(crate) fn new(log: LogId, part: &Part) -> Self {
        let sources = vec![(part.first(), part.source.clone())];
        let (first, last) = (part.first(), part.last());
        Self { log, first, last, sources, bytes: part.record_bytes() }
    }

    /// Adds the part behind the last one.
    pub(crate) fn add(&mut self, part: &Part) {
        self.sources.push((part.first(), part.source.clone()));
        self.last = part.last();
        self.bytes += part.record_bytes();
    }
}

impl Copying {
    /// What came in `wal` and in files before it.
    pub(crate) fn flush(shared: &Shared, wal: WalFile) -> Self {
        let mut groups = VecDeque::new();
        for (id, log) in shared.state.logs() {
            for part in log.messages().parts().iter().rev() {
                match part.source {
                    Source::Wal(number, _) if number <= wal.number => {
                        groups.push_back(Group::new(id, part));
                    }
                    Source::Wal(..) => {}
                    Source::File(_) => break,
                }
            }
        }
        Self::new(Why::Flush(wal), groups)
    }

    pub(crate) fn merge(files: Vec<u32>, groups: VecDeque<Group>) -> Self {
        Self::new(Why::Merge(files), groups)
    }

    /// What is sound of segments that are damaged; what is not must be dead.
    pub(crate) fn repair(groups: VecDeque<Group>) -> Self {
        Self::new(Why::Repair, groups)
    }

    fn new(why: Why, groups: VecDeque<Group>) -> Self {
        let (moved, created) = (Vec::new(), Vec::new());
        Self { why, groups, alone: None, together: None, moved, created, reading: None }
    }

    /// The file of the log that was flushed.
    pub(crate) fn flushed(&self) -> Option<WalFile> {
        match self.why {
            Why::Flush(wal) => Some(wal),
            Why::Merge(_) | Why::Repair => None,
        }
    }

    /// The segments that should not be merged again after one was found damaged.
    pub(crate) fn suspects(&self) -> Vec<u32> {
        match (&self.why, self.reading) {
            (Why::Flush(_) | Why::Repair, _) => Vec::new(),
            (Why::Merge(_), Some(number)) => vec![number],
            (Why::Merge(files), None) => files.clone(),
        }
    }

    /// Files that were begun; without [`switch`](Self::switch) nobody uses them.
    pub(crate) fn created(&self) -> &[u32] {
        &self.created
    }

    /// Copies a piece; true when everything is written and synced.
    pub(crate) fn step(
        &mut self,
        home: &Home,
        shared: &Mutex<Shared>,
        numbers: &FileNumbers,
    ) -> Result<bool, Failure> {
        let mut left = home.config.step_bytes as u64;
        while let Some(group) = self.groups.pop_front() {
            let bytes = group.bytes.max(256);
            self.copy(home, shared, numbers, group)?;
            left = left.saturating_sub(bytes);
            if left == 0 {
                return Ok(false);
            }
        }
        let open = self.alone.take().map(|(_, open)| open);
        self.finish(open)?;
        let open = self.together.take();
        self.finish(open)?;
        if !self.created.is_empty() {
            home.disk.sync_dir(SEG_DIR).map_err(fatal_at("writing a segment"))?;
        }
        if !matches!(self.why, Why::Flush(_)) {
            self.read_back(&shared.lock().segments.clone())?;
        }
        Ok(true)
    }

    /// Before segments that were good are given up, the new ones must have proved to be.
    fn read_back(&self, segments: &Segments) -> Result<(), Failure> {
        for part in self.moved.iter().filter_map(|moved| moved.to.as_ref()) {
            segments.table_bytes(part)?;
            let (mut start, mut count) = (Start { seq: 0, hint: Some((0, 0)) }, 0);
            while let Some(hint) = segment::walk(segments, part, &start, READ_BYTES, |_| {
                count += 1;
                Ok(true)
            })? {
                start = Start { seq: hint.0, hint: Some(hint) };
            }
            if count != part.count {
                let (name, wanted) = (seg_name(part.file.number()), part.count);
                let what = format!("{name} has {count} messages where {wanted} were written");
                return Err(Failure::Damaged(what));
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        home: &Home,
        shared: &Mutex<Shared>,
        numbers: &FileNumbers,
        group: Group,
    ) -> Result<(), Failure> {
        let (log, is_repair) = (group.log, matches!(self.why, Why::Repair));
        // What a log has in several places goes into one segment all the same.
        let bytes_max = home.config.segment_bytes;
        let is_over = |of: LogId, open: &Open| of != log || open.writer.end() >= bytes_max;
        if let Some((_, open)) = self.alone.take_if(|(of, open)| is_over(*of, open)) {
            self.finish(Some(open))?;
        }
        let is_large = group.bytes >= home.config.own_segment_bytes;
        if is_large || self.alone.is_some() {
            let open = match &mut self.alone {
                Some((_, open)) => open,
                none => {
                    let writer = create(&mut self.created, home, numbers)?;
                    &mut none.insert((log, Open { writer, parts: Vec::new() })).1
                }
            };
            return open.copy(shared, group, &mut self.reading, is_repair);
        }
        let shared_max = home.config.shared_bytes_max();
        if let Some(open) = self.together.take_if(|open| open.writer.end() >= shared_max) {
            self.finish(Some(open))?;
        }
        let open = match &mut self.together {
            Some(open) => open,
            none => {
                let writer = create(&mut self.created, home, numbers)?;
                none.insert(Open { writer, parts: Vec::new() })
            }
        };
        open.copy(shared, group, &mut self.reading, is_repair)
    }

    fn finish(&mut self, open: Option<Open>) -> Result<(), Failure> {
        let Some(Open { writer, parts }) = open else { return Ok(()) };
        if parts.iter().all(|(_, sealed)| sealed.is_none()) {
            // All of it was acknowledged while it was to be copied.
            writer.discard();
            self.moved.extend(parts.into_iter().map(|(group, _)| group.gone()));
            return Ok(());
        }
        let file = Arc::new(writer.finish()?);
        for (group, sealed) in parts {
            self.moved.push(match sealed {
                Some(sealed) => group.moved(sealed.into_part(file.clone())),
                None => group.gone(),
            });
        }
        Ok(())
    }

    /// From here on readers find the messages in the new segments, which are durable.
    pub(crate) fn switch(&mut self, shared: &Mutex<Shared>, segments: &Segments) {
        while !self.moved.is_empty() {
            let count = self.moved.len().min(SWITCHES_PER_STEP);
            let mut shared = shared.lock();
            for moved in self.moved.drain(..count) {
                let to = moved.to.map(|to| FilePart { file: segments.adopt(to.file), ..to });
                if let Some(log) = shared.state.log_mut(moved.log) {
                    log.messages_mut().replace(moved.first, moved.last, to);
                }
            }
        }
        if let Why::Flush(wal) = self.why {
            let mut shared = shared.lock();
            while shared.sealed.pop_front_if(|file| file.number <= wal.number).is_some() {}
            shared.files.retain(|number, _| *number > wal.number);
        }
    }
}

fn create(
    created: &mut Vec<u32>,
    home: &Home,
    numbers: &FileNumbers,
) -> Result<SegmentWriter, Failure> {
    let number = numbers.take()?;
    created.push(number.get());
    SegmentWriter::create(home, number)
}

impl Open {
    fn copy(
        &mut self,
        shared: &Mutex<Shared>,
        group: Group,
        reading: &mut Option<u32>,
        is_repair: bool,
    ) -> Result<(), Failure> {
        copy_group(shared, &group, &mut self.writer, reading, is_repair)?;
        let sealed = self.writer.end_part(group.log.0);
        self.parts.push((group, sealed));
        Ok(())
    }
}

impl Group {
    fn moved(self, to: FilePart) -> Moved {
        Moved { log: self.log, first: self.first, last: self.last, to: Some(to) }
    }

    fn gone(self) -> Moved {
        Moved { log: self.log, first: self.first, last: self.last, to: None }
    }
}

fn copy_group(
    shared: &Mutex<Shared>,
    group: &Group,
    writer: &mut SegmentWriter,
    reading: &mut Option<u32>,
    is_repair: bool,
) -> Result<(), Failure> {
    for (first, source) in &group.sources {
        let dead = {
            let shared = shared.lock();
            let log = shared.state.log(group.log);
            let part = log.and_then(|log| log.messages().part_at(Seq(*first)));
            part.filter(|part| part.first() == *first).map(|part| part.dead.clone())
        };
        // All of it was acknowledged, or its log deleted, since the copying began.
        let Some(dead) = dead else { continue };
        match source {
            Source::Wal(_, index) => copy_from_log(shared, group.log, index, &dead, writer)?,
            Source::File(part) if is_repair => {
                copy_sound(shared, group.log, part, &dead, writer)?;
            }
            Source::File(part) => {
                *reading = Some(part.file.number());
                copy_from_segment(shared, part, &dead, writer)?;
                *reading = None;
            }
        }
    }
    Ok(())
}

fn copy_from_log(
    shared: &Mutex<Shared>,
    log: LogId,
    index: &Index<Loc>,
    dead: &Dead,
    writer: &mut SegmentWriter,
) -> Result<(), Failure> {
    let mut from = index.first();
    while let Some(start) = from.take() {
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        {
            let shared = shared.lock();
            for (seq, loc) in index.from(start) {
                if dead.contains(seq.0) {
                    continue;
                }
                if bytes >= READ_BYTES {
                    from = Some(seq);
                    break;
                }
                bytes += loc.content_bytes() + 40;
                let file = shared.files.get(&loc.file()).cloned();
                wanted.push(Wanted { at: MessageRef { log, seq }, loc: *loc, file, hold: None });
            }
        }
        let (contents, failure) = contents(&wanted);
        for (wanted, content) in wanted.iter().zip(&contents) {
            push(wanted, content, writer)?;
        }
        if let Some((failure, wanted)) = failure.zip(wanted.get(contents.len())) {
            if let Failure::Unreadable(range) = &failure {
                note(shared, range);
            }
            push_unreadable(wanted, writer)?;
            from = Some(Seq(wanted.at.seq.0.saturating_add(1)));
        }
    }
    Ok(())
}

fn push(wanted: &Wanted, content: &Content, writer: &mut SegmentWriter) -> Result<(), Failure> {
    let start = writer.end();
    let at = wanted.at;
    if wanted.loc.is_same() {
        let publish = content.publish().ok_or_else(|| {
            Failure::Damaged(format!("message {} of log {} is not readable", at.seq, at.log))
        })?;
        let flags = publish.flags & FLAGS_OF_PUBLISHER;
        let (log, seq, aux) = (at.log.0, at.seq.0, content.expiry_ms);
        let head = Head { kind: kind::PUB, flags, log, seq, aux };
        put(writer.buffer(), head, &[publish.props], publish.body);
    } else {
        writer.buffer().extend_from_slice(content.record());
    }
    writer.pushed(start, at.seq.0, wanted.loc.content_bytes())
}

/// Keeps the place and the bytes of a damaged message, with a checksum that is wrong: whoever
/// reads it is told, and what came before and behind it is flushed all the same.
fn push_unreadable(wanted: &Wanted, writer: &mut SegmentWriter) -> Result<(), Failure> {
    let start = writer.end();
    let mut record = vec![0; wanted.loc.content_len() as usize];
    if let Some(file) = &wanted.file {
        // What cannot be read at all stays zeros.
        let _ = file.read_at(&mut record, wanted.loc.offset());
    }
    let (log, seq) = (wanted.at.log.0, wanted.at.seq.0);
    let head = Head { kind: kind::PUB, flags: 0, log, seq, aux: 0 };
    let buffer = writer.buffer();
    let (at, _) = put(buffer, head, &[], record.get(HEADER_BYTES..).unwrap_or_default());
    for byte in buffer.iter_mut().skip(at).take(4) {
        *byte ^= 0xFF;
    }
    writer.pushed(start, seq, wanted.loc.content_bytes())
}

fn copy_from_segment(
    shared: &Mutex<Shared>,
    part: &FilePart,
    dead: &Dead,
    writer: &mut SegmentWriter,
) -> Result<(), Failure> {
    let segments = shared.lock().segments.clone();
    let mut start = Start { seq: 0, hint: Some((0, 0)) };
    let mut copied = 0;
    loop {
        let rest = segment::walk(&segments, part, &start, READ_BYTES, |visit| {
            copied += push_live(visit, dead, writer)?;
            Ok(true)
        })?;
        match rest {
            Some(hint) => start = Start { seq: hint.0, hint: Some(hint) },
            None => break,
        }
    }
    check_count(part, dead, copied)
}

/// As [`copy_from_segment`], for a part in which records are damaged that nobody wants any more.
fn copy_sound(
    shared: &Mutex<Shared>,
    log: LogId,
    part: &FilePart,
    dead: &Dead,
    writer: &mut SegmentWriter,
) -> Result<(), Failure> {
    let segments = shared.lock().segments.clone();
    let mut copied = 0;
    segment::check(&segments, part, log, 0, |checked| {
        if let Checked::Good(visit) = checked {
            copied += push_live(visit, dead, writer)?;
        }
        Ok(())
    })?;
    check_count(part, dead, copied)
}

/// Copies a record unless it is dead; returns how many were copied.
fn push_live(visit: &Visit<'_>, dead: &Dead, writer: &mut SegmentWriter) -> Result<u64, Failure> {
    let publish = &visit.publish;
    if dead.contains(publish.seq.0) {
        return Ok(0);
    }
    let at = writer.end();
    let record = visit.chunk.get(visit.at..visit.at + visit.len).unwrap_or_default();
    writer.buffer().extend_from_slice(record);
    let size = publish.props.len() + publish.body.len();
    writer.pushed(at, publish.seq.0, size as u64)?;
    Ok(1)
}

fn check_count(part: &FilePart, dead: &Dead, copied: u64) -> Result<(), Failure> {
    if copied != dead.live_count() {
        let (name, live) = (seg_name(part.file.number()), dead.live_count());
        return Err(Failure::Damaged(format!("{name} has {copied} of {live} live messages")));
    }
    Ok(())
}

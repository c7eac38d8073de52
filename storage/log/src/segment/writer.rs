//! Writing a segment: in large pieces, synced as it goes, so that the last sync has little to do.

use std::{num::NonZeroU32, sync::Arc};

use bytes::BytesMut;

use crate::{
    core::Home,
    disk::DiskFile,
    error::{Failure, fatal_at, io_at},
    format::{FLAG_SEGMENT, FileHeader, PAGE},
    names::seg_name,
    part::FilePart,
    segment::{SegFile, table::TableBuilder},
};

const DOING: &str = "writing a segment";
const PIECE_BYTES: usize = 256 * 1024;
/// So much is written between two syncs; the log's own syncs do not queue behind more.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

pub(crate) struct SegmentWriter {
    home: Home,
    number: NonZeroU32,
    file: Arc<dyn DiskFile>,
    buf: BytesMut,
    /// The offset at which `buf` will be written, and up to where the file is synced.
    written: u64,
    synced: u64,
    part: OpenPart,
}

#[derive(Default)]
struct OpenPart {
    offset: u64,
    table: TableBuilder,
    count: u64,
    content_bytes: u64,
    size: Option<u32>,
    is_mixed: bool,
}

/// A part whose file is not finished yet.
pub(crate) struct Sealed {
    offset: u64,
    bytes: u64,
    table_bytes: u32,
    count: u64,
    content_bytes: u64,
    uniform: Option<u32>,
}

impl SegmentWriter {
    pub(crate) fn create(home: &Home, number: NonZeroU32) -> Result<Self, Failure> {
        let file = home.disk.create(&seg_name(number.get())).map_err(io_at(DOING))?;
        let mut writer = Self {
            home: home.clone(),
            number,
            file,
            buf: BytesMut::new(),
            written: PAGE,
            synced: 0,
            part: OpenPart::default(),
        };
        writer.part.offset = PAGE;
        let header = FileHeader {
            flags: FLAG_SEGMENT,
            file_seq: number.get(),
            prev_wal_seq: 0,
            prev_crc: 0,
            created_ms: home.clock.unix_ms(),
            size: 0,
        };
        writer.file.write_at(&[&header.encode(home.uuid)], 0).map_err(io_at(DOING))?;
        Ok(writer)
    }

    /// How long the file is by now.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.buf.len() as u64
    }

    /// Where a record is to be appended; [`pushed`](Self::pushed) must follow.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// Notes that a whole record with its padding was appended, which began at `start`.
    pub(crate) fn pushed(&mut self, start: u64, seq: u64, size: u64) -> Result<(), Failure> {
        let part = &mut self.part;
        let size_32 = u32::try_from(size).unwrap_or(u32::MAX);
        part.table.add(seq, start - part.offset, size_32);
        part.count += 1;
        part.content_bytes += size;
        part.is_mixed |= *part.size.get_or_insert(size_32) != size_32;
        if self.buf.len() >= PIECE_BYTES { self.write() } else { Ok(()) }
    }

    /// Ends the records of one log; `None` when there were none.
    pub(crate) fn end_part(&mut self, log: u32) -> Option<Sealed> {
        let end = self.end();
        let part = std::mem::take(&mut self.part);
        let mut sealed = None;
        if part.count > 0 {
            let table = part.table.finish(self.home.uuid, log, self.number.get());
            self.buf.extend_from_slice(&table);
            sealed = Some(Sealed {
                offset: part.offset,
                bytes: end - part.offset,
                table_bytes: u32::try_from(table.len()).unwrap_or(u32::MAX),
                count: part.count,
                content_bytes: part.content_bytes,
                uniform: part.size.filter(|size| !part.is_mixed && *size != u32::MAX),
            });
        }
        self.part.offset = self.end();
        sealed
    }

    /// Takes the file back, because nothing is in it.
    pub(crate) fn discard(self) {
        // What stays behind goes at the next start.
        let _ = self.home.disk.remove(&seg_name(self.number.get()));
    }

    /// Makes the file durable, except for its directory entry.
    pub(crate) fn finish(mut self) -> Result<SegFile, Failure> {
        self.write()?;
        self.file.sync_all().map_err(fatal_at(DOING))?;
        Ok(SegFile::new(self.number.get(), self.written))
    }

    fn write(&mut self) -> Result<(), Failure> {
        if self.buf.is_empty() {
            return Ok(());
        }
        self.file.write_at(&[&self.buf], self.written).map_err(io_at(DOING))?;
        self.written += self.buf.len() as u64;
        self.buf.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data().map_err(fatal_at(DOING))?;
            self.synced = self.written;
        }
        Ok(())
    }
}

impl Sealed {
    pub(crate) fn into_part(self, file: Arc<SegFile>) -> FilePart {
        FilePart {
            file,
            offset: self.offset,
            bytes: self.bytes,
            table_bytes: self.table_bytes,
            count: self.count,
            content_bytes: self.content_bytes,
            uniform: self.uniform,
        }
    }
}

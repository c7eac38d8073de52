//! Reading the batches of one file.

use std::{num::NonZeroU32, sync::Arc};

use bytes::{Bytes, BytesMut};

use polymq_store::record::crc32c;

use crate::{
    disk::DiskFile,
    error::{Failure, fatal_at},
    format::{BadHeader, BatchHeader, FileHeader, HEADER, PAGE, StoreUuid},
};

/// One file of the log or of a base, opened for recovery.
pub(crate) struct Scanned {
    pub(crate) name: String,
    pub(crate) number: NonZeroU32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
    pub(crate) header: Option<FileHeader>,
    uuid: StoreUuid,
}

/// A whole batch whose checksums are right.
pub(crate) struct Scan {
    pub(crate) header: BatchHeader,
    pub(crate) crc: u32,
    pub(crate) payload: Bytes,
}

impl Scanned {
    /// Reads the header of a file, after syncing it: the page cache may hold what the disk does
    /// not.
    ///
    /// Errors: when it cannot be read, or when a newer version wrote it.
    pub(crate) fn open(
        name: String,
        number: NonZeroU32,
        file: Arc<dyn DiskFile>,
        uuid: StoreUuid,
    ) -> Result<Self, Failure> {
        let doing = format!("reading {name}");
        file.sync_all().map_err(fatal_at(&doing))?;
        let bytes = file.byte_len().map_err(fatal_at(&doing))?;
        let mut scanned = Self { name, number, file, bytes, header: None, uuid };
        if let Some(header) = scanned.header_at(0)? {
            scanned.header = match FileHeader::decode(&header, uuid, number.get()) {
                Ok(header) => Some(header),
                Err(BadHeader::Invalid) => None,
                Err(BadHeader::Newer(format)) => return Err(scanned.newer(format)),
            };
        }
        Ok(scanned)
    }

    /// The batch at `offset`; `None` when no valid one stands there.
    pub(crate) fn batch_at(&self, offset: u64) -> Result<Option<Scan>, Failure> {
        let Some((header, crc)) = self.batch_header_at(offset)? else { return Ok(None) };
        let payload_end = offset + HEADER as u64 + u64::from(header.payload_len);
        if payload_end > self.bytes {
            return Ok(None);
        }
        let mut payload = BytesMut::zeroed(header.payload_len as usize);
        self.read(&mut payload, offset + HEADER as u64)?;
        if crc32c(&payload) != header.payload_crc {
            return Ok(None);
        }
        Ok(Some(Scan { header, crc, payload: payload.freeze() }))
    }

    /// The highest batch number that some valid header from `offset` on proves to be durable, or
    /// to have followed a durable one.
    pub(crate) fn proven_behind(&self, offset: u64) -> Result<u64, Failure> {
        let mut proven = 0;
        let mut at = offset.max(PAGE);
        while at < self.bytes {
            if let Some((header, _)) = self.batch_header_at(at)? {
                proven = proven.max(header.last_durable);
            }
            at += PAGE;
        }
        Ok(proven)
    }

    /// The first valid batch header behind `offset` with a number above `wal_seq`, where it
    /// stands, and its checksum.
    pub(crate) fn batch_header_behind(
        &self,
        offset: u64,
        wal_seq: u64,
    ) -> Result<Option<(u64, BatchHeader, u32)>, Failure> {
        let mut at = (offset + PAGE).next_multiple_of(PAGE);
        while at < self.bytes {
            if let Some((header, crc)) = self.batch_header_at(at)?
                && header.wal_seq > wal_seq
            {
                return Ok(Some((at, header, crc)));
            }
            at += PAGE;
        }
        Ok(None)
    }

    /// The highest number of a batch with a valid header.
    pub(crate) fn last_wal_seq(&self) -> Result<u64, Failure> {
        let (mut at, mut last) = (0, 0);
        while let Some((found, header, _)) = self.batch_header_behind(at, last)? {
            (at, last) = (found, header.wal_seq);
        }
        Ok(last)
    }

    /// These bytes; zeros where the file has ended or cannot be read.
    pub(crate) fn bytes_at(&self, offset: u64, len: u64) -> Vec<u8> {
        let there = self.bytes.saturating_sub(offset).min(len);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let there = usize::try_from(there).unwrap_or(0);
        let _ = self.file.read_at(&mut bytes[..there], offset);
        bytes
    }

    /// True when nothing was ever written to its first page.
    pub(crate) fn is_blank(&self) -> Result<bool, Failure> {
        let len = usize::try_from(self.bytes.min(PAGE)).unwrap_or(0);
        let mut page = vec![0; len];
        self.read(&mut page, 0)?;
        Ok(page.iter().all(|byte| *byte == 0))
    }

    pub(crate) fn batch_header_at(
        &self,
        offset: u64,
    ) -> Result<Option<(BatchHeader, u32)>, Failure> {
        let Some(bytes) = self.header_at(offset)? else { return Ok(None) };
        match BatchHeader::decode(&bytes, self.uuid, self.number.get()) {
            Ok(found) => Ok(Some(found)),
            Err(BadHeader::Invalid) => Ok(None),
            Err(BadHeader::Newer(format)) => Err(self.newer(format)),
        }
    }

    fn header_at(&self, offset: u64) -> Result<Option<[u8; HEADER]>, Failure> {
        if offset + HEADER as u64 > self.bytes {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        self.read(&mut bytes, offset)?;
        Ok(Some(bytes))
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.file.read_at(buf, offset).map_err(fatal_at(&format!("reading {}", self.name)))
    }

    fn newer(&self, format: u16) -> Failure {
        Failure::TooNew(format!(
            "{} has format {format}, which this program does not know; start the newer program",
            self.name
        ))
    }
}

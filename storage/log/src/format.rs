//! The bytes of log files. All numbers are little-endian, every checksum is CRC-32C.
//!
//! ```text
//! file header, 64 B in the first 4 KiB
//!   0 magic "PQWL" | 4 fmt u16 | 6 flags u16 (bit 0: base file, bit 1: segment)
//!   8 store_uuid 16 B | 24 file_seq u64 | 32 prev_wal_seq u64 | 40 created_ms u64
//!   48 prev_crc u32 | 52 size_4k u32 | 56 reserved | 60 crc
//! batch header, 64 B, on a 4 KiB boundary; the payload follows, then zeros up to the next boundary
//!   0 magic "PQBT" | 4 fmt u16 | 6 flags u16 | 8 wal_seq u64 | 16 epoch u64 | 24 last_durable u64
//!   32 shard_batch u64 | 40 shard u32 | 44 payload_len u32 | 48 records u32 | 52 prev_crc u32
//!   56 payload_crc u32 | 60 header_crc u32 (seeded with the store's uuid and file_seq)
//! ```

use polymq_store::record::crc32c;

/// The version this program writes; it reads this one only.
pub(crate) const FORMAT: u16 = 1;
/// Batches start at multiples of this, so a torn write never touches an earlier batch.
pub(crate) const PAGE: u64 = 4096;
/// The bytes of either header.
pub(crate) const HEADER: usize = 64;
/// Flag of a file header: what the log adds up to instead of a piece of it.
pub(crate) const FLAG_BASE: u16 = 1;
/// Flag of a file header: messages and tables instead of batches.
pub(crate) const FLAG_SEGMENT: u16 = 2;

const FILE_MAGIC: &[u8; 4] = b"PQWL";
const BATCH_MAGIC: &[u8; 4] = b"PQBT";

/// The random name of a store; never shown, because it keeps client bytes from passing for ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreUuid(pub(crate) [u8; 16]);

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Not written, torn, or not ours.
    Invalid,
    /// Written by a newer version.
    Newer(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) flags: u16,
    pub(crate) file_seq: u32,
    pub(crate) prev_wal_seq: u64,
    pub(crate) prev_crc: u32,
    pub(crate) created_ms: u64,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchHeader {
    pub(crate) wal_seq: u64,
    pub(crate) epoch: u64,
    pub(crate) last_durable: u64,
    pub(crate) shard_batch: u64,
    pub(crate) shard: u32,
    pub(crate) payload_len: u32,
    pub(crate) records: u32,
    pub(crate) prev_crc: u32,
    pub(crate) payload_crc: u32,
}

impl FileHeader {
    pub(crate) fn encode(&self, uuid: StoreUuid) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(FILE_MAGIC);
        put16(&mut out, 4, FORMAT);
        put16(&mut out, 6, self.flags);
        out[8..24].copy_from_slice(&uuid.0);
        put64(&mut out, 24, u64::from(self.file_seq));
        put64(&mut out, 32, self.prev_wal_seq);
        put64(&mut out, 40, self.created_ms);
        put32(&mut out, 48, self.prev_crc);
        put32(&mut out, 52, u32::try_from(self.size / PAGE).unwrap_or(u32::MAX));
        let crc = crc32c(&out[..60]);
        put32(&mut out, 60, crc);
        out
    }

    /// Errors: when the bytes are not a header of a file with this number of this store.
    pub(crate) fn decode(
        bytes: &[u8; HEADER],
        uuid: StoreUuid,
        file_seq: u32,
    ) -> Result<Self, BadHeader> {
        let is_ours = bytes[..4] == *FILE_MAGIC
            && crc32c(&bytes[..60]) == get32(bytes, 60)
            && bytes[8..24] == uuid.0
            && get64(bytes, 24) == u64::from(file_seq);
        if !is_ours {
            return Err(BadHeader::Invalid);
        }
        known_format(get16(bytes, 4))?;
        Ok(Self {
            flags: get16(bytes, 6),
            file_seq,
            prev_wal_seq: get64(bytes, 32),
            created_ms: get64(bytes, 40),
            prev_crc: get32(bytes, 48),
            size: u64::from(get32(bytes, 52)) * PAGE,
        })
    }
}

impl BatchHeader {
    /// The header and its checksum, which the next batch repeats.
    pub(crate) fn encode(&self, uuid: StoreUuid, file_seq: u32) -> ([u8; HEADER], u32) {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(BATCH_MAGIC);
        put16(&mut out, 4, FORMAT);
        put64(&mut out, 8, self.wal_seq);
        put64(&mut out, 16, self.epoch);
        put64(&mut out, 24, self.last_durable);
        put64(&mut out, 32, self.shard_batch);
        put32(&mut out, 40, self.shard);
        put32(&mut out, 44, self.payload_len);
        put32(&mut out, 48, self.records);
        put32(&mut out, 52, self.prev_crc);
        put32(&mut out, 56, self.payload_crc);
        let crc = header_crc(&out, uuid, file_seq);
        put32(&mut out, 60, crc);
        (out, crc)
    }

    /// The header and its checksum.
    ///
    /// Errors: when the bytes are not a batch header of this file.
    pub(crate) fn decode(
        bytes: &[u8; HEADER],
        uuid: StoreUuid,
        file_seq: u32,
    ) -> Result<(Self, u32), BadHeader> {
        let crc = get32(bytes, 60);
        if bytes[..4] != *BATCH_MAGIC || header_crc(bytes, uuid, file_seq) != crc {
            return Err(BadHeader::Invalid);
        }
        known_format(get16(bytes, 4))?;
        let header = Self {
            wal_seq: get64(bytes, 8),
            epoch: get64(bytes, 16),
            last_durable: get64(bytes, 24),
            shard_batch: get64(bytes, 32),
            shard: get32(bytes, 40),
            payload_len: get32(bytes, 44),
            records: get32(bytes, 48),
            prev_crc: get32(bytes, 52),
            payload_crc: get32(bytes, 56),
        };
        Ok((header, crc))
    }

    /// The bytes the batch takes in its file.
    pub(crate) fn stride(&self) -> u64 {
        stride(self.payload_len as usize)
    }
}

/// The bytes a batch with this payload takes in its file.
pub(crate) fn stride(payload: usize) -> u64 {
    (HEADER as u64 + payload as u64).next_multiple_of(PAGE)
}

pub(crate) fn known_format(format: u16) -> Result<(), BadHeader> {
    match format {
        FORMAT => Ok(()),
        newer if newer > FORMAT => Err(BadHeader::Newer(newer)),
        _ => Err(BadHeader::Invalid),
    }
}

fn header_crc(bytes: &[u8; HEADER], uuid: StoreUuid, file_seq: u32) -> u32 {
    let mut seeded = [0; 24 + 60];
    seeded[..16].copy_from_slice(&uuid.0);
    seeded[16..24].copy_from_slice(&u64::from(file_seq).to_le_bytes());
    seeded[24..].copy_from_slice(&bytes[..60]);
    crc32c(&seeded)
}

pub(crate) fn put16(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_le_bytes(*b))
}

pub(crate) fn get32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
}

pub(crate) fn get64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b))
}

//! Writing records into one growing buffer.

use bytes::BytesMut;

use super::{ALIGNMENT, FLAG_LONG_PROPS, HEADER_BYTES, aligned, crc32c};

const PROPS_LEN_LONG: usize = 0xFFFF;

/// The fixed fields of a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head {
    /// One of [`kind`](super::kind).
    pub kind: u8,
    /// Flags of the type; the encoder adds [`FLAG_LONG_PROPS`].
    pub flags: u8,
    /// The log, 0 where a type has none.
    pub log: u32,
    /// See the table of the module.
    pub seq: u64,
    /// See the table of the module.
    pub aux: u64,
}

/// Appends one record and returns its offset and its length without padding.
///
/// `buf` must hold whole records only. The parts of `props` are joined.
///
/// Cost: one copy and one checksum of the bytes.
/// Panics: when the record would exceed 4 GiB; the limits of messages are far below.
pub fn put(buf: &mut BytesMut, head: Head, props: &[&[u8]], body: &[u8]) -> (usize, u32) {
    let props_bytes: usize = props.iter().map(|part| part.len()).sum();
    let is_long = props_bytes >= PROPS_LEN_LONG;
    let prefix = if is_long { 4 } else { 0 };
    let len = HEADER_BYTES + prefix + props_bytes + body.len();
    let len_u32 = u32::try_from(len).expect("a record is shorter than 4 GiB");
    let start = buf.len();
    buf.reserve(aligned(len));

    let mut fixed = [0_u8; HEADER_BYTES];
    fixed[4..8].copy_from_slice(&len_u32.to_le_bytes());
    fixed[8] = head.kind;
    fixed[9] = if is_long { head.flags | FLAG_LONG_PROPS } else { head.flags };
    let short = u16::try_from(props_bytes.min(PROPS_LEN_LONG)).unwrap_or(u16::MAX);
    fixed[10..12].copy_from_slice(&short.to_le_bytes());
    fixed[12..16].copy_from_slice(&head.log.to_le_bytes());
    fixed[16..24].copy_from_slice(&head.seq.to_le_bytes());
    fixed[24..32].copy_from_slice(&head.aux.to_le_bytes());
    buf.extend_from_slice(&fixed);
    if is_long {
        let long = u32::try_from(props_bytes).expect("properties are shorter than 4 GiB");
        buf.extend_from_slice(&long.to_le_bytes());
    }
    for part in props {
        buf.extend_from_slice(part);
    }
    buf.extend_from_slice(body);
    let crc = crc32c(&buf[start + 4..]);
    buf[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    let padding = aligned(len) - len;
    buf.extend_from_slice(&[0; ALIGNMENT][..padding]);
    (start, len_u32)
}

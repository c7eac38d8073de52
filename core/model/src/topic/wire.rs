//! Keys that are longer than the AMQP wire can show.

use std::borrow::Cow;

/// Bytes of a short string of AMQP 0-9-1.
pub const AMQP_KEY_BYTES_MAX: usize = 255;

/// Bytes of the key that stay when it is shortened: room for `~` and eight digits.
const KEPT_BYTES_MAX: usize = AMQP_KEY_BYTES_MAX - 9;

/// The routing key as an AMQP delivery shows it.
///
/// A key over 255 bytes is cut at a character, at most 246 bytes in, and gets `~` and the CRC-32C
/// of the whole key in eight hex digits. The header `x-routing-key` then holds the whole key.
pub fn amqp_wire_key(key: &str) -> Cow<'_, str> {
    if key.len() <= AMQP_KEY_BYTES_MAX {
        return Cow::Borrowed(key);
    }
    let kept = key.get(..key.floor_char_boundary(KEPT_BYTES_MAX)).unwrap_or_default();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, key.as_bytes());
    Cow::Owned(format!("{kept}~{crc:08x}"))
}

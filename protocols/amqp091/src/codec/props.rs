//! The property list of a content header: flags, then the properties whose flags are set.

use bytes::BufMut;

use super::{
    reader::{Malformed, Reader},
    table::put_sized,
};

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// Bit 1 is not defined for `basic`, bit 0 announces more flags.
const RESERVED: u16 = 0b11;

/// A property list, undecoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Props<'a> {
    /// MIME type.
    pub content_type: Option<&'a [u8]>,
    /// MIME encoding.
    pub content_encoding: Option<&'a [u8]>,
    /// The headers table without its length, unchecked.
    pub headers: Option<&'a [u8]>,
    /// 1 or 2.
    pub delivery_mode: Option<u8>,
    /// 0 to 255.
    pub priority: Option<u8>,
    /// Correlation id.
    pub correlation_id: Option<&'a [u8]>,
    /// Where answers go.
    pub reply_to: Option<&'a [u8]>,
    /// Milliseconds as text.
    pub expiration: Option<&'a [u8]>,
    /// Message id.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// Message type.
    pub kind: Option<&'a [u8]>,
    /// Who sends.
    pub user_id: Option<&'a [u8]>,
    /// The application.
    pub app_id: Option<&'a [u8]>,
    /// Deprecated; passed through.
    pub cluster_id: Option<&'a [u8]>,
}

impl<'a> Props<'a> {
    /// Reads flags and list. The headers table is delimited, not checked.
    ///
    /// Errors: [`Malformed`] when a reserved flag is set, the list ends early, or bytes follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u16()?;
        if flags & RESERVED != 0 {
            return Err(Malformed);
        }
        let mut props = Self::default();
        if flags != 0 {
            props.read(flags, &mut reader)?;
        }
        if reader.is_empty() { Ok(props) } else { Err(Malformed) }
    }

    fn read(&mut self, flags: u16, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        let has = |flag: u16| flags & flag != 0;
        for (flag, slot) in
            [(CONTENT_TYPE, &mut self.content_type), (CONTENT_ENCODING, &mut self.content_encoding)]
        {
            if has(flag) {
                *slot = Some(reader.short()?);
            }
        }
        if has(HEADERS) {
            self.headers = Some(reader.long()?);
        }
        for (flag, slot) in
            [(DELIVERY_MODE, &mut self.delivery_mode), (PRIORITY, &mut self.priority)]
        {
            if has(flag) {
                *slot = Some(reader.u8()?);
            }
        }
        if flags & ((PRIORITY) - 1) == 0 {
            return Ok(());
        }
        for (flag, slot) in [
            (CORRELATION_ID, &mut self.correlation_id),
            (REPLY_TO, &mut self.reply_to),
            (EXPIRATION, &mut self.expiration),
            (MESSAGE_ID, &mut self.message_id),
        ] {
            if has(flag) {
                *slot = Some(reader.short()?);
            }
        }
        if has(TIMESTAMP) {
            self.timestamp = Some(reader.u64()?);
        }
        for (flag, slot) in [
            (TYPE, &mut self.kind),
            (USER_ID, &mut self.user_id),
            (APP_ID, &mut self.app_id),
            (CLUSTER_ID, &mut self.cluster_id),
        ] {
            if has(flag) {
                *slot = Some(reader.short()?);
            }
        }
        Ok(())
    }

    /// Appends flags and list.
    ///
    /// Strings over 255 bytes are left out whole: the callers have given those another place.
    pub fn put(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.put_u16(0);
        let mut flags = put_shorts(
            out,
            [(CONTENT_TYPE, self.content_type), (CONTENT_ENCODING, self.content_encoding)],
        );
        if let Some(headers) = self.headers {
            flags |= HEADERS;
            put_sized(out, |out| out.put_slice(headers));
        }
        for (flag, octet) in [(DELIVERY_MODE, self.delivery_mode), (PRIORITY, self.priority)] {
            if let Some(octet) = octet {
                flags |= flag;
                out.put_u8(octet);
            }
        }
        flags |= put_shorts(
            out,
            [
                (CORRELATION_ID, self.correlation_id),
                (REPLY_TO, self.reply_to),
                (EXPIRATION, self.expiration),
                (MESSAGE_ID, self.message_id),
            ],
        );
        if let Some(secs) = self.timestamp {
            flags |= TIMESTAMP;
            out.put_u64(secs);
        }
        flags |= put_shorts(
            out,
            [
                (TYPE, self.kind),
                (USER_ID, self.user_id),
                (APP_ID, self.app_id),
                (CLUSTER_ID, self.cluster_id),
            ],
        );
        if let Some(slot) = out.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<2>()) {
            *slot = flags.to_be_bytes();
        }
    }
}

fn put_shorts<const N: usize>(out: &mut Vec<u8>, fields: [(u16, Option<&[u8]>); N]) -> u16 {
    let mut flags = 0;
    for (flag, field) in fields {
        let Some(bytes) = field else { continue };
        let Ok(len) = u8::try_from(bytes.len()) else { continue };
        flags |= flag;
        out.put_u8(len);
        out.put_slice(bytes);
    }
    flags
}

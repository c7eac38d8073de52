//! The rare methods, read and written by `amq-protocol` behind guards.
//!
//! The package recurses on nested arrays, so tables are checked first; it cannot say whether a
//! method is unknown or truncated, so the numbers are read first; it loses the order of tables, so
//! arguments are decoded from their bytes; and its short strings panic above 255 bytes, so
//! [`short`] is the only place that makes one.

use amq_protocol::{
    frame::WriteContext,
    protocol::{AMQPClass, gen_class},
    types::ShortString,
};
use bytes::BytesMut;
use polymq_model::Table;

use super::{
    frame,
    reader::{Malformed, Reader},
    table::{self, TableBounds, TableError},
};

/// Why a method frame is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// No client may send this method: 503.
    #[error("unknown method {0} of class {1}", .method.1, .method.0)]
    Unknown {
        /// Class and method.
        method: (u16, u16),
    },
    /// A name is not UTF-8: 406, as in content.
    #[error("a name is not UTF-8")]
    NotText,
    /// Arguments are truncated or too long: 501.
    #[error("malformed method frame")]
    Malformed,
    /// A table is out of bounds: 502.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<Malformed> for MethodError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A decoded method.
#[derive(Debug)]
pub struct Method {
    /// What the package makes of it; its tables are not to be used.
    pub class: AMQPClass,
    /// The table that stands among its arguments, in order.
    pub table: Table,
}

/// The class and method at the front of a method frame, and the arguments behind them.
///
/// Errors: [`Malformed`].
#[inline]
pub fn split_id(payload: &[u8]) -> Result<((u16, u16), &[u8]), Malformed> {
    let mut reader = Reader::new(payload);
    Ok(((reader.u16()?, reader.u16()?), reader.rest()))
}

/// True for methods that clients send and this module decodes.
fn is_known(method: (u16, u16)) -> bool {
    match method {
        (10, id) => matches!(id, 11 | 21 | 31 | 40 | 50 | 51 | 70 | 71),
        (20, id) => matches!(id, 10 | 20 | 21 | 40 | 41),
        (30, id) => id == 10,
        (40, id) => matches!(id, 10 | 20 | 30 | 40),
        (50, id) => matches!(id, 10 | 20 | 30 | 40 | 50),
        (60, id) => matches!(id, 20 | 30 | 31 | 70 | 100 | 110),
        (85, id) => id == 10,
        (90, id) => matches!(id, 10 | 20 | 30),
        _ => false,
    }
}

/// What stands before the table of a method.
enum Field {
    Octet,
    Short,
    Text,
}

/// The fields before the table, or `None` for methods without one.
fn before_table(method: (u16, u16)) -> Option<&'static [Field]> {
    use Field::{Octet, Short, Text};
    match method {
        (10, 11) => Some(&[]),
        (40, 10) | (60, 20) => Some(&[Short, Text, Text, Octet]),
        (40, 30 | 40) | (50, 20) => Some(&[Short, Text, Text, Text, Octet]),
        (50, 10) => Some(&[Short, Text, Octet]),
        (50, 50) => Some(&[Short, Text, Text, Text]),
        _ => None,
    }
}

/// Reads a whole method frame's payload, which the caller has bounded in size.
///
/// Errors: [`MethodError`].
pub fn parse(payload: &[u8], bounds: TableBounds) -> Result<Method, MethodError> {
    let (method, arguments) = split_id(payload)?;
    if !is_known(method) {
        return Err(MethodError::Unknown { method });
    }
    let (mut decoded, mut is_text) = (Table::new(), true);
    if let Some(fields) = before_table(method) {
        let mut reader = Reader::new(arguments);
        for field in fields {
            match field {
                Field::Octet => reader.u8().map(|_| ())?,
                Field::Short => reader.u16().map(|_| ())?,
                Field::Text => {
                    let text = reader.short()?;
                    is_text &= std::str::from_utf8(text).is_ok();
                }
            }
        }
        decoded = table::decode(reader.long()?, bounds)?;
    }
    match amq_protocol::protocol::parse_class(payload) {
        Ok(([], class)) => Ok(Method { class, table: decoded }),
        _ if !is_text => Err(MethodError::NotText),
        _ => Err(MethodError::Malformed),
    }
}

/// Appends a method frame.
pub fn put(out: &mut BytesMut, channel: u16, class: &AMQPClass) {
    // Writing to a `Vec` fails only when a number does not fit its field, and all of ours do.
    let context = WriteContext::from(Vec::<u8>::with_capacity(64));
    if let Ok(context) = gen_class(class)(context) {
        frame::put(out, frame::METHOD, channel, &context.write);
    }
}

/// A short string of at most 255 bytes, cut at a character.
pub fn short(text: &str) -> ShortString {
    ShortString::try_new(frame::clipped(text)).unwrap_or_default()
}

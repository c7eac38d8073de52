//! Frames of the server, appended to the output.

use bytes::{BufMut, BytesMut};
use polymq_model::Durability;

use super::{Version, put_escaped};

/// Appends a header line.
pub(crate) fn put_header(name: &str, value: &str, version: Version, out: &mut impl BufMut) {
    put_escaped(name, version, out);
    out.put_u8(b':');
    put_escaped(value, version, out);
    out.put_u8(b'\n');
}

/// Appends a number in decimal digits.
pub(crate) fn put_number(mut number: u64, out: &mut impl BufMut) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        // The rest of a division by ten fits.
        *digit =
            b'0'.saturating_add(u8::try_from(number.checked_rem(10).unwrap_or(0)).unwrap_or(0));
        first = at;
        number = number.checked_div(10).unwrap_or(0);
        if number == 0 {
            break;
        }
    }
    out.put_slice(digits.get(first..).unwrap_or_default());
}

/// Appends the length of a body and the empty line before it.
pub(crate) fn put_length(body_bytes: usize, out: &mut impl BufMut) {
    out.put_slice(b"content-length:");
    put_number(u64::try_from(body_bytes).unwrap_or(u64::MAX), out);
    out.put_slice(b"\n\n");
}

/// What CONNECTED tells.
#[derive(Debug)]
pub(crate) struct Connected<'a> {
    pub(crate) version: Version,
    /// Names the connection; plain ASCII.
    pub(crate) session: &'a str,
    /// Milliseconds between heart-beats of the server, and those it expects.
    pub(crate) heart_beat: (u32, u32),
}

/// Appends CONNECTED, which has no escapes in any version.
pub(crate) fn put_connected(connected: &Connected<'_>, out: &mut BytesMut) {
    let Connected { version, session, heart_beat: (sends, expects) } = connected;
    let server = concat!("PolyMQ/", env!("CARGO_PKG_VERSION"));
    let version = version.as_str();
    let text = format!(
        "CONNECTED\nversion:{version}\nsession:{session}\nserver:{server}\n\
         heart-beat:{sends},{expects}\n\n\0"
    );
    out.put_slice(text.as_bytes());
}

/// What RECEIPT tells beside its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// What the message survives.
    pub(crate) kept: Option<Durability>,
    /// Nobody took the message.
    pub(crate) is_unrouted: bool,
}

/// Appends RECEIPT. `receipt` is the header as the client wrote it.
pub(crate) fn put_receipt(receipt: &str, told: Told, out: &mut BytesMut) {
    out.put_slice(b"RECEIPT\nreceipt-id:");
    out.put_slice(receipt.as_bytes());
    if let Some(kept) = told.kept {
        let shown = kept.to_string();
        out.put_slice(b"\nx-durability:");
        out.put_slice(shown.as_bytes());
    }
    if told.is_unrouted {
        out.put_slice(b"\nx-routed:false");
    }
    out.put_slice(b"\n\n\0");
}

/// What ERROR tells.
#[derive(Debug)]
pub(crate) struct Error<'a> {
    /// The version whose escapes it is written with.
    pub(crate) version: Version,
    /// A few words.
    pub(crate) message: &'a str,
    /// A sentence.
    pub(crate) detail: &'a str,
    /// The header `receipt` of the frame that caused it, as the client wrote it.
    pub(crate) receipt: Option<&'a str>,
    /// The client speaks none of our versions, so it is told them.
    pub(crate) names_versions: bool,
}

/// Appends ERROR.
pub(crate) fn put_error(error: &Error<'_>, out: &mut BytesMut) {
    out.put_slice(b"ERROR\n");
    put_header("message", error.message, error.version, out);
    out.put_slice(b"content-type:text/plain\n");
    if error.names_versions {
        out.put_slice(b"version:1.0,1.1,1.2\n");
    }
    if let Some(receipt) = error.receipt {
        out.put_slice(b"receipt-id:");
        out.put_slice(receipt.as_bytes());
        out.put_u8(b'\n');
    }
    put_length(error.detail.len(), out);
    out.put_slice(error.detail.as_bytes());
    out.put_u8(0);
}

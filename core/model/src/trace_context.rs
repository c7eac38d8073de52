//! The trace that a message belongs to (W3C Trace Context, section 3.2), as it stands in the native
//! properties of any protocol.

use std::ops::Range;

/// `00-` trace id `-` parent id `-` flags.
const TEXT_BYTES: usize = 55;
/// Bytes that may stand between the name of the header and its value.
const GAP_BYTES_MAX: usize = 32;
const NAME: &[u8] = b"traceparent";

/// Where a message comes from, for whoever follows it from program to program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that the message was published in.
    pub parent_id: [u8; 8],
    /// The publisher keeps spans of this trace.
    pub is_sampled: bool,
    /// Where the digits of the parent stand in the properties.
    parent_at: Range<usize>,
}

impl TraceContext {
    /// The context in native properties, whatever their protocol: a header has its name, and then
    /// its value, in all of them.
    pub(crate) fn find(props: &[u8]) -> Option<Self> {
        let starts = props.windows(NAME.len()).enumerate();
        let mut named = starts.filter(|(_, window)| window.eq_ignore_ascii_case(NAME));
        named.find_map(|(at, _)| {
            let begin = at + NAME.len();
            (begin..=begin + GAP_BYTES_MAX).find_map(|at| Self::read(props, at))
        })
    }

    fn read(props: &[u8], at: usize) -> Option<Self> {
        let text = props.get(at..at.checked_add(TEXT_BYTES)?)?;
        let dashes = [2, 35, 52].iter().all(|dash| text.get(*dash) == Some(&b'-'));
        let version = text.get(..2)?;
        if !dashes || version != b"00" {
            return None;
        }
        let trace_id: [u8; 16] = hex(text.get(3..35)?)?;
        let parent_id: [u8; 8] = hex(text.get(36..52)?)?;
        let [flags] = hex(text.get(53..55)?)?;
        // Section 3.2.2: ids of zeros are none.
        let is_one = trace_id != [0; 16] && parent_id != [0; 8];
        let parent_at = at + 36..at + 52;
        is_one.then_some(Self { trace_id, parent_id, is_sampled: flags & 1 == 1, parent_at })
    }

    /// The properties with another parent in its place; nothing becomes longer or shorter.
    pub(crate) fn replaced(&self, props: &[u8], parent_id: [u8; 8]) -> Vec<u8> {
        let mut props = props.to_vec();
        if let Some(digits) = props.get_mut(self.parent_at.clone()) {
            let text = format!("{:016x}", u64::from_be_bytes(parent_id));
            digits.copy_from_slice(text.as_bytes());
        }
        props
    }
}

/// Bytes of hexadecimal digits, which are lower case.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    (digits.len() == 2 * N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_found_in_every_form_and_changed_in_place() {
        let forms = [
            format!("traceparent:{PARENT}\n"),
            format!("\x0btraceparentS\0\0\0\x37{PARENT}"),
            format!("\x26\0\x0btraceparent\0\x37{PARENT}"),
            format!("{{\"Traceparent\":\"{PARENT}\"}}"),
            format!("<header name='traceparent'><value>{PARENT}</value></header>"),
        ];
        for form in forms {
            let found = TraceContext::find(form.as_bytes()).unwrap_or_else(|| panic!("{form:?}"));
            assert_eq!(found.trace_id[..2], [0x4b, 0xf9]);
            assert_eq!(found.parent_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
            assert!(found.is_sampled);
            let changed = found.replaced(form.as_bytes(), 7_u64.to_be_bytes());
            let expected = form.replace("00f067aa0ba902b7", "0000000000000007");
            assert_eq!(String::from_utf8(changed).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_context_is_none() {
        let none = PARENT.replace("00f067aa0ba902b7", "0000000000000000");
        for text in [
            String::new(),
            PARENT.to_owned(),
            "traceparent:00-4bf9".to_owned(),
            format!("traceparent:{}", PARENT.to_uppercase()),
            format!("traceparent:{none}"),
            format!("traceparent:{}", PARENT.replacen("00", "ff", 1)),
        ] {
            assert_eq!(TraceContext::find(text.as_bytes()), None, "{text}");
        }
    }
}

//! The header that lists the types of the others: `name=code` pairs joined by `;`.

use std::fmt::Write as _;

/// The text of `x-mq-types` for these names and codes.
pub fn encode_types<'a>(types: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, code) in types {
        if !out.is_empty() {
            out.push(';');
        }
        encode_name(name, &['=', ';'], &mut out);
        out.push('=');
        out.push_str(code);
    }
    out
}

/// Reads `x-mq-types`; pairs that are malformed are left out.
pub fn decode_types(text: &str) -> Vec<(String, &str)> {
    text.split(';')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(name, code)| Some((decode_name(name)?, code)))
        .collect()
}

/// The text of `x-mq-multi`: the names in order, joined by `,`.
pub(super) fn encode_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for (index, name) in names.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        encode_name(name, &[','], &mut out);
    }
    out
}

/// Reads `x-mq-multi`; `None` when it is malformed.
pub(super) fn decode_names(text: &str) -> Option<Vec<String>> {
    text.split(',').map(decode_name).collect()
}

fn encode_name(name: &str, separators: &[char], out: &mut String) {
    for c in name.chars() {
        if c != '%' && !c.is_control() && !separators.contains(&c) {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn decode_name(name: &str) -> Option<String> {
    crate::address::decode_percent(name).map(std::borrow::Cow::into_owned)
}

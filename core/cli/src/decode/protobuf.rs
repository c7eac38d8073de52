//! Protocol Buffers without their schema: fields by number, as `protoc --decode_raw` shows them.
//!
//! The wire does not say whether bytes are text, a message or bytes. What can be read as a message
//! is shown as one, everything else as text.

use super::{DEPTH_MAX, Mistake};

/// The highest number of a field.
const NUMBER_MAX: u64 = (1 << 29) - 1;

struct Reader<'b> {
    body: &'b [u8],
    at: usize,
    text: String,
}

/// The fields of a message, a line each.
///
/// Errors: it is no message.
pub(super) fn fields(body: &[u8]) -> Result<String, Mistake> {
    let mut reader = Reader { body, at: 0, text: String::new() };
    reader.message(None, 0)?;
    Ok(reader.text.trim_end().to_owned())
}

impl<'b> Reader<'b> {
    fn mistake<T>(&self, why: &'static str) -> Result<T, Mistake> {
        Err(Mistake { at: self.at, why })
    }

    fn take(&mut self, count: u64) -> Result<&'b [u8], Mistake> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let Some(taken) = self.body.get(self.at..).and_then(|rest| rest.get(..count)) else {
            return self.mistake("it is cut off");
        };
        self.at += count;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Mistake> {
        let begin = self.at;
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Mistake { at: begin, why: "the number has more than ten bytes" })
    }

    fn little<const N: usize>(&mut self) -> Result<u64, Mistake> {
        let bytes = self.take(u64::try_from(N).unwrap_or(u64::MAX))?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Reads fields up to the end, or to the end of a group.
    fn message(&mut self, group: Option<u64>, depth: usize) -> Result<(), Mistake> {
        if depth > DEPTH_MAX {
            return self.mistake("messages are nested too deep");
        }
        while self.at < self.body.len() {
            let begin = self.at;
            let key = self.varint()?;
            let (number, kind) = (key >> 3, key & 7);
            if !(1..=NUMBER_MAX).contains(&number) {
                return Err(Mistake { at: begin, why: "no field has this number" });
            }
            match kind {
                0 => {
                    let value = self.varint()?;
                    self.line(depth, &format!("{number}: {value}"));
                }
                1 => {
                    let value = self.little::<8>()?;
                    self.line(depth, &format!("{number}: 0x{value:016x}"));
                }
                2 => self.bytes(number, depth)?,
                3 => {
                    self.line(depth, &format!("{number} {{"));
                    self.message(Some(number), depth + 1)?;
                    self.line(depth, "}");
                }
                4 if group == Some(number) => return Ok(()),
                4 => return Err(Mistake { at: begin, why: "no group ends here" }),
                5 => {
                    let value = self.little::<4>()?;
                    self.line(depth, &format!("{number}: 0x{value:08x}"));
                }
                _ => return Err(Mistake { at: begin, why: "no field is of this kind" }),
            }
        }
        if group.is_some() { self.mistake("it is cut off") } else { Ok(()) }
    }

    fn bytes(&mut self, number: u64, depth: usize) -> Result<(), Mistake> {
        let length = self.varint()?;
        let body = self.take(length)?;
        let mut inner = Reader { body, at: 0, text: String::new() };
        if !body.is_empty() && inner.message(None, depth + 1).is_ok() {
            self.line(depth, &format!("{number} {{"));
            self.text.push_str(&inner.text);
            self.line(depth, "}");
        } else {
            self.line(depth, &format!("{number}: \"{}\"", escaped(body)));
        }
        Ok(())
    }

    fn line(&mut self, depth: usize, text: &str) {
        self.text.push_str(&"  ".repeat(depth));
        self.text.push_str(text);
        self.text.push('\n');
    }
}

/// Bytes as C writes them, but text of other languages as it is.
fn escaped(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => shown.push_str("\\n"),
                '\r' => shown.push_str("\\r"),
                '\t' => shown.push_str("\\t"),
                '"' | '\'' | '\\' => shown.extend(['\\', c]),
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    octal(c.encode_utf8(&mut buffer).as_bytes(), &mut shown);
                }
                c => shown.push(c),
            }
        }
        octal(chunk.invalid(), &mut shown);
    }
    shown
}

fn octal(bytes: &[u8], shown: &mut String) {
    bytes.iter().for_each(|byte| shown.push_str(&format!("\\{byte:03o}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_field_is_shown_by_its_number() {
        let body = [
            [0x08, 0x96, 0x01].as_slice(),
            &[0x12, 7],
            b"testing",
            &[0x1a, 3, 0x08, 0x96, 0x01],
            &[0x21, 1, 0, 0, 0, 0, 0, 0, 0x80],
            &[0x2d, 1, 0, 0, 0x40],
            &[0x33, 0x08, 1, 0x34],
            &[0x3a, 0],
            &[0x42, 3, 0, 0xff, b'"'],
        ]
        .concat();
        let expected = "1: 150\n2: \"testing\"\n3 {\n  1: 150\n}\n4: 0x8000000000000001\n\
                        5: 0x40000001\n6 {\n  1: 1\n}\n7: \"\"\n8: \"\\000\\377\\\"\"";
        assert_eq!(fields(&body).as_deref(), Ok(expected));
        assert_eq!(fields(&[]).as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_place() {
        for (body, at, why) in [
            ([0x08].as_slice(), 1, "it is cut off"),
            (&[0x0a, 5, 1], 2, "it is cut off"),
            (&[0x00, 1], 0, "no field has this number"),
            (&[0x0f], 0, "no field is of this kind"),
            (&[0x0c], 0, "no group ends here"),
            (&[0x0b, 0x14], 1, "no group ends here"),
            (&[0x0b], 1, "it is cut off"),
            (
                &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
                1,
                "the number has more than ten bytes",
            ),
        ] {
            assert_eq!(fields(body), Err(Mistake { at, why }), "{body:?}");
        }
        let deep = fields(&[0x0b; 100]);
        assert_eq!(deep, Err(Mistake { at: 33, why: "messages are nested too deep" }));
    }

    #[test]
    fn messages_in_messages_end_somewhere() {
        let mut body = vec![0x08, 1];
        for _ in 0..60 {
            let length = u8::try_from(body.len()).unwrap();
            body.splice(0..0, [0x0a, length]);
        }
        assert!(fields(&body).unwrap().matches('{').count() <= DEPTH_MAX);
    }
}

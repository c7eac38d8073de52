//! CBOR (RFC 8949) in its diagnostic notation (section 8).
//!
//! Memory grows with the bytes that are there, never with a length that they claim.

use super::{DEPTH_MAX, Mistake, hex, quoted};

/// The head of an item (section 3).
struct Head {
    major: u8,
    /// The low five bits of the first byte.
    short: u8,
    /// The argument; for an item of indefinite length it is 0.
    argument: u64,
}

/// Ends an item of indefinite length.
const BREAK: u8 = 0xff;
const INDEFINITE: u8 = 31;

struct Reader<'b> {
    body: &'b [u8],
    at: usize,
    text: String,
}

/// A body in diagnostic notation; items that follow each other (RFC 8742) are separated by commas.
///
/// Errors: it is no CBOR.
pub(super) fn notation(body: &[u8]) -> Result<String, Mistake> {
    let mut reader = Reader { body, at: 0, text: String::new() };
    while reader.at < body.len() {
        if reader.at > 0 {
            reader.text.push_str(", ");
        }
        reader.item(0)?;
    }
    Ok(reader.text)
}

impl Reader<'_> {
    fn mistake<T>(&self, why: &'static str) -> Result<T, Mistake> {
        Err(Mistake { at: self.at, why })
    }

    fn take(&mut self, count: u64) -> Result<&[u8], Mistake> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let Some(taken) = self.body.get(self.at..).and_then(|rest| rest.get(..count)) else {
            return Err(Mistake { at: self.body.len(), why: "it is cut off" });
        };
        self.at += count;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, Mistake> {
        let first = self.take(1)?[0];
        let (major, short) = (first >> 5, first & 31);
        let argument = match short {
            0..=23 => u64::from(short),
            24..=27 => {
                let bytes = self.take(1 << (short - 24))?;
                bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            INDEFINITE if matches!(major, 2..=5 | 7) => 0,
            _ => {
                self.at -= 1;
                return self.mistake("no item begins with this byte");
            }
        };
        Ok(Head { major, short, argument })
    }

    fn item(&mut self, depth: usize) -> Result<(), Mistake> {
        if depth > DEPTH_MAX {
            return self.mistake("items are nested too deep");
        }
        let begin = self.at;
        let Head { major, short, argument } = self.head()?;
        let is_open = short == INDEFINITE;
        match major {
            0 => self.text.push_str(&argument.to_string()),
            1 => self.text.push_str(&(-1 - i128::from(argument)).to_string()),
            2 | 3 if is_open => self.parts(major)?,
            2 | 3 => self.string(major, argument)?,
            4 => self.list(('[', ']'), argument, is_open, |reader| reader.item(depth + 1))?,
            5 => self.list(('{', '}'), argument, is_open, |reader| {
                reader.item(depth + 1)?;
                reader.text.push_str(": ");
                reader.item(depth + 1)
            })?,
            6 => {
                self.text.push_str(&format!("{argument}("));
                self.item(depth + 1)?;
                self.text.push(')');
            }
            _ if is_open => {
                self.at = begin;
                return self.mistake("nothing has begun that could end here");
            }
            _ => self.simple(short, argument),
        }
        Ok(())
    }

    /// A string of bytes, or of text.
    fn string(&mut self, major: u8, length: u64) -> Result<(), Mistake> {
        let begin = self.at;
        let bytes = self.take(length)?;
        let shown = match major {
            2 => format!("h'{}'", hex(bytes)),
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => quoted(text),
                Err(_) => return Err(Mistake { at: begin, why: "the text is not UTF-8" }),
            },
        };
        self.text.push_str(&shown);
        Ok(())
    }

    /// A string of indefinite length, which comes in parts of its own kind.
    fn parts(&mut self, major: u8) -> Result<(), Mistake> {
        self.list(('(', ')'), 0, true, |reader| {
            let begin = reader.at;
            let head = reader.head()?;
            if head.major != major || head.short == INDEFINITE {
                return Err(Mistake { at: begin, why: "a part of a string of another kind" });
            }
            reader.string(major, head.argument)
        })
    }

    fn list(
        &mut self,
        (open, close): (char, char),
        count: u64,
        is_open: bool,
        mut one: impl FnMut(&mut Self) -> Result<(), Mistake>,
    ) -> Result<(), Mistake> {
        self.text.push(open);
        if is_open {
            self.text.push_str("_ ");
        }
        let mut done = 0;
        while is_open || done < count {
            if is_open && self.body.get(self.at) == Some(&BREAK) {
                self.at += 1;
                break;
            }
            if done > 0 {
                self.text.push_str(", ");
            }
            one(self)?;
            done += 1;
        }
        self.text.push(close);
        Ok(())
    }

    /// Simple values and floating-point numbers (section 3.3).
    fn simple(&mut self, short: u8, argument: u64) {
        let bits32 = || u32::try_from(argument).unwrap_or_default();
        let shown = match (short, argument) {
            (25, _) => float(half(argument)),
            (26, _) => float(f64::from(f32::from_bits(bits32()))),
            (27, _) => float(f64::from_bits(argument)),
            (_, 20) => "false".to_owned(),
            (_, 21) => "true".to_owned(),
            (_, 22) => "null".to_owned(),
            (_, 23) => "undefined".to_owned(),
            (_, number) => format!("simple({number})"),
        };
        self.text.push_str(&shown);
    }
}

fn float(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        format!("{number:?}")
    }
}

/// A number in half precision (IEEE 754 binary16).
fn half(bits: u64) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::try_from(bits >> 10 & 31).unwrap_or_default();
    let fraction = f64::from(u32::try_from(bits & 0x3ff).unwrap_or_default());
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2f64.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test] // RFC 8949, appendix A.
    fn examples_of_the_specification_are_shown_as_it_has_them() {
        for (hex, expected) in [
            ("00", "0"),
            ("1818", "24"),
            ("1bffffffffffffffff", "18446744073709551615"),
            ("3bffffffffffffffff", "-18446744073709551616"),
            ("3903e7", "-1000"),
            ("f90000", "0.0"),
            ("f98000", "-0.0"),
            ("f93e00", "1.5"),
            ("f97bff", "65504.0"),
            ("fa47c35000", "100000.0"),
            ("fb3ff199999999999a", "1.1"),
            ("f90001", "5.960464477539063e-8"),
            ("f97c00", "Infinity"),
            ("f9fc00", "-Infinity"),
            ("f97e00", "NaN"),
            ("f4", "false"),
            ("f5", "true"),
            ("f6", "null"),
            ("f7", "undefined"),
            ("f0", "simple(16)"),
            ("f8ff", "simple(255)"),
            ("c11a514b67b0", "1(1363896240)"),
            ("d818456449455446", "24(h'6449455446')"),
            ("4401020304", "h'01020304'"),
            ("62225c", "\"\\\"\\\\\""),
            ("63e6b0b4", "\"水\""),
            ("80", "[]"),
            ("8301820203820405", "[1, [2, 3], [4, 5]]"),
            ("a201020304", "{1: 2, 3: 4}"),
            ("a26161016162820203", "{\"a\": 1, \"b\": [2, 3]}"),
            ("5f42010243030405ff", "(_ h'0102', h'030405')"),
            ("7f657374726561646d696e67ff", "(_ \"strea\", \"ming\")"),
            ("9fff", "[_ ]"),
            ("9f018202039f0405ffff", "[_ 1, [2, 3], [_ 4, 5]]"),
            ("bf61610161629f0203ffff", "{_ \"a\": 1, \"b\": [_ 2, 3]}"),
            ("0102", "1, 2"),
        ] {
            assert_eq!(notation(&bytes(hex)).as_deref(), Ok(expected), "{hex}");
        }
    }

    #[test]
    fn what_is_no_cbor_is_refused_with_its_place() {
        for (hex, at, why) in [
            ("18", 1, "it is cut off"),
            ("1c", 0, "no item begins with this byte"),
            ("1f", 0, "no item begins with this byte"),
            ("ff", 0, "nothing has begun that could end here"),
            ("61ff", 1, "the text is not UTF-8"),
            ("5f6161ff", 1, "a part of a string of another kind"),
            ("9f01", 2, "it is cut off"),
            ("a101", 2, "it is cut off"),
            ("5bffffffffffffffff00", 10, "it is cut off"),
            ("9bffffffffffffffff00", 10, "it is cut off"),
        ] {
            assert_eq!(notation(&bytes(hex)), Err(Mistake { at, why }), "{hex}");
        }
        let deep = notation(&[0x81; 10_000]);
        assert_eq!(deep, Err(Mistake { at: DEPTH_MAX + 1, why: "items are nested too deep" }));
    }
}

//! The language of filters.

use polymq_filter::{FILTER_BYTES_MAX, Fields, Filter, Scalar};

use crate::sight;

struct Row<'b>(&'b [u8]);

impl Fields for Row<'_> {
    fn field(&self, name: &str) -> Option<Scalar<'_>> {
        match name.len() % 6 {
            0 => None,
            1 => Some(Scalar::Int(i64::MIN)),
            2 => Some(Scalar::Float(f64::NAN)),
            3 => Some(Scalar::Time(5)),
            4 => Some(Scalar::Bool(true)),
            _ => Some(Scalar::text("a_b%")),
        }
    }

    fn body(&self) -> Option<&[u8]> {
        Some(self.0)
    }
}

/// Takes a filter, and behind a line feed the body it looks at.
pub fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, body) = text.split_once('\n').unwrap_or((text, "{}"));
    match Filter::parse(text) {
        Ok(filter) => {
            let row = Row(body.as_bytes());
            sight::note("filter", text.as_bytes());
            let selects = filter.selects(&row, u64::MAX);
            assert_eq!(filter.as_str(), text);
            // What is true is not also false.
            if text.len() + 6 < FILTER_BYTES_MAX
                && let Ok(negated) = Filter::parse(&format!("NOT ({text})"))
            {
                assert!(!(selects && negated.selects(&row, u64::MAX)), "{text} and its contrary");
            }
        }
        Err(bad) => {
            sight::note("bad", bad.to_string().as_bytes());
            assert!(bad.at <= text.len(), "{bad} is no place in {text}")
        }
    }
}

//! Values as JSON: order and repeated names are kept, and what plain JSON cannot say is
//! `{"$t":"i32","v":5}`.
//!
//! A user key that begins with `$t`, `$$t` and so on gets one more `$`.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeTuple},
};

use super::{
    DEPTH_MAX,
    text::{code_of, value_from_text, value_to_text},
};
use crate::value::{Table, Value};

const TYPE_KEY: &str = "$t";
const VALUE_KEY: &str = "v";

/// The value as JSON text.
pub fn value_to_json(value: &Value) -> String {
    // Writing to memory cannot fail, and every key is a string.
    serde_json::to_string(&Typed(value)).unwrap_or_default()
}

/// Reads JSON text; `None` when it is malformed or nested more than [`DEPTH_MAX`] deep.
///
/// Whole numbers are [`Value::I64`], or [`Value::U64`] when they are too large for it; others are
/// [`Value::F64`].
pub fn value_from_json(text: &str) -> Option<Value> {
    let Parsed(value) = serde_json::from_str(text).ok()?;
    is_within_depth(&value, DEPTH_MAX).then_some(value)
}

/// The text of `x-mq-extra`: a list of `[name, code, value]`.
pub(super) fn extra_to_json(extra: &[(&str, &Value)]) -> String {
    let triples: Vec<_> =
        extra.iter().map(|(name, value)| (name, code_of(value), Bare(value))).collect();
    serde_json::to_string(&triples).unwrap_or_default()
}

/// Reads `x-mq-extra`; `None` when it is malformed.
pub(super) fn extra_from_json(text: &str) -> Option<Table> {
    let Value::List(triples) = value_from_json(text)? else { return None };
    triples
        .into_iter()
        .map(|triple| {
            let Value::List(parts) = triple else { return None };
            let [Value::String(name), Value::String(code), bare] =
                <[Value; 3]>::try_from(parts).ok()?
            else {
                return None;
            };
            Some((name, typed(&code, bare)?))
        })
        .collect()
}

pub(crate) fn is_within_depth(value: &Value, left: usize) -> bool {
    let Some(left) = left.checked_sub(1) else {
        return !matches!(value, Value::List(_) | Value::Map(_));
    };
    match value {
        Value::List(items) => items.iter().all(|item| is_within_depth(item, left)),
        Value::Map(table) => table.iter().all(|(_, item)| is_within_depth(item, left)),
        _ => true,
    }
}

fn has_repeats(table: &Table) -> bool {
    let mut seen = HashSet::new();
    !table.iter().all(|(name, _)| seen.insert(name))
}

/// True for keys that could be taken for the key of a type.
fn needs_dollar(key: &str) -> bool {
    key.starts_with('$') && key.trim_start_matches('$').starts_with('t')
}

/// True when plain JSON says the type of the value, so that it is read as what it is.
pub(crate) fn says_its_type(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::I64(_) | Value::String(_) | Value::List(_) => true,
        Value::U64(v) => i64::try_from(*v).is_err(),
        Value::F64(v) => v.is_finite(),
        Value::Map(table) => !has_repeats(table),
        _ => false,
    }
}

/// A value with its type, where plain JSON does not say it.
pub(crate) struct Typed<'a>(pub(crate) &'a Value);

impl Serialize for Typed<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if says_its_type(self.0) {
            return Bare(self.0).serialize(out);
        }
        let mut map = out.serialize_map(Some(2))?;
        map.serialize_entry(TYPE_KEY, code_of(self.0))?;
        map.serialize_entry(VALUE_KEY, &Bare(self.0))?;
        map.end()
    }
}

/// A value whose type is said elsewhere.
pub(crate) struct Bare<'a>(pub(crate) &'a Value);

impl Serialize for Bare<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => out.serialize_unit(),
            Value::Bool(v) => out.serialize_bool(*v),
            Value::I8(v) => out.serialize_i8(*v),
            Value::U8(v) => out.serialize_u8(*v),
            Value::I16(v) => out.serialize_i16(*v),
            Value::U16(v) => out.serialize_u16(*v),
            Value::I32(v) => out.serialize_i32(*v),
            Value::U32(v) => out.serialize_u32(*v),
            Value::I64(v) => out.serialize_i64(*v),
            Value::U64(v) => out.serialize_u64(*v),
            // As f64 the digits are exact, so that reading cannot round twice.
            Value::F32(v) if v.is_finite() => out.serialize_f64(f64::from(*v)),
            Value::F64(v) if v.is_finite() => out.serialize_f64(*v),
            Value::List(items) => out.collect_seq(items.iter().map(Typed)),
            Value::Map(table) if has_repeats(table) => {
                out.collect_seq(table.iter().map(|(name, value)| Pair(name, value)))
            }
            Value::Map(table) => out.collect_map(table.iter().map(|(name, value)| {
                let dollar = if needs_dollar(name) { "$" } else { "" };
                (format!("{dollar}{name}"), Typed(value))
            })),
            value => out.serialize_str(&value_to_text(value, |_| false).0),
        }
    }
}

struct Pair<'a>(&'a str, &'a Value);

impl Serialize for Pair<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut pair = out.serialize_tuple(2)?;
        pair.serialize_element(self.0)?;
        pair.serialize_element(&Typed(self.1))?;
        pair.end()
    }
}

/// A value read from JSON; the parser itself bounds the depth of the text.
pub(crate) struct Parsed(pub(crate) Value);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(ParsedVisitor).map(Parsed)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::I64(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(i64::try_from(v).map_or(Value::U64(v), Value::I64))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::F64(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Parsed(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table = Table::new();
        while let Some((name, Parsed(value))) = entries.next_entry::<String, Parsed>()? {
            table.push((name, value));
        }
        if let [(type_key, Value::String(code)), (value_key, bare)] = table.as_slice()
            && type_key == TYPE_KEY
            && value_key == VALUE_KEY
            && let Some(value) = typed(code, bare.clone())
        {
            return Ok(value);
        }
        for (name, _) in &mut table {
            if name.strip_prefix('$').is_some_and(needs_dollar) {
                name.remove(0);
            }
        }
        Ok(Value::Map(table))
    }
}

/// The value that a code and its bare JSON say; `None` when they do not fit.
pub(crate) fn typed(code: &str, bare: Value) -> Option<Value> {
    match (code, bare) {
        ("null", Value::Null) => Some(Value::Null),
        ("list", list @ Value::List(_)) => Some(list),
        ("map", map @ Value::Map(_)) => Some(map),
        ("map", Value::List(pairs)) => {
            pairs.into_iter().map(pair).collect::<Option<_>>().map(Value::Map)
        }
        ("list" | "map", _) => None,
        (_, Value::String(text)) => value_from_text(&text, code),
        (_, scalar @ (Value::Bool(_) | Value::I64(_) | Value::U64(_) | Value::F64(_))) => {
            value_from_text(&value_to_text(&scalar, |_| false).0, code)
        }
        _ => None,
    }
}

fn pair(value: Value) -> Option<(String, Value)> {
    let Value::List(parts) = value else { return None };
    match <[Value; 2]>::try_from(parts).ok()? {
        [Value::String(name), value] => Some((name, value)),
        _ => None,
    }
}

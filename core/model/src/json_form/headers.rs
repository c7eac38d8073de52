//! Headers as JSON: in order, with their types.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};

use crate::{
    carry::json::{Bare, Parsed, Typed, says_its_type, typed},
    value::{Table, Value},
};

/// How headers are written that plain JSON cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Each with its type beside it, as in the native form.
    #[default]
    Typed,
    /// As plain JSON; their types are told elsewhere.
    Bare,
    /// As plain JSON; their types are not told.
    Plain,
}

/// Headers in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderTable {
    /// The headers.
    pub table: Table,
    /// How they are written.
    pub style: Style,
}

impl HeaderTable {
    pub(super) fn has_repeats(&self) -> bool {
        let mut seen = HashSet::new();
        !self.table.iter().all(|(name, _)| seen.insert(name))
    }

    /// The types of the headers that plain JSON cannot say, by JSON pointer.
    pub(super) fn types(&self, is_list: bool) -> BTreeMap<String, String> {
        let untold = self.table.iter().enumerate().filter(|(_, (_, value))| !says_its_type(value));
        let pointer = |(index, (name, value)): (usize, &(String, Value))| {
            let pointer = match is_list {
                true => format!("/{index}/1"),
                false => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            };
            (pointer, crate::carry::code_of(value).to_owned())
        };
        untold.map(pointer).collect()
    }

    /// Gives values the types that pointers say.
    ///
    /// Errors: the pointer that leads nowhere, or to a value that does not fit its type.
    pub(super) fn set_types(
        &mut self,
        types: &BTreeMap<String, String>,
        is_list: bool,
    ) -> Result<(), String> {
        for (pointer, code) in types {
            let value = self.find(pointer, is_list).ok_or(pointer)?;
            *value = typed(code, std::mem::replace(value, Value::Null)).ok_or(pointer)?;
        }
        Ok(())
    }

    fn find(&mut self, pointer: &str, is_list: bool) -> Option<&mut Value> {
        let mut parts = pointer.strip_prefix('/')?.split('/');
        let first = parts.next()?.replace("~1", "/").replace("~0", "~");
        let found = match is_list {
            true => {
                let pair = self.table.get_mut(first.parse::<usize>().ok()?);
                pair.filter(|_| parts.next() == Some("1"))
            }
            false => self.table.iter_mut().find(|(name, _)| *name == first),
        };
        let mut value = &mut found?.1;
        for part in parts {
            let part = part.replace("~1", "/").replace("~0", "~");
            value = match value {
                Value::List(items) => items.get_mut(part.parse::<usize>().ok()?)?,
                Value::Map(table) => {
                    table.iter_mut().find(|(name, _)| *name == part).map(|(_, value)| value)?
                }
                _ => return None,
            };
        }
        Some(value)
    }
}

impl Serialize for HeaderTable {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.table.len()))?;
        for (name, value) in &self.table {
            match self.style {
                Style::Typed => map.serialize_entry(name, &Typed(value))?,
                Style::Bare | Style::Plain => map.serialize_entry(name, &Bare(value))?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for HeaderTable {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = HeaderTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<HeaderTable, A::Error> {
                let mut table = Table::new();
                while let Some((name, Parsed(value))) = entries.next_entry::<String, Parsed>()? {
                    table.push((name, value));
                }
                Ok(HeaderTable { table, style: Style::Typed })
            }
        }
        input.deserialize_map(Names)
    }
}

/// Headers as a list of pairs of name and value.
pub(super) mod pairs {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        headers: &Option<HeaderTable>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(headers) = headers else { return out.serialize_none() };
        let mut list = out.serialize_seq(Some(headers.table.len()))?;
        for (name, value) in &headers.table {
            match headers.style {
                Style::Typed => list.serialize_element(&(name, Typed(value)))?,
                Style::Bare | Style::Plain => list.serialize_element(&(name, Bare(value)))?,
            }
        }
        list.end()
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<HeaderTable>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Option<HeaderTable>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pairs of name and value")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
                let mut table = Table::new();
                while let Some((name, Parsed(value))) = pairs.next_element::<(String, Parsed)>()? {
                    table.push((name, value));
                }
                Ok(Some(HeaderTable { table, style: Style::Typed }))
            }
        }
        input.deserialize_any(Pairs)
    }
}

//! What JSON looks like, for the OpenAPI document: made from the same declaration that reads and
//! writes it.

use std::collections::BTreeMap;

use serde::{Deserializer, de::Visitor, forward_to_deserialize_any};
use serde_json::{Map, Value, json};

/// The named schemas of a document.
#[derive(Default)]
pub(crate) struct Schemas(BTreeMap<&'static str, Value>);

impl Schemas {
    /// A reference to the schema `name`, which is made when it is the first.
    pub(crate) fn named(
        &mut self,
        name: &'static str,
        make: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        if !self.0.contains_key(name) {
            // One that refers to itself finds its name.
            self.0.insert(name, Value::Null);
            let made = make(self);
            self.0.insert(name, made);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    /// All of them, by name.
    pub(crate) fn into_json(self) -> Value {
        self.0
            .into_iter()
            .map(|(name, schema)| (name.to_owned(), schema))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// A type that JSON of the API is read into or written from.
pub(crate) trait Schema {
    /// A field of this type may be left out.
    const MAY_BE_ABSENT: bool = false;

    /// JSON Schema 2020-12.
    fn schema(all: &mut Schemas) -> Value;
}

macro_rules! plain {
    ($($kind:ty => $schema:tt),* $(,)?) => {
        $(impl Schema for $kind {
            fn schema(_: &mut Schemas) -> Value {
                json!($schema)
            }
        })*
    };
}

plain! {
    bool => { "type": "boolean" },
    String => { "type": "string" },
    u8 => { "type": "integer", "minimum": 0, "maximum": 255 },
    u16 => { "type": "integer", "minimum": 0, "maximum": 65535 },
    u32 => { "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 },
    u64 => { "type": "integer", "minimum": 0 },
    usize => { "type": "integer", "minimum": 0 },
    i64 => { "type": "integer" },
    f64 => { "type": "number" },
    Value => {},
}

impl<T: Schema> Schema for Option<T> {
    const MAY_BE_ABSENT: bool = true;

    fn schema(all: &mut Schemas) -> Value {
        T::schema(all)
    }
}

impl<T: Schema> Schema for Vec<T> {
    fn schema(all: &mut Schemas) -> Value {
        json!({ "type": "array", "items": T::schema(all) })
    }
}

impl<T: Schema> Schema for BTreeMap<String, T> {
    fn schema(all: &mut Schemas) -> Value {
        json!({ "type": "object", "additionalProperties": T::schema(all) })
    }
}

/// Declares a struct that is read from JSON and written to it, with its schema. Fields that are not
/// known are refused; fields of type `Option` may be left out.
macro_rules! record {
    (
        $(#[doc = $doc:literal])+
        $name:ident {
            $(
                $(#[doc = $about:literal])+
                $(#[serde($($attribute:tt)*)])?
                $field:ident: $kind:ty,
            )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
        #[serde(remote = "Self", deny_unknown_fields, expecting = "an object")]
        pub(crate) struct $name {
            $(
                $(#[doc = $about])+
                $(#[serde($($attribute)*)])?
                pub(crate) $field: $kind,
            )*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                Self::deserialize($crate::schema::Object(input))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, output)
            }
        }

        impl $crate::schema::Schema for $name {
            fn schema(all: &mut $crate::schema::Schemas) -> serde_json::Value {
                all.named(stringify!($name), |all| {
                    let fields: &[(&str, &str, bool, serde_json::Value)] = &[$((
                        stringify!($field),
                        concat!($($about),+),
                        <$kind as $crate::schema::Schema>::MAY_BE_ABSENT,
                        <$kind as $crate::schema::Schema>::schema(all),
                    ),)*];
                    $crate::schema::object(concat!($($doc),+), fields)
                })
            }
        }
    };
}

pub(crate) use record;

/// Reads a struct from an object only. Otherwise JSON may also list its fields by their places,
/// which nobody means.
pub(crate) struct Object<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Object<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

/// The schema of an object with these fields: name, text, whether it may be left out, schema.
pub(crate) fn object(about: &str, fields: &[(&str, &str, bool, Value)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, about, may_be_absent, schema) in fields {
        let name = name.trim_start_matches("r#");
        let mut schema = schema.clone();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), json!(about.trim()));
        }
        properties.insert(name.to_owned(), schema);
        if !may_be_absent {
            required.push(name);
        }
    }
    let mut object = json!({
        "type": "object",
        "description": about.trim(),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

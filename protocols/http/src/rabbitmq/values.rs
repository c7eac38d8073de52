//! Arguments, headers and what else is typed inside the broker, as JSON has them; and input read
//! as liberally as tools write it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_model::{Table, Value};
use serde_json::{Map, Number, Value as Json};

use super::wire::Failure;

/// What Erlang's processes say of their memory.
pub(super) fn garbage_collection() -> Json {
    serde_json::json!({
        "max_heap_size": 0,
        "min_bin_vheap_size": 0,
        "min_heap_size": 0,
        "fullsweep_after": 0,
        "minor_gcs": 0,
    })
}

/// A table as an object. Of a name that repeats the last counts.
pub(super) fn object(table: &[(String, Value)]) -> Json {
    Json::Object(table.iter().map(|(name, value)| (name.clone(), json_of(value))).collect())
}

/// A value as JSON has it.
pub(super) fn json_of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::U64(number) => Json::from(*number),
        Value::F32(number) => float(f64::from(*number)),
        Value::F64(number) => float(*number),
        Value::Decimal { scale, unscaled } => {
            float(*unscaled as f64 / 10_f64.powi(i32::from(*scale)))
        }
        // RabbitMQ's timestamps are in seconds.
        Value::Timestamp(ms) => Json::from(ms.div_euclid(1000)),
        Value::Bytes(bytes) | Value::LongString(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Json::from(text),
            Err(_) => Json::from(BASE64_STANDARD.encode(bytes)),
        },
        Value::Uuid(bytes) => Json::from(BASE64_STANDARD.encode(bytes)),
        Value::String(text) | Value::Symbol(text) => Json::from(text.as_str()),
        Value::Char(sign) => Json::from(sign.to_string()),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(table) => object(table),
        Value::I8(_)
        | Value::U8(_)
        | Value::I16(_)
        | Value::U16(_)
        | Value::I32(_)
        | Value::U32(_)
        | Value::I64(_) => value.as_i64().map_or(Json::Null, Json::from),
    }
}

fn float(number: f64) -> Json {
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

/// A JSON value as a client of AMQP would have sent it.
///
/// Errors: a number that no type holds.
pub(super) fn value_of(json: &Json) -> Result<Value, Failure> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::I64(whole),
            (None, Some(float)) => Value::F64(float),
            (None, None) => return Err(Failure::bad(format!("the number {number} is too large"))),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(value_of).collect::<Result<_, _>>()?),
        Json::Object(map) => Value::Map(table_of(map)?),
    })
}

/// An object as a table.
///
/// Errors: a number that no type holds.
pub(super) fn table_of(map: &Map<String, Json>) -> Result<Table, Failure> {
    map.iter().map(|(name, value)| Ok((name.clone(), value_of(value)?))).collect()
}

/// The fields of a body.
pub(super) struct Fields(Map<String, Json>);

impl Fields {
    /// Errors: the body is no object of JSON. An empty body is an empty object.
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Json::Object(map)) => Ok(Self(map)),
            Ok(_) | Err(_) => Err(Failure::bad("not_json")),
        }
    }

    /// The fields of an object inside another.
    ///
    /// Errors: it is no object.
    pub(super) fn of(json: &Json) -> Result<Self, Failure> {
        match json {
            Json::Object(map) => Ok(Self(map.clone())),
            other => Err(Failure::bad(format!("{other} is no object"))),
        }
    }

    /// A field that is there and is not null.
    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Errors: some of these are missing; all of them are named, as RabbitMQ does.
    pub(super) fn need(&self, names: &[&str]) -> Result<(), Failure> {
        let missing: Vec<String> = names
            .iter()
            .filter(|name| self.get(name).is_none())
            .map(|name| format!("{{key_missing,{name}}}"))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Failure::bad(format!("[{}]", missing.join(",")))),
        }
    }

    /// Text; a number or truth value counts as its text.
    ///
    /// Errors: it is a list or an object.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(other @ (Json::Number(_) | Json::Bool(_))) => Ok(Some(other.to_string())),
            Some(other) => Err(Failure::bad(format!("'{name}' is not text but {other}"))),
        }
    }

    /// Text that must be there.
    ///
    /// Errors: it is missing, a list or an object.
    pub(super) fn needed_text(&self, name: &str) -> Result<String, Failure> {
        self.text(name)?.ok_or_else(|| Failure::bad(format!("[{{key_missing,{name}}}]")))
    }

    /// A truth value, also as text; absent is `default`.
    ///
    /// Errors: it is neither true nor false.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.get(name) {
            None => Ok(default),
            Some(Json::Bool(truth)) => Ok(*truth),
            Some(Json::String(text)) if text == "true" => Ok(true),
            Some(Json::String(text)) if text == "false" || text.is_empty() => Ok(false),
            Some(other) => Err(Failure::bad(format!("'{name}' is not true or false: {other}"))),
        }
    }

    /// A whole number, also as text.
    ///
    /// Errors: it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        let found = self.get(name);
        let number = found.and_then(|value| match value {
            Json::Number(number) => number.as_i64(),
            Json::String(text) => text.trim().parse().ok(),
            _ => None,
        });
        match (found, number) {
            (None, _) => Ok(None),
            (Some(_), Some(number)) => Ok(Some(number)),
            (Some(other), None) => {
                Err(Failure::bad(format!("'{name}' is no whole number: {other}")))
            }
        }
    }

    /// Arguments; absent is none. Tools that can only send text send an object as text.
    ///
    /// Errors: it is no object.
    pub(super) fn table(&self, name: &str) -> Result<Table, Failure> {
        let wrong = |other: &Json| Failure::bad(format!("'{name}' is no object: {other}"));
        match self.get(name) {
            None => Ok(Table::new()),
            Some(Json::Object(map)) => table_of(map),
            // How a server in Erlang writes an empty object.
            Some(Json::Array(items)) if items.is_empty() => Ok(Table::new()),
            Some(other @ Json::String(text)) => match serde_json::from_str(text) {
                Ok(Json::Object(map)) => table_of(&map),
                _ => Err(wrong(other)),
            },
            Some(other) => Err(wrong(other)),
        }
    }

    /// Words in a list, or divided by commas.
    ///
    /// Errors: neither.
    pub(super) fn words(&self, name: &str) -> Result<Option<Vec<String>>, Failure> {
        let split = |text: &str| {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        let wrong = || Failure::bad(format!("'{name}' is neither text nor a list of text"));
        match self.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(split(text))),
            Some(Json::Array(items)) => {
                let words = items.iter().map(|item| item.as_str().map(str::to_owned));
                words.collect::<Option<_>>().map(Some).ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn input_is_read_as_tools_write_it() {
        let body = br#"{"durable":"true","n":"12","tags":"a, b","args":"{\"x\":1}","list":["c"]}"#;
        let fields = Fields::read(body).unwrap();
        assert_eq!(fields.flag("durable", false), Ok(true));
        assert_eq!(fields.number("n"), Ok(Some(12)));
        assert_eq!(fields.words("tags"), Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(fields.words("list"), Ok(Some(vec!["c".to_owned()])));
        assert_eq!(fields.table("args"), Ok(vec![("x".to_owned(), Value::I64(1))]));
        assert_eq!(fields.flag("absent", true), Ok(true));
        assert!(fields.flag("n", false).is_err());
    }

    #[test]
    fn all_missing_fields_are_named() {
        let failure = Fields::read(b"").unwrap().need(&["count", "ackmode"]).unwrap_err();
        assert_eq!(failure, Failure::bad("[{key_missing,count},{key_missing,ackmode}]"));
    }

    #[test]
    fn values_go_in_and_out() {
        let table = json!({ "a": 1, "b": "x", "c": [true, null], "d": { "e": 1.5 } });
        let Json::Object(map) = &table else { panic!() };
        assert_eq!(object(&table_of(map).unwrap()), table);
        assert_eq!(json_of(&Value::Timestamp(1_500)), json!(1));
        assert_eq!(json_of(&Value::Bytes(vec![0xff])), json!("/w=="));
        assert_eq!(json_of(&Value::I8(-1)), json!(-1));
    }
}

//! Values of the core as JSON, and back.

use polymq_model::{
    Table, Value as Typed,
    carry::{rfc3339_from_ms, value_from_json, value_to_json},
};
use serde_json::{Value, json};

use crate::problem::Problem;

/// Arguments or headers as a JSON object; a type that plain JSON lacks is said by `$t`.
pub(super) fn from_table(table: &Table) -> Value {
    if table.is_empty() {
        return json!({});
    }
    let text = value_to_json(&Typed::Map(table.clone()));
    serde_json::from_str(&text).unwrap_or_default()
}

/// Arguments from a JSON object.
///
/// Errors: it is no object, or nested too deep.
pub(super) fn to_table(value: &Value, at: &str) -> Result<Table, Problem> {
    match value_from_json(&value.to_string()) {
        Some(Typed::Map(table)) => Ok(table),
        _ => {
            let text = "arguments are an object whose values nest at most 32 deep";
            Err(Problem::bad("wrong_type", text).at(at))
        }
    }
}

/// A time in ms since 1970 as text; `null` for 0, which is never.
pub(super) fn time(ms: u64) -> Value {
    match i64::try_from(ms) {
        Ok(ms) if ms > 0 => json!(rfc3339_from_ms(ms)),
        _ => Value::Null,
    }
}

//! Declaring, binding and deleting: every change of a topology, written to the store as it happens.

mod binding;
mod change;
mod exchange;
mod queue;

pub(crate) use binding::check_source;
pub use change::QueueChange;
pub(crate) use exchange::check_deletable;
pub(crate) use queue::no_queue;
use std::fmt::Display;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{BadName, Value};

use crate::vhost::Vhost;

/// What a new declaration has otherwise than the object that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    name: &'static str,
    text: String,
}

impl Difference {
    /// Of a property that everything has.
    pub(crate) fn property(name: &'static str, have: impl Display, want: impl Display) -> Self {
        Self { name, text: format!("received '{want}' but current is '{have}'") }
    }

    /// Of an argument.
    pub(crate) fn argument(name: &'static str, have: Option<&Value>, want: Option<&Value>) -> Self {
        let text = match (have, want) {
            (Some(have), Some(want)) => {
                format!("received '{}' but current is '{}'", shown(want), shown(have))
            }
            _ => format!("received {} but current is {}", told(want), told(have)),
        };
        Self { name, text }
    }

    /// The refusal that names it, in the words of RabbitMQ, which people search for.
    pub(crate) fn refuse(&self, what: &str, object: &str, vhost: &Vhost) -> Refusal {
        let Self { name, text } = self;
        Refusal::new(
            RefusalKind::Conflict,
            format!(
                "inequivalent arg '{name}' for {what} '{object}' in vhost '{}': {text}",
                vhost.name
            ),
        )
    }
}

/// A value without its type, for people.
pub(crate) fn shown(value: &Value) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match (value.as_i64(), value.as_str(), value) {
        (Some(number), _, _) => number.to_string(),
        (None, Some(text), _) => text.to_owned(),
        (None, None, Value::Null) => "null".to_owned(),
        (None, None, Value::Bool(truth)) => truth.to_string(),
        (None, None, Value::U64(number)) => number.to_string(),
        (None, None, Value::F32(number)) => number.to_string(),
        (None, None, Value::F64(number)) => number.to_string(),
        (None, None, Value::Bytes(bytes) | Value::LongString(bytes)) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        (None, None, Value::List(items)) => {
            format!("[{}]", list(items.iter().map(shown).collect()))
        }
        (None, None, Value::Map(table)) => {
            let pairs = table.iter().map(|(name, value)| format!("{name}: {}", shown(value)));
            format!("{{{}}}", list(pairs.collect()))
        }
        (None, None, other) => format!("{other:?}"),
    }
}

/// A value with its type as AMQP calls it.
fn told(value: Option<&Value>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let kind = match value {
        Value::Bool(_) => "bool",
        Value::I8(_) => "byte",
        Value::U8(_) => "unsignedbyte",
        Value::I16(_) => "short",
        Value::U16(_) => "unsignedshort",
        Value::I32(_) => "signedint",
        Value::U32(_) => "unsignedint",
        Value::I64(_) => "long",
        Value::F32(_) => "float",
        Value::F64(_) => "double",
        Value::Timestamp(_) => "timestamp",
        Value::String(_) | Value::LongString(_) => "longstr",
        Value::Bytes(_) => "binary",
        Value::List(_) => "array",
        Value::Map(_) => "table",
        _ => return format!("the value '{}'", shown(value)),
    };
    format!("the value '{}' of type '{kind}'", shown(value))
}

/// A name that no name can be.
pub(crate) fn bad_name(bad: BadName) -> Refusal {
    Refusal::new(RefusalKind::Invalid, bad.to_string())
}

/// Errors: kind `Reserved` for names that only the broker makes.
pub(crate) fn check_not_reserved(what: &str, name: &str) -> Result<(), Refusal> {
    if name.starts_with("amq.") {
        let text = format!("{what} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Refusal::new(RefusalKind::Reserved, text).about(what, name, None));
    }
    Ok(())
}

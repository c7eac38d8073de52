//! From canonical fields to the headers of a target.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use super::{
    SHORT_BYTES_MAX,
    ident::{ident_kind, ident_to_text},
    json::extra_to_json,
    keys::{CORRELATION_ALIAS, Carry, Dropped, Field, GROUP_ID, ID_ALIAS, Outcome, RETAIN},
    read::is_text_encoding,
    text::{code_of, value_to_text},
    types::{encode_names, encode_types},
};
use crate::{
    address::TOPIC_EXCHANGE,
    properties::Properties,
    value::{Table, Value},
};

/// What a writer knows beside the properties.
#[derive(Debug, Clone, Copy)]
pub struct Writing<'a> {
    /// Whether fields without a place are carried.
    pub carry: Carry,
    /// The expiry that the native form shows, in ms, see [`super::expiry_shown_ms`]; `None` when it
    /// shows none.
    pub expiry_shown_ms: Option<u64>,
    /// The exchange behind plain MQTT topics.
    pub topic_exchange: &'a str,
}

impl Default for Writing<'_> {
    fn default() -> Self {
        Self { carry: Carry::Full, expiry_shown_ms: None, topic_exchange: TOPIC_EXCHANGE }
    }
}

/// A protocol whose headers are names and texts that may repeat.
#[derive(Debug)]
pub struct TextTarget {
    /// True when the native form cannot say this field of this message.
    pub lacks: fn(&Properties, Field, &Writing<'_>) -> bool,
    /// Longest name and longest text.
    pub bytes_max: usize,
    /// Characters that names and texts cannot hold.
    pub forbids: fn(char) -> bool,
}

/// User Properties of MQTT 5.
pub static MQTT5: TextTarget =
    TextTarget { lacks: mqtt5_lacks, bytes_max: 65_535, forbids: |c| c == '\0' };

fn mqtt5_lacks(props: &Properties, field: Field, writing: &Writing<'_>) -> bool {
    match field {
        Field::Text | Field::Qos => false,
        Field::ReplyTo => {
            let address = props.reply_to.as_ref();
            address.is_some_and(|a| a.to_mqtt_topic(writing.topic_exchange).is_none())
        }
        _ => true,
    }
}

fn amqp_lacks(props: &Properties, field: Field) -> bool {
    let long = |text: &Option<String>| text.as_ref().is_some_and(|t| t.len() > SHORT_BYTES_MAX);
    match field {
        Field::Id | Field::Priority => false,
        // Seconds since 1970 are all that AMQP can say.
        Field::Timestamp => props.timestamp_ms.is_some_and(|ms| ms < 0 || ms % 1000 != 0),
        Field::Text => {
            props.text != Some(true) || !is_text_encoding(props.content_encoding.as_deref())
        }
        Field::Encoding => long(&props.content_encoding),
        Field::Type => long(&props.kind),
        Field::User => long(&props.user_id),
        Field::App => long(&props.app_id),
        // A text with control characters is a text in AMQP without saying so.
        Field::CorrelationKind => props.correlation.as_ref().and_then(ident_kind) != Some("text"),
        Field::ReplyTo => props.reply_to.as_ref().is_some_and(|a| a.to_amqp().is_none()),
        _ => true,
    }
}

/// The headers of a message in a protocol with texts: the user's, then the group, then the carry
/// keys.
///
/// The annotations are not among them, see [`super::annotation_text_headers`]. `dropped` hears of
/// every field that is left out.
pub fn to_text_headers(
    props: &Properties,
    target: &TextTarget,
    writing: &Writing<'_>,
    dropped: Dropped<'_>,
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut types = Types::default();
    let holds = |name: &str| !name.contains(target.forbids);
    for (name, value) in props.headers.iter().filter(|(name, _)| holds(name)) {
        let (text, code) = value_to_text(value, target.forbids);
        if name.len() > target.bytes_max || text.len() > target.bytes_max {
            dropped("header", Outcome::TooLong);
            continue;
        }
        types.add(name, code);
        out.push((name.clone(), text));
    }
    let mut text_of = |name, value: &Value| {
        let (text, code) = value_to_text(value, target.forbids);
        let is_string = matches!(value, Value::String(_));
        types.add(name, code.filter(|_| is_string));
        text
    };
    if let Some(group) = &props.group_id {
        out.push((GROUP_ID.to_owned(), text_of(GROUP_ID, &Value::String(group.clone()))));
    }
    let mut carried: Vec<_> = fields(props, |field| (target.lacks)(props, field, writing), writing)
        .map(|(field, value)| (field, text_of(field.key(), &value)))
        .collect();
    carried.extend(about_headers(props, holds, false, &types));
    for (field, text) in carried {
        if writing.carry == Carry::None {
            dropped(field.label(), Outcome::CarryOff);
        } else if text.len() > target.bytes_max {
            dropped(field.label(), Outcome::TooLong);
        } else {
            out.push((field.key().to_owned(), text));
        }
    }
    out
}

/// Takes the carry keys out of headers that make a packet too large.
pub fn drop_carry_keys(headers: &mut Vec<(String, String)>, dropped: Dropped<'_>) {
    headers.retain(|(name, _)| {
        let Some(field) = Field::from_key(name) else { return true };
        dropped(field.label(), Outcome::PacketSize);
        false
    });
}

/// The headers table of a message in AMQP 0-9-1; every value in it is one that AMQP can write.
///
/// An id or correlation over [`SHORT_BYTES_MAX`] gets a header of its own, and other short strings
/// over it a carry key: the caller leaves out the native property. The annotations are not among
/// the headers, see [`super::annotation_headers`]. `dropped` hears of every field that is left out.
pub fn to_table_headers(props: &Properties, writing: &Writing<'_>, dropped: Dropped<'_>) -> Table {
    let holds = |name: &str| name.len() <= SHORT_BYTES_MAX;
    let mut types = Types::default();
    let mut out = Table::new();
    for (name, value) in grouped(&props.headers, holds) {
        let (value, code) = express(&value);
        types.add(name, code);
        out.push((name.to_owned(), value));
    }
    if let Some(group) = &props.group_id {
        out.push((GROUP_ID.to_owned(), Value::String(group.clone())));
    }
    if props.retain {
        out.push((RETAIN.to_owned(), Value::Bool(true)));
    }
    for (name, ident) in [(ID_ALIAS, &props.id), (CORRELATION_ALIAS, &props.correlation)] {
        let long = ident.as_ref().map(ident_to_text).filter(|text| text.len() > SHORT_BYTES_MAX);
        out.extend(long.map(|text| (name.to_owned(), Value::String(text))));
    }
    let about = about_headers(props, holds, true, &types);
    let about = about.into_iter().map(|(field, text)| (field, Value::String(text)));
    for (field, value) in fields(props, |field| amqp_lacks(props, field), writing).chain(about) {
        if writing.carry == Carry::None {
            dropped(field.label(), Outcome::CarryOff);
        } else {
            out.push((field.key().to_owned(), value));
        }
    }
    out
}

/// The fields that the target lacks and the message has, except those that are about its headers.
fn fields(
    props: &Properties,
    lacks: impl Fn(Field) -> bool,
    writing: &Writing<'_>,
) -> impl Iterator<Item = (Field, Value)> {
    let lacking = Field::ALL.iter().copied().filter(move |field| lacks(*field));
    lacking.filter_map(|field| Some((field, field_value(props, field, writing)?)))
}

/// The carry keys about headers: their order, their types, and those that the target cannot hold.
fn about_headers(
    props: &Properties,
    holds: impl Fn(&str) -> bool,
    groups: bool,
    types: &Types<'_>,
) -> Vec<(Field, String)> {
    let extra: Vec<_> = props
        .headers
        .iter()
        .filter(|(name, _)| !holds(name))
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let extra = (!extra.is_empty()).then(|| extra_to_json(&extra));
    let order = order(props, holds, groups);
    [(Field::Multi, order), (Field::Types, types.text()), (Field::Extra, extra)]
        .into_iter()
        .filter_map(|(field, text)| Some((field, text?)))
        .collect()
}

/// What the carry key of a field says, when the message has the field.
fn field_value(props: &Properties, field: Field, writing: &Writing<'_>) -> Option<Value> {
    let number = |number: u64| Value::I64(i64::try_from(number).unwrap_or(i64::MAX));
    let text = |text: &Option<String>| text.clone().map(Value::String);
    match field {
        Field::Id => props.id.as_ref().map(|id| Value::String(ident_to_text(id))),
        Field::Encoding => text(&props.content_encoding),
        Field::Text => props.text.map(Value::Bool),
        Field::Qos => (props.qos == 2).then(|| number(2)),
        Field::Priority => props.priority.map(|priority| number(u64::from(priority))),
        Field::Ttl => {
            let shown = writing.expiry_shown_ms?;
            props.ttl_ms.filter(|ttl| *ttl != shown).map(number)
        }
        Field::Timestamp => props.timestamp_ms.map(Value::I64),
        Field::Type => text(&props.kind),
        Field::User => text(&props.user_id),
        Field::App => text(&props.app_id),
        Field::CorrelationKind => {
            let kind = props.correlation.as_ref().and_then(ident_kind)?;
            Some(Value::String(kind.to_owned()))
        }
        Field::ReplyTo => props.reply_to.as_ref().map(|a| Value::String(a.to_text())),
        // The first three are about all headers together, the others stay among them.
        Field::Multi
        | Field::Types
        | Field::Extra
        | Field::Xmpp
        | Field::XmppType
        | Field::Lang => None,
    }
}

/// The types of the headers written so far.
#[derive(Default)]
struct Types<'a>(Vec<(&'a str, Option<&'static str>)>);

impl<'a> Types<'a> {
    fn add(&mut self, name: &'a str, code: Option<&'static str>) {
        self.0.push((name, code));
    }

    /// Strings are not listed, unless their name is also that of another type.
    fn text(&self) -> Option<String> {
        let typed: HashSet<_> =
            self.0.iter().filter(|(_, code)| code.is_some()).map(|(name, _)| *name).collect();
        let listed = self.0.iter().filter(|(name, _)| typed.contains(name));
        let listed = listed.map(|(name, code)| (*name, code.unwrap_or("str")));
        (!typed.is_empty()).then(|| encode_types(listed))
    }
}

/// The headers with such names, the values of a repeated name in a list at its first place.
fn grouped(headers: &Table, holds: impl Fn(&str) -> bool) -> Vec<(&str, Cow<'_, Value>)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(&str, Vec<&Value>)> = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| holds(name)) {
        let place = *places.entry(name).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, group)) => group.push(value),
            None => groups.push((name, vec![value])),
        }
    }
    groups.into_iter().map(|(name, values)| (name, list(values))).collect()
}

fn list(values: Vec<&Value>) -> Cow<'_, Value> {
    match values.as_slice() {
        [only] => Cow::Borrowed(only),
        _ => Cow::Owned(Value::List(values.into_iter().cloned().collect())),
    }
}

/// The sequence of names, where the headers of the target and its extra ones do not tell it.
fn order(props: &Properties, holds: impl Fn(&str) -> bool, groups: bool) -> Option<String> {
    let names = || props.headers.iter().map(|(name, _)| name.as_str());
    let told = names().rev().skip_while(|name| !holds(name)).count();
    let mut seen = HashSet::new();
    let is_needed = names().take(told).any(|name| !holds(name) || (!seen.insert(name) && groups));
    is_needed.then(|| encode_names(names().take(told)))
}

/// The value as AMQP 0-9-1 can write it, and the code of its type where that is another one.
fn express(value: &Value) -> (Value, Option<&'static str>) {
    let as_text = || {
        let (text, code) = value_to_text(value, |_| false);
        (Value::String(text), code)
    };
    match value {
        Value::U64(v) if i64::try_from(*v).is_err() => as_text(),
        Value::Decimal { unscaled, .. } if i32::try_from(*unscaled).is_err() => as_text(),
        Value::Timestamp(ms) if *ms < 0 || ms % 1000 != 0 => {
            (Value::I64(*ms), Some(code_of(value)))
        }
        Value::Uuid(_) | Value::Symbol(_) | Value::Char(_) => as_text(),
        Value::List(_) | Value::Map(_) => nested(value).map_or_else(as_text, |v| (v, None)),
        _ => (plain(value), None),
    }
}

/// A list or map with all it holds; `None` when something in it needs a type of its own.
fn nested(value: &Value) -> Option<Value> {
    match value {
        Value::List(items) => items.iter().map(nested).collect::<Option<_>>().map(Value::List),
        Value::Map(table) => {
            let entry = |(name, value): &(String, Value)| {
                let fits = name.len() <= SHORT_BYTES_MAX;
                Some((name.clone(), nested(value).filter(|_| fits)?))
            };
            table.iter().map(entry).collect::<Option<_>>().map(Value::Map)
        }
        _ => match express(value) {
            (value, None) => Some(value),
            (_, Some(_)) => None,
        },
    }
}

fn plain(value: &Value) -> Value {
    match value {
        Value::U64(v) => i64::try_from(*v).map_or(Value::U64(*v), Value::I64),
        other => other.clone(),
    }
}

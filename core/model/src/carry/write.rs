//! From canonical fields to the headers of a target.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use super::{
    SHORT_BYTES_MAX,
    ident::{ident_kind, ident_to_text},
    json::extra_to_json,
    keys::{
        CORRELATION_ALIAS, Carry, Dropped, Field, GROUP_ID, GROUP_ID_ALIAS, ID_ALIAS, Outcome,
        RETAIN,
    },
    read::is_text_encoding,
    text::{code_of, value_to_text},
    types::{encode_names, encode_types},
};
use crate::{
    address::TOPIC_EXCHANGE,
    properties::{Ident, Properties},
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
    pub lacks: fn(&Properties, Field, &Writing<'_>, &Self) -> bool,
    /// Longest name and longest text.
    pub bytes_max: usize,
    /// Characters that texts cannot hold.
    pub forbids: fn(char) -> bool,
    /// False for names that a header of the user cannot have.
    pub holds: fn(&str) -> bool,
    /// What several headers with the same name mean.
    pub repeats: Repeats,
    /// The header that holds the message group.
    pub group: &'static str,
}

/// What several headers with the same name mean to a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Each counts.
    AllCount,
    /// The first counts, the others are lines that nobody reads.
    FirstCounts,
    /// They cannot be.
    Never,
}

impl TextTarget {
    /// True when the target cannot say this text.
    pub fn cannot_say(&self, text: &str) -> bool {
        text.contains(self.forbids)
    }
}

/// User Properties of MQTT 5.
pub static MQTT5: TextTarget = TextTarget {
    lacks: mqtt5_lacks,
    bytes_max: 65_535,
    forbids: |c| c == '\0',
    holds: |name| !name.contains('\0'),
    repeats: Repeats::AllCount,
    group: GROUP_ID,
};

/// Headers of STOMP 1.0, which knows no escapes: a value ends with its line, a name at its colon.
pub static STOMP10: TextTarget = TextTarget {
    forbids: |c| matches!(c, '\0' | '\r' | '\n'),
    holds: |name| stomp_holds(name, &['\0', '\r', '\n', ':']),
    ..STOMP12
};

/// Headers of STOMP 1.1, which has no escape for the carriage return.
pub static STOMP11: TextTarget = TextTarget {
    forbids: |c| matches!(c, '\0' | '\r'),
    holds: |name| stomp_holds(name, &['\0', '\r']),
    ..STOMP12
};

/// Headers of STOMP 1.2: NUL would end the frame.
pub const STOMP12: TextTarget = TextTarget {
    lacks: stomp_lacks,
    bytes_max: usize::MAX,
    forbids: |c| c == '\0',
    holds: |name| stomp_holds(name, &['\0']),
    repeats: Repeats::FirstCounts,
    group: GROUP_ID_ALIAS,
};

/// Headers of MESSAGE and SEND that say something to the protocol or are fields of the message.
const STOMP_NAMES: [&str; 21] = [
    "ack",
    "amqp-message-id",
    "app-id",
    "content-encoding",
    "content-length",
    "content-type",
    "correlation-id",
    "destination",
    "expiration",
    "expires",
    "message-id",
    "persistent",
    "priority",
    "receipt",
    "redelivered",
    "reply-to",
    "subscription",
    "timestamp",
    "transaction",
    "type",
    "user-id",
];

fn stomp_holds(name: &str, forbidden: &[char]) -> bool {
    !name.is_empty() && !name.contains(forbidden) && STOMP_NAMES.binary_search(&name).is_err()
}

fn stomp_lacks(
    props: &Properties,
    field: Field,
    writing: &Writing<'_>,
    target: &TextTarget,
) -> bool {
    let is_forbidden =
        |text: &Option<String>| text.as_ref().is_some_and(|text| target.cannot_say(text));
    match field {
        Field::Priority => false,
        Field::Id => props.id.as_ref().is_some_and(|id| target.cannot_say(&ident_to_text(id))),
        Field::Encoding => is_forbidden(&props.content_encoding),
        Field::Type => is_forbidden(&props.kind),
        Field::User => is_forbidden(&props.user_id),
        Field::App => is_forbidden(&props.app_id),
        Field::CorrelationKind => match &props.correlation {
            // It is written as the escape of its bytes.
            Some(Ident::Text(text)) => target.cannot_say(text),
            _ => true,
        },
        Field::ReplyTo => props.reply_to.as_ref().is_some_and(|address| {
            address.to_stomp(writing.topic_exchange).is_none_or(|text| target.cannot_say(&text))
        }),
        Field::Text | Field::Timestamp => amqp_lacks(props, field),
        _ => true,
    }
}

fn mqtt5_lacks(
    props: &Properties,
    field: Field,
    writing: &Writing<'_>,
    _target: &TextTarget,
) -> bool {
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
    let fits = Fits::of(props, target.holds, target.repeats);
    for (name, value) in fits.values() {
        let (text, code) = value_to_text(&value, target.forbids);
        if name.len() > target.bytes_max || text.len() > target.bytes_max {
            dropped("header", Outcome::TooLong);
            continue;
        }
        types.add(name, code);
        out.push((name.to_owned(), text));
    }
    let mut text_of = |name, value: &Value| {
        let (text, code) = value_to_text(value, target.forbids);
        let is_string = matches!(value, Value::String(_));
        types.add(name, code.filter(|_| is_string));
        text
    };
    if let Some(group) = &props.group_id {
        out.push((target.group.to_owned(), text_of(target.group, &Value::String(group.clone()))));
    }
    let retain = (target.repeats == Repeats::FirstCounts && props.retain)
        .then(|| (RETAIN.to_owned(), "true".into()));
    out.extend(retain);
    let lacks = |field| (target.lacks)(props, field, writing, target);
    let mut carried: Vec<_> = fields(props, lacks, writing)
        .map(|(field, value)| (field, text_of(field.key(), &value)))
        .collect();
    carried.extend(fits.about(&types));
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
    let fits = Fits::of(props, holds, Repeats::Never);
    for (name, value) in fits.values() {
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
    let about = fits.about(&types).into_iter().map(|(field, text)| (field, Value::String(text)));
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

/// The headers of a message, and which of them a target can hold under their names.
struct Fits<'a> {
    headers: &'a Table,
    fits: Vec<bool>,
    /// Values of a repeated name are put in a list at its first place.
    groups: bool,
}

impl<'a> Fits<'a> {
    fn of(props: &'a Properties, holds: impl Fn(&str) -> bool, repeats: Repeats) -> Self {
        let mut seen = HashSet::new();
        let repeats_fit = repeats == Repeats::FirstCounts || !props.first_counts;
        let fits = |(name, _): &'a (String, Value)| {
            holds(name) && (seen.insert(name.as_str()) || repeats_fit)
        };
        let fits = props.headers.iter().map(fits).collect();
        let groups = repeats != Repeats::AllCount && !props.first_counts;
        Self { headers: &props.headers, fits, groups }
    }

    fn marked(&self) -> impl DoubleEndedIterator<Item = (&'a (String, Value), bool)> + '_ {
        self.headers.iter().zip(self.fits.iter().copied())
    }

    /// The headers to write.
    fn values(&self) -> Vec<(&'a str, Cow<'a, Value>)> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut groups: Vec<(&str, Vec<&Value>)> = Vec::new();
        for ((name, value), _) in self.marked().filter(|(_, fits)| *fits) {
            let next = groups.len();
            let place = if self.groups { *places.entry(name).or_insert(next) } else { next };
            match groups.get_mut(place) {
                Some((_, group)) => group.push(value),
                None => groups.push((name, vec![value])),
            }
        }
        groups.into_iter().map(|(name, values)| (name, list(values))).collect()
    }

    /// The carry keys about headers: their order, their types, and those that do not fit.
    fn about(&self, types: &Types<'_>) -> Vec<(Field, String)> {
        let extra = self.marked().filter(|(_, fits)| !fits);
        let extra: Vec<_> = extra.map(|((name, value), _)| (name.as_str(), value)).collect();
        let extra = (!extra.is_empty()).then(|| extra_to_json(&extra));
        [(Field::Multi, self.order()), (Field::Types, types.text()), (Field::Extra, extra)]
            .into_iter()
            .filter_map(|(field, text)| Some((field, text?)))
            .collect()
    }

    /// The sequence of names, where the headers of the target and its extra ones do not tell it.
    fn order(&self) -> Option<String> {
        let told = self.marked().rev().skip_while(|(_, fits)| !fits).count();
        let mut seen = HashSet::new();
        let mut marked = self.marked().take(told);
        let is_needed =
            marked.any(|((name, _), fits)| !fits || (!seen.insert(name) && self.groups));
        let names = self.headers.iter().take(told).map(|(name, _)| name.as_str());
        is_needed.then(|| encode_names(names))
    }
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

fn list(values: Vec<&Value>) -> Cow<'_, Value> {
    match values.as_slice() {
        [only] => Cow::Borrowed(only),
        _ => Cow::Owned(Value::List(values.into_iter().cloned().collect())),
    }
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

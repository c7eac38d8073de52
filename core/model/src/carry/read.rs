//! From the headers of a protocol to canonical fields.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use super::{
    event,
    ident::{ident_from_bytes, ident_from_text, ident_to_bytes, ident_to_text},
    json::extra_from_json,
    keys::{
        CORRELATION_ALIAS, Dropped, Field, GROUP_ID, GROUP_ID_ALIAS, ID_ALIAS, Outcome,
        REPLY_TOPIC_ALIAS, RETAIN, TYPE_ALIAS, is_reserved,
    },
    number::smaller_ttl,
    text::value_from_text,
    types::{decode_names, decode_types},
};
use crate::{
    address::{Address, TOPIC_EXCHANGE},
    properties::{Ident, Properties},
    value::{Table, Value, find},
};

/// True for the content encodings with which some AMQP libraries mean a text.
pub fn is_text_encoding(encoding: Option<&str>) -> bool {
    encoding.is_some_and(|e| e.eq_ignore_ascii_case("utf-8") || e.eq_ignore_ascii_case("us-ascii"))
}

/// Takes the headers table of an AMQP message apart: carried fields go to `props`, the rest to its
/// headers.
///
/// `props` already holds the native properties, which win over carried ones. Reserved names are
/// removed, and `dropped` hears of each.
pub fn from_table_headers(table: Table, props: &mut Properties, dropped: Dropped<'_>) {
    lift(table, props, dropped);
    if props.text.is_none() && is_text_encoding(props.content_encoding.as_deref()) {
        props.text = Some(true);
    }
}

/// Takes the headers of a protocol with texts apart: carried fields go to `props`, the rest, typed,
/// to its headers.
///
/// `props` already holds the native properties, which win over carried ones. Reserved names are
/// removed, and `dropped` hears of each.
pub fn from_text_headers(
    headers: Vec<(String, String)>,
    props: &mut Properties,
    dropped: Dropped<'_>,
) {
    let table = headers.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
    lift(table, props, dropped);
}

fn lift(mut table: Table, props: &mut Properties, dropped: Dropped<'_>) {
    let types = table.iter().find(|(name, _)| name == Field::Types.key());
    if let Some(types) = types.and_then(|(_, value)| value.as_str()).map(str::to_owned) {
        restore_types(&mut table, &types);
    }
    let mut headers = Table::with_capacity(table.len());
    let mut kind = None;
    let (mut names, mut extra, mut ttl) = (None, None, None);
    for (name, value) in table {
        if is_reserved(&name) {
            dropped("header", Outcome::Reserved);
            continue;
        }
        let text = value.as_str();
        let is_lifted = match Field::from_key(&name) {
            None => lift_header(&name, &value, props),
            Some(Field::Ttl) => set(&mut ttl, value.as_i64().and_then(|v| u64::try_from(v).ok())),
            Some(Field::CorrelationKind) => set(&mut kind, text.map(str::to_owned)),
            Some(Field::Types) => text.is_some(),
            Some(Field::Multi) => set(&mut names, text.and_then(decode_names)),
            Some(Field::Extra) => set(&mut extra, text.and_then(extra_from_json)),
            Some(field) => lift_field(field, &value, props),
        };
        if !is_lifted {
            headers.push((name, value));
        }
    }
    props.ttl_ms = smaller_ttl(props.ttl_ms, ttl);
    lift_aliases(&mut headers, props);
    if let Some(kind) = kind {
        props.correlation = props.correlation.take().map(|ident| match ident {
            Ident::Text(_) | Ident::Binary(_) => {
                ident_from_bytes(&ident_to_bytes(&ident), Some(&kind))
            }
            Ident::Uuid(_) | Ident::Ulong(_) => ident,
        });
    }
    let mut extra = extra.unwrap_or_default();
    extra.retain(|(name, _)| may_be_extra(name, dropped));
    // What repeats a name and is extra all the same is what nobody is to read.
    let is_repeat = |name: &String| headers.iter().any(|(known, _)| known == name);
    props.first_counts |= extra.iter().any(|(name, _)| is_repeat(name));
    props.headers = restore_order(headers, extra, names);
}

/// False for names that a client could only forge in this way.
fn may_be_extra(name: &str, dropped: Dropped<'_>) -> bool {
    if is_reserved(name) {
        dropped("header", Outcome::Reserved);
        return false;
    }
    let is_user = Field::from_key(name) == Some(Field::User);
    if is_user {
        dropped(Field::User.label(), Outcome::NotAllowed);
    }
    !is_user
}

/// Keeps the first value; true when there is one, so that the header has done its work.
fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let is_some = value.is_some();
    if slot.is_none() {
        *slot = value;
    }
    is_some
}

/// Lifts a carried field; false when the value cannot be one, so that it stays a header.
fn lift_field(field: Field, value: &Value, props: &mut Properties) -> bool {
    let text = || value.as_str().map(str::to_owned);
    match field {
        Field::Id => set(&mut props.id, text().map(|text| ident_from_text(&text, None))),
        Field::Encoding => set(&mut props.content_encoding, text()),
        Field::Text => set(&mut props.text, value.as_bool()),
        Field::Qos => {
            let exactly_once = value.as_i64() == Some(2);
            if exactly_once {
                props.qos = 2;
            }
            exactly_once
        }
        Field::Priority => {
            set(&mut props.priority, value.as_i64().and_then(|v| u8::try_from(v).ok()))
        }
        Field::Timestamp => {
            let carried = value.as_i64();
            // Both say the same moment, unless a client wrote a new native one.
            let seconds = |ms: i64| ms.div_euclid(1000);
            let agrees = props.timestamp_ms.map(seconds) == carried.map(seconds);
            if props.timestamp_ms.is_none() || agrees {
                props.timestamp_ms = carried.or(props.timestamp_ms);
            }
            carried.is_some()
        }
        Field::Type => set(&mut props.kind, text()),
        Field::User => set(&mut props.user_id, text()),
        Field::App => set(&mut props.app_id, text()),
        Field::ReplyTo => set(&mut props.reply_to, text().map(|text| Address::parse(&text))),
        Field::Ttl
        | Field::CorrelationKind
        | Field::Multi
        | Field::Types
        | Field::Extra
        | Field::Xmpp
        | Field::XmppType
        | Field::Lang => false,
    }
}

/// Lifts the fields that have a header of their own in every protocol.
fn lift_header(name: &str, value: &Value, props: &mut Properties) -> bool {
    match name {
        RETAIN => {
            let retain = value.as_bool();
            props.retain |= retain == Some(true);
            retain.is_some()
        }
        GROUP_ID | GROUP_ID_ALIAS => match (value.as_str(), &props.group_id) {
            (Some(group), None) => {
                props.group_id = Some(group.to_owned());
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// Lifts the names that other brokers use, where neither the native form nor a carry key says the
/// field.
fn lift_aliases(headers: &mut Table, props: &mut Properties) {
    headers.retain(|(name, value)| match name.as_str() {
        ID_ALIAS if props.id.is_none() => !set(&mut props.id, ident(value)),
        CORRELATION_ALIAS if props.correlation.is_none() => {
            !set(&mut props.correlation, ident(value))
        }
        TYPE_ALIAS if props.kind.is_none() => {
            !set(&mut props.kind, value.as_str().map(str::to_owned))
        }
        REPLY_TOPIC_ALIAS if props.reply_to.is_none() => {
            let address = value.as_str().map(|key| Address::Exchange {
                exchange: TOPIC_EXCHANGE.to_owned(),
                key: Some(key.to_owned()),
            });
            !set(&mut props.reply_to, address)
        }
        _ => true,
    });
}

/// The header `name` as a publisher wrote it, when reading has made it a field or given it another
/// name; for rules about headers that people write without knowing of fields.
pub fn header_as_sent<'a>(props: &'a Properties, name: &str) -> Option<Cow<'a, Value>> {
    let text = |text: &str| Cow::Owned(Value::String(text.to_owned()));
    match name {
        RETAIN if props.retain => Some(Cow::Owned(Value::Bool(true))),
        GROUP_ID | GROUP_ID_ALIAS => props.group_id.as_deref().map(text),
        ID_ALIAS => props.id.as_ref().map(|id| text(&ident_to_text(id))),
        CORRELATION_ALIAS => props.correlation.as_ref().map(|id| text(&ident_to_text(id))),
        TYPE_ALIAS => props.kind.as_deref().map(text),
        REPLY_TOPIC_ALIAS => match &props.reply_to {
            Some(Address::Exchange { exchange, key }) if exchange == TOPIC_EXCHANGE => {
                Some(text(key.as_deref().unwrap_or_default()))
            }
            _ => None,
        },
        _ => {
            let renamed = event::renamed(name)?;
            find(&props.headers, &renamed).map(Cow::Borrowed)
        }
    }
}

fn ident(value: &Value) -> Option<Ident> {
    match value {
        Value::Bytes(bytes) | Value::LongString(bytes) => Some(ident_from_bytes(bytes, None)),
        _ => value.as_str().map(|text| ident_from_text(text, None)),
    }
}

/// Gives headers back the types they had; what does not fit its type stays as it is.
fn restore_types(headers: &mut Table, types: &str) {
    let mut codes: HashMap<String, VecDeque<&str>> = HashMap::new();
    for (name, code) in decode_types(types) {
        codes.entry(name).or_default().push_back(code);
    }
    // What a protocol has compared with its user is what it says, whatever its type is said to be.
    for (name, value) in headers.iter_mut().filter(|(name, _)| name != Field::User.key()) {
        let Some(code) = codes.get_mut(name.as_str()).and_then(VecDeque::pop_front) else {
            continue;
        };
        let typed = match value {
            Value::String(text) => value_from_text(text, code),
            // The milliseconds of a timestamp that AMQP can only write as a number.
            Value::I64(ms) if code == "ts" => Some(Value::Timestamp(*ms)),
            _ => None,
        };
        if let Some(typed) = typed {
            *value = typed;
        }
    }
}

/// Puts headers in the order of `names`: values of a repeated name come out of their list, extra
/// headers to their places. What the names do not tell follows in the order it came.
fn restore_order(headers: Table, extra: Table, names: Option<Vec<String>>) -> Table {
    let Some(names) = names else {
        return headers.into_iter().chain(extra).collect();
    };
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in &names {
        *counts.entry(name).or_default() += 1;
    }
    let mut flat: Vec<Option<(String, Value)>> = Vec::with_capacity(names.len());
    for (name, value) in headers {
        match value {
            Value::List(items)
                if items.len() > 1 && counts.get(name.as_str()) == Some(&items.len()) =>
            {
                flat.extend(items.into_iter().map(|item| Some((name.clone(), item))));
            }
            value => flat.push(Some((name, value))),
        }
    }
    flat.extend(extra.into_iter().map(Some));
    let mut places: HashMap<String, VecDeque<usize>> = HashMap::new();
    for (place, (name, _)) in flat.iter().flatten().enumerate() {
        places.entry(name.clone()).or_default().push_back(place);
    }
    let mut out = Table::with_capacity(flat.len());
    for name in &names {
        let place = places.get_mut(name.as_str()).and_then(VecDeque::pop_front);
        out.extend(place.and_then(|place| flat.get_mut(place)).and_then(Option::take));
    }
    out.extend(flat.into_iter().flatten());
    out
}

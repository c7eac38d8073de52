//! What the broker needs to know of a publish's properties, and what must be taken out of them.

use polymq_model::{
    DURABILITY, Durability, Value,
    carry::{Field, Outcome, RETAIN, is_reserved},
    delay::{Delay, DelayHeaders},
    format::PLAIN_FORMAT,
};

use super::Context;
use crate::{
    AMQP091,
    codec::{
        id,
        props::Props,
        reader::Reader,
        table::{self, DECODE_BOUNDS, RawEntry},
    },
    connection::Connection,
    refusal::{Exception, ReplyCode, Step},
};

/// The queue name that asks for answers without a queue.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

const DURABLE_MODE: u8 = 2;

/// What is read out of the properties before a message is made.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) durable: bool,
    pub(super) priority: Option<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) deadline_ms: u64,
    /// The weaker class that is asked for.
    pub(super) durability: Option<Durability>,
    pub(super) extra_keys: Vec<Box<str>>,
    pub(super) delay: Option<Delay>,
    /// The properties to keep are in the connection's buffer instead.
    pub(super) rewritten: bool,
}

/// What the headers table says.
#[derive(Default)]
struct Headers {
    qos: Option<u8>,
    retain: bool,
    durability: Option<Durability>,
    extra_keys: Vec<Box<str>>,
    delay: Option<Delay>,
    /// Entries that do not travel on.
    removed: usize,
    /// Those of them that only the broker may write.
    reserved: usize,
    /// Those that name another user than the sender.
    not_allowed: usize,
}

/// Reads what matters out of `bytes`.
///
/// Errors: 502 when they are no property list, 406 when a property says what it must not.
pub(super) fn inspect(
    bytes: &[u8],
    reply_name: Option<&str>,
    context: &mut Context<'_>,
) -> Step<Facts> {
    let mut props = Props::parse(bytes).map_err(|_| {
        Exception::new(ReplyCode::SyntaxError, id::PUBLISH, "malformed content properties")
    })?;
    let durable = props.delivery_mode == Some(DURABLE_MODE);
    let mut facts =
        Facts { durable, priority: props.priority, qos: u8::from(durable), ..Facts::default() };
    if let Some(expiration) = props.expiration {
        facts.deadline_ms = deadline(expiration, context.now.unix_ms)?;
    }
    if let Some(user) = props.user_id {
        check_user(user, context)?;
    }
    let mut kept = Vec::new();
    if let Some(headers) = props.headers {
        let found = read_headers(headers, context)?;
        facts.qos = found.qos.unwrap_or(facts.qos);
        facts.retain = found.retain;
        facts.durability = found.durability;
        facts.extra_keys = found.extra_keys;
        facts.delay = found.delay;
        if found.removed > 0 {
            let conversions = &context.connection.shared.counters.conversions;
            let entering = conversions.pair(&AMQP091, &PLAIN_FORMAT);
            entering.dropped("header", Outcome::Reserved, found.reserved);
            entering.dropped("user_id", Outcome::NotAllowed, found.not_allowed);
            kept = without_removed(headers, found.delay.is_some(), context.connection);
            props.headers = Some(&kept);
            facts.rewritten = true;
        }
    }
    if props.reply_to == Some(DIRECT_REPLY_TO.as_bytes()) {
        let Some(name) = reply_name else {
            let text = "fast reply consumer does not exist";
            return Err(Exception::invalid(id::PUBLISH, text));
        };
        props.reply_to = Some(name.as_bytes());
        facts.rewritten = true;
    }
    if facts.rewritten {
        context.connection.props.clear();
        props.put(&mut context.connection.props);
    }
    drop(kept);
    Ok(facts)
}

fn deadline(expiration: &[u8], unix_ms: u64) -> Step<u64> {
    let text = std::str::from_utf8(expiration).unwrap_or("");
    match text.parse::<u64>() {
        Ok(ms) if !text.starts_with('+') => Ok(unix_ms.saturating_add(ms).max(1)),
        _ => {
            let shown = String::from_utf8_lossy(expiration);
            Err(Exception::invalid(id::PUBLISH, format!("invalid expiration '{shown}'")))
        }
    }
}

fn check_user(user: &[u8], context: &Context<'_>) -> Step {
    if context.connection.may_be(user) {
        return Ok(());
    }
    let own = &context.connection.user;
    let shown = String::from_utf8_lossy(user);
    let text = format!("user_id property set to '{shown}' but authenticated user was '{own}'");
    Err(Exception::invalid(id::PUBLISH, text))
}

/// Headers that the broker itself reads or removes; all others are passed over unread.
enum Known {
    Retain,
    Durability,
    Qos,
    Cc,
    Bcc,
    Delay,
    /// A carried user, who must be the sender like that of the property.
    User,
    Reserved,
}

fn known(name: &[u8]) -> Option<Known> {
    match name {
        b"CC" => Some(Known::Cc),
        b"BCC" => Some(Known::Bcc),
        name if DelayHeaders::is_one(name) => Some(Known::Delay),
        [b'x', b'-', ..] => match std::str::from_utf8(name).ok()? {
            name if name == RETAIN => Some(Known::Retain),
            name if name == DURABILITY => Some(Known::Durability),
            name if name == Field::Qos.key() => Some(Known::Qos),
            name if name == Field::User.key() => Some(Known::User),
            name if is_reserved(name) => Some(Known::Reserved),
            _ => None,
        },
        _ => None,
    }
}

fn read_headers(headers: &[u8], context: &Context<'_>) -> Step<Headers> {
    table::check(headers, context.connection.table_bounds())
        .map_err(|error| Exception::table(error, id::PUBLISH))?;
    let mut reader = Reader::new(headers);
    let mut found = Headers::default();
    let mut delays = DelayHeaders::default();
    let mut delaying = 0;
    while !reader.is_empty() {
        let entry = table::next_entry(&mut reader)
            .map_err(|error| Exception::malformed(error, id::PUBLISH))?;
        match known(entry.name) {
            None => {}
            Some(Known::Retain) => {
                found.retain = value(entry).and_then(|value| value.as_bool()) == Some(true);
            }
            Some(Known::Durability) => found.durability = Some(durability(entry)?),
            Some(Known::Qos) => {
                let qos = value(entry).and_then(|value| value.as_i64());
                found.qos = qos.and_then(|qos| u8::try_from(qos).ok()).filter(|qos| *qos <= 2);
            }
            Some(Known::Cc) => found.extra_keys.extend(keys(entry, "CC")?),
            Some(Known::Bcc) => {
                found.extra_keys.extend(keys(entry, "BCC")?);
                found.removed += 1;
            }
            Some(Known::Delay) => {
                let name = std::str::from_utf8(entry.name).unwrap_or_default();
                delays.add(name, &value(entry).unwrap_or(Value::Null));
                delaying += 1;
            }
            Some(Known::User) => {
                let is_own = context.connection.may_be(entry.value);
                found.not_allowed += usize::from(!is_own);
            }
            Some(Known::Reserved) => found.reserved += 1,
        }
    }
    found.delay = delays.delay().map_err(|bad| Exception::invalid(id::PUBLISH, bad.to_string()))?;
    found.removed += found.reserved + found.not_allowed;
    if found.delay.is_some() {
        found.removed += delaying;
    }
    Ok(found)
}

fn value(entry: RawEntry<'_>) -> Option<Value> {
    let table = table::decode(entry.whole, DECODE_BOUNDS).ok()?;
    table.into_iter().next().map(|(_, value)| value)
}

fn durability(entry: RawEntry<'_>) -> Step<Durability> {
    let value = value(entry);
    let Some(text) = value.as_ref().and_then(Value::as_str) else {
        return Err(Exception::invalid(id::PUBLISH, format!("header {DURABILITY} is not text")));
    };
    Durability::parse(text).map_err(|bad| Exception::invalid(id::PUBLISH, bad.to_string()))
}

/// CC and BCC are lists of text.
fn keys(entry: RawEntry<'_>, name: &str) -> Step<Vec<Box<str>>> {
    let refuse = || Exception::invalid(id::PUBLISH, format!("header {name} is not a list of text"));
    let Some(Value::List(list)) = value(entry) else { return Err(refuse()) };
    let key = |value: &Value| match value {
        Value::String(text) if !text.contains('\0') => Ok(text.as_str().into()),
        _ => Err(refuse()),
    };
    list.iter().map(key).collect()
}

/// The entries that travel on: neither reserved names nor BCC nor another user nor, of a message
/// that is delayed, what delays it.
fn without_removed(headers: &[u8], is_delayed: bool, connection: &Connection) -> Vec<u8> {
    let mut reader = Reader::new(headers);
    let mut kept = Vec::with_capacity(headers.len());
    while let Ok(entry) = table::next_entry(&mut reader) {
        let is_removed = match known(entry.name) {
            Some(Known::Bcc | Known::Reserved) => true,
            Some(Known::Delay) => is_delayed,
            Some(Known::User) => !connection.may_be(entry.value),
            _ => false,
        };
        if !is_removed {
            kept.extend_from_slice(entry.whole);
        }
    }
    kept
}

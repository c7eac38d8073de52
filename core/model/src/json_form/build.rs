//! From properties as JSON to a message.

use super::{BadField, BadKind, HTTP, JsonProperties};
use crate::{
    carry::{DEPTH_MAX, Field, is_reserved, json::is_within_depth, rfc3339_to_ms},
    delay::{BadDelay, Delay, DelayHeaders},
    durability::{DURABILITY, Durability},
    limits::Limits,
    message::{Body, Message, NewMessage},
    topic::valid_key,
    value::{Table, Value, find},
};

/// Who sends a message.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// The user.
    pub user: &'a str,
    /// It may send in the name of others.
    pub impersonator: bool,
}

impl Sender<'_> {
    fn may_be(&self, user: &str) -> bool {
        self.impersonator || self.user == user
    }
}

/// A message that a client of HTTP sends.
#[derive(Debug)]
pub struct NewJsonMessage<'a> {
    /// The exchange.
    pub exchange: &'a str,
    /// The routing key in dot form.
    pub key: &'a str,
    /// What is said about it.
    pub properties: JsonProperties,
    /// The body.
    pub body: Body<'a>,
    /// Who sends it.
    pub sender: Sender<'a>,
}

/// What the properties say to the broker.
#[derive(Default)]
struct Scan {
    deadline_ms: u64,
    delay: Option<Delay>,
    durability: Option<Durability>,
    qos: u8,
    retain: bool,
    extra_keys: Vec<Box<str>>,
}

impl NewJsonMessage<'_> {
    /// Makes the message, and says when it is to be routed. `scratch` is a buffer of the caller
    /// that is reused from call to call.
    ///
    /// Names that only the broker writes are removed.
    ///
    /// Errors: a field that cannot be what it is, or is not the sender's to say.
    pub fn build(
        self,
        unix_ms: u64,
        limits: &Limits,
        scratch: &mut Vec<u8>,
    ) -> Result<(Message, Option<Delay>), BadField> {
        let Self { exchange, key, mut properties, body, sender } = self;
        valid_key(key, limits).map_err(|bad| BadField::new("/routing_key", bad.to_string()))?;
        check_size(&body, limits)?;
        let scan = scan(&mut properties, sender, unix_ms, limits)?;
        let durable = properties.delivery_mode.take() != Some(1);
        let priority = properties.priority.take();
        let props = match properties == JsonProperties::default() {
            true => Vec::new(),
            // Writing to memory cannot fail, and every key is a string.
            false => serde_json::to_vec(&properties).unwrap_or_default(),
        };
        if props.len() > limits.header_bytes_max {
            let max = limits.header_bytes_max;
            let text = format!("the properties take {} bytes, {max} are allowed", props.len());
            return Err(BadField { kind: BadKind::TooLarge, ..BadField::new("/properties", text) });
        }
        let message = NewMessage {
            format: &HTTP,
            exchange,
            key,
            props: &props,
            body,
            durable,
            priority,
            qos: if scan.qos == 2 { 2 } else { u8::from(durable) },
            retain: scan.retain,
            deadline_ms: scan.deadline_ms,
            arrived_ms: unix_ms,
            extra_keys: scan.extra_keys,
        };
        Ok((message.build(scratch).lowered(scan.durability), scan.delay))
    }
}

fn check_size(body: &Body<'_>, limits: &Limits) -> Result<(), BadField> {
    let (bytes, max) = (
        match body {
            Body::Slice(bytes) => bytes.len(),
            Body::Shared(bytes) => bytes.len(),
        },
        limits.message_bytes_max,
    );
    if bytes <= max {
        return Ok(());
    }
    let text = format!("the payload has {bytes} bytes, {max} are allowed");
    Err(BadField { kind: BadKind::TooLarge, ..BadField::new("/payload", text) })
}

/// Reads what concerns the broker, and leaves what travels on.
fn scan(
    properties: &mut JsonProperties,
    sender: Sender<'_>,
    unix_ms: u64,
    limits: &Limits,
) -> Result<Scan, BadField> {
    let at = |field: &str, text: String| Err(BadField::new(format!("/properties/{field}"), text));
    if let Some(mode) = properties.delivery_mode.filter(|mode| !(1..=2).contains(mode)) {
        return at("delivery_mode", format!("{mode} is neither 1 (transient) nor 2 (persistent)"));
    }
    if let Some(user) = properties.user_id.as_deref().filter(|user| !sender.may_be(user)) {
        return at("user_id", format!("it is `{user}`, but the user is `{}`", sender.user));
    }
    if let Some(kind) = &properties.correlation_kind
        && !["text", "uuid", "ulong", "binary"].contains(&kind.as_str())
    {
        return at("correlation_kind", format!("`{kind}` is none of text, uuid, ulong, binary"));
    }
    let mut scan = Scan {
        deadline_ms: deadline(properties, unix_ms)?,
        qos: properties.qos.take().unwrap_or(0),
        retain: properties.retain.take() == Some(true),
        ..Scan::default()
    };
    let types = properties.header_types.take().unwrap_or_default();
    let is_list = properties.header_list.is_some();
    if is_list && properties.headers.is_some() {
        return at("header_list", "there are `headers` as well; give one of the two".to_owned());
    }
    let field = if is_list { "header_list" } else { "headers" };
    let headers = properties.header_list.as_mut().or(properties.headers.as_mut());
    let mut delays = DelayHeaders::default();
    match headers {
        None if types.is_empty() => {}
        None => return at("header_types", "there are no headers".to_owned()),
        Some(headers) => {
            headers.set_types(&types, is_list).map_err(|pointer| {
                let text = format!("`{pointer}` leads to no value that fits its type");
                BadField::new("/properties/header_types", text)
            })?;
            scan_headers(&mut headers.table, sender, limits, &mut delays)
                .map_err(|text| BadField::new(format!("/properties/{field}"), text))?;
            scan.extra_keys = take_keys(&mut headers.table, limits)
                .map_err(|text| BadField::new(format!("/properties/{field}"), text))?;
            scan.durability = durability(&headers.table)
                .map_err(|text| BadField::new(format!("/properties/{field}"), text))?;
            scan.retain |=
                find(&headers.table, crate::carry::RETAIN).and_then(Value::as_bool) == Some(true);
            let carried = find(&headers.table, Field::Qos.key()).and_then(Value::as_i64);
            scan.qos = if carried == Some(2) { 2 } else { scan.qos };
        }
    }
    let said = delays.delay().map_err(|bad| {
        let kind = match bad {
            BadDelay::NotANumber(_) => BadKind::Wrong,
            BadDelay::NotAvailable(_) => BadKind::NotAvailable,
        };
        BadField { kind, ..BadField::new(format!("/properties/{field}"), bad.to_string()) }
    })?;
    let ms = properties.delay.take().and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
    scan.delay = ms.map(Delay::For).or(said);
    if scan.delay.is_some()
        && let Some(headers) = properties.header_list.as_mut().or(properties.headers.as_mut())
    {
        headers.table.retain(|(name, _)| !DelayHeaders::is_one(name.as_bytes()));
    }
    Ok(scan)
}

/// When the message expires, 0 for never. Where several fields say so the earliest counts, except
/// that `ttl` alone says nothing: it is what `expiration` once was.
fn deadline(properties: &JsonProperties, unix_ms: u64) -> Result<u64, BadField> {
    let expiration = properties.expiration.map(|ms| ms.0);
    let by_ttl = crate::carry::smaller_ttl(expiration, properties.ttl)
        .map(|ttl| unix_ms.saturating_add(ttl).max(1));
    let by_time = match &properties.expires_at {
        None => None,
        Some(text) => match rfc3339_to_ms(text).and_then(|ms| u64::try_from(ms).ok()) {
            Some(ms) => Some(ms.max(1)),
            None => {
                let text = format!("`{text}` is no time of RFC 3339");
                return Err(BadField::new("/properties/expires_at", text));
            }
        },
    };
    Ok([by_ttl, by_time].into_iter().flatten().min().unwrap_or(0))
}

/// Errors: what is wrong with the headers.
fn scan_headers(
    table: &mut Table,
    sender: Sender<'_>,
    limits: &Limits,
    delays: &mut DelayHeaders,
) -> Result<(), String> {
    let max = limits.table_entries_max;
    if table.len() > max {
        return Err(format!("there are {} headers, {max} are allowed", table.len()));
    }
    table.retain(|(name, value)| {
        let is_foreign = || value.as_str().is_some_and(|user| !sender.may_be(user));
        let is_untrue = name == Field::User.key() && is_foreign();
        !is_reserved(name) && !is_untrue
    });
    for (name, value) in table.iter() {
        if !is_within_depth(value, DEPTH_MAX) {
            return Err(format!("`{name}` is nested more than {DEPTH_MAX} deep"));
        }
        delays.add(name, value);
    }
    Ok(())
}

/// The keys that CC and BCC add; nobody is shown the latter.
///
/// Errors: one of them is no list of keys.
fn take_keys(table: &mut Table, limits: &Limits) -> Result<Vec<Box<str>>, String> {
    let mut keys = Vec::new();
    for (name, value) in table.iter().filter(|(name, _)| name == "CC" || name == "BCC") {
        let wrong = || format!("`{name}` is not a list of text");
        let Value::List(list) = value else { return Err(wrong()) };
        for key in list {
            let key = key.as_str().ok_or_else(wrong)?;
            valid_key(key, limits).map_err(|bad| format!("`{name}`: {bad}"))?;
            keys.push(key.into());
        }
    }
    table.retain(|(name, _)| name != "BCC");
    Ok(keys)
}

fn durability(table: &Table) -> Result<Option<Durability>, String> {
    let Some(value) = find(table, DURABILITY) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| format!("`{DURABILITY}` is no text"))?;
    Durability::parse(text).map(Some).map_err(|bad| bad.to_string())
}

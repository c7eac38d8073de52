//! What the properties of a PUBLISH say to the broker, read in one pass.

use polymq_contract::Conversions;
use polymq_model::{
    BadDurability, DURABILITY, Durability,
    carry::{Field, Outcome, is_reserved, smaller_ttl},
    delay::DelayHeaders,
    format::PLAIN_FORMAT,
};

use crate::{
    codec::{
        Fault, Place, PropertyReader, Reader, Value,
        property::{id, read_stored},
    },
    convert::MQTT5,
};

/// What one pass over the properties found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) alias: Option<u16>,
    expiry_secs: Option<u32>,
    /// The expiry that was carried, in ms.
    ttl_ms: Option<u64>,
    /// The payload is said to be UTF-8.
    pub(crate) is_text: bool,
    pub(crate) priority: Option<u8>,
    pub(crate) will_delay_secs: u32,
    /// The weaker class that is asked for.
    durability: Option<Result<Durability, BadDurability>>,
    pub(crate) delays: DelayHeaders,
    /// Properties that are not passed on.
    must_strip: bool,
}

/// Who sends.
pub(crate) struct Sender<'a> {
    pub(crate) user: &'a str,
    pub(crate) impersonator: bool,
}

impl Scan {
    /// Checks and reads the properties of a PUBLISH or a will.
    pub(crate) fn read(bytes: &[u8], place: Place, entries_max: usize) -> Result<Self, Fault> {
        let mut found = Self::default();
        let mut reader = PropertyReader::new(bytes, place, entries_max);
        while let Some(property) = reader.next_property()? {
            match (property.id, property.value) {
                (id::TOPIC_ALIAS, Value::Two(alias)) => {
                    found.alias = Some(alias);
                    found.must_strip = true;
                }
                (id::MESSAGE_EXPIRY, Value::Four(secs)) => found.expiry_secs = Some(secs),
                (id::WILL_DELAY, Value::Four(secs)) => {
                    found.will_delay_secs = secs;
                    found.must_strip = true;
                }
                (id::PAYLOAD_FORMAT, Value::Byte(byte)) => found.is_text = byte == 1,
                (_, Value::Pair(name, value)) if DelayHeaders::is_one(name.as_bytes()) => {
                    found.delays.add(name, &polymq_model::Value::String(value.to_owned()));
                }
                (_, Value::Pair(name, value)) if name.starts_with("x-") => {
                    found.read_header(name, value);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn read_header(&mut self, name: &str, value: &str) {
        if is_reserved(name) {
            self.must_strip = true;
        }
        if name == DURABILITY {
            self.durability.get_or_insert_with(|| Durability::parse(value));
        }
        match Field::from_key(name) {
            Some(Field::Priority) => self.priority = value.parse().ok().or(self.priority),
            Some(Field::Ttl) => self.ttl_ms = value.parse().ok().or(self.ttl_ms),
            // Whether the name is the sender's own is decided when the properties are copied.
            Some(Field::User) => self.must_strip = true,
            _ => {}
        }
    }

    /// The weaker class that is asked for.
    ///
    /// Errors: when what is asked for is no class.
    pub(crate) fn durability(&self) -> Result<Option<Durability>, BadDurability> {
        self.durability.clone().transpose()
    }

    /// When the message expires, 0 for never; an expiry that was carried only shortens it.
    pub(crate) fn deadline_ms(&self, now_ms: u64) -> u64 {
        let native = self.expiry_secs.map(|secs| u64::from(secs) * 1000);
        let Some(ttl) = smaller_ttl(native, self.ttl_ms) else { return 0 };
        // An expiry of zero still reaches a subscriber that is waiting at this very moment.
        now_ms.saturating_add(ttl.max(1))
    }

    /// The properties that stay with the message.
    pub(crate) fn kept<'a>(
        &self,
        bytes: &'a [u8],
        sender: &Sender<'_>,
        buffer: &'a mut Vec<u8>,
        conversions: &Conversions,
    ) -> &'a [u8] {
        let is_delayed = matches!(self.delays.delay(), Ok(Some(_)));
        if !self.must_strip && !is_delayed {
            return bytes;
        }
        buffer.clear();
        let entering = conversions.pair(&MQTT5, &PLAIN_FORMAT);
        let mut reader = Reader::new(bytes);
        loop {
            let before = reader.rest();
            let Ok(property) = read_stored(&mut reader) else { return buffer };
            let keep = match property.value {
                Value::Pair(name, _) if is_reserved(name) => {
                    entering.dropped("header", Outcome::Reserved, 1);
                    false
                }
                Value::Pair(name, _) if is_delayed && DelayHeaders::is_one(name.as_bytes()) => {
                    false
                }
                Value::Pair(name, value) if Field::from_key(name) == Some(Field::User) => {
                    let is_own = value == sender.user || sender.impersonator;
                    if !is_own {
                        entering.dropped("user_id", Outcome::NotAllowed, 1);
                    }
                    is_own
                }
                _ => property.id != id::TOPIC_ALIAS && property.id != id::WILL_DELAY,
            };
            if keep {
                let taken = before.len() - reader.rest().len();
                buffer.extend_from_slice(before.get(..taken).unwrap_or_default());
            }
        }
    }
}

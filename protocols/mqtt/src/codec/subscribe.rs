//! SUBSCRIBE and UNSUBSCRIBE: sections 3.8 and 3.10.

use super::{
    Fault, Reader, Version,
    property::{Place, PropertyReader, Value, id},
};

/// One filter of a SUBSCRIBE packet, with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The topic filter.
    pub filter: &'a str,
    /// Highest quality of service.
    pub qos: u8,
    /// Do not send the client's own messages.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// 0 to 2.
    pub retain_handling: u8,
}

/// A SUBSCRIBE packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The flow.
    pub packet_id: u16,
    /// Subscription identifier for all filters.
    pub id: Option<u32>,
    /// User properties, in order.
    pub user: Vec<(&'a str, &'a str)>,
    /// The filters, at least one.
    pub filters: Vec<Filter<'a>>,
}

impl<'a> Subscribe<'a> {
    /// Reads what follows the fixed header.
    ///
    /// Errors: a fault when the bytes are malformed or there is no filter [MQTT-3.8.3-2].
    pub fn decode(body: &'a [u8], version: Version, entries_max: usize) -> Result<Self, Fault> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (mut subscription_id, mut user) = (None, Vec::new());
        if version == Version::V5 {
            let mut properties =
                PropertyReader::new(reader.properties()?, Place::Subscribe, entries_max);
            while let Some(property) = properties.next_property()? {
                match property.value {
                    Value::Var(number) if property.id == id::SUBSCRIPTION_ID => {
                        subscription_id = Some(number);
                    }
                    Value::Pair(name, value) => user.push((name, value)),
                    _ => {}
                }
            }
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = reader.text()?;
            filters.push(options(filter, reader.u8()?, version)?);
        }
        if filters.is_empty() {
            return Err(Fault::protocol("SUBSCRIBE has no topic filter"));
        }
        Ok(Self { packet_id, id: subscription_id, user, filters })
    }
}

/// Reads subscription options: section 3.8.3.1.
fn options(filter: &str, byte: u8, version: Version) -> Result<Filter<'_>, Fault> {
    let qos = byte & 3;
    if qos == 3 {
        return Err(Fault::protocol("a subscription asks for quality of service 3"));
    }
    let reserved = match version {
        Version::V5 => 0xC0,
        Version::V311 => 0xFC,
        // MQTT 3.1 calls these bits unused.
        Version::V31 => 0,
    };
    if byte & reserved != 0 {
        return Err(Fault::malformed("reserved bits of subscription options are set"));
    }
    if version != Version::V5 {
        let retain_as_published = false;
        return Ok(Filter {
            filter,
            qos,
            no_local: false,
            retain_as_published,
            retain_handling: 0,
        });
    }
    let retain_handling = (byte >> 4) & 3;
    if retain_handling == 3 {
        return Err(Fault::protocol("retain handling is 3"));
    }
    Ok(Filter {
        filter,
        qos,
        no_local: byte & 4 != 0,
        retain_as_published: byte & 8 != 0,
        retain_handling,
    })
}

/// An UNSUBSCRIBE packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The flow.
    pub packet_id: u16,
    /// The filters, at least one.
    pub filters: Vec<&'a str>,
}

impl<'a> Unsubscribe<'a> {
    /// Reads what follows the fixed header.
    ///
    /// Errors: a fault when the bytes are malformed or there is no filter [MQTT-3.10.3-2].
    pub fn decode(body: &'a [u8], version: Version, entries_max: usize) -> Result<Self, Fault> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if version == Version::V5 {
            PropertyReader::new(reader.properties()?, Place::Unsubscribe, entries_max)
                .check_all()?;
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(reader.text()?);
        }
        if filters.is_empty() {
            return Err(Fault::protocol("UNSUBSCRIBE has no topic filter"));
        }
        Ok(Self { packet_id, filters })
    }
}

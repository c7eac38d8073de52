//! The will of a client: section 3.1.3.

use polymq_contract::Will;
use polymq_model::{
    Now,
    delay::DelayHeaders,
    message::{Body, NewMessage},
};

use crate::{
    codec::{Fault, Place, Reason, connect},
    convert::{MQTT3, MQTT5},
    publish_properties::{Scan, Sender},
    route::{Route, Unroutable},
    session::Session,
};

/// A will whose sender is not known yet.
#[derive(Debug)]
pub(crate) struct PendingWill {
    route: Route,
    payload: Vec<u8>,
    properties: Vec<u8>,
    scan: Scan,
    qos: u8,
    retain: bool,
}

impl Session {
    /// Checks a will; `None` for one that MQTT 3 cannot be told about and that leads nowhere.
    pub(crate) fn take_will(&self, will: &connect::Will<'_>) -> Result<Option<PendingWill>, Fault> {
        let scan = Scan::read(will.properties, Place::Will, self.entries_max())?;
        if scan.is_text && std::str::from_utf8(will.payload).is_err() {
            let text = "the will's payload is not UTF-8, as its format indicator says";
            return Err(Fault::new(Reason::PAYLOAD_FORMAT_INVALID, text));
        }
        let invalid = |text: String| Fault::new(Reason::IMPLEMENTATION_SPECIFIC, text);
        scan.durability().map_err(|bad| invalid(bad.to_string()))?;
        let route = match Route::of_topic(will.topic, &self.shared.exchange, &self.limits) {
            Ok(route) => route,
            Err(Unroutable::Fault(fault)) => return Err(fault),
            Err(Unroutable::NotOurs(_)) if !self.client.is_v5() => {
                self.shared.counters.publishes_dropped.add(1);
                return Ok(None);
            }
            Err(Unroutable::NotOurs(text)) => {
                return Err(Fault::new(Reason::TOPIC_NAME_INVALID, text));
            }
            Err(Unroutable::Refused { reason, text, .. }) => return Err(Fault::new(reason, text)),
        };
        if route.delay_secs > 0 || scan.delays != DelayHeaders::default() {
            let text = "a will is delayed by its will delay interval, and by nothing else";
            return Err(invalid(text.to_owned()));
        }
        Ok(Some(PendingWill {
            route,
            payload: will.payload.to_vec(),
            properties: will.properties.to_vec(),
            scan,
            qos: will.qos,
            retain: will.retain,
        }))
    }

    /// The message of a will. Its expiry begins when it is published, so the message has no
    /// deadline here; the interval is among its properties.
    pub(crate) fn make_will(&self, will: &PendingWill, now: Now) -> Will {
        let sender = Sender { user: &self.client.user, impersonator: self.client.impersonator };
        let mut buffer = Vec::new();
        let conversions = &self.shared.counters.conversions;
        let message = NewMessage {
            format: if self.client.is_v5() { &MQTT5 } else { &MQTT3 },
            exchange: &will.route.exchange,
            key: &will.route.key,
            props: will.scan.kept(&will.properties, &sender, &mut buffer, conversions),
            body: Body::Slice(&will.payload),
            durable: will.qos > 0,
            priority: will.scan.priority,
            qos: will.qos,
            retain: will.retain,
            deadline_ms: 0,
            arrived_ms: now.unix_ms,
            extra_keys: Vec::new(),
        }
        .build(&mut Vec::new())
        .lowered(will.scan.durability().unwrap_or_default());
        Will { message, delay_secs: will.scan.will_delay_secs }
    }
}

//! From messages to PUBLISH packets for this client.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use polymq_contract::{Broadcast, Conversions, Delivery, Effects, Matched, Outcome};
use polymq_model::{Message, Now, format, topic::dot_to_slash};

use crate::{
    codec::{
        Version,
        property::id,
        publish::PublishHead,
        writer::{Properties, put_var_int, var_int_len},
    },
    convert::{Shown, count_lost, put_properties},
    session::Session,
    settle::push_settlement,
    subscriptions::{Source, Subscriptions},
};

/// Where [`Broadcast`] keeps what MQTT 3 clients are sent.
const WAY_3: usize = 0;
/// Where [`Broadcast`] keeps what MQTT 5 clients are sent.
const WAY_5: usize = 1;

/// Most aliases used towards a client, and the longest topic that gets one, so that a client that
/// permits many does not make the server remember much.
const ALIASES_MAX: u16 = 256;
const ALIASED_BYTES_MAX: usize = 1024;

/// Topic aliases towards the client, first come, first served.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    by_topic: HashMap<Box<str>, u16>,
    max: u16,
}

impl Aliases {
    pub(crate) fn new(max: u16) -> Self {
        Self { by_topic: HashMap::new(), max: max.min(ALIASES_MAX) }
    }

    /// True when the client takes aliases.
    fn are_on(&self) -> bool {
        self.max > 0
    }

    /// The alias of a topic, and whether the client knows it; `None` when there is none left.
    fn find(&self, topic: &str) -> Option<(u16, bool)> {
        if self.max == 0 || topic.len() > ALIASED_BYTES_MAX {
            return None;
        }
        if let Some(alias) = self.by_topic.get(topic) {
            return Some((*alias, true));
        }
        let next = u16::try_from(self.by_topic.len()).ok()?.checked_add(1)?;
        (next <= self.max).then_some((next, false))
    }

    fn learn(&mut self, topic: &str, alias: u16) {
        self.by_topic.insert(topic.into(), alias);
    }
}

/// One PUBLISH to one client.
struct Sending<'a> {
    message: &'a Message,
    source: Option<&'a Source>,
    retain: bool,
    ids: &'a [u32],
    shown: Shown<'a>,
    qos: u8,
    packet_id: u16,
    dup: bool,
}

impl Session {
    /// A message of a queue.
    pub(crate) fn deliver(&mut self, delivery: Delivery, now: Now, effects: &mut Effects) {
        let qos = self.qos_of(&delivery);
        if qos > 0 && self.outbound.must_hold() {
            self.outbound.hold(delivery);
            return;
        }
        self.send(delivery, now, effects);
    }

    /// The lower of what the publisher and the subscription say.
    fn qos_of(&self, delivery: &Delivery) -> u8 {
        if let Some(qos) = self.outbound.resumed_qos(delivery) {
            return qos;
        }
        let message = &delivery.message;
        let mut wanted = delivery.matched.qos;
        if let Some(source) = self.subscriptions.source(delivery.consumer) {
            wanted = wanted.min(source.qos);
        }
        let is_native = matches!(message.format().id, format::MQTT3 | format::MQTT5);
        let mut sent = message.qos();
        if !is_native && message.is_durable() {
            sent = sent.max(1);
            // Only a subscriber that can be told of a carried quality of service 2 pays for
            // looking.
            if wanted == 2 {
                sent = sent.max(message.properties().qos);
            }
        }
        sent.min(wanted)
    }

    /// Writes a delivery that need not wait.
    pub(crate) fn send(&mut self, delivery: Delivery, now: Now, effects: &mut Effects) {
        let Delivery { consumer, number, .. } = delivery;
        // [MQTT-4.3.3-7]: what an earlier connection has sent does not expire.
        if is_too_late(&delivery.message, now) && !self.outbound.is_resumed(&delivery) {
            push_settlement(consumer, number, Outcome::Accepted, effects);
            return;
        }
        let qos = self.qos_of(&delivery);
        let (packet_id, dup) =
            if qos > 0 { self.outbound.packet_id(&delivery, effects) } else { (0, false) };
        if self.outbound.must_remember(qos, &delivery) {
            return self.remember_and_send(packet_id, delivery, effects);
        }
        let is_sent = self.put_publish(&delivery, qos, packet_id, dup, now, effects);
        if !is_sent {
            self.outbound.forget(&delivery, effects);
            self.refuse_too_large(&delivery, effects);
        } else if qos == 0 {
            self.outbound.forget(&delivery, effects);
            push_settlement(consumer, number, Outcome::Accepted, effects);
        } else {
            self.outbound.sent(packet_id, qos, &delivery);
        }
    }

    /// The client takes no packet as large as the delivery [MQTT-3.1.2-25].
    pub(crate) fn refuse_too_large(&mut self, delivery: &Delivery, effects: &mut Effects) {
        self.shared.counters.too_large.add(1);
        push_settlement(delivery.consumer, delivery.number, Outcome::TooLarge, effects);
    }

    /// Writes a delivery; false when the client takes no packet as large as that.
    pub(crate) fn put_publish(
        &mut self,
        delivery: &Delivery,
        qos: u8,
        packet_id: u16,
        dup: bool,
        now: Now,
        effects: &mut Effects,
    ) -> bool {
        let Delivery { message, matched, .. } = delivery;
        let source = self.subscriptions.source(delivery.consumer).cloned();
        let source = source.as_deref();
        let shown = Shown {
            acquired: delivery.acquired,
            failed: delivery.failed,
            queue: source.and_then(|source| source.queue.as_ref()).map(|queue| queue.name.as_str()),
            is_brief: false,
        };
        let (as_published, ids) = match source {
            Some(source) => (source.retain_as_published, source.id.as_slice()),
            None => (matched.retain_as_published, matched.ids.as_slice()),
        };
        let retain = matched.retained || (as_published && message.retain());
        let sending = Sending { message, source, retain, ids, shown, qos, packet_id, dup };
        self.put(&sending, now, effects)
    }

    /// Writes one PUBLISH; false when the client takes no packet as large as that.
    fn put(&mut self, sending: &Sending<'_>, now: Now, effects: &mut Effects) -> bool {
        let message = sending.message;
        let mut topic = std::mem::take(&mut self.outbound.topic);
        topic.clear();
        push_topic(message, sending.source, &self.shared.exchange, &self.subscriptions, &mut topic);
        let mut properties = Properties::reuse(std::mem::take(&mut self.outbound.properties));
        let alias = self.outbound.aliases.find(&topic);
        let head = PublishHead {
            version: self.client.version,
            dup: sending.dup,
            qos: sending.qos,
            retain: sending.retain,
            topic: if let Some((_, true)) = alias { "" } else { &topic },
            packet_id: sending.packet_id,
            properties: &[],
        };
        let (body, max) = (message.body(), self.outbound.packet_bytes_max());
        let fits = |properties: &Properties| {
            let properties = properties.as_bytes();
            PublishHead { properties, ..head }.packet_len(body.len()) <= max
        };
        let mut is_sent = true;
        if head.version == Version::V5 {
            self.put_all_properties(sending, &sending.shown, alias, now, &mut properties);
            if !fits(&properties) {
                let brief = Shown { is_brief: true, ..sending.shown };
                properties = Properties::reuse(properties.into_buffer());
                self.put_all_properties(sending, &brief, alias, now, &mut properties);
                is_sent = fits(&properties);
            }
        } else {
            count_lost(message, &self.shared.counters.conversions);
        }
        if is_sent {
            let head = PublishHead { properties: properties.as_bytes(), ..head };
            head.put(effects.out.frame(), body.len());
            match message.large_body() {
                Some(shared) => effects.out.push_shared(shared.clone()),
                None => effects.out.buffer().put_slice(body),
            }
            if let Some((alias, false)) = alias {
                self.outbound.aliases.learn(&topic, alias);
            }
        }
        self.outbound.topic = topic;
        self.outbound.properties = properties.into_buffer();
        is_sent
    }

    fn put_all_properties(
        &self,
        sending: &Sending<'_>,
        shown: &Shown<'_>,
        alias: Option<(u16, bool)>,
        now: Now,
        out: &mut Properties,
    ) {
        if let Some((alias, _)) = alias {
            out.u16(id::TOPIC_ALIAS, alias);
        }
        for id in sending.ids {
            out.var_int(id::SUBSCRIPTION_ID, *id);
        }
        let Self { shared, .. } = self;
        put_properties(
            sending.message,
            shown,
            now.unix_ms,
            &shared.exchange,
            &shared.counters.conversions,
            out,
        );
    }

    /// Messages for a direct subscription of quality of service 0.
    pub(crate) fn broadcast(
        &mut self,
        matched: &Matched,
        batch: &Broadcast,
        now: Now,
        effects: &mut Effects,
    ) {
        if self.is_like_others(matched, batch) {
            let conversions = &self.shared.counters.conversions;
            let bytes = match self.client.version {
                Version::V5 => batch.rendered(WAY_5, |messages| {
                    render_5(messages, &self.shared.exchange, conversions)
                }),
                Version::V31 | Version::V311 => {
                    batch.rendered(WAY_3, |messages| render_3(messages, conversions))
                }
            };
            // When all packets together fit the client's limit, each of them does.
            if bytes.len() <= self.outbound.packet_bytes_max() {
                effects.out.add_frames(batch.messages().len());
                effects.out.push_shared(bytes);
                return;
            }
        }
        for message in batch.messages() {
            if is_too_late(message, now) {
                continue;
            }
            let sending = Sending {
                message,
                source: None,
                // Section 3.3.1.3.
                retain: matched.retained || (matched.retain_as_published && message.retain()),
                ids: matched.ids.as_slice(),
                shown: Shown::default(),
                qos: 0,
                packet_id: 0,
                dup: false,
            };
            if !self.put(&sending, now, effects) {
                self.shared.counters.too_large.add(1);
            }
        }
    }

    /// True when the packets for this client are the same as for its neighbours of the same
    /// version.
    fn is_like_others(&self, matched: &Matched, batch: &Broadcast) -> bool {
        let shows_retain =
            matched.retain_as_published && batch.messages().iter().any(Message::retain);
        let is_special = batch.is_perishable()
            || batch.has_extra_keys()
            || !matched.ids.as_slice().is_empty()
            || matched.retained
            || shows_retain
            || self.outbound.aliases.are_on()
            || self.subscriptions.names_exchanges();
        !is_special
    }
}

/// Appends the topic a client knows a message by; it matches the filter of its subscription.
fn push_topic(
    message: &Message,
    source: Option<&Source>,
    exchange: &str,
    subscriptions: &Subscriptions,
    out: &mut String,
) {
    if let Some(queue) = source.and_then(|source| source.queue.as_ref()) {
        return queue.push_topic(message.key(), out);
    }
    let named = match source.is_none() && subscriptions.names_exchanges() {
        true => subscriptions.written(message.exchange(), exchange),
        false => None,
    };
    if let Some(written) = named {
        out.push_str("$exchange/");
        out.push_str(written);
        out.push('/');
    }
    let has_one_key = message.extra_keys().is_empty();
    let key = if has_one_key { message.key() } else { subscriptions.shown_key(message) };
    dot_to_slash(key, out);
}

/// The packets of a batch for MQTT 3.
fn render_3(messages: &[Message], conversions: &Conversions) -> Bytes {
    let size = messages.iter().map(|message| message.key_bytes().len() + message.body().len() + 8);
    let mut out = BytesMut::with_capacity(size.sum());
    let mut topic = String::new();
    for message in messages {
        count_lost(message, conversions);
        topic.clear();
        dot_to_slash(message.key(), &mut topic);
        let body = message.body();
        let remaining = 2 + topic.len() + body.len();
        out.reserve(1 + var_int_len(remaining) + remaining);
        out.put_u8(0x30);
        put_var_int(&mut out, remaining);
        out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        out.put_slice(topic.as_bytes());
        out.put_slice(body);
    }
    out.freeze()
}

/// The packets of a batch for MQTT 5 subscribers that have no properties of their own.
fn render_5(messages: &[Message], exchange: &str, conversions: &Conversions) -> Bytes {
    let size = messages.iter().map(|message| message.key_bytes().len() + message.body().len() + 9);
    let mut out = BytesMut::with_capacity(size.sum());
    let mut topic = String::new();
    let mut properties = Properties::default();
    for message in messages {
        topic.clear();
        dot_to_slash(message.key(), &mut topic);
        properties = Properties::reuse(properties.into_buffer());
        put_properties(message, &Shown::default(), 0, exchange, conversions, &mut properties);
        let head = PublishHead {
            version: Version::V5,
            dup: false,
            qos: 0,
            retain: false,
            topic: &topic,
            packet_id: 0,
            properties: properties.as_bytes(),
        };
        let body = message.body();
        out.reserve(head.packet_len(body.len()));
        head.put(&mut out, body.len());
        out.put_slice(body);
    }
    out.freeze()
}

/// True when the message has expired. One whose expiry was zero is for whoever is waiting, and the
/// broker has found somebody.
fn is_too_late(message: &Message, now: Now) -> bool {
    message.is_expired(now.unix_ms) && message.deadline_ms() != message.arrived_ms()
}

//! The message: what is stored and routed. One allocation, shared by reference, never changed.

use std::sync::OnceLock;

use bytes::Bytes;
use triomphe::ThinArc;

pub use crate::annotations::{Annotations, Death, Delayed};
use crate::{
    durability::Durability,
    format::{Format, FormatId, Formats},
    properties::Properties,
    trace_context::TraceContext,
};

/// Bodies up to this size are copied into the message; longer ones stay slices of the read buffer.
///
/// A small slice would pin a read buffer for as long as its message waits.
pub const INLINE_BODY_BYTES_MAX: usize = 4096;

/// Bytes of [`Message::envelope`].
pub const ENVELOPE_BYTES: usize = 32;

const ENVELOPE_VERSION: u8 = 1;
const DURABLE: u8 = 1;
const RETAIN: u8 = 2;
const HAS_PRIORITY: u8 = 4;
const ANNOTATED: u8 = 8;
const LOWERED: u8 = 16;

/// A message. Cloning adds a reference.
///
/// The native property bytes and the body are kept exactly as received; [`Message::properties`]
/// decodes them on first use and keeps the result.
#[derive(Clone)]
pub struct Message(ThinArc<Head, u8>);

struct Head {
    format: &'static Format,
    exchange_len: u16,
    flags: u8,
    qos: u8,
    priority: u8,
    key_len: u32,
    props_len: u32,
    deadline_ms: u64,
    arrived_ms: u64,
    /// The body when it is longer than [`INLINE_BODY_BYTES_MAX`].
    large_body: Option<Bytes>,
    /// Routing keys beside the main one (AMQP `CC` and `BCC`).
    extra_keys: Option<Box<[Box<str>]>>,
    annotations: Option<Box<Annotations>>,
    view: OnceLock<Box<Properties>>,
}

/// The bytes of a body on their way into a message.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// To be copied when short.
    Slice(&'a [u8]),
    /// Owned by reference; kept without a copy when long.
    Shared(Bytes),
}

impl Body<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Slice(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// What a protocol session says about a message it has read.
#[derive(Debug)]
pub struct NewMessage<'a> {
    /// The native form of `props`.
    pub format: &'static Format,
    /// The exchange published to, at most 255 bytes.
    pub exchange: &'a str,
    /// The routing key in dot form.
    pub key: &'a str,
    /// Property bytes exactly as received.
    pub props: &'a [u8],
    /// The body.
    pub body: Body<'a>,
    /// True when the sender asked for persistence.
    pub durable: bool,
    /// 0 to 255, or unsaid.
    pub priority: Option<u8>,
    /// MQTT's quality of service as sent; 1 for durable messages of other protocols, else 0.
    pub qos: u8,
    /// True when the message is to be kept as the last value of its topic.
    pub retain: bool,
    /// Wall time in ms since 1970 after which the message is not delivered; 0 for never.
    pub deadline_ms: u64,
    /// Wall time of arrival in ms since 1970.
    pub arrived_ms: u64,
    /// Routing keys beside the main one.
    pub extra_keys: Vec<Box<str>>,
}

impl NewMessage<'_> {
    /// Makes the message. `scratch` is a buffer of the caller that is reused from call to call.
    pub fn build(self, scratch: &mut Vec<u8>) -> Message {
        self.build_with(0, scratch)
    }

    /// Makes it with flags beside those that its fields say.
    fn build_with(self, mut flags: u8, scratch: &mut Vec<u8>) -> Message {
        let small = self.body.as_bytes().len() <= INLINE_BODY_BYTES_MAX;
        scratch.clear();
        scratch.extend_from_slice(self.exchange.as_bytes());
        scratch.extend_from_slice(self.key.as_bytes());
        scratch.extend_from_slice(self.props);
        if small {
            scratch.extend_from_slice(self.body.as_bytes());
        }
        let large_body = (!small).then(|| match self.body {
            Body::Slice(bytes) => Bytes::copy_from_slice(bytes),
            Body::Shared(bytes) => bytes,
        });
        for (set, bit) in [
            (self.durable, DURABLE),
            (self.retain, RETAIN),
            (self.priority.is_some(), HAS_PRIORITY),
        ] {
            flags |= if set { bit } else { 0 };
        }
        let head = Head {
            format: self.format,
            exchange_len: u16::try_from(self.exchange.len()).unwrap_or(u16::MAX),
            flags,
            qos: self.qos,
            priority: self.priority.unwrap_or(0),
            key_len: u32::try_from(self.key.len()).unwrap_or(u32::MAX),
            props_len: u32::try_from(self.props.len()).unwrap_or(u32::MAX),
            deadline_ms: self.deadline_ms,
            arrived_ms: self.arrived_ms,
            large_body,
            extra_keys: (!self.extra_keys.is_empty()).then(|| self.extra_keys.into()),
            annotations: None,
            view: OnceLock::new(),
        };
        Message(ThinArc::from_header_and_slice(head, scratch))
    }
}

impl Message {
    /// The native form of [`Message::native_props`].
    pub fn format(&self) -> &'static Format {
        self.0.header.header.format
    }

    /// The exchange published to, as text.
    pub fn exchange(&self) -> &str {
        text(self.exchange_bytes())
    }

    /// The routing key in dot form.
    pub fn key(&self) -> &str {
        text(self.key_bytes())
    }

    /// The exchange as bytes; cheaper than [`Message::exchange`].
    pub fn exchange_bytes(&self) -> &[u8] {
        self.part(0, self.exchange_len())
    }

    /// The routing key as bytes; cheaper than [`Message::key`].
    pub fn key_bytes(&self) -> &[u8] {
        self.part(self.exchange_len(), self.key_len())
    }

    /// Exchange and key in one slice, for caches of routes; [`Message::exchange_bytes`] tells where
    /// one ends.
    pub fn address_bytes(&self) -> &[u8] {
        self.part(0, self.exchange_len() + self.key_len())
    }

    /// Routing keys beside the main one.
    pub fn extra_keys(&self) -> &[Box<str>] {
        self.head().extra_keys.as_deref().unwrap_or_default()
    }

    /// Property bytes exactly as received.
    pub fn native_props(&self) -> &[u8] {
        self.part(self.exchange_len() + self.key_len(), self.props_len())
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        match &self.head().large_body {
            Some(bytes) => bytes,
            None => self
                .0
                .slice
                .get(self.exchange_len() + self.key_len() + self.props_len()..)
                .unwrap_or(&[]),
        }
    }

    /// The body by reference when it is long enough to be worth a write of its own.
    pub fn large_body(&self) -> Option<&Bytes> {
        self.head().large_body.as_ref()
    }

    /// True when the sender asked for persistence.
    pub fn is_durable(&self) -> bool {
        self.head().flags & DURABLE != 0
    }

    /// How well the message is to be kept at most; a queue may keep it less well.
    ///
    /// Cost: where the sender has asked for less than usual, its properties are decoded.
    pub fn durability(&self) -> Durability {
        if !self.is_durable() {
            return Durability::Memory;
        }
        let asked = || Durability::asked(&self.properties().headers);
        (self.head().flags & LOWERED != 0).then(asked).flatten().unwrap_or_default()
    }

    /// A new message that nobody else holds yet, kept no better than its header
    /// [`DURABILITY`](crate::DURABILITY) says, which is `asked` if it is there.
    pub fn lowered(mut self, asked: Option<Durability>) -> Self {
        match asked {
            None | Some(Durability::Sync) => {}
            Some(Durability::Memory) => self.change(|head| head.flags &= !DURABLE),
            Some(Durability::Os | Durability::SyncInterval { .. }) => {
                self.change(|head| head.flags |= LOWERED);
            }
        }
        self
    }

    /// True when the message is to be kept as the last value of its topic.
    pub fn retain(&self) -> bool {
        self.head().flags & RETAIN != 0
    }

    /// MQTT's quality of service as sent.
    pub fn qos(&self) -> u8 {
        self.head().qos
    }

    /// 0 to 255, or unsaid.
    pub fn priority(&self) -> Option<u8> {
        (self.head().flags & HAS_PRIORITY != 0).then(|| self.head().priority)
    }

    /// Wall time in ms since 1970 after which the message is not delivered; 0 for never.
    pub fn deadline_ms(&self) -> u64 {
        self.head().deadline_ms
    }

    /// True when the deadline is at or before `unix_ms`.
    pub fn is_expired(&self, unix_ms: u64) -> bool {
        let deadline = self.head().deadline_ms;
        deadline != 0 && deadline <= unix_ms
    }

    /// Wall time of arrival in ms since 1970.
    pub fn arrived_ms(&self) -> u64 {
        self.head().arrived_ms
    }

    /// What the broker has written about the message, if anything.
    pub fn annotations(&self) -> Option<&Annotations> {
        self.head().annotations.as_deref()
    }

    /// The canonical fields, decoded on first use.
    pub fn properties(&self) -> &Properties {
        self.head().view.get_or_init(|| Box::new((self.head().format.decode)(self)))
    }

    /// Bytes of memory the message holds, roughly.
    pub fn size(&self) -> usize {
        size_of::<Head>()
            + self.0.slice.len()
            + self.head().large_body.as_ref().map_or(0, Bytes::len)
    }

    /// A copy with another address, without a deadline, and with `annotations`: how a message
    /// leaves a queue as a dead letter.
    pub fn readdressed(&self, exchange: &str, key: &str, annotations: Annotations) -> Self {
        let mut message = self.copy_to(exchange, key, 0, false);
        message.annotate(annotations);
        message
    }

    /// A copy with another address and nothing else changed.
    pub fn moved_to(&self, exchange: &str, key: &str) -> Self {
        self.copy_to(exchange, key, self.deadline_ms(), self.retain())
    }

    /// A copy with another deadline, in ms since 1970; 0 for none.
    pub fn with_deadline(&self, deadline_ms: u64) -> Self {
        self.copy_to(self.exchange(), self.key(), deadline_ms, self.retain())
    }

    /// The trace that it belongs to, if its publisher says so.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::find(self.native_props())
    }

    /// A copy that was sent in another span of its trace.
    pub fn in_span(&self, context: &TraceContext, span_id: [u8; 8]) -> Self {
        let props = context.replaced(self.native_props(), span_id);
        let (key, retain) = (self.key(), self.retain());
        let message = self.copy_with(&props, self.exchange(), key, self.deadline_ms(), retain);
        let mut message = message.with_extra_keys(self.extra_keys().to_vec());
        if let Some(annotations) = self.annotations() {
            message.annotate(annotations.clone());
        }
        message
    }

    /// A copy without annotations and extra keys.
    fn copy_to(&self, exchange: &str, key: &str, deadline_ms: u64, retain: bool) -> Self {
        self.copy_with(self.native_props(), exchange, key, deadline_ms, retain)
    }

    fn copy_with(
        &self,
        props: &[u8],
        exchange: &str,
        key: &str,
        deadline_ms: u64,
        retain: bool,
    ) -> Self {
        let message = NewMessage {
            format: self.format(),
            exchange,
            key,
            props,
            body: match self.large_body() {
                Some(bytes) => Body::Shared(bytes.clone()),
                None => Body::Slice(self.body()),
            },
            durable: self.is_durable(),
            priority: self.priority(),
            qos: self.qos(),
            retain,
            deadline_ms,
            arrived_ms: self.arrived_ms(),
            extra_keys: Vec::new(),
        };
        message.build_with(self.head().flags & LOWERED, &mut Vec::new())
    }

    /// The fixed head of a stored record; [`Message::stored_tail`] follows it, then the body.
    ///
    /// Layout, little-endian: version u8, format u8, flags u8, qos u8, priority u8, 0 u8, exchange
    /// length u16, key length u32, props length u32, arrival ms u64, annotation length u32,
    /// reserved u32.
    pub fn envelope(&self, annotation_bytes: usize) -> [u8; ENVELOPE_BYTES] {
        let head = self.head();
        let mut out = [0; ENVELOPE_BYTES];
        let annotated = if annotation_bytes > 0 { ANNOTATED } else { 0 };
        out[..6].copy_from_slice(&[
            ENVELOPE_VERSION,
            head.format.id.0,
            head.flags | annotated,
            head.qos,
            head.priority,
            0,
        ]);
        out[6..8].copy_from_slice(&head.exchange_len.to_le_bytes());
        out[8..12].copy_from_slice(&head.key_len.to_le_bytes());
        out[12..16].copy_from_slice(&head.props_len.to_le_bytes());
        out[16..24].copy_from_slice(&head.arrived_ms.to_le_bytes());
        let annotation_bytes = u32::try_from(annotation_bytes).unwrap_or(u32::MAX);
        out[24..28].copy_from_slice(&annotation_bytes.to_le_bytes());
        out
    }

    /// Exchange, key and native properties in one slice: the second part of a stored record.
    pub fn stored_tail(&self) -> &[u8] {
        self.part(0, self.exchange_len() + self.key_len() + self.props_len())
    }

    /// Reads a message back from the props (envelope, tail, annotations) and body of a stored
    /// record.
    ///
    /// Returns the message and the bytes of its annotations, which [`Message::with_annotations`]
    /// takes decoded; `None` when the bytes are no envelope of a version we know.
    pub fn from_stored<'a>(
        props: &'a [u8],
        body: Bytes,
        deadline_ms: u64,
        formats: &Formats,
    ) -> Option<(Self, &'a [u8])> {
        let (head, tail) = props.split_at_checked(ENVELOPE_BYTES)?;
        if *head.first()? != ENVELOPE_VERSION {
            return None;
        }
        let flags = *head.get(2)?;
        let exchange_len = usize::from(u16::from_le_bytes(head.get(6..8)?.try_into().ok()?));
        let number = |at: usize| -> Option<usize> {
            let bytes: [u8; 4] = head.get(at..at.checked_add(4)?)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let (key_len, props_len) = (number(8)?, number(12)?);
        let (exchange, rest) = tail.split_at_checked(exchange_len)?;
        let (key, rest) = rest.split_at_checked(key_len)?;
        let (native, annotations) = rest.split_at_checked(props_len)?;
        let message = NewMessage {
            format: formats.find(FormatId(*head.get(1)?)),
            exchange: std::str::from_utf8(exchange).ok()?,
            key: std::str::from_utf8(key).ok()?,
            props: native,
            body: Body::Shared(body),
            durable: flags & DURABLE != 0,
            priority: (flags & HAS_PRIORITY != 0).then_some(*head.get(4)?),
            qos: *head.get(3)?,
            retain: flags & RETAIN != 0,
            deadline_ms,
            arrived_ms: u64::from_le_bytes(head.get(16..24)?.try_into().ok()?),
            extra_keys: Vec::new(),
        };
        Some((message.build_with(flags & LOWERED, &mut Vec::new()), annotations))
    }

    /// The same message with what the broker knows about it.
    pub fn with_annotations(mut self, annotations: Annotations) -> Self {
        if ThinArc::strong_count(&self.0) == 1 {
            self.annotate(annotations);
            return self;
        }
        let mut message =
            self.copy_to(self.exchange(), self.key(), self.deadline_ms(), self.retain());
        message = message.with_extra_keys(self.extra_keys().to_vec());
        message.annotate(annotations);
        message
    }

    /// Sets the annotations of a message that nobody else holds yet.
    fn annotate(&mut self, annotations: Annotations) {
        self.change(|head| head.annotations = Some(Box::new(annotations)));
    }

    /// Changes the head of a message that nobody else holds yet.
    fn change(&mut self, change: impl FnOnce(&mut Head)) {
        self.0.with_arc_mut(|arc| {
            if let Some(inner) = triomphe::Arc::get_mut(arc) {
                change(inner.header_mut());
            }
        });
    }

    /// The same message with routing keys beside the main one.
    pub fn with_extra_keys(mut self, keys: Vec<Box<str>>) -> Self {
        if ThinArc::strong_count(&self.0) != 1 {
            self = self.copy_to(self.exchange(), self.key(), self.deadline_ms(), self.retain());
        }
        self.change(|head| head.extra_keys = (!keys.is_empty()).then(|| keys.into()));
        self
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn exchange_len(&self) -> usize {
        usize::from(self.head().exchange_len)
    }

    fn key_len(&self) -> usize {
        self.head().key_len as usize
    }

    fn props_len(&self) -> usize {
        self.head().props_len as usize
    }

    fn part(&self, from: usize, len: usize) -> &[u8] {
        self.0.slice.get(from..from + len).unwrap_or(&[])
    }
}

/// The parts were text when the message was built, so the check cannot fail.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("format", &self.head().format)
            .field("exchange", &self.exchange())
            .field("key", &self.key())
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

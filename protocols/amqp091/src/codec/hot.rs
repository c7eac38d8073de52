//! The methods that every message passes through, read and written by hand.

use bytes::BytesMut;

use super::{
    frame::{self, END, OVERHEAD_BYTES},
    id,
    reader::{Malformed, Reader},
};

/// `basic.publish`.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// The exchange.
    pub exchange: &'a [u8],
    /// The routing key.
    pub key: &'a [u8],
    /// Return the message when no queue takes it.
    pub mandatory: bool,
    /// Not supported by anyone.
    pub immediate: bool,
}

/// Reads the arguments of `basic.publish`.
///
/// Errors: [`Malformed`].
#[inline]
pub fn publish(arguments: &[u8]) -> Result<Publish<'_>, Malformed> {
    let mut reader = Reader::new(arguments);
    reader.u16()?;
    let (exchange, key, bits) = (reader.short()?, reader.short()?, reader.u8()?);
    if !reader.is_empty() {
        return Err(Malformed);
    }
    Ok(Publish { exchange, key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

/// The content header without its properties.
#[derive(Debug, Clone, Copy)]
pub struct ContentHeader<'a> {
    /// The class it says it belongs to.
    pub class: u16,
    /// Always zero.
    pub weight: u16,
    /// Size of the body.
    pub body_bytes: u64,
    /// Flags and property list.
    pub props: &'a [u8],
}

/// Reads a content header.
///
/// Errors: [`Malformed`].
#[inline]
pub fn content_header(payload: &[u8]) -> Result<ContentHeader<'_>, Malformed> {
    let mut reader = Reader::new(payload);
    let (class, weight, body_bytes) = (reader.u16()?, reader.u16()?, reader.u64()?);
    Ok(ContentHeader { class, weight, body_bytes, props: reader.rest() })
}

/// `basic.ack`, `basic.nack` and `basic.reject` in one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settle {
    /// Delivery tag.
    pub tag: u64,
    /// Everything up to the tag.
    pub multiple: bool,
    /// For nack and reject.
    pub requeue: bool,
}

/// Reads the arguments of `basic.ack`, `basic.nack` or `basic.reject`, told apart by `method`.
///
/// Errors: [`Malformed`].
#[inline]
pub fn settle(method: (u16, u16), arguments: &[u8]) -> Result<Settle, Malformed> {
    let mut reader = Reader::new(arguments);
    let (tag, bits) = (reader.u64()?, reader.u8()?);
    if !reader.is_empty() {
        return Err(Malformed);
    }
    Ok(match method {
        id::ACK => Settle { tag, multiple: bits & 1 != 0, requeue: false },
        id::REJECT => Settle { tag, multiple: false, requeue: bits & 1 != 0 },
        _ => Settle { tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 },
    })
}

/// `basic.qos`, whose size `amq-protocol` does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qos {
    /// Bytes of unsettled deliveries; not supported by anyone.
    pub size: u32,
    /// Unsettled deliveries.
    pub count: u16,
    /// For the channel as a whole.
    pub global: bool,
}

/// Reads the arguments of `basic.qos`.
///
/// Errors: [`Malformed`].
pub fn qos(arguments: &[u8]) -> Result<Qos, Malformed> {
    let mut reader = Reader::new(arguments);
    let (size, count, bits) = (reader.u32()?, reader.u16()?, reader.u8()?);
    if reader.is_empty() { Ok(Qos { size, count, global: bits & 1 != 0 }) } else { Err(Malformed) }
}

/// Where a delivery or return comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The exchange, at most 255 bytes.
    pub exchange: &'a [u8],
    /// The routing key as shown, at most 255 bytes.
    pub key: &'a [u8],
}

/// What stands behind the method: properties, and as much of the body as goes into the same buffer.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// Flags and property list.
    pub props: &'a [u8],
    /// Size of the whole body.
    pub body_bytes: usize,
    /// The body, when it goes into one frame here; otherwise empty, and its frames follow.
    pub body: &'a [u8],
}

/// Fills the new end of a buffer, which has been made exactly as long as what is written to it.
///
/// One check of the buffer's room for a whole message, instead of one for each field.
struct Filler<'a> {
    rest: &'a mut [u8],
}

impl<'a> Filler<'a> {
    #[inline]
    fn new(out: &'a mut BytesMut, count: usize) -> Self {
        let at = out.len();
        out.resize(at.saturating_add(count), 0);
        Self { rest: out.get_mut(at..).unwrap_or_default() }
    }

    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some((head, rest)) = std::mem::take(&mut self.rest).split_first_chunk_mut::<N>() {
            *head = bytes;
            self.rest = rest;
        }
    }

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        if let Some((head, rest)) = rest.split_at_mut_checked(bytes.len()) {
            head.copy_from_slice(bytes);
            self.rest = rest;
        }
    }

    #[inline]
    fn short(&mut self, bytes: &[u8]) {
        self.array([u8::try_from(bytes.len()).unwrap_or(u8::MAX)]);
        self.slice(bytes);
    }

    #[inline]
    fn method(&mut self, channel: u16, size: usize, (class, method): (u16, u16)) {
        self.frame(frame::METHOD, channel, size);
        let ([a, b], [c, d]) = (class.to_be_bytes(), method.to_be_bytes());
        self.array([a, b, c, d]);
    }

    #[inline]
    fn frame(&mut self, kind: u8, channel: u16, size: usize) {
        let [c1, c0] = channel.to_be_bytes();
        let [s3, s2, s1, s0] = u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes();
        self.array([kind, c1, c0, s3, s2, s1, s0]);
    }

    /// The end of the method frame, the header frame, and the body frame if there is one here.
    #[inline]
    fn content(&mut self, channel: u16, content: Content<'_>) {
        let size = content.props.len().saturating_add(CONTENT_HEADER_BYTES);
        self.array([END]);
        self.frame(frame::HEADER, channel, size);
        let [a, b] = id::BASIC.to_be_bytes();
        self.array([a, b, 0, 0]);
        self.array(u64::try_from(content.body_bytes).unwrap_or(u64::MAX).to_be_bytes());
        self.slice(content.props);
        self.array([END]);
        if !content.body.is_empty() {
            self.frame(frame::BODY, channel, content.body.len());
            self.slice(content.body);
            self.array([END]);
        }
    }
}

/// Octets of a content header's payload beside the properties.
pub const CONTENT_HEADER_BYTES: usize = 12;

impl Origin<'_> {
    /// As two short strings.
    fn size(&self) -> usize {
        self.exchange.len().saturating_add(self.key.len()).saturating_add(2)
    }
}

impl Content<'_> {
    /// Octets of all frames, without the body's if it has none here.
    fn size(&self) -> usize {
        let header = self.props.len().saturating_add(CONTENT_HEADER_BYTES + OVERHEAD_BYTES);
        match self.body.len() {
            0 => header,
            body => header.saturating_add(body).saturating_add(OVERHEAD_BYTES),
        }
    }
}

/// `basic.deliver`, beside its origin.
#[derive(Debug, Clone, Copy)]
pub struct Deliver<'a> {
    /// Consumer tag, at most 255 bytes.
    pub consumer: &'a [u8],
    /// Delivery tag.
    pub tag: u64,
    /// Has been delivered before.
    pub redelivered: bool,
}

/// Appends a `basic.deliver` frame and its content.
#[inline]
pub fn put_deliver(
    out: &mut BytesMut,
    channel: u16,
    deliver: Deliver<'_>,
    origin: Origin<'_>,
    content: Content<'_>,
) {
    let fixed = 4 + 1 + 8 + 1;
    let size = origin.size().saturating_add(deliver.consumer.len()).saturating_add(fixed);
    let total = size.saturating_add(content.size()).saturating_add(OVERHEAD_BYTES);
    let mut filler = Filler::new(out, total);
    filler.method(channel, size, id::DELIVER);
    filler.short(deliver.consumer);
    filler.array(deliver.tag.to_be_bytes());
    filler.array([u8::from(deliver.redelivered)]);
    filler.short(origin.exchange);
    filler.short(origin.key);
    filler.content(channel, content);
}

/// `basic.get-ok`, beside its origin.
#[derive(Debug, Clone, Copy)]
pub struct GetOk {
    /// Delivery tag.
    pub tag: u64,
    /// Has been delivered before.
    pub redelivered: bool,
    /// Ready messages that remain.
    pub remaining: u32,
}

/// Appends a `basic.get-ok` frame and its content.
pub fn put_get_ok(
    out: &mut BytesMut,
    channel: u16,
    got: GetOk,
    origin: Origin<'_>,
    content: Content<'_>,
) {
    let size = origin.size().saturating_add(4 + 8 + 1 + 4);
    let total = size.saturating_add(content.size()).saturating_add(OVERHEAD_BYTES);
    let mut filler = Filler::new(out, total);
    filler.method(channel, size, id::GET_OK);
    filler.array(got.tag.to_be_bytes());
    filler.array([u8::from(got.redelivered)]);
    filler.short(origin.exchange);
    filler.short(origin.key);
    filler.array(got.remaining.to_be_bytes());
    filler.content(channel, content);
}

/// Appends a `basic.return` frame and its content.
pub fn put_return(
    out: &mut BytesMut,
    channel: u16,
    (code, text): (u16, &str),
    origin: Origin<'_>,
    content: Content<'_>,
) {
    let text = frame::clipped(text).as_bytes();
    let size = origin.size().saturating_add(text.len()).saturating_add(4 + 2 + 1);
    let total = size.saturating_add(content.size()).saturating_add(OVERHEAD_BYTES);
    let mut filler = Filler::new(out, total);
    filler.method(channel, size, id::RETURN);
    filler.array(code.to_be_bytes());
    filler.short(text);
    filler.short(origin.exchange);
    filler.short(origin.key);
    filler.content(channel, content);
}

/// Appends a `basic.ack` frame: a confirm.
#[inline]
pub fn put_ack(out: &mut BytesMut, channel: u16, number: u64, multiple: bool) {
    put_confirm(out, channel, id::ACK, number, multiple);
}

/// Appends a `basic.nack` frame: a publish was refused.
pub fn put_nack(out: &mut BytesMut, channel: u16, number: u64, multiple: bool) {
    put_confirm(out, channel, id::NACK, number, multiple);
}

#[inline]
fn put_confirm(out: &mut BytesMut, channel: u16, method: (u16, u16), number: u64, multiple: bool) {
    let mut filler = Filler::new(out, 4 + 8 + 1 + OVERHEAD_BYTES);
    filler.method(channel, 4 + 8 + 1, method);
    filler.array(number.to_be_bytes());
    filler.array([u8::from(multiple), END]);
}

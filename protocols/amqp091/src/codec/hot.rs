//! The methods that every message passes through, read and written by hand.

use bytes::{BufMut, BytesMut};

use super::{
    frame::{self, END, put_head, put_short},
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

/// Writes the class and method that begin a method frame's payload.
#[inline]
fn put_method(out: &mut BytesMut, (class, method): (u16, u16)) {
    out.put_u16(class);
    out.put_u16(method);
}

/// Where a delivery or return comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The exchange.
    pub exchange: &'a str,
    /// The routing key as shown, at most 255 bytes.
    pub key: &'a str,
}

impl Origin<'_> {
    fn size(&self) -> usize {
        self.exchange.len().min(255).saturating_add(self.key.len().min(255)).saturating_add(2)
    }

    fn put(&self, out: &mut BytesMut) {
        put_short(out, self.exchange);
        put_short(out, self.key);
    }
}

/// Appends a `basic.deliver` frame.
#[inline]
pub fn put_deliver(
    out: &mut BytesMut,
    channel: u16,
    consumer: &str,
    tag: u64,
    redelivered: bool,
    origin: Origin<'_>,
) {
    let size = origin.size().saturating_add(4 + 1 + 8 + 1).saturating_add(consumer.len());
    put_head(out, frame::METHOD, channel, size);
    put_method(out, id::DELIVER);
    put_short(out, consumer);
    out.put_u64(tag);
    out.put_u8(u8::from(redelivered));
    origin.put(out);
    out.put_u8(END);
}

/// Appends a `basic.get-ok` frame.
pub fn put_get_ok(
    out: &mut BytesMut,
    channel: u16,
    tag: u64,
    redelivered: bool,
    origin: Origin<'_>,
    remaining: u32,
) {
    put_head(out, frame::METHOD, channel, origin.size().saturating_add(4 + 8 + 1 + 4));
    put_method(out, id::GET_OK);
    out.put_u64(tag);
    out.put_u8(u8::from(redelivered));
    origin.put(out);
    out.put_u32(remaining);
    out.put_u8(END);
}

/// Appends a `basic.return` frame.
pub fn put_return(out: &mut BytesMut, channel: u16, code: u16, text: &str, origin: Origin<'_>) {
    let text = frame::clipped(text);
    let size = origin.size().saturating_add(4 + 2 + 1).saturating_add(text.len());
    put_head(out, frame::METHOD, channel, size);
    put_method(out, id::RETURN);
    out.put_u16(code);
    put_short(out, text);
    origin.put(out);
    out.put_u8(END);
}

/// Appends a `basic.ack` frame: a confirm.
#[inline]
pub fn put_ack(out: &mut BytesMut, channel: u16, number: u64, multiple: bool) {
    put_head(out, frame::METHOD, channel, 4 + 8 + 1);
    put_method(out, id::ACK);
    out.put_u64(number);
    out.put_u8(u8::from(multiple));
    out.put_u8(END);
}

/// Appends a `basic.nack` frame: a publish was refused.
pub fn put_nack(out: &mut BytesMut, channel: u16, number: u64, multiple: bool) {
    put_head(out, frame::METHOD, channel, 4 + 8 + 1);
    put_method(out, id::NACK);
    out.put_u64(number);
    out.put_u8(u8::from(multiple));
    out.put_u8(END);
}

/// Appends a content header frame.
#[inline]
pub fn put_content_header(out: &mut BytesMut, channel: u16, body_bytes: usize, props: &[u8]) {
    put_head(out, frame::HEADER, channel, props.len().saturating_add(12));
    out.put_u16(id::BASIC);
    out.put_u16(0);
    out.put_u64(u64::try_from(body_bytes).unwrap_or(u64::MAX));
    out.put_slice(props);
    out.put_u8(END);
}

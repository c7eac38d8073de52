//! `basic.publish`: method, header and bodies become one message, in one pass where they lie
//! together.

use bytes::{Bytes, BytesMut};
use polymq_contract::{Command, Publish};
use polymq_model::{Body, NewMessage};

use super::{
    Channel, Context, Mode,
    inspect::{Facts, inspect},
};
use crate::{
    AMQP091,
    codec::{
        frame::{self, Frame},
        hot, id,
    },
    refusal::{Exception, ReplyCode, Step},
    session::unexpected_frame,
};

/// Bodies up to this size are copied out of the read buffer; a slice would pin a large buffer for a
/// small message.
pub(crate) const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;

/// First allocation for a body that arrives in several frames; the peer has to send the rest before
/// it costs more.
const ASSEMBLY_BYTES_FIRST: usize = 256 * 1024;

/// A publish whose frames have not all come.
#[derive(Debug)]
pub(super) enum Content {
    None,
    Header(Head),
    Body { head: Head, props: Vec<u8>, body_bytes: usize, collected: BytesMut },
}

impl Content {
    /// The method whose content is due, zeros for none.
    fn method(&self) -> (u16, u16) {
        match self {
            Self::None => (0, 0),
            Self::Header(_) | Self::Body { .. } => id::PUBLISH,
        }
    }
}

/// What the method said.
#[derive(Debug)]
pub(super) struct Head {
    exchange: Box<[u8]>,
    key: Box<[u8]>,
    mandatory: bool,
}

impl Head {
    fn as_publish(&self) -> hot::Publish<'_> {
        hot::Publish {
            exchange: &self.exchange,
            key: &self.key,
            mandatory: self.mandatory,
            immediate: false,
        }
    }
}

impl Channel {
    /// Handles the method, and header and body too when they follow whole in `behind`; returns how
    /// much of it was taken.
    #[inline]
    pub(crate) fn on_publish(
        &mut self,
        arguments: &[u8],
        behind: &[u8],
        context: &mut Context<'_>,
    ) -> Step<usize> {
        if !matches!(self.content, Content::None) {
            let text = "expected content, got method 40 of class 60";
            return Err(Exception::new(ReplyCode::UnexpectedFrame, id::PUBLISH, text));
        }
        let publish =
            hot::publish(arguments).map_err(|error| Exception::malformed(error, id::PUBLISH))?;
        if publish.immediate {
            return Err(Exception::new(ReplyCode::NotImplemented, id::PUBLISH, "immediate=true"));
        }
        let frame_max = context.connection.frame_max;
        if let Some((header, body, taken)) = whole_content(behind, self.number, frame_max) {
            self.publish(publish, header.props, Body::Slice(body), context)?;
            return Ok(taken);
        }
        self.content = Content::Header(Head {
            exchange: publish.exchange.into(),
            key: publish.key.into(),
            mandatory: publish.mandatory,
        });
        Ok(0)
    }

    /// Handles a header frame, or a body frame that is small.
    pub(crate) fn on_content(&mut self, frame: Frame<'_>, context: &mut Context<'_>) -> Step {
        match frame.kind {
            frame::HEADER => self.on_header(frame.payload, context),
            _ => self.on_body(Body::Slice(frame.payload), context),
        }
    }

    fn on_header(&mut self, payload: &[u8], context: &mut Context<'_>) -> Step {
        let due = self.content.method();
        let Content::Header(head) = std::mem::replace(&mut self.content, Content::None) else {
            return Err(unexpected_frame("content header", due));
        };
        let header = hot::content_header(payload).map_err(|_| {
            Exception::new(ReplyCode::FrameError, id::PUBLISH, "malformed content header")
        })?;
        if header.class != id::BASIC || header.weight != 0 {
            let text = format!(
                "expected content header for class 60, got one for class {} with weight {}",
                header.class, header.weight
            );
            return Err(Exception::new(ReplyCode::UnexpectedFrame, id::PUBLISH, text));
        }
        if header.body_bytes == 0 {
            return self.publish(head.as_publish(), header.props, Body::Slice(&[]), context);
        }
        let body_bytes = checked_size(header.body_bytes, context)?;
        self.content = Content::Body {
            head,
            props: header.props.to_vec(),
            body_bytes,
            collected: BytesMut::new(),
        };
        Ok(())
    }

    /// Handles a body frame.
    pub(crate) fn on_body(&mut self, part: Body<'_>, context: &mut Context<'_>) -> Step {
        let due = self.content.method();
        let Content::Body { head, props, body_bytes, mut collected } =
            std::mem::replace(&mut self.content, Content::None)
        else {
            return Err(unexpected_frame("content body", due));
        };
        let slice: &[u8] = match &part {
            Body::Slice(slice) => slice,
            Body::Shared(bytes) => bytes,
        };
        let have = collected.len().saturating_add(slice.len());
        if have > body_bytes {
            let text = format!("content body of more than the {body_bytes} bytes announced");
            return Err(Exception::new(ReplyCode::FrameError, id::PUBLISH, text));
        }
        if have < body_bytes {
            if collected.is_empty() {
                collected.reserve(body_bytes.min(ASSEMBLY_BYTES_FIRST));
            }
            collected.extend_from_slice(slice);
            self.content = Content::Body { head, props, body_bytes, collected };
            return Ok(());
        }
        let body = if collected.is_empty() {
            part
        } else {
            collected.extend_from_slice(slice);
            Body::Shared(Bytes::from(collected))
        };
        self.publish(head.as_publish(), &props, body, context)
    }

    /// All of a publish is there.
    #[inline]
    fn publish(
        &mut self,
        publish: hot::Publish<'_>,
        props: &[u8],
        body: Body<'_>,
        context: &mut Context<'_>,
    ) -> Step {
        let (exchange, key) = (name(publish.exchange)?, name(publish.key)?);
        let body_bytes = match &body {
            Body::Slice(slice) => slice.len(),
            Body::Shared(bytes) => bytes.len(),
        };
        checked_size(u64::try_from(body_bytes).unwrap_or(u64::MAX), context)?;
        let reply_name = self.reply.as_ref().map(|reply| reply.name.as_str());
        let facts = inspect(props, reply_name, context)?;
        let Facts { durable, durability, priority, qos, retain, deadline_ms, .. } = facts;
        let Facts { extra_keys, delay, rewritten, .. } = facts;
        let connection = &mut *context.connection;
        let message = NewMessage {
            format: &AMQP091,
            exchange,
            key,
            props: if rewritten { &connection.props } else { props },
            body,
            durable,
            priority,
            qos,
            retain,
            deadline_ms,
            arrived_ms: context.now.unix_ms,
            extra_keys,
        }
        .build(&mut connection.scratch)
        .lowered(durability);
        let publisher = self.publisher();
        let number = match &mut self.mode {
            Mode::Confirm(confirms) => confirms.next_number(),
            Mode::Plain | Mode::Tx(_) => 0,
        };
        let publish = Publish {
            publisher,
            number,
            mandatory: publish.mandatory,
            received: None,
            delay,
            message,
        };
        if let Mode::Tx(tx) = &mut self.mode {
            tx.publish(publish, context.connection.limits.transaction_bytes_max)?;
            self.describe(context.effects);
            return Ok(());
        }
        context.effects.commands.push(Command::Publish(publish));
        Ok(())
    }
}

/// Header and body at the front of `behind`, when they lie there whole, and their size.
fn whole_content<'a>(
    behind: &'a [u8],
    channel: u16,
    frame_max: usize,
) -> Option<(hot::ContentHeader<'a>, &'a [u8], usize)> {
    let header = frame::split(behind, frame_max).ok()??;
    if header.kind != frame::HEADER || header.channel != channel {
        return None;
    }
    let content = hot::content_header(header.payload).ok()?;
    if content.class != id::BASIC || content.weight != 0 {
        return None;
    }
    if content.body_bytes == 0 {
        return Some((content, &[], header.size()));
    }
    let behind = behind.get(header.size()..)?;
    let body = frame::split(behind, frame_max).ok()??;
    let fits = usize::try_from(content.body_bytes) == Ok(body.payload.len())
        && body.payload.len() <= COPIED_BODY_BYTES_MAX;
    (body.kind == frame::BODY && body.channel == channel && fits).then_some((
        content,
        body.payload,
        header.size() + body.size(),
    ))
}

/// Exchange and key must be text without NUL; RabbitMQ takes any bytes, other protocols could not
/// show them.
#[inline]
fn name(bytes: &[u8]) -> Step<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => Ok(text),
        _ => {
            let text = "exchange and routing key must be UTF-8 without NUL";
            Err(Exception::invalid(id::PUBLISH, text))
        }
    }
}

#[inline]
fn checked_size(body_bytes: u64, context: &Context<'_>) -> Step<usize> {
    let max = context.connection.limits.message_bytes_max;
    match usize::try_from(body_bytes) {
        Ok(size) if size <= max => Ok(size),
        _ => {
            let text =
                format!("message size {body_bytes} is larger than configured max size {max}");
            Err(Exception::invalid(id::PUBLISH, text))
        }
    }
}

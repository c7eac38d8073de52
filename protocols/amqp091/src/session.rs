//! The session of one connection: splits frames and hands each to the phase or channel it belongs
//! to.
//!
//! ```text
//!            AMQP header          start-ok             Authenticated
//!  Header ----------------> Start ---------> Authenticate --------> Tune
//!    |  other bytes           |                    | refused          | tune-ok
//!    v                        v                    v                  v
//!  Closed <----------------------------------------+   VhostOpened   Open
//!    ^                                             Running <----------+
//!    | close, close-ok                                |
//!    +---------------------- Closing <----------------+  hard error, or the broker closes
//! ```
//!
//! While the broker owes an answer no input is taken, whatever channel it belongs to: answers
//! mostly come back within the same turn of the driver, and replies then leave in the order of
//! their methods.

use std::{sync::Arc, time::Instant};

use amq_protocol::protocol::{AMQPClass, connection};
use bytes::{Buf, BytesMut};
use polymq_contract::{
    Command, DisconnectCause, Effects, EventBatch, Peer, ProtocolSession, Timeout,
};
use polymq_model::{Body, ConsumerId, Limits, Now, PublisherId};

use crate::{
    Shared,
    channel::{Channel, Context, publish},
    codec::{
        cold,
        frame::{self, Frame},
        id,
    },
    connection::{Connection, Purpose, beat, put_close, put_method},
    refusal::{Exception, ReplyCode, Step},
};

/// How long the peer may take to answer our `connection.close`.
const CLOSE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Where the conversation stands; drawn above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Header,
    Start,
    Authenticate,
    Tune,
    Open,
    Running,
    Closing,
    Closed,
}

/// Channels by number.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    slots: Vec<Option<Box<Channel>>>,
    opened: u16,
}

impl Channels {
    #[inline]
    pub(crate) fn find(&mut self, number: u16) -> Option<&mut Channel> {
        self.slots.get_mut(usize::from(number))?.as_deref_mut()
    }

    /// Opens a channel under an incarnation that late events of an earlier one do not name.
    pub(crate) fn open(&mut self, number: u16) {
        let at = usize::from(number);
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        self.opened = self.opened.wrapping_add(1);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(Box::new(Channel::new(number, self.opened)));
        }
    }

    fn remove(&mut self, number: u16, effects: &mut Effects) {
        if let Some(slot) = self.slots.get_mut(usize::from(number)) {
            *slot = None;
            effects.commands.push(Command::CloseChannel { channel: u32::from(number) });
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.slots.iter_mut().filter_map(|slot| slot.as_deref_mut())
    }
}

/// The session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) phase: Phase,
    pub(crate) connection: Connection,
    pub(crate) channels: Channels,
    /// End of the login time, or of the wait for `close-ok`.
    pub(crate) deadline: Option<Instant>,
    /// A broken frame has come: nothing behind it can be told apart any more, the peer's answer
    /// included.
    garbled: bool,
    /// Bytes of a partial frame left in the input after the last call.
    left: usize,
    /// The channel that the broker takes commands to come from.
    pub(crate) entered: Option<PublisherId>,
    /// Channels with confirms that have not been written.
    pub(crate) confirming: Vec<u16>,
}

impl Session {
    pub(crate) fn new(
        peer: &Arc<Peer>,
        limits: &Arc<Limits>,
        shared: &Arc<Shared>,
        name: String,
        now: Now,
    ) -> Self {
        let connection = Connection::new(
            Arc::clone(peer),
            Arc::clone(limits),
            Arc::clone(shared),
            name,
            now.instant,
        );
        Self {
            phase: Phase::Header,
            deadline: now.instant.checked_add(limits.login_timeout),
            connection,
            channels: Channels::default(),
            garbled: false,
            left: 0,
            entered: None,
            confirming: Vec::new(),
        }
    }

    fn takes_frames(&self) -> bool {
        !matches!(self.phase, Phase::Header | Phase::Closed) && self.connection.pending.is_none()
    }

    /// Takes whole frames until one is partial, the session ends, or the broker owes an answer.
    /// A publish that lies whole in the input counts as one. Returns how many were taken.
    fn on_frames(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) -> usize {
        let (mut at, mut count) = (0, 0);
        while self.takes_frames() && !self.garbled {
            let rest = input.get(at..).unwrap_or_default();
            let frame = match frame::split(rest, self.connection.frame_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.fail(0, &Exception::frame(error, self.phase), now, effects);
                    self.garbled = true;
                    break;
                }
            };
            let channel = frame.channel;
            count += 1;
            if frame.kind == frame::BODY && frame.payload.len() > publish::COPIED_BODY_BYTES_MAX {
                let size = frame.size();
                input.advance(at);
                at = 0;
                let step = self.on_large_body(channel, input.split_to(size).freeze(), now, effects);
                if let Err(exception) = step {
                    self.fail(channel, &exception, now, effects);
                }
                continue;
            }
            match self.on_frame(frame, rest, now, effects) {
                Ok(taken) => at = at.saturating_add(taken),
                Err(exception) => {
                    at = at.saturating_add(frame.size());
                    self.fail(channel, &exception, now, effects);
                }
            }
        }
        if self.garbled {
            input.clear();
        }
        input.advance(at.min(input.len()));
        count
    }

    /// Handles the frame at the front of `rest` and returns how many bytes were taken.
    #[inline]
    fn on_frame(
        &mut self,
        frame: Frame<'_>,
        rest: &[u8],
        now: Now,
        effects: &mut Effects,
    ) -> Step<usize> {
        if self.phase == Phase::Closing {
            self.on_frame_while_closing(frame, effects);
            return Ok(frame.size());
        }
        if frame.channel == 0 || frame.kind == frame::HEARTBEAT {
            self.on_connection_frame(frame, now, effects)?;
            return Ok(frame.size());
        }
        if self.phase != Phase::Running {
            let text = format!("channel {} used before connection.open", frame.channel);
            return Err(Exception::new(ReplyCode::CommandInvalid, (0, 0), text).on_connection());
        }
        let mut context = Context { connection: &mut self.connection, now, effects };
        match self.channels.find(frame.channel) {
            Some(channel) if channel.is_open() => {
                enter(&mut self.entered, channel, context.effects);
                if frame.kind == frame::METHOD {
                    let (method, arguments) = method_id(frame.payload)?;
                    if method == id::PUBLISH {
                        let behind = rest.get(frame.size()..).unwrap_or_default();
                        let more = channel.on_publish(arguments, behind, &mut context)?;
                        return Ok(frame.size().saturating_add(more));
                    }
                    channel.on_method(method, frame.payload, &mut context)?;
                    if method == id::CHANNEL_CLOSE {
                        self.channels.remove(frame.channel, effects);
                    }
                } else {
                    channel.on_content(frame, &mut context)?;
                }
            }
            Some(channel) => {
                if channel.on_frame_while_closing(frame, &mut context) {
                    self.channels.remove(frame.channel, effects);
                }
            }
            None => self.on_unopened_channel(frame, effects)?,
        }
        Ok(frame.size())
    }

    /// A body frame worth keeping by reference; `whole` is the frame with head and end.
    fn on_large_body(
        &mut self,
        number: u16,
        whole: bytes::Bytes,
        now: Now,
        effects: &mut Effects,
    ) -> Step {
        let body = whole.slice(frame::HEAD_BYTES..whole.len().saturating_sub(1));
        if self.phase == Phase::Closing {
            return Ok(());
        }
        let mut context = Context { connection: &mut self.connection, now, effects };
        match self.channels.find(number) {
            Some(channel) if channel.is_open() => {
                enter(&mut self.entered, channel, context.effects);
                channel.on_body(Body::Shared(body), &mut context)
            }
            Some(_) => Ok(()),
            None => Err(unexpected_frame("body", (0, 0))),
        }
    }

    fn on_unopened_channel(&mut self, frame: Frame<'_>, effects: &mut Effects) -> Step {
        if frame.kind != frame::METHOD {
            return Err(unexpected_frame("content", (0, 0)));
        }
        let (method, _) = method_id(frame.payload)?;
        match method {
            id::CHANNEL_OPEN if frame.channel > self.connection.channel_max => {
                let text = format!(
                    "channel {} is above the negotiated channel_max {}",
                    frame.channel, self.connection.channel_max
                );
                Err(Exception::new(ReplyCode::NotAllowed, method, text))
            }
            id::CHANNEL_OPEN => {
                cold::parse(frame.payload, self.connection.table_bounds())
                    .map_err(|error| Exception::method(error, method))?;
                let purpose = Purpose::OpenChannel;
                let request = self.connection.expect_on(frame.channel, 0, purpose, method, false);
                let channel = u32::from(frame.channel);
                effects.commands.push(Command::OpenChannel { request, channel });
                Ok(())
            }
            _ => {
                let text = format!("expected 'channel.open' on channel {}", frame.channel);
                Err(Exception::new(ReplyCode::ChannelError, method, text))
            }
        }
    }

    fn on_connection_frame(&mut self, frame: Frame<'_>, now: Now, effects: &mut Effects) -> Step {
        match frame.kind {
            frame::HEARTBEAT if frame.channel != 0 => {
                return Err(unexpected_frame("heartbeat", (0, 0)));
            }
            frame::HEARTBEAT if !frame.payload.is_empty() => {
                let text = "heartbeat with a payload";
                return Err(Exception::new(ReplyCode::FrameError, (0, 0), text));
            }
            frame::HEARTBEAT => return Ok(()),
            frame::METHOD => {}
            _ => return Err(unexpected_frame("content", (0, 0))),
        }
        let (method, _) = method_id(frame.payload)?;
        let running = self.phase == Phase::Running;
        if running && method.0 != id::CONNECTION {
            let text = "method of a channel on channel 0";
            return Err(Exception::new(ReplyCode::ChannelError, method, text));
        }
        let bounds = match running {
            true => self.connection.table_bounds(),
            false => self.connection.login_table_bounds(),
        };
        let parsed =
            cold::parse(frame.payload, bounds).map_err(|error| Exception::method(error, method))?;
        let AMQPClass::Connection(class) = parsed.class else {
            let text = "method of a channel on channel 0";
            return Err(Exception::new(ReplyCode::CommandInvalid, method, text));
        };
        match class {
            connection::AMQPMethod::Close(close) => {
                put_method(
                    effects.out.frame(),
                    connection::AMQPMethod::CloseOk(connection::CloseOk {}),
                );
                let detail = format!("{} {}", close.reply_code, close.reply_text.as_str());
                self.close(effects, "client", detail);
                Ok(())
            }
            connection::AMQPMethod::UpdateSecret(update) if running => {
                self.on_update_secret(&update, effects);
                Ok(())
            }
            class => self.on_handshake(class, parsed.table, method, now, effects),
        }
    }

    /// After our `connection.close` only the peer's answer counts.
    fn on_frame_while_closing(&mut self, frame: Frame<'_>, effects: &mut Effects) {
        if frame.kind != frame::METHOD || frame.channel != 0 {
            return;
        }
        match cold::split_id(frame.payload) {
            Ok((id::CONNECTION_CLOSE_OK, _)) => {
                self.close(effects, "session", "closed by the server");
            }
            Ok((id::CONNECTION_CLOSE, _)) => {
                let ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
                put_method(effects.out.frame(), ok);
                self.close(effects, "session", "closed by both sides");
            }
            _ => {}
        }
    }

    /// Tells the peer of an exception and closes what it costs.
    pub(crate) fn fail(
        &mut self,
        number: u16,
        exception: &Exception,
        now: Now,
        effects: &mut Effects,
    ) {
        self.connection.shared.counters.faults.add(1);
        let (code, text) = (exception.code.number(), &exception.text);
        tracing::debug!(event = "protocol_error", number, code, %text, "amqp exception");
        let mut context = Context { connection: &mut self.connection, now, effects };
        if number != 0 && !exception.code.is_hard() {
            if let Some(channel) = self.channels.find(number) {
                channel.fail(exception, &mut context);
            }
            return;
        }
        self.refuse_connection(exception, now, effects);
    }

    /// Sends `connection.close` and waits for its answer.
    pub(crate) fn refuse_connection(
        &mut self,
        exception: &Exception,
        now: Now,
        effects: &mut Effects,
    ) {
        if matches!(self.phase, Phase::Closing | Phase::Closed) {
            return;
        }
        let mut consumers: Vec<ConsumerId> = Vec::new();
        for channel in self.channels.all() {
            channel.collect_consumers(&mut consumers);
        }
        if !consumers.is_empty() {
            effects.commands.push(Command::Release { consumers });
        }
        self.channels = Channels::default();
        self.connection.consumers.clear();
        self.connection.pending = None;
        put_close(effects.out.frame(), exception);
        self.phase = Phase::Closing;
        self.deadline = now.instant.checked_add(CLOSE_WAIT);
    }

    /// Ends the connection once the output is written.
    pub(crate) fn close(
        &mut self,
        effects: &mut Effects,
        cause: &'static str,
        detail: impl Into<String>,
    ) {
        self.phase = Phase::Closed;
        self.deadline = None;
        self.connection.pending = None;
        effects.close_after_flush(cause, detail);
    }

    /// What every call ends with.
    ///
    /// `waiting` is only ever set here: input that was left for an answer is handed in again
    /// because it still stands when the answer has come, and the driver clears it then.
    fn settle_effects(&mut self, frames_in: usize, now: Now, effects: &mut Effects) {
        self.connection.shared.counters.moved(frames_in, &mut effects.out);
        effects.waiting |= self.connection.pending.is_some();
        if !effects.out.is_empty() {
            self.connection.heartbeat.sent(now.instant);
        }
    }
}

/// Tells the broker whose commands follow, so that nothing happens that a channel has sent behind a
/// publish that is refused.
#[inline]
fn enter(entered: &mut Option<PublisherId>, channel: &Channel, effects: &mut Effects) {
    let publisher = channel.publisher();
    if *entered != Some(publisher) {
        *entered = Some(publisher);
        let channel = u32::from(channel.number());
        effects.commands.push(Command::EnterChannel { publisher, channel });
    }
}

fn method_id(payload: &[u8]) -> Step<((u16, u16), &[u8])> {
    cold::split_id(payload).map_err(|error| Exception::malformed(error, (0, 0)))
}

/// `method` is the one whose content is due, if there is one.
pub(crate) fn unexpected_frame(what: &str, method: (u16, u16)) -> Box<Exception> {
    Exception::new(ReplyCode::UnexpectedFrame, method, format!("unexpected {what} frame"))
}

impl ProtocolSession for Session {
    fn on_bytes(&mut self, input: &mut BytesMut, now: Now, effects: &mut Effects) {
        if input.len() > self.left {
            self.connection.heartbeat.received(now.instant);
        }
        if self.phase == Phase::Header {
            self.on_header(input, effects);
        }
        let taken = self.on_frames(input, now, effects);
        if self.phase == Phase::Closed {
            input.clear();
        }
        self.left = input.len();
        self.settle_effects(taken, now, effects);
    }

    fn on_events(&mut self, events: &mut EventBatch, now: Now, effects: &mut Effects) {
        while effects.out.len() <= self.connection.limits.output_bytes_max {
            let Some(event) = events.pop() else { break };
            self.on_event(event, now, effects);
        }
        self.put_confirms(effects);
        self.settle_effects(0, now, effects);
    }

    fn on_timeout(&mut self, now: Now, effects: &mut Effects) {
        // A heartbeat is due: nothing was sent for a while, so buffers may be given back.
        self.connection.scratch = Vec::new();
        self.connection.props = Vec::new();
        if self.deadline.is_some_and(|deadline| now.instant >= deadline) {
            let cause = if self.phase == Phase::Closing { "session" } else { "login_timeout" };
            self.close(effects, cause, "the peer took too long");
        } else if self.phase != Phase::Closed && !beat(&mut self.connection, now, effects) {
            self.close(effects, "heartbeat", "no bytes from the peer for two heartbeats");
        }
        self.settle_effects(0, now, effects);
    }

    fn next_timeout(&self) -> Option<Timeout> {
        if self.phase == Phase::Closed {
            return None;
        }
        let reason = if self.phase == Phase::Closing { "close" } else { "login" };
        let deadline = self.deadline.map(|at| Timeout { at, reason });
        let heartbeat =
            self.connection.heartbeat.next().map(|at| Timeout { at, reason: "heartbeat" });
        [deadline, heartbeat].into_iter().flatten().min_by_key(|timeout| timeout.at)
    }

    fn on_disconnect(&mut self, _cause: DisconnectCause, _effects: &mut Effects) {
        self.phase = Phase::Closed;
        self.connection.pending = None;
    }
}

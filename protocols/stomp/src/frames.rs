//! Frames out of the input, each to whoever deals with it.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use polymq_contract::Effects;
use polymq_model::{Now, limits::RAISE_LOGIN_SIZE};

use crate::{
    codec::{Bounds, Command, Frame, HeaderBounds, Version},
    refusal::{Failure, Step},
    session::{Later, Phase, Session},
};

/// Bodies up to this size are copied out of the read buffer; a slice would pin a large buffer for a
/// small message.
const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;

impl Session {
    fn bounds(&self) -> Bounds {
        let limits = &self.limits;
        match self.phase {
            Phase::Fresh | Phase::Connecting => Bounds {
                head_bytes_max: limits.login_frame_bytes_max,
                body_bytes_max: limits.login_frame_bytes_max,
            },
            Phase::Open | Phase::Leaving | Phase::Closed => Bounds {
                head_bytes_max: limits.header_bytes_max.saturating_add(Command::BYTES_MAX + 2),
                body_bytes_max: limits.message_bytes_max,
            },
        }
    }

    fn is_stranger(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Connecting)
    }

    fn header_bounds(&self) -> HeaderBounds {
        let headers_max = match self.phase {
            Phase::Fresh | Phase::Connecting => self.limits.login_headers_max,
            Phase::Open | Phase::Leaving | Phase::Closed => self.limits.headers_max,
        };
        HeaderBounds { headers_max }
    }

    /// Takes whole frames from the front of `input` and returns how many.
    pub(crate) fn take_frames(
        &mut self,
        input: &mut BytesMut,
        now: Now,
        effects: &mut Effects,
    ) -> usize {
        let mut places = std::mem::take(&mut self.places);
        let (mut at, mut count) = (0, 0);
        while self.phase != Phase::Closed && !self.is_waiting() {
            at += ends_of_lines(input.get(at..).unwrap_or_default());
            let bytes = input.get(at..).unwrap_or_default();
            let whole = match self.splitter.find(bytes, self.bounds()) {
                Ok(Some(whole)) => whole,
                Ok(None) => break,
                Err(error) => {
                    let receipt = receipt_of(bytes, self.bounds().head_bytes_max);
                    let mut failure = Box::<Failure>::from(error);
                    if self.is_stranger() && error.is_of_size() {
                        failure.detail.push_str(RAISE_LOGIN_SIZE);
                    }
                    self.fail(&failure, receipt, effects);
                    break;
                }
            };
            let size = whole.size();
            let is_large = whole.body_bytes > COPIED_BODY_BYTES_MAX && self.phase == Phase::Open;
            let (version, bounds) = (self.version, self.header_bounds());
            let mut taken = None;
            if is_large {
                // A long body stays a slice of the read buffer, so its frame is taken out of it;
                // put back are only frames that have to wait.
                input.advance(at);
                at = 0;
                taken = Some(input.split_to(size).freeze());
            }
            let bytes = match &taken {
                Some(taken) => taken,
                None => input.get(at..).unwrap_or_default(),
            };
            let done = match Frame::parse(bytes, whole, version, bounds, &mut places) {
                Ok(frame) => self.on_frame(&frame, taken.as_ref(), now, effects),
                Err(error) => Err(Later::Failure(error.into())),
            };
            let receipt = || receipt_of(bytes, whole.body_at);
            count += usize::from(!matches!(done, Err(Later::Wait)));
            match done {
                Ok(()) if taken.is_some() => {}
                Ok(()) => at += size,
                Err(Later::Failure(failure)) => self.fail(&failure, receipt(), effects),
                Err(Later::Wait) => {
                    self.pending_receipt = receipt().map(Into::into);
                    if let Some(taken) = taken {
                        put_back(taken, input);
                    }
                }
            }
        }
        input.advance(at.min(input.len()));
        self.places = places;
        count
    }

    fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        shared: Option<&Bytes>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Later> {
        if self.phase == Phase::Fresh {
            return Ok(self.on_connect(frame, effects)?);
        }
        if self.version != Version::V10 && !frame.body.is_empty() && frame.command != Command::Send
        {
            let text = format!("{} must not have a body", frame.command.as_str());
            return Err(Failure::malformed(text).into());
        }
        match frame.command {
            Command::Send => return self.on_send(frame, shared, now, effects),
            Command::Subscribe => return self.on_subscribe(frame, effects),
            Command::Ack => self.on_ack(frame, effects)?,
            Command::Nack => self.on_nack(frame, effects)?,
            Command::Unsubscribe => self.on_unsubscribe(frame, effects)?,
            Command::Begin => self.on_begin(frame)?,
            Command::Commit => self.on_commit(frame, effects)?,
            Command::Abort => self.on_abort(frame)?,
            Command::Disconnect => self.on_good_bye(frame, effects),
            Command::Connect => {
                return Err(Failure::unexpected("the connection is connected already").into());
            }
        }
        Ok(())
    }
}

/// How many bytes before the next frame are ends of lines: heart-beats, or an old habit.
fn ends_of_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count()
}

/// The header `receipt` of a frame that may be damaged, so that ERROR can name it. Only lines that
/// are whole within `bytes_max` count, however much of the frame has come.
fn receipt_of(bytes: &[u8], bytes_max: usize) -> Option<&str> {
    let bytes = bytes.get(..bytes_max).unwrap_or(bytes);
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').map_while(|l| l.strip_suffix(b"\n"));
    let mut head = whole.take_while(|line| !line.is_empty());
    let value = head.find_map(|line| line.strip_prefix(b"receipt:"))?;
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    let is_plain = |text: &&str| !text.contains('\0');
    std::str::from_utf8(value).ok().filter(is_plain)
}

/// Puts a frame back in front of what follows it.
fn put_back(frame: Bytes, input: &mut BytesMut) {
    let rest = std::mem::take(input);
    let mut whole = frame.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    whole.unsplit(rest);
    *input = whole;
}

/// The value that a frame must have.
///
/// Errors: it has none.
pub(crate) fn demand<'a>(frame: &Frame<'a>, name: &'static str) -> Step<Cow<'a, str>> {
    frame.find(name).ok_or_else(|| {
        Failure::malformed(format!("{} has no header '{name}'", frame.command.as_str()))
    })
}

//! A frame of a client: its command, its headers in place, its body.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{BadEscape, Command, Version, splitter::Whole, unescape};

/// Bounds on the headers of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderBounds {
    /// Headers in total.
    pub headers_max: usize,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The first line is no command.
    #[error("unknown command '{0}'")]
    Command(String),
    /// A header line has no colon, or nothing before it.
    #[error("a header line is not of the form name:value")]
    Line,
    /// Headers are not UTF-8, or hold NUL.
    #[error("headers must be UTF-8 without NUL")]
    NotText,
    /// There are too many.
    #[error("a frame has at most {0} headers")]
    TooMany(usize),
    /// An escape that the version does not define.
    #[error(transparent)]
    Escape(#[from] BadEscape),
    /// A body where the specification forbids one.
    #[error("{0} must not have a body")]
    Body(&'static str),
}

/// Where a header stands in the head of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderAt {
    name: u32,
    colon: u32,
    end: u32,
}

/// A frame, borrowed from the bytes it came in.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What it wants.
    pub command: Command,
    /// The body.
    pub body: &'a [u8],
    version: Version,
    head: &'a str,
    headers: &'a [HeaderAt],
}

impl<'a> Frame<'a> {
    /// Reads a frame that is whole. `places` is a buffer of the caller that is reused from call to
    /// call.
    ///
    /// Errors: [`BadFrame`].
    pub fn parse(
        bytes: &'a [u8],
        whole: Whole,
        version: Version,
        bounds: HeaderBounds,
        places: &'a mut Vec<HeaderAt>,
    ) -> Result<Self, BadFrame> {
        let head = bytes.get(..whole.body_at).unwrap_or_default();
        let body_end = whole.body_at.saturating_add(whole.body_bytes);
        let body = bytes.get(whole.body_at..body_end).unwrap_or_default();
        places.clear();
        let (word, mut at) = line(head, 0, version)?.ok_or(BadFrame::Line)?;
        let command = Command::parse(word).ok_or_else(|| {
            let shown = word.get(..word.len().min(Command::BYTES_MAX)).unwrap_or_default();
            BadFrame::Command(String::from_utf8_lossy(shown).into_owned())
        })?;
        // CONNECT comes before any version is agreed upon, and its lines may end as in 1.2.
        let version = if command == Command::Connect { Version::V10 } else { version };
        while let Some((text, next)) = line(head, at, version)? {
            if text.is_empty() {
                break;
            }
            if places.len() >= bounds.headers_max {
                return Err(BadFrame::TooMany(bounds.headers_max));
            }
            let colon = memchr(b':', text).filter(|colon| *colon > 0).ok_or(BadFrame::Line)?;
            places.push(HeaderAt {
                name: place(at)?,
                colon: place(at.saturating_add(colon))?,
                end: place(at.saturating_add(text.len()))?,
            });
            at = next;
        }
        let head = std::str::from_utf8(head).map_err(|_| BadFrame::NotText)?;
        if command != Command::Send && !body.trim_ascii().is_empty() {
            return Err(BadFrame::Body(command.as_str()));
        }
        let frame = Self { command, body, version, head, headers: places };
        if memchr(b'\\', head.as_bytes()).is_some() {
            for (name, value) in frame.raw_headers() {
                unescape(name, version)?;
                unescape(value, version)?;
            }
        }
        Ok(frame)
    }

    /// Headers as they stand in the frame, in order.
    pub fn raw_headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let head = self.head;
        self.headers.iter().map(move |header| {
            let part = |from: u32, to: u32| {
                let (from, to) = (usize::try_from(from), usize::try_from(to));
                from.ok().zip(to.ok()).and_then(|(from, to)| head.get(from..to)).unwrap_or_default()
            };
            let name = part(header.name, header.colon);
            (name, part(header.colon.saturating_add(1), header.end))
        })
    }

    /// The value of the first header with this name, decoded. `name` needs no escapes itself.
    pub fn find(&self, name: &str) -> Option<Cow<'a, str>> {
        self.find_raw(name).map(|value| self.decode(value))
    }

    /// The value of the first header with this name, as it stands in the frame.
    pub fn find_raw(&self, name: &str) -> Option<&'a str> {
        self.raw_headers().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A value as it is meant.
    pub fn decode(&self, value: &'a str) -> Cow<'a, str> {
        match self.version {
            // In 1.0 a space behind the colon is usual and means nothing.
            Version::V10 => Cow::Borrowed(value.trim()),
            // Its escapes were looked at when the frame was read.
            Version::V11 | Version::V12 => {
                unescape(value, self.version).unwrap_or(Cow::Borrowed(value))
            }
        }
    }

    /// The version whose escapes the headers have.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// A line without its end, and where the next begins; `None` behind the last.
fn line(head: &[u8], at: usize, version: Version) -> Result<Option<(&[u8], usize)>, BadFrame> {
    let rest = head.get(at..).unwrap_or_default();
    let Some(end) = memchr2(b'\n', 0, rest) else { return Ok(None) };
    if rest.get(end) == Some(&0) {
        return Err(BadFrame::NotText);
    }
    let text = rest.get(..end).unwrap_or_default();
    let text = match text.strip_suffix(b"\r") {
        Some(stripped) if version.strips_carriage_return() => stripped,
        _ => text,
    };
    Ok(Some((text, at.saturating_add(end).saturating_add(1))))
}

fn place(at: usize) -> Result<u32, BadFrame> {
    u32::try_from(at).map_err(|_| BadFrame::Line)
}

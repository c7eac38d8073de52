//! Where a frame ends.

use memchr::memchr;

/// Bounds on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the command and the headers, with the ends of their lines.
    pub head_bytes_max: usize,
    /// Bytes of the body.
    pub body_bytes_max: usize,
}

/// A frame that must not be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// Its headers do not end.
    #[error("the headers of a frame have more than {0} bytes")]
    Head(usize),
    /// Its body is, or says it is, larger than a message may be.
    #[error("a body has at most {max} bytes, this one has {bytes} or more")]
    Body {
        /// What is allowed.
        max: usize,
        /// What is known of it.
        bytes: usize,
    },
    /// `content-length` is not a number.
    #[error("content-length is not a number")]
    Length,
    /// The byte behind a body of known length is not NUL.
    #[error("there is no NUL where content-length says that the body ends")]
    End,
}

impl TooLong {
    /// True when there is more than may be, and not something else than is said.
    pub fn is_of_size(self) -> bool {
        matches!(self, Self::Head(_) | Self::Body { .. })
    }
}

/// Finds the end of the first frame in a buffer, and remembers how far it has looked, so that a
/// frame that comes byte by byte is looked at once.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Bytes that have been looked at.
    seen: usize,
    /// Where the header line begins whose end has not come.
    line_at: usize,
    /// What the first `content-length` says.
    length: Option<Result<usize, TooLong>>,
    head: Option<Head>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    body_at: usize,
    length: Option<usize>,
}

/// A frame with its NUL at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Where the body begins, which is behind the empty line.
    pub body_at: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
}

impl Whole {
    /// Bytes of the frame, its NUL included.
    pub fn size(&self) -> usize {
        self.body_at.saturating_add(self.body_bytes).saturating_add(1)
    }
}

impl Splitter {
    /// Looks at `bytes`, which begin with a frame; `None` while it is not whole. Once it is, the
    /// next call is for the next frame.
    ///
    /// Errors: [`TooLong`] when there is no need to wait for the rest.
    pub fn find(&mut self, bytes: &[u8], bounds: Bounds) -> Result<Option<Whole>, TooLong> {
        let head = match self.head {
            Some(head) => head,
            None => match self.find_head(bytes, bounds)? {
                Some(head) => *self.head.insert(head),
                None => return Ok(None),
            },
        };
        let found = match head.length {
            Some(length) => end_by_length(bytes, head.body_at, length, bounds),
            None => self.end_by_nul(bytes, head.body_at, bounds),
        };
        if let Ok(Some(_)) = found {
            *self = Self::default();
        }
        found
    }

    /// Looks for the empty line, and for `content-length` on the way there.
    fn find_head(&mut self, bytes: &[u8], bounds: Bounds) -> Result<Option<Head>, TooLong> {
        loop {
            let from = self.seen.max(self.line_at);
            let Some(end) = memchr(b'\n', bytes.get(from..).unwrap_or_default()) else { break };
            let line_end = from.saturating_add(end);
            let line = bytes.get(self.line_at..line_end).unwrap_or_default();
            let next = line_end.saturating_add(1);
            if next > bounds.head_bytes_max {
                return Err(TooLong::Head(bounds.head_bytes_max));
            }
            if line.is_empty() || line == b"\r" {
                return Ok(Some(Head { body_at: next, length: self.length.transpose()? }));
            }
            // Of repeated headers the first counts.
            if self.length.is_none()
                && let Some(value) = line.strip_prefix(b"content-length:")
            {
                self.length = Some(parse_length(value));
            }
            self.line_at = next;
        }
        if bytes.len() > bounds.head_bytes_max {
            return Err(TooLong::Head(bounds.head_bytes_max));
        }
        self.seen = bytes.len();
        Ok(None)
    }

    fn end_by_nul(
        &mut self,
        bytes: &[u8],
        body_at: usize,
        bounds: Bounds,
    ) -> Result<Option<Whole>, TooLong> {
        let from = self.seen.max(body_at);
        let end = memchr(0, bytes.get(from..).unwrap_or_default());
        let have = end.map_or(bytes.len(), |at| from.saturating_add(at)).saturating_sub(body_at);
        if have > bounds.body_bytes_max {
            return Err(TooLong::Body { max: bounds.body_bytes_max, bytes: have });
        }
        self.seen = bytes.len();
        Ok(end.map(|_| Whole { body_at, body_bytes: have }))
    }
}

fn end_by_length(
    bytes: &[u8],
    body_at: usize,
    length: usize,
    bounds: Bounds,
) -> Result<Option<Whole>, TooLong> {
    if length > bounds.body_bytes_max {
        return Err(TooLong::Body { max: bounds.body_bytes_max, bytes: length });
    }
    match bytes.get(body_at.saturating_add(length)) {
        None => Ok(None),
        Some(0) => Ok(Some(Whole { body_at, body_bytes: length })),
        Some(_) => Err(TooLong::End),
    }
}

fn parse_length(value: &[u8]) -> Result<usize, TooLong> {
    let text = value.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(TooLong::Length);
    }
    // Only digits: what does not fit is larger than any bound.
    let text = std::str::from_utf8(text).unwrap_or_default();
    Ok(text.parse().unwrap_or(usize::MAX))
}

//! The versions of the protocol, and what differs between them in bytes.

/// A version of STOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.0: no escapes, no heart-beats, no NACK.
    V10,
    /// 1.1: escapes for line feed, colon and backslash.
    V11,
    /// 1.2: carriage returns may end lines and have an escape, acknowledgements have a header of
    /// their own.
    V12,
}

impl Version {
    /// Every version, the oldest first.
    pub const ALL: [Self; 3] = [Self::V10, Self::V11, Self::V12];

    /// The text in `accept-version` and `version`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The highest version that both sides speak; clients that name none speak 1.0.
    pub fn negotiate(accepted: Option<&str>) -> Option<Self> {
        let Some(accepted) = accepted else { return Some(Self::V10) };
        let is_accepted =
            |version: &Self| accepted.split(',').any(|text| text.trim() == version.as_str());
        Self::ALL.into_iter().rev().find(is_accepted)
    }

    /// True when a carriage return before a line feed belongs to the end of the line.
    ///
    /// Version 1.1 makes it part of the value. Version 1.0 says nothing, and people type it.
    pub(crate) fn strips_carriage_return(self) -> bool {
        self != Self::V11
    }
}

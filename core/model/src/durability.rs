//! How well a message is kept, and so when it is confirmed.

use std::fmt;

use crate::value::Table;

/// The header with which a publish asks for a weaker class than its queue has, and the argument
/// that gives a queue its class.
pub const DURABILITY: &str = "x-durability";

/// When a message counts as kept; the later ones of the list cost less and keep less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// After `fdatasync`, or COMMIT: survives a power loss.
    #[default]
    Sync,
    /// In the page cache, synced at this interval: a power loss costs up to that much.
    SyncInterval {
        /// The interval in milliseconds.
        ms: u32,
    },
    /// In the page cache, synced when the operating system likes.
    Os,
    /// In memory.
    Memory,
}

/// A class that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{DURABILITY}` is `{0}`; it must be sync, sync-interval:<ms>, os or memory")]
pub struct BadDurability(pub String);

impl Durability {
    /// The one of the two that keeps more.
    pub fn stronger(self, other: Self) -> Self {
        match (self, other) {
            (Self::SyncInterval { ms }, Self::SyncInterval { ms: other }) => {
                Self::SyncInterval { ms: ms.min(other) }
            }
            _ if self.rank() >= other.rank() => self,
            _ => other,
        }
    }

    /// The one of the two that keeps less.
    pub fn weaker(self, other: Self) -> Self {
        match (self, other) {
            (Self::SyncInterval { ms }, Self::SyncInterval { ms: other }) => {
                Self::SyncInterval { ms: ms.max(other) }
            }
            _ if self.rank() <= other.rank() => self,
            _ => other,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Memory => 0,
            Self::Os => 1,
            Self::SyncInterval { .. } => 2,
            Self::Sync => 3,
        }
    }

    /// Reads `sync`, `sync-interval:<ms>`, `os` or `memory`.
    ///
    /// Errors: any other text.
    pub fn parse(text: &str) -> Result<Self, BadDurability> {
        match text {
            "sync" => Ok(Self::Sync),
            "os" => Ok(Self::Os),
            "memory" => Ok(Self::Memory),
            other => {
                let ms = other.strip_prefix("sync-interval:").and_then(|ms| ms.parse().ok());
                let ms = ms.filter(|ms| *ms > 0).ok_or_else(|| BadDurability(text.to_owned()))?;
                Ok(Self::SyncInterval { ms })
            }
        }
    }

    /// The class that headers ask for, if they do.
    pub(crate) fn asked(headers: &Table) -> Option<Self> {
        let (_, value) = headers.iter().find(|(name, _)| name == DURABILITY)?;
        Self::parse(value.as_str()?).ok()
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync => f.write_str("sync"),
            Self::SyncInterval { ms } => write!(f, "sync-interval:{ms}"),
            Self::Os => f.write_str("os"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [Durability; 5] = [
        Durability::Memory,
        Durability::Os,
        Durability::SyncInterval { ms: 200 },
        Durability::SyncInterval { ms: 100 },
        Durability::Sync,
    ];

    #[test]
    fn a_class_is_read_as_it_is_shown() {
        for class in CLASSES {
            assert_eq!(Durability::parse(&class.to_string()), Ok(class));
        }
        for bad in ["", "Sync", "sync-interval", "sync-interval:0", "sync-interval:1h", "disk"] {
            assert_eq!(Durability::parse(bad), Err(BadDurability(bad.to_owned())));
        }
    }

    #[test]
    fn of_two_classes_one_keeps_more() {
        for (at, weak) in CLASSES.into_iter().enumerate() {
            for strong in CLASSES.into_iter().skip(at) {
                assert_eq!((weak.stronger(strong), strong.stronger(weak)), (strong, strong));
                assert_eq!((weak.weaker(strong), strong.weaker(weak)), (weak, weak));
            }
        }
    }
}

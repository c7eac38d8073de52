//! Names that clients choose, checked once at the edge.

use std::{fmt, sync::Arc};

/// The longest name in bytes; the bound of an AMQP short string.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The text is empty where a name is needed.
    #[error("a {0} name must not be empty")]
    Empty(&'static str),
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("a {0} name has at most 255 bytes, this one has {1}")]
    TooLong(&'static str, usize),
    /// The text holds a NUL character.
    #[error("a {0} name must not hold a NUL character")]
    Nul(&'static str),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, empty = $empty:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and keeps it.
            ///
            /// Errors: [`BadName`] when the text is empty where it must not be, too long, or holds
            /// NUL.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
                let text = text.as_ref();
                if text.is_empty() && !$empty {
                    return Err(BadName::Empty($what));
                }
                if text.len() > NAME_BYTES_MAX {
                    return Err(BadName::TooLong($what, text.len()));
                }
                if text.bytes().any(|b| b == 0) {
                    return Err(BadName::Nul($what));
                }
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// Name of a virtual host.
    VhostName, "virtual host", empty = false
}
name! {
    /// Name of an exchange; the empty name is the default exchange.
    ExchangeName, "exchange", empty = true
}
name! {
    /// Name of a queue: 1 to 255 bytes of UTF-8.
    ///
    /// The bound is that of an AMQP short string. Other protocols map their names before they reach
    /// this type.
    QueueName, "queue", empty = false
}
name! {
    /// Name of a user.
    UserName, "user", empty = false
}

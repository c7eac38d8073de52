//! Between stanzas and messages of the broker.

mod fields;
mod native;
mod read;
mod render;

pub use native::XMPP;
pub(crate) use read::{Draft, Sender, read};
pub(crate) use render::{Form, Rendered, Shown, render};

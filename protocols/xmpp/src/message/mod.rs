//! Between stanzas and messages of the broker.

mod explain;
mod fields;
mod native;
mod read;
mod render;

pub(crate) use explain::explain;
pub use native::XMPP;
pub(crate) use read::{Draft, Sender, read};
pub(crate) use render::{Form, Rendered, Shown, render};

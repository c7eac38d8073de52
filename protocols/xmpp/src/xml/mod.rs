//! XML as XMPP allows it (RFC 6120, section 11): elements, attributes and text, and nothing else.

pub mod element;
pub mod ns;
pub mod parser;
mod write;

pub use element::{Attribute, Element, Node};
pub use parser::{Bad, Parsed, StreamParser, document, lone_element};
pub use write::{write, write_children};

/// True when XML 1.0 can hold the character.
pub fn is_legal(c: char) -> bool {
    let is_white = matches!(c, '\t' | '\n' | '\r');
    is_white || matches!(c, '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

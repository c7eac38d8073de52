//! Topics: their two texts, patterns over their levels, and the trie that finds patterns by topic.
//!
//! A topic is a list of levels. Keys are stored and routed in *dot form*, where levels are joined
//! with `.` and a dot inside a level is written `/`; MQTT shows the *slash form*, where the two are
//! exchanged. Levels are compared in their dot-form text, so matching converts and allocates
//! nothing. The empty key is the topic without levels; it has no slash form.

mod pattern;
mod text;
mod trie;
mod wire;

pub use pattern::{BadPattern, Level, PATTERN_LEVELS_MAX, Pattern, Syntax};
pub use text::{
    BadTopic, Levels, dot_to_slash, levels, slash_to_dot, swap_separators, valid_key,
    valid_topic_filter, valid_topic_name,
};
pub use trie::{EntryId, Trie};
pub use wire::{AMQP_KEY_BYTES_MAX, amqp_wire_key};

#[cfg(test)]
mod tests;

//! What a message loses on its way to consumers of other protocols.

use std::collections::BTreeMap;

use polymq_model::{
    Message,
    carry::{self, TARGETS, Target},
};

use crate::{core::Core, queue::Queue};

/// Consumers of a queue that are looked at.
const CONSUMERS_MAX: usize = 1000;

impl Core {
    /// The protocols of those who read a queue, as people call them, with the form in which they
    /// get messages where that is known.
    pub(crate) fn readers_of(&self, queue: &Queue) -> BTreeMap<String, Option<Target>> {
        let ids: Vec<_> = queue.consumer_connections(CONSUMERS_MAX);
        let connections = self.connections.lock();
        let known = ids.iter().filter_map(|id| connections.get(id));
        let facts: Vec<_> = known.map(|record| (record.protocol, record.facts.clone())).collect();
        drop(connections);
        let label =
            |(protocol, facts): &(&'static str, std::sync::Arc<crate::view::ConnectionFacts>)| {
                let version = facts.introduced_as();
                let target = target_of(protocol, version);
                let name = if version.is_empty() { *protocol } else { version };
                (name.to_owned(), target)
            };
        facts.iter().map(label).collect()
    }
}

/// The form of messages that a connection gets, by its protocol and version.
fn target_of(protocol: &str, version: &str) -> Option<Target> {
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let version = plain(version);
    let name = match version.as_str() {
        // 3.1 and 3.1.1 carry the same.
        "mqtt31" | "mqtt311" => "mqtt311",
        "mqtt50" => "mqtt5",
        "" if protocol == "json" => "http",
        "" => protocol,
        "xmpp10" => "xmpp",
        other => other,
    };
    TARGETS.into_iter().find(|(known, _)| *known == name).map(|(_, target)| target)
}

/// Fields whose values do not arrive as they were sent, in a few words.
pub(crate) fn summary(message: &Message, target: Target, now_ms: u64) -> String {
    let mut by_outcome: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for line in carry::explain(message, target, now_ms) {
        // What has another name or place arrives all the same.
        if !matches!(line.outcome, "kept" | "renamed" | "carried") {
            by_outcome.entry(line.outcome).or_default().push(line.field);
        }
    }
    let told =
        by_outcome.iter().map(|(outcome, fields)| format!("{outcome}: {}", fields.join(", ")));
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_by_what_connections_say() {
        let is = |protocol, version, target| assert_eq!(target_of(protocol, version), Some(target));
        is("amqp091", "AMQP 0-9-1", Target::Amqp091);
        is("mqtt", "MQTT 3-1-1", Target::Mqtt311);
        is("mqtt", "MQTT 5-0", Target::Mqtt5);
        is("stomp", "STOMP 1.2", Target::Stomp12);
        is("http", "", Target::Http);
        is("json", "", Target::Http);
    }
}

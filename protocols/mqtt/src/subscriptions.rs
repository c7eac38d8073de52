//! Subscriptions of one client: which there are, and where their deliveries come from.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use polymq_contract::{Subscription, SubscriptionTarget};
use polymq_model::{
    ConsumerId, Limits, Message, QueueName,
    address::{BadDestination, MqttDestination},
    names::NAME_BYTES_MAX,
    sha256,
    topic::{Pattern, dot_to_slash, swap_separators, valid_topic_filter},
};

use crate::{
    codec::{Fault, Reason, subscribe::Filter},
    ids::ConsumerMap,
};

/// Deliveries of the client session's own queue.
pub(crate) const SESSION_QUEUE: ConsumerId = ConsumerId(0);
/// The first consumer number for queues and shares; 0 and 1 belong to the client session.
const FIRST_CONSUMER: u32 = 2;

/// Ended consumers whose source is remembered.
const RETIRED_MAX: usize = 64;

/// A subscription whose messages come from a queue: a plain one or that of a share. The broker
/// knows its consumer as one of a queue, so what the client asked for is kept here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// How a plain queue is shown; a share shows the origin topic.
    pub(crate) queue: Option<PlainQueue>,
    /// Highest quality of service the client wants.
    pub(crate) qos: u8,
    /// Keep the retain flag as it was published.
    pub(crate) retain_as_published: bool,
    /// Subscription identifier, if given.
    pub(crate) id: Option<u32>,
}

/// A plain queue as a client knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlainQueue {
    /// Its name.
    pub(crate) name: String,
    /// The topic, `$queue/<name as the client wrote it>`.
    topic: String,
    /// The origin topic follows.
    with_origin: bool,
}

impl PlainQueue {
    /// Appends the topic of a message with this key.
    pub(crate) fn push_topic(&self, key: &str, out: &mut String) {
        out.push_str(&self.topic);
        if self.with_origin && !key.is_empty() {
            out.push('/');
            dot_to_slash(key, out);
        }
    }
}

/// The client's subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// By filter: the consumer, for queues and shares.
    filters: HashMap<String, Option<ConsumerId>>,
    sources: ConsumerMap<Arc<Source>>,
    /// Consumers that have ended, oldest first; deliveries of theirs may still be unfinished.
    retired: VecDeque<ConsumerId>,
    next_consumer: u32,
    /// Filters of plain topics.
    plain: usize,
    /// Exchanges named in filters, and how the client wrote each.
    exchanges: Vec<NamedExchange>,
}

#[derive(Debug)]
struct NamedExchange {
    exchange: String,
    written: String,
    filter: String,
}

/// Why a filter is not subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The packet breaks a rule of the specification: the connection ends.
    Fault(Fault),
    /// A rule of ours refuses the filter.
    Refused(Reason, String),
}

/// A filter taken apart.
struct Target<'a> {
    target: SubscriptionTarget,
    /// How messages of a plain queue are shown.
    queue: Option<PlainQueue>,
    /// The exchange and how it is written, when the filter names one.
    exchange: Option<(&'a str, String)>,
    is_shared: bool,
}

impl Subscriptions {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.filters.len()
    }

    /// True when the client has subscribed this filter.
    pub(crate) fn contains(&self, filter: &str) -> bool {
        self.filters.contains_key(filter)
    }

    /// The queue or share behind `consumer`; `None` for topics.
    pub(crate) fn source(&self, consumer: ConsumerId) -> Option<&Arc<Source>> {
        self.sources.get(&consumer)
    }

    /// True for the consumer of a shared subscription.
    pub(crate) fn is_shared(&self, consumer: ConsumerId) -> bool {
        self.sources.get(&consumer).is_some_and(|source| source.queue.is_none())
    }

    /// The filter of a queue or share consumer.
    pub(crate) fn filter_of(&self, consumer: ConsumerId) -> Option<&str> {
        let found = self.filters.iter().find(|(_, number)| **number == Some(consumer));
        found.map(|(filter, _)| filter.as_str())
    }

    /// True when a filter names an exchange, so that topics must show theirs.
    pub(crate) fn names_exchanges(&self) -> bool {
        !self.exchanges.is_empty()
    }

    /// How the client wrote the exchange, if its messages are to be shown with it. `topics` is the
    /// exchange of plain topics, which is shown only to clients that have no filters of plain
    /// topics.
    pub(crate) fn written(&self, exchange: &str, topics: &str) -> Option<&str> {
        if exchange == topics && self.plain > 0 {
            return None;
        }
        let named = self.exchanges.iter().find(|named| named.exchange == exchange)?;
        Some(&named.written)
    }

    /// The key that a message with several keys is shown with: the first that a filter matches
    /// [MQTT-3.3.2-3].
    pub(crate) fn shown_key<'a>(&self, message: &'a Message) -> &'a str {
        let patterns: Vec<_> = self.filters.keys().filter_map(|filter| pattern(filter)).collect();
        let extra = message.extra_keys().iter().map(|key| &**key);
        let mut keys = std::iter::once(message.key()).chain(extra);
        let shown = keys.find(|key| patterns.iter().any(|pattern| pattern.matches(key)));
        shown.unwrap_or_else(|| message.key())
    }

    /// Checks a filter and makes the subscription to send to the broker. Nothing is remembered yet.
    pub(crate) fn prepare(
        &mut self,
        filter: &Filter<'_>,
        id: Option<u32>,
        exchange: &str,
        limits: &Limits,
    ) -> Result<Subscription, Unfit> {
        let found = target(filter, exchange, limits)?;
        if found.is_shared && filter.no_local {
            // [MQTT-3.8.3-4]
            return Err(Unfit::Fault(Fault::protocol("a shared subscription asks for no local")));
        }
        if self.len() >= limits.subscriptions_max && !self.filters.contains_key(filter.filter) {
            let text = format!("a client has at most {} subscriptions", limits.subscriptions_max);
            return Err(Unfit::Refused(Reason::QUOTA_EXCEEDED, text));
        }
        let consumer = match (is_topic(&found.target), self.filters.get(filter.filter)) {
            (true, _) => SESSION_QUEUE,
            (false, Some(Some(consumer))) => *consumer,
            (false, _) => self.new_consumer(),
        };
        Ok(Subscription {
            filter: filter.filter.to_owned(),
            target: found.target,
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            retain_handling: filter.retain_handling,
            id,
            consumer,
            arguments: Vec::new(),
        })
    }

    fn new_consumer(&mut self) -> ConsumerId {
        self.next_consumer = self.next_consumer.max(FIRST_CONSUMER);
        let consumer = ConsumerId(self.next_consumer);
        self.next_consumer = self.next_consumer.saturating_add(1);
        consumer
    }

    /// Remembers a subscription. Its deliveries may follow at once, so this comes before the
    /// broker's answer.
    pub(crate) fn insert(&mut self, subscription: &Subscription, exchange: &str, limits: &Limits) {
        let filter = Filter {
            filter: &subscription.filter,
            qos: subscription.qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        };
        let Ok(found) = target(&filter, exchange, limits) else { return };
        let consumer = (!is_topic(&found.target)).then_some(subscription.consumer);
        if let Some(consumer) = consumer {
            self.next_consumer = self.next_consumer.max(consumer.0.saturating_add(1));
            let source = Source {
                queue: found.queue,
                qos: subscription.qos,
                retain_as_published: subscription.retain_as_published,
                id: subscription.id,
            };
            self.sources.insert(consumer, Arc::new(source));
        }
        if self.filters.insert(subscription.filter.clone(), consumer).is_some() {
            return;
        }
        match found.exchange {
            Some((written, exchange)) => {
                let (written, filter) = (written.to_owned(), subscription.filter.clone());
                self.exchanges.push(NamedExchange { exchange, written, filter });
            }
            None => self.plain += usize::from(consumer.is_none()),
        }
    }

    /// Forgets a subscription. Its consumer stays known for a while, because deliveries may be
    /// unfinished.
    pub(crate) fn remove(&mut self, filter: &str) {
        let Some(consumer) = self.filters.remove(filter) else { return };
        let named = self.exchanges.len();
        self.exchanges.retain(|named| named.filter != filter);
        let Some(consumer) = consumer else {
            self.plain -= usize::from(named == self.exchanges.len());
            return;
        };
        self.retired.push_back(consumer);
        if self.retired.len() > RETIRED_MAX
            && let Some(oldest) = self.retired.pop_front()
        {
            self.sources.remove(&oldest);
        }
    }
}

fn is_topic(target: &SubscriptionTarget) -> bool {
    match target {
        SubscriptionTarget::Topic { .. } => true,
        SubscriptionTarget::Share { .. } | SubscriptionTarget::Queue { .. } => false,
    }
}

/// Takes a filter apart.
fn target<'a>(filter: &Filter<'a>, exchange: &str, limits: &Limits) -> Result<Target<'a>, Unfit> {
    let text = filter.filter;
    if text.is_empty() {
        // [MQTT-4.7.3-1]
        return Err(Unfit::Fault(Fault::malformed("a topic filter is empty")));
    }
    let refused = |text: String| Unfit::Refused(Reason::TOPIC_FILTER_INVALID, text);
    valid_topic_filter(text, limits).map_err(|bad| refused(bad.to_string()))?;
    let topics = |exchange: &str, pattern: &str| SubscriptionTarget::Topic {
        exchange: exchange.to_owned(),
        pattern: swapped(pattern),
    };
    match MqttDestination::subscribe(text) {
        Ok(MqttDestination::Topic(pattern) | MqttDestination::System(pattern)) => {
            check_wildcards(pattern)?;
            let target = topics(exchange, pattern);
            Ok(Target { target, queue: None, exchange: None, is_shared: false })
        }
        Ok(MqttDestination::Exchange { exchange: name, written, key }) => {
            check_wildcards(key)?;
            let target = topics(&name, key);
            let exchange = Some((written, name.into_owned()));
            Ok(Target { target, queue: None, exchange, is_shared: false })
        }
        Ok(MqttDestination::Shared { group, filter: pattern }) => {
            check_wildcards(pattern)?;
            let target = SubscriptionTarget::Share {
                queue: share_queue(text, group),
                exchange: exchange.to_owned(),
                pattern: swapped(pattern),
            };
            Ok(Target { target, queue: None, exchange: None, is_shared: true })
        }
        Ok(MqttDestination::Queue { name, written, with_origin }) => {
            QueueName::new(&name).map_err(|bad| refused(bad.to_string()))?;
            let name = name.into_owned();
            let target = SubscriptionTarget::Queue { queue: name.clone() };
            let queue = PlainQueue { name, topic: format!("$queue/{written}"), with_origin };
            Ok(Target { target, queue: Some(queue), exchange: None, is_shared: false })
        }
        Ok(MqttDestination::Delayed { .. }) => {
            Err(refused(format!("`{text}` can only be published to")))
        }
        Err(bad) => {
            // A share without name or filter, or with a wildcard in its name, is malformed
            // [MQTT-4.8.2-1, -2].
            let share = text == "$share" || text.starts_with("$share/");
            match bad {
                BadDestination::Malformed(..) if share && !text_is_nested(text) => {
                    Err(Unfit::Fault(Fault::malformed("a shared subscription is malformed")))
                }
                bad => Err(refused(bad.to_string())),
            }
        }
    }
}

/// What topics a filter matches; `None` for that of a plain queue.
fn pattern(filter: &str) -> Option<Pattern> {
    match MqttDestination::subscribe(filter).ok()? {
        MqttDestination::Topic(pattern)
        | MqttDestination::System(pattern)
        | MqttDestination::Exchange { key: pattern, .. }
        | MqttDestination::Shared { filter: pattern, .. } => Pattern::slash(pattern).ok(),
        MqttDestination::Queue { .. } | MqttDestination::Delayed { .. } => None,
    }
}

/// True for a share of a filter that begins with `$`, which the specification permits and this
/// server does not.
fn text_is_nested(text: &str) -> bool {
    let rest = text.strip_prefix("$share/").unwrap_or_default();
    rest.split_once('/').is_some_and(|(group, filter)| {
        !group.is_empty() && !group.contains(['+', '#']) && filter.starts_with('$')
    })
}

fn check_wildcards(pattern: &str) -> Result<(), Unfit> {
    // [MQTT-4.7.1-1, -2]
    match Pattern::slash(pattern) {
        Ok(_) => Ok(()),
        Err(bad) => Err(Unfit::Fault(Fault::new(Reason::MALFORMED_PACKET, bad.to_string()))),
    }
}

fn swapped(pattern: &str) -> String {
    let mut out = String::new();
    swap_separators(pattern, &mut out);
    out
}

/// The queue of a shared subscription: its own text, or a hash of it when that is too long for a
/// name.
fn share_queue(text: &str, group: &str) -> String {
    if text.len() <= NAME_BYTES_MAX {
        return text.to_owned();
    }
    let hash = sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let queue = format!("$share/{group}/sha256-{hash}");
    if queue.len() <= NAME_BYTES_MAX { queue } else { format!("$share/sha256-{hash}") }
}

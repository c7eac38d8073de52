//! Bindings of an exchange, indexed for its type.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{
    ExchangeName, Message, Properties, Table,
    persistent::PersistentMap,
    topic::{EntryId, Pattern, Syntax, Trie},
    value::find,
};

use super::{
    choice::Choice,
    exchange::{ExchangeKind, ExchangeSpec},
    headers,
};
use crate::{chance::Chance, client_session::ClientEndpoint, queue::Queue};

/// Where a binding leads.
#[derive(Clone)]
pub(crate) enum Destination {
    /// A queue.
    Queue(Arc<Queue>),
    /// Another exchange, by name, so that it may be replaced.
    Exchange(ExchangeName),
    /// A client session: its queue, or its connection directly, as the quality of service asks.
    Client(Arc<ClientEndpoint>, SubscriptionOptions),
}

/// What a subscription of a client session asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionOptions {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<u32>,
}

/// A binding.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) destination: Destination,
    pub(crate) key: Arc<str>,
    pub(crate) arguments: Arc<Table>,
}

impl Binding {
    /// What makes two bindings of one exchange the same: destination, key and arguments.
    pub(crate) fn identity(&self) -> Box<str> {
        let (kind, name) = match &self.destination {
            Destination::Queue(queue) => ("q", queue.name.as_str().to_owned()),
            Destination::Exchange(exchange) => ("e", exchange.as_str().to_owned()),
            Destination::Client(endpoint, _) => ("c", endpoint.number.to_string()),
        };
        let mut arguments: Vec<String> =
            self.arguments.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        arguments.sort();
        format!("{kind}\0{name}\0{}\0{}", self.key, arguments.join("\0")).into()
    }

    /// The pattern of the binding's key.
    ///
    /// Errors: kind `Invalid`.
    pub(crate) fn pattern(&self) -> Result<Pattern, Refusal> {
        let syntax = match find(&self.arguments, "x-topic-syntax") {
            None => Syntax::Dot,
            Some(value) => match value.as_str() {
                Some("dot") => Syntax::Dot,
                Some("mqtt") => Syntax::Slash,
                _ => return Err(crate::queue::invalid("x-topic-syntax", value, "dot or mqtt")),
            },
        };
        Pattern::stored(&self.key, syntax).map_err(|bad| {
            Refusal::new(RefusalKind::Invalid, format!("binding key '{}': {bad}", self.key))
        })
    }
}

/// What is looked at to choose among the bindings of an exchange.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) key: &'a str,
    /// `None` when only the key is known.
    pub(crate) message: Option<&'a Message>,
    pub(crate) chance: &'a Chance,
}

/// All bindings of an exchange, and an index for its type. Cloning shares everything.
#[derive(Clone)]
pub(crate) struct Bindings {
    /// With the entry of the trie, for topics.
    all: PersistentMap<Box<str>, (Binding, Option<EntryId>)>,
    index: Index,
}

#[derive(Clone)]
enum Index {
    Keys(PersistentMap<Arc<str>, PersistentMap<Box<str>, Binding>>),
    Topics(Trie<Binding>),
    /// Each message goes to one.
    One(Choice),
    /// Fanout and headers look at every binding.
    None,
}

impl Bindings {
    pub(super) fn new(kind: ExchangeKind) -> Self {
        let index = match kind {
            ExchangeKind::Direct => Index::Keys(PersistentMap::new()),
            ExchangeKind::Topic => Index::Topics(Trie::new()),
            ExchangeKind::Fanout | ExchangeKind::Headers => Index::None,
            ExchangeKind::ConsistentHash
            | ExchangeKind::ModulusHash
            | ExchangeKind::Random
            | ExchangeKind::LocalRandom => Index::One(Choice::default()),
        };
        Self { all: PersistentMap::new(), index }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.all.values().map(|(binding, _)| binding)
    }

    pub(crate) fn get(&self, identity: &str) -> Option<&Binding> {
        self.all.get(identity).map(|(binding, _)| binding)
    }

    /// Adds a binding, replacing one with the same identity.
    ///
    /// Errors: kind `Invalid` when its key or arguments do not suit the exchange's type.
    pub(crate) fn insert(&mut self, kind: ExchangeKind, binding: Binding) -> Result<(), Refusal> {
        if kind == ExchangeKind::Headers {
            headers::check(&binding.arguments)?;
        }
        let identity = binding.identity();
        let mut entry = None;
        match &mut self.index {
            Index::Keys(keys) => {
                let mut at_key = keys.get(&*binding.key).cloned().unwrap_or_default();
                at_key.insert(identity.clone(), binding.clone());
                keys.insert(binding.key.clone(), at_key);
            }
            Index::Topics(trie) => {
                let pattern = binding.pattern()?;
                if let Some((_, Some(before))) = self.all.get(&identity) {
                    trie.remove_entry(&pattern, *before);
                }
                entry = Some(trie.insert(&pattern, binding.clone()));
            }
            Index::One(choice) => {
                choice.remove(&identity);
                choice.insert(kind, binding.clone())?;
            }
            Index::None => {}
        }
        self.all.insert(identity, (binding, entry));
        Ok(())
    }

    /// Removes a binding.
    pub(crate) fn remove(&mut self, identity: &str) -> Option<Binding> {
        let (binding, entry) = self.all.remove(identity)?;
        match &mut self.index {
            Index::Keys(keys) => {
                if let Some(mut at_key) = keys.get(&*binding.key).cloned() {
                    at_key.remove(identity);
                    if at_key.is_empty() {
                        keys.remove(&*binding.key);
                    } else {
                        keys.insert(binding.key.clone(), at_key);
                    }
                }
            }
            Index::Topics(trie) => {
                if let (Ok(pattern), Some(entry)) = (binding.pattern(), entry) {
                    trie.remove_entry(&pattern, entry);
                }
            }
            Index::One(choice) => choice.remove(identity),
            Index::None => {}
        }
        Some(binding)
    }

    /// Calls `each` for every binding that takes the message.
    ///
    /// Returns true when the answer depended on more than the key, so that it must not be cached.
    pub(crate) fn for_each_match(
        &self,
        spec: &ExchangeSpec,
        seen: Seen<'_>,
        each: &mut dyn FnMut(&Binding),
    ) -> bool {
        match &self.index {
            Index::Keys(keys) => {
                keys.get(seen.key).into_iter().flat_map(PersistentMap::values).for_each(each);
                false
            }
            Index::Topics(trie) => {
                trie.for_each_match(seen.key, each);
                false
            }
            Index::One(choice) => {
                let (chosen, depends) = spec.choose(choice, seen);
                chosen.into_iter().for_each(each);
                depends
            }
            Index::None if spec.kind == ExchangeKind::Headers => {
                let none = Properties::default();
                let props = seen.message.map_or(&none, Message::properties);
                let takes = |binding: &&Binding| headers::matches(&binding.arguments, props);
                self.iter().filter(takes).for_each(each);
                true
            }
            Index::None => {
                self.iter().for_each(each);
                false
            }
        }
    }
}

//! Bindings of an exchange, indexed for its type.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{
    ExchangeName, Properties, Table, Value,
    persistent::PersistentMap,
    topic::{Pattern, Syntax, Trie},
    value::find,
};

use super::{exchange::ExchangeKind, headers};
use crate::{client_session::ClientEndpoint, queue::Queue};

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
        let syntax = match find(&self.arguments, "x-topic-syntax").and_then(Value::as_str) {
            Some("mqtt") => Syntax::Slash,
            Some("dot") | None => Syntax::Dot,
            Some(other) => {
                return Err(Refusal::new(
                    RefusalKind::Invalid,
                    format!("x-topic-syntax is `dot` or `mqtt`, not `{other}`"),
                ));
            }
        };
        Pattern::stored(&self.key, syntax).map_err(|bad| {
            Refusal::new(RefusalKind::Invalid, format!("binding key '{}': {bad}", self.key))
        })
    }
}

/// All bindings of an exchange, and an index for its type. Cloning shares everything.
#[derive(Clone)]
pub(crate) struct Bindings {
    all: PersistentMap<Box<str>, Binding>,
    index: Index,
}

#[derive(Clone)]
enum Index {
    Keys(PersistentMap<Arc<str>, Arc<Vec<Binding>>>),
    Topics(Trie<(Box<str>, Binding)>),
    /// Fanout and headers look at every binding.
    None,
}

impl Bindings {
    pub(super) fn new(kind: ExchangeKind) -> Self {
        let index = match kind {
            ExchangeKind::Direct => Index::Keys(PersistentMap::new()),
            ExchangeKind::Topic => Index::Topics(Trie::new()),
            ExchangeKind::Fanout | ExchangeKind::Headers => Index::None,
        };
        Self { all: PersistentMap::new(), index }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.all.values()
    }

    pub(crate) fn get(&self, identity: &str) -> Option<&Binding> {
        self.all.get(identity)
    }

    /// Adds a binding, replacing one with the same identity.
    ///
    /// Errors: kind `Invalid` when its key or arguments do not suit the exchange's type.
    pub(crate) fn insert(&mut self, kind: ExchangeKind, binding: Binding) -> Result<(), Refusal> {
        if kind == ExchangeKind::Headers {
            headers::check(&binding.arguments)?;
        }
        let identity = binding.identity();
        let pattern =
            matches!(self.index, Index::Topics(_)).then(|| binding.pattern()).transpose()?;
        self.remove(&identity);
        match &mut self.index {
            Index::Keys(keys) => {
                let mut at_key = keys.get(&*binding.key).cloned().unwrap_or_default();
                Arc::make_mut(&mut at_key).push(binding.clone());
                keys.insert(binding.key.clone(), at_key);
            }
            Index::Topics(trie) => {
                if let Some(pattern) = &pattern {
                    trie.insert(pattern, (identity.clone(), binding.clone()));
                }
            }
            Index::None => {}
        }
        self.all.insert(identity, binding);
        Ok(())
    }

    /// Removes a binding.
    pub(crate) fn remove(&mut self, identity: &str) -> Option<Binding> {
        let binding = self.all.remove(identity)?;
        match &mut self.index {
            Index::Keys(keys) => {
                if let Some(mut at_key) = keys.get(&*binding.key).cloned() {
                    Arc::make_mut(&mut at_key).retain(|other| &*other.identity() != identity);
                    if at_key.is_empty() {
                        keys.remove(&*binding.key);
                    } else {
                        keys.insert(binding.key.clone(), at_key);
                    }
                }
            }
            Index::Topics(trie) => {
                if let Ok(pattern) = binding.pattern() {
                    trie.remove(&pattern, |(other, _)| &**other == identity);
                }
            }
            Index::None => {}
        }
        Some(binding)
    }

    /// Calls `each` for every binding that takes the message.
    ///
    /// Returns true when the answer depended on the headers, so that it must not be cached.
    pub(crate) fn for_each_match<'a>(
        &'a self,
        kind: ExchangeKind,
        key: &str,
        properties: &mut dyn FnMut() -> Option<&'a Properties>,
        each: &mut dyn FnMut(&Binding),
    ) -> bool {
        match (&self.index, kind) {
            (Index::Keys(keys), _) => {
                keys.get(key).into_iter().flat_map(|list| list.iter()).for_each(each);
            }
            (Index::Topics(trie), _) => trie.for_each_match(key, |(_, binding)| each(binding)),
            (Index::None, ExchangeKind::Headers) => {
                let none = Properties::default();
                let props = properties().unwrap_or(&none);
                self.all
                    .values()
                    .filter(|binding| headers::matches(&binding.arguments, props))
                    .for_each(each);
                return true;
            }
            (Index::None, _) => self.all.values().for_each(each),
        }
        false
    }
}

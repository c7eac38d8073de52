//! Routes this connection has used, kept until the topology or the rights change.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use polymq_contract::Refusal;
use polymq_model::Message;

use crate::routing::Route;

/// Routes kept; when there are more, all are forgotten, which is cheaper than choosing.
const ROUTES_MAX: usize = 4096;

/// A route, or why there is none.
pub(crate) type Cached = Result<Arc<Route>, Arc<Refusal>>;

/// Under which versions the cache was filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Versions {
    pub(crate) topology: u64,
    pub(crate) rights: u64,
}

#[derive(Default)]
pub(crate) struct RouteCache {
    versions: Versions,
    /// The exchange that was last found to be there and open to the connection.
    open: Option<Box<str>>,
    /// The last one used; publishers mostly stay with one.
    last: Option<Arc<Known>>,
    routes: HashTable<Arc<Known>>,
    hasher: RandomState,
}

/// A route and its address.
struct Known {
    /// Exchange and key in one.
    address: Box<[u8]>,
    /// The length of the exchange, to tell them apart.
    split: u16,
    cached: Cached,
}

impl Known {
    fn is_of(&self, message: &Message) -> bool {
        self.split == split_of(message) && *self.address == *message.address_bytes()
    }
}

impl RouteCache {
    /// Forgets everything when `versions` are not those it was filled under.
    pub(crate) fn check(&mut self, versions: Versions) {
        if self.versions != versions {
            let hasher = self.hasher.clone();
            *self = Self { versions, hasher, ..Self::default() };
        }
    }

    /// The route of the last message that was asked about, when this one has the same address.
    pub(crate) fn last(&self, message: &Message) -> Option<Cached> {
        let last = self.last.as_ref().filter(|last| last.is_of(message))?;
        Some(last.cached.clone())
    }

    pub(crate) fn get(&mut self, message: &Message) -> Option<Cached> {
        if let Some(cached) = self.last(message) {
            return Some(cached);
        }
        let hash = self.hasher.hash_one(message.address_bytes());
        let found = self.routes.find(hash, |known| known.is_of(message))?;
        self.last = Some(found.clone());
        Some(found.cached.clone())
    }

    pub(crate) fn put(&mut self, message: &Message, cached: Cached) {
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        let (address, split) = (message.address_bytes(), split_of(message));
        let hash = self.hasher.hash_one(address);
        let known = Arc::new(Known { address: address.into(), split, cached });
        self.last = Some(known.clone());
        self.routes.insert_unique(hash, known, |known| self.hasher.hash_one(&*known.address));
    }

    /// True when an exchange was found to be there and open to the connection, whatever the key.
    pub(crate) fn is_open(&self, exchange: &str) -> bool {
        self.open.as_deref() == Some(exchange)
    }

    /// Remembers that about an exchange.
    pub(crate) fn note_open(&mut self, exchange: &str) {
        self.open = Some(exchange.into());
    }
}

fn split_of(message: &Message) -> u16 {
    u16::try_from(message.exchange_bytes().len()).unwrap_or(u16::MAX)
}

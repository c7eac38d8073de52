//! Routes this connection has used, kept until the topology or the rights change.

use std::{collections::HashMap, sync::Arc};

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
    /// The last one used; publishers mostly stay with one.
    last: Option<(Box<[u8]>, u16, Cached)>,
    /// By exchange and key in one, with the length of the exchange to tell them apart.
    routes: HashMap<Box<[u8]>, Vec<(u16, Cached)>>,
}

impl RouteCache {
    /// Forgets everything when `versions` are not those it was filled under.
    pub(crate) fn check(&mut self, versions: Versions) {
        if self.versions != versions {
            *self = Self { versions, ..Self::default() };
        }
    }

    /// The route of the last message that was asked about, when this one has the same address.
    pub(crate) fn last(&self, message: &Message) -> Option<Cached> {
        let (kept, split, cached) = self.last.as_ref()?;
        let is_same = *split == split_of(message) && **kept == *message.address_bytes();
        is_same.then(|| cached.clone())
    }

    pub(crate) fn get(&mut self, message: &Message) -> Option<Cached> {
        if let Some(cached) = self.last(message) {
            return Some(cached);
        }
        let address = message.address_bytes();
        let split = split_of(message);
        let found = self.routes.get(address)?.iter().find(|(at, _)| *at == split)?;
        let cached = found.1.clone();
        self.last = Some((address.into(), split, cached.clone()));
        Some(cached)
    }

    pub(crate) fn put(&mut self, message: &Message, cached: Cached) {
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        let (address, split) = (message.address_bytes(), split_of(message));
        self.last = Some((address.into(), split, cached.clone()));
        self.routes.entry(address.into()).or_default().push((split, cached));
    }
}

fn split_of(message: &Message) -> u16 {
    u16::try_from(message.exchange_bytes().len()).unwrap_or(u16::MAX)
}

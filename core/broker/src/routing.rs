//! Where a message goes: from exchange and key to queues and direct subscribers.

use std::sync::Arc;

use polymq_contract::{Matched, Refusal, RefusalKind, SubscriptionIds};
use polymq_model::{
    ClientNumber, ExchangeName, Message, Value,
    address::{MAILBOX_PREFIX, Mailbox},
};
use smallvec::SmallVec;

use crate::{
    chance::Chance,
    client_session::ClientEndpoint,
    counters::add,
    queue::Queue,
    statistics::ExchangeStatistics,
    topology::{
        Binding, CONTROL_EXCHANGE, Destination, Exchange, Seen, SubscriptionOptions, Topology,
    },
    trace::Trace,
    vhost::{ReplyTarget, Vhost},
};

/// A place a message goes to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A queue keeps it.
    Queue(Arc<Queue>, Matched),
    /// A connected client gets it at most once.
    Direct(Arc<ClientEndpoint>, Matched),
    /// Whoever waits for a direct reply gets it at most once.
    Reply(ReplyTarget),
}

/// All places of one exchange and key.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(crate) targets: SmallVec<[Target; 2]>,
    /// False when more than the key was looked at, so that the route serves this message only.
    pub(crate) cacheable: bool,
    /// The largest body that may go here, in bytes, and who says so.
    pub(crate) body_bytes_max: Option<(u64, Bounds)>,
    /// The exchange that a client publishes to.
    pub(crate) source: Option<Arc<ExchangeStatistics>>,
    /// How many queues are among the targets.
    pub(crate) queues: u64,
    /// Subscribers left out because they may not read the topic.
    pub(crate) denied: u64,
    /// Traces that its messages may belong to.
    pub(crate) traces: Vec<Arc<Trace>>,
}

/// Whose bound of the size of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bounds {
    Queue,
    Vhost,
}

impl Route {
    /// Looks up what its queues take, next to the virtual host.
    pub(crate) fn with_sizes(mut self, of_vhost: Option<u64>) -> Self {
        let of_queues = self.targets.iter().filter_map(|target| match target {
            Target::Queue(queue, _) => Some((queue.message_bytes_max()?, Bounds::Queue)),
            Target::Direct(..) | Target::Reply(_) => None,
        });
        self.body_bytes_max = of_queues.chain(of_vhost.map(|max| (max, Bounds::Vhost))).min();
        self
    }

    /// Counts messages that a client has published here.
    pub(crate) fn count(&self, messages: u64) {
        if let Some(source) = &self.source {
            add(&source.counters.published, messages);
            add(&source.counters.published_out, messages * self.queues);
        }
    }

    /// Errors: kind `TooLarge` when a queue, or the virtual host, takes no body as large as this
    /// one.
    pub(crate) fn check_size(&self, message: &Message) -> Result<(), Refusal> {
        check_size(message, self.body_bytes_max)
    }
}

/// Errors: kind `TooLarge`.
pub(crate) fn check_size(message: &Message, max: Option<(u64, Bounds)>) -> Result<(), Refusal> {
    let bytes = message.body().len() as u64;
    let Some((max, whose)) = max.filter(|(max, _)| bytes > *max) else { return Ok(()) };
    let bound = match whose {
        Bounds::Queue => format!("x-max-message-size {max} of a queue it goes to"),
        Bounds::Vhost => format!("max-message-size {max} of its virtual host"),
    };
    let text = format!("message size {bytes} is larger than {bound}");
    Err(Refusal::new(RefusalKind::TooLarge, text))
}

/// Watches the routing of a message, for people who ask why it goes where.
pub(crate) trait Watch {
    /// The default exchange looked for the queue of this name.
    fn default_exchange(&mut self, _key: &str, _queue: Option<&Arc<Queue>>) {}

    /// There is no such exchange.
    fn missing(&mut self, _exchange: &str) {}

    /// A binding of the exchange that is being visited took the message.
    fn took(&mut self, _binding: &Binding) {}

    /// An exchange was visited; when nothing took the message, its alternate is next.
    fn visited(&mut self, _exchange: &Exchange, _alternate: Option<&str>) {}
}

/// Nobody watches.
impl Watch for () {}

/// What is being routed, and for whom.
pub(crate) struct Routing<'a> {
    pub(crate) topology: &'a Topology,
    /// Subscriptions of this client that ask for no local messages are passed over.
    pub(crate) publisher: ClientNumber,
    /// The message, for exchanges that look at headers; `None` when only the key is known.
    pub(crate) message: Option<&'a Message>,
}

impl Routing<'_> {
    /// The queues and subscribers for `keys` on `exchange`. An exchange that does not exist takes
    /// nothing.
    pub(crate) fn route<'k>(
        &self,
        exchange: &str,
        keys: impl IntoIterator<Item = &'k str> + Clone,
    ) -> Route {
        self.route_by(&self.topology.chance, exchange, keys)
    }

    /// The same, with random choices made by `chance`.
    pub(crate) fn route_by<'k>(
        &self,
        chance: &Chance,
        exchange: &str,
        keys: impl IntoIterator<Item = &'k str> + Clone,
    ) -> Route {
        self.route_watched(chance, exchange, keys, &mut ())
    }

    /// The same, with somebody who watches.
    pub(crate) fn route_watched<'k>(
        &self,
        chance: &Chance,
        exchange: &str,
        keys: impl IntoIterator<Item = &'k str> + Clone,
        watch: &mut impl Watch,
    ) -> Route {
        let mut found = Found { publisher: self.publisher, ..Found::default() };
        let mut cacheable = true;
        if exchange.is_empty() {
            for key in keys {
                let queue = self.topology.queue(key).or_else(|| self.mailbox(key));
                watch.default_exchange(key, queue);
                if let Some(queue) = queue {
                    found.queue(queue);
                }
            }
        } else {
            cacheable = self.visit(chance, exchange, keys, &mut found, watch);
        }
        let denied = found.denied;
        // Each message that is kept from somebody counts.
        cacheable &= denied == 0;
        let targets = found.into_targets();
        let is_queue = |target: &&Target| matches!(target, Target::Queue(..));
        let queues = targets.iter().filter(is_queue).count() as u64;
        let source = self.topology.statistics_of(exchange);
        let traces = Vec::new();
        Route { targets, cacheable, body_bytes_max: None, source, queues, denied, traces }
    }

    /// The mailbox of the user whose resource a key names.
    fn mailbox(&self, key: &str) -> Option<&Arc<Queue>> {
        let mailbox = key.starts_with(MAILBOX_PREFIX).then(|| Mailbox::parse(key)).flatten()?;
        self.topology.queue(mailbox.queue)
    }

    /// Follows an exchange, its bindings to exchanges, and its alternate when nothing took the
    /// message. Each exchange is visited once.
    fn visit<'k>(
        &self,
        chance: &Chance,
        exchange: &str,
        keys: impl IntoIterator<Item = &'k str> + Clone,
        found: &mut Found,
        watch: &mut impl Watch,
    ) -> bool {
        let Ok(first) = ExchangeName::new(exchange) else { return true };
        let mut cacheable = true;
        let mut seen: SmallVec<[ExchangeName; 4]> = SmallVec::new();
        let mut next: SmallVec<[ExchangeName; 4]> = SmallVec::from_iter([first]);
        while let Some(name) = next.pop() {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name.clone());
            let Some(exchange) = self.topology.exchange(name.as_str()) else {
                watch.missing(name.as_str());
                continue;
            };
            let mut taken = false;
            let mut take = |key: &str, binding: &Binding| {
                taken = true;
                watch.took(binding);
                match &binding.destination {
                    Destination::Queue(queue) => found.queue(queue),
                    Destination::Exchange(other) => next.push(other.clone()),
                    Destination::Client(endpoint, options) => {
                        if endpoint.may_have(exchange.name.as_str(), key) {
                            found.client(endpoint, *options);
                        } else {
                            found.denied += 1;
                        }
                    }
                }
            };
            for key in keys.clone() {
                let seen = Seen { key, message: self.message, chance };
                let mut take = |binding: &Binding| take(key, binding);
                cacheable &= !exchange.bindings.for_each_match(&exchange.spec, seen, &mut take);
                if exchange.spec.kind.takes_one() {
                    break;
                }
            }
            let alternate = exchange.alternate().filter(|_| !taken);
            watch.visited(exchange, alternate);
            if let Some(alternate) = alternate
                && let Ok(alternate) = ExchangeName::new(alternate)
            {
                next.push(alternate);
            }
        }
        cacheable
    }
}

/// Whether clients may publish to an exchange.
///
/// Errors: kind `NotFound`, kind `Reserved` for an internal exchange, kind `NotAvailable`.
pub(crate) fn check_publishable(
    vhost: &Vhost,
    topology: &Topology,
    exchange: &str,
) -> Result<(), Refusal> {
    let name = &vhost.name;
    let (kind, text) = match topology.exchange(exchange) {
        None if !exchange.is_empty() => {
            let text = format!("no exchange '{exchange}' in vhost '{name}'");
            return Err(Refusal::missing("exchange", exchange, text));
        }
        Some(found) if found.spec.internal => (
            RefusalKind::Reserved,
            format!("cannot publish to internal exchange '{exchange}' in vhost '{name}'"),
        ),
        Some(_) if exchange == CONTROL_EXCHANGE => (
            RefusalKind::NotAvailable,
            format!("publishing to exchange '{exchange}' is not available yet"),
        ),
        Some(_) | None => return Ok(()),
    };
    Err(Refusal::new(kind, text))
}

/// The keys of a message's CC header. Those of BCC served its first routing only, and are gone.
pub(crate) fn cc_keys(message: &Message) -> impl Iterator<Item = &str> + Clone {
    let list = match message.properties().header("CC") {
        Some(Value::List(keys)) => keys.as_slice(),
        _ => &[],
    };
    list.iter().filter_map(Value::as_str)
}

/// Matches so far; each queue and each client once.
#[derive(Default)]
struct Found {
    publisher: ClientNumber,
    queues: SmallVec<[Arc<Queue>; 4]>,
    clients: SmallVec<[(Arc<ClientEndpoint>, Merged); 4]>,
    /// Subscribers who may not read the topic.
    denied: u64,
    /// Places by address, once there are many.
    index: std::collections::HashMap<usize, usize>,
}

#[derive(Default)]
struct Merged {
    qos: u8,
    retain_as_published: bool,
    ids: SmallVec<[u32; 1]>,
}

/// Up to this many targets a scan is cheaper than a map.
const SCAN_MAX: usize = 16;

impl Found {
    fn queue(&mut self, queue: &Arc<Queue>) {
        let address = Arc::as_ptr(queue).addr();
        if self.queues.len() <= SCAN_MAX {
            if self.queues.iter().any(|other| Arc::ptr_eq(other, queue)) {
                return;
            }
            self.queues.push(queue.clone());
            if self.queues.len() > SCAN_MAX {
                let places = self.queues.iter().enumerate();
                self.index.extend(places.map(|(at, q)| (Arc::as_ptr(q).addr(), at)));
            }
            return;
        }
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.index.entry(address) {
            vacant.insert(self.queues.len());
            self.queues.push(queue.clone());
        }
    }

    /// Overlapping subscriptions of a client deliver once, with the highest quality of service and
    /// all identifiers.
    fn client(&mut self, endpoint: &Arc<ClientEndpoint>, options: SubscriptionOptions) {
        if options.no_local && endpoint.number == self.publisher {
            return;
        }
        let address = Arc::as_ptr(endpoint).addr();
        let at = if self.clients.len() <= SCAN_MAX {
            self.clients.iter().position(|(other, _)| Arc::ptr_eq(other, endpoint))
        } else {
            self.index.get(&address).copied()
        };
        let at = at.unwrap_or_else(|| {
            self.clients.push((endpoint.clone(), Merged::default()));
            let at = self.clients.len() - 1;
            if self.clients.len() == SCAN_MAX + 1 {
                let places = self.clients.iter().enumerate();
                self.index.extend(places.map(|(at, (c, _))| (Arc::as_ptr(c).addr(), at)));
            } else if self.clients.len() > SCAN_MAX {
                self.index.insert(address, at);
            }
            at
        });
        if let Some((_, merged)) = self.clients.get_mut(at) {
            merged.qos = merged.qos.max(options.qos);
            merged.retain_as_published |= options.retain_as_published;
            merged.ids.extend(options.id);
        }
    }

    fn into_targets(self) -> SmallVec<[Target; 2]> {
        let matched = Matched { qos: 2, ..Matched::default() };
        let mut targets: SmallVec<[Target; 2]> =
            self.queues.into_iter().map(|queue| Target::Queue(queue, matched.clone())).collect();
        for (endpoint, merged) in self.clients {
            let ids = match merged.ids.as_slice() {
                [] => SubscriptionIds::None,
                [id] => SubscriptionIds::One(*id),
                many => SubscriptionIds::Many(many.into()),
            };
            let matched = Matched {
                qos: merged.qos,
                retain_as_published: merged.retain_as_published,
                retained: false,
                ids,
            };
            // The queue of a client exists as soon as one of its subscriptions asks for more than
            // quality 0.
            match endpoint.queue().filter(|_| merged.qos > 0) {
                Some(queue) => targets.push(Target::Queue(queue, matched)),
                None => targets.push(Target::Direct(endpoint, matched)),
            }
        }
        targets
    }
}

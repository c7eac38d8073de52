//! What died, where and of what: dead letters of a virtual host in groups.
//!
//! The queues that are looked at are those to which some queue sends its dead letters now.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use polymq_contract::Refusal;
use polymq_model::{ClientNumber, Now, Seq, VhostName};

use crate::{
    BrokerHandle,
    access::{Principal, Read},
    browse::Reader,
    core::Core,
    queue::{DeadLetterTo, Peeked, Queue},
    routing::{Routing, Target},
    topology::{Destination, Topology},
    vhost::Vhost,
};

/// Groups at most.
const GROUPS_MAX: usize = 1000;
/// Messages read at a time.
const PAGE_MAX: usize = 1000;
/// So much of what a consumer said tells groups apart, in bytes.
const DETAIL_BYTES_MAX: usize = 200;

/// Dead letters that died alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterGroup {
    /// Where they are.
    pub queue: String,
    /// Where they died last.
    pub origin: String,
    /// Of what, as `rejected`.
    pub reason: String,
    /// What the consumer said, if it did.
    pub detail: Option<String>,
    /// How many there are.
    pub count: u64,
    /// When the first of them died, in ms since 1970.
    pub first_ms: u64,
    /// When the last of them died, in ms since 1970.
    pub last_ms: u64,
    /// The position of one of them.
    pub sample_seq: u64,
}

/// The dead letters of a virtual host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// Groups, the largest first.
    pub groups: Vec<DeadLetterGroup>,
    /// The queues that were looked at.
    pub queues: Vec<String>,
    /// False when there are so many messages or groups that not all were looked at.
    pub exact: bool,
}

impl BrokerHandle {
    /// Groups the dead letters in all queues to which dead letters go and that `who` may read.
    /// At most `scan_max` messages of each queue are looked at. Blocks while the store is read.
    ///
    /// Errors: kind `NotFound` for the virtual host; kind `StoreFailed`.
    pub fn dead_letters(
        &self,
        who: &Principal,
        vhost: &VhostName,
        scan_max: u64,
        now: Now,
    ) -> Result<DeadLetters, Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let mut found = DeadLetters { exact: true, ..DeadLetters::default() };
        let mut groups = HashMap::new();
        for (name, queue) in dead_letter_queues(&vhost) {
            if self.0.permit::<Read>(who, &vhost, "queue", &name).is_err() {
                continue;
            }
            found.exact &= self.0.group_letters(&queue, scan_max, &mut groups, now)?;
            found.queues.push(name);
        }
        found.groups = groups.into_values().collect();
        let order = |g: &DeadLetterGroup| {
            (std::cmp::Reverse(g.count), g.queue.clone(), g.origin.clone(), g.reason.clone())
        };
        found.groups.sort_by_cached_key(order);
        Ok(found)
    }
}

/// Queue, origin, reason, detail.
type GroupKey = (String, String, String, Option<String>);

impl Core {
    /// False when not all were looked at.
    fn group_letters(
        &self,
        queue: &Arc<Queue>,
        scan_max: u64,
        groups: &mut HashMap<GroupKey, DeadLetterGroup>,
        now: Now,
    ) -> Result<bool, Refusal> {
        let reader = Reader::new(self, queue, false, now.unix_ms);
        let (mut scanned, mut exact) = (0, true);
        for (level, end) in queue.levels() {
            let mut next = Some(Seq(0));
            while let Some(from) = next.filter(|from| *from < end) {
                if scanned >= scan_max {
                    return Ok(false);
                }
                let part = reader.read(level, from, PAGE_MAX)?;
                next = part.next;
                scanned += part.peeked.len() as u64;
                for peeked in &part.peeked {
                    exact &= note(groups, queue.name.as_str(), peeked);
                }
            }
        }
        Ok(exact)
    }
}

/// False when there is no room for another group.
fn note(groups: &mut HashMap<GroupKey, DeadLetterGroup>, queue: &str, peeked: &Peeked) -> bool {
    let known = peeked.entry.message.annotations();
    let Some(death) = known.and_then(|known| known.deaths.first()) else { return true };
    let detail = death.detail.as_deref();
    let detail = detail.map(|text| text[..text.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned());
    let key = (queue.to_owned(), death.queue.clone(), death.reason.clone(), detail);
    let has_room = groups.len() < GROUPS_MAX || groups.contains_key(&key);
    if has_room {
        let (queue, origin, reason, detail) = key.clone();
        let group = groups.entry(key).or_insert_with(|| DeadLetterGroup {
            queue,
            origin,
            reason,
            detail,
            count: 0,
            first_ms: death.time_ms,
            last_ms: death.time_ms,
            sample_seq: peeked.entry.at.number().0,
        });
        group.count += 1;
        group.first_ms = group.first_ms.min(death.time_ms);
        group.last_ms = group.last_ms.max(death.time_ms);
    }
    has_room
}

/// The queues to which dead letters of some queue go, by name.
fn dead_letter_queues(vhost: &Vhost) -> BTreeMap<String, Arc<Queue>> {
    let topology = vhost.topology.load_full();
    let mut found = BTreeMap::new();
    let mut seen: Vec<Arc<DeadLetterTo>> = Vec::new();
    for queue in topology.queues.values() {
        let Some(to) = queue.rules().dead_letter else { continue };
        if seen.contains(&to) {
            continue;
        }
        let targets = targets_of(&topology, &to);
        found.extend(targets.into_iter().map(|queue| (queue.name.as_str().to_owned(), queue)));
        seen.push(to);
    }
    found
}

/// Without a key of the queue each dead letter keeps its own, so that any binding may take it.
fn targets_of(topology: &Topology, to: &DeadLetterTo) -> Vec<Arc<Queue>> {
    match &to.key {
        Some(key) => {
            let routing = Routing { topology, publisher: ClientNumber(0), message: None };
            let targets = routing.route(&to.exchange, [key.as_str()]).targets;
            let queue = |target| match target {
                Target::Queue(queue, _) => Some(queue),
                Target::Direct(..) | Target::Reply(_) => None,
            };
            targets.into_iter().filter_map(queue).collect()
        }
        None => {
            let exchange = topology.exchange(&to.exchange);
            let bindings = exchange.into_iter().flat_map(|exchange| exchange.bindings.iter());
            let queue = |binding: &crate::topology::Binding| match &binding.destination {
                Destination::Queue(queue) => Some(queue.clone()),
                Destination::Exchange(_) | Destination::Client(..) => None,
            };
            bindings.filter_map(queue).collect()
        }
    }
}

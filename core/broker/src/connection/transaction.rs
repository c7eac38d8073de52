//! Transactions: everything happens or nothing does.

use std::{collections::HashMap, sync::Arc};

use polymq_contract::{Answer, Outcome, Publish, Refusal, Settlement, Transaction};
use polymq_model::Now;

use super::{BrokerConnection, publish::addressed};
use crate::{
    queue::{Queue, Reserved, Room},
    routing::{Route, Target},
};

/// Why nothing of a transaction happens, and by which publish.
struct Stopped(Publish, Arc<Refusal>);

/// A transaction that nothing refuses.
struct Prepared {
    publishes: Vec<(Publish, Arc<Route>)>,
    reserved: Vec<Reserved>,
}

/// What a transaction puts into a queue.
struct Share {
    queue: Arc<Queue>,
    messages: u64,
    bytes: u64,
}

impl BrokerConnection {
    /// Executes a transaction: all its publishes, then all its settlements, stored together and
    /// answered when they are.
    pub(super) fn commit(&mut self, transaction: Transaction, now: Now) {
        self.finish_run(now);
        self.wait_for = None;
        let (request, settlements) = (transaction.request, transaction.settlements);
        let Prepared { publishes, reserved } = match self.prepare(transaction.publishes) {
            Ok(prepared) => prepared,
            Err(Stopped(publish, refusal)) => {
                self.refuse_publish(&publish, Refusal::clone(&refusal));
                for settlement in settlements {
                    self.settle(Settlement { outcome: Outcome::Failed, ..settlement }, now);
                }
                return self.answer(request, Ok(Answer::Done), None);
            }
        };
        let core = self.core.clone();
        let together = core.committer.together();
        self.run.room = Room::Reserved;
        for (publish, route) in publishes {
            self.publish_to(route, publish, now);
        }
        self.finish_run(now);
        self.run.room = Room::Free;
        drop(reserved);
        for settlement in settlements {
            self.settle(settlement, now);
        }
        // Acknowledgements of a transaction are promised to last.
        self.core.committer.want_sync();
        drop(together);
        // By now the batch may be on its way, with nothing behind it.
        let appended = self.core.committer.append(|_| ()).0;
        let wait = self.wait_for.max(Some(appended));
        self.answer(request, Ok(Answer::Done), wait);
    }

    /// Looks where all publishes go, and has queues that refuse what is too much keep room.
    fn prepare(&mut self, publishes: Vec<Publish>) -> Result<Prepared, Stopped> {
        let mut routed = Vec::with_capacity(publishes.len());
        let mut shares: HashMap<usize, Share> = HashMap::new();
        for publish in publishes.into_iter().map(addressed) {
            let route = match self.route_for(&publish) {
                Ok(route) => route,
                Err(refusal) => return Err(Stopped(publish, refusal)),
            };
            // What is delayed needs no room yet.
            let targets = if publish.delay.is_none() { route.targets.as_slice() } else { &[] };
            for target in targets {
                let Target::Queue(queue, _) = target else { continue };
                let share = shares.entry(Arc::as_ptr(queue).addr());
                let share =
                    share.or_insert_with(|| Share { queue: queue.clone(), messages: 0, bytes: 0 });
                share.messages += 1;
                share.bytes += publish.message.body().len() as u64;
            }
            routed.push((publish, route));
        }
        let mut reserved = Vec::new();
        for share in shares.into_values() {
            match share.queue.reserve(share.messages, share.bytes) {
                Ok(room) => reserved.extend(room),
                Err(refusal) => {
                    let at = routed.iter().position(|(_, route)| leads_to(route, &share.queue));
                    let (publish, _) = routed.swap_remove(at.unwrap_or(0));
                    return Err(Stopped(publish, Arc::new(refusal)));
                }
            }
        }
        Ok(Prepared { publishes: routed, reserved })
    }
}

fn leads_to(route: &Route, queue: &Arc<Queue>) -> bool {
    route.targets.iter().any(|target| match target {
        Target::Queue(other, _) => Arc::ptr_eq(other, queue),
        Target::Direct(..) | Target::Reply(_) => false,
    })
}

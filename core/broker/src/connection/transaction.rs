//! Transactions: everything happens or nothing does.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use polymq_contract::{Answer, Outcome, Publish, Refusal, Settlement, Transaction};
use polymq_model::Now;

use super::{BrokerConnection, publish::address};
use crate::{
    queue::{Queue, Reserved, Room},
    routing::{Route, Target},
};

/// Why nothing of a transaction happens.
enum Stopped {
    /// The publish is refused.
    By(Box<Publish>, Arc<Refusal>),
    /// A queue has no room.
    Full(Refusal),
}

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
    pub(super) fn commit_now(&mut self, transaction: Transaction, now: Now) {
        self.speaking.is_transactional.store(true, Ordering::Relaxed);
        self.finish_run(now);
        self.wait_for = None;
        let (request, settlements) = (transaction.request, transaction.settlements);
        let Prepared { publishes, reserved } = match self.prepare(transaction.publishes) {
            Ok(prepared) => prepared,
            Err(stopped) => {
                for settlement in settlements {
                    let outcome = Outcome::Failed;
                    self.settle(Settlement { outcome, note: None, ..settlement }, now);
                }
                let answer = match stopped {
                    Stopped::By(publish, refusal) => {
                        self.refuse_publish(&publish, Refusal::clone(&refusal));
                        Ok(Answer::Done)
                    }
                    Stopped::Full(refusal) => Err(refusal),
                };
                return self.answer(request, answer, None);
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
        for mut publish in publishes {
            address(&mut publish);
            let route = match self.route_for(&publish) {
                Ok(route) => route,
                Err(refusal) => return Err(Stopped::By(Box::new(publish), refusal)),
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
            reserved
                .extend(share.queue.reserve(share.messages, share.bytes).map_err(Stopped::Full)?);
        }
        Ok(Prepared { publishes: routed, reserved })
    }
}

//! Transactions: everything happens or nothing does.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use polymq_contract::{Answer, Outcome, Publish, Refusal, Settlement, Transaction};
use polymq_model::Now;

use super::{BrokerConnection, address_key::address, publish::Run};
use crate::{
    publishing::push_together,
    queue::{Queue, Reserved, Room},
    routing::{Route, Target},
    trace::Marked,
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
        self.lay_run_aside();
        self.hand_over_together(now);
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

    /// Ends a run of a transaction.
    pub(super) fn lay_run_aside(&mut self) {
        if self.run.route.is_some() {
            let run = std::mem::take(&mut self.run);
            self.run.room = run.room;
            self.laid_aside.push(run);
        }
    }

    /// Hands over the runs of a transaction. Each queue is locked once for all of them, so that
    /// nothing comes between its messages.
    fn hand_over_together(&mut self, now: Now) {
        let Some(vhost) = self.vhost.clone() else { return };
        let mut runs = Vec::with_capacity(self.laid_aside.len());
        for run in std::mem::take(&mut self.laid_aside) {
            self.run = run;
            let Some(route) = self.run.route.take() else { continue };
            let marks = self.marks_of(&vhost, &route, now);
            runs.push((std::mem::take(&mut self.run), route, marks));
        }
        let parts: Vec<_> = runs
            .iter()
            .map(|(run, route, marks)| {
                (route.targets.as_slice(), Marked { messages: &run.messages, marks })
            })
            .collect();
        let handed = push_together(&parts, now.unix_ms);
        for ((mut run, route, marks), mut handed) in runs.into_iter().zip(handed) {
            let count = run.messages.len();
            let (targets, messages) = (&route.targets, &mut run.messages);
            self.core.hand_over_directly(targets, messages, &marks, &mut handed);
            self.run = run;
            self.note_handed(&vhost, &route, &marks, count, handed);
        }
        self.run = Run::default();
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

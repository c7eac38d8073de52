//! Transactions: all of their publishes and settlements happen, or none.

use std::sync::Arc;

use polymq_contract::{Answer, Outcome, Publish, Refusal, RefusalKind, Settlement, Transaction};
use polymq_model::Now;

use super::BrokerConnection;
use crate::{
    queue::Queue,
    routing::{Route, Target},
    vhost::Vhost,
};

/// Room in queues that refuse what is beyond their limits, with the bytes of each message.
#[derive(Default)]
struct Reservation(Vec<(Arc<Queue>, usize)>);

impl Reservation {
    /// Errors: kind `Full` when a queue has no room; then nothing is reserved.
    fn of(publishes: &[Publish], routes: &[(Arc<Vhost>, Arc<Route>)]) -> Result<(), Refusal> {
        let mut reserved = Self::default();
        for (publish, (_, route)) in publishes.iter().zip(routes) {
            // What is delayed needs no room yet.
            if publish.delay.is_some() {
                continue;
            }
            let bytes = publish.message.body().len();
            for target in &route.targets {
                let Target::Queue(queue, _) = target else { continue };
                if !queue.may_refuse() {
                    continue;
                }
                if !queue.reserve(bytes) {
                    reserved.0.iter().for_each(|(queue, bytes)| queue.unreserve(*bytes));
                    let text = format!("{queue} is full, so that the transaction did not happen");
                    return Err(Refusal::new(RefusalKind::Full, text));
                }
                reserved.0.push((queue.clone(), bytes));
            }
        }
        Ok(())
    }
}

impl BrokerConnection {
    /// Executes a transaction: all its publishes, then all its settlements, stored together and
    /// answered when they are.
    pub(super) fn commit_now(&mut self, mut transaction: Transaction, now: Now) {
        self.finish_run(now);
        self.wait_for = None;
        let mut routes = Vec::with_capacity(transaction.publishes.len());
        for publish in &mut transaction.publishes {
            match self.resolve(publish) {
                Ok(route) => routes.push(route),
                Err(refusal) => {
                    self.refuse_publish(publish, Refusal::clone(&refusal));
                    return self.give_back(&transaction, Ok(Answer::Done), now);
                }
            }
        }
        if let Err(refusal) = Reservation::of(&transaction.publishes, &routes) {
            return self.give_back(&transaction, Err(refusal), now);
        }
        let core = self.core.clone();
        let together = core.committer.together();
        self.run.is_reserved = true;
        for (publish, (vhost, route)) in transaction.publishes.into_iter().zip(routes) {
            self.publish_by(&vhost, route, publish, now);
        }
        self.finish_run(now);
        self.run.is_reserved = false;
        for settlement in transaction.settlements {
            self.settle(settlement, now);
        }
        // Acknowledgements of a transaction are promised to last.
        self.core.committer.want_sync();
        drop(together);
        // By now the batch may be on its way, with nothing behind it.
        let appended = self.core.committer.append(|_| ()).0;
        let wait = self.wait_for.max(Some(appended));
        self.answer(transaction.request, Ok(Answer::Done), wait);
    }

    /// Nothing of the transaction happens, and what was to be settled comes back.
    fn give_back(&mut self, transaction: &Transaction, answer: Result<Answer, Refusal>, now: Now) {
        for settlement in &transaction.settlements {
            self.settle(Settlement { outcome: Outcome::Failed, ..*settlement }, now);
        }
        self.answer(transaction.request, answer, None);
    }
}

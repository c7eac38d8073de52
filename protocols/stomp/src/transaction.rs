//! BEGIN, COMMIT and ABORT: sends and acknowledgements wait here until they are handed over
//! together.

use hashbrown::HashMap;
use polymq_contract::{
    Command as Order, Effects, Note, Outcome, Publish, RefusalKind, Settlement,
    Transaction as Commit,
};
use polymq_model::{ConsumerId, RequestId};

use crate::{
    codec::Frame,
    frames::demand,
    receipts::Wait,
    refusal::{Failure, Step},
    session::Session,
    settle::ranges,
};

/// What a message or an acknowledgement weighs beside its bytes.
const ENTRY_BYTES: usize = 64;

/// Deliveries that a transaction settles in one way.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) consumer: ConsumerId,
    pub(crate) numbers: Vec<u64>,
    pub(crate) outcome: Outcome,
    pub(crate) note: Option<Box<Note>>,
}

#[derive(Debug, Default)]
struct Transaction {
    publishes: Vec<Publish>,
    settled: Vec<Taken>,
    bytes: usize,
}

/// The open transactions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    open: HashMap<Box<str>, Transaction>,
    bytes: usize,
}

impl Transactions {
    /// Errors: there is no such transaction.
    pub(crate) fn check(&self, name: &str) -> Step {
        match self.open.contains_key(name) {
            true => Ok(()),
            false => Err(unknown(name)),
        }
    }

    /// Adds a settlement to a transaction.
    ///
    /// Errors: there is no such transaction, or they hold more than `bytes_max`.
    pub(crate) fn settle(&mut self, name: &str, taken: Taken, bytes_max: usize) -> Step {
        let reason = taken.note.as_ref().and_then(|note| note.reason.as_ref());
        let numbers = size_of_val(&*taken.numbers);
        let bytes = numbers.saturating_add(reason.map_or(0, String::len));
        self.grow(name, bytes, bytes_max)?.settled.push(taken);
        Ok(())
    }

    /// The transaction, with room for another entry of so many bytes.
    fn grow(&mut self, name: &str, bytes: usize, bytes_max: usize) -> Step<&mut Transaction> {
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        let transaction = self.open.get_mut(name).ok_or_else(|| unknown(name))?;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > bytes_max {
            let text = format!("the transactions of a connection have at most {bytes_max} bytes");
            return Err(Failure::of_kind(RefusalKind::TooLarge, text));
        }
        transaction.bytes = transaction.bytes.saturating_add(bytes);
        Ok(transaction)
    }

    fn take(&mut self, name: &str) -> Step<Transaction> {
        let transaction = self.open.remove(name).ok_or_else(|| unknown(name))?;
        self.bytes = self.bytes.saturating_sub(transaction.bytes);
        Ok(transaction)
    }
}

impl Session {
    /// BEGIN.
    pub(crate) fn on_begin(&mut self, frame: &Frame<'_>) -> Step {
        let name = demand(frame, "transaction")?;
        let max = self.limits.transactions_max;
        if self.transactions.open.contains_key(&*name) {
            let text = format!("transaction '{name}' has begun already");
            return Err(Failure::of_kind(RefusalKind::Conflict, text));
        }
        if self.transactions.open.len() >= max {
            let text = format!("a connection has at most {max} transactions at once");
            return Err(Failure::of_kind(RefusalKind::Limit, text));
        }
        self.transactions.open.insert((&*name).into(), Transaction::default());
        self.receipts.done(frame.find_raw("receipt"));
        Ok(())
    }

    /// A SEND in a transaction.
    pub(crate) fn send_later(&mut self, name: &str, publish: Publish) -> Step {
        let bytes_max = self.limits.transaction_bytes_max;
        let transaction = self.transactions.grow(name, publish.message.size(), bytes_max)?;
        transaction.publishes.push(publish);
        Ok(())
    }

    /// COMMIT.
    pub(crate) fn on_commit(&mut self, frame: &Frame<'_>, effects: &mut Effects) -> Step {
        let name = demand(frame, "transaction")?;
        let Transaction { mut publishes, settled, .. } = self.transactions.take(&name)?;
        // Numbered, so that a queue that is full is heard of.
        for publish in &mut publishes {
            publish.number = self.receipts.next_number();
        }
        let mut settlements = Vec::new();
        for Taken { consumer, numbers, outcome, note } in settled {
            let settlement =
                |deliveries| Settlement { consumer, deliveries, outcome, note: note.clone() };
            settlements.extend(ranges(&numbers).map(settlement));
            self.subscriptions.sweep(consumer);
        }
        let request = self.fresh_request();
        self.receipts.expect(Wait::Answer(request), frame.find_raw("receipt"));
        self.commit(request, publishes, settlements, effects);
        Ok(())
    }

    pub(crate) fn commit(
        &mut self,
        request: RequestId,
        publishes: Vec<Publish>,
        settlements: Vec<Settlement>,
        effects: &mut Effects,
    ) {
        let commit = Commit { request, publishes, settlements };
        effects.commands.push(Order::Commit(Box::new(commit)));
    }

    /// ABORT: what was to be settled is unsettled again.
    pub(crate) fn on_abort(&mut self, frame: &Frame<'_>) -> Step {
        let name = demand(frame, "transaction")?;
        for taken in self.transactions.take(&name)?.settled {
            if let Some(subscription) = self.subscriptions.find(taken.consumer) {
                subscription.unsettled.restore(taken.numbers);
            }
        }
        self.receipts.done(frame.find_raw("receipt"));
        Ok(())
    }
}

fn unknown(name: &str) -> Box<Failure> {
    Failure::of_kind(RefusalKind::NotFound, format!("there is no transaction '{name}'"))
}

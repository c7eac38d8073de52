//! Transactions: publishes and settlements wait here until `tx.commit` hands them over together.

use amq_protocol::protocol::{AMQPClass, tx};
use polymq_contract::{ChannelMode, Command, Effects, Outcome, Publish, Transaction as Commit};
use polymq_model::ConsumerId;

use super::{
    Channel, Context, Mode,
    settle::{Unsettled, exact_ranges},
};
use crate::{
    codec::id,
    connection::Purpose,
    refusal::{Exception, ReplyCode, Step},
};

/// What a publish weighs beside its message.
const PUBLISH_BYTES: usize = 64;

/// What has been done since the last commit.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    publishes: Vec<Publish>,
    bytes: usize,
    /// In order: what was settled, and how. Bounded by what was delivered.
    settled: Vec<(Vec<Unsettled>, Outcome)>,
    settled_count: usize,
}

impl Transaction {
    pub(super) fn publish(&mut self, publish: Publish, bytes_max: usize) -> Step {
        let bytes = publish.message.size().saturating_add(PUBLISH_BYTES);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > bytes_max {
            let text = format!("transaction is larger than configured max size {bytes_max}");
            return Err(Exception::invalid(id::PUBLISH, text));
        }
        self.publishes.push(publish);
        Ok(())
    }

    pub(super) fn settle(&mut self, taken: Vec<Unsettled>, outcome: Outcome) {
        self.settled_count += taken.len();
        match self.settled.last_mut() {
            Some((entries, last)) if *last == outcome => entries.extend(taken),
            _ => self.settled.push((taken, outcome)),
        }
    }

    /// What waits, for people.
    pub(super) fn described(&self) -> ChannelMode {
        let (publishes, settlements) = (self.publishes.len(), self.settled_count);
        ChannelMode::Transaction { publishes, settlements }
    }

    /// Consumers of the deliveries that would be settled, with repeats.
    pub(super) fn consumers(&self) -> impl Iterator<Item = ConsumerId> {
        self.settled.iter().flat_map(|(entries, _)| entries).map(|entry| entry.consumer)
    }
}

impl Channel {
    pub(super) fn on_tx(
        &mut self,
        class: &tx::AMQPMethod,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step {
        match class {
            tx::AMQPMethod::Select(_) => {
                match self.mode {
                    Mode::Plain => self.mode = Mode::Tx(Transaction::default()),
                    Mode::Tx(_) => {}
                    Mode::Confirm(_) => {
                        let text = "cannot switch from confirm to tx mode";
                        return Err(Exception::invalid(method, text));
                    }
                }
                self.describe(context.effects);
                let ok = tx::AMQPMethod::SelectOk(tx::SelectOk {});
                self.put(context.effects, AMQPClass::Tx(ok));
                Ok(())
            }
            tx::AMQPMethod::Commit(_) => self.on_commit(method, context),
            tx::AMQPMethod::Rollback(_) => {
                let transaction = std::mem::take(self.transaction(method)?);
                self.tags.restore(transaction.settled.into_iter().flat_map(|(entries, _)| entries));
                self.describe(context.effects);
                let ok = tx::AMQPMethod::RollbackOk(tx::RollbackOk {});
                self.put(context.effects, AMQPClass::Tx(ok));
                Ok(())
            }
            _ => Err(Exception::new(ReplyCode::CommandInvalid, method, "unexpected method")),
        }
    }

    fn transaction(&mut self, method: (u16, u16)) -> Step<&mut Transaction> {
        match &mut self.mode {
            Mode::Tx(transaction) => Ok(transaction),
            Mode::Plain | Mode::Confirm(_) => {
                Err(Exception::invalid(method, "channel is not transactional"))
            }
        }
    }

    fn on_commit(&mut self, method: (u16, u16), context: &mut Context<'_>) -> Step {
        let transaction = std::mem::take(self.transaction(method)?);
        let mut settlements = Vec::new();
        for (mut entries, outcome) in transaction.settled {
            entries.sort_unstable_by_key(|entry| entry.tag);
            settlements.extend(exact_ranges(&entries, outcome));
        }
        let request = self.expect(Purpose::Commit, method, false, context);
        let publishes = transaction.publishes;
        let commit = Commit { request, publishes, settlements };
        context.effects.commands.push(Command::Commit(Box::new(commit)));
        self.describe(context.effects);
        Ok(())
    }

    pub(super) fn on_committed(&mut self, effects: &mut Effects) {
        let ok = tx::AMQPMethod::CommitOk(tx::CommitOk {});
        self.put(effects, AMQPClass::Tx(ok));
    }
}

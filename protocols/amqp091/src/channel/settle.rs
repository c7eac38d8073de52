//! Delivery tags, and what acknowledgements make of them.

use std::collections::VecDeque;

use polymq_contract::{Command, DeliveryRange, Outcome, Settlement};
use polymq_model::ConsumerId;

use super::{Channel, Context, Mode};
use crate::{
    codec::{cold, hot, id},
    refusal::{Exception, Step},
};

/// Settled entries are swept out once there are this many, and more of them than of others.
const SETTLED_SWEPT_AT: usize = 64;

/// A delivery that the client was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsettled {
    pub(super) tag: u64,
    pub(super) consumer: ConsumerId,
    /// Number of the delivery for its consumer; 0 once it is settled.
    pub(super) number: u64,
}

/// Tags of a channel: the next one, and the deliveries that are not settled, by tag.
///
/// Memory follows the unsettled deliveries only: those without acknowledgement leave no trace, and
/// what was settled out of order is swept out.
#[derive(Debug, Default)]
pub(super) struct Tags {
    last: u64,
    unsettled: VecDeque<Unsettled>,
    settled: usize,
}

impl Tags {
    /// The tag of the next delivery. `number` 0 means that nothing is to be settled.
    #[inline]
    pub(super) fn assign(&mut self, consumer: ConsumerId, number: u64) -> u64 {
        self.last += 1;
        if number != 0 {
            self.unsettled.push_back(Unsettled { tag: self.last, consumer, number });
        }
        self.last
    }

    /// Consumers of the unsettled deliveries, with repeats.
    pub(super) fn consumers(&self) -> impl Iterator<Item = ConsumerId> {
        self.unsettled.iter().filter(|entry| entry.number != 0).map(|entry| entry.consumer)
    }

    /// Takes the delivery with this tag.
    #[inline]
    pub(super) fn take(&mut self, tag: u64) -> Option<Unsettled> {
        let at = self.find(tag)?;
        let entry = self.unsettled.get_mut(at)?;
        let taken = *entry;
        entry.number = 0;
        self.settled += 1;
        while self.unsettled.front().is_some_and(|entry| entry.number == 0) {
            self.unsettled.pop_front();
            self.settled -= 1;
        }
        if self.settled > SETTLED_SWEPT_AT && self.settled > self.unsettled.len() / 2 {
            self.unsettled.retain(|entry| entry.number != 0);
            self.settled = 0;
        }
        Some(taken)
    }

    /// Takes everything up to `tag`, which must be unsettled, or everything when it is 0.
    pub(super) fn take_up_to(&mut self, tag: u64) -> Option<Vec<Unsettled>> {
        let count = if tag == 0 { self.unsettled.len() } else { self.find(tag)? + 1 };
        let mut taken: Vec<Unsettled> = self.unsettled.drain(..count).collect();
        let all = taken.len();
        taken.retain(|entry| entry.number != 0);
        self.settled -= all - taken.len();
        Some(taken)
    }

    /// Puts deliveries back whose settling was rolled back.
    pub(super) fn restore(&mut self, entries: impl IntoIterator<Item = Unsettled>) {
        self.unsettled.extend(entries);
        self.unsettled.make_contiguous().sort_unstable_by_key(|entry| (entry.tag, entry.number));
        self.unsettled.retain(|entry| entry.number != 0);
        self.settled = 0;
    }

    /// Index of an unsettled tag; mostly the distance from the first.
    #[inline]
    fn find(&self, tag: u64) -> Option<usize> {
        let first = self.unsettled.front()?.tag;
        let guess = usize::try_from(tag.checked_sub(first)?).ok()?;
        let is_it = |at: usize| self.unsettled.get(at).is_some_and(|entry| entry.tag == tag);
        let at = match is_it(guess) {
            true => guess,
            false => self.unsettled.binary_search_by_key(&tag, |entry| entry.tag).ok()?,
        };
        self.unsettled.get(at).is_some_and(|entry| entry.number != 0).then_some(at)
    }
}

impl Channel {
    /// Handles `basic.ack`, `basic.nack` and `basic.reject`.
    #[inline]
    pub(super) fn on_settle(
        &mut self,
        method: (u16, u16),
        payload: &[u8],
        context: &mut Context<'_>,
    ) -> Step {
        let settle = cold::split_id(payload)
            .and_then(|(_, arguments)| hot::settle(method, arguments))
            .map_err(|error| Exception::malformed(error, method))?;
        let outcome = match (method, settle.requeue) {
            (id::ACK, _) => Outcome::Accepted,
            (_, false) => Outcome::Rejected,
            (id::NACK, true) => Outcome::Returned,
            (_, true) => Outcome::Failed,
        };
        let unknown = || {
            let text = format!("unknown delivery tag {}", settle.tag);
            Exception::invalid(method, text)
        };
        if let Mode::Tx(tx) = &mut self.mode {
            let taken = match settle.multiple {
                true => self.tags.take_up_to(settle.tag).ok_or_else(unknown)?,
                false => vec![self.tags.take(settle.tag).ok_or_else(unknown)?],
            };
            tx.settle(taken, outcome);
            self.describe(context.effects);
            return Ok(());
        }
        let commands = &mut context.effects.commands;
        if settle.multiple {
            let taken = self.tags.take_up_to(settle.tag).ok_or_else(unknown)?;
            push_all(commands, &taken, outcome);
        } else {
            let taken = self.tags.take(settle.tag).ok_or_else(unknown)?;
            push_one(commands, taken, outcome);
        }
        Ok(())
    }

    /// `basic.recover`: everything unsettled goes back to its place.
    ///
    /// Only what the client was sent is returned; deliveries that still wait in the outbox stay
    /// valid.
    pub(super) fn recover(&mut self, context: &mut Context<'_>) {
        let Some(taken) = self.tags.take_up_to(0) else { return };
        let commands = &mut context.effects.commands;
        match self.mode {
            // What the transaction settles is not among them and must not be spanned.
            Mode::Tx(_) => {
                commands.extend(exact_ranges(&taken, Outcome::Returned).map(Command::Settle));
            }
            Mode::Plain | Mode::Confirm(_) => push_all(commands, &taken, Outcome::Returned),
        }
    }
}

/// Adds a settlement, or makes the last command's range longer by it.
#[inline]
fn push_one(commands: &mut Vec<Command>, entry: Unsettled, outcome: Outcome) {
    if let Some(Command::Settle(last)) = commands.last_mut()
        && last.consumer == entry.consumer
        && last.outcome == outcome
        && last.deliveries.last.checked_add(1) == Some(entry.number)
    {
        last.deliveries.last = entry.number;
        return;
    }
    commands.push(Command::Settle(one(entry, outcome)));
}

/// Adds one settlement for each consumer.
fn push_all(commands: &mut Vec<Command>, taken: &[Unsettled], outcome: Outcome) {
    commands.extend(ranges(taken, outcome).into_iter().map(Command::Settle));
}

fn one(entry: Unsettled, outcome: Outcome) -> Settlement {
    let deliveries = DeliveryRange { first: entry.number, last: entry.number };
    Settlement::new(entry.consumer, deliveries, outcome)
}

/// How far back a consumer's range is looked for: many single gets must not make this quadratic.
const RANGES_SEARCHED_MAX: usize = 16;

/// Deliveries in order of their tags as ranges of their consumers.
///
/// A range may span numbers that were settled before: the broker passes over those, and all others
/// up to the same tag are in `taken`.
pub(super) fn ranges(taken: &[Unsettled], outcome: Outcome) -> Vec<Settlement> {
    let mut ranges: Vec<Settlement> = Vec::new();
    for entry in taken {
        let recent = ranges.len().saturating_sub(RANGES_SEARCHED_MAX);
        let found = ranges.get_mut(recent..).and_then(|recent| {
            recent.iter_mut().rev().find(|range| range.consumer == entry.consumer)
        });
        match found {
            Some(range) => range.deliveries.last = entry.number,
            None => ranges.push(one(*entry, outcome)),
        }
    }
    ranges
}

/// Ranges without gaps: in a transaction a number may be missing because it is settled in another
/// way.
pub(super) fn exact_ranges(
    entries: &[Unsettled],
    outcome: Outcome,
) -> impl Iterator<Item = Settlement> {
    entries
        .chunk_by(|a, b| a.consumer == b.consumer && a.number.checked_add(1) == Some(b.number))
        .flat_map(move |run| ranges(run, outcome))
}

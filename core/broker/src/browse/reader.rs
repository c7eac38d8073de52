//! Memory and disk of a queue, read as one.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_filter::Filter;
use polymq_model::Seq;
use polymq_store::{ReadLimit, StoreError, wait};

use super::{Browsed, MessageFields};
use crate::{
    core::Core,
    queue::{Held, MessageState, Peeked, Position, Queue},
};

/// Bytes of messages that are read from the store at a time.
const PAGE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Pages that are read at most to find the end of a queue.
const TAIL_PAGES_MAX: usize = 64;

/// A part of a priority level.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Messages, by position.
    pub(crate) peeked: Vec<Peeked>,
    /// Where the next part begins; `None` at the end of the level.
    pub(crate) next: Option<Seq>,
    /// Messages that the store could not read.
    pub(crate) unreadable: u64,
}

/// Reads a queue without changing it. Blocks while the store is read.
pub(crate) struct Reader<'q> {
    core: &'q Core,
    queue: &'q Arc<Queue>,
    unacked: bool,
    now_ms: u64,
}

impl<'q> Reader<'q> {
    pub(crate) fn new(core: &'q Core, queue: &'q Arc<Queue>, unacked: bool, now_ms: u64) -> Self {
        Self { core, queue, unacked, now_ms }
    }

    /// True when the filter selects a message, or there is none.
    pub(crate) fn is_wanted(&self, peeked: &Peeked, filter: Option<&Filter>) -> bool {
        filter.is_none_or(|filter| filter.selects(&MessageFields::of(peeked), self.now_ms))
    }

    /// About `max` messages of a level from `from` on.
    ///
    /// Errors: kind `StoreFailed`.
    pub(crate) fn read(&self, level: u8, from: Seq, max: usize) -> Result<Part, Refusal> {
        let Some(peek) = self.queue.peek(level, from, max, self.unacked) else {
            return Ok(Part::default());
        };
        let (mut peeked, mut next) = (peek.found, peek.more_from);
        let is_wanted = |first: Seq| next.is_none_or(|next| first < next);
        let Some((log, first, end)) = peek.disk.filter(|(_, first, _)| is_wanted(*first)) else {
            return Ok(Part { peeked, next, unreadable: 0 });
        };
        let messages_max = u32::try_from(max).unwrap_or(u32::MAX);
        let limit = ReadLimit { messages_max, bytes_max: PAGE_BYTES_MAX };
        let read = wait(|reply| self.core.committer.read(log, first, limit, reply));
        let (page, unreadable) = match read {
            Ok(page) => (page, 0),
            Err(StoreError::Unreadable { last, messages, .. }) if last.0 < u64::MAX => {
                let next = Some(last.next());
                (polymq_store::Page { messages: Vec::new(), next }, messages)
            }
            Err(error) => {
                let text = format!("the messages of {} cannot be read: {error}", self.queue);
                return Err(Refusal::new(RefusalKind::StoreFailed, text));
            }
        };
        // What comes behind the part of the disk was in memory when we looked.
        if let Some(reached) = page.next.filter(|reached| *reached < end) {
            next = Some(next.map_or(reached, |next| next.min(reached)));
        }
        let covered = |seq: Seq| next.is_none_or(|next| seq < next);
        let held: Vec<_> = page.messages.iter().map(|stored| (stored.seq, stored.hold)).collect();
        let mut of_disk: Vec<Peeked> = Vec::with_capacity(page.messages.len());
        for mut entry in self.core.entries_of(self.queue, page.messages) {
            let seq = entry.at.seq();
            entry.at = Position::new(level, seq);
            let hold = held.binary_search_by_key(&seq, |(seq, _)| *seq).ok();
            let hold = hold.and_then(|at| held.get(at)?.1);
            let due_ms = hold.map_or(0, |hold| Held::of_stored(hold.due_ms).due_ms);
            let state = match due_ms > self.now_ms {
                true => MessageState::Scheduled { due_ms },
                false => MessageState::Ready,
            };
            if seq < end && covered(seq) {
                of_disk.push(Peeked { entry, state });
            }
        }
        self.queue.retain_free(level, &mut of_disk);
        peeked.retain(|peeked| covered(peeked.entry.at.seq()));
        peeked.append(&mut of_disk);
        peeked.sort_by_key(|peeked| peeked.entry.at.seq());
        peeked.dedup_by_key(|peeked| peeked.entry.at.seq());
        Ok(Part { peeked, next, unreadable })
    }

    /// The position of the first message of a level that came at `at_ms` or later. Behind all when
    /// there is none.
    ///
    /// Cost: about two reads of one message for each doubling of the level's length.
    /// Errors: kind `StoreFailed`.
    pub(crate) fn first_at(&self, level: u8, end: Seq, at_ms: u64) -> Result<Seq, Refusal> {
        let (mut low, mut high) = (0, end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let part = self.read(level, Seq(middle), 1)?;
            match part.peeked.first() {
                Some(first) if first.entry.message.arrived_ms() < at_ms => {
                    low = first.entry.at.seq().0 + 1;
                }
                Some(_) => high = middle,
                // Nothing readable here: what is behind decides.
                None => match part.next.filter(|next| next.0 > middle) {
                    Some(next) if next.0 < high => low = next.0,
                    _ => high = middle,
                },
            }
        }
        Ok(Seq(low))
    }

    /// The last messages of the queue that a filter selects, of those before `before`.
    ///
    /// Errors: kind `StoreFailed`.
    pub(crate) fn tail(
        &self,
        limit: usize,
        before: Option<u64>,
        filter: Option<&Filter>,
    ) -> Result<Browsed, Refusal> {
        let mut browsed = Browsed::default();
        let before = before.map(|before| Position::named(Seq(before)));
        let mut pages = 0;
        // From the back: the lowest level, and in it the last positions.
        let mut found: Vec<Peeked> = Vec::new();
        'levels: for (level, end) in self.queue.levels().into_iter().rev() {
            let mut high = match before {
                Some(before) if before.level() > level => continue,
                Some(before) if before.level() == level => before.seq().0,
                _ => end.0,
            };
            let mut width = limit as u64;
            while high > 0 {
                let low = high.saturating_sub(width);
                let mut part = self.between(level, low, high, limit, filter, &mut browsed)?;
                pages += 1;
                high = low;
                width = width.saturating_mul(4);
                found.splice(0..0, part.drain(..));
                if found.len() > limit || pages >= TAIL_PAGES_MAX {
                    break 'levels;
                }
            }
        }
        if found.len() > limit || pages >= TAIL_PAGES_MAX {
            found.drain(..found.len().saturating_sub(limit));
            browsed.next = found.first().map(|first| first.entry.at.number().0);
        }
        browsed.messages = found.into_iter().map(Into::into).collect();
        Ok(browsed)
    }

    /// The last of the messages from `low` to before `high`, a few more than `limit` at most.
    fn between(
        &self,
        level: u8,
        low: u64,
        high: u64,
        limit: usize,
        filter: Option<&Filter>,
        browsed: &mut Browsed,
    ) -> Result<Vec<Peeked>, Refusal> {
        let mut last: Vec<Peeked> = Vec::new();
        let mut next = Some(Seq(low));
        while let Some(from) = next.filter(|from| from.0 < high) {
            let part = self.read(level, from, super::BROWSE_MESSAGES_MAX)?;
            next = part.next;
            browsed.unreadable += part.unreadable;
            let here = part.peeked.into_iter().filter(|peeked| peeked.entry.at.seq().0 < high);
            for peeked in here {
                browsed.scanned += 1;
                if self.is_wanted(&peeked, filter) {
                    last.push(peeked);
                }
            }
            let excess = last.len().saturating_sub(limit + 1);
            last.drain(..excess);
        }
        Ok(last)
    }
}

//! Which messages a job works on.

use std::{collections::VecDeque, sync::Arc};

use polymq_contract::{Refusal, RefusalKind};
use polymq_filter::Filter;
use polymq_model::{Now, Seq};

use super::{JobSpec, Work, run::BATCH_MAX};
use crate::{
    BrokerHandle,
    access::Principal,
    browse::{BrowsedMessage, Reader},
    core::Core,
    queue::{Peeked, Position, Queue},
};

/// Messages that are looked at in one step at most, so that a job can be ended soon.
const SCAN_MAX: usize = 10_000;
/// Messages that a preview looks at, at most.
const PREVIEW_SCAN_MAX: u64 = 100_000;
/// Messages that a preview shows.
const SAMPLE_MAX: usize = 10;

/// What a job would do, without having done it.
#[derive(Debug, Clone, Default)]
pub struct JobPreview {
    /// How many messages it would work on.
    pub count: u64,
    /// False when there are so many that not all were looked at.
    pub exact: bool,
    /// The first of them.
    pub sample: Vec<BrowsedMessage>,
}

/// Goes through a queue once, from its head to where it ended when this began: what comes later is
/// not chosen, so that a message that is moved to the same queue is not moved for ever.
pub(super) struct Choice {
    queue: Arc<Queue>,
    filter: Option<Filter>,
    left: Option<u64>,
    seqs: Option<VecDeque<u64>>,
    /// Priority levels that are to be looked at: the level, the next position, the end.
    levels: VecDeque<(u8, Seq, Seq)>,
}

/// What a look came to.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) messages: Vec<Peeked>,
    pub(super) scanned: u64,
    /// Positions at which nothing was that can be chosen.
    pub(super) missed: u64,
    pub(super) is_over: bool,
}

impl Choice {
    /// Errors: kind `Invalid` for a filter that is none.
    pub(super) fn new(queue: &Arc<Queue>, spec: &JobSpec) -> Result<Self, Refusal> {
        let filter = spec.filter.as_deref().map(Filter::parse).transpose();
        let filter =
            filter.map_err(|bad| Refusal::new(RefusalKind::Invalid, format!("filter: {bad}")))?;
        let levels = queue.levels().into_iter().map(|(level, end)| (level, Seq(0), end));
        let seqs = (!spec.seqs.is_empty()).then(|| spec.seqs.iter().copied().collect());
        let queue = queue.clone();
        Ok(Self { queue, filter, left: spec.limit, seqs, levels: levels.collect() })
    }

    /// About how many messages will be looked at.
    pub(super) fn total(&self) -> u64 {
        let counts = self.queue.counts();
        self.seqs.as_ref().map_or(counts.ready + counts.delayed, |seqs| seqs.len() as u64)
    }

    /// The next messages, `max` at most; maybe none although it is not over.
    ///
    /// Errors: kind `StoreFailed`.
    pub(super) fn next(&mut self, core: &Core, max: usize, now_ms: u64) -> Result<Chosen, Refusal> {
        let queue = self.queue.clone();
        let reader = Reader::new(core, &queue, false, now_ms);
        let mut chosen = Chosen::default();
        let max = self.left.map_or(max, |left| usize::try_from(left).unwrap_or(max).min(max));
        match &mut self.seqs {
            Some(seqs) => by_position(seqs, &reader, max, &mut chosen)?,
            None => self.by_filter(&reader, max, &mut chosen)?,
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(chosen.messages.len() as u64);
            chosen.is_over |= *left == 0;
        }
        Ok(chosen)
    }

    fn by_filter(
        &mut self,
        reader: &Reader<'_>,
        max: usize,
        chosen: &mut Chosen,
    ) -> Result<(), Refusal> {
        while let Some((level, from, end)) = self.levels.pop_front() {
            let part = reader.read(level, from, BATCH_MAX)?;
            let mut next = part.next.filter(|next| next < &end);
            for peeked in part.peeked {
                let seq = peeked.entry.at.seq();
                if seq >= end {
                    next = None;
                    break;
                }
                if chosen.messages.len() >= max {
                    next = Some(seq);
                    break;
                }
                chosen.scanned += 1;
                if reader.is_wanted(&peeked, self.filter.as_ref()) {
                    chosen.messages.push(peeked);
                }
            }
            if let Some(next) = next {
                self.levels.push_front((level, next, end));
            }
            if chosen.messages.len() >= max || chosen.scanned >= SCAN_MAX as u64 {
                break;
            }
        }
        chosen.is_over = self.levels.is_empty();
        Ok(())
    }
}

fn by_position(
    seqs: &mut VecDeque<u64>,
    reader: &Reader<'_>,
    max: usize,
    chosen: &mut Chosen,
) -> Result<(), Refusal> {
    while chosen.messages.len() < max
        && let Some(seq) = seqs.pop_front()
    {
        let at = Position::named(Seq(seq));
        let part = reader.read(at.level(), at.seq(), 1)?;
        chosen.scanned += 1;
        match part.peeked.into_iter().find(|peeked| peeked.entry.at == at) {
            Some(peeked) => chosen.messages.push(peeked),
            None => chosen.missed += 1,
        }
    }
    chosen.is_over = seqs.is_empty();
    Ok(())
}

impl BrokerHandle {
    /// Looks which messages a job would work on. Blocks while the store is read.
    ///
    /// Errors: those of starting it; kind `StoreFailed`.
    pub fn preview_job(
        &self,
        who: &Principal,
        spec: &JobSpec,
        now: Now,
    ) -> Result<JobPreview, Refusal> {
        super::run::Run::begin(&self.0, who, spec)?;
        let queue = self.0.readable_queue(who, &spec.vhost, &spec.queue)?;
        let mut choice = Choice::new(&queue, spec)?;
        let mut preview = JobPreview { exact: true, ..JobPreview::default() };
        if spec.work == Work::Purge {
            preview.count = choice.total();
            return Ok(preview);
        }
        let mut scanned = 0;
        loop {
            let chosen = choice.next(&self.0, BATCH_MAX, now.unix_ms)?;
            scanned += chosen.scanned;
            preview.count += chosen.messages.len() as u64;
            for peeked in chosen.messages {
                if preview.sample.len() < SAMPLE_MAX {
                    preview.sample.push(peeked.into());
                }
            }
            if chosen.is_over {
                return Ok(preview);
            }
            if scanned >= PREVIEW_SCAN_MAX {
                preview.exact = false;
                return Ok(preview);
            }
        }
    }
}

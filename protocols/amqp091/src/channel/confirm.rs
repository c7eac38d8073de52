//! Publisher confirms: numbers in, `basic.ack` and `basic.nack` out, as few frames as the rule of
//! `multiple` allows.

use std::collections::BTreeMap;

use amq_protocol::protocol::{AMQPClass, confirm};
use polymq_contract::{Effects, Output, PublishOutcome};

use super::{Channel, Context, Mode};
use crate::{
    codec::hot,
    refusal::{Exception, ReplyCode, Step},
};

/// Numbers of one channel's publishes.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    published: u64,
    /// The client knows the outcome of every number up to this one.
    told_up_to: u64,
    /// Ranges beyond that whose outcome the client knows, by first number.
    told_ahead: BTreeMap<u64, u64>,
    /// Ranges to acknowledge at the end of this turn.
    acks: Vec<(u64, u64)>,
}

impl Confirms {
    /// The number of the next publish.
    pub(super) fn next_number(&mut self) -> u64 {
        self.published += 1;
        self.published
    }

    fn confirmed(&mut self, first: u64, last: u64) {
        match self.acks.last_mut() {
            Some(range) if range.1.checked_add(1) == Some(first) => range.1 = last,
            _ => self.acks.push((first, last)),
        }
    }

    fn refused(&mut self, first: u64, last: u64, channel: u16, out: &mut Output) {
        // `multiple` covers everything below, so what waits to be acknowledged goes first.
        self.put(channel, out);
        self.tell(first, last, |number, multiple| {
            hot::put_nack(out.frame(), channel, number, multiple)
        });
    }

    fn put(&mut self, channel: u16, out: &mut Output) {
        if self.acks.len() > 1 {
            self.acks.sort_unstable();
        }
        let mut acks = std::mem::take(&mut self.acks);
        let mut ranges = acks.drain(..).peekable();
        while let Some((first, mut last)) = ranges.next() {
            while let Some(next) = ranges.next_if(|next| last.checked_add(1) == Some(next.0)) {
                last = next.1;
            }
            self.tell(first, last, |number, multiple| {
                hot::put_ack(out.frame(), channel, number, multiple)
            });
        }
        drop(ranges);
        self.acks = acks;
    }

    /// Tells of a range: in one frame when everything below it is known, else number by number.
    fn tell(&mut self, first: u64, last: u64, mut put: impl FnMut(u64, bool)) {
        if first > self.told_up_to.saturating_add(1) {
            (first..=last).for_each(|number| put(number, false));
            self.told_ahead.insert(first, last);
            return;
        }
        put(last, last > first);
        self.told_up_to = self.told_up_to.max(last);
        while let Some(entry) = self.told_ahead.first_entry() {
            if *entry.key() > self.told_up_to.saturating_add(1) {
                break;
            }
            self.told_up_to = self.told_up_to.max(entry.remove());
        }
    }
}

impl Channel {
    pub(super) fn on_confirm(
        &mut self,
        class: &confirm::AMQPMethod,
        method: (u16, u16),
        context: &mut Context<'_>,
    ) -> Step {
        let confirm::AMQPMethod::Select(select) = class else {
            return Err(Exception::new(ReplyCode::CommandInvalid, method, "unexpected method"));
        };
        match self.mode {
            Mode::Plain => self.mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
            Mode::Tx(_) => {
                let text = "cannot switch from tx to confirm mode";
                return Err(Exception::invalid(method, text));
            }
        }
        self.describe(context.effects);
        if !select.nowait {
            let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
            self.put(context.effects, AMQPClass::Confirm(ok));
        }
        Ok(())
    }

    /// Publishes have ended. Returns true when [`Channel::put_confirms`] has something to write.
    pub(crate) fn on_confirmed(
        &mut self,
        first: u64,
        last: u64,
        outcome: PublishOutcome,
        effects: &mut Effects,
    ) -> bool {
        let Mode::Confirm(confirms) = &mut self.mode else { return false };
        if self.closing || first == 0 || first > last || last > confirms.published {
            return false;
        }
        match outcome {
            PublishOutcome::Routed(_) | PublishOutcome::Unrouted => confirms.confirmed(first, last),
            PublishOutcome::Refused(_) => {
                confirms.refused(first, last, self.number, &mut effects.out);
            }
        }
        true
    }

    /// Writes the acknowledgements that were gathered.
    pub(crate) fn put_confirms(&mut self, effects: &mut Effects) {
        if let Mode::Confirm(confirms) = &mut self.mode
            && !self.closing
            && !confirms.acks.is_empty()
        {
            confirms.put(self.number, &mut effects.out);
        }
    }
}

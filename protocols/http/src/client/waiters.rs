//! Who waits for what: requests for answers, publishes for their outcomes, readers for deliveries.

use std::{collections::VecDeque, task::Waker};

use polymq_contract::{Answer, CancelReason, Delivery, Event, Place, Refusal};
use polymq_model::{ConsumerId, RequestId};
use slab::Slab;

use super::{Ended, Published};

/// Everybody who waits on one client.
#[derive(Default)]
pub(super) struct Waiters(Slab<Waiter>);

struct Waiter {
    waits: Waits,
    waker: Option<Waker>,
}

/// What somebody waits for, and what has come of it.
pub(super) enum Waits {
    /// That publishes are taken again.
    Room,
    /// The answer to a command.
    Answer { request: RequestId, answer: Option<Result<Answer, Refusal>> },
    /// How publishes end, counted from `first`.
    Confirms { first: u64, publishes: Vec<Publishing>, open: usize },
    /// Deliveries.
    Consumer { consumer: ConsumerId, arrived: VecDeque<Delivery>, reason: Option<CancelReason> },
}

/// What is known of a publish.
#[derive(Debug, Clone, Default)]
pub(crate) struct Publishing {
    /// Where it is, once it has been taken.
    pub(crate) place: Option<Place>,
    /// How it ended.
    pub(crate) outcome: Option<Published>,
}

impl Waits {
    pub(super) fn confirms(first: u64, count: usize) -> Self {
        Self::Confirms { first, publishes: vec![Publishing::default(); count], open: count }
    }
}

impl Waiters {
    pub(super) fn insert(&mut self, waits: Waits) -> usize {
        self.0.insert(Waiter { waits, waker: None })
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Waits> {
        self.0.get_mut(place).map(|waiter| &mut waiter.waits)
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Waits> {
        self.0.try_remove(place).map(|waiter| waiter.waits)
    }

    /// Keeps the waker of who waits at this place.
    pub(super) fn sleep(&mut self, place: usize, waker: &Waker) {
        if let Some(waiter) = self.0.get_mut(place)
            && waiter.waker.as_ref().is_none_or(|kept| !kept.will_wake(waker))
        {
            waiter.waker = Some(waker.clone());
        }
    }

    /// Wakes somebody who sleeps, so that the outbox has a task to wake.
    pub(super) fn wake_one(&mut self) {
        if let Some(waker) = self.0.iter_mut().find_map(|(_, waiter)| waiter.waker.take()) {
            waker.wake();
        }
    }

    pub(super) fn wake_all(&mut self) {
        for (_, waiter) in &mut self.0 {
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    /// Hands an event to who waits for it. What nobody waits for is of a request that is gone.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Answered { request, answer } => {
                let mut answer = Some(*answer);
                self.tell(|waits| match waits {
                    Waits::Answer { request: asked, answer: slot } if *asked == request => {
                        *slot = answer.take();
                        true
                    }
                    _ => false,
                });
            }
            Event::Placed { first, last, place, .. } => {
                self.publishing(first, last, |one, _| one.place = Some(place));
            }
            Event::Confirmed { first, last, outcome, .. } => {
                self.confirm(first, last, &Published::Ended(outcome));
            }
            Event::PublishRefused { number, refusal, .. } => {
                self.confirm(number, number, &Published::Refused(*refusal));
            }
            Event::Delivered(delivery) => {
                let (from, mut delivery) = (delivery.consumer, Some(delivery));
                self.tell(|waits| match waits {
                    Waits::Consumer { consumer, arrived, .. } if *consumer == from => {
                        arrived.extend(delivery.take());
                        true
                    }
                    _ => false,
                });
            }
            Event::ConsumerCancelled { consumer: from, reason: why } => {
                self.tell(|waits| match waits {
                    Waits::Consumer { consumer, reason, .. } if *consumer == from => {
                        *reason = Some(why);
                        true
                    }
                    _ => false,
                });
            }
            Event::Broadcast { .. }
            | Event::Returned { .. }
            | Event::Blocked { .. }
            | Event::Unblocked
            | Event::TakenOver
            | Event::Passed(_)
            | Event::Closing { .. } => {}
        }
    }

    /// Notes how publishes ended; a range may belong to several requests.
    fn confirm(&mut self, first: u64, last: u64, published: &Published) {
        self.publishing(first, last, |one, open| {
            if one.outcome.is_none() {
                one.outcome = Some(published.clone());
                *open = open.saturating_sub(1);
            }
        });
    }

    /// Notes something of publishes, with how many of a request have no outcome yet; wakes those
    /// for whom there are fewer then.
    fn publishing(
        &mut self,
        first: u64,
        last: u64,
        mut note: impl FnMut(&mut Publishing, &mut usize),
    ) {
        for (_, waiter) in &mut self.0 {
            let Waits::Confirms { first: from, publishes, open } = &mut waiter.waits else {
                continue;
            };
            let before = *open;
            let start = usize::try_from(first.saturating_sub(*from)).unwrap_or(usize::MAX);
            let Some(end) = last.checked_sub(*from).and_then(|end| usize::try_from(end).ok())
            else {
                continue;
            };
            for one in publishes.iter_mut().take(end.saturating_add(1)).skip(start) {
                note(one, open);
            }
            if *open < before
                && let Some(waker) = waiter.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Wakes the one whom the event was for.
    fn tell(&mut self, mut is_for: impl FnMut(&mut Waits) -> bool) {
        for (_, waiter) in &mut self.0 {
            if is_for(&mut waiter.waits) {
                if let Some(waker) = waiter.waker.take() {
                    waker.wake();
                }
                return;
            }
        }
    }
}

/// What a request hears whose connection ends before its answer.
pub(super) fn outcome_unknown(ended: &Ended) -> Refusal {
    let text = format!("the connection ended before the answer: {}", ended.reason);
    Refusal::new(polymq_contract::RefusalKind::StoreFailed, text)
}

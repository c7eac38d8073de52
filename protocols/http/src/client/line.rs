//! The connection to the broker under a client, and the waiting on it.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use polymq_contract::{
    Answer, Command, Connection, DeliveryRange, DisconnectCause, Event, EventBatch, Outbox,
    Outcome, Publish, Refusal, Settlement,
};
use polymq_model::{ConsumerId, PublisherId, RequestId};

use super::{
    Ended, Outgoing,
    waiters::{Waiters, Waits, outcome_unknown},
};
use crate::clock;

/// The one source of publishes of a client.
const PUBLISHER: PublisherId = PublisherId(0);

/// A connection to the broker.
pub(super) struct Line {
    side: Mutex<Side>,
    outbox: Arc<Outbox>,
}

/// What is behind the lock: short calls only, and none of them blocks.
pub(super) struct Side {
    connection: Box<dyn Connection>,
    commands: Vec<Command>,
    batch: EventBatch,
    pub(super) waiters: Waiters,
    requests: u32,
    consumers: u32,
    published: u64,
    /// Why publishes wait.
    pub(super) blocked: Option<Box<str>>,
    /// Why the connection ends.
    pub(super) ended: Option<Ended>,
}

impl Line {
    pub(super) fn new(connection: Box<dyn Connection>, outbox: Arc<Outbox>) -> Self {
        let side = Side {
            connection,
            commands: Vec::new(),
            batch: EventBatch::default(),
            waiters: Waiters::default(),
            requests: 0,
            consumers: 0,
            published: 0,
            blocked: None,
            ended: None,
        };
        Self { side: Mutex::new(side), outbox }
    }

    /// Looks behind the lock, with all events taken that have come.
    pub(super) fn look<T>(&self, with: impl FnOnce(&mut Side) -> T) -> T {
        let mut side = self.side.lock();
        side.pump(&self.outbox);
        with(&mut side)
    }

    /// Gives orders under the lock, and has them executed.
    pub(super) fn order<T>(&self, with: impl FnOnce(&mut Side) -> T) -> T {
        let mut side = self.side.lock();
        let done = with(&mut side);
        side.execute();
        done
    }

    /// Gives an order that has an answer, and waits for it.
    ///
    /// Errors: those of the broker; kind `StoreFailed` when the connection ends before the answer.
    pub(super) async fn ask(
        &self,
        command: impl FnOnce(RequestId) -> Command,
    ) -> Result<Answer, Refusal> {
        let place = self.order(|side| side.ask(command));
        self.answer(place).await
    }

    /// Waits for the answer that `place` waits for.
    pub(super) async fn answer(&self, place: usize) -> Result<Answer, Refusal> {
        let waiting = Waiting { line: self, place };
        let answer = waiting.wait(|waits| match waits {
            Waits::Answer { answer, .. } => answer.take(),
            _ => None,
        });
        answer.await.unwrap_or_else(|ended| Err(outcome_unknown(&ended)))
    }

    /// Parts from the broker at once, and gives back what consumers have not settled.
    pub(super) fn end(&self, reason: &str) {
        let mut side = self.side.lock();
        let consumers = 1..=side.consumers;
        side.commands.extend(consumers.map(|consumer| {
            let all = DeliveryRange { first: 1, last: u64::MAX };
            Command::Settle(Settlement::new(ConsumerId(consumer), all, Outcome::Returned))
        }));
        side.execute();
        side.end(reason.into(), false);
        self.outbox.close();
        side.connection.disconnect(DisconnectCause::Session, clock::now());
    }

    /// Waits until the connection takes publishes.
    pub(super) async fn room(&self) {
        let place = self
            .look(|side| (!side.connection.may_read()).then(|| side.waiters.insert(Waits::Room)));
        let Some(place) = place else { return };
        let waiting = Waiting { line: self, place };
        // A connection that ends refuses the publish itself.
        let _ = waiting.wait_for(|side| side.connection.may_read().then_some(())).await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.outbox.close();
        self.side.get_mut().connection.disconnect(DisconnectCause::PeerGone, clock::now());
    }
}

impl Side {
    pub(super) fn next_request(&mut self) -> RequestId {
        self.requests = self.requests.wrapping_add(1);
        RequestId(self.requests)
    }

    pub(super) fn next_consumer(&mut self) -> ConsumerId {
        self.consumers = self.consumers.wrapping_add(1);
        ConsumerId(self.consumers)
    }

    pub(super) fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// Adds an order that has an answer; returns who waits for it.
    pub(super) fn ask(&mut self, command: impl FnOnce(RequestId) -> Command) -> usize {
        let request = self.next_request();
        self.commands.push(command(request));
        self.waiters.insert(Waits::Answer { request, answer: None })
    }

    /// Gives messages their numbers; returns who waits for their outcomes.
    pub(super) fn number(
        &mut self,
        messages: impl IntoIterator<Item = Outgoing>,
    ) -> (Vec<Publish>, usize) {
        let first = self.published + 1;
        let publishes: Vec<_> = messages
            .into_iter()
            .map(|Outgoing { message, delay, mandatory }| {
                self.published += 1;
                let (publisher, number) = (PUBLISHER, self.published);
                Publish { publisher, number, mandatory, received: None, delay, message }
            })
            .collect();
        let place = self.waiters.insert(Waits::confirms(first, publishes.len()));
        (publishes, place)
    }

    fn execute(&mut self) {
        // Nothing is done any more on a connection that has ended.
        if self.ended.as_ref().is_some_and(|ended| !ended.shutdown) {
            self.commands.clear();
        }
        if !self.commands.is_empty() {
            self.connection.execute(&mut self.commands, clock::now());
        }
    }

    /// Takes all events that have come, and hands them to who waits for them.
    fn pump(&mut self, outbox: &Outbox) {
        if outbox.is_evicted() {
            self.end("the broker closed the connection".into(), false);
        }
        loop {
            let mut has_room = outbox.take_nudge();
            if self.batch.is_empty() {
                outbox.take(&mut self.batch);
            }
            if self.batch.is_empty() && !has_room {
                return;
            }
            while let Some(event) = self.batch.pop() {
                match event {
                    Event::Blocked { reason } => self.blocked = Some(reason),
                    Event::Unblocked => self.blocked = None,
                    Event::Closing { reason, shutdown } => self.end(reason, shutdown),
                    event => self.waiters.take(event),
                }
            }
            has_room |= outbox.release(&mut self.batch);
            if has_room {
                self.connection.on_room(clock::now());
                self.waiters.wake_all();
            }
        }
    }

    fn end(&mut self, reason: Box<str>, shutdown: bool) {
        // That the server stops matters less than that this connection does.
        if self.ended.as_ref().is_none_or(|ended| ended.shutdown && !shutdown) {
            self.ended = Some(Ended { reason, shutdown });
            self.waiters.wake_all();
        }
    }
}

/// Somebody who waits; gone when dropped.
pub(super) struct Waiting<'a> {
    pub(super) line: &'a Line,
    pub(super) place: usize,
}

impl Waiting<'_> {
    /// Waits until `take` finds what it wants.
    ///
    /// Errors: the connection has ended; the stop of the server alone does not count.
    pub(super) async fn wait<T>(
        &self,
        mut take: impl FnMut(&mut Waits) -> Option<T>,
    ) -> Result<T, Ended> {
        let place = self.place;
        self.wait_for(|side| side.waiters.get_mut(place).and_then(&mut take)).await
    }

    pub(super) async fn wait_for<T>(
        &self,
        mut take: impl FnMut(&mut Side) -> Option<T>,
    ) -> Result<T, Ended> {
        poll_fn(|cx| self.line.poll(self.place, cx, &mut take)).await
    }
}

impl Line {
    /// What `take` finds; while that is nothing, the waker is kept here and in the outbox.
    pub(super) fn poll<T>(
        &self,
        place: usize,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&mut Side) -> Option<T>,
    ) -> Poll<Result<T, Ended>> {
        let mut side = self.side.lock();
        loop {
            side.pump(&self.outbox);
            if let Some(found) = take(&mut side) {
                return Poll::Ready(Ok(found));
            }
            if let Some(ended) = side.ended.clone().filter(|ended| !ended.shutdown) {
                return Poll::Ready(Err(ended));
            }
            side.waiters.sleep(place, cx.waker());
            if !self.outbox.poll(cx.waker()) {
                return Poll::Pending;
            }
        }
    }

    /// Removes who waited, and makes sure that somebody else hears of what comes.
    pub(super) fn leave(&self, place: usize) -> Option<Waits> {
        self.look(|side| {
            let left = side.waiters.remove(place);
            side.waiters.wake_one();
            left
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.leave(self.place);
    }
}

//! A client of the broker that requests of HTTP share: commands go in by a plain call, and whoever
//! waits for something takes the events out of the outbox, for itself and for the others.
//!
//! There is no task behind a client. The outbox wakes the request that looked last; when that one
//! has what it waits for, or goes away, it wakes another.

mod line;
mod waiters;

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use polymq_broker::{BrokerHandle, Principal};
use polymq_contract::{
    Answer, Broker, CancelReason, Command, Consume, Delivery, DeliveryRange, Login, Outbox,
    Outcome, Peer, Place, PublishOutcome, Refusal, RefusalKind, Settlement, Transaction,
};
use polymq_model::{ConnectionId, ConsumerId, Message, RequestId, UserName, delay::Delay};

use crate::Spans;
use line::{Line, Waiting};
pub(crate) use waiters::Publishing;
use waiters::Waits;

/// A client of the broker that has logged in.
pub(crate) struct Client {
    line: Line,
    who: Principal,
    /// Who makes spans, and whose messages these are.
    spans: Option<(Arc<dyn Spans>, Arc<Peer>)>,
}

/// Why a client is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// For people.
    pub(crate) reason: Box<str>,
    /// The whole server goes away; what was begun is finished all the same.
    pub(crate) shutdown: bool,
}

/// How one publish ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    /// It ended like this.
    Ended(PublishOutcome),
    /// It broke a rule.
    Refused(Refusal),
}

/// What came of one publish.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Where it is, if it has been taken.
    pub(crate) place: Option<Place>,
    /// How it ended.
    pub(crate) outcome: Published,
}

/// One message to publish.
pub(crate) struct Outgoing {
    /// The message.
    pub(crate) message: Message,
    /// Route it later.
    pub(crate) delay: Option<Delay>,
    /// A delayed message that nobody would take now is not taken either.
    pub(crate) mandatory: bool,
}

impl Client {
    /// Logs in, and opens a virtual host if one is named.
    ///
    /// Errors: those of the broker.
    pub(crate) async fn connect(
        broker: &BrokerHandle,
        peer: &Arc<Peer>,
        login: Login,
        vhost: Option<String>,
        outbox_bytes_max: usize,
    ) -> Result<Self, Refusal> {
        let outbox = Arc::new(Outbox::new(outbox_bytes_max));
        let connection = broker.connect("http", peer, &outbox)?;
        let id = connection.id();
        let line = Line::new(connection, outbox);
        let login = Box::new(login);
        let answer = line.ask(|request| Command::Authenticate { request, login }).await?;
        let Answer::Authenticated { .. } = answer else {
            return Err(Refusal::new(RefusalKind::LoginFailed, "the login takes several steps"));
        };
        Self::open(broker, line, id, vhost).await
    }

    /// As [`connect`](Self::connect), for somebody who has logged in before.
    ///
    /// Errors: those of the broker.
    pub(crate) async fn connect_as(
        broker: &BrokerHandle,
        peer: &Arc<Peer>,
        who: &Principal,
        vhost: Option<String>,
        outbox_bytes_max: usize,
    ) -> Result<Self, Refusal> {
        let outbox = Arc::new(Outbox::new(outbox_bytes_max));
        let connection = broker.connect_as("http", peer, &outbox, who)?;
        let id = connection.id();
        Self::open(broker, Line::new(connection, outbox), id, vhost).await
    }

    async fn open(
        broker: &BrokerHandle,
        line: Line,
        id: ConnectionId,
        vhost: Option<String>,
    ) -> Result<Self, Refusal> {
        line.order(|side| side.push(Command::TellPlaces));
        if vhost.is_some() {
            line.ask(|request| Command::OpenVhost { request, vhost }).await?;
        }
        let gone = || Refusal::new(RefusalKind::LoginFailed, "the connection has ended");
        let who = broker.principal(id).ok_or_else(gone)?;
        Ok(Self { line, who, spans: None })
    }

    /// The same, with spans of what it publishes and is given.
    pub(crate) fn with_spans(mut self, spans: Option<&Arc<dyn Spans>>, peer: &Arc<Peer>) -> Self {
        self.spans = spans.map(|spans| (Arc::clone(spans), Arc::clone(peer)));
        self
    }

    /// The message with its span, if it has one.
    fn published(&self, mut outgoing: Outgoing) -> Outgoing {
        if let Some((spans, peer)) = &self.spans
            && let Some(message) = spans.published(peer, &outgoing.message)
        {
            outgoing.message = message;
        }
        outgoing
    }

    /// The same for what a client is given.
    fn delivered(&self, mut delivery: Box<Delivery>) -> Box<Delivery> {
        if let Some((spans, peer)) = &self.spans
            && let Some(message) = spans.delivered(peer, &delivery.message, delivery.redelivered)
        {
            delivery.message = message;
        }
        delivery
    }

    /// Opens a virtual host for single requests, which limits of connections do not count.
    ///
    /// Errors: those of the broker.
    pub(crate) async fn visit(&self, vhost: &str) -> Result<(), Refusal> {
        self.line.order(|side| side.push(Command::Visit));
        let vhost = Some(vhost.to_owned());
        self.line.ask(|request| Command::OpenVhost { request, vhost }).await.map(drop)
    }

    /// Who has logged in, with what a token says of its rights.
    pub(crate) fn principal(&self) -> &Principal {
        &self.who
    }

    /// Who has logged in.
    pub(crate) fn user(&self) -> &UserName {
        &self.who.user
    }

    /// The user may send in the name of others.
    pub(crate) fn is_impersonator(&self) -> bool {
        self.who.impersonator
    }

    /// Why the client ends, if it does.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.line.look(|side| side.ended.clone())
    }

    /// Why publishes wait, if they do.
    pub(crate) fn blocked(&self) -> Option<Box<str>> {
        self.line.look(|side| side.blocked.clone())
    }

    /// Gives an order that has an answer, and waits for it.
    ///
    /// Errors: those of the broker; kind `StoreFailed` when the connection ends before the answer.
    pub(crate) async fn ask(
        &self,
        command: impl FnOnce(RequestId) -> Command,
    ) -> Result<Answer, Refusal> {
        self.line.ask(command).await
    }

    /// Parts from the broker at once. Deliveries that are not settled go back without counting as
    /// failed.
    pub(crate) fn end(&self, reason: &str) {
        self.line.end(reason);
    }

    /// Takes one message, which is number 1 of the consumer that comes with it. Returns how many
    /// remain as well.
    ///
    /// Errors: those of the broker.
    pub(crate) async fn get(
        &self,
        queue: &str,
    ) -> Result<(ConsumerId, Option<Box<Delivery>>, u64), Refusal> {
        let (consumer, answer) = self.line.order(|side| {
            let (consumer, queue) = (side.next_consumer(), queue.to_owned());
            let get = |request| Command::Get { request, queue, no_ack: false, consumer };
            (consumer, side.ask(get))
        });
        match self.line.answer(answer).await? {
            Answer::Got { delivery, remaining } => {
                Ok((consumer, delivery.map(|delivery| self.delivered(delivery)), remaining))
            }
            _ => Ok((consumer, None, 0)),
        }
    }

    /// Settles deliveries.
    pub(crate) fn settle(&self, settlements: impl IntoIterator<Item = Settlement>) {
        self.line.order(|side| {
            settlements.into_iter().for_each(|settlement| side.push(Command::Settle(settlement)));
        });
    }

    /// Settles deliveries together and waits until the disk has it.
    ///
    /// Errors: those of the broker.
    pub(crate) async fn settle_stored(&self, settlements: Vec<Settlement>) -> Result<(), Refusal> {
        let commit = |request| {
            Command::Commit(Box::new(Transaction { request, publishes: Vec::new(), settlements }))
        };
        self.ask(commit).await.map(|_| ())
    }

    /// Publishes messages, in order. Waits first while too much of this client is unconfirmed.
    pub(crate) async fn publish(
        &self,
        messages: impl IntoIterator<Item = Outgoing>,
    ) -> Confirms<'_> {
        self.line.room().await;
        let messages = messages.into_iter().map(|message| self.published(message));
        let place = self.line.order(|side| {
            let (publishes, place) = side.number(messages);
            publishes.into_iter().for_each(|publish| side.push(Command::Publish(publish)));
            place
        });
        Confirms(Waiting { line: &self.line, place })
    }

    /// Publishes messages together: all of them happen, or none does.
    ///
    /// Errors: those of the broker, for all of them.
    pub(crate) async fn publish_together(
        &self,
        messages: impl IntoIterator<Item = Outgoing>,
    ) -> Result<Vec<Told>, Refusal> {
        self.line.room().await;
        let messages = messages.into_iter().map(|message| self.published(message));
        let (place, answer) = self.line.order(|side| {
            let (publishes, place) = side.number(messages);
            let answer = side.ask(|request| {
                let settlements = Vec::new();
                Command::Commit(Box::new(Transaction { request, publishes, settlements }))
            });
            (place, answer)
        });
        let confirms = Confirms(Waiting { line: &self.line, place });
        self.line.answer(answer).await?;
        // A transaction that one publish has stopped is answered as well.
        match confirms.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(confirms.all().await),
        }
    }

    /// Starts a consumer. `consume` makes the command of the numbers that it is given.
    ///
    /// Errors: those of the broker.
    pub(crate) async fn consume(
        self: &Arc<Self>,
        consume: impl FnOnce(RequestId, ConsumerId) -> Consume,
    ) -> Result<Deliveries, Refusal> {
        let (mut deliveries, answer) = self.line.order(|side| {
            let consumer = side.next_consumer();
            let (arrived, reason) = (VecDeque::new(), None);
            let place = side.waiters.insert(Waits::Consumer { consumer, arrived, reason });
            let answer = side.ask(|request| Command::Consume(Box::new(consume(request, consumer))));
            let client = Arc::clone(self);
            (Deliveries { client, place, consumer, reply_name: None, is_open: true }, answer)
        });
        if let Answer::Consuming { reply_name } = self.line.answer(answer).await? {
            deliveries.reply_name = reply_name;
        }
        Ok(deliveries)
    }
}

/// The outcomes of publishes, to be waited for; whoever drops it does not want to know.
pub(crate) struct Confirms<'a>(Waiting<'a>);

impl Confirms<'_> {
    /// All outcomes, in order.
    pub(crate) async fn all(&self) -> Vec<Told> {
        let all = self.0.wait(|waits| match waits {
            Waits::Confirms { publishes, open: 0, .. } => Some(std::mem::take(publishes)),
            _ => None,
        });
        let (all, ended) = match all.await {
            Ok(all) => (all, None),
            Err(ended) => self.0.line.look(|side| match side.waiters.get_mut(self.0.place) {
                Some(Waits::Confirms { publishes, .. }) => (std::mem::take(publishes), Some(ended)),
                _ => (Vec::new(), Some(ended)),
            }),
        };
        let told = |one: Publishing| {
            let outcome = one
                .outcome
                .or_else(|| ended.as_ref().map(waiters::outcome_unknown).map(Published::Refused));
            Some(Told { place: one.place, outcome: outcome? })
        };
        all.into_iter().filter_map(told).collect()
    }

    /// What is known of the first publish already.
    pub(crate) fn now(&self) -> Publishing {
        self.0.line.look(|side| match side.waiters.get_mut(self.0.place) {
            Some(Waits::Confirms { publishes, .. }) => {
                publishes.first().cloned().unwrap_or_default()
            }
            _ => Publishing::default(),
        })
    }

    /// The first refusal, if one is known already.
    fn refusal(&self) -> Option<Refusal> {
        self.0.line.look(|side| match side.waiters.get_mut(self.0.place) {
            Some(Waits::Confirms { publishes, .. }) => {
                publishes.iter().find_map(|one| match &one.outcome {
                    Some(Published::Refused(refusal)) => Some(refusal.clone()),
                    _ => None,
                })
            }
            _ => None,
        })
    }
}

/// What a consumer is told next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A message.
    Delivery(Box<Delivery>),
    /// The consumer has ended by itself.
    Cancelled(CancelReason),
    /// The client has ended, or the server stops.
    Ended(Ended),
}

/// The deliveries of a consumer. Dropping it stops the consumer and gives back what nobody took.
pub(crate) struct Deliveries {
    client: Arc<Client>,
    place: usize,
    consumer: ConsumerId,
    reply_name: Option<String>,
    is_open: bool,
}

impl Deliveries {
    /// The consumer.
    pub(crate) fn consumer(&self) -> ConsumerId {
        self.consumer
    }

    /// Where answers are sent, for a consumer of answers.
    pub(crate) fn reply_name(&self) -> Option<&str> {
        self.reply_name.as_deref()
    }

    /// The client that consumes.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Next {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// What comes next, or `None` after `time`.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Option<Next> {
        tokio::time::timeout(time, self.next()).await.ok()
    }

    /// As [`Deliveries::next`].
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let place = self.place;
        let polled = self.client.line.poll(place, cx, &mut |side| {
            let ended = side.ended.clone();
            let Some(Waits::Consumer { arrived, reason, .. }) = side.waiters.get_mut(place) else {
                return None;
            };
            match (arrived.pop_front(), reason, ended) {
                (Some(delivery), _, _) => Some(Next::Delivery(Box::new(delivery))),
                (None, Some(reason), _) => Some(Next::Cancelled(*reason)),
                (None, None, Some(ended)) => Some(Next::Ended(ended)),
                (None, None, None) => None,
            }
        });
        polled.map(|told| match told {
            Ok(Next::Delivery(delivery)) => Next::Delivery(self.client.delivered(delivery)),
            Ok(next) => next,
            Err(ended) => Next::Ended(ended),
        })
    }

    /// Stops the consumer, and returns what has come and was not taken. All that was taken stays
    /// unsettled.
    pub(crate) fn finish(&mut self) -> Vec<Delivery> {
        if !std::mem::replace(&mut self.is_open, false) {
            return Vec::new();
        }
        let consumer = self.consumer;
        self.client.line.order(|side| {
            let request = side.next_request();
            side.push(Command::Cancel { request, consumer });
        });
        // Only now nothing more comes.
        match self.client.line.leave(self.place) {
            Some(Waits::Consumer { arrived, .. }) => arrived.into(),
            _ => Vec::new(),
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let left = self.finish();
        self.client.settle(left.into_iter().filter(|one| one.number > 0).map(|one| {
            let range = DeliveryRange { first: one.number, last: one.number };
            Settlement::new(one.consumer, range, Outcome::Returned)
        }));
    }
}

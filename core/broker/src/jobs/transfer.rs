//! A batch of chosen messages: out of their queue and into others, in one batch of the store.
//!
//! Whether a target takes a message is known before the message is taken out: it is routed, and
//! room is kept for it. So what is refused never leaves its place.

use std::{collections::HashMap, sync::Arc};

use polymq_contract::{Matched, Refusal, RefusalKind};
use polymq_model::{ClientNumber, Message, Now};

use super::{JobRecord, JobSpec, MoveTo, Via, Work};
use crate::{
    access::{Principal, Write},
    core::Core,
    queue::{Entry, Peeked, Position, Queue, Reserved, Room},
    routing::{Route, Routing, Target, cc_keys, check_publishable},
    vhost::Vhost,
};

/// A message and where it goes; its room is kept there.
struct Prepared {
    message: Message,
    route: Route,
    _room: Vec<Reserved>,
}

impl Core {
    /// Whether the targets of a job are there and `who` may write to them, as far as that is known
    /// before the messages are.
    ///
    /// Errors: kind `NotFound`, kind `Denied`, kind `Reserved`.
    pub(super) fn check_work(&self, who: &Principal, spec: &JobSpec) -> Result<(), Refusal> {
        let vhost = self.vhost(spec.vhost.as_str())?;
        match &spec.work {
            Work::Purge | Work::Delete | Work::Retry(_) => Ok(()),
            Work::Move(MoveTo::Queue(queue)) | Work::Copy(MoveTo::Queue(queue)) => {
                self.writable_queue(who, &vhost, queue).map(drop)
            }
            Work::Move(MoveTo::Exchange { exchange, .. })
            | Work::Copy(MoveTo::Exchange { exchange, .. }) => {
                self.permit::<Write>(who, &vhost, "exchange", exchange)?;
                check_publishable(&vhost, &vhost.topology.load(), exchange)
            }
        }
    }

    fn writable_queue(
        &self,
        who: &Principal,
        vhost: &Arc<Vhost>,
        queue: &str,
    ) -> Result<Arc<Queue>, Refusal> {
        self.permit::<Write>(who, vhost, "queue", queue)?;
        let found = vhost.topology.load().queue(queue).cloned();
        found.ok_or_else(|| crate::declare::no_queue(vhost, queue))
    }

    /// Does the work of a job with these messages. Returns what has left the queue.
    pub(super) fn transfer(
        &self,
        who: &Principal,
        queue: &Arc<Queue>,
        record: &mut JobRecord,
        (chosen, edited): (Vec<Peeked>, Option<&Message>),
        now: Now,
    ) -> Vec<Entry> {
        let Ok(vhost) = self.vhost(record.spec.vhost.as_str()) else { return Vec::new() };
        let (work, now_ms) = (record.spec.work.clone(), now.unix_ms);
        let mut prepared: HashMap<Position, Prepared> = HashMap::new();
        let mut willing = Vec::with_capacity(chosen.len());
        for peeked in chosen {
            let at = peeked.entry.at;
            let original = &peeked.entry.message;
            let message = edited.map_or_else(|| original.clone(), |new| in_place_of(original, new));
            match self.prepare(who, &vhost, &work, &message) {
                Ok(Some(ready)) => {
                    prepared.insert(at, ready);
                    willing.push(peeked);
                }
                Ok(None) => willing.push(peeked),
                Err(refusal) => record.note_refused(at.number().0, refusal.text),
            }
        }
        let wanted = willing.len() as u64;
        // Leaving here and arriving there are kept together or not at all.
        let _together = self.committer.together();
        let out = match work {
            Work::Copy(_) => {
                for peeked in &willing {
                    self.put(prepared.remove(&peeked.entry.at), now_ms);
                }
                record.done += wanted;
                return Vec::new();
            }
            _ => queue.take_out(willing),
        };
        for entry in &out {
            self.put(prepared.remove(&entry.at), now_ms);
        }
        queue.settle_out(&out, now_ms);
        record.done += out.len() as u64;
        record.missed += wanted - out.len() as u64;
        out
    }

    fn put(&self, prepared: Option<Prepared>, now_ms: u64) {
        if let Some(Prepared { message, route, _room }) = prepared {
            self.hand_over(&route.targets, &mut vec![message], Room::Reserved, now_ms);
        }
    }

    /// Where a message goes, with room for it; `None` for nowhere.
    ///
    /// Errors: why its target does not take it.
    fn prepare(
        &self,
        who: &Principal,
        vhost: &Arc<Vhost>,
        work: &Work,
        message: &Message,
    ) -> Result<Option<Prepared>, Refusal> {
        let (message, route) = match work {
            Work::Purge | Work::Delete => return Ok(None),
            Work::Move(MoveTo::Queue(queue)) | Work::Copy(MoveTo::Queue(queue)) => {
                (message.clone(), self.straight_to(who, vhost, queue)?)
            }
            Work::Move(MoveTo::Exchange { exchange, key })
            | Work::Copy(MoveTo::Exchange { exchange, key }) => {
                let keys: Vec<&str> = match key {
                    Some(key) => vec![key],
                    None => std::iter::once(message.key()).chain(cc_keys(message)).collect(),
                };
                self.through(who, vhost, message, exchange, &keys)?
            }
            Work::Retry(via) => self.back(who, vhost, message, *via)?,
        };
        let route = route.with_sizes(None);
        route.check_size(&message)?;
        let bytes = message.body().len() as u64;
        let mut room = Vec::new();
        for target in &route.targets {
            if let Target::Queue(queue, _) = target {
                room.extend(queue.reserve(1, bytes)?);
            }
        }
        Ok(Some(Prepared { message, route, _room: room }))
    }

    fn straight_to(
        &self,
        who: &Principal,
        vhost: &Arc<Vhost>,
        queue: &str,
    ) -> Result<Route, Refusal> {
        let queue = self.writable_queue(who, vhost, queue)?;
        let matched = Matched { qos: 2, ..Matched::default() };
        let targets = [Target::Queue(queue, matched)].into_iter().collect();
        Ok(Route { targets, ..Route::default() })
    }

    /// Errors: kind `NotFound` when no queue takes it, for what is only sent on would be lost.
    fn through(
        &self,
        who: &Principal,
        vhost: &Arc<Vhost>,
        message: &Message,
        exchange: &str,
        keys: &[&str],
    ) -> Result<(Message, Route), Refusal> {
        self.check_may_publish(who, vhost, exchange, keys.iter().copied())?;
        let topology = vhost.topology.load();
        let key = keys.first().copied().unwrap_or_default();
        let mut moved = message.moved_to(exchange, key);
        if let Some(annotations) = message.annotations() {
            moved = moved.with_annotations(annotations.clone());
        }
        let routing =
            Routing { topology: &topology, publisher: ClientNumber(0), message: Some(&moved) };
        let route = routing.route(exchange, keys.iter().copied());
        if !route.targets.iter().any(|target| matches!(target, Target::Queue(..))) {
            let text = format!("no queue takes key '{key}' from exchange '{exchange}'");
            return Err(Refusal::new(RefusalKind::NotFound, text));
        }
        Ok((moved, route))
    }

    /// A dead letter as it was before it died last, on its way back.
    fn back(
        &self,
        who: &Principal,
        vhost: &Arc<Vhost>,
        message: &Message,
        via: Via,
    ) -> Result<(Message, Route), Refusal> {
        let annotations = message.annotations().cloned().unwrap_or_default();
        let Some(death) = annotations.deaths.first().cloned() else {
            let text = "it is no dead letter, so that nobody knows where it came from";
            return Err(Refusal::new(RefusalKind::Invalid, text));
        };
        let key = death.routing_keys.first().map_or("", |key| key.as_str());
        match via {
            Via::Queue => {
                let route = self.straight_to(who, vhost, &death.queue)?;
                Ok((message.readdressed(&death.exchange, key, annotations), route))
            }
            Via::Exchange => {
                let keys: Vec<&str> = death.routing_keys.iter().map(String::as_str).collect();
                let keys = if keys.is_empty() { vec![""] } else { keys };
                self.through(who, vhost, message, &death.exchange, &keys)
            }
        }
    }
}

/// An edited message, with what the broker knows about the one that it was.
fn in_place_of(original: &Message, edited: &Message) -> Message {
    match original.annotations() {
        Some(known) => edited.clone().with_annotations(known.clone()),
        None => edited.clone(),
    }
}

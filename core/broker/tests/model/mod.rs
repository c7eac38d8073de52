//! The model of a queue: lists, and rules written out one after another.

pub(crate) mod run;

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    /// `x-max-priority`; 0 for none.
    pub(crate) levels: u8,
    /// `x-message-ttl`.
    pub(crate) ttl: Option<u16>,
    /// `x-max-length`.
    pub(crate) length: Option<u8>,
    /// `reject-publish` instead of `drop-head`.
    pub(crate) rejects: bool,
    pub(crate) dead_letters: bool,
    /// `x-delivery-limit`.
    pub(crate) limit: Option<u8>,
    /// `x-delayed-retry-min` of failed deliveries, linear.
    pub(crate) retry: Option<u16>,
    /// `x-single-active-consumer`.
    pub(crate) single: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Messages with priority and expiry, durable or not.
    Publish(Vec<(u8, Option<u16>)>, bool),
    /// A consumer with a prefetch and a priority.
    Consume(u8, u8),
    /// One of the consumers is cancelled, and keeps what it has.
    Cancel(u8),
    /// One of the consumers is gone, and what it had has failed.
    Release(u8),
    /// One of the deliveries is settled.
    Settle(u8, Settle),
    Get,
    Purge,
    Pause(bool),
    /// Time passes, in ms.
    Pass(u16),
    /// A policy sets or frees the length.
    Policy(Option<u8>),
    Restart,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Settle {
    Accept,
    Return,
    Fail,
    Reject,
}

#[derive(Debug, Clone)]
pub(crate) struct Msg {
    pub(crate) id: u64,
    pub(crate) level: u8,
    /// When it expires; 0 for never.
    pub(crate) deadline: u64,
    pub(crate) durable: bool,
    pub(crate) acquired: u16,
    pub(crate) failed: u16,
}

impl Msg {
    /// Higher levels first, then in the order of publishing.
    fn place(&self) -> (u8, u64) {
        (u8::MAX - self.level, self.id)
    }

    fn is_expired(&self, now: u64) -> bool {
        self.deadline != 0 && self.deadline <= now
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Taker {
    pub(crate) id: u32,
    pub(crate) prefetch: u8,
    pub(crate) priority: u8,
}

pub(crate) struct Model {
    pub(crate) config: Config,
    /// What a policy says of the length.
    pub(crate) policy_length: Option<u8>,
    pub(crate) ready: BTreeMap<(u8, u64), Msg>,
    /// What came back, with the time when it may go out again.
    pub(crate) delayed: Vec<(u64, Msg)>,
    /// Deliveries by consumer and number.
    pub(crate) held: BTreeMap<(u32, u64), Msg>,
    /// What died, and why, in order.
    pub(crate) dead: Vec<(Msg, &'static str)>,
    /// Active consumers, the oldest first.
    pub(crate) takers: Vec<Taker>,
    /// The single active consumer.
    pub(crate) sole: Option<u32>,
    pub(crate) paused: bool,
    pub(crate) next_id: u64,
}

impl Model {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            policy_length: None,
            ready: BTreeMap::new(),
            delayed: Vec::new(),
            held: BTreeMap::new(),
            dead: Vec::new(),
            takers: Vec::new(),
            sole: None,
            paused: false,
            next_id: 0,
        }
    }

    fn length(&self) -> Option<usize> {
        self.config.length.into_iter().chain(self.policy_length).min().map(usize::from)
    }

    fn die(&mut self, msg: &Msg, reason: &'static str) {
        self.dead.push((msg.clone(), reason));
    }

    /// Messages arrive that were published together; returns how many were refused. `given` is what
    /// consumers were seen to get.
    pub(crate) fn publish(&mut self, messages: Vec<Msg>, now: u64, given: &mut Given) -> usize {
        let mut waiting = messages;
        while !waiting.is_empty() {
            let room = match self.length() {
                // Who waits for the next message leaves it no time to take room.
                Some(0) if self.config.rejects && self.hands_over() => 1,
                Some(max) if self.config.rejects => max.saturating_sub(self.ready.len()),
                _ => waiting.len(),
            };
            let rest = waiting.split_off(room.min(waiting.len()));
            if waiting.is_empty() {
                waiting = rest;
                break;
            }
            self.ready.extend(waiting.drain(..).map(|msg| (msg.place(), msg)));
            self.dispatch(now.saturating_sub(1), given);
            waiting = rest;
        }
        self.drop_over_limit();
        self.expire(now);
        waiting.len()
    }

    /// Expired messages leave from the head of each level.
    pub(crate) fn expire(&mut self, now: u64) {
        for level in (0..=self.config.levels).rev() {
            while let Some(head) = self.ready.values().find(|msg| msg.level == level).cloned()
                && head.is_expired(now)
            {
                self.ready.remove(&head.place());
                self.die(&head, "expired");
            }
        }
    }

    /// What is beyond the length leaves from the head of the lowest level.
    pub(crate) fn drop_over_limit(&mut self) {
        let Some(max) = self.length().filter(|_| !self.config.rejects) else { return };
        while self.ready.len() > max {
            let lowest = self.ready.values().map(|msg| msg.level).min().unwrap();
            let head = self.ready.values().find(|msg| msg.level == lowest).cloned().unwrap();
            self.ready.remove(&head.place());
            self.die(&head, "maxlen");
        }
    }

    fn has_room(&self, taker: &Taker) -> bool {
        let held = self.held.keys().filter(|(consumer, _)| *consumer == taker.id).count();
        taker.prefetch == 0 || held < usize::from(taker.prefetch)
    }

    /// Who may get the next message: those with room, of the highest priority among them.
    fn next_takers(&self) -> Vec<u32> {
        let may = |taker: &&Taker| {
            (!self.config.single || self.sole == Some(taker.id)) && self.has_room(taker)
        };
        let with_room: Vec<&Taker> = self.takers.iter().filter(may).collect();
        let highest = with_room.iter().map(|taker| taker.priority).max();
        let best = with_room.iter().filter(|taker| Some(taker.priority) == highest);
        best.map(|taker| taker.id).collect()
    }

    /// True when a message that came now would go to a consumer at once.
    fn hands_over(&self) -> bool {
        !self.paused && self.ready.is_empty() && !self.next_takers().is_empty()
    }

    /// Ready messages go to consumers with room, in order. Which of several equals gets one is read
    /// from what was seen.
    pub(crate) fn dispatch(&mut self, now: u64, given: &mut Given) {
        if self.takers.is_empty() || self.paused {
            return;
        }
        while let Some((place, msg)) = self.ready.first_key_value() {
            let (place, msg) = (*place, msg.clone());
            if msg.is_expired(now) {
                self.ready.remove(&place);
                self.die(&msg, "expired");
                continue;
            }
            let takers = self.next_takers();
            if takers.is_empty() {
                return;
            }
            let Some(got) = given.take(msg.id) else {
                panic!("message {} should have gone to one of {takers:?}", msg.id);
            };
            assert!(takers.contains(&got.consumer), "{got:?} went not to one of {takers:?}");
            assert_eq!((got.acquired, got.failed), (msg.acquired, msg.failed), "counts of {got:?}");
            self.ready.remove(&place);
            self.held.insert((got.consumer, got.number), msg);
        }
    }

    /// A message comes back.
    pub(crate) fn come_back(&mut self, mut msg: Msg, has_failed: bool, now: u64) {
        let limit = self.config.limit.map(u16::from);
        if has_failed && limit.is_some_and(|limit| msg.failed >= limit) {
            return self.die(&msg, "delivery_limit");
        }
        msg.acquired += 1;
        msg.failed += u16::from(has_failed);
        match self.config.retry.filter(|_| has_failed) {
            Some(min) => self.delayed.push((now + u64::from(min) * u64::from(msg.failed), msg)),
            None => {
                self.ready.insert(msg.place(), msg);
            }
        }
    }

    pub(crate) fn settle(&mut self, msg: Msg, how: Settle, now: u64) {
        match how {
            Settle::Accept => {}
            Settle::Return => self.come_back(msg, false, now),
            Settle::Fail => self.come_back(msg, true, now),
            Settle::Reject => self.die(&msg, "rejected"),
        }
    }

    /// What is held is due.
    pub(crate) fn release_due(&mut self, now: u64) {
        for (due, msg) in std::mem::take(&mut self.delayed) {
            if due <= now {
                self.ready.insert(msg.place(), msg);
            } else {
                self.delayed.push((due, msg));
            }
        }
    }

    /// What time does.
    pub(crate) fn look(&mut self, now: u64, given: &mut Given) {
        self.release_due(now);
        self.expire(now);
        self.dispatch(now, given);
        self.drop_over_limit();
        self.expire(now);
    }

    pub(crate) fn add_taker(&mut self, taker: Taker) {
        self.takers.push(taker);
        self.sole = self.sole.or(Some(taker.id));
    }

    pub(crate) fn remove_taker(&mut self, id: u32) {
        self.takers.retain(|taker| taker.id != id);
        if self.sole == Some(id) {
            // The next in priority, then age; `max_by_key` would take the last of equals.
            let highest = self.takers.iter().map(|taker| taker.priority).max();
            let next = self.takers.iter().find(|taker| Some(taker.priority) == highest);
            self.sole = next.map(|taker| taker.id);
        }
    }

    /// Only what is durable is there after a restart, and nobody has any of it.
    pub(crate) fn restart(&mut self) {
        for msg in std::mem::take(&mut self.held).into_values() {
            self.ready.insert(msg.place(), msg);
        }
        self.ready.retain(|_, msg| msg.durable);
        self.delayed.retain(|(_, msg)| msg.durable);
        self.dead.retain(|(msg, _)| msg.durable);
        self.takers.clear();
        self.sole = None;
    }
}

/// A delivery that was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Got {
    pub(crate) id: u64,
    pub(crate) consumer: u32,
    pub(crate) number: u64,
    pub(crate) acquired: u16,
    pub(crate) failed: u16,
}

/// Deliveries that were seen and that the model has not explained yet.
#[derive(Debug, Default)]
pub(crate) struct Given(pub(crate) Vec<Got>);

impl Given {
    fn take(&mut self, id: u64) -> Option<Got> {
        let at = self.0.iter().position(|got| got.id == id)?;
        Some(self.0.remove(at))
    }
}

//! The model of a queue: lists, and rules written out one after another.

pub(crate) mod run;

use std::collections::BTreeMap;

/// `x-overflow`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    Reject,
    RejectDlx,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum DeadLetters {
    #[default]
    None,
    AtMostOnce,
    /// Their queue is made only at the end, so that they have to wait.
    AtLeastOnce,
}

/// `x-delayed-retry-…`, never above [`RETRY_MAX_MS`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) min: u16,
    pub(crate) kind: &'static str,
    pub(crate) backoff: &'static str,
}

pub(crate) const RETRY_MAX_MS: u64 = 1000;

impl Retry {
    fn delay(self, msg: &Msg, has_failed: bool) -> Option<u64> {
        if !["all", if has_failed { "failed" } else { "returned" }].contains(&self.kind) {
            return None;
        }
        let (min, times) =
            (u64::from(self.min), if has_failed { msg.failed } else { msg.acquired });
        let delay = match self.backoff {
            "fixed" => min,
            "exponential" => min.saturating_mul(2_u64.saturating_pow(u32::from(times) - 1)),
            _ => min * u64::from(times),
        };
        Some(delay.min(RETRY_MAX_MS))
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Config {
    /// `x-max-priority`; 0 for none.
    pub(crate) levels: u8,
    /// `x-message-ttl`.
    pub(crate) ttl: Option<u16>,
    /// `x-max-length`.
    pub(crate) length: Option<u8>,
    /// `x-max-length-bytes`.
    pub(crate) bytes: Option<u8>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letters: DeadLetters,
    /// `x-delivery-limit`.
    pub(crate) limit: Option<u8>,
    pub(crate) retry: Option<Retry>,
    /// `x-consumer-timeout`.
    pub(crate) timeout: Option<u16>,
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
    /// When it was delivered.
    pub(crate) delivered: u64,
}

impl Msg {
    /// The bytes of its body.
    pub(crate) fn size(&self) -> usize {
        usize::try_from(4 + self.id % 5).unwrap()
    }

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
    /// What died, while nobody was there to take it.
    pub(crate) staying: Vec<(Msg, &'static str)>,
    /// Somebody takes dead letters.
    pub(crate) has_target: bool,
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
            staying: Vec::new(),
            has_target: config.dead_letters != DeadLetters::AtLeastOnce,
            takers: Vec::new(),
            sole: None,
            paused: false,
            next_id: 0,
        }
    }

    fn length(&self) -> Option<usize> {
        self.config.length.into_iter().chain(self.policy_length).min().map(usize::from)
    }

    pub(crate) fn is_bounded(&self) -> bool {
        self.length().is_some() || self.config.bytes.is_some()
    }

    /// True when so many messages with so many bytes are too much.
    fn is_exceeded(&self, messages: usize, bytes: usize) -> bool {
        self.length().is_some_and(|max| messages > max)
            || self.config.bytes.is_some_and(|max| bytes > usize::from(max))
    }

    fn bytes(&self) -> usize {
        self.ready.values().map(Msg::size).sum()
    }

    fn rejects(&self) -> bool {
        self.config.overflow != Overflow::DropHead && self.is_bounded()
    }

    fn die(&mut self, msg: &Msg, reason: &'static str) {
        match (self.has_target, reason) {
            (true, _) => self.dead.push((msg.clone(), reason)),
            // A limit is strict, so what is beyond it cannot stay.
            (false, "maxlen") => {}
            (false, _) => self.staying.push((msg.clone(), reason)),
        }
    }

    /// Dead letters that had to stay leave.
    pub(crate) fn find_target(&mut self) {
        self.has_target = true;
        self.dead.append(&mut self.staying);
    }

    /// How many of these that come one after another there is room for.
    fn room_for(&self, messages: &[Msg]) -> usize {
        if !self.rejects() {
            return messages.len();
        }
        let (mut count, mut bytes) = (self.ready.len(), self.bytes());
        let fits = |msg: &&Msg| {
            count += 1;
            bytes += msg.size();
            !self.is_exceeded(count, bytes)
        };
        let room = messages.iter().take_while(fits).count();
        // Who waits for the next message leaves it no time to take room.
        room.max(usize::from(self.hands_over()))
    }

    /// Messages arrive that were published together; returns how many were refused. `given` is what
    /// consumers were seen to get.
    pub(crate) fn publish(&mut self, messages: Vec<Msg>, now: u64, given: &mut Given) -> usize {
        let mut waiting = messages;
        while !waiting.is_empty() {
            let room = self.room_for(&waiting);
            let rest = waiting.split_off(room.min(waiting.len()));
            if waiting.is_empty() {
                waiting = rest;
                break;
            }
            self.ready.extend(waiting.drain(..).map(|msg| (msg.place(), msg)));
            self.dispatch(now.saturating_sub(1), given);
            waiting = rest;
        }
        if self.config.overflow == Overflow::RejectDlx {
            waiting.iter().for_each(|msg| self.die(msg, "maxlen"));
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

    /// When the next message expires that is ready, after `now` and before `end`.
    pub(crate) fn next_deadline(&self, now: u64, end: u64) -> Option<u64> {
        let deadlines = self.ready.values().map(|msg| msg.deadline);
        deadlines.filter(|at| (now + 1..end).contains(at)).min()
    }

    /// What is beyond the length leaves from the head of the lowest level.
    pub(crate) fn drop_over_limit(&mut self) {
        if self.config.overflow != Overflow::DropHead {
            return;
        }
        while self.is_exceeded(self.ready.len(), self.bytes()) {
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
            let delivered = Msg { delivered: got.at, ..msg };
            self.held.insert((got.consumer, got.number), delivered);
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
        match self.config.retry.and_then(|retry| retry.delay(&msg, has_failed)) {
            Some(delay) => self.delayed.push((now + delay, msg)),
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

    /// Consumers were told that they took too long.
    fn time_out(&mut self, consumers: &[u32], now: u64) {
        for consumer in consumers {
            let held = self.held.keys().filter(|(c, _)| c == consumer).copied();
            let keys: Vec<_> = held.collect();
            let oldest = keys.iter().map(|key| self.held[key].delivered).min();
            let timeout = self.config.timeout.map(u64::from);
            let is_right = oldest.zip(timeout).is_some_and(|(at, timeout)| at + timeout <= now);
            assert!(is_right, "{consumer} ended at {now}, {oldest:?}");
            self.remove_taker(*consumer);
            for key in keys {
                let msg = self.held.remove(&key).unwrap();
                self.come_back(msg, false, now);
            }
        }
    }

    /// What time does. Whose time is over is read from what was seen.
    pub(crate) fn look(&mut self, now: u64, given: &mut Given) {
        self.release_due(now);
        self.expire(now);
        self.time_out(&std::mem::take(&mut given.ended), now);
        self.dispatch(now, given);
        self.drop_over_limit();
        self.expire(now);
        let latest = self.config.timeout.map(|timeout| u64::from(timeout) + LATE_MS);
        let late = self.held.values().find(|msg| latest.is_some_and(|ms| msg.delivered + ms < now));
        assert!(late.is_none(), "{late:?} should have been taken back, it is {now}");
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
    pub(crate) at: u64,
}

/// By so much a timeout may come late, in ms: deliveries are timed in groups.
const LATE_MS: u64 = 200;

/// What was seen and what the model has not explained yet.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) got: Vec<Got>,
    /// Consumers that took too long.
    pub(crate) ended: Vec<u32>,
}

impl Given {
    fn take(&mut self, id: u64) -> Option<Got> {
        let at = self.got.iter().position(|got| got.id == id)?;
        Some(self.got.remove(at))
    }

    fn add(&mut self, more: Self) {
        self.got.extend(more.got);
        self.ended.extend(more.ended);
    }
}

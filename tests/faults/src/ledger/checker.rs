//! The judge. It knows the plan of a run and its records, and nothing about the broker.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use super::{DAMAGED, Kind, REDELIVERED, Record};

/// What a run was meant to do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The queues that the messages of each producer are routed to.
    pub routes: BTreeMap<u32, Vec<u32>>,
    /// An acknowledgement may be forgotten when it was sent at most this long before a fault.
    pub ack_loss_max_ns: u64,
}

/// What is wrong, and what was counted. Everything above `counted` must be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Confirmed and not delivered: producer, number, queue.
    pub lost: Vec<(u32, u64, u32)>,
    /// Delivered and never sent there, or damaged.
    pub invented: Vec<(u32, u64, u32)>,
    /// Delivered after the acknowledgement was known to be durable.
    pub revived: Vec<(u32, u64, u32)>,
    /// Delivered after an acknowledgement that was older than allowed at the fault, or without any
    /// fault in between.
    pub forgotten_ack: Vec<(u32, u64, u32)>,
    /// Delivered twice without the redelivered flag and without a fault in between.
    pub duplicate: Vec<(u32, u64, u32)>,
    /// The number went down on one connection without the redelivered flag.
    pub out_of_order: Vec<(u32, u64, u32)>,
    /// Sent, and never confirmed, refused or given up.
    pub silent: Vec<(u32, u64)>,
    /// What happened and is allowed.
    pub counted: Counted,
}

/// What may happen around a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Confirmed messages.
    pub confirmed: u64,
    /// Messages whose outcome the publisher does not know.
    pub unknown: u64,
    /// Messages the broker refused.
    pub refused: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries after an acknowledgement that was on its way when the fault came.
    pub redelivered_after_ack: u64,
    /// The oldest such acknowledgement at its fault.
    pub oldest_lost_ack_ns: u64,
    /// Second deliveries without the redelivered flag, with a fault in between.
    pub unmarked_after_fault: u64,
    /// Faults.
    pub faults: u64,
    /// The longest time from a fault to a ready broker.
    pub slowest_recovery_ns: u64,
}

impl Findings {
    /// True when nothing is wrong.
    pub fn is_clean(&self) -> bool {
        *self == Self { counted: self.counted, ..Self::default() }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted { confirmed, unknown, refused, delivered, faults, .. } = self.counted;
        write!(
            f,
            "{confirmed} confirmed, {unknown} unknown, {refused} refused, {delivered} delivered, \
             {faults} faults; ",
        )?;
        let after_ack = self.counted.redelivered_after_ack;
        write!(
            f,
            "{after_ack} redelivered after an ack (oldest {} ms), {} unmarked repeats after a \
             fault, slowest recovery {} ms",
            self.counted.oldest_lost_ack_ns / 1_000_000,
            self.counted.unmarked_after_fault,
            self.counted.slowest_recovery_ns / 1_000_000,
        )?;
        for (name, found) in [
            ("LOST", &self.lost),
            ("INVENTED", &self.invented),
            ("REVIVED", &self.revived),
            ("FORGOTTEN ACK", &self.forgotten_ack),
            ("DUPLICATE", &self.duplicate),
            ("OUT OF ORDER", &self.out_of_order),
        ] {
            if let Some(first) = found.first() {
                let count = found.len();
                write!(f, "; {name}: {count}, first (producer, n, queue) {first:?}")?;
            }
        }
        if let Some(first) = self.silent.first() {
            write!(f, "; SILENT: {}, first (producer, n) {first:?}", self.silent.len())?;
        }
        Ok(())
    }
}

/// What is known about one message at one queue.
#[derive(Debug, Default)]
struct Story {
    /// The life of the broker in which it was delivered last.
    delivered_in: Option<u64>,
    /// The life, and when.
    acked: Option<(u64, u64)>,
    is_durable: bool,
}

/// Judges the records of a run whose queues have all been drained.
///
/// Cost: proportional to the number of records.
pub fn check(plan: &Plan, records: &[Record]) -> Findings {
    let mut judge = Judge::new(plan);
    for record in records {
        judge.take(record);
    }
    judge.finish()
}

struct Judge<'a> {
    plan: &'a Plan,
    findings: Findings,
    sent: HashSet<(u32, u64)>,
    answered: HashSet<(u32, u64)>,
    confirmed: Vec<(u32, u64)>,
    stories: HashMap<(u32, u64, u32), Story>,
    /// The highest number of each producer on each connection.
    highest: HashMap<(u32, u32, u32), u64>,
    /// When each life of the broker ended by a fault.
    faults: HashMap<u64, u64>,
    down_since_ns: Option<u64>,
}

impl<'a> Judge<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            findings: Findings::default(),
            sent: HashSet::new(),
            answered: HashSet::new(),
            confirmed: Vec::new(),
            stories: HashMap::new(),
            highest: HashMap::new(),
            faults: HashMap::new(),
            down_since_ns: None,
        }
    }

    fn take(&mut self, record: &Record) {
        let message = (record.producer, record.n);
        let counted = &mut self.findings.counted;
        match record.kind {
            Kind::Sent => {
                self.sent.insert(message);
            }
            Kind::Confirmed => {
                counted.confirmed += 1;
                self.answered.insert(message);
                self.confirmed.push(message);
            }
            Kind::Refused => {
                counted.refused += 1;
                self.answered.insert(message);
            }
            Kind::Unknown => {
                counted.unknown += 1;
                self.answered.insert(message);
            }
            Kind::Delivered => self.delivered(record),
            Kind::Acked => {
                let story = self.stories.entry((record.producer, record.n, record.queue));
                story.or_default().acked = Some((record.value, record.time_ns));
            }
            Kind::AckDurable => {
                let story = self.stories.entry((record.producer, record.n, record.queue));
                story.or_default().is_durable = true;
            }
            Kind::Fault => {
                counted.faults += 1;
                self.faults.insert(record.value, record.time_ns);
                self.down_since_ns = Some(record.time_ns);
            }
            Kind::Ready => {
                if let Some(since) = self.down_since_ns.take() {
                    let took = record.time_ns.saturating_sub(since);
                    counted.slowest_recovery_ns = counted.slowest_recovery_ns.max(took);
                }
            }
        }
    }

    fn delivered(&mut self, record: &Record) {
        let key = (record.producer, record.n, record.queue);
        let counted = &mut self.findings.counted;
        counted.delivered += 1;
        let routed = self.plan.routes.get(&record.producer);
        let is_routed = routed.is_some_and(|queues| queues.contains(&record.queue));
        let is_damaged = record.flags & DAMAGED != 0;
        if is_damaged || !is_routed || !self.sent.contains(&(record.producer, record.n)) {
            self.findings.invented.push(key);
            return;
        }
        let is_marked = record.flags & REDELIVERED != 0;
        if !is_marked {
            let highest = self.highest.entry((record.producer, record.queue, record.connection));
            let highest = highest.or_default();
            if record.n < *highest {
                self.findings.out_of_order.push(key);
            }
            *highest = (*highest).max(record.n);
        }
        let story = self.stories.entry(key).or_default();
        // Clients go on reading what a killed broker had written, so the life counts, not the time.
        let life = record.value;
        if story.is_durable {
            self.findings.revived.push(key);
        } else if let Some((acked_in, acked_ns)) = story.acked {
            let fault = self.faults.get(&acked_in).filter(|_| acked_in < life);
            let age = fault.map(|fault| fault.saturating_sub(acked_ns));
            match age.filter(|age| *age <= self.plan.ack_loss_max_ns) {
                Some(age) => {
                    counted.redelivered_after_ack += 1;
                    counted.oldest_lost_ack_ns = counted.oldest_lost_ack_ns.max(age);
                }
                None => self.findings.forgotten_ack.push(key),
            }
        }
        if let Some(before) = story.delivered_in
            && !is_marked
        {
            if before < life {
                counted.unmarked_after_fault += 1;
            } else {
                self.findings.duplicate.push(key);
            }
        }
        // What comes again is to be acknowledged again.
        story.acked = None;
        story.delivered_in = Some(life);
    }

    fn finish(mut self) -> Findings {
        for (producer, n) in &self.confirmed {
            for queue in self.plan.routes.get(producer).into_iter().flatten() {
                let story = self.stories.get(&(*producer, *n, *queue));
                if story.is_none_or(|story| story.delivered_in.is_none()) {
                    self.findings.lost.push((*producer, *n, *queue));
                }
            }
        }
        self.findings.silent = self.sent.difference(&self.answered).copied().collect();
        self.findings.silent.sort_unstable();
        self.findings
    }
}

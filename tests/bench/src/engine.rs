//! The load loop: one thread, non-blocking sockets, edge-triggered epoll, one shared read buffer.
//!
//! Publishers write slices of a block encoded beforehand; consumers walk frame headers and count.
//! Nothing is allocated per message. A flow ties publishers to consumers by an end-to-end credit,
//! so a broker that would drop messages when overrun is measured without loss.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::link::{Flow, Link};
use crate::process::Tree;

/// Size of the read buffer that all connections share.
const READ_BUFFER: usize = 256 * 1024;
/// Pause before waiting for more. Brokers that write every message on its own would otherwise wake
/// the loop for each, and the generator would cost as much as they do.
const PAUSE: Duration = Duration::from_micros(100);
/// The same where publishers wait for confirms, and a longer pause would hold them up.
const PAUSE_CONFIRMED: Duration = Duration::from_micros(50);
/// Where each publisher waits for each of its messages, any pause would be measured with them.
const PAUSE_WAITING: Duration = Duration::ZERO;
/// A drain without progress for this long is given up, and what is missing counts as lost.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// When a measurement ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After a warm-up and a time.
    Elapsed {
        /// Load before counting starts.
        warm_up: Duration,
        /// The counted time.
        measure: Duration,
    },
    /// When everything sent was confirmed and received, counted from the first moment.
    Done,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    at: Instant,
    broker_cpu: Duration,
    own_cpu: Duration,
    messages: u64,
}

impl Snapshot {
    /// Takes the counters before any message was sent.
    pub fn start(broker: &Tree) -> Self {
        Self::take(broker, 0)
    }

    fn take(broker: &Tree, messages: u64) -> Self {
        let (broker_cpu, own_cpu) = (broker.cpu(), Tree::own().cpu());
        Self { at: Instant::now(), broker_cpu, own_cpu, messages }
    }
}

/// What a measurement counted.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Messages in the counted time: received, or confirmed where nobody consumes.
    pub messages: u64,
    /// The counted time.
    pub elapsed: Duration,
    /// CPU time of the broker in it.
    pub broker_cpu: Duration,
    /// CPU time of the generator in it.
    pub own_cpu: Duration,
    /// Messages sent and never received or confirmed.
    pub lost: u64,
}

/// Connections under load.
pub struct Engine {
    links: Vec<Link>,
    flows: Vec<Flow>,
    poll: rustix::fd::OwnedFd,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
    pause: Duration,
    first: usize,
}

impl Engine {
    /// Registers the connections.
    pub fn new(links: Vec<Link>, flows: Vec<Flow>) -> Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        for (index, link) in links.iter().enumerate() {
            epoll::add(&poll, &link.stream, EventData::new_u64(index as u64), interest)?;
        }
        let events = Vec::with_capacity(links.len().max(1));
        let pause = match links.iter().filter_map(Link::window).max() {
            Some(1) => PAUSE_WAITING,
            Some(_) => PAUSE_CONFIRMED,
            None => PAUSE,
        };
        Ok(Self { links, flows, poll, buffer: vec![0; READ_BUFFER], events, pause, first: 0 })
    }

    /// Runs the load to its end, then waits for what is still under way.
    ///
    /// `start` is where counting begins with [`Until::Done`].
    pub fn run(&mut self, until: Until, broker: &Tree, start: Snapshot) -> Result<Measured> {
        let mut from = start;
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        if let Until::Elapsed { warm_up, measure } = until {
            self.run_until(Some(Instant::now() + warm_up), false)?;
            from = Snapshot::take(broker, self.messages());
            self.run_until(Some(Instant::now() + measure), false)?;
        } else {
            self.run_until(None, false)?;
        }
        let to = Snapshot::take(broker, self.messages());
        self.run_until(None, true)?;
        let lost = self.missing();
        Ok(Measured {
            messages: to.messages - from.messages,
            elapsed: to.at - from.at,
            broker_cpu: to.broker_cpu.saturating_sub(from.broker_cpu),
            own_cpu: to.own_cpu.saturating_sub(from.own_cpu),
            lost,
        })
    }

    /// Turns the loop until a moment or, without one, until nothing is missing any more.
    fn run_until(&mut self, end: Option<Instant>, stopping: bool) -> Result<()> {
        let mut progress = (self.messages(), Instant::now());
        loop {
            let now = Instant::now();
            match end {
                Some(end) if now >= end => return Ok(()),
                Some(_) => {}
                None if self.is_done(stopping) => return Ok(()),
                None => {
                    let messages = self.messages();
                    if messages != progress.0 {
                        progress = (messages, now);
                    } else if now - progress.1 > DRAIN_PATIENCE {
                        return Ok(());
                    }
                }
            }
            self.turn(stopping)?;
        }
    }

    fn turn(&mut self, stopping: bool) -> Result<()> {
        let mut busy = false;
        // Whoever comes first takes the credit first, so everyone does in turn.
        self.first = (self.first + 1) % self.links.len().max(1);
        let (early, late) = self.links.split_at_mut(self.first);
        for link in late.iter_mut().chain(early) {
            if link.readable {
                link.read(&mut self.buffer, &mut self.flows[link.flow])?;
            }
            link.flush()?;
            link.publish(&mut self.flows[link.flow], stopping)?;
            busy |= link.readable;
        }
        busy |= !stopping && self.links.iter().any(|link| link.can_publish(&self.flows));
        let timeout = Timespec { tv_sec: 0, tv_nsec: if busy { 0 } else { 20_000_000 } };
        if !busy && !self.pause.is_zero() {
            thread::sleep(self.pause);
        }
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.poll, spare, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let link = &mut self.links[event.data.u64() as usize];
            let (flags, gone) = (event.flags, EventFlags::ERR | EventFlags::HUP);
            link.readable |= flags.intersects(EventFlags::IN | gone);
            link.writable |= flags.intersects(EventFlags::OUT | gone);
        }
        Ok(())
    }

    /// Messages received, or confirmed in flows that nobody consumes.
    fn messages(&self) -> u64 {
        let received: u64 = self.flows.iter().map(|flow| flow.received).sum();
        let unread = self.flows.iter().filter(|flow| flow.copies == 0).map(|flow| flow.sent);
        let unconfirmed: u64 = self
            .links
            .iter()
            .filter(|link| self.flows[link.flow].copies == 0)
            .map(Link::unconfirmed)
            .sum();
        received + unread.sum::<u64>().saturating_sub(unconfirmed)
    }

    fn missing(&self) -> u64 {
        let unread: u64 = self.flows.iter().map(Flow::missing).sum();
        unread.max(self.links.iter().map(Link::unconfirmed).sum())
    }

    fn is_done(&self, stopping: bool) -> bool {
        let all_sent = stopping
            || self.flows.iter().all(|flow| flow.total.is_none_or(|total| flow.sent >= total));
        all_sent && self.missing() == 0
    }
}

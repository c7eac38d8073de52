//! Clients that go on through faults: each connects again when the broker is back, and writes what
//! it saw into the ledger.

mod consumers;
mod others;
mod publishers;
mod run;

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub use consumers::{Acks, amqp_consumer, mqtt_subscriber};
pub use others::publisher_of;
pub use publishers::{Target, amqp_publisher, mqtt_publisher};
pub use run::{Run, judge};

use crate::{
    broker::Ports,
    ledger::{Body, DAMAGED, Kind, Ledger, Protocol, REDELIVERED, Record},
};

/// Longest wait for an answer of a living broker; longer means that it hangs.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// Whoever has lost its connection waits this long for the end of the broker that it was with.
const NEXT_LIFE_PATIENCE: Duration = Duration::from_secs(30);

/// What the clients of a run share.
#[derive(Debug)]
pub struct Stage {
    /// Of this run, in all bodies.
    pub run: u64,
    /// Where everybody writes.
    pub ledger: Ledger,
    connections: AtomicU32,
    scene: Mutex<Scene>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct Scene {
    /// How many brokers there have been; a client that lost one waits for the next.
    lives: u64,
    ports: Option<Ports>,
    publishing: bool,
    consuming: bool,
    /// The case has failed: nobody waits for a broker any more.
    over: bool,
}

struct Guard<'a>(&'a Stage);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up();
        }
    }
}

/// One life of the broker, as a client sees it.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Which one, from 1.
    pub number: u64,
    /// Where it listens.
    pub ports: Ports,
}

impl Stage {
    /// A stage for one run.
    pub fn new(run: u64) -> Self {
        let scene = Scene { publishing: true, consuming: true, ..Scene::default() };
        Self {
            run,
            ledger: Ledger::default(),
            connections: AtomicU32::new(1),
            scene: Mutex::new(scene),
            changed: Condvar::new(),
        }
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker is ready.
    pub fn up(&self, ports: Ports) {
        self.ledger.write(Record::new(Kind::Ready));
        let mut scene = self.scene();
        scene.lives += 1;
        scene.ports = Some(ports);
        self.changed.notify_all();
    }

    /// The broker is about to be harmed.
    pub fn down(&self) {
        let mut scene = self.scene();
        scene.ports = None;
        self.ledger.write(Record { value: scene.lives, ..Record::new(Kind::Fault) });
    }

    /// Publishers finish what they have begun and end.
    pub fn stop_publishing(&self) {
        self.scene().publishing = false;
        self.changed.notify_all();
    }

    /// Consumers end once nothing more comes.
    pub fn drain(&self) {
        self.scene().consuming = false;
        self.changed.notify_all();
    }

    /// Has everybody end when the thread that holds this panics: the end of a scope would wait for
    /// them for ever.
    pub fn guard(&self) -> impl Drop {
        Guard(self)
    }

    /// Everybody ends who waits for a broker.
    fn give_up(&self) {
        let mut scene = self.scene();
        (scene.publishing, scene.consuming, scene.over) = (false, false, true);
        self.changed.notify_all();
    }

    fn is_publishing(&self) -> bool {
        self.scene().publishing
    }

    fn is_consuming(&self) -> bool {
        self.scene().consuming
    }

    /// Waits for a broker after the one in `seen`; `None` when `goes_on` has turned false.
    ///
    /// Errors: when none comes, because only this client has lost its connection.
    fn next_life(&self, seen: Option<Life>, goes_on: fn(&Self) -> bool) -> Result<Option<Life>> {
        let seen = seen.map_or(0, |life| life.number);
        let since = Instant::now();
        loop {
            let scene = self.scene();
            if let (Some(ports), true) = (scene.ports, scene.lives > seen) {
                return Ok(Some(Life { number: scene.lives, ports }));
            }
            if scene.ports.is_some() && since.elapsed() > NEXT_LIFE_PATIENCE {
                bail!("a connection was lost, and the broker has lived on");
            }
            // A deadline, because `goes_on` may turn false without a new broker.
            let wait = self.changed.wait_timeout(scene, Duration::from_millis(100));
            drop(wait);
            if !goes_on(self) || self.scene().over {
                return Ok(None);
            }
        }
    }

    /// What all records of a new connection to a queue have in common.
    fn place(&self, life: Life, protocol: Protocol, queue: u32) -> Record {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let value = life.number;
        Record { protocol, queue, connection, value, ..Record::new(Kind::Delivered) }
    }

    /// Writes a delivery and returns what it was, when it is one of this run. `place` has the
    /// protocol, the queue, the connection and the life.
    fn delivered(&self, place: Record, redelivered: bool, bytes: &[u8]) -> Option<Body> {
        let body = Body::decode(bytes).ok().filter(|body| body.run == self.run);
        let flags = if redelivered { REDELIVERED } else { 0 };
        let damage = if body.is_none() { DAMAGED } else { 0 };
        let (producer, n) = body.map_or((0, 0), |body| (body.producer, body.n));
        let (kind, flags) = (Kind::Delivered, flags | damage);
        self.ledger.write(Record { kind, flags, producer, n, ..place });
        body
    }
}

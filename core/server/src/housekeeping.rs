//! What the server does beside serving: it writes what lies open, lets time pass in the broker,
//! publishes statistics and watches memory and disk.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use polymq_broker::BrokerHandle;
use polymq_model::Now;
use polymq_store::{Health, Store};
use tokio::{
    sync::{Notify, oneshot},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    alarm::{Alarms, Measured},
    config::DiskSlow,
    ports::Ports,
    process,
    service::Service,
    slow_store::{self, Silence, SilenceLog},
};

/// What nobody waits for is written after this time at the latest.
const WRITE_AFTER: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(86_400);
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The present.
pub(crate) fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    Now { instant: Instant::now(), unix_ms }
}

/// What is watched, and by which marks.
pub(crate) struct Watch {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) alarms: Alarms,
    pub(crate) disk: Option<PathBuf>,
    pub(crate) disk_slow: DiskSlow,
}

/// Starts all of it; it ends with the runtime. The answer comes when the store is lost.
pub(crate) fn start(
    broker: &BrokerHandle,
    watched: Watch,
    started: Instant,
) -> oneshot::Receiver<Duration> {
    let dirty = Arc::new(Notify::new());
    let wake = Arc::clone(&dirty);
    broker.committer().set_on_dirty(Box::new(move || wake.notify_one()));
    tokio::spawn(write_open_batches(broker.clone(), dirty));
    let answered = Arc::new(Notify::new());
    let wake = Arc::clone(&answered);
    broker.committer().set_on_answered(Box::new(move || wake.notify_one()));
    tokio::spawn(tell_what_is_written(broker.clone(), answered));
    tokio::spawn(tick(broker.clone()));
    tokio::spawn(publish_statistics(broker.clone(), started));
    tokio::spawn(take_samples(broker.clone()));
    let (lost, is_lost) = oneshot::channel();
    tokio::spawn(watch(broker.clone(), watched, lost));
    is_lost
}

async fn write_open_batches(broker: BrokerHandle, dirty: Arc<Notify>) {
    loop {
        // What was appended before the hook was set shows in `is_dirty`.
        if !broker.committer().is_dirty() {
            dirty.notified().await;
        }
        sleep(WRITE_AFTER).await;
        broker.committer().kick();
    }
}

/// Tells publishers on a thread that also serves them: the engine's thread would have to call the
/// runtime for each, and could not write the next batch meanwhile.
async fn tell_what_is_written(broker: BrokerHandle, answered: Arc<Notify>) {
    loop {
        // What was answered before the hook was set waits here as well.
        broker.committer().run_callbacks();
        answered.notified().await;
    }
}

/// Tells the service manager that the runtime turns.
pub(crate) async fn show_signs_of_life(service: Service, every: Duration) {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        service.alive();
    }
}

async fn tick(broker: BrokerHandle) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        broker.tick(now());
    }
}

async fn publish_statistics(broker: BrokerHandle, started: Instant) {
    let mut rounds = interval(Duration::from_millis(broker.statistics_every_ms()));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let version = env!("CARGO_PKG_VERSION");
        broker.publish_statistics(started.elapsed().as_secs(), version, now());
    }
}

/// On a thread of its own: with many queues it takes milliseconds.
async fn take_samples(broker: BrokerHandle) {
    let mut rounds = interval(Duration::from_millis(broker.sample_every_ms()));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let broker = broker.clone();
        let taken = spawn_blocking(move || broker.take_samples(now())).await;
        if let Err(error) = taken {
            tracing::error!(event = "sampling_failed", %error);
        }
    }
}

/// Says each day which certificates end soon.
pub(crate) async fn look_at_certificates(ports: Arc<Ports>) {
    let mut rounds = interval(DAY);
    loop {
        rounds.tick().await;
        ports.warn_of_certificates();
    }
}

async fn watch(broker: BrokerHandle, mut watched: Watch, lost: oneshot::Sender<Duration>) {
    let mut rounds = interval(MEASURE_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut log = SilenceLog::default();
    loop {
        rounds.tick().await;
        let unanswered = Duration::from_nanos(broker.committer().stats().unanswered_nanos);
        let silence = slow_store::judge(&watched.disk_slow, unanswered);
        log.note(silence, unanswered);
        if silence == Silence::Lost {
            // Nobody listens any more when the server stops already.
            let _ = lost.send(unanswered);
            return;
        }
        // A disk that hangs may not say either how full it is.
        let disk = watched.disk.as_deref().filter(|_| silence == Silence::None);
        let health = watched.store.health();
        let reason = watched.alarms.check(Measured {
            resident_bytes: process::resident_bytes(),
            disk_free_bytes: disk.and_then(process::disk_free_bytes),
            store_fails: matches!(health, Health::Failed(_) | Health::ReadOnly(_))
                || silence >= Silence::Degraded,
        });
        let stood = broker.alarm().is_some();
        match &reason {
            Some(reason) if !stood => {
                tracing::warn!(event = "alarm_raised", %reason, "publishers wait");
            }
            None if stood => tracing::info!(event = "alarm_cleared", "publishers go on"),
            Some(_) | None => {}
        }
        broker.set_alarm(reason.as_deref());
    }
}

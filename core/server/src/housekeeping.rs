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
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    alarm::{Alarms, Measured},
    process,
};

/// What nobody waits for is written after this time at the latest.
const WRITE_AFTER: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(100);
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The present.
pub(crate) fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    Now { instant: Instant::now(), unix_ms }
}

/// Starts all of it; it ends with the runtime.
pub(crate) fn start(
    broker: &BrokerHandle,
    store: &Arc<dyn Store>,
    alarms: Alarms,
    disk: Option<PathBuf>,
    started: Instant,
) {
    let dirty = Arc::new(Notify::new());
    let wake = Arc::clone(&dirty);
    broker.committer().set_on_dirty(Box::new(move || wake.notify_one()));
    tokio::spawn(write_open_batches(broker.clone(), dirty));
    tokio::spawn(tick(broker.clone()));
    tokio::spawn(publish_statistics(broker.clone(), started));
    tokio::spawn(watch(broker.clone(), Arc::clone(store), alarms, disk));
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

async fn watch(
    broker: BrokerHandle,
    store: Arc<dyn Store>,
    mut alarms: Alarms,
    disk: Option<PathBuf>,
) {
    let mut rounds = interval(MEASURE_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let reason = alarms.check(Measured {
            resident_bytes: process::resident_bytes(),
            disk_free_bytes: disk.as_deref().and_then(process::disk_free_bytes),
            store_fails: matches!(store.health(), Health::Failed(_)),
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

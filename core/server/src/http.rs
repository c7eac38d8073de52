//! What the HTTP server shows and how it is set.

use std::sync::Arc;

use polymq_broker::BrokerHandle;
use polymq_contract::Protocol;
use polymq_driver::Driver;
use polymq_http::{SharedPhase, Watched, WebSockets};
use polymq_model::Limits;
use polymq_store::Store;

use crate::{
    alarm::Alarms,
    config::Config,
    facts,
    server::{self, Mode},
    store,
};

/// What the pages of HTTP show.
pub(crate) fn watched(
    config: &Config,
    mode: Mode,
    (broker, driver, protocols): (&BrokerHandle, &Driver, Vec<Arc<dyn Protocol>>),
    store: &Arc<dyn Store>,
    (alarms, phase): (&Alarms, &Arc<SharedPhase>),
) -> Arc<Watched> {
    let sources = facts::FactSources {
        store: Arc::clone(store),
        committer: Arc::clone(broker.committer()),
        data_dir: store::disk(config),
        memory_high_bytes: alarms.memory_high_bytes(),
        disk_low_bytes: config.disk_free.low.0,
        disk_resume_bytes: config.disk_free.resume.0,
        reached: alarms.reached(),
        disk_slow: config.disk_slow.clone(),
        started: mode.started,
    };
    Arc::new(Watched {
        name: config.server.name.clone(),
        broker: broker.clone(),
        protocols,
        driver: Arc::clone(driver.counters()),
        phase: Arc::clone(phase),
        facts: Box::new(move || sources.read()),
    })
}

/// Settings of the HTTP server.
pub(crate) fn settings(
    config: &Config,
    limits: Arc<Limits>,
    web_sockets: WebSockets,
) -> polymq_http::Settings {
    polymq_http::Settings {
        path_prefix: config.http.path_prefix.clone(),
        cors_origins: config.http.cors_origins.clone(),
        connections_max: usize::try_from(config.http.connections).unwrap_or(usize::MAX),
        limits,
        entropy: Arc::new(server::fill_with_randomness),
        web_sockets: Some(web_sockets),
    }
}

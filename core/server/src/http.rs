//! What the HTTP server shows and how it is set.

use std::sync::Arc;

use polymq_broker::BrokerHandle;
use polymq_contract::Protocol;
use polymq_driver::Driver;
use polymq_http::{Configuration, Listeners, SharedPhase, Spans, Watched, WebSockets};
use polymq_model::Limits;
use polymq_store::Store;

use crate::{
    alarm::Marks,
    config::Config,
    facts, live_log,
    ports::Ports,
    protocols::Protocols,
    server::{self, Mode},
    store,
};

/// What the pages of HTTP show.
pub(crate) fn watched(
    config: &Config,
    (mode, configuration, spans): (&Mode, Arc<dyn Configuration>, Option<Arc<dyn Spans>>),
    (broker, driver, protocols): (&BrokerHandle, &Driver, Vec<Arc<dyn Protocol>>),
    store: &Arc<dyn Store>,
    (marks, phase): (&Arc<Marks>, &Arc<SharedPhase>),
    ports: &Arc<Ports>,
) -> Arc<Watched> {
    let sources = facts::FactSources {
        store: Arc::clone(store),
        committer: Arc::clone(broker.committer()),
        data_dir: store::disk(config),
        marks: Arc::clone(marks),
        disk_slow: config.disk_slow.clone(),
        started: mode.started,
    };
    let stop = Arc::clone(&mode.stop);
    Arc::new(Watched {
        name: config.server.name.clone(),
        broker: broker.clone(),
        protocols,
        driver: Arc::clone(driver.counters()),
        phase: Arc::clone(phase),
        listeners: Arc::clone(ports) as Arc<dyn Listeners>,
        drain: Box::new(move || stop.notify_one()),
        configuration,
        log: live_log::shared(),
        spans,
        facts: Box::new(move || sources.read()),
    })
}

/// Settings of the HTTP server.
pub(crate) fn settings(
    config: &Config,
    limits: Arc<Limits>,
    (protocols, driver): (&Protocols, &Driver),
) -> polymq_http::Settings {
    polymq_http::Settings {
        path_prefix: config.http.path_prefix.clone(),
        cors_origins: config.http.cors_origins.clone(),
        connections_max: usize::try_from(config.http.connections).unwrap_or(usize::MAX),
        login_idle: config.http.login_idle,
        limits,
        entropy: Arc::new(server::fill_with_randomness),
        web_sockets: Some(WebSockets {
            driver: driver.clone(),
            routes: protocols.over_web_socket(config),
        }),
    }
}

//! Where log lines go and how they look. Every line has a stable `event`, and none has a secret.

use std::{io::IsTerminal, sync::OnceLock};

use anyhow::Context;
use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{
    config::{Logging, value::LogFormat},
    live_log::LiveLines,
    log_lines,
};

pub(crate) use log_lines::{dropped as dropped_lines, flush};

/// The part of `level` that says no level. The filter would take it for the name of a module, and
/// log nothing.
pub(crate) fn wrong_directive(level: &str) -> Option<&str> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_right = |directive: &str| match directive.rsplit_once('=') {
        Some((_, word)) => is_level(word),
        None => is_level(directive),
    };
    level.split(',').map(str::trim).find(|directive| !is_right(directive))
}

type SetFilter = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// Replaces the filter of the log, once logging has started.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Logs from now on what `level` says.
///
/// Errors: it cannot be read.
pub(crate) fn set_level(level: &str) -> anyhow::Result<()> {
    let filter = filter(level)?;
    SET_FILTER.get().map_or(Ok(()), |set| set(filter))
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(level).with_context(|| format!("logging.level `{level}` cannot be read"))
}

/// Starts logging to standard error.
///
/// Errors: when `logging.level` cannot be read.
pub(crate) fn start(logging: &Logging) -> anyhow::Result<()> {
    let filter = filter(&logging.level)?;
    let is_text = match logging.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let out = log_lines::start(std::io::stderr(), !is_text).context("logging cannot start")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(out)
        .with_ansi(is_text && std::io::stderr().is_terminal());
    let started = if is_text {
        let lines = lines.with_filter_reloading();
        let handle = lines.reload_handle();
        let _ = SET_FILTER.set(Box::new(move |filter| Ok(handle.reload(filter)?)));
        lines.finish().with(LiveLines).try_init()
    } else {
        let lines = lines.json().flatten_event(true).with_span_list(false).with_filter_reloading();
        let handle = lines.reload_handle();
        let _ = SET_FILTER.set(Box::new(move |filter| Ok(handle.reload(filter)?)));
        lines.finish().with(LiveLines).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}

//! Client libraries as people use them, unchanged, against a broker of their own each.
//!
//! Rust's clients run in this process; the expectations for the others stand in their scripts,
//! one line of output per case. See `README.md`.

#![forbid(unsafe_code)]

mod lapin_client;
mod management;
mod rumqttc_client;
mod scripts;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use polymq_interop::{Broker, Speaks};

/// Runs one conversation on a fresh broker, unless the chosen peer does not speak the protocol.
fn with_broker(speaks: Speaks, test: impl AsyncFnOnce(&mut Broker) -> Result<()>) -> Result<()> {
    let Some(mut broker) = Broker::start(speaks)? else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome =
        runtime.block_on(async { tokio::time::timeout(limit(6), test(&mut broker)).await });
    // Clients that are still reconnecting must not hold up the end of the test.
    runtime.shutdown_background();
    outcome
        .map_err(|_| anyhow!("the conversation took too long"))
        .flatten()
        .with_context(|| format!("the broker's log ends:\n{}", broker.log_tail()))
}

/// Longer than any healthy broker needs for so many steps on a machine that is busy with others.
fn limit(steps: u32) -> Duration {
    Duration::from_secs(30) * steps
}

/// Lets a blocking order to the broker happen without stopping the client's tasks.
fn order(action: impl FnOnce() -> Result<()>) -> Result<()> {
    tokio::task::block_in_place(action)
}

//! Runs the same rows against each broker in turn and keeps every result.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::link::Proto;
use crate::peers::Peer;
use crate::process::Tree;
use crate::rows::{AMQP, MQTT5, Row, Work};
use crate::work::{self, Effort, Outcome, Target};

/// What to compare.
pub struct Options {
    /// The rows, in the order of the report.
    pub rows: Vec<Row>,
    /// The brokers with their executables, in the order of the report.
    pub peers: Vec<(Peer, PathBuf)>,
    /// How often everything is repeated.
    pub rounds: usize,
    /// How long and how much.
    pub effort: Effort,
    /// Where the brokers keep their data.
    pub scratch: PathBuf,
    /// CPUs the brokers may use, as `taskset` writes them.
    pub cpus: Option<String>,
}

/// One result.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Sample {
    /// Name of the row.
    pub row: &'static str,
    /// Name of the broker.
    pub peer: &'static str,
    /// Number of the round, from 1.
    pub round: usize,
    /// What was measured, or why nothing was.
    #[serde(flatten)]
    pub result: SampleResult,
}

/// An outcome, or the reason why there is none.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleResult {
    /// The run went to its end.
    Outcome(Outcome),
    /// The run failed.
    Failure(String),
}

/// Whether a row means anything for a broker.
pub fn applies(row: &Row, peer: Peer) -> bool {
    match &row.work {
        Work::Load(shape) => {
            let relayed = shape.queues == 1 && shape.publishers == 1 && shape.consumers == 1;
            let speaks = [shape.from, shape.to].iter().all(|&proto| speaks(peer, proto));
            let bridged = shape.from == shape.to || peer.bridges();
            let relay = peer != Peer::Relay || (relayed && shape.window.is_none());
            speaks && bridged && relay
        }
        Work::Backlog | Work::StartWithBacklog => peer.speaks(AMQP),
        Work::Latency(proto) => speaks(peer, *proto),
        Work::IdleConnections(proto) => speaks(peer, *proto) && peer != Peer::Relay,
        Work::IdleBroker | Work::Start => true,
    }
}

fn speaks(peer: Peer, proto: Proto) -> bool {
    peer.speaks(proto) && (proto != MQTT5 || peer.speaks_mqtt5() || peer == Peer::Relay)
}

/// Brokers that stay up for the whole comparison, paused unless they are measured.
struct Standing<'a> {
    options: &'a Options,
    brokers: HashMap<Peer, (Broker, TempDir)>,
}

impl Standing<'_> {
    fn resume(&mut self, peer: Peer, program: &Path) -> Result<&Broker> {
        if let Some((broker, _)) = self.brokers.get(&peer) {
            broker.resume()?;
        } else {
            let started = start(self.options, peer, program)?;
            self.brokers.insert(peer, started);
        }
        self.brokers.get(&peer).map(|(broker, _)| broker).context("the broker is gone")
    }

    fn pause(&self, peer: Peer) {
        if let Some((broker, _)) = self.brokers.get(&peer) {
            broker.pause();
        }
    }
}

fn start(options: &Options, peer: Peer, program: &Path) -> Result<(Broker, TempDir)> {
    let dir = scratch_dir(options)?;
    let broker = Broker::start(peer, program, dir.path(), options.cpus.as_deref())?;
    Ok((broker, dir))
}

fn scratch_dir(options: &Options) -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("polymq-bench-").tempdir_in(&options.scratch);
    dir.with_context(|| format!("no scratch directory in {}", options.scratch.display()))
}

/// Runs everything; `on_sample` sees each result as it comes.
pub fn run(options: &Options, mut on_sample: impl FnMut(&Sample)) -> Result<Vec<Sample>> {
    let mut standing = Standing { options, brokers: HashMap::new() };
    let mut samples = Vec::new();
    let mut backlog_done = false;
    for row in &options.rows {
        if matches!(row.work, Work::Backlog) && std::mem::replace(&mut backlog_done, true) {
            continue;
        }
        for round in 1..=options.rounds {
            let mut peers: Vec<_> =
                options.peers.iter().filter(|(peer, _)| applies(row, *peer)).collect();
            // Whoever runs first in one round runs last in another.
            let first = (round - 1) % peers.len().max(1);
            peers.rotate_left(first);
            for (peer, program) in peers {
                let results = match measure(&mut standing, row, *peer, program) {
                    Ok(results) => results.map_results(),
                    Err(error) => {
                        // A broker that failed once is started afresh for the next row.
                        standing.brokers.remove(peer);
                        vec![(row.name, SampleResult::Failure(format!("{error:#}")))]
                    }
                };
                for (row, result) in results {
                    let sample = Sample { row, peer: peer.title(), round, result };
                    on_sample(&sample);
                    samples.push(sample);
                }
            }
        }
    }
    Ok(samples)
}

/// Results of one run by row.
struct Results(Vec<(&'static str, Outcome)>);

impl Results {
    fn map_results(self) -> Vec<(&'static str, SampleResult)> {
        self.0.into_iter().map(|(row, outcome)| (row, SampleResult::Outcome(outcome))).collect()
    }
}

fn measure(standing: &mut Standing, row: &Row, peer: Peer, program: &Path) -> Result<Results> {
    let effort = &standing.options.effort;
    let value = |value: f64, broker: &Broker| Outcome {
        value: Some(value),
        resident: Some(broker.tree().resident()),
        ..Outcome::default()
    };
    let outcome = match &row.work {
        Work::Load(_) | Work::Backlog | Work::Latency(_) => {
            let broker = standing.resume(peer, program)?;
            let results = run_on(&broker.target(), row, effort, broker.tree());
            standing.pause(peer);
            return results.map(Results);
        }
        Work::IdleConnections(proto) => {
            let (broker, _dir) = start(standing.options, peer, program)?;
            work::idle_connections(&broker.target(), *proto, effort, broker.tree())?
        }
        Work::IdleBroker => {
            let (broker, _dir) = start(standing.options, peer, program)?;
            value(work::settled(broker.tree()) as f64, &broker)
        }
        Work::Start => {
            let (broker, _dir) = start(standing.options, peer, program)?;
            value(broker.ready_after.as_secs_f64() * 1e3, &broker)
        }
        Work::StartWithBacklog => {
            let (broker, dir) = start(standing.options, peer, program)?;
            let (_, filled) = work::fill(&broker.target(), effort, broker.tree())?;
            if filled.lost > 0 {
                bail!("{} messages of the backlog were not confirmed", filled.lost);
            }
            broker.stop()?;
            let cpus = standing.options.cpus.as_deref();
            let broker = Broker::start(peer, program, dir.path(), cpus)?;
            value(broker.ready_after.as_secs_f64() * 1e3, &broker)
        }
    };
    Ok(Results(vec![(row.name, outcome)]))
}

/// Runs a row against a broker that is already up; only rows that need no restart.
pub fn run_on(
    target: &Target,
    row: &Row,
    effort: &Effort,
    broker: &Tree,
) -> Result<Vec<(&'static str, Outcome)>> {
    let outcome = match &row.work {
        Work::Load(shape) => work::load(target, shape, effort, broker)?,
        Work::Latency(proto) => work::latency(target, *proto, effort, broker)?,
        Work::IdleConnections(proto) => work::idle_connections(target, *proto, effort, broker)?,
        Work::Backlog => {
            let (queue, filled) = work::fill(target, effort, broker)?;
            let drained = work::drain(target, &queue, effort, broker)?;
            return Ok(vec![("amqp-fill", filled), ("amqp-drain", drained)]);
        }
        Work::IdleBroker | Work::Start | Work::StartWithBacklog => {
            bail!("row `{}` starts the broker itself; use `compare`", row.name)
        }
    };
    Ok(vec![(row.name, outcome)])
}

//! Medians, the table in Markdown, and the JSON file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::compare::{Options, Sample, SampleResult, applies};
use crate::goals::{self, Figures, Verdict};
use crate::peers::Peer;
use crate::rows::{Row, Work};
use crate::work::Outcome;

/// Median of every figure of a row and broker.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Summary {
    /// Medians, and the sum of the losses.
    #[serde(flatten)]
    pub median: Outcome,
    /// Largest distance of a rate from the median, as a share of it.
    pub spread: f64,
    /// Runs that went to their end.
    pub runs: usize,
}

impl Summary {
    fn figures(&self) -> Figures {
        let Outcome { rate, cpu_us, p99_us, value, .. } = self.median;
        Figures { rate, cpu_us, p99_us, value }
    }
}

/// Summarises the successful runs of a row and broker, if there are any.
pub fn summarise(samples: &[Sample], row: &str, peer: Peer) -> Option<Summary> {
    let outcomes: Vec<&Outcome> = samples
        .iter()
        .filter(|sample| sample.row == row && sample.peer == peer.title())
        .filter_map(|sample| match &sample.result {
            SampleResult::Outcome(outcome) => Some(outcome),
            SampleResult::Failure(_) => None,
        })
        .collect();
    if outcomes.is_empty() {
        return None;
    }
    let of = |pick: fn(&Outcome) -> Option<f64>| {
        median(outcomes.iter().filter_map(|outcome| pick(outcome)).collect())
    };
    let rate = of(|outcome| outcome.rate);
    let spread = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome.rate? / rate? - 1.0).abs()))
        .fold(0.0, f64::max);
    let median = Outcome {
        rate,
        cpu_us: of(|outcome| outcome.cpu_us),
        generator_us: of(|outcome| outcome.generator_us),
        p50_us: of(|outcome| outcome.p50_us),
        p99_us: of(|outcome| outcome.p99_us),
        value: of(|outcome| outcome.value),
        resident: of(|outcome| outcome.resident.map(|bytes| bytes as f64)).map(|v| v as u64),
        lost: outcomes.iter().map(|outcome| outcome.lost).sum(),
    };
    Some(Summary { median, spread, runs: outcomes.len() })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => values.get(middle).copied(),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Judges PolyMQ in a row by the medians.
pub fn judge(samples: &[Sample], row: &Row) -> Option<Verdict> {
    let ours = summarise(samples, row.name, Peer::PolyMq)?.figures();
    let peer = |peer| summarise(samples, row.name, peer).map(|summary| summary.figures());
    let own = |row: &str| summarise(samples, row, Peer::PolyMq).map(|summary| summary.figures());
    let mut verdict = goals::judge(&row.goal, ours, peer, own)?;
    let lost = summarise(samples, row.name, Peer::PolyMq)?.median.lost;
    if lost > 0 {
        verdict = Verdict { first: false, goal: false, ..verdict };
    }
    Some(verdict)
}

/// The table of medians; `verbose` adds spread, generator cost and memory.
pub fn markdown(options: &Options, samples: &[Sample], verbose: bool) -> String {
    let mut out = String::from("| row |");
    let mut rule = String::from("| --- |");
    for (peer, _) in &options.peers {
        let _ = write!(out, " {} |", peer.title());
        rule.push_str(" --- |");
    }
    out.push_str(" PolyMQ stands at | first | goal |\n");
    rule.push_str(" --- | --- | --- |\n");
    out.push_str(&rule);
    for row in &options.rows {
        let _ = write!(out, "| {} |", row.title);
        for (peer, _) in &options.peers {
            let cell = match summarise(samples, row.name, *peer) {
                Some(summary) => cell(row, &summary, verbose),
                None if applies(row, *peer) => "failed".into(),
                None => String::new(),
            };
            let _ = write!(out, " {cell} |");
        }
        let (first, goal) = steps(row);
        match judge(samples, row) {
            Some(verdict) => {
                let (first_met, goal_met) = (met(verdict.first), met(verdict.goal));
                let standing = verdict.standing;
                let _ = writeln!(out, " {standing} | {first}: {first_met} | {goal}: {goal_met} |");
            }
            None => {
                let _ = writeln!(out, " | {first} | {goal} |");
            }
        }
    }
    out
}

/// The two steps of a row's goal in words.
pub fn steps(row: &Row) -> (String, String) {
    goals::describe(&row.goal, |value| quantity(row, value))
}

fn met(yes: bool) -> &'static str {
    if yes { "met" } else { "**missed**" }
}

/// One result in words.
pub fn cell(row: &Row, summary: &Summary, verbose: bool) -> String {
    let median = &summary.median;
    let mut parts = Vec::new();
    if let Some(rate) = median.rate {
        parts.push(thousands(rate));
    }
    if let (Some(p50), Some(p99)) = (median.p50_us, median.p99_us) {
        parts.push(format!("{} / {}", micros(p50), micros(p99)));
    }
    if let Some(value) = median.value {
        parts.push(quantity(row, value));
    }
    if let Some(cpu) = median.cpu_us {
        parts.push(format!("{cpu:.2} us"));
    }
    if verbose || matches!(row.work, Work::Backlog) {
        parts.extend(median.resident.map(|bytes| bytes_text(bytes as f64)));
    }
    if verbose {
        parts.extend(median.generator_us.map(|us| format!("gen {us:.2} us")));
        parts.push(format!("±{:.0} %", summary.spread * 100.0));
    }
    if median.lost > 0 {
        parts.push(format!("LOST {}", median.lost));
    }
    parts.join(" · ")
}

fn quantity(row: &Row, value: f64) -> String {
    match row.work {
        Work::Start | Work::StartWithBacklog => format!("{value:.0} ms"),
        Work::IdleConnections(_)
        | Work::IdleBroker
        | Work::Load(_)
        | Work::Backlog
        | Work::Latency(_) => bytes_text(value),
    }
}

fn thousands(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2}M", rate / 1e6),
        rate if rate >= 1e5 => format!("{:.0}k", rate / 1e3),
        rate if rate >= 1e3 => format!("{:.1}k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

fn micros(us: f64) -> String {
    if us >= 1000.0 { format!("{:.2} ms", us / 1e3) } else { format!("{us:.0} us") }
}

fn bytes_text(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} KB", bytes / 1024.0),
    }
}

/// Writes medians, verdicts and every sample, with the commit and the machine.
pub fn write_json(file: &Path, options: &Options, samples: &[Sample]) -> Result<()> {
    let mut rows = Vec::new();
    for row in &options.rows {
        let mut peers = serde_json::Map::new();
        for (peer, _) in &options.peers {
            if let Some(summary) = summarise(samples, row.name, *peer) {
                peers.insert(peer.title().into(), serde_json::to_value(summary)?);
            }
        }
        let (first, goal) = steps(row);
        let verdict = judge(samples, row).map(|verdict| {
            json!({ "standing": verdict.standing, "first": verdict.first, "goal": verdict.goal })
        });
        rows.push(json!({
            "row": row.name, "title": row.title, "peers": peers,
            "first": first, "goal": goal, "verdict": verdict,
        }));
    }
    let report = json!({
        "commit": commit(), "machine": machine(),
        "rounds": options.rounds, "seconds": options.effort.measure.as_secs_f64(),
        "rows": rows, "samples": samples,
    });
    fs::write(file, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("writing {}", file.display()))
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// Processor and number of cores.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    format!("{cores} cores, {model}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;

    fn sample(peer: Peer, rate: f64, cpu_us: f64) -> Sample {
        let outcome =
            Outcome { rate: Some(rate), cpu_us: Some(cpu_us), lost: 1, ..Outcome::default() };
        let result = SampleResult::Outcome(outcome);
        Sample { row: "amqp-128", peer: peer.title(), round: 1, result }
    }

    #[test]
    fn medians_ignore_an_outlier_and_losses_add_up() {
        let samples: Vec<_> =
            [100.0, 110.0, 900.0].map(|rate| sample(Peer::RabbitMq, rate, 2.0)).into();
        let summary = summarise(&samples, "amqp-128", Peer::RabbitMq).unwrap();
        assert_eq!(summary.median.rate, Some(110.0));
        assert_eq!((summary.median.lost, summary.runs), (3, 3));
        assert!(summarise(&samples, "amqp-128", Peer::Mosquitto).is_none());
        assert_eq!(median(vec![1.0, 3.0]), Some(2.0));
    }

    #[test]
    fn a_row_with_losses_meets_no_goal() {
        let samples = [sample(Peer::RabbitMq, 1e5, 16.0), sample(Peer::PolyMq, 2e6, 0.1)];
        let row = rows::find("amqp-128").unwrap();
        let verdict = judge(&samples, &row).unwrap();
        assert!(!verdict.first && !verdict.goal);
    }

    #[test]
    fn figures_are_short_words() {
        assert_eq!(thousands(4_812_000.0), "4.81M");
        assert_eq!(thousands(121_400.0), "121k");
        assert_eq!(micros(17_000.0), "17.00 ms");
        assert_eq!(bytes_text(3.4e9), "3.4 GB");
    }
}

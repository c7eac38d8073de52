//! Whether the process lives, has started, and takes messages.

use std::collections::BTreeMap;

use polymq_broker::BrokerHandle;
use serde_json::{Value, json};

use crate::{Phase, Watched, clock};

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// `None` when all is well.
    pub(crate) problem: Option<String>,
}

impl Check {
    fn new(name: &'static str, problem: Option<String>) -> Self {
        Self { name, problem }
    }
}

/// Answers of a page: all well or not, and the text for people.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) is_ok: bool,
    pub(crate) body: Value,
}

impl Report {
    fn of(checks: &[Check]) -> Self {
        let is_ok = checks.iter().all(|check| check.problem.is_none());
        let each = |check: &Check| match &check.problem {
            None => json!({ "check": check.name, "status": "ok" }),
            Some(problem) => {
                json!({ "check": check.name, "status": "failed", "reason": problem })
            }
        };
        let checks: Vec<_> = checks.iter().map(each).collect();
        let status = if is_ok { "ok" } else { "failed" };
        Self { is_ok, body: json!({ "status": status, "checks": checks }) }
    }

    /// Adds something that people should look at, and that keeps nobody from being served.
    fn degraded(mut self, name: &str, reason: &str) -> Self {
        if let Some(checks) = self.body["checks"].as_array_mut() {
            checks.push(json!({ "check": name, "status": "degraded", "reason": reason }));
        }
        if self.is_ok {
            self.body["status"] = json!("degraded");
        }
        self
    }
}

/// The process answers.
pub(crate) fn live() -> Report {
    Report::of(&[Check::new("process", None)])
}

/// What was stored is back.
pub(crate) fn startup(watched: &Watched) -> Report {
    match watched.phase.now() {
        Phase::Serving | Phase::Draining => Report::of(&[Check::new("recovery", None)]),
        Phase::Recovering => {
            let done = f64::from((watched.facts)().recovered_percent) / 100.0;
            let problem = Some("the store is being read".to_owned());
            let mut report = Report::of(&[Check::new("recovery", problem)]);
            report.body["recovering"] = json!(done);
            report
        }
    }
}

/// Messages are taken.
pub(crate) fn ready(watched: &Watched) -> Report {
    let phase = match watched.phase.now() {
        Phase::Serving => None,
        Phase::Recovering => Some("the store is being read".to_owned()),
        Phase::Draining => Some("the server stops".to_owned()),
    };
    let facts = (watched.facts)();
    let report = Report::of(&[
        Check::new("serving", phase),
        Check::new("store", facts.store_problem),
        Check::new("alarms", alarm(&watched.broker)),
    ]);
    let report = match facts.store_is_full {
        true => {
            report.degraded("room", "the disk is full: messages are refused until there is room")
        }
        false => report,
    };
    let report = match facts.store_damaged_ranges {
        0 => report,
        ranges => {
            let messages = facts.store_damaged_messages;
            report.degraded("damage", &format!("{messages} stored messages at {ranges} places"))
        }
    };
    match ending(watched, clock::now().unix_ms / 1000) {
        Some(reason) => report.degraded("certificates", &reason),
        None => report,
    }
}

/// Which certificates of listeners end soon, or have ended, and when.
pub(crate) fn ending(watched: &Watched, now_secs: u64) -> Option<String> {
    let certificates: BTreeMap<_, _> = watched
        .listeners
        .open()
        .into_iter()
        .filter_map(|port| port.certificate)
        .filter(|one| one.expires_unix_secs <= now_secs.saturating_add(one.warning_secs))
        .map(|one| (one.name, one.expires_unix_secs))
        .collect();
    let told = certificates.iter().map(|(name, ends)| match ends.checked_sub(now_secs) {
        None | Some(0) => format!("`{name}` has ended"),
        Some(secs) => format!("`{name}` ends in {} hours", secs / 3600),
    });
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn alarm(broker: &BrokerHandle) -> Option<String> {
    broker.alarm().map(|reason| reason.to_string())
}

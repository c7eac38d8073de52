//! A new look at the configuration while the server runs.
//!
//! All of it is checked first, so that a mistake changes nothing. What can change while clients are
//! connected is applied; of the rest is said that it waits for a restart.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use polymq_driver::Tls;
use polymq_http::{ConfigChange, ConfigValue, Configuration};

use crate::{
    alarm::Marks,
    auth::{Logins, Policy},
    config::{Config, Loaded, Mistakes, Sources},
    logging, server, tls,
};

/// Keys that are applied. Of a certificate only if it existed at the start: listeners hold on to
/// those.
const APPLIED: &[&str] = &[
    "auth.anonymous_user",
    "auth.mechanisms",
    "auth.plain_without_tls",
    "limits.disk_free.low",
    "limits.disk_free.resume",
    "limits.memory_high",
    "logging.level",
];

/// What a reload needs, and what the server runs with.
pub(crate) struct Reload {
    pub(crate) sources: Sources,
    pub(crate) is_dev: bool,
    pub(crate) certificates: BTreeMap<String, Arc<Tls>>,
    pub(crate) logins: Arc<Logins>,
    pub(crate) marks: Arc<Marks>,
    /// Key, value and origin of everything that holds.
    pub(crate) running: Mutex<Vec<(String, String, String)>>,
    /// What the last reload left for a restart.
    pub(crate) waiting: Mutex<Vec<ConfigChange>>,
}

/// A configuration that has been read and is good, and what in it differs.
struct Looked {
    config: Config,
    certificates: BTreeMap<String, Arc<Tls>>,
    policy: Policy,
    warnings: Vec<String>,
    changed: Vec<ConfigChange>,
}

impl Reload {
    /// Reads everything again and applies what can be applied. Certificates are read from their
    /// files even when no key has changed.
    ///
    /// Errors: every mistake; then nothing has changed.
    pub(crate) fn run(&self) -> anyhow::Result<Vec<ConfigChange>> {
        // Held to the end, so that two who ask at a time do not mix.
        let mut running = self.running.lock();
        let looked = self.look(&running)?;
        let Looked { config, certificates, policy, warnings, changed } = looked;
        logging::set_level(&config.logging.level)?;
        self.logins.set_policy(policy);
        self.marks.set(config.limits.memory_high, &config.disk_free);
        for (name, held) in &self.certificates {
            if let Some(new) = certificates.get(name) {
                held.replace(new);
            }
        }
        for warning in warnings {
            tracing::warn!(event = "configuration_warning", "{warning}");
        }
        *self.waiting.lock() =
            changed.iter().filter(|change| !change.is_applied).cloned().collect();
        for change in changed.iter().filter(|change| change.is_applied) {
            if let Some(held) = running.iter_mut().find(|(key, _, _)| *key == change.key) {
                *held = (change.key.clone(), change.to.clone(), change.origin.clone());
            }
        }
        Ok(changed)
    }

    /// Reads and checks everything.
    fn look(&self, running: &[(String, String, String)]) -> anyhow::Result<Looked> {
        let Loaded { config, effective, warnings } = Config::load(&self.sources)?;
        let certificates = tls::load(&config.tls)?;
        let policy = server::policy(&config, self.is_dev)?;
        server::check_anonymous(&config, |user| self.logins.knows(user))?;
        let changed = difference(running, &effective, &|key| self.is_applied(key));
        Ok(Looked { config, certificates, policy, warnings, changed })
    }

    /// As [`run`](Self::run), with the outcome in the log.
    ///
    /// Errors: every mistake, without the lines of the files.
    pub(crate) fn run_and_tell(&self) -> Result<Vec<ConfigChange>, Vec<String>> {
        match self.run() {
            Ok(changed) => {
                for ConfigChange { key, from, to, origin, is_applied } in &changed {
                    if *is_applied {
                        tracing::info!(event = "configuration_changed", key, from, to, origin);
                    } else {
                        let waits = "it waits for a restart";
                        tracing::warn!(event = "configuration_waits", key, from, to, origin, waits);
                    }
                }
                tracing::info!(event = "configuration_reloaded", changes = changed.len());
                Ok(changed)
            }
            Err(error) => {
                let mistakes = mistakes(&error);
                let error = mistakes.join("; ");
                tracing::error!(event = "configuration_refused", %error, "nothing has changed");
                Err(mistakes)
            }
        }
    }

    fn is_applied(&self, key: &str) -> bool {
        let certificate = key.strip_prefix("tls.").and_then(|rest| rest.rsplit_once('.'));
        match certificate {
            Some((name, _)) => self.certificates.contains_key(name),
            None => APPLIED.contains(&key),
        }
    }
}

impl Configuration for Reload {
    fn effective(&self) -> Vec<ConfigValue> {
        let waiting = self.waiting.lock();
        let value = |(key, value, origin): &(String, String, String)| {
            let waits = waiting.iter().find(|change| change.key == *key);
            ConfigValue {
                key: key.clone(),
                value: value.clone(),
                origin: origin.clone(),
                is_reloadable: self.is_applied(key),
                waiting: waits.map(|change| (change.to.clone(), change.origin.clone())),
            }
        };
        self.running.lock().iter().map(value).collect()
    }

    fn check(&self) -> Result<Vec<ConfigChange>, Vec<String>> {
        let running = self.running.lock().clone();
        let looked = self.look(&running).map_err(|error| mistakes(&error))?;
        Ok(looked.changed)
    }

    fn reload(&self) -> Result<Vec<ConfigChange>, Vec<String>> {
        self.run_and_tell()
    }
}

/// What is wrong, without the lines of the files.
fn mistakes(error: &anyhow::Error) -> Vec<String> {
    match error.downcast_ref::<Mistakes>() {
        Some(mistakes) => mistakes.brief.clone(),
        None => vec![format!("{error:#}")],
    }
}

/// The keys of which `new` says something else than `old`.
fn difference(
    old: &[(String, String, String)],
    new: &[(String, String, String)],
    is_applied: &dyn Fn(&str) -> bool,
) -> Vec<ConfigChange> {
    let values = |all: &[(String, String, String)]| -> BTreeMap<String, (String, String)> {
        let pair = |(key, value, origin): &(String, String, String)| {
            (key.clone(), (value.clone(), origin.clone()))
        };
        all.iter().map(pair).collect()
    };
    let (old, new) = (values(old), values(new));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let gone = gone.map(|(key, (from, _))| ConfigChange {
        key: key.clone(),
        from: from.clone(),
        to: String::new(),
        origin: String::new(),
        is_applied: false,
    });
    let other = new.iter().filter_map(|(key, (to, origin))| {
        let from = old.get(key).map(|(from, _)| from.as_str()).unwrap_or_default();
        (from != to).then(|| ConfigChange {
            key: key.clone(),
            from: from.to_owned(),
            to: to.clone(),
            origin: origin.clone(),
            is_applied: old.contains_key(key) && is_applied(key),
        })
    });
    other.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pairs: &[(&str, &str)]) -> Vec<(String, String, String)> {
        let triple = |(key, value): &(&str, &str)| {
            ((*key).to_owned(), (*value).to_owned(), "polymq.toml:1".to_owned())
        };
        pairs.iter().map(triple).collect()
    }

    #[test]
    fn what_differs_is_told_with_whether_it_holds_already() {
        let old = all(&[("logging.level", "info"), ("server.name", "a"), ("tls.x.key_file", "k")]);
        let new = all(&[("logging.level", "debug"), ("server.name", "b"), ("tls.y.key_file", "k")]);
        let applied = |key: &str| key == "logging.level" || key.starts_with("tls.");
        let told: Vec<_> = difference(&old, &new, &applied)
            .into_iter()
            .map(|change| (change.key, change.from, change.to, change.is_applied))
            .collect();
        let row = |key: &str, from: &str, to: &str, is_applied| {
            (key.to_owned(), from.to_owned(), to.to_owned(), is_applied)
        };
        assert_eq!(
            told,
            [
                row("logging.level", "info", "debug", true),
                row("server.name", "a", "b", false),
                row("tls.y.key_file", "", "k", false),
                row("tls.x.key_file", "k", "", false),
            ]
        );
    }

    #[test]
    fn the_same_is_no_difference() {
        let old = all(&[("server.name", "a")]);
        assert!(difference(&old, &old, &|_| true).is_empty());
    }
}

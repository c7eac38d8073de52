//! A new look at the configuration while the server runs.
//!
//! All of it is checked first, so that a mistake changes nothing. What can change while clients are
//! connected is applied; of the rest is said that it waits for a restart.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use polymq_driver::Tls;

use crate::{
    alarm::Marks,
    auth::Logins,
    config::{Config, Loaded, Sources},
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

/// A key that has another value than the server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) key: String,
    pub(crate) from: String,
    pub(crate) to: String,
    /// Where the new value stands.
    pub(crate) origin: String,
    /// False when it waits for a restart.
    pub(crate) is_applied: bool,
}

/// What a reload needs, and what the server runs with.
pub(crate) struct Reload {
    pub(crate) sources: Sources,
    pub(crate) is_dev: bool,
    pub(crate) certificates: BTreeMap<String, Arc<Tls>>,
    pub(crate) logins: Arc<Logins>,
    pub(crate) marks: Arc<Marks>,
    /// Key, value and origin of everything that holds.
    pub(crate) running: Mutex<Vec<(String, String, String)>>,
}

impl Reload {
    /// Reads everything again and applies what can be applied. Certificates are read from their
    /// files even when no key has changed.
    ///
    /// Errors: every mistake; then nothing has changed.
    pub(crate) fn run(&self) -> anyhow::Result<Vec<Changed>> {
        let Loaded { config, effective, warnings } = Config::load(&self.sources)?;
        let certificates = tls::load(&config.tls)?;
        let policy = server::policy(&config, self.is_dev)?;
        server::check_anonymous(&config, |user| self.logins.knows(user))?;
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
        let mut running = self.running.lock();
        let changed = difference(&running, &effective, &|key| self.is_applied(key));
        for change in changed.iter().filter(|change| change.is_applied) {
            if let Some(held) = running.iter_mut().find(|(key, _, _)| *key == change.key) {
                *held = (change.key.clone(), change.to.clone(), change.origin.clone());
            }
        }
        Ok(changed)
    }

    /// As [`run`](Self::run), with the outcome in the log.
    pub(crate) fn run_and_tell(&self) {
        match self.run() {
            Ok(changed) => {
                for Changed { key, from, to, origin, is_applied } in &changed {
                    if *is_applied {
                        tracing::info!(event = "configuration_changed", key, from, to, origin);
                    } else {
                        let waits = "it waits for a restart";
                        tracing::warn!(event = "configuration_waits", key, from, to, origin, waits);
                    }
                }
                tracing::info!(event = "configuration_reloaded", changes = changed.len());
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(event = "configuration_refused", %error, "nothing has changed");
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

/// The keys of which `new` says something else than `old`.
fn difference(
    old: &[(String, String, String)],
    new: &[(String, String, String)],
    is_applied: &dyn Fn(&str) -> bool,
) -> Vec<Changed> {
    let values = |all: &[(String, String, String)]| -> BTreeMap<String, (String, String)> {
        let pair = |(key, value, origin): &(String, String, String)| {
            (key.clone(), (value.clone(), origin.clone()))
        };
        all.iter().map(pair).collect()
    };
    let (old, new) = (values(old), values(new));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let gone = gone.map(|(key, (from, _))| Changed {
        key: key.clone(),
        from: from.clone(),
        to: String::new(),
        origin: String::new(),
        is_applied: false,
    });
    let other = new.iter().filter_map(|(key, (to, origin))| {
        let from = old.get(key).map(|(from, _)| from.as_str()).unwrap_or_default();
        (from != to).then(|| Changed {
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

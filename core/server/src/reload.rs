//! A new look at the configuration while the server runs.
//!
//! All of it is checked first, so that a mistake changes nothing. What can change while clients are
//! connected is applied; of the rest is said that it waits for a restart.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use polymq_broker::BrokerHandle;
use polymq_driver::Tls;
use polymq_http::{ConfigChange, ConfigRefusal, ConfigValue, Configuration};
use serde_json::Value;

use crate::{
    accounts,
    alarm::Marks,
    auth::{Logins, Policy},
    config::{Config, FileText, Loaded, Mistakes, Sources, edit},
    limits::limits,
    logging, opening,
    ports::Ports,
    server, tls,
};

/// Keys that are applied at once, or to connections that come from now on.
const APPLIED: &[&str] = &[
    "amqp.frame_size",
    "amqp.heartbeat",
    "limits.channels_per_connection",
    "limits.connection_rate",
    "limits.connection_rate_per_address",
    "limits.connections",
    "limits.connections_per_address",
    "limits.consumer_timeout",
    "limits.disk_free.low",
    "limits.disk_free.resume",
    "limits.login_size",
    "limits.memory_high",
    "limits.message_size",
    "limits.prefetch_max",
    "limits.publish_block_timeout",
    "logging.level",
    "mqtt.keep_alive_max",
    "mqtt.receive_max",
    "mqtt.refused_publish_wait",
    "mqtt.session_expiry_max",
    "mqtt.session_messages_max",
    "mqtt.subscriptions_max",
    "mqtt.topic_alias_max",
    "server.default_address",
    "stomp.header_size",
    "stomp.headers_max",
    "stomp.subscriptions_max",
    "stomp.transactions_max",
];
/// Tables of which every key is applied, also those that are new or gone.
const APPLIED_TABLES: &[&str] = &["auth.", "http.", "listeners.", "tls."];

/// True when a reload applies a key, false when it waits for a restart.
fn is_applied(key: &str) -> bool {
    APPLIED.contains(&key) || APPLIED_TABLES.iter().any(|table| key.starts_with(table))
}

/// What a reload needs, and what the server runs with.
pub(crate) struct Reload {
    pub(crate) sources: Sources,
    pub(crate) is_dev: bool,
    pub(crate) ports: Arc<Ports>,
    pub(crate) broker: BrokerHandle,
    pub(crate) logins: Arc<Logins>,
    pub(crate) marks: Arc<Marks>,
    /// Key, value and origin of everything that holds.
    pub(crate) running: Mutex<Vec<(String, String, String)>>,
    /// What the last reload left for a restart.
    pub(crate) waiting: Mutex<Vec<ConfigChange>>,
    /// The last reload was refused.
    pub(crate) is_refused: AtomicBool,
}

/// A configuration that has been read and is good, and what in it differs.
struct Looked {
    config: Config,
    effective: Vec<(String, String, String)>,
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
        let Looked { config, effective, certificates, policy, warnings, changed } = looked;
        let provider = self.logins.provider(&config.auth_oauth)?;
        for vhost in server::vhosts(&config)? {
            self.broker.create_vhost(vhost);
        }
        self.ports.change(&config, certificates)?;
        logging::set_level(&config.logging.level)?;
        self.logins.set_policy(policy);
        self.logins.set_provider(provider);
        self.marks.set(config.limits.memory_high, &config.disk_free);
        let limits = Arc::new(limits(&config));
        self.broker.set_limits(Arc::clone(&limits));
        self.ports.set(&config, limits);
        self.ports.warn_of_certificates();
        for warning in warnings {
            tracing::warn!(event = "configuration_warning", "{warning}");
        }
        *self.waiting.lock() =
            changed.iter().filter(|change| !change.is_applied).cloned().collect();
        *running = holding(&running, effective, &changed);
        Ok(changed)
    }

    /// Reads and checks everything.
    fn look(&self, running: &[(String, String, String)]) -> anyhow::Result<Looked> {
        let Loaded { config, effective, warnings } =
            Config::load_and(&self.sources, opening::mistakes)?;
        let certificates = tls::load(&config.tls)?;
        let policy = server::policy(&config, self.is_dev)?;
        server::check_anonymous(&config, |user| self.logins.knows(user))?;
        accounts::check_passwords(&config, &self.broker)?;
        let mut changed = difference(running, &effective, &is_applied);
        // The same files may hold others by now.
        changed.extend(self.ports.renewed(&certificates).into_iter().map(|(name, from, to)| {
            let (key, origin) = (format!("tls.{name}"), "its files".to_owned());
            ConfigChange { key, from, to, origin, is_applied: true }
        }));
        Ok(Looked { config, effective, certificates, policy, warnings, changed })
    }

    /// As [`run`](Self::run), with the outcome in the log.
    ///
    /// Errors: every mistake, without the lines of the files.
    pub(crate) fn run_and_tell(&self) -> Result<Vec<ConfigChange>, Vec<String>> {
        let done = self.run();
        self.is_refused.store(done.is_err(), Ordering::Relaxed);
        match done {
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
}

/// What holds once what can be applied is applied: the new values, but the old ones of keys that
/// wait for a restart.
fn holding(
    old: &[(String, String, String)],
    new: Vec<(String, String, String)>,
    changed: &[ConfigChange],
) -> Vec<(String, String, String)> {
    let waits = |key: &str| changed.iter().any(|change| change.key == key && !change.is_applied);
    let before = |key: &str| old.iter().find(|(held, _, _)| held == key).cloned();
    let kept =
        new.into_iter().filter_map(|new| if waits(&new.0) { before(&new.0) } else { Some(new) });
    let mut held: Vec<_> = kept.collect();
    let gone = changed.iter().filter(|change| change.origin.is_empty() && !change.is_applied);
    held.extend(gone.filter_map(|change| before(&change.key)));
    held
}

impl Configuration for Reload {
    fn is_reload_ok(&self) -> bool {
        !self.is_refused.load(Ordering::Relaxed)
    }

    fn effective(&self) -> Vec<ConfigValue> {
        let waiting = self.waiting.lock();
        let value = |(key, value, origin): &(String, String, String)| {
            let waits = waiting.iter().find(|change| change.key == *key);
            ConfigValue {
                key: key.clone(),
                value: value.clone(),
                origin: origin.clone(),
                is_reloadable: is_applied(key),
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

    fn change(
        &self,
        values: &[(String, Option<Value>)],
        is_dry: bool,
    ) -> Result<Vec<ConfigChange>, ConfigRefusal> {
        // Of two who write at a time one would undo what the other has done.
        static WRITING: Mutex<()> = Mutex::new(());
        let _only = WRITING.lock();
        let values = written(values)?;
        let lines = || values.iter().map(|(key, value)| edit::as_lines(key, value.as_deref()));
        let read_only = |why: String| ConfigRefusal::ReadOnly { why, lines: lines().collect() };
        let invalid = |mistakes: Mistakes| ConfigRefusal::Invalid(mistakes.brief);
        self.check_writable(&values).map_err(&read_only)?;
        let path = self.sources.path();
        let path = path.ok_or_else(|| read_only("there is no configuration file".to_owned()))?;
        let before = self.sources.file_text().map_err(invalid)?.unwrap_or_default();
        let mut text = before.clone();
        for (key, value) in &values {
            let changed = edit::with_value(&text, key, value.as_deref());
            text = changed.ok_or_else(|| {
                read_only(format!("`{key}` stands where it cannot be changed by itself"))
            })?;
        }
        let file = FileText { name: path.display().to_string(), text: text.clone() };
        let loaded = Config::load_text(&self.sources, file).map_err(invalid)?;
        if is_dry {
            return Ok(difference(&self.running.lock(), &loaded.effective, &is_applied));
        }
        let write = |text: &str| edit::replace(path, text);
        write(&text)
            .map_err(|error| read_only(format!("`{}` is not written: {error}", path.display())))?;
        self.run_and_tell().map_err(|mistakes| {
            // Such as an address that is taken: what the file says must be what can hold.
            if let Err(error) = write(&before) {
                tracing::error!(event = "configuration_not_restored", %error);
            }
            ConfigRefusal::Invalid(mistakes)
        })
    }
}

impl Reload {
    /// Errors: why a key cannot be changed from here.
    fn check_writable(&self, values: &[(String, Option<String>)]) -> Result<(), String> {
        let running = self.running.lock();
        for (key, _) in values {
            let held = running.iter().find(|(held, _, _)| held == key);
            if !is_applied(key) && held.is_some() {
                return Err(format!("`{key}` waits for a restart, so it is changed in the file"));
            }
            let origin = held.map(|(_, _, origin)| origin.as_str()).unwrap_or_default();
            if origin.starts_with("env ") || origin.starts_with("flag ") {
                return Err(format!("`{key}` is set by {origin}, which is stronger than a file"));
            }
        }
        Ok(())
    }
}

/// Values as they stand in a file.
///
/// Errors: one that no key has.
fn written(
    values: &[(String, Option<Value>)],
) -> Result<Vec<(String, Option<String>)>, ConfigRefusal> {
    let text = |value: &Value| match value {
        // Text of JSON is text of TOML, too.
        Value::String(_) | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) if items.iter().all(Value::is_string) => Some(value.to_string()),
        Value::Array(_) | Value::Null | Value::Object(_) => None,
    };
    let mut all = Vec::new();
    for (key, value) in values {
        let value = match value {
            None => None,
            Some(value) => Some(text(value).ok_or_else(|| {
                let what = "text, a number, true, false or a list of text";
                ConfigRefusal::Invalid(vec![format!("`{key}` must be {what}")])
            })?),
        };
        all.push((key.clone(), value));
    }
    Ok(all)
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
        is_applied: is_applied(key),
    });
    let other = new.iter().filter_map(|(key, (to, origin))| {
        let from = old.get(key).map(|(from, _)| from.as_str()).unwrap_or_default();
        (from != to).then(|| ConfigChange {
            key: key.clone(),
            from: from.to_owned(),
            to: to.clone(),
            origin: origin.clone(),
            is_applied: is_applied(key),
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
                row("tls.y.key_file", "", "k", true),
                row("tls.x.key_file", "k", "", true),
            ]
        );
    }

    #[test]
    fn what_waits_for_a_restart_keeps_its_old_value() {
        let old = all(&[("a.x", "1"), ("a.y", "1"), ("a.gone", "1"), ("b.gone", "1")]);
        let new = all(&[("a.x", "2"), ("a.y", "2"), ("b.new", "2")]);
        let applied = |key: &str| key == "a.x" || key.starts_with("b.");
        let changed = difference(&old, &new, &applied);
        let held = holding(&old, new, &changed);
        assert_eq!(held, all(&[("a.x", "2"), ("a.y", "1"), ("b.new", "2"), ("a.gone", "1")]));
    }

    #[test]
    fn the_same_is_no_difference() {
        let old = all(&[("server.name", "a")]);
        assert!(difference(&old, &old, &|_| true).is_empty());
    }
}

//! Who may know whom: the dependencies between our crates, and what pure crates must not list.

use anyhow::Context;
use toml::{Table, Value};

use crate::project::TextFile;

/// What a crate may and must not depend on.
struct Rule {
    /// Folder, or the beginning of it when it ends with a slash.
    folder: &'static str,
    /// Our crates that it may use; `None` for all but the server.
    ours: Option<&'static [&'static str]>,
    /// Crates of others that it must not list; an ending `*` stands for anything.
    banned: &'static [&'static str],
}

/// No runtime, no sockets, no files, no randomness.
const PURE: &[&str] = &[
    "tokio*",
    "async-std",
    "smol",
    "mio",
    "socket2",
    "rustls*",
    "hyper*",
    "axum",
    "rustix",
    "libc",
    "rand*",
    "getrandom",
    "fastrand",
    "chrono",
    "time",
];

/// The first rule that fits a folder counts.
const RULES: &[Rule] = &[
    Rule { folder: "core/model", ours: Some(&[]), banned: PURE },
    Rule { folder: "core/contract", ours: Some(&["model"]), banned: PURE },
    Rule { folder: "core/scram", ours: Some(&["contract"]), banned: PURE },
    Rule { folder: "core/filter", ours: Some(&["model"]), banned: PURE },
    Rule { folder: "core/store", ours: Some(&["model"]), banned: PURE },
    Rule {
        folder: "core/broker",
        ours: Some(&["model", "contract", "filter", "store"]),
        banned: PURE,
    },
    Rule { folder: "core/driver", ours: Some(&["model", "contract"]), banned: &["axum", "hyper*"] },
    Rule { folder: "core/cli", ours: Some(&[]), banned: &["tokio*", "hyper*", "axum"] },
    Rule { folder: "core/server", ours: None, banned: &[] },
    Rule {
        folder: "protocols/http",
        ours: Some(&["model", "contract", "filter", "broker", "driver"]),
        banned: &[],
    },
    Rule { folder: "protocols/", ours: Some(&["model", "contract"]), banned: PURE },
    // Its databases are reached through sqlx, which needs a runtime.
    Rule {
        folder: "storage/sql",
        ours: Some(&["model", "store"]),
        banned: &["hyper*", "axum", "socket2"],
    },
    Rule {
        folder: "storage/",
        ours: Some(&["model", "store"]),
        banned: &["tokio*", "hyper*", "axum", "socket2"],
    },
    Rule { folder: "tests/", ours: None, banned: &[] },
];

/// Crates that are test oracles only, and the one crate that may use them, in its tests.
const ORACLES: [&str; 2] = ["mqttbytes", "stomp-parser"];
const ORACLE_USER: &str = "tests/conformance";

/// Finds every dependency that points the wrong way.
///
/// Errors: a manifest that cannot be read.
pub fn wrong_arrows(files: &[TextFile]) -> anyhow::Result<Vec<String>> {
    let manifest = |file: &&TextFile| file.path.ends_with("/Cargo.toml");
    let mut findings = Vec::new();
    for file in files.iter().filter(manifest) {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        let table: Table = file.text.parse().with_context(|| file.path.clone())?;
        let Some(rule) = RULES.iter().find(|rule| rule.fits(folder)) else {
            findings.push(format!("{folder} has no rule in tests/tidy/src/arrows.rs"));
            continue;
        };
        let built = names(&table, "dependencies").chain(names(&table, "build-dependencies"));
        for name in built {
            findings.extend(rule.finding(folder, &name));
        }
        let all = names(&table, "dependencies").chain(names(&table, "dev-dependencies"));
        for name in all.filter(|name| ORACLES.contains(&name.as_str())) {
            let is_dev = names(&table, "dev-dependencies").any(|dev| dev == name);
            if folder != ORACLE_USER || !is_dev {
                findings.push(format!("{folder} uses {name}, which is an oracle of tests only"));
            }
        }
    }
    Ok(findings)
}

impl Rule {
    fn fits(&self, folder: &str) -> bool {
        folder == self.folder || (self.folder.ends_with('/') && folder.starts_with(self.folder))
    }

    fn finding(&self, folder: &str, dependency: &str) -> Option<String> {
        if let Some(ours) = dependency.strip_prefix("polymq-") {
            let may = match self.ours {
                Some(allowed) => allowed.contains(&ours),
                None => ours != "server",
            };
            return (!may).then(|| format!("{folder} must not know polymq-{ours}"));
        }
        let is_banned = self.banned.iter().any(|banned| match banned.strip_suffix('*') {
            Some(start) => dependency.starts_with(start),
            None => dependency == *banned,
        });
        is_banned.then(|| format!("{folder} must not list {dependency}"))
    }
}

/// Names of dependencies, those of single targets included.
fn names<'a>(table: &'a Table, kind: &'a str) -> impl Iterator<Item = String> + 'a {
    let targets = table.get("target").and_then(Value::as_table).into_iter().flatten();
    let of_targets = targets.filter_map(|(_, target)| target.as_table());
    let lists = std::iter::once(table).chain(of_targets);
    lists.filter_map(move |table| table.get(kind).and_then(Value::as_table)).flatten().map(
        |(name, value)| {
            // `alias = { package = "name" }`
            let package = value.get("package").and_then(Value::as_str);
            package.unwrap_or(name).to_owned()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(folder: &str, manifest: &str) -> Vec<String> {
        wrong_arrows(&[TextFile::new(&format!("{folder}/Cargo.toml"), manifest)]).unwrap()
    }

    #[test]
    fn arrow_between_crates_is_named() {
        let manifest = "[dependencies]\npolymq-broker.workspace = true\n";
        assert_eq!(
            findings("protocols/mqtt", manifest),
            ["protocols/mqtt must not know polymq-broker"]
        );
        assert!(findings("protocols/http", manifest).is_empty());
        let server = "[dependencies]\npolymq-server.workspace = true\n";
        assert_eq!(findings("tests/bench", server).len(), 1);
    }

    #[test]
    fn pure_crates_list_no_runtime() {
        let manifest = "[dependencies]\ntokio = \"1\"\ntokio-rustls = \"1\"\nbytes = \"1\"\n";
        assert_eq!(
            findings("core/model", manifest),
            ["core/model must not list tokio", "core/model must not list tokio-rustls"]
        );
        assert!(findings("core/driver", manifest).is_empty());
    }

    #[test]
    fn renamed_and_targeted_dependencies_are_seen() {
        let renamed = "[dependencies]\nrt = { package = \"tokio\", version = \"1\" }\n";
        assert_eq!(findings("core/store", renamed), ["core/store must not list tokio"]);
        let targeted = "[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n";
        assert_eq!(findings("core/store", targeted), ["core/store must not list libc"]);
    }

    #[test]
    fn tests_may_use_what_the_crate_may_not() {
        let manifest = "[dev-dependencies]\npolymq-memory.workspace = true\n";
        assert!(findings("core/broker", manifest).is_empty());
    }

    #[test]
    fn oracles_stay_in_the_tests_of_one_crate() {
        let dev = "[dev-dependencies]\nmqttbytes = \"0.6\"\n";
        assert!(findings("tests/conformance", dev).is_empty());
        assert_eq!(findings("protocols/mqtt", dev).len(), 1);
        assert_eq!(findings("tests/conformance", "[dependencies]\nmqttbytes = \"0.6\"\n").len(), 1);
    }

    #[test]
    fn crate_without_a_rule_is_named() {
        assert_eq!(findings("extras/new", "").len(), 1);
    }
}

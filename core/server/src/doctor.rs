//! `polymq doctor`: what keeps a broker on this machine from running well, and what to do.

mod machine;
mod places;

use std::process::ExitCode;

use polymq_cli::{Format, Output};
use serde_json::{Value, json};

use crate::config::{Config, Sources};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Ok,
    Warning,
    Failed,
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What one look has found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    grade: Grade,
    found: String,
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), advice: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warning, found: found.into(), advice: advice.into() }
    }

    fn failed(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, grade: Grade::Failed, found: found.into(), advice: advice.into() }
    }

    fn row(&self) -> Value {
        json!({
            "check": self.check,
            "status": self.grade.as_str(),
            "found": self.found,
            "advice": self.advice,
        })
    }
}

/// Looks at everything and says what it has found.
///
/// Exit codes: 0 when nothing is wrong, 1 when something is; with `is_strict` also when
/// something might be.
///
/// Errors: standard output takes no more.
pub(crate) fn run(sources: &Sources, format: Format, is_strict: bool) -> anyhow::Result<ExitCode> {
    let findings = look(sources);
    let rows: Vec<_> = findings.iter().map(Finding::row).collect();
    Output::new(format).rows(&rows, &["status", "check", "found", "advice"])?;
    let worst = findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Ok);
    let bad = if is_strict { Grade::Warning } else { Grade::Failed };
    Ok(if worst >= bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn look(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    let loaded = match Config::load(sources) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            let first = mistakes.brief.first().cloned().unwrap_or_default();
            let advice = "see `polymq check` for every mistake with its place";
            return vec![Finding::failed("configuration", first, advice)];
        }
    };
    match loaded.warnings.as_slice() {
        [] => findings.push(Finding::ok("configuration", "no mistake")),
        warnings => {
            let each = |text: &String| {
                let (found, advice) = text.split_once("; ").unwrap_or((text, ""));
                Finding::warning("configuration", found, advice)
            };
            findings.extend(warnings.iter().map(each));
        }
    }
    let config = &loaded.config;
    findings.extend(places::data_dir(config));
    findings.extend(places::disk(config));
    findings.extend(places::ports(config));
    findings.extend(places::certificates(config));
    findings.extend(machine::files(config));
    findings.extend(machine::memory(config));
    findings.extend(machine::clock());
    findings.extend(machine::kernel());
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(findings: &[Finding], check: &str) -> Vec<Grade> {
        let of = findings.iter().filter(|finding| finding.check == check);
        of.map(|finding| finding.grade).collect()
    }

    #[test]
    fn a_mistake_in_the_configuration_ends_the_look() {
        let flags = vec![("limits.conections=1".to_owned(), "--set".to_owned())];
        let findings = look(&Sources { flags, ..Sources::default() });
        assert_eq!(found(&findings, "configuration"), [Grade::Failed]);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn a_taken_port_and_an_open_folder_are_found() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut flags = vec![
            format!("server.data_dir={}", dir.path().display()),
            format!("listeners.amqp.bind=127.0.0.1:{port}"),
        ];
        for other in ["mqtt", "stomp", "xmpp", "http", "metrics"] {
            flags.push(format!("listeners.{other}.bind="));
        }
        let flags = flags.into_iter().map(|flag| (flag.clone(), flag)).collect();
        let findings = look(&Sources { flags, ..Sources::default() });
        assert_eq!(found(&findings, "ports"), [Grade::Failed], "{findings:?}");
        assert_eq!(found(&findings, "data directory"), [Grade::Failed], "{findings:?}");
        let wrong = findings.iter().filter(|finding| finding.grade != Grade::Ok);
        assert!(wrong.clone().all(|finding| !finding.advice.is_empty()), "{findings:?}");
    }
}

//! Why a command failed, and the exit code that says so to scripts.

use std::process::ExitCode;

use serde_json::Value;

use crate::output::one_line;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments fit the grammar but make no sense.
    #[error("{0}")]
    Usage(String),
    /// The broker says no.
    #[error("{}", told(.status, .problem))]
    Refused {
        /// Status of the answer.
        status: u16,
        /// Its body, `application/problem+json` as a rule.
        problem: Value,
    },
    /// Something that this side has looked for in vain.
    #[error("{0}")]
    Missing(String),
    /// Some of it was done.
    #[error("{0}")]
    Partly(String),
    /// No answer.
    #[error("{url} cannot be reached: {error}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why there was no answer.
        error: String,
    },
    /// Standard output takes no more.
    #[error("the output cannot be written: {0}")]
    Output(#[source] std::io::Error),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Partly(_) => 3,
            Self::Missing(_) | Self::Refused { status: 404, .. } => 4,
            Self::Refused { status: 401 | 403, .. } => 5,
            Self::Unreachable { .. } => 6,
            Self::Refused { .. } | Self::Output(_) | Self::Other(_) => 1,
        })
    }

    /// True for what `--idempotent` takes for a success.
    pub(crate) fn is_gone_or_there(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Refused { status: 404 | 409, .. })
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // What was asked for, not where it is written to, is wrong.
            std::io::ErrorKind::InvalidInput => Self::Usage(error.to_string()),
            _ => Self::Output(error),
        }
    }
}

fn told(status: &u16, problem: &Value) -> String {
    let word = |name: &str| problem.get(name).and_then(Value::as_str);
    // The last is how RabbitMQ's part of the API says it.
    let said = word("detail").or_else(|| word("title")).or_else(|| word("reason"));
    let said = said.unwrap_or("no reason was given");
    let mut text = said.to_owned();
    if let Some(at) = word("at") {
        text.push_str(&format!(" (at {at})"));
    }
    match word("code") {
        Some(code) => text.push_str(&format!(" [{status} {code}]")),
        None => text.push_str(&format!(" [{status}]")),
    }
    if *status == 401 && word("code") != Some("login_failed") {
        text.push_str(
            "\n  name a user with --user and --password-file, or POLYMQ_USER and \
             POLYMQ_PASSWORD_FILE, or `polymq context add`",
        );
    }
    let conflicts = problem.pointer("/params/conflicts").and_then(Value::as_array);
    for conflict in conflicts.into_iter().flatten() {
        let word = |name: &str| conflict.get(name).and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!("\n  {}: {}", one_line(word("name")), one_line(word("detail"))));
    }
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let at = error.get("at").and_then(Value::as_str).unwrap_or_default();
        let detail = error.get("detail").and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!("\n  {at}: {detail}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_what_where_and_by_which_code() {
        let problem = json!({
            "code": "unknown_field", "detail": "no field `durabel`", "at": "/durabel",
            "errors": [{ "at": "/x", "detail": "too long" }],
        });
        let text = Failure::Refused { status: 400, problem }.to_string();
        assert_eq!(text, "no field `durabel` (at /durabel) [400 unknown_field]\n  /x: too long");
    }
}

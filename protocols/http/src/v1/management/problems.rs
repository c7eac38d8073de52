//! Problems that several resources have.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use polymq_filter::BadFilter;
use serde_json::{Value, json};

use crate::problem::Problem;

/// A text that is no filter.
pub(super) fn bad_filter(bad: &BadFilter) -> Problem {
    Problem::bad("bad_filter", bad.to_string()).with("byte", bad.at)
}

/// The object has changed since its ETag was read.
pub(super) fn etag_mismatch(found: &str) -> Problem {
    let text = "the object is not the one that If-Match or If-None-Match means";
    Problem::new(StatusCode::PRECONDITION_FAILED, "etag_mismatch", text).with("etag", found)
}

/// What is to be deleted is not as much as the caller expects.
pub(super) fn count_changed(expected: u64, found: u64) -> Problem {
    let text = format!("{found} are there now, not {expected}; look again before you go on");
    Problem::new(StatusCode::CONFLICT, "count_changed", text)
        .with("expected", expected)
        .with("found", found)
}

/// What is to be deleted is not named one by one, and nobody has said how much it is.
pub(super) fn expect_needed(found: u64) -> Problem {
    let text = format!(
        "this would delete {found}; say `expect={found}`, or `expect=any` however many there are"
    );
    Problem::bad("expect_needed", text).at("expect").with("found", found)
}

/// An object is there with other settings, which cannot change: every difference between what it
/// has and what is wanted.
pub(super) fn arguments_differ(object: &str, have: &Value, want: &Value) -> Option<Problem> {
    let mut different = Vec::new();
    let mut compare = |have: &Value, want: &Value| {
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let (have, want) = (fields(have), fields(want));
        let names: BTreeSet<&String> = have.keys().chain(want.keys()).collect();
        for name in names.into_iter().filter(|name| *name != "arguments") {
            let (have, want) = (have.get(name), want.get(name));
            if have != want {
                different.push(json!({ "name": name, "current": have, "wanted": want }));
            }
        }
    };
    compare(have, want);
    compare(&have["arguments"], &want["arguments"]);
    if different.is_empty() {
        return None;
    }
    let text = format!("{object} is there with other settings");
    let problem = Problem::new(StatusCode::CONFLICT, "arguments_differ", text);
    Some(problem.with("differences", different))
}

/// A right is missing.
pub(super) fn missing_role(role: &'static str) -> Problem {
    let text = format!("this needs a user with the tag `{role}`");
    Problem::new(StatusCode::FORBIDDEN, "permission_denied", text).with("tag", role)
}

/// Something of this kind and name is not there.
pub(super) fn not_there(code: &'static str, kind: &str, name: &str) -> Problem {
    let text = format!("no {kind} '{name}'");
    Problem::new(StatusCode::NOT_FOUND, code, text).with("name", name)
}

//! Problems that several resources have.

use axum::http::StatusCode;
use polymq_filter::BadFilter;

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

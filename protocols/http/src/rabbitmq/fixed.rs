//! Answers that are always the same: of what does not exist here.

use serde_json::json;

use super::{
    call::Call,
    wire::{self, Outcome},
};

/// None.
pub(super) fn nothing(_: &Call) -> Outcome {
    wire::ok(&json!([]))
}

/// Nothing needs to be done.
pub(super) fn done(_: &Call) -> Outcome {
    wire::done()
}

//! Answers that are always the same: of what does not exist here.

use serde_json::json;

use super::{
    call::Call,
    wire::{self, Failure, Outcome},
};

/// None.
pub(super) fn nothing(_: &Call) -> Outcome {
    wire::ok(&json!([]))
}

/// There is no such thing.
pub(super) fn missing(_: &Call) -> Outcome {
    Err(Failure::not_found())
}

/// Nothing that speaks the protocol of streams can be made.
pub(super) fn no_streams(_: &Call) -> Outcome {
    Err(Failure::bad("the stream protocol is not available"))
}

/// Nothing needs to be done.
pub(super) fn done(_: &Call) -> Outcome {
    wire::done()
}

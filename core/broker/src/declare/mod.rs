//! Declaring, binding and deleting: every change of a topology, written to the store as it happens.

mod binding;
mod exchange;
mod queue;

pub(crate) use binding::check_source;
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::BadName;

/// A name that no name can be.
pub(crate) fn bad_name(bad: BadName) -> Refusal {
    Refusal::new(RefusalKind::Invalid, bad.to_string())
}

/// Errors: kind `Reserved` for names that only the broker makes.
fn check_not_reserved(what: &str, name: &str) -> Result<(), Refusal> {
    if name.starts_with("amq.") {
        let text = format!("{what} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Refusal::new(RefusalKind::Reserved, text));
    }
    Ok(())
}

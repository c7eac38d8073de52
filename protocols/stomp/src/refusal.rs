//! How a no is told: the words of ERROR, and the one table from [`RefusalKind`] to them.

use polymq_contract::{Refusal, RefusalKind};

use crate::codec::{BadFrame, TooLong};

/// Why the connection ends with ERROR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The header `message`.
    pub(crate) message: &'static str,
    /// The body.
    pub(crate) detail: String,
    /// The client is told which versions there are.
    pub(crate) names_versions: bool,
}

/// What handling a frame comes to.
pub(crate) type Step<T = ()> = Result<T, Box<Failure>>;

impl Failure {
    fn new(message: &'static str, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self { message, detail: detail.into(), names_versions: false })
    }

    /// The broker says no.
    pub(crate) fn refused(refusal: &Refusal) -> Box<Self> {
        Self::of_kind(refusal.kind, refusal.text.clone())
    }

    /// A rule of ours that the broker has as well.
    pub(crate) fn of_kind(kind: RefusalKind, detail: impl Into<String>) -> Box<Self> {
        Self::new(words(kind), detail)
    }

    /// A header has a value that it cannot have.
    pub(crate) fn invalid(detail: impl Into<String>) -> Box<Self> {
        Self::of_kind(RefusalKind::Invalid, detail)
    }

    /// The frame breaks a rule of the specification.
    pub(crate) fn malformed(detail: impl Into<String>) -> Box<Self> {
        Self::new("malformed frame", detail)
    }

    /// The frame may not come now.
    pub(crate) fn unexpected(detail: impl Into<String>) -> Box<Self> {
        Self::new("unexpected frame", detail)
    }

    /// The client speaks no version of ours.
    pub(crate) fn version(asked: &str) -> Box<Self> {
        let detail = format!("supported protocol versions are 1.0, 1.1 and 1.2, not '{asked}'");
        Box::new(Self { message: "version not supported", detail, names_versions: true })
    }

    /// The server or an administrator ends the connection.
    pub(crate) fn closing(reason: &str) -> Box<Self> {
        Self::new("connection closed", reason)
    }

    /// A subscription has ended by itself.
    pub(crate) fn cancelled(detail: impl Into<String>) -> Box<Self> {
        Self::new("subscription ended", detail)
    }
}

impl From<TooLong> for Box<Failure> {
    fn from(error: TooLong) -> Self {
        match error {
            TooLong::Body { .. } => Failure::of_kind(RefusalKind::TooLarge, error.to_string()),
            TooLong::Head(_) | TooLong::Length | TooLong::End => {
                Failure::malformed(error.to_string())
            }
        }
    }
}

impl From<BadFrame> for Box<Failure> {
    fn from(error: BadFrame) -> Self {
        Failure::malformed(error.to_string())
    }
}

/// The table: kind of refusal to the header `message`.
fn words(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::NotFound => "not found",
        RefusalKind::Denied | RefusalKind::Reserved => "access refused",
        RefusalKind::Conflict => "precondition failed",
        RefusalKind::Invalid => "invalid argument",
        RefusalKind::Locked => "resource locked",
        RefusalKind::Limit => "limit reached",
        RefusalKind::Full => "queue full",
        RefusalKind::TooLarge => "message too large",
        RefusalKind::NotAvailable => "not available yet",
        RefusalKind::StoreFailed => "internal error",
        RefusalKind::LoginFailed | RefusalKind::Banned => "login refused",
        RefusalKind::TooManyLogins => "too many failed logins",
    }
}

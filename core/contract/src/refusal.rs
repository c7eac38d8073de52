//! Why the broker says no. Each protocol maps [`RefusalKind`] to its own codes in exactly one
//! table.

/// The kinds of refusal; each is a row of the table that every protocol publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The object does not exist.
    NotFound,
    /// The user may not do this.
    Denied,
    /// The object exists and differs, or its state does not allow this.
    Conflict,
    /// An argument has a wrong type, value or combination.
    Invalid,
    /// The object belongs to another connection.
    Locked,
    /// A limit of connections, queues, channels or a quota is reached.
    Limit,
    /// A queue is full and refuses publishes.
    Full,
    /// A message is larger than allowed.
    TooLarge,
    /// The feature is planned and not there yet.
    NotAvailable,
    /// The store failed, or the outcome of a write is unknown.
    StoreFailed,
    /// The login was wrong. All wrong logins look alike.
    LoginFailed,
    /// Too many logins were wrong; even a right one has to wait.
    TooManyLogins,
    /// The user, its address or its client id is banned.
    Banned,
    /// A name is reserved: access to it is refused by rule, not by permission.
    Reserved,
}

impl RefusalKind {
    /// All of them, in a fixed order.
    pub const ALL: [Self; 14] = [
        Self::NotFound,
        Self::Denied,
        Self::Conflict,
        Self::Invalid,
        Self::Locked,
        Self::Limit,
        Self::Full,
        Self::TooLarge,
        Self::NotAvailable,
        Self::StoreFailed,
        Self::LoginFailed,
        Self::TooManyLogins,
        Self::Banned,
        Self::Reserved,
    ];

    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Locked => "locked",
            Self::Limit => "limit",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::NotAvailable => "not_available",
            Self::StoreFailed => "store_failed",
            Self::LoginFailed => "login_failed",
            Self::TooManyLogins => "too_many_logins",
            Self::Banned => "banned",
            Self::Reserved => "reserved",
        }
    }
}

/// A refusal: its kind, and a sentence that names the object, the value found and the value
/// allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of no this is.
    pub kind: RefusalKind,
    /// Lower-case sentence for the client.
    pub text: String,
    /// What the sentence is about, for protocols whose errors are read by programs.
    pub about: Option<Box<About>>,
}

/// The object of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What kind of object it is: `queue`, `exchange`, `vhost`, `user`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The right to it that is missing: `configure`, `write` or `read`.
    pub right: Option<&'static str>,
}

impl Refusal {
    /// A refusal of `kind` that says `text`.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), about: None }
    }

    /// The object of this kind and name is not there, as `text` says.
    pub fn missing(kind: &str, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, text).about(kind, name, None)
    }

    /// The same, of an object to which a right may be missing.
    pub fn about(
        self,
        kind: impl Into<String>,
        name: impl Into<String>,
        right: Option<&'static str>,
    ) -> Self {
        let about = About { kind: kind.into(), name: name.into(), right };
        Self { about: Some(Box::new(about)), ..self }
    }
}

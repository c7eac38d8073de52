//! Users and permissions as they are stored.

use std::fmt;

use polymq_contract::{Refusal, RefusalKind};
use serde::{Deserialize, Serialize};

/// Prefixes of password hashes that come from RabbitMQ.
const RABBIT_HASHES: [(&str, &str); 3] = [
    ("rabbit_password_hashing_sha256", "$rabbit-sha256$"),
    ("rabbit_password_hashing_sha512", "$rabbit-sha512$"),
    ("rabbit_password_hashing_md5", "$rabbit-md5$"),
];
/// What our own hashes are called where RabbitMQ names its algorithms.
const OWN_HASH: &str = "polymq_argon2id";

/// A user as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// Hash of the password in PHC text form; empty when the user cannot log in with a password.
    pub password_hash: String,
    /// Stored keys of SCRAM, in a text form of the authenticator.
    #[serde(default)]
    pub scram: String,
    /// `administrator`, `monitoring`, `impersonator`, ...
    #[serde(default)]
    pub tags: Vec<String>,
    /// The user may log in from loopback peers only.
    #[serde(default)]
    pub loopback_only: bool,
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord").field("tags", &self.tags).finish_non_exhaustive()
    }
}

/// What proves a password: its hash and the keys of SCRAM, never the password itself.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// See [`UserRecord::password_hash`].
    pub password_hash: String,
    /// See [`UserRecord::scram`].
    pub scram: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Credentials {
    /// Takes a hash as RabbitMQ's definitions write it, or one of ours that was exported.
    ///
    /// The user has no keys of SCRAM until the first login with the password.
    ///
    /// Errors: kind `Invalid` for an unknown algorithm or a hash that is none.
    pub fn imported(algorithm: &str, hash: &str) -> Result<Self, Refusal> {
        let invalid = |text: String| Refusal::new(RefusalKind::Invalid, text);
        if algorithm == OWN_HASH {
            if !hash.starts_with("$argon2id$") {
                return Err(invalid(format!("password_hash is no hash of {OWN_HASH}")));
            }
            return Ok(Self { password_hash: hash.to_owned(), scram: String::new() });
        }
        let known = RABBIT_HASHES.iter().find(|(name, _)| *name == algorithm);
        let Some((_, prefix)) = known else {
            return Err(invalid(format!("hashing_algorithm '{algorithm}' is not known")));
        };
        use base64::{Engine, prelude::BASE64_STANDARD};
        // Four bytes of salt, and a digest of 16 at least.
        if BASE64_STANDARD.decode(hash).is_ok_and(|bytes| bytes.len() >= 20) {
            return Ok(Self { password_hash: format!("{prefix}{hash}"), scram: String::new() });
        }
        Err(invalid("password_hash is not base64 of a salt and a digest".to_owned()))
    }

    /// Nobody can log in with a password.
    pub fn none() -> Self {
        Self::default()
    }
}

impl UserRecord {
    /// Hash and algorithm as RabbitMQ's definitions write them.
    pub fn exported_hash(&self) -> (&str, &'static str) {
        for (algorithm, prefix) in RABBIT_HASHES {
            if let Some(hash) = self.password_hash.strip_prefix(prefix) {
                return (hash, algorithm);
            }
        }
        match self.password_hash.as_str() {
            "" => ("", RABBIT_HASHES[0].0),
            own => (own, OWN_HASH),
        }
    }
}

/// What a user may do in a virtual host: three regular expressions on names of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRecord {
    /// Objects the user may declare and delete.
    pub configure: String,
    /// Objects the user may publish to and bind.
    pub write: String,
    /// Objects the user may consume from and bind to.
    pub read: String,
}

impl PermissionRecord {
    /// Everything.
    pub fn all() -> Self {
        Self { configure: ".*".into(), write: ".*".into(), read: ".*".into() }
    }
}

/// How the rules of a topic permission are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicSyntax {
    /// One regular expression on the routing key, as in RabbitMQ.
    #[default]
    Regex,
    /// Patterns of AMQP, one a line: `*` is a level, `#` any number of them.
    Dot,
    /// Topic filters of MQTT, one a line: `+` is a level, a last `#` any number of them.
    Slash,
}

impl TopicSyntax {
    pub(crate) fn is_regex(&self) -> bool {
        *self == Self::Regex
    }
}

/// Which topics of an exchange a user may write and read. `{username}`, `{vhost}` and `{client_id}`
/// stand for themselves, literally.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermissionRecord {
    /// Topics that the user may publish to.
    pub write: String,
    /// Topics that the user may subscribe to, and bind.
    pub read: String,
    /// How both are written.
    #[serde(default, skip_serializing_if = "TopicSyntax::is_regex")]
    pub syntax: TopicSyntax,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_rabbitmq_go_in_and_out_as_they_are() {
        let hash = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        for (algorithm, _) in RABBIT_HASHES {
            let Credentials { password_hash, scram } =
                Credentials::imported(algorithm, hash).unwrap();
            let record = UserRecord { password_hash, scram, tags: vec![], loopback_only: false };
            assert_eq!(record.exported_hash(), (hash, algorithm));
        }
    }

    #[test]
    fn own_hashes_go_out_and_in() {
        let own = "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA";
        let record = UserRecord {
            password_hash: own.to_owned(),
            scram: String::new(),
            tags: vec![],
            loopback_only: false,
        };
        let (hash, algorithm) = record.exported_hash();
        assert_eq!(Credentials::imported(algorithm, hash).unwrap().password_hash, own);
    }

    #[test]
    fn unknown_algorithms_and_damaged_hashes_are_refused() {
        for (algorithm, hash) in [
            ("md4", "AAAA"),
            (RABBIT_HASHES[0].0, "AAAA"),
            (RABBIT_HASHES[0].0, "?"),
            (OWN_HASH, "x"),
        ] {
            let refused = Credentials::imported(algorithm, hash).unwrap_err();
            assert_eq!(refused.kind, RefusalKind::Invalid);
        }
    }
}

//! Logins that were verified a moment ago, so that a storm of reconnects does not cost an Argon2
//! hash each.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use parking_lot::Mutex;

/// How long a verified login is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Entries at which all are forgotten; they cost 64 bytes each.
const ENTRIES_MAX: usize = 10_000;

type Digest = [u8; 32];

/// Keeps no password: only a keyed hash over user, password and stored hash, under a key that
/// lives and dies with the process. A changed password changes the stored hash and is not found.
pub(crate) struct VerifiedLogins {
    key: hmac::Key,
    entries: Mutex<HashMap<Digest, Instant>>,
}

impl VerifiedLogins {
    pub(crate) fn new(process_key: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, process_key);
        Self { key, entries: Mutex::default() }
    }

    /// The name under which a login is remembered.
    pub(crate) fn digest(&self, user: &str, password: &[u8], stored: &str) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), stored.as_bytes(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    pub(crate) fn contains(&self, digest: &Digest, now: Instant) -> bool {
        self.entries.lock().get(digest).is_some_and(|until| now < *until)
    }

    pub(crate) fn insert(&self, digest: Digest, now: Instant) {
        let mut entries = self.entries.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.clear();
        }
        entries.insert(digest, now + REMEMBERED_FOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verified_login_is_known_until_it_expires() {
        let (logins, now) = (VerifiedLogins::new(&[1; 32]), Instant::now());
        let digest = logins.digest("ann", b"secret", "hash");
        assert!(!logins.contains(&digest, now));
        logins.insert(digest, now);
        assert!(logins.contains(&digest, now));
        assert!(!logins.contains(&digest, now + REMEMBERED_FOR));
    }

    #[test]
    fn every_part_of_a_login_counts() {
        let logins = VerifiedLogins::new(&[1; 32]);
        let digest = logins.digest("ann", b"secret", "hash");
        assert_ne!(digest, logins.digest("bob", b"secret", "hash"));
        assert_ne!(digest, logins.digest("ann", b"other", "hash"));
        assert_ne!(digest, logins.digest("ann", b"secret", "changed"));
        assert_ne!(digest, logins.digest("an", b"nsecret", "hash"));
        assert_ne!(digest, VerifiedLogins::new(&[2; 32]).digest("ann", b"secret", "hash"));
    }
}

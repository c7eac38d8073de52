//! The ways to log in that clients are offered.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use crate::{PasswordsInClear, Peer};

/// Ways to log in. Protocols offer those that they have; what is accepted, the login decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mechanisms {
    /// User and password, or a token in place of it: PLAIN and AMQPLAIN.
    pub plain: bool,
    /// Where it is offered without TLS. What is not offered is not sent, so no password that would
    /// be refused crosses the wire.
    pub plain_in_clear: PasswordsInClear,
    /// SCRAM-SHA-1, and with channel binding.
    pub scram_sha_1: bool,
    /// SCRAM-SHA-256, and with channel binding.
    pub scram_sha_256: bool,
    /// EXTERNAL, with a client certificate.
    pub external: bool,
}

impl Mechanisms {
    /// All of them.
    pub const ALL: Self = Self {
        plain: true,
        plain_in_clear: PasswordsInClear::Anywhere,
        scram_sha_1: true,
        scram_sha_256: true,
        external: true,
    };

    /// Whether this peer is asked for its password.
    pub fn plain_for(&self, peer: &Peer) -> bool {
        self.plain && self.plain_in_clear.allow(peer)
    }
}

const LOOPBACK: u8 = 2;
const NOWHERE: u8 = 32;

/// What a server offers at the moment: connections that come later are offered what is set later.
/// Cloning shares it.
#[derive(Debug, Clone)]
pub struct Offer(Arc<AtomicU8>);

impl Offer {
    /// An offer of these.
    pub fn new(mechanisms: Mechanisms) -> Self {
        Self(Arc::new(AtomicU8::new(bits(mechanisms))))
    }

    /// What is offered now.
    pub fn now(&self) -> Mechanisms {
        let bits = self.0.load(Ordering::Relaxed);
        Mechanisms {
            plain: bits & 1 != 0,
            plain_in_clear: match bits & (LOOPBACK | NOWHERE) {
                0 => PasswordsInClear::Anywhere,
                LOOPBACK => PasswordsInClear::Loopback,
                _ => PasswordsInClear::Nowhere,
            },
            scram_sha_1: bits & 4 != 0,
            scram_sha_256: bits & 8 != 0,
            external: bits & 16 != 0,
        }
    }

    /// Offers these from now on.
    pub fn set(&self, mechanisms: Mechanisms) {
        self.0.store(bits(mechanisms), Ordering::Relaxed);
    }
}

impl Default for Offer {
    fn default() -> Self {
        Self::new(Mechanisms::ALL)
    }
}

fn bits(mechanisms: Mechanisms) -> u8 {
    let Mechanisms { plain, plain_in_clear, scram_sha_1, scram_sha_256, external } = mechanisms;
    let in_clear = match plain_in_clear {
        PasswordsInClear::Anywhere => 0,
        PasswordsInClear::Loopback => LOOPBACK,
        PasswordsInClear::Nowhere => NOWHERE,
    };
    u8::from(plain)
        | in_clear
        | u8::from(scram_sha_1) << 2
        | u8::from(scram_sha_256) << 3
        | u8::from(external) << 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_offered_by_all_who_share_it() {
        let none = Mechanisms {
            plain: false,
            plain_in_clear: PasswordsInClear::Nowhere,
            scram_sha_1: false,
            scram_sha_256: false,
            external: false,
        };
        let (offer, all) = (Offer::default(), Mechanisms::ALL);
        let shared = offer.clone();
        for one in [
            none,
            all,
            Mechanisms { plain: true, ..none },
            Mechanisms { plain_in_clear: PasswordsInClear::Loopback, ..none },
            Mechanisms { plain_in_clear: PasswordsInClear::Anywhere, ..none },
            Mechanisms { scram_sha_1: true, ..none },
            Mechanisms { scram_sha_256: true, ..none },
            Mechanisms { external: true, ..none },
        ] {
            offer.set(one);
            assert_eq!(shared.now(), one);
        }
    }
}

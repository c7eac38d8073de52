//! Password hashes: Argon2id for our own, and those imported from RabbitMQ definitions.

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::PasswordHash,
};
use aws_lc_rs::{constant_time, digest};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{md5, random};

/// Marks hashes taken over from RabbitMQ: base64 of a salt of four bytes and a digest over salt and
/// password. They are replaced at the next login.
const RABBIT_SHA256: &str = "$rabbit-sha256$";
const RABBIT_SHA512: &str = "$rabbit-sha512$";
const RABBIT_MD5: &str = "$rabbit-md5$";
const RABBIT_SALT_BYTES: usize = 4;

/// What a guess costs: as much as Argon2's usual 19 MiB and two rounds, in less memory, so that
/// a broker where many log in stays small.
const MEMORY_KIB: u32 = 7 * 1024;
const ROUNDS: u32 = 5;

/// Hashes a password for the store. Takes some 30 ms and 7 MiB for that time.
///
/// Errors: when the password is longer than Argon2 takes (4 GiB).
pub(crate) fn hash(password: &[u8]) -> anyhow::Result<String> {
    hash_with(password, MEMORY_KIB, ROUNDS)
}

/// Hashes a password that everybody knows, for which work would be wasted.
///
/// Errors: as [`hash`].
pub(crate) fn hash_public(password: &[u8]) -> anyhow::Result<String> {
    hash_with(password, Params::MIN_M_COST, Params::MIN_T_COST)
}

fn hash_with(password: &[u8], memory_kib: u32, rounds: u32) -> anyhow::Result<String> {
    let salt = random::<16>()?;
    let hash = || {
        let params = Params::new(memory_kib, rounds, 1, None)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_with_salt(password, &salt).map(|hash| hash.to_string())
    };
    hash().map_err(|error| anyhow::anyhow!("the password cannot be hashed: {error}"))
}

/// Whether `password` is the one that was hashed; takes the time of [`hash`].
pub(crate) fn verify(password: &[u8], stored: &str) -> bool {
    let digest_of = |algorithm, salted: &[u8]| digest::digest(algorithm, salted).as_ref().to_vec();
    if let Some(encoded) = stored.strip_prefix(RABBIT_SHA256) {
        return verify_rabbit(password, encoded, |salted| digest_of(&digest::SHA256, salted));
    }
    if let Some(encoded) = stored.strip_prefix(RABBIT_SHA512) {
        return verify_rabbit(password, encoded, |salted| digest_of(&digest::SHA512, salted));
    }
    if let Some(encoded) = stored.strip_prefix(RABBIT_MD5) {
        return verify_rabbit(password, encoded, |salted| md5::md5(salted).to_vec());
    }
    PasswordHash::new(stored)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// True for a hash that is to be replaced by one of ours once the password is known.
pub(crate) fn is_imported(stored: &str) -> bool {
    [RABBIT_SHA256, RABBIT_SHA512, RABBIT_MD5].iter().any(|prefix| stored.starts_with(prefix))
}

fn verify_rabbit(password: &[u8], encoded: &str, digest: impl Fn(&[u8]) -> Vec<u8>) -> bool {
    let Ok(stored) = BASE64_STANDARD.decode(encoded) else { return false };
    let Some((salt, expected)) = stored.split_at_checked(RABBIT_SALT_BYTES) else { return false };
    let found = digest(&[salt, password].concat());
    constant_time::verify_slices_are_equal(&found, expected).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hashed_password_fits() {
        let stored = hash(b"open sesame").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{stored}");
        assert!(verify(b"open sesame", &stored));
        assert!(!verify(b"open sesam", &stored));
    }

    #[test]
    fn public_password_costs_little_and_is_verified_alike() {
        let stored = hash_public(b"guest").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
        assert!(verify(b"guest", &stored) && !verify(b"host", &stored));
    }

    #[test]
    fn same_password_hashes_differently_each_time() {
        assert_ne!(hash(b"x").unwrap(), hash(b"x").unwrap());
    }

    #[test]
    fn damaged_and_empty_hashes_fit_nothing() {
        for stored in ["", "$argon2id$", "plain", "$rabbit-sha256$", "$rabbit-sha256$AAA"] {
            assert!(!verify(b"", stored), "{stored}");
        }
    }

    #[test]
    fn hash_of_rabbitmq_fits_its_password() {
        let mut stored = vec![0x90, 0x8d, 0xc6, 0x0a];
        let digest = digest::digest(&digest::SHA256, b"\x90\x8d\xc6\x0atest12");
        stored.extend_from_slice(digest.as_ref());
        // The example of RabbitMQ's documentation on computing password hashes.
        assert_eq!(
            BASE64_STANDARD.encode(&stored),
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
        );
        let stored = format!("$rabbit-sha256${}", BASE64_STANDARD.encode(&stored));
        assert!(verify(b"test12", &stored));
        assert!(!verify(b"test13", &stored));
    }

    #[test]
    fn every_hash_of_rabbitmq_fits_its_password_and_is_to_be_replaced() {
        let salted = b"saltpencil";
        let digests = [
            ("$rabbit-sha256$", digest::digest(&digest::SHA256, salted).as_ref().to_vec()),
            ("$rabbit-sha512$", digest::digest(&digest::SHA512, salted).as_ref().to_vec()),
            ("$rabbit-md5$", md5::md5(salted).to_vec()),
        ];
        for (prefix, digest) in digests {
            let encoded = BASE64_STANDARD.encode([b"salt".as_slice(), &digest].concat());
            let stored = format!("{prefix}{encoded}");
            assert!(verify(b"pencil", &stored) && !verify(b"pen", &stored), "{prefix}");
            assert!(is_imported(&stored));
        }
        assert!(!is_imported(&hash_public(b"x").unwrap()));
    }
}

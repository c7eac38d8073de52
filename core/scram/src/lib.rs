//! SCRAM-SHA-256 and SCRAM-SHA-1 on the server's side (RFC 5802 and RFC 7677), with and without
//! channel binding (RFC 5056).
//!
//! ```text
//! client-first  --> [server-first] --> client-final --> [server-final, or failure]
//! ```
//!
//! It looks up no user, opens no socket and makes no randomness: what is stored of a user and what
//! must not be guessed are handed in.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::{fmt, num::NonZeroU32, str::FromStr};

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::{Engine, prelude::BASE64_STANDARD};
use polymq_contract::{ChannelBindings, Scram, ScramHash};

/// RFC 7677, section 4: at least 4096.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
/// Bytes of the longest key.
pub const KEY_BYTES: usize = 32;
/// Bytes of randomness in the salt of a password.
pub const SALT_BYTES: usize = 16;
/// Bytes of randomness in our half of the nonce.
pub const NONCE_BYTES: usize = 18;

/// What is stored instead of the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    hash: ScramHash,
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// The client's messages broke the rules, or the proof is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the login breaks the rules of SCRAM, or its proof is wrong")
    }
}

impl std::error::Error for Failed {}

impl Verifier {
    /// Derives the verifier of a password with a salt that is used once. Takes some milliseconds.
    pub fn of_password(hash: ScramHash, password: &[u8], salt: [u8; SALT_BYTES]) -> Self {
        Self::derive(hash, password, salt.to_vec(), ITERATIONS)
    }

    fn derive(hash: ScramHash, password: &[u8], salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let mut salted = vec![0; key_bytes(hash)];
        let algorithm = match hash {
            ScramHash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        pbkdf2::derive(algorithm, iterations, &salt, password, &mut salted);
        let stored_key = digest_of(hash, &mac(hash, &salted, b"Client Key"));
        let server_key = mac(hash, &salted, b"Server Key");
        Self { hash, iterations, salt, stored_key, server_key }
    }

    /// The verifier of a mechanism among those of a user, which are separated by spaces.
    pub fn find(stored: &str, hash: ScramHash) -> Option<Self> {
        let verifiers = stored.split(' ').filter_map(|text| text.parse::<Self>().ok());
        verifiers.into_iter().find(|verifier| verifier.hash == hash)
    }

    /// A verifier that fits no password and looks the same at each try of `user`, so that nobody
    /// learns from the salt who exists.
    pub fn of_nobody(hash: ScramHash, user: &str, process_key: &[u8; KEY_BYTES]) -> Self {
        let made = mac(hash, process_key, user.as_bytes());
        Self {
            hash,
            iterations: ITERATIONS,
            salt: made[..SALT_BYTES].to_vec(),
            stored_key: mac(hash, process_key, &made),
            server_key: mac(hash, process_key, b"server"),
        }
    }
}

/// The text form: `<mechanism>$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        write!(
            f,
            "{}${}:{}${}:{}",
            mechanism(self.hash),
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }
}

impl FromStr for Verifier {
    type Err = Failed;

    fn from_str(text: &str) -> Result<Self, Failed> {
        let (name, rest) = text.split_once('$').ok_or(Failed)?;
        let hashes = [ScramHash::Sha256, ScramHash::Sha1];
        let hash = hashes.into_iter().find(|hash| mechanism(*hash) == name).ok_or(Failed)?;
        let mut parts = rest.split(['$', ':']);
        let mut next = || parts.next().ok_or(Failed);
        let iterations = next()?.parse().map_err(|_| Failed)?;
        let mut decoded = || BASE64_STANDARD.decode(next()?).map_err(|_| Failed);
        let salt = decoded()?;
        let (stored_key, server_key) = (decoded()?, decoded()?);
        let fits = |key: &Vec<u8>| key.len() == key_bytes(hash);
        if !fits(&stored_key) || !fits(&server_key) {
            return Err(Failed);
        }
        Ok(Self { hash, iterations, salt, stored_key, server_key })
    }
}

/// The client's first message, taken apart.
#[derive(Debug)]
pub struct ClientFirst {
    /// Who wants to log in.
    pub user: String,
    /// What the final message must bind: the GS2 header, then what ties the login to its channel.
    binding: Vec<u8>,
    nonce: String,
    bare: String,
}

impl ClientFirst {
    /// Errors: a message that RFC 5802, section 7, does not allow, a channel binding that the
    /// mechanism has not or that there is none of, or the wish to be somebody else.
    pub fn parse(message: &[u8], scram: Scram, bindings: &ChannelBindings) -> Result<Self, Failed> {
        let text = std::str::from_utf8(message).map_err(|_| Failed)?;
        let mut parts = text.splitn(3, ',');
        let (flag, authzid) = (parts.next().ok_or(Failed)?, parts.next().ok_or(Failed)?);
        let bare = parts.next().ok_or(Failed)?;
        let bound = match flag {
            "n" if !scram.is_bound => &[][..],
            // The client could bind channels and believes that we cannot, which must be true.
            "y" if !scram.is_bound && !scram.offers_bound => &[][..],
            "p=tls-exporter" if scram.is_bound => bindings.exporter.as_ref().ok_or(Failed)?,
            "p=tls-server-end-point" if scram.is_bound && !bindings.server_end_point.is_empty() => {
                &bindings.server_end_point
            }
            _ => return Err(Failed),
        };
        let mut attributes = bare.split(',');
        // An attribute before the name would be `m=`, an extension that we must refuse.
        let user = attributes.next().and_then(|part| part.strip_prefix("n=")).ok_or(Failed)?;
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(Failed)?;
        let is_printable = |byte: u8| (0x21..=0x7e).contains(&byte);
        if nonce.is_empty() || !nonce.bytes().all(is_printable) {
            return Err(Failed);
        }
        let user = unescaped(user)?;
        let is_self = authzid.is_empty()
            || authzid.strip_prefix("a=").map(unescaped).transpose()? == Some(user.clone());
        if user.is_empty() || !is_self {
            return Err(Failed);
        }
        Ok(Self {
            user,
            binding: [format!("{flag},{authzid},").as_bytes(), bound].concat(),
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
        })
    }
}

/// RFC 5802, section 5.1: `=2C` is a comma and `=3D` an equals sign; no other `=` is allowed.
fn unescaped(name: &str) -> Result<String, Failed> {
    let mut parts = name.split('=');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = part.split_at_checked(2).ok_or(Failed)?;
        result.push(match escaped {
            "2C" => ',',
            "3D" => '=',
            _ => return Err(Failed),
        });
        result.push_str(rest);
    }
    Ok(result)
}

/// A login between the server's first message and the client's final one.
pub struct Exchange {
    /// Who wants to log in.
    pub user: String,
    /// Our answer to the first message.
    pub server_first: String,
    verifier: Verifier,
    binding: Vec<u8>,
    nonce: String,
    client_first_bare: String,
}

impl Exchange {
    /// Answers the client's first message, with random bytes that are used once.
    pub fn start(first: ClientFirst, verifier: Verifier, random: [u8; NONCE_BYTES]) -> Self {
        Self::start_with(first, verifier, &BASE64_STANDARD.encode(random))
    }

    fn start_with(first: ClientFirst, verifier: Verifier, server_nonce: &str) -> Self {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = BASE64_STANDARD.encode(&verifier.salt);
        Self {
            user: first.user,
            server_first: format!("r={nonce},s={salt},i={}", verifier.iterations),
            verifier,
            binding: first.binding,
            nonce,
            client_first_bare: first.bare,
        }
    }

    /// Checks the client's final message and returns ours.
    ///
    /// Errors: when the message breaks the rules, or the proof is not that of the password.
    pub fn finish(&self, message: &[u8]) -> Result<String, Failed> {
        let text = std::str::from_utf8(message).map_err(|_| Failed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Failed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|part| part.strip_prefix("c=")).ok_or(Failed)?;
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(Failed)?;
        if binding != BASE64_STANDARD.encode(&self.binding) || nonce != self.nonce {
            return Err(Failed);
        }
        let hash = self.verifier.hash;
        let proof = BASE64_STANDARD.decode(proof).map_err(|_| Failed)?;
        if proof.len() != key_bytes(hash) {
            return Err(Failed);
        }

        let signed = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = mac(hash, &self.verifier.stored_key, signed.as_bytes());
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let stored_key = digest_of(hash, &client_key);
        constant_time::verify_slices_are_equal(&stored_key, &self.verifier.stored_key)
            .map_err(|_| Failed)?;
        let server_signature = mac(hash, &self.verifier.server_key, signed.as_bytes());
        Ok(format!("v={}", BASE64_STANDARD.encode(server_signature)))
    }
}

/// The name of the mechanism, as it stands before a verifier.
fn mechanism(hash: ScramHash) -> &'static str {
    match hash {
        ScramHash::Sha1 => "SCRAM-SHA-1",
        ScramHash::Sha256 => "SCRAM-SHA-256",
    }
}

fn key_bytes(hash: ScramHash) -> usize {
    match hash {
        ScramHash::Sha1 => 20,
        ScramHash::Sha256 => KEY_BYTES,
    }
}

fn mac(hash: ScramHash, key: &[u8], message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        ScramHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        ScramHash::Sha256 => hmac::HMAC_SHA256,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
}

fn digest_of(hash: ScramHash, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        ScramHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        ScramHash::Sha256 => &digest::SHA256,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn parse(message: &[u8]) -> Result<ClientFirst, Failed> {
        ClientFirst::parse(message, Scram::SHA256, &ChannelBindings::default())
    }

    fn nobody(user: &str, key: &[u8; KEY_BYTES]) -> Verifier {
        Verifier::of_nobody(ScramHash::Sha256, user, key)
    }

    #[test] // RFC 5802, section 5.
    fn example_of_scram_sha_1_succeeds() {
        let salt = BASE64_STANDARD.decode("QSXCR+Q6sek8bf92").unwrap();
        let verifier = Verifier::derive(ScramHash::Sha1, b"pencil", salt, ITERATIONS);
        let first = parse(b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL").unwrap();
        let exchange = Exchange::start_with(first, verifier, "3rfcNHYJY1ZVvWVs7j");
        let last = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
             p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        let answer = exchange.finish(last.as_bytes());
        assert_eq!(answer.as_deref(), Ok("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="));
    }

    #[test] // RFC 5802, section 6.
    fn bound_login_needs_the_channel_it_names() {
        let bindings = ChannelBindings { exporter: Some([7; 32]), server_end_point: vec![1, 2] };
        let bound = Scram { is_bound: true, offers_bound: true, ..Scram::SHA256 };
        let parse = |flag: &str, scram| {
            ClientFirst::parse(format!("{flag},,n=user,r=x").as_bytes(), scram, &bindings)
        };
        let first = parse("p=tls-exporter", bound).unwrap();
        assert_eq!(first.binding, [&b"p=tls-exporter,,"[..], &[7; 32]].concat());
        assert_eq!(
            parse("p=tls-server-end-point", bound).unwrap().binding,
            [&b"p=tls-server-end-point,,"[..], &[1, 2]].concat()
        );
        assert!(parse("n", bound).is_err(), "the mechanism promises a binding");
        assert!(parse("p=tls-unique", bound).is_err(), "an unknown one");
        assert!(parse("p=tls-exporter", Scram::SHA256).is_err(), "the mechanism has none");
        let offered = Scram { offers_bound: true, ..Scram::SHA256 };
        assert!(parse("y", offered).is_err(), "somebody has hidden the bound mechanisms");
        assert!(parse("n", offered).is_ok());
    }

    fn exchange() -> Exchange {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive(ScramHash::Sha256, b"pencil", salt, ITERATIONS);
        Exchange::start_with(parse(CLIENT_FIRST).unwrap(), verifier, SERVER_NONCE)
    }

    #[test] // RFC 7677, section 3.
    fn example_of_the_specification_succeeds() {
        let exchange = exchange();
        assert_eq!(exchange.user, "user");
        assert_eq!(
            exchange.server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(
            exchange.finish(CLIENT_FINAL.as_bytes()).as_deref(),
            Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        );
    }

    #[test]
    fn changed_final_message_fails() {
        let exchange = exchange();
        for (from, to) in
            [("p=dHzb", "p=dHzc"), ("c=biws", "c=eSws"), ("k0,", "k1,"), (",p=", ",q=")]
        {
            let message = CLIENT_FINAL.replacen(from, to, 1);
            assert_eq!(exchange.finish(message.as_bytes()), Err(Failed), "{message}");
        }
        assert_eq!(exchange.finish(b"c=biws,r=x,p=\xff"), Err(Failed));
    }

    #[test]
    fn first_message_must_keep_to_the_grammar() {
        for message in [
            "",
            "n,,",
            "n,,r=x,n=user",
            "n,,n=,r=x",
            "n,,n=user,r=",
            "n,,n=us=er,r=x",
            "n,,n=user,r=a b",
            "n,,m=ext,n=user,r=x",
            "p=tls-unique,,n=user,r=x",
            "n,a=other,n=user,r=x",
        ] {
            assert!(parse(message.as_bytes()).is_err(), "{message}");
        }
        let first = parse(b"y,a=a=2Cb=3D,n=a=2Cb=3D,r=x,ext=1").unwrap();
        assert_eq!(first.user, "a,b=");
    }

    #[test]
    fn verifier_survives_its_text_form() {
        let verifier = Verifier::of_password(ScramHash::Sha256, b"pencil", [3; SALT_BYTES]);
        assert!(verifier.to_string().parse() == Ok(verifier));
        assert!("SCRAM-SHA-256$0:AA==$AA==:AA==".parse::<Verifier>().is_err());
        assert!("SCRAM-SHA-1$4096:".parse::<Verifier>().is_err());
    }

    #[test]
    fn unknown_user_gets_the_same_salt_again_and_never_in() {
        let key = [7; KEY_BYTES];
        let (first, again) = (nobody("eve", &key), nobody("eve", &key));
        assert!(first == again);
        assert_ne!(first.salt, nobody("bob", &key).salt);
        let first = parse(CLIENT_FIRST).unwrap();
        let exchange = Exchange::start_with(first, again, SERVER_NONCE);
        assert_eq!(exchange.finish(CLIENT_FINAL.as_bytes()), Err(Failed));
    }
}

//! SCRAM-SHA-256 on the server's side (RFC 5802 and RFC 7677), without channel binding.
//!
//! ```text
//! client-first  --> [server-first] --> client-final --> [server-final, or failure]
//! ```

use std::{fmt, num::NonZeroU32};

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::random;

/// RFC 7677, section 4: at least 4096.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// Bytes of randomness in our half of the nonce.
const NONCE_BYTES: usize = 18;

/// What is stored instead of the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

/// The client's messages broke the rules, or the proof is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

impl Verifier {
    /// Derives the verifier of a password with a fresh salt. Takes some milliseconds.
    ///
    /// Errors: when the system gives no randomness.
    pub(crate) fn of_password(password: &[u8]) -> anyhow::Result<Self> {
        Ok(Self::derive(password, random::<SALT_BYTES>()?.to_vec(), ITERATIONS))
    }

    fn derive(password: &[u8], salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut salted);
        let stored_key = sha256(&mac(&salted, b"Client Key"));
        let server_key = mac(&salted, b"Server Key");
        Self { iterations, salt, stored_key, server_key }
    }

    /// A verifier that fits no password and looks the same at each try of `user`, so that nobody
    /// learns from the salt who exists.
    pub(crate) fn of_nobody(user: &str, process_key: &[u8; KEY_BYTES]) -> Self {
        let made = mac(process_key, user.as_bytes());
        Self {
            iterations: ITERATIONS,
            salt: made[..SALT_BYTES].to_vec(),
            stored_key: mac(process_key, &made),
            server_key: mac(process_key, b"server"),
        }
    }
}

/// The text form: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        write!(
            f,
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }
}

impl std::str::FromStr for Verifier {
    type Err = Failed;

    fn from_str(text: &str) -> Result<Self, Failed> {
        let mut parts = text.strip_prefix("SCRAM-SHA-256$").ok_or(Failed)?.split(['$', ':']);
        let mut next = || parts.next().ok_or(Failed);
        let iterations = next()?.parse().map_err(|_| Failed)?;
        let mut decoded = || BASE64_STANDARD.decode(next()?).map_err(|_| Failed);
        let salt = decoded()?;
        let stored_key = decoded()?.try_into().map_err(|_| Failed)?;
        let server_key = decoded()?.try_into().map_err(|_| Failed)?;
        Ok(Self { iterations, salt, stored_key, server_key })
    }
}

/// The client's first message, taken apart.
#[derive(Debug)]
pub(crate) struct ClientFirst {
    /// Who wants to log in.
    pub(crate) user: String,
    /// The GS2 header, repeated in the final message.
    gs2_header: String,
    nonce: String,
    bare: String,
}

impl ClientFirst {
    /// Errors: a message that RFC 5802, section 7, does not allow, a demand for channel binding,
    /// or the wish to be somebody else.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Failed> {
        let text = std::str::from_utf8(message).map_err(|_| Failed)?;
        let mut parts = text.splitn(3, ',');
        let (flag, authzid) = (parts.next().ok_or(Failed)?, parts.next().ok_or(Failed)?);
        let bare = parts.next().ok_or(Failed)?;
        // `y`: the client could bind channels and believes that we cannot, which is true.
        if !matches!(flag, "n" | "y") {
            return Err(Failed);
        }
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
            gs2_header: format!("{flag},{authzid},"),
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
pub(crate) struct Exchange {
    /// Who wants to log in.
    pub(crate) user: String,
    /// Our answer to the first message.
    pub(crate) server_first: String,
    verifier: Verifier,
    gs2_header: String,
    nonce: String,
    client_first_bare: String,
}

impl Exchange {
    /// Answers the client's first message.
    ///
    /// Errors: when the system gives no randomness.
    pub(crate) fn start(first: ClientFirst, verifier: Verifier) -> anyhow::Result<Self> {
        let nonce = BASE64_STANDARD.encode(random::<NONCE_BYTES>()?);
        Ok(Self::start_with(first, verifier, &nonce))
    }

    fn start_with(first: ClientFirst, verifier: Verifier, server_nonce: &str) -> Self {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = BASE64_STANDARD.encode(&verifier.salt);
        Self {
            user: first.user,
            server_first: format!("r={nonce},s={salt},i={}", verifier.iterations),
            verifier,
            gs2_header: first.gs2_header,
            nonce,
            client_first_bare: first.bare,
        }
    }

    /// Checks the client's final message and returns ours.
    ///
    /// Errors: when the message breaks the rules, or the proof is not that of the password.
    pub(crate) fn finish(&self, message: &[u8]) -> Result<String, Failed> {
        let text = std::str::from_utf8(message).map_err(|_| Failed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Failed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|part| part.strip_prefix("c=")).ok_or(Failed)?;
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(Failed)?;
        if binding != BASE64_STANDARD.encode(&self.gs2_header) || nonce != self.nonce {
            return Err(Failed);
        }
        let proof: [u8; KEY_BYTES] =
            BASE64_STANDARD.decode(proof).ok().and_then(|p| p.try_into().ok()).ok_or(Failed)?;

        let signed = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = mac(&self.verifier.stored_key, signed.as_bytes());
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        constant_time::verify_slices_are_equal(&sha256(&client_key), &self.verifier.stored_key)
            .map_err(|_| Failed)?;
        let server_signature = mac(&self.verifier.server_key, signed.as_bytes());
        Ok(format!("v={}", BASE64_STANDARD.encode(server_signature)))
    }
}

fn mac(key: &[u8; KEY_BYTES], message: &[u8]) -> [u8; KEY_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; KEY_BYTES];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

fn sha256(message: &[u8]) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn exchange() -> Exchange {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive(b"pencil", salt, ITERATIONS);
        Exchange::start_with(ClientFirst::parse(CLIENT_FIRST).unwrap(), verifier, SERVER_NONCE)
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
            assert!(ClientFirst::parse(message.as_bytes()).is_err(), "{message}");
        }
        let first = ClientFirst::parse(b"y,a=a=2Cb=3D,n=a=2Cb=3D,r=x,ext=1").unwrap();
        assert_eq!(first.user, "a,b=");
    }

    #[test]
    fn verifier_survives_its_text_form() {
        let verifier = Verifier::of_password(b"pencil").unwrap();
        assert!(verifier.to_string().parse() == Ok(verifier));
        assert!("SCRAM-SHA-256$0:AA==$AA==:AA==".parse::<Verifier>().is_err());
        assert!("SCRAM-SHA-1$4096:".parse::<Verifier>().is_err());
    }

    #[test]
    fn unknown_user_gets_the_same_salt_again_and_never_in() {
        let key = [7; KEY_BYTES];
        let (first, again) = (Verifier::of_nobody("eve", &key), Verifier::of_nobody("eve", &key));
        assert!(first == again);
        assert_ne!(first.salt, Verifier::of_nobody("bob", &key).salt);
        let first = ClientFirst::parse(CLIENT_FIRST).unwrap();
        let exchange = Exchange::start_with(first, again, SERVER_NONCE);
        assert_eq!(exchange.finish(CLIENT_FINAL.as_bytes()), Err(Failed));
    }
}

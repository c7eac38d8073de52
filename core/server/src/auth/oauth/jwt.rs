//! JSON Web Tokens (RFC 7519) in compact form (RFC 7515, section 7.1).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::jwks::{Algorithm, Keys};

/// Longest token in bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// A token whose signature has not been looked at.
pub(super) struct Token<'t> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// What is signed.
    signed: &'t [u8],
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'t> Token<'t> {
    /// `None` for what is no token, or is signed in a way that we do not take.
    pub(super) fn parse(text: &'t [u8]) -> Option<Self> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = text.split(|byte| *byte == b'.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let read = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let fields: Map<String, Value> = serde_json::from_slice(&read(header)?).ok()?;
        // Whoever does not understand an extension that is critical must refuse (section 4.1.11).
        if fields.contains_key("crit") {
            return None;
        }
        let algorithm = Algorithm::named(fields.get("alg")?.as_str()?)?;
        let key_id = fields.get("kid").and_then(Value::as_str).map(str::to_owned);
        let signed = text.get(..header.len() + 1 + claims.len())?;
        Some(Self { algorithm, key_id, signed, claims: read(claims)?, signature: read(signature)? })
    }

    /// Whether the signature is right; `None` when no key is there for it.
    pub(super) fn verify(&self, keys: &Keys) -> Option<bool> {
        let mut is_right = None;
        for key in keys.for_token(self.algorithm, self.key_id.as_deref()) {
            is_right = Some(is_right == Some(true) || key.verify(self.signed, &self.signature));
        }
        is_right
    }

    /// What the token says; only once its signature is known to be right.
    pub(super) fn claims(&self) -> Option<Claims> {
        serde_json::from_slice(&self.claims).ok().map(Claims)
    }
}

/// What a token says.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Seconds since 1970, whether they are a whole number, a fraction, or a text that holds one.
    pub(super) fn time(&self, name: &str) -> Option<f64> {
        let secs = match self.0.get(name)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        secs.filter(|secs: &f64| secs.is_finite())
    }

    /// One text, or a list of them.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The words of a text, or of a list of texts.
    pub(super) fn words(&self, name: &str) -> Vec<&str> {
        self.list(name).into_iter().flat_map(str::split_whitespace).collect()
    }
}

//! Who asks: what a request shows of itself, as a login of the broker.

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use polymq_contract::{Login, Peer, Secret};

use crate::problem::Problem;

/// The user that the client certificate of a connection names.
pub(crate) fn certificate_user(peer: &Peer) -> Option<&str> {
    peer.tls.as_ref()?.certificate_user.as_deref()
}

/// The login that a request's `Authorization` shows.
///
/// Every way in goes through here. `Bearer` carries a token, which the broker takes in place of a
/// password from every protocol, without a user name.
///
/// Errors: nothing is shown, or nothing that can be read.
pub(crate) fn login(authorization: Option<&HeaderValue>) -> Result<Login, Problem> {
    let shown = authorization.ok_or_else(Problem::login_required)?;
    let shown = shown.to_str().map_err(|_| malformed())?;
    let (scheme, rest) = shown.split_once(' ').ok_or_else(malformed)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        return basic(rest).ok_or_else(malformed);
    }
    if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
        let password = Secret::new(rest.as_bytes());
        return Ok(Login::Password { user: String::new(), password });
    }
    Err(malformed())
}

/// The token that a login shows in place of a password.
pub(crate) fn token_of(login: &Login) -> Option<&Secret> {
    match login {
        Login::Password { user, password } if user.is_empty() => Some(password),
        _ => None,
    }
}

/// RFC 7617: the user's name ends at the first colon.
fn basic(encoded: &str) -> Option<Login> {
    let mut decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = Secret::new(decoded.split_off(colon + 1));
    decoded.truncate(colon);
    Some(Login::Password { user: String::from_utf8(decoded).ok()?, password })
}

fn malformed() -> Problem {
    Problem::login_failed("`Authorization` is neither `Basic` with user and password nor `Bearer`")
}

/// Compares without telling by its time where two texts differ.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Login, &'static str> {
        let value = HeaderValue::from_str(text).unwrap();
        login(Some(&value)).map_err(|problem| problem.code())
    }

    #[test]
    fn basic_is_user_and_password() {
        let encoded = STANDARD.encode("u:p:w");
        let password = Secret::new("p:w");
        let expected = Login::Password { user: "u".to_owned(), password };
        assert_eq!(shown(&format!("Basic {encoded}")), Ok(expected.clone()));
        assert_eq!(shown(&format!("bAsIc  {encoded} ")), Ok(expected));
    }

    #[test]
    fn bearer_is_a_token_without_a_user() {
        let expected = Login::Password { user: String::new(), password: Secret::new("abc") };
        assert_eq!(shown("Bearer abc"), Ok(expected));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["Basic", "Basic !!", "Basic dXNlcg==", "Bearer ", "Digest x", ""] {
            assert_eq!(shown(bad), Err("login_failed"), "{bad}");
        }
        assert_eq!(login(None).map_err(|problem| problem.code()), Err("login_required"));
    }

    #[test]
    fn comparison_sees_every_difference() {
        assert!(is_same(b"abc", b"abc"));
        assert!(!is_same(b"abc", b"abd"));
        assert!(!is_same(b"abc", b"ab"));
    }
}

//! Logins of web pages: a cookie that says nothing, for somebody who has shown a password once.
//!
//! The password is not kept. A session ends when it is not used, after a day, with its user, and
//! when the password changes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header::COOKIE};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use polymq_broker::{BrokerHandle, Principal};
use polymq_model::sha256;

use crate::{clock, identity::is_same, problem::Problem, settings::Settings};

/// The name of the cookie.
const COOKIE_NAME: &str = "polymq_session";
/// The header that a page shows with everything that changes something.
pub(crate) const CSRF_HEADER: &str = "X-CSRF-Token";
/// How long a session lasts, however much it is used.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Sessions at a time.
const SESSIONS_MAX: usize = 10_000;
/// Sessions of one user; the one that was used last the longest ago makes room.
const OF_USER_MAX: usize = 50;

/// All sessions, by the hash of their ids, so that memory does not hold what opens them.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

struct Session {
    who: Principal,
    /// What proved the password at the login; `None` when the broker knows no password of the user.
    proof: Option<String>,
    began: Instant,
    used: Instant,
}

/// A session that has just begun.
pub(crate) struct Begun {
    /// What the cookie holds.
    pub(crate) id: String,
    /// What its page shows with each change.
    pub(crate) csrf_token: String,
}

impl Sessions {
    /// Begins a session of somebody who has logged in.
    ///
    /// Errors: there are too many.
    pub(crate) fn begin(
        &self,
        who: &Principal,
        broker: &BrokerHandle,
        settings: &Settings,
    ) -> Result<Begun, Problem> {
        let mut random = [0; 32];
        (settings.entropy)(&mut random);
        let id = BASE64_URL_SAFE_NO_PAD.encode(random);
        let now = clock::now().instant;
        let mut all = self.0.lock();
        all.retain(|_, session| session.is_alive(now, settings.login_idle));
        let of_user = || all.iter().filter(|(_, session)| session.who.user == who.user);
        if of_user().count() >= OF_USER_MAX {
            let oldest = of_user().min_by_key(|(_, session)| session.used).map(|(key, _)| *key);
            oldest.and_then(|key| all.remove(&key));
        }
        if all.len() >= SESSIONS_MAX {
            let text = format!("there are {SESSIONS_MAX} sessions");
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Problem::new(status, "limit_reached", text).retry());
        }
        let (who, proof) = (who.clone(), proof_of(who, broker));
        all.insert(sha256(id.as_bytes()), Session { who, proof, began: now, used: now });
        let csrf_token = csrf_token(&id);
        Ok(Begun { id, csrf_token })
    }

    /// Who has the session of a cookie.
    ///
    /// Errors: it is over, or never was.
    pub(crate) fn find(
        &self,
        id: &str,
        broker: &BrokerHandle,
        idle: Duration,
    ) -> Result<Principal, Problem> {
        let key = sha256(id.as_bytes());
        let now = clock::now().instant;
        let mut all = self.0.lock();
        let found = all.get_mut(&key).filter(|session| {
            session.is_alive(now, idle) && session.proof == proof_of(&session.who, broker)
        });
        match found {
            Some(session) => {
                session.used = now;
                Ok(session.who.clone())
            }
            None => {
                all.remove(&key);
                let text = "the session is over; log in again";
                Err(Problem::new(StatusCode::UNAUTHORIZED, "session_expired", text))
            }
        }
    }

    /// Ends a session.
    pub(crate) fn end(&self, id: &str) {
        self.0.lock().remove(&sha256(id.as_bytes()));
    }
}

impl Session {
    fn is_alive(&self, now: Instant, idle: Duration) -> bool {
        now.saturating_duration_since(self.used) < idle
            && now.saturating_duration_since(self.began) < AGE_MAX
    }
}

/// What the broker compares a password of the user with; another one is another password.
fn proof_of(who: &Principal, broker: &BrokerHandle) -> Option<String> {
    broker.access().user(who.user.as_str()).map(|record| record.password_hash.clone())
}

/// What belongs to a session and cannot be read by other pages, made of its id.
fn csrf_token(id: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(sha256(format!("csrf of {id}").as_bytes()))
}

/// The id that a request's cookie holds.
pub(crate) fn id_of(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';'));
    let ours = pairs.filter_map(|pair| pair.trim().split_once('='));
    let id = ours.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, id)| id.to_owned()).next()?;
    (!id.is_empty() && id.len() <= 128).then_some(id)
}

/// The token of a session, for its page.
pub(crate) fn token_of(headers: &HeaderMap) -> Option<String> {
    id_of(headers).map(|id| csrf_token(&id))
}

/// A page that acts by its cookie shows the token with whatever changes something.
///
/// Errors: it does not.
pub(crate) fn check_csrf(id: &str, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let shown = headers.get(CSRF_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    if is_same(shown, csrf_token(id).as_bytes()) {
        return Ok(());
    }
    let text = format!("a session changes something only with the header {CSRF_HEADER}");
    Err(Problem::new(StatusCode::FORBIDDEN, "csrf_token_missing", text).at(CSRF_HEADER))
}

/// The header that gives a cookie to a browser, or takes it away.
pub(crate) fn cookie(id: Option<&str>, path: &str, is_tls: bool) -> Option<HeaderValue> {
    let secure = if is_tls { "; Secure" } else { "" };
    let (id, end) = match id {
        Some(id) => (id, ""),
        None => ("", "; Max-Age=0"),
    };
    let text = format!("{COOKIE_NAME}={id}; Path={path}; HttpOnly; SameSite=Strict{secure}{end}");
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=b; polymq_session=xyz ;c=d"));
        assert_eq!(id_of(&headers).as_deref(), Some("xyz"));
        headers.insert(COOKIE, HeaderValue::from_static("polymq_session="));
        assert_eq!(id_of(&headers), None);
    }

    #[test]
    fn the_cookie_is_kept_from_scripts_and_other_pages() {
        let cookie = cookie(Some("x"), "/api/v1", true).unwrap();
        let text = "polymq_session=x; Path=/api/v1; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(cookie, text);
    }

    #[test]
    fn only_what_changes_something_needs_the_token() {
        let mut headers = HeaderMap::new();
        assert!(check_csrf("x", &Method::GET, &headers).is_ok());
        assert!(check_csrf("x", &Method::PUT, &headers).is_err());
        let token = HeaderValue::from_str(&csrf_token("x")).unwrap();
        headers.insert(CSRF_HEADER, token);
        assert!(check_csrf("x", &Method::PUT, &headers).is_ok());
        assert!(check_csrf("y", &Method::PUT, &headers).is_err());
    }
}

//! Tokens of an identity provider: JSON Web Tokens, signed by a key that the provider publishes.
//!
//! Only RS256 and ES256 are taken. Who the user is and what it may do stands in the token, and
//! nothing of it in the store.

mod fetch;
mod jwks;
mod jwt;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use parking_lot::RwLock;
use polymq_broker::Grant;
use polymq_model::UserName;

use self::{fetch::KeySource, jwks::Keys, jwt::Claims};
use super::Logins;
use crate::config::AuthOauth;

/// Keys that are asked for because of an unknown one are not read more often.
const REREAD_AFTER: Duration = Duration::from_secs(30);
/// How far clocks may be apart, in seconds.
const LEEWAY_SECS: f64 = 30.0;

/// Checks tokens of one provider.
pub(crate) struct Provider {
    settings: AuthOauth,
    is_of_file: bool,
    keys: Arc<RwLock<Keys>>,
    /// Asks the thread that reads keys to do it now.
    reread: mpsc::SyncSender<()>,
}

/// Looks for what would keep the keys of a provider from being read; asks nobody.
///
/// Errors: a URL that is none; a file of keys or of authorities that cannot be read.
pub(crate) fn check_keys(settings: &AuthOauth) -> anyhow::Result<()> {
    if settings.jwks.0.is_empty() {
        return Ok(());
    }
    let source = KeySource::new(settings).context("auth.oauth2.jwks")?;
    if source.is_file() {
        source.read().context("auth.oauth2.jwks")?;
    }
    Ok(())
}

impl Provider {
    /// Reads the keys of the provider, and goes on doing so; `None` when none is configured. A URL
    /// that does not answer is no reason not to start.
    ///
    /// Errors: when the file of keys or of authorities cannot be read.
    pub(crate) fn start(settings: &AuthOauth) -> anyhow::Result<Option<Self>> {
        if settings.jwks.0.is_empty() {
            return Ok(None);
        }
        let source = KeySource::new(settings).context("auth.oauth2.jwks")?;
        let keys = Arc::new(RwLock::new(Keys::default()));
        match source.read() {
            Ok(read) => *keys.write() = read,
            Err(error) if source.is_file() => return Err(error).context("auth.oauth2.jwks"),
            Err(error) => {
                tracing::warn!(event = "oauth2_keys_missing", error = %format!("{error:#}"))
            }
        }
        let (reread, asked) = mpsc::sync_channel(1);
        let (shared, refresh) = (Arc::clone(&keys), settings.refresh.max(REREAD_AFTER));
        let (settings, is_of_file) = (settings.clone(), source.is_file());
        thread::Builder::new()
            .name("polymq-oauth2".into())
            .spawn(move || read_again(&source, &asked, &shared, refresh))?;
        Ok(Some(Self { settings, is_of_file, keys, reread }))
    }

    /// True when these are its settings.
    pub(crate) fn is_for(&self, settings: &AuthOauth) -> bool {
        self.settings == *settings
    }

    /// True for what may be such a token.
    pub(crate) fn is_token(text: &[u8]) -> bool {
        text.starts_with(b"eyJ") && text.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// Who shows this token, and what it allows.
    ///
    /// Errors: why it is not good, for the log.
    pub(crate) fn check(&self, text: &[u8]) -> Result<(UserName, Arc<Grant>), &'static str> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.check_at(text, unix.as_secs_f64())
    }

    fn check_at(&self, text: &[u8], now_secs: f64) -> Result<(UserName, Arc<Grant>), &'static str> {
        let token = jwt::Token::parse(text).ok_or("no token that we can read")?;
        let verified = token.verify(&self.keys.read());
        if verified == Some(false) || verified.is_none() {
            // The provider may have new keys.
            self.reread.try_send(()).ok();
            return Err(if verified.is_none() { "unknown key" } else { "wrong signature" });
        }
        let claims = token.claims().ok_or("claims that are none")?;
        self.check_claims(&claims, now_secs)?;
        let user = claims.text(&self.settings.user_claim).or_else(|| claims.text("client_id"));
        let user = user.and_then(|user| UserName::new(user).ok()).ok_or("no user")?;
        let expires_ms = claims.time("exp").map(|secs| (secs * 1000.0).max(0.0) as u64);
        let prefix = self.settings.scope_prefix.as_str();
        let scopes = claims.words(&self.settings.scope_claim);
        let ours = scopes.iter().filter_map(|scope| scope.strip_prefix(prefix));
        Ok((user, Arc::new(Grant::of_provider(ours, expires_ms))))
    }

    fn check_claims(&self, claims: &Claims, now_secs: f64) -> Result<(), &'static str> {
        // One that never ends cannot be taken back.
        let ends = claims.time("exp").ok_or("no time of expiry")?;
        if ends <= now_secs {
            return Err("expired");
        }
        if claims.has("nbf") && claims.time("nbf").is_none_or(|from| from > now_secs + LEEWAY_SECS)
        {
            return Err("not good yet");
        }
        let Self { settings, .. } = self;
        if !settings.issuer.is_empty() && claims.text("iss") != Some(&settings.issuer) {
            return Err("another issuer");
        }
        if !claims.list("aud").contains(&settings.audience.as_str()) {
            return Err("another audience");
        }
        Ok(())
    }
}

impl Logins {
    /// The identity provider as these settings say, with its keys as they are now. One with the
    /// same URL stays, and asks there.
    ///
    /// Errors: when its keys or authorities cannot be read.
    pub(crate) fn provider(&self, oauth: &AuthOauth) -> anyhow::Result<Option<Arc<Provider>>> {
        let held = self.inner.provider.load_full();
        match held.filter(|held| held.is_for(oauth) && !held.is_of_file) {
            Some(held) => {
                held.reread.try_send(()).ok();
                Ok(Some(held))
            }
            None => Ok(Provider::start(oauth)?.map(Arc::new)),
        }
    }

    /// Takes the tokens of another identity provider from now on, or of none.
    pub(crate) fn set_provider(&self, provider: Option<Arc<Provider>>) {
        self.inner.provider.store(provider);
    }
}

/// Reads keys after each `refresh`, and when asked.
fn read_again(
    source: &KeySource,
    asked: &mpsc::Receiver<()>,
    keys: &RwLock<Keys>,
    refresh: Duration,
) {
    loop {
        match asked.recv_timeout(refresh) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        match source.read() {
            Ok(read) => *keys.write() = read,
            Err(error) => {
                tracing::warn!(event = "oauth2_keys_not_read", error = %format!("{error:#}"));
            }
        }
        thread::sleep(source.pause(REREAD_AFTER));
    }
}

#[cfg(test)]
mod tests;

//! API tokens: random, shown once, stored as hashes; each narrows the rights of its user.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use polymq_contract::{Refusal, RefusalKind, Secret};
use polymq_model::{UserName, sha256};
use serde::{Deserialize, Serialize};

use crate::{
    BrokerHandle,
    access::{Grant, Principal},
    core::Core,
    definitions::{self, kind},
};

/// What every token begins with, so that people and scanners of secrets know one.
pub const TOKEN_PREFIX: &str = "pmq_";
/// Tokens of one user.
const OF_USER_MAX: usize = 100;
/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 255;

/// What a token is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// What it leaves of its user's rights, as in RabbitMQ's OAuth 2.0: `read:vhost/object`,
    /// `write:vhost/exchange/routing-key`, `configure:*/*`, `tag:monitoring`. Empty for all of
    /// them.
    pub scopes: Vec<String>,
    /// When it ends, in ms since 1970; `None` for never.
    pub expires_ms: Option<u64>,
}

/// A token, without what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    /// Names it in management.
    pub id: String,
    /// Whose rights it narrows.
    pub user: UserName,
    /// For people.
    pub name: String,
    /// See [`NewToken::scopes`].
    pub scopes: Vec<String>,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// When it ends, in ms since 1970.
    pub expires_ms: Option<u64>,
}

/// A token as it is stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    user: String,
    name: String,
    scopes: Vec<String>,
    created_ms: u64,
    expires_ms: Option<u64>,
    /// SHA-256 of the secret part, in hexadecimal. The secret is random, so nobody guesses it from
    /// its hash.
    hash: String,
}

struct Token {
    view: TokenView,
    hash: String,
    grant: Arc<Grant>,
}

impl Token {
    /// Errors: kind `Invalid` for a user name or a scope that is none.
    fn of(id: &str, stored: StoredToken) -> Result<Self, Refusal> {
        let user = UserName::new(&stored.user)
            .map_err(|bad| Refusal::new(RefusalKind::Invalid, bad.to_string()))?;
        let everything = ["configure:*/*", "write:*/*", "read:*/*", "tag:*"].map(str::to_owned);
        let scopes = match stored.scopes.as_slice() {
            [] => everything.as_slice(),
            some => some,
        };
        let grant = Arc::new(Grant::of_token(id, scopes, stored.expires_ms)?);
        let StoredToken { name, scopes, created_ms, expires_ms, hash, .. } = stored;
        let view = TokenView { id: id.to_owned(), user, name, scopes, created_ms, expires_ms };
        Ok(Self { view, hash, grant })
    }
}

/// A token that nobody knows yet.
pub(crate) struct Draft {
    pub(crate) view: TokenView,
    token: Token,
    stored: StoredToken,
    text: Secret,
}

/// Errors: kind `Limit` for one more of this user.
fn has_room(tokens: &HashMap<Box<str>, Arc<Token>>, user: &UserName) -> Result<(), Refusal> {
    if tokens.values().filter(|token| token.view.user == *user).count() < OF_USER_MAX {
        return Ok(());
    }
    let text = format!("a user has at most {OF_USER_MAX} tokens");
    Err(Refusal::new(RefusalKind::Limit, text))
}

/// All tokens, by their ids.
#[derive(Default)]
pub(crate) struct Tokens(RwLock<HashMap<Box<str>, Arc<Token>>>);

impl Tokens {
    /// Errors: kind `Invalid`.
    pub(crate) fn restore(&self, id: &str, stored: StoredToken) -> Result<(), Refusal> {
        self.0.write().insert(id.into(), Arc::new(Token::of(id, stored)?));
        Ok(())
    }

    /// The tokens of a user, the oldest first.
    pub(crate) fn of_user(&self, user: &UserName) -> Vec<TokenView> {
        let tokens = self.0.read();
        let own = tokens.values().filter(|token| token.view.user == *user);
        let mut views: Vec<_> = own.map(|token| token.view.clone()).collect();
        views.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        views
    }

    pub(crate) fn get(&self, id: &str) -> Option<TokenView> {
        self.0.read().get(id).map(|token| token.view.clone())
    }
}

impl Core {
    /// A token that nobody knows yet, with its text.
    ///
    /// Errors: kind `NotFound` for the user, kind `Invalid` for a name or a scope, kind `Limit`.
    pub(crate) fn draft_token(&self, user: &UserName, new: NewToken) -> Result<Draft, Refusal> {
        if self.access.user(user.as_str()).is_none() {
            let text = format!("user '{user}' not found");
            return Err(Refusal::missing("user", user.as_str(), text));
        }
        if new.name.len() > NAME_BYTES_MAX {
            let text = format!("the name of a token has at most {NAME_BYTES_MAX} bytes");
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let created_ms = self.clock_ms();
        if new.expires_ms.is_some_and(|at| at <= created_ms) {
            return Err(Refusal::new(RefusalKind::Invalid, "the token would have ended already"));
        }
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        (self.entropy)(&mut id);
        (self.entropy)(&mut secret);
        let (id, secret) = (hex(&id), hex(&secret));
        let NewToken { name, scopes, expires_ms } = new;
        let stored = StoredToken {
            user: user.as_str().to_owned(),
            name,
            scopes,
            created_ms,
            expires_ms,
            hash: hex(&sha256(secret.as_bytes())),
        };
        let token = Token::of(&id, stored.clone())?;
        has_room(&self.tokens.0.read(), user)?;
        let text = Secret::new(format!("{TOKEN_PREFIX}{id}_{secret}"));
        Ok(Draft { view: token.view.clone(), token, stored, text })
    }

    /// Makes a token; its text is never shown again.
    ///
    /// Errors: as of [`draft_token`](Self::draft_token).
    pub(crate) fn make_token(
        &self,
        user: &UserName,
        new: NewToken,
    ) -> Result<(TokenView, Secret), Refusal> {
        let Draft { view, token, stored, text } = self.draft_token(user, new)?;
        let mut tokens = self.tokens.0.write();
        has_room(&tokens, user)?;
        tokens.insert(view.id.as_str().into(), Arc::new(token));
        let key = definitions::key(&[kind::TOKEN, &view.id]);
        self.committer.append(|writer| writer.meta_put(&key, &definitions::encode(&stored)));
        drop(tokens);
        Ok((view, text))
    }

    /// Revokes a token, and ends the connections that have logged in with it. False when there is
    /// none.
    pub(crate) fn revoke_token(&self, id: &str) -> bool {
        let was_there = self.tokens.0.write().remove(id).is_some();
        if was_there {
            let key = definitions::key(&[kind::TOKEN, id]);
            self.committer.append(|writer| writer.meta_delete(&key));
            self.nudge_all();
        }
        was_there
    }

    /// Why a login is over; `None` while it is good.
    pub(crate) fn why_over(&self, who: &Principal) -> Option<&'static str> {
        if who.grant.as_ref().is_some_and(|grant| !self.is_current(grant)) {
            return Some("the token of the login has ended");
        }
        let is_past = who.certificate_until_ms.is_some_and(|until| until <= self.clock_ms());
        is_past.then_some("the client certificate has ended")
    }

    /// True when a token that somebody has logged in with is still good.
    pub(crate) fn is_current(&self, grant: &Grant) -> bool {
        let is_there = |id: &str| {
            let tokens = self.tokens.0.read();
            tokens.get(id).is_some_and(|token| std::ptr::eq(&*token.grant, grant))
        };
        !grant.is_over(self.clock_ms()) && grant.token.as_deref().is_none_or(is_there)
    }
}

impl BrokerHandle {
    /// Whose token this is, and what it says; `None` for one that is unknown, wrong or over.
    pub fn check_token(&self, text: &[u8]) -> Option<(UserName, Arc<Grant>)> {
        let token = self.proved(text).filter(|token| !token.grant.is_over(self.0.clock_ms()))?;
        Some((token.view.user.clone(), Arc::clone(&token.grant)))
    }

    /// True for a token that was good until it was over. Only whoever has it can ask.
    pub fn is_token_over(&self, text: &[u8]) -> bool {
        self.proved(text).is_some_and(|token| token.grant.is_over(self.0.clock_ms()))
    }

    fn proved(&self, text: &[u8]) -> Option<Arc<Token>> {
        let text = std::str::from_utf8(text).ok()?.strip_prefix(TOKEN_PREFIX)?;
        let (id, secret) = text.split_once('_')?;
        let token = self.0.tokens.0.read().get(id).cloned()?;
        (hex(&sha256(secret.as_bytes())) == token.hash).then_some(token)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

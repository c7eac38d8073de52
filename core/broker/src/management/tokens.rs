//! API tokens: everybody makes and revokes their own, administrators those of all.

use polymq_contract::{Refusal, Secret};
use polymq_model::UserName;
use serde_json::{Value, json};

use super::{Manager, not_found};
use crate::{
    access::Role,
    tokens::{NewToken, TokenView},
};

/// A token for the audit file.
fn shown(token: &TokenView) -> Value {
    json!({ "name": token.name, "scopes": token.scopes, "expires_ms": token.expires_ms })
}

impl Manager {
    /// Errors: kind `Denied`.
    fn require_owner(&self, user: &UserName) -> Result<(), Refusal> {
        let is_own = self.user() == user;
        // A token must not make others that may do more.
        match is_own && self.who.grant.is_none() {
            true => Ok(()),
            false => self.require(Role::Administrator),
        }
    }

    /// The tokens of a user, the oldest first, without what proves them.
    ///
    /// Errors: kind `Denied` for those of somebody else.
    pub fn tokens(&self, user: &UserName) -> Result<Vec<TokenView>, Refusal> {
        self.require_owner(user)?;
        Ok(self.core.tokens.of_user(user))
    }

    /// Makes a token. Its text is in the answer and never shown again.
    ///
    /// Errors: kind `Denied` for somebody else; kind `NotFound` for the user; kind `Invalid` for a
    /// scope that is none; kind `Limit` when the user has too many.
    pub fn make_token(
        &self,
        user: &UserName,
        new: NewToken,
    ) -> Result<(TokenView, Secret), Refusal> {
        self.require_owner(user)
            .inspect_err(|_| self.audit_refused("token.make", format!("/users/{user}/tokens")))?;
        let (view, secret) = self.core.make_token(user, new)?;
        let object = format!("/users/{user}/tokens/{}", view.id);
        self.audit("token.make", object, Value::Null, shown(&view));
        Ok((view, secret))
    }

    /// What [`make_token`](Self::make_token) would make, of which nothing is kept.
    ///
    /// Errors: as of that.
    pub fn draft_token(&self, user: &UserName, new: NewToken) -> Result<TokenView, Refusal> {
        self.require_owner(user)?;
        self.core.draft_token(user, new).map(|draft| draft.view)
    }

    /// Revokes a token; the connections that have logged in with it end.
    ///
    /// Errors: kind `Denied` for that of somebody else, kind `NotFound`.
    pub fn revoke_token(&self, user: &UserName, id: &str) -> Result<(), Refusal> {
        let object = format!("/users/{user}/tokens/{id}");
        self.require_owner(user)
            .inspect_err(|_| self.audit_refused("token.revoke", object.clone()))?;
        let token = self.core.tokens.get(id).filter(|token| token.user == *user);
        let token = token.filter(|_| self.core.revoke_token(id));
        let missing = || not_found("token", id, format_args!(" of user '{user}'"));
        let token = token.ok_or_else(missing)?;
        self.audit("token.revoke", object, shown(&token), Value::Null);
        Ok(())
    }
}

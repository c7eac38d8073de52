//! Users, and their limits.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind, Secret};
use polymq_model::{UserName, VhostName};
use serde_json::{Value, json};

use super::{Manager, audit::shown, not_found};
use crate::{
    BrokerHandle,
    access::{Credentials, PermissionRecord, Role, Tags, UserRecord},
    core::Core,
    definitions::{self, kind},
    tenants::UserLimits,
};

/// Tags of one user.
const TAGS_MAX: usize = 64;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserView {
    /// Its name.
    pub name: UserName,
    /// What is known about it.
    pub record: Arc<UserRecord>,
    /// What it may use.
    pub limits: UserLimits,
}

/// What a user is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserChange {
    /// What proves its password; `None` to keep what it has, [`Credentials::none`] for a user who
    /// has no password.
    pub credentials: Option<Credentials>,
    /// All its tags; `None` to keep those it has.
    pub tags: Option<Vec<String>>,
}

impl UserChange {
    /// Errors: kind `Invalid` for tags that are too many, empty or too long.
    pub fn check(&self) -> Result<(), Refusal> {
        let is_tag = |tag: &String| !tag.is_empty() && tag.len() <= 255;
        match &self.tags {
            Some(tags) if tags.len() > TAGS_MAX || !tags.iter().all(is_tag) => {
                let text = format!("a user has at most {TAGS_MAX} tags of 1 to 255 bytes");
                Err(Refusal::new(RefusalKind::Invalid, text))
            }
            _ => Ok(()),
        }
    }
}

impl BrokerHandle {
    /// Hashes a password, on a thread of the authenticator. `reply` is called once, on any thread.
    ///
    /// Errors: kind `Invalid` for an empty one, which a script sends whose variable is not set;
    /// kind `Limit` when too many wait.
    pub fn hash_password(
        &self,
        password: Secret,
        reply: impl FnOnce(Result<Credentials, Refusal>) + Send + 'static,
    ) {
        if password.expose().is_empty() {
            let text = "a password must not be empty";
            return reply(Err(Refusal::new(RefusalKind::Invalid, text)));
        }
        self.0.authenticator.hash(password, Box::new(reply));
    }

    /// Creates or replaces a user. One that is not `kept` is forgotten at the next start.
    pub fn put_user(&self, name: UserName, record: UserRecord, kept: bool) {
        self.0.put_user(name, record, kept);
    }

    /// Replaces what proves a password by something better, which proves the same. Does nothing
    /// when the user has another hash by now.
    pub fn improve_credentials(&self, name: &UserName, before: &str, better: Credentials) {
        let Some(record) = self.0.access.user(name.as_str()) else { return };
        if record.password_hash == before {
            let Credentials { password_hash, scram } = better;
            let record = UserRecord { password_hash, scram, ..UserRecord::clone(&record) };
            self.0.store_user(name, &record);
            self.0.access.put_user(name.clone(), record);
        }
    }

    /// Removes a user, its permissions, its tokens, its client sessions, and what was kept for it.
    /// Its connections are closed. False when there is none.
    pub fn remove_user(&self, name: &UserName) -> bool {
        self.0.remove_user(name)
    }

    /// Sets what a user may do in a virtual host. One that is not `kept` is forgotten at the next
    /// start.
    ///
    /// Errors: kind `Invalid` when an expression is no regular expression.
    pub fn put_permission(
        &self,
        vhost: VhostName,
        user: UserName,
        record: PermissionRecord,
        kept: bool,
    ) -> Result<(), Refusal> {
        self.0.put_permission(vhost, user, record, kept)
    }
}

impl Core {
    fn store_user(&self, name: &UserName, record: &UserRecord) {
        let key = definitions::key(&[kind::USER, name.as_str()]);
        self.committer.append(|writer| writer.meta_put(&key, &definitions::encode(record)));
    }

    pub(crate) fn put_user(&self, name: UserName, record: UserRecord, kept: bool) {
        if kept {
            self.store_user(&name, &record);
        }
        let after = record.clone();
        let Some(before) = self.access.put_user(name.clone(), record) else { return };
        let impersonates = |record: &UserRecord| Tags::new(record.tags.clone()).impersonate();
        // Sessions know from the login whether they may speak for others.
        if before.password_hash != after.password_hash {
            self.close_user(&name, "the password of the user has changed");
        } else if impersonates(&before) && !impersonates(&after) {
            self.close_user(&name, "the tags of the user have changed");
        }
    }

    pub(crate) fn remove_user(&self, name: &UserName) -> bool {
        let mut keys = vec![
            definitions::key(&[kind::USER, name.as_str()]),
            definitions::key(&[kind::USER_LIMITS, name.as_str()]),
        ];
        for vhost in self.all_vhosts() {
            keys.push(definitions::key(&[kind::PERMISSION, vhost.name.as_str(), name.as_str()]));
        }
        for (vhost, user, exchange, _) in self.access.topic_permissions() {
            if user == *name {
                let place = [kind::TOPIC_PERMISSION, vhost.as_str(), name.as_str(), &exchange];
                keys.push(definitions::key(&place));
            }
        }
        self.committer.append(|writer| keys.iter().for_each(|key| writer.meta_delete(key)));
        for token in self.tokens.of_user(name) {
            self.revoke_token(&token.id);
        }
        let was_there = self.access.remove_user(name);
        self.users.set_limits(name.clone(), UserLimits::default());
        self.close_user(name, "the user was deleted");
        self.end_sessions_of(name);
        self.remove_mailboxes(name);
        was_there
    }

    /// Ends the client sessions of a user; those in use end with their connections.
    fn end_sessions_of(&self, user: &UserName) {
        for vhost in self.all_vhosts() {
            let sessions: Vec<_> = vhost.clients.lock().values().cloned().collect();
            for session in sessions.iter().filter(|session| session.owner == *user) {
                let mut state = session.state.lock();
                match state.connected {
                    Some(_) => state.expiry_secs = 0,
                    None => self.end_client_session(&vhost, session, &mut state),
                }
            }
        }
    }
}

impl Manager {
    /// All users, by name. Needs an administrator.
    ///
    /// Errors: kind `Denied`.
    pub fn users(&self) -> Result<Vec<UserView>, Refusal> {
        self.require(Role::Administrator)?;
        let names = self.core.access.users();
        Ok(names.into_iter().filter_map(|name| self.user_view(name)).collect())
    }

    /// A user. Needs an administrator.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn find_user(&self, name: &UserName) -> Result<UserView, Refusal> {
        self.require(Role::Administrator)?;
        self.user_view(name.clone()).ok_or_else(|| not_found("user", name.as_str(), ""))
    }

    fn user_view(&self, name: UserName) -> Option<UserView> {
        let record = self.core.access.user(name.as_str())?;
        let limits = self.core.users.limits_of(&name);
        Some(UserView { name, record, limits })
    }

    /// Creates a user, or changes one; its connections are closed when its password changes. True
    /// when it is new. Needs an administrator.
    ///
    /// Errors: kind `Denied`; kind `Invalid` for tags that are too many, empty or too long.
    pub fn put_user(&self, name: &UserName, change: UserChange) -> Result<bool, Refusal> {
        self.require(Role::Administrator)?;
        change.check()?;
        let before = self.core.access.user(name.as_str());
        let mut record = before.as_deref().cloned().unwrap_or_else(|| UserRecord {
            password_hash: String::new(),
            scram: String::new(),
            tags: Vec::new(),
            loopback_only: false,
        });
        let has_password = change.credentials.is_some();
        if let Some(Credentials { password_hash, scram }) = change.credentials {
            (record.password_hash, record.scram) = (password_hash, scram);
        }
        record.tags = change.tags.unwrap_or(record.tags);
        let shown = |record: &UserRecord| json!({ "tags": record.tags });
        let mut after = shown(&record);
        if has_password {
            after["password"] = json!("changed");
        }
        self.core.put_user(name.clone(), record, true);
        let old = before.as_deref().map(shown).unwrap_or_default();
        self.audit("user.put", format!("/users/{name}"), old, after);
        Ok(before.is_none())
    }

    /// Removes a user with everything of its own, and closes its connections. Needs an
    /// administrator.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn remove_user(&self, name: &UserName) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let record = self.core.access.user(name.as_str());
        let record = record.ok_or_else(|| not_found("user", name.as_str(), ""))?;
        self.core.remove_user(name);
        let before = json!({ "tags": record.tags });
        self.audit("user.delete", format!("/users/{name}"), before, Value::Null);
        Ok(())
    }

    /// What a user may use. Needs an administrator, except for one's own.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn user_limits(&self, name: &UserName) -> Result<UserLimits, Refusal> {
        let is_own = self.user() == name;
        self.require(if is_own { Role::Management } else { Role::Administrator })?;
        self.require_user(name)?;
        Ok(self.core.users.limits_of(name))
    }

    /// Bounds a user. What is open already stays. Needs an administrator.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn set_user_limits(&self, name: &UserName, limits: UserLimits) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let before = self.core.users.limits_of(name);
        BrokerHandle(self.core.clone()).set_user_limits(name, limits)?;
        let object = format!("/users/{name}/limits");
        self.audit("user_limits.put", object, shown(&before), shown(&limits));
        Ok(())
    }
}

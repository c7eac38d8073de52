//! Users and what they may do. Only this module makes [`Permit`]s, and no core operation works
//! without one.

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{UserName, VhostName};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Longest permission expression in bytes.
const EXPRESSION_BYTES_MAX: usize = 4096;

/// A user as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// Hash of the password in PHC text form; empty when the user cannot log in with a password.
    pub password_hash: String,
    /// Stored keys of SCRAM, in a text form of the authenticator.
    #[serde(default)]
    pub scram: String,
    /// `administrator`, `monitoring`, `impersonator`, ...
    #[serde(default)]
    pub tags: Vec<String>,
    /// The user may log in from loopback peers only.
    #[serde(default)]
    pub loopback_only: bool,
}

impl std::fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserRecord").field("tags", &self.tags).finish_non_exhaustive()
    }
}

/// What a user may do in a virtual host: three regular expressions on names of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRecord {
    /// Objects the user may declare and delete.
    pub configure: String,
    /// Objects the user may publish to and bind.
    pub write: String,
    /// Objects the user may consume from and bind to.
    pub read: String,
}

impl PermissionRecord {
    /// Everything.
    pub fn all() -> Self {
        Self { configure: ".*".into(), write: ".*".into(), read: ".*".into() }
    }
}

struct Permission {
    record: PermissionRecord,
    configure: Regex,
    write: Regex,
    read: Regex,
}

/// May declare and delete.
#[derive(Debug)]
pub enum Configure {}
/// May publish to.
#[derive(Debug)]
pub enum Write {}
/// May consume from.
#[derive(Debug)]
pub enum Read {}

/// A kind of access.
pub trait Action {
    #[doc(hidden)]
    const NAME: &'static str;
    #[doc(hidden)]
    fn expression<'r>(configure: &'r Regex, write: &'r Regex, read: &'r Regex) -> &'r Regex;
}

macro_rules! action {
    ($type:ident, $name:literal) => {
        impl Action for $type {
            const NAME: &'static str = $name;
            fn expression<'r>(c: &'r Regex, w: &'r Regex, r: &'r Regex) -> &'r Regex {
                let _ = (c, w, r);
                action!(@ $type c w r)
            }
        }
    };
    (@ Configure $c:ident $w:ident $r:ident) => { $c };
    (@ Write $c:ident $w:ident $r:ident) => { $w };
    (@ Read $c:ident $w:ident $r:ident) => { $r };
}
action!(Configure, "configure");
action!(Write, "write");
action!(Read, "read");

/// Proof that a user may do `A`, under one version of the rights. Only this module can build one.
#[derive(Debug)]
pub struct Permit<A> {
    action: PhantomData<A>,
}

/// Somebody who has logged in. Made once; no later frame can change it.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Who it is.
    pub user: UserName,
    /// May send messages in the name of others.
    pub impersonator: bool,
}

/// Users and permissions.
#[derive(Default)]
pub struct Access {
    users: RwLock<HashMap<UserName, Arc<UserRecord>>>,
    permissions: RwLock<HashMap<(VhostName, UserName), Arc<Permission>>>,
    version: AtomicU64,
}

impl Access {
    /// The user, if there is one.
    pub fn user(&self, name: &str) -> Option<Arc<UserRecord>> {
        self.users.read().get(name).cloned()
    }

    /// Names of all users.
    pub fn users(&self) -> Vec<UserName> {
        let mut names: Vec<_> = self.users.read().keys().cloned().collect();
        names.sort();
        names
    }

    /// Grows with every change; decisions made under an older version are asked again.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn put_user(&self, name: UserName, record: UserRecord) {
        self.users.write().insert(name, Arc::new(record));
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn remove_user(&self, name: &UserName) {
        self.users.write().remove(name);
        self.permissions.write().retain(|(_, user), _| user != name);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Removes all permissions in a virtual host; returns whose they were.
    pub(crate) fn remove_vhost(&self, vhost: &VhostName) -> Vec<UserName> {
        let mut users = Vec::new();
        self.permissions.write().retain(|(host, user), _| {
            if host == vhost {
                users.push(user.clone());
            }
            host != vhost
        });
        self.version.fetch_add(1, Ordering::Release);
        users.sort();
        users
    }

    /// Errors: kind `Invalid` when an expression is too long or no regular expression.
    pub(crate) fn put_permission(
        &self,
        vhost: VhostName,
        user: UserName,
        record: PermissionRecord,
    ) -> Result<(), Refusal> {
        let permission = Permission {
            configure: compile(&record.configure)?,
            write: compile(&record.write)?,
            read: compile(&record.read)?,
            record,
        };
        self.permissions.write().insert((vhost, user), Arc::new(permission));
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// What the user may do in the virtual host.
    pub fn permission(&self, vhost: &VhostName, user: &UserName) -> Option<PermissionRecord> {
        let key = (vhost.clone(), user.clone());
        self.permissions.read().get(&key).map(|found| found.record.clone())
    }

    /// Whether the user may open the virtual host: any permission in it is enough.
    pub fn may_open(&self, vhost: &VhostName, user: &UserName) -> bool {
        self.permissions.read().contains_key(&(vhost.clone(), user.clone()))
    }

    /// Asks whether `who` may do `A` on the object `name` of `kind` in `vhost`.
    ///
    /// Errors: kind `Denied`.
    pub fn permit<A: Action>(
        &self,
        who: &Principal,
        vhost: &VhostName,
        kind: &str,
        name: &str,
    ) -> Result<Permit<A>, Refusal> {
        let shown = if name.is_empty() { "amq.default" } else { name };
        let found = self.permissions.read().get(&(vhost.clone(), who.user.clone())).cloned();
        let allowed =
            found.is_some_and(|p| A::expression(&p.configure, &p.write, &p.read).is_match(shown));
        if allowed {
            return Ok(Permit { action: PhantomData });
        }
        Err(Refusal::new(
            RefusalKind::Denied,
            format!(
                "{} access to {kind} '{shown}' in vhost '{vhost}' refused for user '{}'",
                A::NAME,
                who.user
            ),
        ))
    }

    /// The permit of the broker itself: for what a client session owns by its nature.
    pub(crate) fn own<A>() -> Permit<A> {
        Permit { action: PhantomData }
    }
}

fn compile(expression: &str) -> Result<Regex, Refusal> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(Refusal::new(
            RefusalKind::Invalid,
            format!("a permission expression has at most {EXPRESSION_BYTES_MAX} bytes"),
        ));
    }
    // An empty expression allows nothing, as in RabbitMQ.
    let anchored = if expression.is_empty() { "^$".into() } else { format!("^(?:{expression})$") };
    Regex::new(&anchored).map_err(|error| {
        Refusal::new(
            RefusalKind::Invalid,
            format!("`{expression}` is no regular expression: {error}"),
        )
    })
}

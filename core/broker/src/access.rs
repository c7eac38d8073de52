//! Users and what they may do. Only this module makes [`Permit`]s, and no core operation works
//! without one.

mod expression;
mod inclusion;
mod principal;
mod records;
mod tags;
mod topics;
mod verdict;

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{UserName, VhostName, topic::Pattern};

use self::{
    expression::Expression,
    topics::{TopicPermission, TopicRule, TopicRules},
};
pub use principal::{Grant, Principal};
pub use records::{Credentials, PermissionRecord, TopicPermissionRecord, TopicSyntax, UserRecord};
pub use tags::{Role, Tags};
pub use verdict::{PermissionQuestion, Verdict};

/// What the default exchange is called in permissions.
const DEFAULT_EXCHANGE: &str = "amq.default";

struct Permission {
    record: PermissionRecord,
    configure: Expression,
    write: Expression,
    read: Expression,
}

impl Permission {
    fn expression<A: Action>(&self) -> &Expression {
        match A::NAME {
            Configure::NAME => &self.configure,
            Write::NAME => &self.write,
            _ => &self.read,
        }
    }
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
}

impl Action for Configure {
    const NAME: &'static str = "configure";
}

impl Action for Write {
    const NAME: &'static str = "write";
}

impl Action for Read {
    const NAME: &'static str = "read";
}

/// A kind of access to topics.
pub(crate) trait TopicAction: Action {}

impl TopicAction for Write {}
impl TopicAction for Read {}

/// Proof that a user may do `A`, under one version of the rights. Only this module can build one.
#[derive(Debug)]
pub struct Permit<A> {
    action: PhantomData<A>,
}

/// Which topics of an exchange are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Topics<'a> {
    /// The one with this key.
    Key(&'a str),
    /// All that a filter matches.
    Filter(&'a Pattern),
    /// Any.
    All,
}

/// What bounds the topics of somebody on an exchange.
#[derive(Debug)]
pub(crate) struct TopicBounds {
    vhost: VhostName,
    exchange: Box<str>,
    rules: Option<Arc<TopicRules>>,
    grant: Option<Arc<Grant>>,
}

impl TopicBounds {
    pub(crate) fn allow<A: TopicAction>(&self, topics: Topics<'_>) -> bool {
        let fits = |rule: &TopicRule| match topics {
            Topics::Key(key) => rule.allows(key),
            Topics::Filter(filter) => rule.covers(filter),
            Topics::All => rule.covers_all(),
        };
        let place = (self.vhost.as_str(), shown(&self.exchange));
        self.rules.as_ref().is_none_or(|rules| fits(rules.of::<A>()))
            && self.grant.as_ref().is_none_or(|grant| grant.allows_topic(A::NAME, place, fits))
    }
}

/// By exchange, the topic permissions of a user in a virtual host.
type OfExchanges = HashMap<Box<str>, Arc<TopicPermission>>;

/// Users and permissions.
#[derive(Default)]
pub struct Access {
    users: RwLock<HashMap<UserName, Arc<UserRecord>>>,
    permissions: RwLock<HashMap<(VhostName, UserName), Arc<Permission>>>,
    topics: RwLock<HashMap<(VhostName, UserName), OfExchanges>>,
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

    /// Has decisions asked again.
    pub(crate) fn touch(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Returns what was known of the user before.
    pub(crate) fn put_user(&self, name: UserName, record: UserRecord) -> Option<Arc<UserRecord>> {
        let before = self.users.write().insert(name, Arc::new(record));
        self.touch();
        before
    }

    /// False when there is no such user.
    pub(crate) fn remove_user(&self, name: &UserName) -> bool {
        let was_there = self.users.write().remove(name).is_some();
        self.permissions.write().retain(|(_, user), _| user != name);
        self.topics.write().retain(|(_, user), _| user != name);
        self.touch();
        was_there
    }

    /// Removes all permissions in a virtual host.
    pub(crate) fn remove_vhost(&self, vhost: &VhostName) {
        self.permissions.write().retain(|(host, _), _| host != vhost);
        self.topics.write().retain(|(host, _), _| host != vhost);
        self.touch();
    }

    /// Errors: kind `Invalid` when an expression is too long or no regular expression.
    pub(crate) fn put_permission(
        &self,
        vhost: VhostName,
        user: UserName,
        record: PermissionRecord,
    ) -> Result<(), Refusal> {
        let permission = Permission {
            configure: Expression::compile(&record.configure)?,
            write: Expression::compile(&record.write)?,
            read: Expression::compile(&record.read)?,
            record,
        };
        self.permissions.write().insert((vhost, user), Arc::new(permission));
        self.touch();
        Ok(())
    }

    /// False when there is none.
    pub(crate) fn remove_permission(&self, vhost: &VhostName, user: &UserName) -> bool {
        let key = (vhost.clone(), user.clone());
        let was_there = self.permissions.write().remove(&key).is_some();
        self.touch();
        was_there
    }

    /// What the user may do in the virtual host.
    pub fn permission(&self, vhost: &VhostName, user: &UserName) -> Option<PermissionRecord> {
        let key = (vhost.clone(), user.clone());
        self.permissions.read().get(&key).map(|found| found.record.clone())
    }

    /// All permissions, by virtual host and user.
    pub fn permissions(&self) -> Vec<(VhostName, UserName, PermissionRecord)> {
        let permissions = self.permissions.read();
        let view = permissions.iter().map(|((vhost, user), permission)| {
            (vhost.clone(), user.clone(), permission.record.clone())
        });
        let mut all: Vec<_> = view.collect();
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }

    /// Errors: kind `Invalid` when a rule is none.
    pub(crate) fn put_topic_permission(
        &self,
        vhost: VhostName,
        user: UserName,
        exchange: &str,
        record: TopicPermissionRecord,
    ) -> Result<(), Refusal> {
        let permission = TopicPermission::compile(record, user.as_str(), vhost.as_str())?;
        let mut topics = self.topics.write();
        let of_exchanges = topics.entry((vhost, user)).or_default();
        of_exchanges.insert(plain(exchange).into(), Arc::new(permission));
        drop(topics);
        self.touch();
        Ok(())
    }

    /// Removes the topic permission on an exchange, or on every exchange. Returns on which there
    /// was one.
    pub(crate) fn remove_topic_permissions(
        &self,
        vhost: &VhostName,
        user: &UserName,
        exchange: Option<&str>,
    ) -> Vec<Box<str>> {
        let mut topics = self.topics.write();
        let key = (vhost.clone(), user.clone());
        let Some(of_exchanges) = topics.get_mut(&key) else { return Vec::new() };
        let mut removed = Vec::new();
        of_exchanges.retain(|name, _| {
            let stays = exchange.is_some_and(|wanted| plain(wanted) != &**name);
            if !stays {
                removed.push(name.clone());
            }
            stays
        });
        if of_exchanges.is_empty() {
            topics.remove(&key);
        }
        drop(topics);
        self.touch();
        removed
    }

    /// All topic permissions, by virtual host, user and exchange.
    pub fn topic_permissions(&self) -> Vec<(VhostName, UserName, String, TopicPermissionRecord)> {
        let topics = self.topics.read();
        let mut all = Vec::new();
        for ((vhost, user), of_exchanges) in topics.iter() {
            all.extend(of_exchanges.iter().map(|(exchange, permission)| {
                let record = permission.record.clone();
                (vhost.clone(), user.clone(), exchange.to_string(), record)
            }));
        }
        drop(topics);
        all.sort_by(|a, b| (&a.0, &a.1, &a.2).cmp(&(&b.0, &b.1, &b.2)));
        all
    }

    /// Whether somebody may open the virtual host: any permission in it is enough.
    pub fn may_open(&self, vhost: &VhostName, who: &Principal) -> bool {
        let own = || self.permissions.read().contains_key(&(vhost.clone(), who.user.clone()));
        match &who.grant {
            None => own(),
            Some(grant) => grant.opens(vhost.as_str()) && (grant.is_whole || own()),
        }
    }

    /// Whether `who` has all rights to every object of a virtual host, by expressions that say so
    /// plainly. A token is not looked into: with one, nobody has.
    pub(crate) fn may_do_everything(&self, who: &Principal, vhost: &VhostName) -> bool {
        who.grant.is_none() && self.permission(vhost, &who.user) == Some(PermissionRecord::all())
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
        if self.allows::<A>(who, vhost, name) {
            return Ok(Permit { action: PhantomData });
        }
        let text = format!(
            "{} access to {kind} '{}' in vhost '{vhost}' refused for user '{}'",
            A::NAME,
            shown(name),
            who.user
        );
        Err(Refusal::new(RefusalKind::Denied, text).about(kind, name, Some(A::NAME)))
    }

    fn allows<A: Action>(&self, who: &Principal, vhost: &VhostName, name: &str) -> bool {
        let name = shown(name);
        if let Some(grant) = &who.grant {
            if !grant.allows(A::NAME, vhost.as_str(), name) {
                return false;
            }
            if grant.is_whole {
                return true;
            }
        }
        let found = self.permissions.read().get(&(vhost.clone(), who.user.clone())).cloned();
        found.is_some_and(|permission| permission.expression::<A>().matches(name))
    }

    /// What bounds the topics of an exchange for somebody with this client id; `None` when nothing
    /// does.
    pub(crate) fn topic_bounds(
        &self,
        who: &Principal,
        vhost: &VhostName,
        exchange: &str,
        client_id: Option<&str>,
    ) -> Option<TopicBounds> {
        let grant = who.grant.as_ref().filter(|grant| grant.has_keys()).cloned();
        let topics = self.topics.read();
        let found = match topics.is_empty() {
            true => None,
            false => topics
                .get(&(vhost.clone(), who.user.clone()))
                .and_then(|of_exchanges| of_exchanges.get(plain(exchange)).cloned()),
        };
        drop(topics);
        if grant.is_none() && found.is_none() {
            return None;
        }
        let rules = found.map(|found| found.rules(who.user.as_str(), vhost.as_str(), client_id));
        Some(TopicBounds { vhost: vhost.clone(), exchange: exchange.into(), rules, grant })
    }

    /// Asks whether somebody may do `A` with topics of an exchange.
    ///
    /// Errors: kind `Denied`.
    pub(crate) fn check_topics<A: TopicAction>(
        &self,
        who: &Principal,
        vhost: &VhostName,
        (exchange, topics): (&str, Topics<'_>),
        client_id: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(bounds) = self.topic_bounds(who, vhost, exchange, client_id) else {
            return Ok(());
        };
        if bounds.allow::<A>(topics) {
            return Ok(());
        }
        let what = match topics {
            Topics::Key(key) => format!("topic '{key}'"),
            Topics::Filter(_) => "every topic of the filter".to_owned(),
            Topics::All => "every topic".to_owned(),
        };
        let text = format!(
            "{} access to {what} in exchange '{}' in vhost '{vhost}' refused for user '{}'",
            A::NAME,
            shown(exchange),
            who.user
        );
        Err(Refusal::new(RefusalKind::Denied, text).about("exchange", exchange, Some(A::NAME)))
    }

    /// The permit of the broker itself: for what a client session owns by its nature.
    pub(crate) fn own<A>() -> Permit<A> {
        Permit { action: PhantomData }
    }
}

/// The name of an exchange or queue in permissions and for people.
fn shown(name: &str) -> &str {
    if name.is_empty() { DEFAULT_EXCHANGE } else { name }
}

/// The name of an exchange as the topology has it.
fn plain(exchange: &str) -> &str {
    if exchange == DEFAULT_EXCHANGE { "" } else { exchange }
}

//! Permissions, those of topics, and questions about them.

use polymq_contract::Refusal;
use polymq_model::{UserName, VhostName};
use serde_json::Value;

use super::{Manager, audit::shown};
use crate::{
    access::{Access, PermissionQuestion, PermissionRecord, Role, TopicPermissionRecord, Verdict},
    core::Core,
    definitions::{self, kind},
};

/// What a user may do in a virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionView {
    /// Where.
    pub vhost: VhostName,
    /// Who.
    pub user: UserName,
    /// What.
    pub record: PermissionRecord,
}

/// Which topics of an exchange a user may write and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPermissionView {
    /// Where.
    pub vhost: VhostName,
    /// Who.
    pub user: UserName,
    /// Of which exchange; empty for the default exchange.
    pub exchange: String,
    /// What.
    pub record: TopicPermissionRecord,
}

impl Core {
    pub(crate) fn put_permission(
        &self,
        vhost: VhostName,
        user: UserName,
        record: PermissionRecord,
        kept: bool,
    ) -> Result<(), Refusal> {
        let key = definitions::key(&[kind::PERMISSION, vhost.as_str(), user.as_str()]);
        let value = definitions::encode(&record);
        self.access.put_permission(vhost, user.clone(), record)?;
        if kept {
            self.committer.append(|writer| writer.meta_put(&key, &value));
        }
        self.rights_changed(&user);
        Ok(())
    }
}

impl Manager {
    /// All permissions, by virtual host and user. Needs an administrator.
    ///
    /// Errors: kind `Denied`.
    pub fn permissions(&self) -> Result<Vec<PermissionView>, Refusal> {
        self.require(Role::Administrator)?;
        let all = self.core.access.permissions().into_iter();
        let view = |(vhost, user, record)| PermissionView { vhost, user, record };
        Ok(all.map(view).collect())
    }

    /// What a user may do in a virtual host. Needs an administrator.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn permission(
        &self,
        vhost: &VhostName,
        user: &UserName,
    ) -> Result<PermissionRecord, Refusal> {
        self.require(Role::Administrator)?;
        let found = self.core.access.permission(vhost, user);
        found.ok_or_else(|| {
            let text = format!("permission of user '{user}' in vhost '{vhost}' not found");
            Refusal::missing("permission", user.as_str(), text)
        })
    }

    /// Whether it could set this.
    ///
    /// Errors: as of [`put_permission`](Self::put_permission).
    pub fn check_permission(
        &self,
        vhost: &VhostName,
        user: &UserName,
        record: &PermissionRecord,
    ) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        self.require_user(user)?;
        self.core.vhost(vhost.as_str())?;
        Access::default().put_permission(vhost.clone(), user.clone(), record.clone())
    }

    /// Sets what a user may do in a virtual host; what lives by the old rights is asked again at
    /// once. True when there was nothing before. Needs an administrator.
    ///
    /// Errors: kind `Denied`; kind `NotFound` for the user or the virtual host; kind `Invalid` when
    /// an expression is no regular expression.
    pub fn put_permission(
        &self,
        vhost: &VhostName,
        user: &UserName,
        record: PermissionRecord,
    ) -> Result<bool, Refusal> {
        self.check_permission(vhost, user, &record)?;
        let before = self.core.access.permission(vhost, user);
        let (old, after) = (shown(&before), shown(&record));
        self.core.put_permission(vhost.clone(), user.clone(), record, true)?;
        self.audit("permission.put", format!("/permissions/{vhost}/{user}"), old, after);
        Ok(before.is_none())
    }

    /// Takes all rights in a virtual host from a user, whose connections to it end. Needs an
    /// administrator.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn remove_permission(&self, vhost: &VhostName, user: &UserName) -> Result<(), Refusal> {
        let before = self.permission(vhost, user)?;
        self.core.access.remove_permission(vhost, user);
        let key = definitions::key(&[kind::PERMISSION, vhost.as_str(), user.as_str()]);
        self.core.committer.append(|writer| writer.meta_delete(&key));
        self.core.rights_changed(user);
        let object = format!("/permissions/{vhost}/{user}");
        self.audit("permission.delete", object, shown(&before), Value::Null);
        Ok(())
    }

    /// All topic permissions, by virtual host, user and exchange. Needs an administrator.
    ///
    /// Errors: kind `Denied`.
    pub fn topic_permissions(&self) -> Result<Vec<TopicPermissionView>, Refusal> {
        self.require(Role::Administrator)?;
        let all = self.core.access.topic_permissions().into_iter();
        let view =
            |(vhost, user, exchange, record)| TopicPermissionView { vhost, user, exchange, record };
        Ok(all.map(view).collect())
    }

    /// Whether it could set this.
    ///
    /// Errors: as of [`put_topic_permission`](Self::put_topic_permission).
    pub fn check_topic_permission(
        &self,
        vhost: &VhostName,
        user: &UserName,
        exchange: &str,
        record: &TopicPermissionRecord,
    ) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        self.require_user(user)?;
        self.core.vhost(vhost.as_str())?;
        let (vhost, user, record) = (vhost.clone(), user.clone(), record.clone());
        Access::default().put_topic_permission(vhost, user, exchange, record)
    }

    /// Sets which topics of an exchange a user may write and read; subscriptions that go beyond end
    /// at once. True when there was nothing before. Needs an administrator.
    ///
    /// Errors: kind `Denied`; kind `NotFound` for the user or the virtual host; kind `Invalid` when
    /// a rule is none.
    pub fn put_topic_permission(
        &self,
        vhost: &VhostName,
        user: &UserName,
        exchange: &str,
        record: TopicPermissionRecord,
    ) -> Result<bool, Refusal> {
        self.check_topic_permission(vhost, user, exchange, &record)?;
        let exchange = if exchange == "amq.default" { "" } else { exchange };
        let before = self.topic_permission(vhost, user, exchange);
        let (old, after, value) = (shown(&before), shown(&record), definitions::encode(&record));
        let access = &self.core.access;
        access.put_topic_permission(vhost.clone(), user.clone(), exchange, record)?;
        let place = [kind::TOPIC_PERMISSION, vhost.as_str(), user.as_str(), exchange];
        let key = definitions::key(&place);
        self.core.committer.append(|writer| writer.meta_put(&key, &value));
        self.core.rights_changed(user);
        let object = format!("/topic-permissions/{vhost}/{user}/{exchange}");
        self.audit("topic_permission.put", object, old, after);
        Ok(before.is_none())
    }

    fn topic_permission(
        &self,
        vhost: &VhostName,
        user: &UserName,
        exchange: &str,
    ) -> Option<TopicPermissionRecord> {
        let all = self.core.access.topic_permissions();
        let is_meant = |(of, who, what, _): &(VhostName, UserName, String, _)| {
            of == vhost && who == user && what == exchange
        };
        all.into_iter().find(is_meant).map(|(_, _, _, record)| record)
    }

    /// Frees a user of its topic permission on an exchange, or on all exchanges. Needs an
    /// administrator.
    ///
    /// Errors: kind `Denied`; kind `NotFound` when there is none.
    pub fn remove_topic_permissions(
        &self,
        vhost: &VhostName,
        user: &UserName,
        exchange: Option<&str>,
    ) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let removed = self.core.access.remove_topic_permissions(vhost, user, exchange);
        if removed.is_empty() {
            let text = format!("topic permission of user '{user}' in '{vhost}' not found");
            return Err(Refusal::missing("permission", user.as_str(), text));
        }
        self.core.committer.append(|writer| {
            for exchange in &removed {
                let place = [kind::TOPIC_PERMISSION, vhost.as_str(), user.as_str(), exchange];
                writer.meta_delete(&definitions::key(&place));
            }
        });
        self.core.rights_changed(user);
        let object = format!("/topic-permissions/{vhost}/{user}");
        self.audit("topic_permission.delete", object, shown(&removed), Value::Null);
        Ok(())
    }

    /// Whether a user may do something, and which rule says so. Needs an administrator, except for
    /// one's own rights.
    ///
    /// Errors: kind `Denied`; kind `NotFound` for the user; kind `Invalid` for a question that is
    /// none.
    pub fn test_permission(&self, asked: &PermissionQuestion) -> Result<Verdict, Refusal> {
        let is_own = *self.user() == asked.user;
        self.require(if is_own { Role::Management } else { Role::Administrator })?;
        self.core.access.test(asked)
    }
}

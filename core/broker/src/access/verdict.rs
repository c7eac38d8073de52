//! Whether somebody may do something, and which rule says so.

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{UserName, VhostName, topic::Pattern};

use super::{Access, Action, Configure, Principal, Read, TopicAction, Topics, Write, plain, shown};

/// A question about the rights of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionQuestion {
    /// Who.
    pub user: UserName,
    /// Where.
    pub vhost: VhostName,
    /// `configure`, `write` or `read`.
    pub action: String,
    /// Name of the queue or exchange.
    pub object: String,
    /// A routing key in dot form, or with `read` a pattern in dot form; the object is an exchange
    /// then.
    pub topic: Option<String>,
    /// The client id, where rules name it.
    pub client_id: Option<String>,
}

/// An answer and the rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Which rule said so, for people.
    pub rule: String,
}

impl Access {
    /// Answers a question about the rights of a user, with the rule that decides.
    ///
    /// Errors: kind `NotFound` for the user, kind `Invalid` for an action or a pattern that is
    /// none.
    pub fn test(&self, asked: &PermissionQuestion) -> Result<Verdict, Refusal> {
        if self.user(asked.user.as_str()).is_none() {
            let text = format!("user '{}' not found", asked.user);
            return Err(Refusal::missing("user", asked.user.as_str(), text));
        }
        match asked.action.as_str() {
            "configure" => Ok(self.test_object::<Configure>(asked)),
            "write" => self.test_all::<Write>(asked),
            "read" => self.test_all::<Read>(asked),
            other => {
                let text = format!("action is configure, write or read, not '{other}'");
                Err(Refusal::new(RefusalKind::Invalid, text))
            }
        }
    }

    fn test_all<A: TopicAction>(&self, asked: &PermissionQuestion) -> Result<Verdict, Refusal> {
        let verdict = self.test_object::<A>(asked);
        match &asked.topic {
            Some(topic) if verdict.allowed => self.test_topic::<A>(asked, topic, verdict),
            Some(_) | None => Ok(verdict),
        }
    }

    fn test_object<A: Action>(&self, asked: &PermissionQuestion) -> Verdict {
        let PermissionQuestion { user, vhost, object, .. } = asked;
        let Some(record) = self.permission(vhost, user) else {
            let rule = format!("user '{user}' has no permission in vhost '{vhost}'");
            return Verdict { allowed: false, rule };
        };
        let expression = match A::NAME {
            Configure::NAME => record.configure,
            Write::NAME => record.write,
            _ => record.read,
        };
        let who = Principal::of_user(user.clone());
        let allowed = self.allows::<A>(&who, vhost, object);
        let does = if allowed { "matches" } else { "does not match" };
        let rule = format!(
            "permission of user '{user}' in vhost '{vhost}': {} '{expression}' {does} '{}'",
            A::NAME,
            shown(object)
        );
        Verdict { allowed, rule }
    }

    fn test_topic<A: TopicAction>(
        &self,
        asked: &PermissionQuestion,
        topic: &str,
        object: Verdict,
    ) -> Result<Verdict, Refusal> {
        let PermissionQuestion { user, vhost, object: exchange, .. } = asked;
        let who = Principal::of_user(user.clone());
        let bounds = self.topic_bounds(&who, vhost, exchange, asked.client_id.as_deref());
        let Some(bounds) = bounds else { return Ok(object) };
        let filter = Pattern::dot(topic)
            .map_err(|bad| Refusal::new(RefusalKind::Invalid, bad.to_string()))?;
        let topics = match A::NAME {
            Read::NAME => Topics::Filter(&filter),
            _ => Topics::Key(topic),
        };
        let allowed = bounds.allow::<A>(topics);
        let key = (vhost.clone(), user.clone());
        let all = self.topics.read();
        let found = all.get(&key).and_then(|of_exchanges| of_exchanges.get(plain(exchange)));
        let text = found.map(|found| match A::NAME {
            Write::NAME => found.record.write.clone(),
            _ => found.record.read.clone(),
        });
        let does = if allowed { "allows" } else { "does not allow" };
        let rule = format!(
            "topic permission of user '{user}' on exchange '{}' in vhost '{vhost}': {} '{}' {does} \
             '{topic}'",
            shown(exchange),
            A::NAME,
            text.unwrap_or_default()
        );
        Ok(Verdict { allowed, rule })
    }
}

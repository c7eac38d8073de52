//! Who acts: a user, and what a token narrows or gives.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::UserName;

use super::topics::TopicRule;

/// Scopes of one token.
const SCOPES_MAX: usize = 256;
/// Bytes of one scope.
const SCOPE_BYTES_MAX: usize = 1024;

/// Somebody who has logged in. Made once; no later frame can change it.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Who it is.
    pub user: UserName,
    /// May send messages in the name of others.
    pub impersonator: bool,
    /// What the token of the login says; `None` for a login without one.
    pub(crate) grant: Option<Arc<Grant>>,
    /// When the client certificate of its connection ends, in ms since 1970.
    pub(crate) certificate_until_ms: Option<u64>,
}

impl Principal {
    /// When the login ends by itself, in ms since 1970: with its token, or with the certificate
    /// that the connection was let in with.
    pub(crate) fn until_ms(&self) -> Option<u64> {
        let token = self.grant.as_ref().and_then(|grant| grant.expires_ms);
        [token, self.certificate_until_ms].into_iter().flatten().min()
    }

    /// A user who has logged in without a token.
    pub fn of_user(user: UserName) -> Self {
        Self { user, impersonator: false, grant: None, certificate_until_ms: None }
    }

    /// True when both have the same rights for certain: the same user, without a token or with the
    /// same one. Two logins by tokens of an identity provider are told apart.
    pub fn is_same_login(&self, other: &Self) -> bool {
        let is_same_grant = match (&self.grant, &other.grant) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                own == other || (own.token.is_some() && own.token == other.token)
            }
            _ => false,
        };
        self.user == other.user && is_same_grant
    }
}

/// What a token says about the rights of whoever shows it.
#[derive(Debug)]
pub struct Grant {
    /// True when the scopes are all the rights there are; false when they narrow the user's own.
    pub(crate) is_whole: bool,
    scopes: Vec<Scope>,
    /// Tags of management and of `impersonator`.
    pub(crate) tags: Vec<String>,
    /// When it ends, in ms since 1970.
    pub(crate) expires_ms: Option<u64>,
    /// The API token it comes from.
    pub(crate) token: Option<Box<str>>,
}

impl PartialEq for Grant {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Grant {}

/// `read:vhost/object` or `write:vhost/object/routing-key`, with `*` for any text in each part and
/// `%` escapes; `tag:administrator` for a tag.
#[derive(Debug)]
struct Scope {
    action: Box<str>,
    vhost: Glob,
    object: Glob,
    /// `None` for any key.
    key: Option<TopicRule>,
}

impl Grant {
    /// All the rights of a user of an identity provider.
    ///
    /// Scopes that are none of ours are passed over, as a provider has others as well.
    ///
    /// Specification: RabbitMQ, OAuth 2.0, "Scopes and Permissions".
    pub fn of_provider<'s>(
        scopes: impl IntoIterator<Item = &'s str>,
        expires_ms: Option<u64>,
    ) -> Self {
        let mut grant =
            Self { is_whole: true, scopes: Vec::new(), tags: Vec::new(), expires_ms, token: None };
        for scope in scopes.into_iter().take(SCOPES_MAX) {
            grant.add(scope).ok();
        }
        grant
    }

    /// What an API token leaves of the rights of its user.
    ///
    /// Errors: kind `Invalid` for a scope that is none.
    pub(crate) fn of_token(
        id: &str,
        scopes: &[String],
        expires_ms: Option<u64>,
    ) -> Result<Self, Refusal> {
        if scopes.len() > SCOPES_MAX {
            let text = format!("a token has at most {SCOPES_MAX} scopes");
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let mut grant = Self {
            is_whole: false,
            scopes: Vec::new(),
            tags: Vec::new(),
            expires_ms,
            token: Some(id.into()),
        };
        scopes.iter().try_for_each(|scope| grant.add(scope))?;
        Ok(grant)
    }

    fn add(&mut self, text: &str) -> Result<(), Refusal> {
        let invalid = || {
            let text = format!(
                "'{text}' is no scope: write configure, write or read, then ':vhost/object' or \
                 ':vhost/object/routing-key', or 'tag:' and a tag"
            );
            Refusal::new(RefusalKind::Invalid, text)
        };
        let (action, rest) = text.split_once(':').ok_or_else(invalid)?;
        if text.len() > SCOPE_BYTES_MAX || rest.is_empty() {
            return Err(invalid());
        }
        if action == "tag" {
            self.tags.push(rest.to_owned());
            return Ok(());
        }
        if !matches!(action, "configure" | "write" | "read") {
            return Err(invalid());
        }
        let mut parts = rest.splitn(3, '/');
        let mut part = || parts.next().map(Glob::parse);
        let (vhost, object) = (part().ok_or_else(invalid)?, part().ok_or_else(invalid)?);
        let key = part().filter(|key| !key.is_any());
        let key = key.map(|key| TopicRule::of_regex(&key.to_regex())).transpose()?;
        self.scopes.push(Scope { action: action.into(), vhost, object, key });
        Ok(())
    }

    /// True when its user is known to an identity provider alone.
    pub fn is_of_provider(&self) -> bool {
        self.is_whole
    }

    fn scopes_for<'g>(
        &'g self,
        action: &'static str,
        vhost: &'g str,
        object: &'g str,
    ) -> impl Iterator<Item = &'g Scope> {
        self.scopes.iter().filter(move |scope| {
            *scope.action == *action && scope.vhost.matches(vhost) && scope.object.matches(object)
        })
    }

    /// Whether the object is within the scopes.
    pub(super) fn allows(&self, action: &'static str, vhost: &str, object: &str) -> bool {
        self.scopes_for(action, vhost, object).next().is_some()
    }

    /// Whether topics of an exchange are within the scopes, as `fits` finds.
    pub(super) fn allows_topic(
        &self,
        action: &'static str,
        (vhost, exchange): (&str, &str),
        fits: impl Fn(&TopicRule) -> bool,
    ) -> bool {
        self.scopes_for(action, vhost, exchange).any(|scope| scope.key.as_ref().is_none_or(&fits))
    }

    /// True when some scope looks at routing keys.
    pub(super) fn has_keys(&self) -> bool {
        self.scopes.iter().any(|scope| scope.key.is_some())
    }

    /// Whether any scope is about the virtual host.
    pub(super) fn opens(&self, vhost: &str) -> bool {
        self.scopes.iter().any(|scope| scope.vhost.matches(vhost))
    }

    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }
}

/// A text in which `*` stands for any text.
#[derive(Debug)]
struct Glob(Vec<String>);

impl Glob {
    fn parse(text: &str) -> Self {
        Self(text.split('*').map(unescaped).collect())
    }

    fn is_any(&self) -> bool {
        self.0.len() > 1 && self.0.iter().all(String::is_empty)
    }

    fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == text);
        };
        let Some(rest) = text.strip_prefix(first.as_str()) else { return false };
        let Some(mut rest) = rest.strip_suffix(last.as_str()) else { return false };
        // The earliest place of each part leaves the most room for those behind it.
        middle.iter().all(|part| match rest.split_once(part.as_str()) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }

    fn to_regex(&self) -> String {
        let parts: Vec<_> = self.0.iter().map(|part| regex::escape(part)).collect();
        format!("^{}$", parts.join("(?s:.*)"))
    }
}

/// A text without its `%` escapes; what is no escape stays.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        let escaped = match (first, rest) {
            (b'%', [high, low, after @ ..]) => {
                let digits = (char::from(*high).to_digit(16), char::from(*low).to_digit(16));
                match digits {
                    (Some(high), Some(low)) => Some((high * 16 + low, after)),
                    _ => None,
                }
            }
            _ => None,
        };
        match escaped {
            Some((byte, after)) => {
                out.push(u8::try_from(byte).unwrap_or_default());
                bytes = after;
            }
            None => out.push(*first),
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(scopes: &[&str]) -> Grant {
        Grant::of_provider(scopes.iter().copied(), None)
    }

    #[test]
    fn a_scope_names_action_virtual_host_and_object() {
        let grant = grant(&["read:prod/orders-*", "write:*/*", "configure:%2F/q"]);
        assert!(grant.allows("read", "prod", "orders-eu"));
        assert!(!grant.allows("read", "prod", "invoices"));
        assert!(!grant.allows("read", "/", "orders-eu"));
        assert!(grant.allows("write", "/", "anything"));
        assert!(grant.allows("configure", "/", "q") && !grant.allows("configure", "/", "q2"));
        assert!(grant.opens("/"));
    }

    #[test]
    fn stars_stand_for_any_text_and_may_be_many() {
        let glob = Glob::parse("a*b*c");
        assert!(glob.matches("abc") && glob.matches("a-b-b-c") && !glob.matches("ab"));
        assert!(!Glob::parse("ab*bc").matches("abc"), "parts do not overlap");
        assert!(Glob::parse("*").matches("") && Glob::parse("*").is_any());
        assert!(Glob::parse("%2A").matches("*") && !Glob::parse("%2A").matches("x"));
    }

    #[test]
    fn a_third_part_bounds_routing_keys() {
        let grant = grant(&["write:*/x/a.*", "read:*/x"]);
        let allows =
            |action, key: &str| grant.allows_topic(action, ("/", "x"), |rule| rule.allows(key));
        assert!(allows("write", "a.b") && !allows("write", "b.a"));
        assert!(allows("read", "b.a"));
        assert!(grant.has_keys());
    }

    #[test]
    fn scopes_of_others_are_passed_over_and_tags_are_taken() {
        let grant = grant(&["openid", "profile:x", "tag:monitoring", "read:v"]);
        assert_eq!(grant.tags, ["monitoring"]);
        assert!(grant.scopes.is_empty());
    }

    #[test]
    fn a_token_with_a_scope_that_is_none_is_refused() {
        for bad in ["", "read", "read:", "read:v", "eat:v/q"] {
            let refused = Grant::of_token("t", &[bad.to_owned()], None).unwrap_err();
            assert_eq!(refused.kind, RefusalKind::Invalid, "{bad}");
        }
    }
}

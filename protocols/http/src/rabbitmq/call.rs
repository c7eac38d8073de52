//! One request: its path, its query, its body, and who asks.

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use polymq_broker::{BrokerHandle, Manager, Role, Tags};
use polymq_contract::{Answer, Command, Refusal};
use polymq_model::{RequestId, UserName, VhostName};
use serde_json::Value;

use super::{names, rates::Spans, wire::Failure};
use crate::{Site, client::Client, socket::Socket};

/// What the default exchange is called in paths.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// What a route needs its user to be, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nobody has to log in.
    Nobody,
    /// Any tag that has to do with management.
    Management,
    /// Management, and the virtual host of the path.
    Vhost,
    /// May change policies and parameters of the virtual host of the path.
    Policymaker,
    /// May see everything.
    Monitoring,
    /// May change everything.
    Administrator,
}

/// A request with everything that a route may look at.
pub(super) struct Call {
    pub(super) site: Arc<Site>,
    pub(super) socket: Arc<Socket>,
    pub(super) headers: HeaderMap,
    /// Who asks, with the rights of this moment.
    pub(super) manager: Manager,
    pub(super) tags: Tags,
    /// The parts of the path that the route names, decoded.
    pub(super) path: Vec<(&'static str, String)>,
    pub(super) query: Vec<(String, String)>,
    /// Which samples are wanted.
    pub(super) spans: Spans,
    pub(super) body: Bytes,
    /// It reads and changes nothing.
    pub(super) is_look: bool,
}

impl Call {
    pub(super) fn broker(&self) -> &BrokerHandle {
        &self.site.watched.broker
    }

    /// A part of the path as it was written.
    pub(super) fn path(&self, name: &str) -> &str {
        let found = self.path.iter().find(|(known, _)| *known == name);
        debug_assert!(found.is_some(), "the path has no part `{name}`");
        found.map_or("", |(_, value)| value)
    }

    pub(super) fn has_path(&self, name: &str) -> bool {
        self.path.iter().any(|(known, _)| *known == name)
    }

    /// A part of the path for which something exists, with its plus signs as they are or as
    /// spaces; as it was written when neither exists.
    pub(super) fn known(&self, name: &str, exists: impl Fn(&str) -> bool) -> String {
        names::known(self.path(name), exists)
    }

    /// A parameter of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has_flag(&self, name: &str) -> bool {
        self.query(name) == Some("true")
    }

    /// The virtual host of the path, or of the header `x-vhost`, that a list is bound to.
    pub(super) fn vhost_filter(&self) -> Option<String> {
        if self.has_path("vhost") {
            return Some(self.vhost_name());
        }
        let named = self.headers.get("x-vhost")?.to_str().ok()?;
        (!named.is_empty()).then(|| named.to_owned())
    }

    /// The virtual host of the path.
    pub(super) fn vhost_name(&self) -> String {
        self.known("vhost", |name| self.broker().has_vhost(name))
    }

    /// The queue of the path.
    pub(super) fn queue_name(&self) -> String {
        let vhost = self.vhost_name();
        self.known("queue", |name| self.broker().queue_ref(&vhost, name).is_ok())
    }

    /// The exchange of the path; the one without a name is called `amq.default` there.
    pub(super) fn exchange_name(&self, part: &str) -> String {
        let vhost = self.vhost_name();
        match self.path(part) {
            DEFAULT_EXCHANGE => String::new(),
            _ => self.known(part, |name| self.broker().has_exchange(&vhost, name)),
        }
    }

    /// True when whoever asks may see what belongs to others.
    pub(super) fn is_monitoring(&self) -> bool {
        self.tags.include(Role::Monitoring)
    }

    /// The name of whoever asks.
    pub(super) fn user(&self) -> &UserName {
        self.manager.user()
    }

    /// Which virtual hosts whoever asks may see.
    pub(super) fn sight(&self) -> Sight<'_> {
        Sight { call: self, last: None }
    }

    /// A virtual host by its name.
    ///
    /// Errors: it is none.
    pub(super) fn vhost(&self) -> Result<VhostName, Failure> {
        VhostName::new(self.vhost_name()).map_err(|_| Failure::not_found())
    }

    /// Errors: the user is not what the route needs.
    pub(super) fn check(&self, needs: Needs) -> Result<(), Failure> {
        let (role, why) = match needs {
            Needs::Nobody => return Ok(()),
            Needs::Management => (Role::Management, "User not authorised"),
            Needs::Vhost => {
                self.check(Needs::Management)?;
                return self.check_vhost();
            }
            Needs::Policymaker => (Role::Policymaker, "Not policymaker"),
            Needs::Monitoring => (Role::Monitoring, "Not monitor user"),
            Needs::Administrator => (Role::Administrator, "Not administrator user"),
        };
        if self.tags.include(role) { Ok(()) } else { Err(Failure::denied(why)) }
    }

    /// The virtual host exists, and the user may enter it, or may see everything when nothing is
    /// changed.
    fn check_vhost(&self) -> Result<(), Failure> {
        let denied = || Failure::denied("User not authorised to access virtual host");
        let Ok(vhost) = VhostName::new(self.vhost_name()) else { return Err(denied()) };
        // Orders go through a connection of the user, which the broker lets in or not.
        if self.manager.may_see(&vhost) {
            return match (self.broker().has_vhost(vhost.as_str()), self.is_look) {
                (true, _) => Ok(()),
                (false, true) => Err(Failure::not_found()),
                (false, false) => Err(Failure::missing("vhost_not_found")),
            };
        }
        Err(denied())
    }

    /// The client of whoever asks, in a virtual host. What it does is decided by the broker.
    ///
    /// Errors: the user may not enter it.
    pub(super) async fn client(&self, vhost: &str) -> Result<Arc<Client>, Failure> {
        Ok(self.socket.client(&self.site, &self.headers, Some(vhost)).await?)
    }

    /// Writes down what an order has changed in the virtual host of the path. What the manager
    /// changes is written down by itself.
    pub(super) fn audit(
        &self,
        action: &'static str,
        object: &str,
        (before, after): (Value, Value),
    ) {
        let object = format!("/vhosts/{}/{object}", self.vhost_name());
        self.manager.audit(action, object, before, after);
    }

    /// Gives an order in the virtual host of the path.
    ///
    /// Errors: those of the broker.
    pub(super) async fn order(
        &self,
        command: impl FnOnce(RequestId) -> Command,
    ) -> Result<Answer, Refused> {
        let client = self.client(&self.vhost_name()).await?;
        Ok(client.ask(command).await?)
    }
}

/// Remembers the last answer, as lists come by virtual host.
pub(super) struct Sight<'a> {
    call: &'a Call,
    last: Option<(VhostName, bool)>,
}

impl Sight<'_> {
    /// True when whoever asks may see what is in the virtual host.
    pub(super) fn sees(&mut self, vhost: &VhostName) -> bool {
        if let Some((known, is_seen)) = &self.last
            && known == vhost
        {
            return *is_seen;
        }
        let is_seen = self.call.manager.may_see(vhost);
        self.last = Some((vhost.clone(), is_seen));
        is_seen
    }
}

/// Why an order did not happen.
pub(super) enum Refused {
    /// The broker says no.
    By(Refusal),
    /// It did not come that far.
    Before(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Before(failure)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::By(refusal)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::By(refusal) => Self::from(refusal),
            Refused::Before(failure) => failure,
        }
    }
}

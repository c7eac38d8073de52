//! Who asks, and what they may see and do with the broker itself.
//!
//! The broker decides; here it is only asked.

use std::sync::Arc;

use axum::http::StatusCode;
use polymq_broker::{BrokerHandle, access::Principal};
use polymq_contract::{Answer, Command, Refusal};
use polymq_model::{RequestId, UserName, VhostName};
use tokio::sync::Semaphore;

use super::problems::missing_role;
use crate::{call::Call, client::Client, problem::Problem};

/// Calls of the whole process that read stores or many objects at a time.
static ROOM: Semaphore = Semaphore::const_new(8);

/// What an operation needs its user to be, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// May see everything.
    Monitoring,
    /// May change everything.
    Administrator,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Monitoring => "monitoring",
            Self::Administrator => "administrator",
        }
    }

    fn is_in(self, broker: &BrokerHandle, who: &Principal) -> bool {
        let record = broker.access().user(who.user.as_str());
        let tags = record.as_ref().map(|record| record.tags.as_slice()).unwrap_or_default();
        tags.iter().any(|tag| tag == "administrator" || tag == self.as_str())
    }
}

/// Somebody who has logged in.
pub(super) struct Caller {
    client: Arc<Client>,
    broker: BrokerHandle,
    /// Who it is.
    pub(super) who: Principal,
}

impl Caller {
    /// Whoever asks, in the virtual host of the path.
    ///
    /// Errors: nobody is shown, the login is refused, or the user may not enter the virtual host.
    pub(super) async fn in_vhost(call: &Call) -> Result<Self, Problem> {
        Ok(Self::new(call, call.client().await?))
    }

    /// Whoever asks, in no virtual host.
    ///
    /// Errors: nobody is shown, or the login is refused.
    pub(super) async fn anywhere(call: &Call) -> Result<Self, Problem> {
        Ok(Self::new(call, call.identity().await?))
    }

    /// Whoever asks, with a role, in no virtual host.
    ///
    /// Errors: as of [`anywhere`](Self::anywhere), and the role is missing.
    pub(super) async fn with_role(call: &Call, role: Role) -> Result<Self, Problem> {
        let caller = Self::anywhere(call).await?;
        caller.needs(role)?;
        Ok(caller)
    }

    fn new(call: &Call, client: Arc<Client>) -> Self {
        let broker = call.site.watched.broker.clone();
        let who = Principal { user: client.user().clone(), impersonator: client.is_impersonator() };
        Self { client, broker, who }
    }

    /// The broker.
    pub(super) fn broker(&self) -> &BrokerHandle {
        &self.broker
    }

    /// Whether the caller has a role.
    pub(super) fn has(&self, role: Role) -> bool {
        role.is_in(&self.broker, &self.who)
    }

    /// Errors: the caller has not.
    pub(super) fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.has(role) { Ok(()) } else { Err(missing_role(role.as_str())) }
    }

    /// Whether the caller may see that an object is there: with any right to it, or because it
    /// may see everything.
    pub(super) fn sees(&self, vhost: &VhostName, kind: &str, name: &str) -> bool {
        self.has(Role::Monitoring) || self.broker.may_see(&self.who, vhost, kind, name)
    }

    /// Another user, with nothing that a token may have taken from it.
    pub(super) fn someone(&self, user: UserName) -> Principal {
        Principal { user, impersonator: false }
    }

    /// Gives an order that has an answer, in the caller's name.
    ///
    /// Errors: those of the broker, about `object`.
    pub(super) async fn ask(
        &self,
        object: &str,
        command: impl FnOnce(RequestId) -> Command,
    ) -> Result<Answer, Problem> {
        self.client.ask(command).await.map_err(|refusal| Problem::refused(&refusal, object))
    }

    /// Runs something that reads the store or looks at many objects, on a thread that may block.
    ///
    /// Errors: those of the work, about `object`; too much of this goes on already.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        object: &'static str,
        work: impl FnOnce(&BrokerHandle, &Principal) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let (broker, who) = (self.broker.clone(), self.who.clone());
        blocking(move || work(&broker, &who)).await?.map_err(|r| Problem::refused(&r, object))
    }
}

/// Runs something on a thread that may block.
///
/// Errors: too much of this goes on already.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let busy = || {
        let text = "the server is busy with other questions of this kind";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text).retry()
    };
    let place = tokio::time::timeout(std::time::Duration::from_secs(10), ROOM.acquire());
    let _place = place.await.map_err(|_| busy())?.map_err(|_| busy())?;
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(event = "request_failed", %error);
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this is an error of ours")
    })
}

/// The virtual host of the path as a name.
///
/// Errors: it is none.
pub(super) fn vhost_of(call: &Call) -> Result<VhostName, Problem> {
    VhostName::new(call.vhost())
        .map_err(|bad| Problem::bad("bad_name", bad.to_string()).at("vhost"))
}

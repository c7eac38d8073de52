//! Who asks, and what they may see and do with the broker itself.
//!
//! The broker decides; here it is only asked.

use std::sync::Arc;

use axum::http::StatusCode;
use polymq_broker::{BrokerHandle, Manager, Principal, Role};
use polymq_contract::{Answer, Command, Refusal};
use polymq_model::{RequestId, VhostName};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    problems::missing_role,
    route::{ADMINISTRATOR, MONITORING, POLICYMAKER},
};
use crate::{call::Call, client::Client, problem::Problem};

/// Calls of the whole process that read stores or many objects at a time.
static ROOM: Semaphore = Semaphore::const_new(8);

/// Somebody who has logged in.
pub(in crate::v1) struct Caller {
    client: Arc<Client>,
    broker: BrokerHandle,
    /// Who it is.
    pub(super) who: Principal,
}

impl Caller {
    /// Whoever asks, in the virtual host of the path.
    ///
    /// Errors: nobody is shown, the login is refused, the user may not enter the virtual host, or
    /// lacks the role that the operation says it needs.
    pub(super) async fn in_vhost(call: &Call) -> Result<Self, Problem> {
        let refused = match call.client().await {
            Ok(client) => return Self::new(call, client),
            Err(refused) => refused,
        };
        // Who monitors sees what is in every virtual host, without entering it.
        if refused.status() == StatusCode::FORBIDDEN && call.is_look() {
            let caller = Self::new(call, call.identity().await?)?;
            if caller.has(Role::Monitoring) {
                return Ok(caller);
            }
        }
        Err(refused)
    }

    /// Whoever asks, in a virtual host that is no part of the path.
    ///
    /// Errors: as of [`in_vhost`](Self::in_vhost).
    pub(in crate::v1) async fn in_named_vhost(call: &Call, vhost: &str) -> Result<Self, Problem> {
        Self::new(call, call.client_in(vhost).await?)
    }

    /// Whoever asks, in no virtual host.
    ///
    /// Errors: nobody is shown, the login is refused, or the role is missing that the operation
    /// says it needs.
    pub(super) async fn anywhere(call: &Call) -> Result<Self, Problem> {
        Self::new(call, call.identity().await?)
    }

    /// Errors: the operation needs a role that the caller has not.
    fn new(call: &Call, client: Arc<Client>) -> Result<Self, Problem> {
        let broker = call.site.watched.broker.clone();
        let who = client.principal().clone();
        let caller = Self { client, broker, who };
        let may = match call.permission() {
            ADMINISTRATOR => caller.needs(Role::Administrator),
            POLICYMAKER => caller.needs(Role::Policymaker),
            MONITORING => caller.needs(Role::Monitoring),
            _ => Ok(()),
        };
        if may.is_err() && !call.is_look() {
            let (action, object) = call.asked();
            caller.manage(call).audit_refused(action, object);
        }
        may.map(|()| caller)
    }

    /// True once the broker has ended the login, as it does with a user who is deleted.
    pub(super) fn is_gone(&self) -> bool {
        self.client.ended().is_some_and(|ended| !ended.shutdown)
    }

    /// The broker.
    pub(super) fn broker(&self) -> &BrokerHandle {
        &self.broker
    }

    /// The caller as somebody who manages the broker. What it changes is written down with where
    /// the request came from.
    pub(super) fn manage(&self, call: &Call) -> Manager {
        self.broker.manage(&self.who, call.socket.origin())
    }

    /// Writes down a change that was made in the caller's name. Nothing secret may be in it.
    pub(super) fn audit(
        &self,
        call: &Call,
        action: &'static str,
        object: String,
        (before, after): (Value, Value),
    ) {
        self.manage(call).audit(action, object, before, after);
    }

    /// Whether the caller has a role.
    pub(super) fn has(&self, role: Role) -> bool {
        self.broker.access().tags_of(&self.who).include(role)
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
    pub(in crate::v1) async fn blocking<T: Send + 'static>(
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

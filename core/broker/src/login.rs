//! The door to whoever checks passwords. Hashing costs milliseconds, so it never runs on a
//! connection's task.

use std::{any::Any, sync::Arc};

use parking_lot::Mutex;
use polymq_contract::{Account, KnownUser, Login, Peer, Refusal, RefusalKind, Secret};
use polymq_model::UserName;

use crate::{
    BrokerHandle,
    access::{Credentials, Grant, Principal, Role},
    core::Core,
    counters::{add, protocol_index},
    vhost::Vhost,
};

/// State of a login that takes several steps; opaque to the broker.
#[derive(Default)]
pub struct Conversation(pub Mutex<Option<Box<dyn Any + Send>>>);

/// What a step of a login came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginStep {
    /// The client is to answer this.
    Challenge(Vec<u8>),
    /// The client is this user.
    Done {
        /// The user; the broker looks up its record.
        user: UserName,
        /// Last message for the client.
        server_final: Vec<u8>,
        /// What the token says that the client has shown.
        grant: Option<Arc<Grant>>,
    },
}

/// Called once with the result of a step, on any thread.
pub type LoginReply = Box<dyn FnOnce(Result<LoginStep, Refusal>) + Send>;

/// Checks logins.
pub trait Authenticator: Send + Sync {
    /// Takes one step. Never blocks: slow work happens elsewhere and `reply` is called from there.
    ///
    /// Every wrong login is refused with kind `LoginFailed` and the same text, whatever was wrong.
    fn step(
        &self,
        conversation: &Arc<Conversation>,
        login: Login,
        peer: &Arc<Peer>,
        reply: LoginReply,
    );

    /// Hashes a password for the store. Never blocks.
    ///
    /// Errors: kind `Limit` when too many wait.
    fn hash(&self, password: Secret, reply: HashReply);
}

/// Called once with what proves a password, on any thread.
pub type HashReply = Box<dyn FnOnce(Result<Credentials, Refusal>) + Send>;

/// Accepts anybody under the name they give; for tests.
#[derive(Debug, Default)]
pub struct AcceptEverybody;

impl Authenticator for AcceptEverybody {
    fn step(&self, _: &Arc<Conversation>, login: Login, peer: &Arc<Peer>, reply: LoginReply) {
        let user = match login {
            Login::Password { user, .. } => user,
            Login::Certificate { identity } => identity,
            Login::Configured => {
                let account = peer.account.as_ref().and_then(Account::configured);
                account.map_or_else(String::new, ToString::to_string)
            }
            Login::Anonymous | Login::ScramFirst { .. } | Login::ScramFinal { .. } => {
                "guest".to_owned()
            }
        };
        reply(match UserName::new(user) {
            Ok(user) => Ok(LoginStep::Done { user, server_final: Vec::new(), grant: None }),
            Err(bad) => Err(Refusal::new(RefusalKind::LoginFailed, bad.to_string())),
        });
    }

    fn hash(&self, _: Secret, reply: HashReply) {
        // Nobody looks at it.
        reply(Ok(Credentials::none()));
    }
}

impl Core {
    /// Lets somebody in who has proved who it is.
    ///
    /// Errors: kind `LoginFailed` for a user of loopback only who comes from elsewhere; kind
    /// `Banned` for one who is.
    pub(crate) fn admit(
        &self,
        user: UserName,
        grant: Option<Arc<Grant>>,
        peer: &Peer,
    ) -> Result<Principal, Refusal> {
        let record = self.access.user(user.as_str());
        if record.is_some_and(|record| record.loopback_only) && !peer.is_loopback {
            let text = format!("user '{user}' can only connect via localhost");
            return Err(Refusal::new(RefusalKind::LoginFailed, text));
        }
        self.bans.check_user(&user, self.clock_ms())?;
        let certificate_until_ms = peer.tls.as_ref().and_then(|tls| tls.certificate_until_ms);
        let mut who = Principal { user, impersonator: false, grant, certificate_until_ms };
        // TLS lets one in until the clock says so, which may be a tick behind.
        if let Some(reason) = self.why_over(&who) {
            return Err(Refusal::new(RefusalKind::LoginFailed, reason));
        }
        who.impersonator = self.access.tags_of(&who).impersonate();
        Ok(who)
    }

    /// The virtual host, for somebody who may enter it. Whoever may not is told the same of one
    /// that is not there, unless it may see all of them.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub(crate) fn enter(&self, name: &str, who: &Principal) -> Result<Arc<Vhost>, Refusal> {
        match self.vhost(name) {
            Ok(vhost) if self.access.may_open(&vhost.name, who) => Ok(vhost),
            Err(missing) if self.access.tags_of(who).include(Role::Monitoring) => Err(missing),
            Ok(_) | Err(_) => {
                let text = format!("access to vhost '{name}' refused for user '{}'", who.user);
                Err(Refusal::new(RefusalKind::Denied, text))
            }
        }
    }

    /// Who a peer is that has logged in before and shows nothing else, as the step of a login.
    ///
    /// Errors: kind `LoginFailed` when its token is over.
    pub(crate) fn known(&self, login: &Login, peer: &Peer) -> Option<Result<LoginStep, Refusal>> {
        let Some(Account::Known(known)) = &peer.account else { return None };
        let has_certificate = peer.tls.as_ref().is_some_and(|tls| tls.certificate_user.is_some());
        let identity = match login {
            Login::Anonymous => "",
            Login::Certificate { identity } if !has_certificate => identity,
            _ => return None,
        };
        let who: &Principal = known.known_as()?;
        if !identity.is_empty() && identity != who.user.as_str() {
            return Some(Err(Refusal::new(RefusalKind::LoginFailed, "the login is another's")));
        }
        if let Some(reason) = self.why_over(who) {
            return Some(Err(Refusal::new(RefusalKind::LoginFailed, reason)));
        }
        let (user, grant) = (who.user.clone(), who.grant.clone());
        Some(Ok(LoginStep::Done { user, server_final: Vec::new(), grant }))
    }

    /// Counts a login, and logs one that was refused.
    pub(crate) fn note_login<T>(&self, protocol: usize, peer: &Peer, login: &Result<T, Refusal>) {
        let counters = self.counters.at(protocol);
        match login {
            Ok(_) => add(&counters.logins, 1),
            Err(refusal) => {
                add(&counters.logins_failed, 1);
                let from = peer.address.map(|a| a.to_string()).unwrap_or_default();
                tracing::debug!(event = "login_refused", %from, reason = %refusal.text);
            }
        }
    }
}

impl Principal {
    /// Makes a connection theirs that shows no credentials, whatever protocol it speaks.
    pub fn account(&self) -> Account {
        Account::Known(KnownUser::new(self.clone()))
    }
}

impl BrokerHandle {
    /// Checks a login that takes one step, for a protocol whose requests log in by themselves.
    /// `reply` is called once, on any thread.
    ///
    /// The limits, bans and counters are those of every other login. Errors: kind `LoginFailed`,
    /// kind `Limit`.
    pub fn log_in(
        &self,
        protocol: &'static str,
        login: Login,
        peer: &Arc<Peer>,
        reply: impl FnOnce(Result<Principal, Refusal>) + Send + 'static,
    ) {
        let (core, from) = (self.0.clone(), Arc::clone(peer));
        let protocol = protocol_index(protocol);
        let done = Box::new(move |step: Result<LoginStep, Refusal>| {
            let admitted = step.and_then(|step| match step {
                LoginStep::Done { user, grant, .. } => core.admit(user, grant, &from),
                LoginStep::Challenge(_) => {
                    let text = "this login takes more than one step";
                    Err(Refusal::new(RefusalKind::LoginFailed, text))
                }
            });
            core.note_login(protocol, &from, &admitted);
            reply(admitted);
        });
        self.0.authenticator.step(&Arc::default(), login, peer, done);
    }
}

//! Logging in, and opening a virtual host.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use polymq_contract::{Answer, Command, Event, Login, Refusal, RefusalKind};
use polymq_model::RequestId;

use super::{BrokerConnection, not_open};
use crate::{access::Principal, counters::add, login::LoginStep, tenants::Seat};

/// Who the connection is, set once by whichever thread finishes the login.
#[derive(Default)]
pub(super) struct Identity(ArcSwapOption<Principal>);

impl Identity {
    pub(super) fn principal(&self) -> Option<Arc<Principal>> {
        self.0.load_full()
    }
}

impl BrokerConnection {
    pub(super) fn authenticate(&mut self, request: RequestId, login: Login) {
        let (core, identity) = (self.core.clone(), self.identity.clone());
        let (outbox, protocol, peer) = (self.outbox.clone(), self.protocol, self.peer.clone());
        let id = self.id;
        let reply = Box::new(move |step: Result<LoginStep, Refusal>| {
            let counters = core.counters.at(protocol);
            let answer = match step {
                Ok(LoginStep::Challenge(bytes)) => Ok(Answer::Challenge(bytes)),
                Ok(LoginStep::Done { user, server_final }) => {
                    let record = core.access.user(user.as_str());
                    let loopback_only = record.as_ref().is_some_and(|r| r.loopback_only);
                    let same = identity.principal().is_none_or(|who| who.user == user);
                    if loopback_only && !peer.is_loopback {
                        let text = format!("user '{user}' can only connect via localhost");
                        Err(Refusal::new(RefusalKind::LoginFailed, text))
                    } else if !same {
                        let text = "a connection cannot log in again as another user";
                        Err(Refusal::new(RefusalKind::LoginFailed, text))
                    } else {
                        let impersonator =
                            record.is_some_and(|r| r.tags.iter().any(|tag| tag == "impersonator"));
                        identity
                            .0
                            .store(Some(Arc::new(Principal { user: user.clone(), impersonator })));
                        if let Some(record) = core.connections.lock().get_mut(&id) {
                            record.user = Some(user.clone());
                        }
                        Ok(Answer::Authenticated { user, impersonator, server_final })
                    }
                }
                Err(refusal) => Err(refusal),
            };
            match &answer {
                Ok(Answer::Authenticated { .. }) => add(&counters.logins, 1),
                Ok(_) => {}
                Err(refusal) => {
                    add(&counters.logins_failed, 1);
                    let from = peer.address.map(|a| a.to_string()).unwrap_or_default();
                    tracing::debug!(event = "login_refused", %from, reason = %refusal.text);
                }
            }
            outbox.push(Event::Answered { request, answer: Box::new(answer) });
        });
        self.core.authenticator.step(&self.conversation, login, &self.peer, reply);
    }

    pub(super) fn open_vhost(&mut self, request: RequestId, name: Option<String>) {
        let name = name.unwrap_or_else(|| self.peer.vhost.as_str().to_owned());
        let opened = match self.identity.principal() {
            None => Err(Refusal::new(RefusalKind::LoginFailed, "nobody has logged in")),
            Some(who) => self.core.vhost(&name).and_then(|vhost| {
                if !self.core.access.may_open(&vhost.name, &who.user) {
                    let text = format!("access to vhost '{name}' refused for user '{}'", who.user);
                    return Err(Refusal::new(RefusalKind::Denied, text));
                }
                self.seat = None;
                // Before the seat is taken, so that a deletion either refuses it or tells us.
                if let Some(record) = self.core.connections.lock().get_mut(&self.id) {
                    record.vhost = Some(vhost.name.clone());
                }
                self.seat = Some(Seat::take(&vhost, &self.core.users, &who.user)?);
                Ok(vhost)
            }),
        };
        let answer = match opened {
            Ok(vhost) => {
                self.vhost = Some(vhost);
                Ok(Answer::VhostOpened)
            }
            Err(refusal) => Err(refusal),
        };
        self.answer(request, answer, None);
    }

    /// What others are shown of the connection changes.
    pub(super) fn present(&mut self, command: Command) {
        match command {
            Command::OpenChannel { request, channel } => self.open_channel(request, channel),
            Command::CloseChannel { channel } => self.close_channel(channel),
            Command::Introduce(introduction) => self.facts.introduce(*introduction),
            _ => {}
        }
    }

    pub(super) fn open_channel(&mut self, request: RequestId, channel: u32) {
        let opened = match &mut self.seat {
            Some(seat) => seat.open_channel(),
            None => Err(not_open()),
        };
        if opened.is_ok() {
            self.facts.open_channel(channel);
        }
        self.answer(request, opened.map(|()| Answer::Done), None);
    }

    pub(super) fn close_channel(&mut self, channel: u32) {
        self.facts.close_channel(channel);
        if let Some(seat) = &mut self.seat {
            seat.close_channel();
        }
    }
}

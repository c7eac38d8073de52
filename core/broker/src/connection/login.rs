//! Logging in, and opening a virtual host.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwapOption;
use polymq_contract::{Answer, Command, Event, Login, Refusal, RefusalKind};
use polymq_model::RequestId;

use super::{BrokerConnection, not_open};
use crate::{access::Principal, counters::add, login::LoginStep, tenants::Seat};

/// Who the connection is, set by whichever thread finishes a login.
#[derive(Default)]
pub(super) struct Identity {
    who: ArcSwapOption<Principal>,
    /// Set when a later login may have changed the rights.
    is_renewed: AtomicBool,
}

impl Identity {
    pub(super) fn principal(&self) -> Option<Arc<Principal>> {
        self.who.load_full()
    }

    /// True once after a later login.
    pub(super) fn take_renewed(&self) -> bool {
        self.is_renewed.load(Ordering::Acquire) && self.is_renewed.swap(false, Ordering::AcqRel)
    }

    /// Errors: kind `LoginFailed` when the connection is somebody else already.
    fn become_known(&self, who: Principal) -> Result<Arc<Principal>, Refusal> {
        let known = self.principal();
        if known.as_ref().is_some_and(|known| known.user != who.user) {
            let text = "a connection cannot log in again as another user";
            return Err(Refusal::new(RefusalKind::LoginFailed, text));
        }
        let who = Arc::new(who);
        self.who.store(Some(Arc::clone(&who)));
        self.is_renewed.store(known.is_some(), Ordering::Release);
        Ok(who)
    }
}

impl BrokerConnection {
    /// Whoever uses the connection has logged in before it was made.
    ///
    /// Errors: kind `LoginFailed` when the connection is somebody else already.
    pub(crate) fn become_known(&self, who: Principal) -> Result<(), Refusal> {
        let who = self.identity.become_known(who)?;
        self.core.know_user(self.id, &who);
        Ok(())
    }

    /// A login, the first or a later one of the same user.
    pub(super) fn authenticate(&mut self, request: RequestId, login: Login) {
        // Only tokens run out. Whoever has shown a password need not show another, and RabbitMQ
        // takes whatever it shows.
        if let (Some(who), Login::Password { .. }) = (self.identity.principal(), &login)
            && who.grant.is_none()
        {
            let (user, impersonator) = (who.user.clone(), who.impersonator);
            let answer = Answer::Authenticated { user, impersonator, server_final: Vec::new() };
            return self.answer(request, Ok(answer), None);
        }
        let (core, identity) = (self.core.clone(), self.identity.clone());
        let (outbox, protocol, peer) = (self.outbox.clone(), self.protocol, self.peer.clone());
        let id = self.id;
        let reply = Box::new(move |step: Result<LoginStep, Refusal>| {
            let answer = match step {
                Ok(LoginStep::Challenge(bytes)) => Ok(Answer::Challenge(bytes)),
                Ok(LoginStep::Done { user, server_final, grant }) => {
                    let admitted = core
                        .admit(user, grant, &peer)
                        .and_then(|who| identity.become_known(who))
                        .map(|who| {
                            core.know_user(id, &who);
                            if identity.is_renewed.load(Ordering::Acquire) {
                                outbox.nudge();
                            }
                            let Principal { user, impersonator, .. } = &*who;
                            let (user, impersonator) = (user.clone(), *impersonator);
                            Answer::Authenticated { user, impersonator, server_final }
                        });
                    core.note_login(protocol, &peer, &admitted);
                    admitted
                }
                Err(refusal) => {
                    let failed = Err(refusal);
                    core.note_login(protocol, &peer, &failed);
                    failed
                }
            };
            outbox.push(Event::Answered { request, answer: Box::new(answer) });
        });
        match self.core.known(&login, &self.peer) {
            Some(step) => reply(step),
            None => self.core.authenticator.step(&self.conversation, login, &self.peer, reply),
        }
    }

    pub(super) fn open_vhost(&mut self, request: RequestId, name: Option<String>) {
        let name = name.unwrap_or_else(|| self.peer.vhost.as_str().to_owned());
        let opened = match self.identity.principal() {
            None => Err(Refusal::new(RefusalKind::LoginFailed, "nobody has logged in")),
            Some(who) => self.core.enter(&name, &who).and_then(|vhost| {
                self.seat = None;
                // Before the seat is taken, so that a deletion either refuses it or tells us.
                if let Some(record) = self.core.connections.lock().get_mut(&self.id) {
                    record.vhost = Some(vhost.name.clone());
                }
                let seat = Seat::take(&vhost, &self.core.users, &who.user, self.is_visit)?;
                self.seat = Some(seat);
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
            Command::DescribeChannel { channel, mode } => self.facts.group(channel).describe(mode),
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
            add(&self.core.counters.total.channels_opened, 1);
        }
        self.answer(request, opened.map(|()| Answer::Done), None);
    }

    pub(super) fn close_channel(&mut self, channel: u32) {
        let closed = self.facts.close_channel(channel);
        add(&self.core.counters.total.channels_closed, u64::from(closed));
        if let Some(seat) = &mut self.seat {
            seat.close_channel();
        }
    }
}

//! From CONNECT to CONNECTED, and good-bye.

use polymq_contract::{
    Answer, Command as Order, Effects, Introduction, Login, Refusal, RefusalKind, Secret,
};
use polymq_model::Now;

use crate::{
    codec::{
        Command, Frame, Version,
        writer::{Connected, put_connected},
    },
    heart_beat,
    receipts::Wait,
    refusal::{Failure, Step},
    session::{Pending, Phase, Session, enter},
};

impl Session {
    /// The first frame: CONNECT or STOMP.
    pub(crate) fn on_connect(&mut self, frame: &Frame<'_>, effects: &mut Effects) -> Step {
        if frame.command != Command::Connect {
            return Err(Failure::unexpected("the first frame is not CONNECT or STOMP"));
        }
        let accepted = frame.find("accept-version");
        let version = Version::negotiate(accepted.as_deref())
            .ok_or_else(|| Failure::version(accepted.as_deref().unwrap_or_default()))?;
        self.version = version;
        // Version 1.0 lets people put a space behind the colon; later ones take all of a value.
        let value = |name| match version {
            Version::V10 => frame.find(name).map(std::borrow::Cow::into_owned),
            Version::V11 | Version::V12 => frame.find_raw(name).map(str::to_owned),
        };
        if let Some(text) = frame.find("heart-beat")
            && version != Version::V10
        {
            self.heart_beats_asked = heart_beat::parse(&text).ok_or_else(|| {
                let text = format!("header 'heart-beat' is '{text}', not two numbers");
                Failure::malformed(text)
            })?;
        }
        self.host = value("host").filter(|host| !host.is_empty());
        let has_certificate =
            self.peer.tls.as_ref().is_some_and(|tls| tls.certificate_user.is_some());
        let login = match (value("login"), value("passcode")) {
            (None, None) if has_certificate => Login::Certificate { identity: String::new() },
            (None, None) => Login::Anonymous,
            (user, passcode) => Login::Password {
                user: user.unwrap_or_default(),
                password: Secret::new(passcode.unwrap_or_default()),
            },
        };
        self.phase = Phase::Connecting;
        let request = self.ask(Pending::Login);
        effects.commands.push(Order::Authenticate { request, login: Box::new(login) });
        Ok(())
    }

    /// The answer to the login.
    pub(crate) fn on_logged_in(
        &mut self,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) -> Step {
        match answer {
            Ok(Answer::Authenticated { user, impersonator, .. }) => {
                self.user = user.as_str().to_owned();
                self.impersonator = impersonator;
                effects.logged_in = true;
                let introduction = Introduction {
                    protocol: match self.version {
                        Version::V10 => "STOMP 1.0",
                        Version::V11 => "STOMP 1.1",
                        Version::V12 => "STOMP 1.2",
                    },
                    ..Introduction::default()
                };
                effects.commands.push(Order::Introduce(Box::new(introduction)));
                self.open_vhost(self.host.clone(), effects);
                Ok(())
            }
            Ok(_) => Err(Failure::of_kind(RefusalKind::LoginFailed, "login refused")),
            Err(refusal) => Err(Failure::refused(&refusal)),
        }
    }

    fn open_vhost(&mut self, vhost: Option<String>, effects: &mut Effects) {
        let request = self.ask(Pending::Vhost);
        effects.commands.push(Order::OpenVhost { request, vhost });
    }

    /// The virtual host is open, or not.
    pub(crate) fn on_vhost(
        &mut self,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) -> Step {
        if let Err(refusal) = answer {
            // Many clients name the machine here, because the specification asks for that.
            let is_machine = refusal.kind == RefusalKind::NotFound
                && self.host.take().is_some()
                && !self.shared.settings.strict_host;
            if is_machine {
                self.open_vhost(None, effects);
                return Ok(());
            }
            return Err(Failure::refused(&refusal));
        }
        self.phase = Phase::Open;
        let heart_beat = self.heart_beat.start(self.heart_beats_asked, now.instant);
        let connected = Connected { version: self.version, session: &self.name, heart_beat };
        put_connected(&connected, effects.out.frame());
        enter(effects);
        Ok(())
    }

    /// DISCONNECT. Its receipt says that everything before it holds.
    pub(crate) fn on_good_bye(&mut self, frame: &Frame<'_>, effects: &mut Effects) {
        let Some(receipt) = frame.find_raw("receipt") else {
            return self.close("client", "the client disconnected", effects);
        };
        let request = self.fresh_request();
        self.receipts.expect(Wait::Disconnect(request), Some(receipt));
        self.phase = Phase::Leaving;
        // A transaction of nothing is answered when what came before is on the disk.
        self.commit(request, Vec::new(), Vec::new(), effects);
    }
}

//! The stream to a server that we join as a component (XEP-0114). We are the one who connects.

use polymq_contract::{Answer, Command, Login, Refusal};

use super::{Phase, Session, Turn};
use crate::{
    error::StreamError,
    sha1,
    xml::{Element, ns},
};

impl Session {
    /// The server's stream header: its id goes into the handshake.
    pub(super) fn on_server_header(&mut self, header: &Element, turn: &mut Turn<'_>) {
        let Some(component) = self.component.clone() else { return };
        let Some(id) = header.get("id") else {
            let error = StreamError::new("bad-format", "the server's stream has no id");
            return self.fail(error, turn);
        };
        let proof = [id.as_bytes(), component.secret.expose()].concat();
        let handshake = Element::new(ns::CLIENT, "handshake").text(sha1::hex(&proof));
        self.put_raw(&handshake, turn);
        self.phase = Phase::Negotiating;
    }

    /// What comes before stanzas: `<handshake/>`, when the server knows the secret too.
    pub(super) fn on_handshake(&mut self, element: &Element, turn: &mut Turn<'_>) {
        if !element.is(ns::CLIENT, "handshake") {
            let error = StreamError::new("not-authorized", "the handshake is not answered");
            return self.fail(error, turn);
        }
        let login = Box::new(Login::Configured);
        self.ask_and_wait(
            turn,
            |request| Command::Authenticate { request, login },
            |session, answer, turn| session.on_component_user(answer, turn),
        );
    }

    fn on_component_user(&mut self, answer: Result<Answer, Refusal>, turn: &mut Turn<'_>) {
        match answer {
            Ok(Answer::Authenticated { user, .. }) => {
                self.user = user.as_str().to_owned();
                turn.effects.logged_in = true;
                self.ask_and_wait(
                    turn,
                    |request| Command::OpenVhost { request, vhost: None },
                    |session, answer, turn| match answer {
                        Ok(_) => {
                            session.phase = Phase::Bound;
                            tracing::info!(event = "component_joined", domain = session.jid.domain);
                        }
                        Err(refusal) => session.refuse_component(&refusal, turn),
                    },
                );
            }
            Ok(_) => {}
            Err(refusal) => self.refuse_component(&refusal, turn),
        }
    }

    fn refuse_component(&mut self, refusal: &Refusal, turn: &mut Turn<'_>) {
        tracing::error!(event = "component_refused", domain = self.jid.domain, %refusal);
        self.close_stream("login_refused", &refusal.text, turn);
    }
}

//! SASL (RFC 6120, section 6): PLAIN, SCRAM with and without channel binding, EXTERNAL.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use polymq_contract::{
    Answer, Command, Introduction, Login as Step, Refusal, Scram, ScramHash, Secret,
};

use super::{Session, Turn};
use crate::{
    error::{StreamError, login_condition},
    jid::Jid,
    xml::{Element, ns},
};

/// Failed tries on one stream before it ends.
const TRIES_MAX: u32 = 3;

/// Where the login stands.
#[derive(Debug, Default)]
pub(super) struct Login {
    /// The client's final message of SCRAM is due.
    is_challenged: bool,
    /// PLAIN has been chosen without its message, which is due.
    awaits: Option<Mechanism>,
    tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    External,
    Scram(Scram),
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::External => "EXTERNAL",
            Self::Scram(scram) => match (scram.hash, scram.is_bound) {
                (ScramHash::Sha1, false) => "SCRAM-SHA-1",
                (ScramHash::Sha1, true) => "SCRAM-SHA-1-PLUS",
                (ScramHash::Sha256, false) => "SCRAM-SHA-256",
                (ScramHash::Sha256, true) => "SCRAM-SHA-256-PLUS",
            },
        }
    }
}

impl Session {
    /// The mechanisms of this connection, best first.
    fn mechanisms(&self) -> Vec<Mechanism> {
        let offered = self.shared.settings.offer.now();
        let tls = self.peer.tls.as_deref();
        let has_binding = tls.is_some_and(|tls| {
            tls.bindings.exporter.is_some() || !tls.bindings.server_end_point.is_empty()
        });
        let certificate = tls.is_some_and(|tls| tls.certificate_user.is_some());
        let mut all = Vec::new();
        if (offered.external && certificate) || self.peer.is_known() {
            all.push(Mechanism::External);
        }
        let hashes =
            [(ScramHash::Sha256, offered.scram_sha_256), (ScramHash::Sha1, offered.scram_sha_1)];
        for is_bound in [true, false] {
            for (hash, _) in hashes.iter().filter(|(_, on)| *on && (has_binding || !is_bound)) {
                let scram = Scram { hash: *hash, is_bound, offers_bound: has_binding };
                all.push(Mechanism::Scram(scram));
            }
        }
        if offered.plain_for(&self.peer) {
            all.push(Mechanism::Plain);
        }
        all
    }

    /// What is offered before the login, with the channel bindings there are (XEP-0440).
    pub(super) fn sasl_features(&self) -> Vec<Element> {
        let mechanism = |m: Mechanism| Element::new(ns::SASL, "mechanism").text(m.name());
        let all = self.mechanisms();
        let list = Element::new(ns::SASL, "mechanisms").children(all.into_iter().map(mechanism));
        let mut features = vec![list];
        if let Some(tls) = &self.peer.tls {
            let mut bindings = Element::new(ns::SASL_BINDING, "sasl-channel-binding");
            let binding =
                |kind| Element::new(ns::SASL_BINDING, "channel-binding").attr("type", kind);
            if tls.bindings.exporter.is_some() {
                bindings = bindings.child(binding("tls-exporter"));
            }
            if !tls.bindings.server_end_point.is_empty() {
                bindings = bindings.child(binding("tls-server-end-point"));
            }
            if !bindings.nodes.is_empty() {
                features.push(bindings);
            }
        }
        features
    }

    pub(super) fn on_sasl(&mut self, element: &Element, turn: &mut Turn<'_>) {
        let content = element.content();
        let data = match content.trim() {
            "" => None,
            // RFC 6120, section 6.4.2: `=` is a message that is empty.
            "=" => Some(Vec::new()),
            text => match BASE64_STANDARD.decode(text) {
                Ok(data) => Some(data),
                Err(_) => return self.fail_login("incorrect-encoding", "", turn),
            },
        };
        match (&*element.name, data) {
            ("auth", data) => {
                let name = element.get("mechanism").unwrap_or_default();
                let chosen = self.mechanisms().into_iter().find(|m| m.name() == name);
                let Some(mechanism) = chosen else {
                    return self.fail_login("invalid-mechanism", "", turn);
                };
                self.login.is_challenged = false;
                match data {
                    Some(data) => self.begin(mechanism, data, turn),
                    None => {
                        self.login.awaits = Some(mechanism);
                        self.put_raw(&Element::new(ns::SASL, "challenge"), turn);
                    }
                }
            }
            ("response", data) => {
                let data = data.unwrap_or_default();
                if let Some(mechanism) = self.login.awaits.take() {
                    self.begin(mechanism, data, turn);
                } else if std::mem::take(&mut self.login.is_challenged) {
                    self.step(Step::ScramFinal { message: Secret::new(data) }, turn);
                } else {
                    self.fail_login("malformed-request", "no response is due", turn);
                }
            }
            ("abort", _) => {
                self.login.awaits = None;
                self.login.is_challenged = false;
                self.fail_login("aborted", "", turn);
            }
            _ => self.fail_login("malformed-request", "", turn),
        }
    }

    fn begin(&mut self, mechanism: Mechanism, data: Vec<u8>, turn: &mut Turn<'_>) {
        let step = match mechanism {
            Mechanism::Plain => match plain(&data, self.shared.domains.base()) {
                Some((_, false)) => return self.fail_login("invalid-authzid", "", turn),
                Some((step, true)) => Some(step),
                None => None,
            },
            Mechanism::External => String::from_utf8(data).ok().map(|identity| {
                // RFC 6120: the identity is an address; the certificate names its user.
                let jid = Jid::parse(&identity).filter(|jid| !jid.local.is_empty());
                let user = jid.and_then(|jid| polymq_model::address::user_from_local(&jid.local));
                Step::Certificate { identity: user.unwrap_or(identity) }
            }),
            Mechanism::Scram(scram) => Some(Step::ScramFirst { scram, message: Secret::new(data) }),
        };
        match step {
            Some(step) => self.step(step, turn),
            None => self.fail_login("malformed-request", "", turn),
        }
    }

    fn step(&mut self, login: Step, turn: &mut Turn<'_>) {
        let login = Box::new(login);
        self.ask_and_wait(
            turn,
            |request| Command::Authenticate { request, login },
            |session, answer, turn| session.on_step(answer, turn),
        );
    }

    fn on_step(&mut self, answer: Result<Answer, Refusal>, turn: &mut Turn<'_>) {
        match answer {
            Ok(Answer::Challenge(message)) => {
                self.login.is_challenged = true;
                let text = BASE64_STANDARD.encode(message);
                self.put_raw(&Element::new(ns::SASL, "challenge").text(text), turn);
            }
            Ok(Answer::Authenticated { user, impersonator, server_final }) => {
                self.impersonator = impersonator;
                let user = user.as_str().to_owned();
                let introduction = Introduction { protocol: "XMPP 1.0", ..Introduction::default() };
                turn.effects.commands.push(Command::Introduce(Box::new(introduction)));
                self.ask_and_wait(
                    turn,
                    |request| Command::OpenVhost { request, vhost: None },
                    move |session, answer, turn| {
                        session.on_vhost(user, &server_final, answer, turn);
                    },
                );
            }
            Ok(_) => self.fail_login("temporary-auth-failure", "", turn),
            Err(refusal) => {
                self.fail_login(login_condition(refusal.kind), &refusal.text, turn);
            }
        }
    }

    fn on_vhost(
        &mut self,
        user: String,
        server_final: &[u8],
        answer: Result<Answer, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = answer {
            let condition = match login_condition(refusal.kind) {
                "not-authorized" => "account-disabled",
                other => other,
            };
            return self.fail_login(condition, &refusal.text, turn);
        }
        let success = Element::new(ns::SASL, "success");
        let success = match server_final.is_empty() {
            true => success,
            false => success.text(BASE64_STANDARD.encode(server_final)),
        };
        self.put_raw(&success, turn);
        self.jid = Jid::of_user(&user, self.shared.domains.base());
        self.user = user;
        turn.effects.logged_in = true;
        self.clock.logged_in(turn.now);
        // RFC 6120, section 6.4.6: a new stream begins.
        self.is_open = false;
        self.restart();
    }

    fn fail_login(&mut self, condition: &'static str, text: &str, turn: &mut Turn<'_>) {
        let mut failure =
            Element::new(ns::SASL, "failure").child(Element::new(ns::SASL, condition));
        if !text.is_empty() {
            failure = failure.child(Element::new(ns::SASL, "text").text(text));
        }
        self.put_raw(&failure, turn);
        self.login.tries = self.login.tries.saturating_add(1);
        if self.login.tries >= TRIES_MAX {
            self.fail(StreamError::new("policy-violation", "too many failed logins"), turn);
        }
    }
}

/// RFC 4616: authorisation identity, user and password, separated by NUL. False when the first is
/// neither empty nor the user's own.
fn plain(message: &[u8], domain: &str) -> Option<(Step, bool)> {
    let mut parts = message.split(|byte| *byte == 0);
    let (identity, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || user.is_empty() {
        return None;
    }
    let identity = std::str::from_utf8(identity).ok()?;
    let user = std::str::from_utf8(user).ok()?.to_owned();
    let is_own = identity.is_empty()
        || identity == user
        || Jid::parse(identity).is_some_and(|jid| jid == Jid::of_user(&user, domain));
    Some((Step::Password { user, password: Secret::new(password) }, is_own))
}

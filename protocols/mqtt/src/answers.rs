//! Answers of the broker, and a second login on an open connection: section 4.12.1.

use polymq_contract::{Answer, Command, Effects, Login, Refusal, RefusalKind, Scram, Secret};
use polymq_model::{Now, RequestId};

use crate::{
    ask::Ask,
    codec::{Fault, Reason, ack::Auth},
    connect::SCRAM,
    session::Session,
};

/// Where a second login stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ReLogin {
    /// None is under way.
    #[default]
    Idle,
    /// The client's last message is due.
    Challenged,
}

impl Session {
    /// Hands an answer to the part of the session that asked.
    pub(crate) fn on_answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        match self.asked.answered(request) {
            Some(Ask::Login) => self.on_logged_in(answer, effects),
            Some(Ask::ReLogin) => self.on_logged_in_again(answer, effects),
            Some(Ask::Vhost) => self.on_vhost(answer, now, effects),
            Some(Ask::ClientSession) => self.on_client_session(answer, now, effects),
            Some(Ask::Subscribe(at)) => self.on_subscribed(at, answer, effects),
            Some(Ask::Unsubscribe(at)) => self.on_unsubscribed(at, answer, effects),
            Some(Ask::Remember) => self.on_remembered(request, answer, now, effects),
            Some(Ask::Resume(filter)) => {
                if let Err(refusal) = answer {
                    self.lose_subscription(filter, &refusal, effects);
                }
            }
            None => {}
        }
    }

    /// A subscription of an earlier connection cannot go on. The client is told by the end of the
    /// connection; the next one must not end in the same way, so the subscription is removed.
    fn lose_subscription(&mut self, filter: String, refusal: &Refusal, effects: &mut Effects) {
        let text = format!("the subscription `{filter}` has ended: {}", refusal.text);
        let may_pass = matches!(refusal.kind, RefusalKind::StoreFailed | RefusalKind::Limit);
        if !may_pass {
            let request = self.asked.ask(Ask::Resume(filter.clone()));
            effects.commands.push(Command::Unsubscribe { request, filter });
        }
        self.disconnect(Reason::ADMINISTRATIVE_ACTION, "subscription_lost", &text, effects);
    }

    /// AUTH on an open connection.
    pub(crate) fn on_re_authenticate(
        &mut self,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let auth = Auth::decode(body, self.limits.table_entries_max)?;
        // [MQTT-4.12.1-1]
        if self.client.auth_method.as_deref() != Some(auth.method) || auth.method != SCRAM {
            return Err(Fault::protocol("AUTH does not name the method of CONNECT"));
        }
        let message = Secret::new(auth.data);
        let login = match (auth.reason, self.re_login) {
            (Reason::RE_AUTHENTICATE, ReLogin::Idle) => {
                Login::ScramFirst { scram: Scram::SHA256, message }
            }
            (Reason::CONTINUE_AUTHENTICATION, ReLogin::Challenged) => Login::ScramFinal { message },
            _ => return Err(Fault::protocol("AUTH comes out of turn")),
        };
        self.authenticate(login, Ask::ReLogin, effects);
        Ok(())
    }

    fn on_logged_in_again(&mut self, answer: Result<Answer, Refusal>, effects: &mut Effects) {
        match answer {
            Ok(Answer::Challenge(message)) => {
                self.re_login = ReLogin::Challenged;
                self.put_auth(Reason::CONTINUE_AUTHENTICATION, &message, effects);
            }
            Ok(Answer::Authenticated { user, impersonator, server_final }) => {
                self.re_login = ReLogin::Idle;
                self.client.user = user.as_str().to_owned();
                self.client.impersonator = impersonator;
                self.put_auth(Reason::SUCCESS, &server_final, effects);
            }
            Ok(_) => self.close("bug", "the broker answered something else", effects),
            Err(refusal) => {
                let code = crate::refusal::codes(refusal.kind).disconnect;
                self.disconnect(code, "login_refused", &refusal.text, effects);
            }
        }
    }
}

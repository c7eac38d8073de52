//! The two steps of a login by SCRAM (RFC 5802).

use polymq_broker::{Conversation, LoginStep};
use polymq_contract::{Peer, Refusal, Scram, ScramHash};
use polymq_scram::{ClientFirst, Exchange, Verifier};

use super::{Attempt, Inner, random};
use crate::config::value::Mechanism;

impl Inner {
    pub(super) fn scram_first(
        &self,
        conversation: &Conversation,
        (scram, message): (Scram, &[u8]),
        peer: &Peer,
    ) -> Result<LoginStep, Refusal> {
        self.offers(match scram.hash {
            ScramHash::Sha1 => Mechanism::ScramSha1,
            ScramHash::Sha256 => Mechanism::ScramSha256,
        })?;
        let bindings = peer.tls.as_ref().map(|tls| tls.bindings.clone()).unwrap_or_default();
        let Ok(first) = ClientFirst::parse(message, scram, &bindings) else {
            let attempt = Attempt::new(String::new(), peer);
            return Err(self.refuse(&attempt, "malformed first message of SCRAM"));
        };
        let attempt = Attempt::new(first.user.clone(), peer);
        self.may_try(&attempt)?;
        let record = self.find(&first.user);
        let stored = record.and_then(|record| Verifier::find(&record.scram, scram.hash));
        let verifier = stored
            .unwrap_or_else(|| Verifier::of_nobody(scram.hash, &first.user, &self.process_key));
        let Ok(nonce) = random() else {
            return Err(self.refuse(&attempt, "the system gives no randomness"));
        };
        let exchange = Exchange::start(first, verifier, nonce);
        let challenge = exchange.server_first.clone().into_bytes();
        *conversation.0.lock() = Some(Box::new(exchange));
        Ok(LoginStep::Challenge(challenge))
    }

    pub(super) fn scram_final(
        &self,
        conversation: &Conversation,
        message: &[u8],
        peer: &Peer,
    ) -> Result<LoginStep, Refusal> {
        // Taken out, so that a second try needs a new nonce.
        let begun = conversation.0.lock().take();
        let Some(exchange) = begun.and_then(|begun| begun.downcast::<Exchange>().ok()) else {
            let attempt = Attempt::new(String::new(), peer);
            return Err(self.refuse(&attempt, "final message of SCRAM without a first one"));
        };
        let attempt = Attempt::new(exchange.user.clone(), peer);
        let Ok(server_final) = exchange.finish(message) else {
            return Err(self.refuse(&attempt, "wrong proof of SCRAM"));
        };
        let record = self.find(&attempt.user);
        self.admit(&attempt, record.as_deref(), server_final.into_bytes(), None)
    }
}

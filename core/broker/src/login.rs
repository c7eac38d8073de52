//! The door to whoever checks passwords. Hashing costs milliseconds, so it never runs on a
//! connection's task.

use std::{any::Any, sync::Arc};

use parking_lot::Mutex;
use polymq_contract::{Login, Peer, Refusal};
use polymq_model::UserName;

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
}

/// Accepts anybody under the name they give; for tests.
#[derive(Debug, Default)]
pub struct AcceptEverybody;

impl Authenticator for AcceptEverybody {
    fn step(&self, _: &Arc<Conversation>, login: Login, peer: &Arc<Peer>, reply: LoginReply) {
        let user = match login {
            Login::Password { user, .. } => user,
            Login::Certificate { identity } => identity,
            Login::Configured => {
                peer.account.as_ref().map_or_else(String::new, ToString::to_string)
            }
            Login::Anonymous | Login::ScramFirst { .. } | Login::ScramFinal { .. } => {
                "guest".to_owned()
            }
        };
        reply(match UserName::new(user) {
            Ok(user) => Ok(LoginStep::Done { user, server_final: Vec::new() }),
            Err(bad) => {
                Err(Refusal::new(polymq_contract::RefusalKind::LoginFailed, bad.to_string()))
            }
        });
    }
}

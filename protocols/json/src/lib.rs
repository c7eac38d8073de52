//! JSON over WebSocket: a small protocol of our own for browsers, `polymq.json.v1`.
//!
//! Whole messages in, commands to the broker out, and back. This crate does no I/O, reads no clock,
//! routes nothing and stores nothing. Frames, pings and close codes of WebSocket belong to the
//! driver; the JSON of messages to `polymq_model::json_form`.
#![forbid(unsafe_code)]

mod answer;
mod deliver;
mod op;
mod publish;
mod session;
mod subscribe;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use polymq_contract::{Counters, Login, Peer, Protocol, ProtocolSession, Recognised};
use polymq_model::{Format, Limits, Now, json_form::HTTP};

/// The subprotocol of WebSocket.
pub const SUBPROTOCOL: &str = "polymq.json.v1";

/// The protocol: makes a session for each client that WebSocket brings.
#[derive(Debug, Clone)]
pub struct Json {
    server: Arc<str>,
    counters: Arc<Counters>,
}

impl Json {
    /// The protocol of a server with this name.
    pub fn new(server: &str) -> Self {
        Self { server: server.into(), counters: Arc::default() }
    }
}

impl Protocol for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    /// It is spoken over WebSocket alone, where the path tells.
    fn recognise(&self, _: &[u8]) -> Recognised {
        Recognised::No
    }

    fn formats(&self) -> Vec<&'static Format> {
        vec![&HTTP]
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn session(&self, _: &Arc<Peer>, limits: &Arc<Limits>, _: Now) -> Box<dyn ProtocolSession> {
        let (server, counters) = (Arc::clone(&self.server), Arc::clone(&self.counters));
        Box::new(session::Session::new(server, counters, Arc::clone(limits)))
    }
}

/// The message with which somebody connects who has shown a login before, as with `Authorization`
/// of HTTP. `None` when it is no login of one step.
pub fn connect_message(login: &Login, vhost: Option<&str>) -> Option<Vec<u8>> {
    let connect = match login {
        Login::Password { user, password } => {
            let password = std::str::from_utf8(password.expose()).ok()?;
            serde_json::json!({
                "op": "connect", "user": user, "password": password, "vhost": vhost
            })
        }
        Login::Anonymous => serde_json::json!({ "op": "connect", "vhost": vhost }),
        Login::Certificate { .. }
        | Login::Configured
        | Login::ScramFirst { .. }
        | Login::ScramFinal { .. } => return None,
    };
    Some(connect.to_string().into_bytes())
}

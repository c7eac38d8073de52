//! The abuse cases: clients that waste connections, lie about lengths, guess passwords, ask for too
//! much, or do not read.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

#[path = "abuse/floods.rs"]
mod floods;
#[path = "abuse/guessing.rs"]
mod guessing;
#[path = "abuse/http.rs"]
mod http;
#[path = "abuse/lies.rs"]
mod lies;
#[path = "abuse/reader.rs"]
mod reader;
#[path = "abuse/served.rs"]
mod served;
#[path = "abuse/stomp.rs"]
mod stomp;
#[path = "abuse/strangers.rs"]
mod strangers;
#[path = "abuse/tls.rs"]
mod tls;
#[path = "abuse/websocket.rs"]
mod websocket;
#[path = "abuse/xmpp.rs"]
mod xmpp;

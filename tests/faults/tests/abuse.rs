//! Cases A1, A2, A3, A4 and A7: clients that waste connections, lie about lengths, or do not read.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

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
#[path = "abuse/websocket.rs"]
mod websocket;

//! The only crate that owns sockets: listeners, TLS, WebSocket frames, detection of protocols, and
//! the connection loop.
//!
//! [`Listener::bind`] takes a port, [`Driver::start`] serves it. Each connection is one task that
//! moves bytes between its socket and its `ProtocolSession`, and commands and events between the
//! session and the broker. The driver knows no protocol by name and nothing of what the broker
//! does.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod arrival;
mod certificate;
mod clock;
mod counters;
mod door;
mod driver;
mod ending;
mod gate;
mod handshakes;
mod heirs;
mod incoming;
mod input;
mod link;
mod listener;
mod outgoing;
mod pace;
mod pacer;
mod parting;
mod said;
mod socket;
mod timer;
mod tls;
mod websocket;
mod wire;

pub use certificate::CertificateField;
pub use counters::{CounterValues, DriverCounters};
pub use door::{Door, Entered, source_of};
pub use driver::Driver;
pub use incoming::{Guest, Incoming};
pub use listener::{Accepting, Bind, Listener, ListenerError, ListenerSpec, listen};
pub use outgoing::Outgoing;
pub use tls::{ClientCertificates, HttpsStream, Tls, TlsError, server_config};
pub use websocket::{Form, read_frames};

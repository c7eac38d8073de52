//! MQTT 3.1, 3.1.1 and 5.0, rule by rule: real bytes on one side, a broker played by the test on
//! the other.
//!
//! Numbers in square brackets are those of the normative statements of MQTT 5.0 unless said
//! otherwise.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "mqtt/auth.rs"]
mod auth;
#[path = "mqtt/connect.rs"]
mod connect;
#[path = "mqtt/delivery.rs"]
mod delivery;
#[path = "mqtt/ending.rs"]
mod ending;
#[path = "mqtt/malformed.rs"]
mod malformed;
#[path = "mqtt/properties.rs"]
mod properties;
#[path = "mqtt/publish.rs"]
mod publish;
#[path = "mqtt/remembered.rs"]
mod remembered;
#[path = "mqtt/subscribe.rs"]
mod subscribe;
#[path = "mqtt/world.rs"]
mod world;

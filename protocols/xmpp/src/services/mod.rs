//! What clients can address: the server, users, queues, topics and rooms.

pub(crate) mod carbons;
mod commands;
mod disco;
mod iq;
mod messages;
mod presence;
mod queues;
mod rooms;
mod roster;
pub(crate) mod state;
mod subscriptions;
mod topic_subscriptions;
mod topics;

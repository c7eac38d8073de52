//! The management API of RabbitMQ below `/api`, so that tools written for it work unchanged.
//!
//! Whatever changes something is an order to the broker in the name of whoever asks, or an
//! operation of its management; both decide by themselves who may. What is only looked at comes
//! from snapshots, on a thread that may take its time.

mod bindings;
mod call;
mod connections;
mod consumers;
pub(crate) mod definitions;
mod exchanges;
mod fixed;
mod health;
mod limits;
mod list;
mod livelog;
mod messages;
mod names;
mod node_numbers;
mod nodes;
mod overview;
mod parameters;
mod permissions;
mod policies;
mod queues;
mod quorum;
mod rates;
mod routes;
mod serve;
mod time;
mod users;
mod values;
mod vhosts;
mod wire;

#[cfg(test)]
pub(crate) use call::Needs;
pub(crate) use node_numbers::NodeHistory;
pub(crate) use nodes::ForgottenLogins;
#[cfg(test)]
pub(crate) use routes::ROUTES;
pub(crate) use serve::router;
pub(crate) use wire::{Failure, RABBITMQ_VERSION};

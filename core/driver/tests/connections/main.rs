//! The driver with a toy protocol and a toy broker.
#![forbid(unsafe_code)]

mod conversation;
mod endings;
mod fairness;
mod hasty;
mod lines;
mod listeners;
mod pressure;
mod strangers;
mod tls;
mod toy;
mod websocket;

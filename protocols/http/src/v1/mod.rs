//! The API of PolyMQ: one file per subject, one line here per operation.

mod convert;
mod documents;
mod management;
mod publish;
mod receive;
mod request;
mod streams;
mod subscribe;

use crate::api::Api;

pub(crate) use management::alarms;
pub(crate) use management::{Events, Replays, events};
pub(crate) use streams::{OF_EVENTS, Place, open_streams};
pub(crate) use subscribe::Readers;

/// All operations.
pub(crate) fn api() -> Api {
    management::routes(Api::new())
        .route(&publish::TO_EXCHANGE, publish::to_exchange)
        .route(&publish::TO_QUEUE, publish::to_queue)
        .route(&publish::MANY, publish::many)
        .route(&receive::RECEIVE, receive::receive)
        .route(&receive::ACK, receive::ack)
        .route(&receive::NACK, receive::nack)
        .route(&receive::EXTEND, receive::extend)
        .route(&receive::DELETE, receive::delete)
        .route(&subscribe::SUBSCRIBE, subscribe::subscribe)
        .route(&convert::EXPLAIN, convert::explain_conversion)
}

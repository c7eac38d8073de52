//! The API of PolyMQ: one file per subject, one line here per operation.

mod documents;
mod publish;

use crate::api::Api;

/// All operations.
pub(crate) fn api() -> Api {
    Api::new()
        .route(&publish::TO_EXCHANGE, publish::to_exchange)
        .route(&publish::TO_QUEUE, publish::to_queue)
        .route(&publish::MANY, publish::many)
}

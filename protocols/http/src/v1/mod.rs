//! The API of PolyMQ: one file per subject, one line here per operation.

mod caller;
mod dead_letters;
mod documents;
mod etag;
mod explain;
mod jobs;
mod list;
mod messages;
mod problems;
mod publish;
mod retained;
mod route;
mod scheduled;
mod shown;
mod stream;
mod value;

use crate::api::Api;

/// All operations.
pub(crate) fn api() -> Api {
    let api = Api::new()
        .route(&publish::TO_EXCHANGE, publish::to_exchange)
        .route(&publish::TO_QUEUE, publish::to_queue)
        .route(&publish::MANY, publish::many);
    [
        dead_letters::routes,
        explain::routes,
        jobs::routes,
        messages::routes,
        retained::routes,
        scheduled::routes,
    ]
    .into_iter()
    .fold(api, |api, routes| routes(api))
}

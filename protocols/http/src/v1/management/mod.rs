//! Management: one file per resource.

mod bans;
mod bindings;
mod caller;
mod cluster;
mod config;
mod connections;
mod consumers;
mod dead_letters;
mod definitions;
mod drain;
mod edit;
mod etag;
mod events;
mod exchanges;
mod explain;
mod for_rabbitmq;
mod jobs;
mod list;
mod listeners;
mod logs;
mod messages;
mod overview;
mod policies;
mod problems;
mod queues;
mod replay;
mod retained;
mod route;
mod scheduled;
mod session;
mod shown;
mod stream;
mod tokens;
mod topic;
mod traces;
mod unacked;
mod users;
mod value;
mod vhosts;

use crate::api::Api;

pub(super) use caller::Caller;
pub(crate) use overview::alarms;
pub(crate) use replay::Replays;
pub(crate) use stream::{Events, events};

/// Adds the operations of management.
pub(super) fn routes(api: Api) -> Api {
    [
        bans::routes,
        bindings::routes,
        cluster::routes,
        config::routes,
        connections::routes,
        consumers::routes,
        dead_letters::routes,
        definitions::routes,
        drain::routes,
        events::routes,
        exchanges::routes,
        explain::routes,
        jobs::routes,
        listeners::routes,
        logs::routes,
        messages::routes,
        overview::routes,
        policies::routes,
        queues::routes,
        retained::routes,
        scheduled::routes,
        session::routes,
        tokens::routes,
        traces::routes,
        unacked::routes,
        users::routes,
        vhosts::routes,
    ]
    .into_iter()
    .fold(api, |api, routes| routes(api))
}

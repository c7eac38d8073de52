//! Where a destination leads.

use polymq_model::{
    Limits,
    address::{BadStompDestination, StompDestination},
};

use crate::refusal::{Failure, Step};

/// An exchange and a routing key in dot form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Route {
    pub(crate) exchange: String,
    pub(crate) key: String,
    /// The key is a queue that is declared when it is missing.
    pub(crate) is_queue: bool,
}

impl Route {
    /// The way of a destination that is sent to; `exchange` is the one behind `/topic/`.
    pub(crate) fn of_send(destination: &str, exchange: &str, limits: &Limits) -> Step<Self> {
        let route = |exchange: &str, key: &str, is_queue| Self {
            exchange: exchange.to_owned(),
            key: key.to_owned(),
            is_queue,
        };
        let route = match parse(destination)? {
            StompDestination::Queue(name) => route("", &name, true),
            StompDestination::AmqQueue(name) | StompDestination::ReplyQueue(name) => {
                route("", &name, false)
            }
            StompDestination::Topic(key) => route(exchange, &key, false),
            StompDestination::Exchange { exchange, key } => {
                route(&exchange, key.as_deref().unwrap_or_default(), false)
            }
            StompDestination::TempQueue(_) => {
                let text = format!("destination '{destination}' stands in reply-to only");
                return Err(Failure::invalid(text));
            }
        };
        check_key(&route.key, limits)?;
        Ok(route)
    }
}

/// Errors: a destination that addresses nothing.
pub(crate) fn parse(destination: &str) -> Step<StompDestination<'_>> {
    StompDestination::parse(destination)
        .map_err(|error: BadStompDestination| Failure::invalid(error.to_string()))
}

/// Errors: a key that is longer or deeper than a topic may be.
pub(crate) fn check_key(key: &str, limits: &Limits) -> Step {
    if key.len() > limits.topic_bytes_max {
        let text = format!("a key has at most {} bytes", limits.topic_bytes_max);
        return Err(Failure::invalid(text));
    }
    let levels = key.split('.').count();
    if levels > limits.topic_levels_max {
        let max = limits.topic_levels_max;
        return Err(Failure::invalid(format!("a key has at most {max} levels, not {levels}")));
    }
    Ok(())
}

/// The route of the last destination, because clients repeat themselves.
#[derive(Debug, Default)]
pub(crate) struct LastRoute {
    destination: String,
    route: Route,
    /// Its queue is known to be there.
    pub(crate) is_ready: bool,
}

impl LastRoute {
    /// Makes the route of `destination` the last one.
    pub(crate) fn find(
        &mut self,
        destination: &str,
        exchange: &str,
        limits: &Limits,
    ) -> Step<&Route> {
        if self.destination != destination {
            self.destination.clear();
            self.route = Route::of_send(destination, exchange, limits)?;
            self.is_ready = !self.route.is_queue;
            self.destination.push_str(destination);
        }
        Ok(&self.route)
    }

    /// The last route.
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }
}

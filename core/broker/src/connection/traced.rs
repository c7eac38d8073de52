//! Traces of what a connection publishes.

use std::sync::Arc;

use polymq_model::{Message, Now};

use super::BrokerConnection;
use crate::{
    counters::PROTOCOLS,
    routing::{Route, Target},
    trace::{Begun, Publisher},
    vhost::Vhost,
};

impl BrokerConnection {
    fn with_publisher<T>(&self, vhost: &Vhost, ask: impl FnOnce(&Publisher<'_>) -> T) -> T {
        let who = self.identity.principal();
        let client_id = match &self.client {
            Some(client) => client.client_id.clone(),
            None => self.facts.client_id(),
        };
        ask(&Publisher {
            vhost: &vhost.name,
            user: who.as_ref().map(|who| &who.user),
            client_id: &client_id,
            protocol: PROTOCOLS.get(self.protocol).copied().unwrap_or_default(),
            connection: self.id.0,
        })
    }

    /// Notes in a new route which traces its messages may belong to.
    #[cold]
    pub(super) fn find_traces(&self, vhost: &Vhost, route: &mut Route, message: &Message) {
        let queues: Vec<&str> = route
            .targets
            .iter()
            .filter_map(|target| match target {
                Target::Queue(queue, _) => Some(queue.name.as_str()),
                Target::Direct(..) | Target::Reply(_) => None,
            })
            .collect();
        let place = (message.exchange(), message.key());
        let ask = |publisher: &Publisher<'_>| self.core.traces.matching(publisher, place, &queues);
        let traces = self.with_publisher(vhost, ask);
        route.traces = traces;
    }

    /// Takes messages of the run into traces.
    #[cold]
    pub(super) fn begin_traces(&self, vhost: &Arc<Vhost>, route: &Route, now: Now) -> Begun {
        self.with_publisher(vhost, |publisher| {
            self.core.begin_traces(route, vhost, publisher, &self.run.messages, now)
        })
    }

    /// Tells traces of a publish that is refused.
    #[cold]
    pub(super) fn trace_refused(&self, message: &Message, why: &str) {
        let Some(vhost) = &self.vhost else { return };
        self.with_publisher(vhost, |publisher| {
            self.core.trace_refused(vhost, publisher, message, why);
        });
    }
}

//! The beginning of a message's way: who has sent it, how other protocols will see it, and where
//! the router sends it.

use std::sync::Arc;

use polymq_model::{Ident, Message, Now, UserName, VhostName};

use super::{Mark, Trace};
use crate::{
    access::{Read, Role},
    chance::Chance,
    conversion,
    core::Core,
    routing::{Route, Routing, Target, Watch},
    topology::{Binding, Destination, Exchange},
    vhost::Vhost,
};

/// Bytes of a body that are shown.
const PAYLOAD_BYTES_MAX: usize = 1024;

/// Who publishes.
pub(crate) struct Publisher<'a> {
    pub(crate) vhost: &'a VhostName,
    pub(crate) user: Option<&'a UserName>,
    pub(crate) client_id: &'a str,
    pub(crate) protocol: &'static str,
    pub(crate) connection: u64,
}

/// Messages of a run that are followed, by their places.
pub(crate) type Begun = Vec<(usize, Mark)>;

impl Core {
    /// Takes messages of a run into the traces of their route, as far as these want more.
    pub(crate) fn begin_traces(
        &self,
        route: &Route,
        vhost: &Arc<Vhost>,
        publisher: &Publisher<'_>,
        messages: &[Message],
        now: Now,
    ) -> Begun {
        let mut begun = Begun::new();
        for trace in &route.traces {
            if !self.access.tags_of(&trace.who).include(Role::Monitoring) {
                trace.end("permission");
                continue;
            }
            for (place, message) in messages.iter().enumerate() {
                let Some(mark) = trace.pick() else { continue };
                self.note_received(&mark, vhost, route, publisher, message);
                self.note_route(&mark, vhost, route, message, now);
                begun.push((place, mark));
            }
        }
        begun
    }

    /// Tells traces of a publish that was refused before it was routed.
    pub(crate) fn trace_refused(
        &self,
        vhost: &Arc<Vhost>,
        publisher: &Publisher<'_>,
        message: &Message,
        why: &str,
    ) {
        let place = (message.exchange(), message.key());
        for trace in self.traces.matching(publisher, place, &[]) {
            let Some(mark) = trace.pick() else { continue };
            self.note_received(&mark, vhost, &Route::default(), publisher, message);
            mark.note("refused", vec![("detail", why.to_owned())]);
        }
    }

    fn note_received(
        &self,
        mark: &Mark,
        vhost: &Vhost,
        route: &Route,
        publisher: &Publisher<'_>,
        message: &Message,
    ) {
        let mut fields = vec![
            ("protocol", publisher.protocol.to_owned()),
            ("connection", publisher.connection.to_string()),
            ("user", publisher.user.map(ToString::to_string).unwrap_or_default()),
            ("client_id", publisher.client_id.to_owned()),
            ("exchange", message.exchange().to_owned()),
            ("routing_key", message.key().to_owned()),
            ("payload_bytes", message.body().len().to_string()),
            ("persistent", message.is_durable().to_string()),
        ];
        let properties = message.properties();
        if let Some(Ident::Text(id)) = &properties.id {
            fields.push(("message_id", id.to_string()));
        }
        let trace = mark.trace();
        if trace.new.payload && self.may_read_any(trace, vhost, route) {
            let body = message.body();
            let head = body.get(..PAYLOAD_BYTES_MAX).unwrap_or(body);
            fields.push(("payload", String::from_utf8_lossy(head).into_owned()));
        }
        mark.note("received", fields);
    }

    /// Whether somebody may read one of the queues that a message goes to, and so the message.
    fn may_read_any(&self, trace: &Trace, vhost: &Vhost, route: &Route) -> bool {
        route.targets.iter().any(|target| match target {
            Target::Queue(queue, _) => {
                let (who, name) = (&trace.who, queue.name.as_str());
                self.access.permit::<Read>(who, &vhost.name, "queue", name).is_ok()
            }
            Target::Direct(..) | Target::Reply(_) => false,
        })
    }

    fn note_route(
        &self,
        mark: &Mark,
        vhost: &Arc<Vhost>,
        route: &Route,
        message: &Message,
        now: Now,
    ) {
        for (label, lost) in self.conversions(route, message, now.unix_ms) {
            let from = message.format().name.to_owned();
            mark.note("converted", vec![("from", from), ("to", label), ("detail", lost)]);
        }
        let queues: Vec<&str> = queues_of(route).collect();
        let others = route.targets.len() - queues.len();
        let topology = vhost.topology.load();
        let publisher = polymq_model::ClientNumber(0);
        let routing = Routing { topology: &topology, publisher, message: Some(message) };
        let mut bindings = Bindings { route, found: Vec::new(), here: Vec::new() };
        let keys =
            std::iter::once(message.key()).chain(message.extra_keys().iter().map(|key| &**key));
        // What an exchange chooses by chance is told by the queues alone.
        let chance = Chance::new(now.unix_ms);
        routing.route_watched(&chance, message.exchange(), keys, &mut bindings);
        mark.note(
            "routed",
            vec![
                ("exchange", message.exchange().to_owned()),
                ("bindings", bindings.found.join(", ")),
                ("queues", queues.join(", ")),
                ("subscribers", others.to_string()),
            ],
        );
        if route.targets.is_empty() {
            mark.note("dropped", vec![("detail", "unroutable".to_owned())]);
        }
    }

    /// What a message loses on the way to the consumers of its queues, by their protocols.
    fn conversions(&self, route: &Route, message: &Message, now_ms: u64) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        for target in &route.targets {
            let Target::Queue(queue, _) = target else { continue };
            for (label, target) in self.readers_of(queue) {
                if seen.iter().all(|(known, _)| *known != label) {
                    let told = match target {
                        Some(target) => conversion::summary(message, target, now_ms),
                        None => String::new(),
                    };
                    seen.push((label, told));
                }
            }
        }
        seen
    }
}

fn queues_of(route: &Route) -> impl Iterator<Item = &str> {
    route.targets.iter().filter_map(|target| match target {
        Target::Queue(queue, _) => Some(queue.name.as_str()),
        Target::Direct(..) | Target::Reply(_) => None,
    })
}

/// Writes down the bindings by which a message goes.
struct Bindings<'a> {
    route: &'a Route,
    found: Vec<String>,
    here: Vec<String>,
}

/// Bindings that are named of one message.
const BINDINGS_MAX: usize = 50;

impl Watch for Bindings<'_> {
    fn took(&mut self, binding: &Binding) {
        let destination = match &binding.destination {
            Destination::Queue(queue) => {
                let is_target = queues_of(self.route).any(|name| name == queue.name.as_str());
                is_target.then(|| queue.name.to_string())
            }
            Destination::Exchange(exchange) => Some(exchange.to_string()),
            Destination::Client(endpoint, _) => Some(format!("client {}", endpoint.number)),
        };
        if let Some(destination) = destination.filter(|_| self.here.len() < BINDINGS_MAX) {
            self.here.push(format!("[{}] -> {destination}", binding.key));
        }
    }

    fn visited(&mut self, exchange: &Exchange, _alternate: Option<&str>) {
        let here = self.here.drain(..).map(|binding| format!("{} {binding}", exchange.name));
        self.found.extend(here);
        self.found.truncate(BINDINGS_MAX);
    }
}

//! Why a message goes where: the real router, without effect and with somebody who watches it.

use std::sync::Arc;

use polymq_contract::Refusal;
use polymq_model::{Message, Now, VhostName};

use crate::{
    BrokerHandle,
    access::{Configure, Principal},
    chance::Chance,
    conversion,
    core::Core,
    queue::Queue,
    routing::{Routing, Target, Watch},
    topology::{Binding, Destination, Exchange, ExchangeKind, unmet_header},
    vhost::Vhost,
};

/// Bindings of one exchange that are told at most; those that match come first.
const BINDINGS_MAX: usize = 200;

/// A step on the way of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `permission`, `exchange`, `binding`, `alternate`, `queue`, `conversion`, `subscriber` or
    /// `route`.
    pub kind: &'static str,
    /// What it is about.
    pub object: String,
    /// What came of it, as `matched`.
    pub outcome: &'static str,
    /// Why, in one word.
    pub code: &'static str,
    /// The values that belong to the word.
    pub params: Vec<(&'static str, String)>,
    /// The steps inside.
    pub children: Vec<Step>,
}

impl Step {
    fn new(kind: &'static str, object: &str, outcome: &'static str, code: &'static str) -> Self {
        let (object, params, children) = (object.to_owned(), Vec::new(), Vec::new());
        Self { kind, object, outcome, code, params, children }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.params.push((name, value.to_string()));
        self
    }
}

/// The way of a message that nobody has published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explained {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The queues that would have it.
    pub queues: Vec<String>,
    /// Clients that would get it without a queue.
    pub subscribers: usize,
}

impl BrokerHandle {
    /// Follows a message that `who` would publish, without publishing it.
    ///
    /// Where an exchange chooses at random it may choose otherwise next time. With
    /// `declares_queue` the protocol declares the queue that the key names when it is missing.
    ///
    /// Errors: kind `NotFound` for the virtual host.
    pub fn explain(
        &self,
        who: &Principal,
        vhost: &VhostName,
        message: &Message,
        declares_queue: bool,
        now: Now,
    ) -> Result<Explained, Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let mut explained = Explained::default();
        let exchange = message.exchange();
        let shown = if exchange.is_empty() { "amq.default" } else { exchange };
        let keys = std::iter::once(message.key());
        let keys = keys.chain(message.extra_keys().iter().map(|key| &**key));
        let permitted = self.0.check_may_publish(who, &vhost, exchange, keys);
        let step = |outcome, code| Step::new("permission", shown, outcome, code);
        match permitted {
            Ok(()) => explained.steps.push(step("allowed", "may_write").with("user", &who.user)),
            Err(refusal) => {
                let denied = step("denied", refusal.kind.as_str()).with("user", &who.user);
                explained.steps.push(denied.with("detail", refusal.text));
                return Ok(explained);
            }
        }
        if !explained.make_queue(&self.0, who, &vhost, message, declares_queue) {
            explained.follow(&self.0, &vhost, message, now.unix_ms);
        }
        Ok(explained)
    }
}

impl Explained {
    /// True when the message goes to a queue that is made for it, or is refused because its
    /// publisher may not make it.
    fn make_queue(
        &mut self,
        core: &Core,
        who: &Principal,
        vhost: &Vhost,
        message: &Message,
        declares_queue: bool,
    ) -> bool {
        let key = message.key();
        if !message.exchange().is_empty() || vhost.topology.load().queue(key).is_some() {
            return false;
        }
        let (made, code) = match core.missing_mailbox(vhost, key, false) {
            Some(mailbox) => (mailbox.as_str().to_owned(), "mailbox_of_its_user"),
            None if declares_queue => (key.to_owned(), "declared_when_it_is_missing"),
            None => return false,
        };
        let permitted = match declares_queue {
            true => core.permit::<Configure>(who, vhost, "queue", key).map(drop),
            false => Ok(()),
        };
        match permitted {
            Ok(()) => {
                self.steps.push(Step::new("queue", &made, "made", code));
                self.queues.push(made);
            }
            Err(refusal) => {
                let denied = Step::new("queue", &made, "denied", refusal.kind.as_str());
                self.steps.push(denied.with("detail", refusal.text));
            }
        }
        true
    }

    fn follow(&mut self, core: &Core, vhost: &Vhost, message: &Message, now_ms: u64) {
        let topology = vhost.topology.load();
        let keys: Vec<&str> = std::iter::once(message.key())
            .chain(message.extra_keys().iter().map(|key| &**key))
            .collect();
        let mut watch = Steps { keys: keys.clone(), message, taken: Vec::new(), steps: Vec::new() };
        let publisher = polymq_model::ClientNumber(0);
        let routing = Routing { topology: &topology, publisher, message: Some(message) };
        let exchange = message.exchange();
        let chance = Chance::new(now_ms);
        let route = routing.route_watched(&chance, exchange, keys.iter().copied(), &mut watch);
        watch.finish();
        self.steps.append(&mut watch.steps);
        for target in &route.targets {
            match target {
                Target::Queue(queue, _) => {
                    let mut step = admission(queue, message);
                    step.children = conversions(core, queue, message, now_ms);
                    self.steps.push(step);
                    self.queues.push(queue.name.as_str().to_owned());
                }
                Target::Direct(endpoint, _) => {
                    let number = endpoint.number.to_string();
                    self.steps.push(Step::new("subscriber", &number, "accepted", "at_most_once"));
                    self.subscribers += 1;
                }
                Target::Reply(_) => self.subscribers += 1,
            }
        }
        if route.targets.is_empty() {
            self.steps.push(Step::new("route", message.key(), "unroutable", "nobody_takes_it"));
        }
    }
}

/// What the message loses on its way to those who read a queue, by their protocols.
fn conversions(core: &Core, queue: &Queue, message: &Message, now_ms: u64) -> Vec<Step> {
    let step = |(label, target): (String, Option<_>)| {
        let Some(target) = target else {
            return Step::new("conversion", &label, "converted", "not_known_in_detail");
        };
        let told = conversion::summary(message, target, now_ms);
        let (outcome, code) = match told.as_str() {
            "" => ("kept", "nothing_changes"),
            told if told.contains("dropped") => ("converted", "fields_are_dropped"),
            _ => ("converted", "fields_change"),
        };
        Step::new("conversion", &label, outcome, code).with("fields", told)
    };
    core.readers_of(queue).into_iter().map(step).collect()
}

/// What a queue would do with the message.
fn admission(queue: &Arc<Queue>, message: &Message) -> Step {
    let (rules, counts) = (queue.rules(), queue.counts());
    let bytes = message.body().len() as u64;
    let is_over = rules.is_exceeded(counts.ready + 1, counts.bytes + bytes);
    let (outcome, code) = match queue.message_bytes_max() {
        Some(max) if bytes > max => ("refused", "message_too_large"),
        _ if is_over && rules.drops_head() => ("accepted", "drops_the_oldest"),
        _ if is_over => ("refused", "queue_full"),
        _ if queue.is_paused() => ("accepted", "paused"),
        _ if counts.consumers == 0 => ("accepted", "waits_for_a_consumer"),
        _ => ("accepted", "has_room"),
    };
    let mut step = Step::new("queue", queue.name.as_str(), outcome, code)
        .with("ready", counts.ready)
        .with("consumers", counts.consumers)
        .with("durability", queue.durability());
    let limits = [
        ("length_max", rules.length_max),
        ("bytes_max", rules.bytes_max),
        ("message_bytes_max", rules.message_bytes_max),
        ("ttl_ms", rules.ttl_ms),
    ];
    for (name, limit) in limits {
        if let Some(limit) = limit {
            step = step.with(name, limit);
        }
    }
    if let Some(to) = &rules.dead_letter {
        step = step.with("dead_letter_exchange", &to.exchange);
    }
    step
}

/// Writes down what the router does.
struct Steps<'m> {
    keys: Vec<&'m str>,
    message: &'m Message,
    /// The bindings of the exchange at hand that took the message.
    taken: Vec<Box<str>>,
    steps: Vec<Step>,
}

impl Watch for Steps<'_> {
    fn default_exchange(&mut self, key: &str, queue: Option<&Arc<Queue>>) {
        let step = Step::new("exchange", "amq.default", "visited", "default").with("key", key);
        self.steps.push(step);
        let (outcome, code) = match queue {
            Some(_) => ("matched", "queue_of_that_name"),
            None => ("not_matched", "no_queue_of_that_name"),
        };
        let name = queue.map_or(key, |queue| queue.name.as_str());
        self.push_child(Step::new("binding", name, outcome, code));
    }

    fn missing(&mut self, exchange: &str) {
        self.steps.push(Step::new("exchange", exchange, "not_found", "exchange_not_found"));
    }

    fn took(&mut self, binding: &Binding) {
        self.taken.push(binding.identity());
    }

    fn visited(&mut self, exchange: &Exchange, alternate: Option<&str>) {
        let outcome = if self.taken.is_empty() { "no_match" } else { "matched" };
        let step = Step::new("exchange", exchange.name.as_str(), outcome, "visited")
            .with("type", exchange.spec.type_name());
        self.steps.push(step);
        let taken = std::mem::take(&mut self.taken);
        let (matched, others): (Vec<_>, Vec<_>) =
            exchange.bindings.iter().partition(|binding| taken.contains(&binding.identity()));
        let count = matched.len() + others.len();
        for (binding, is_match) in matched
            .iter()
            .map(|b| (b, true))
            .chain(others.iter().map(|b| (b, false)))
            .take(BINDINGS_MAX)
        {
            let child = self.binding(exchange.spec.kind, binding, is_match);
            self.push_child(child);
        }
        if count > BINDINGS_MAX
            && let Some(step) = self.steps.last_mut()
        {
            step.params.push(("bindings_not_shown", (count - BINDINGS_MAX).to_string()));
        }
        if let Some(alternate) = alternate {
            let step = Step::new("alternate", alternate, "followed", "no_binding_matched");
            self.steps.push(step.with("of", exchange.name.as_str()));
        }
    }
}

impl Steps<'_> {
    fn finish(&mut self) {
        self.taken.clear();
    }

    fn push_child(&mut self, child: Step) {
        if let Some(step) = self.steps.last_mut() {
            step.children.push(child);
        }
    }

    fn binding(&self, kind: ExchangeKind, binding: &Binding, is_match: bool) -> Step {
        let object = match &binding.destination {
            Destination::Queue(queue) => queue.name.as_str().to_owned(),
            Destination::Exchange(exchange) => exchange.as_str().to_owned(),
            Destination::Client(endpoint, _) => endpoint.number.to_string(),
        };
        let to = match &binding.destination {
            Destination::Queue(_) => "queue",
            Destination::Exchange(_) => "exchange",
            Destination::Client(..) => "client",
        };
        let code = match (kind, is_match) {
            (ExchangeKind::Fanout, _) => "fanout",
            (ExchangeKind::Direct, true) => "key_is_equal",
            (ExchangeKind::Direct, false) => "key_differs",
            (ExchangeKind::Topic, true) => "pattern_matches",
            (ExchangeKind::Topic, false) => "pattern_does_not_match",
            (ExchangeKind::Headers, true) => "headers_match",
            (ExchangeKind::Headers, false) => "header_does_not_match",
            (_, true) => "was_chosen",
            (_, false) => "another_was_chosen",
        };
        let outcome = if is_match { "matched" } else { "not_matched" };
        let mut step = Step::new("binding", &object, outcome, code)
            .with("to", to)
            .with("binding_key", &binding.key)
            .with("routing_key", self.keys.join(", "));
        if kind == ExchangeKind::Headers
            && !is_match
            && let Some(name) = unmet_header(&binding.arguments, self.message.properties())
        {
            step = step.with("header", name);
        }
        step
    }
}

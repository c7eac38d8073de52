//! Service discovery (XEP-0030), paged with result set management (XEP-0059).

use std::collections::HashSet;

use polymq_contract::{Answer, Command};
use polymq_model::address::Mailbox;

use super::iq::Route;
use crate::{
    error::StanzaError,
    jid::{Place, Service, resource_from_name, room_key},
    services::commands::COMMANDS,
    session::{Session, Turn},
    xml::{Element, ns},
};

/// Items of one page.
const PAGE_MAX: usize = 100;
/// Topics that can be listed.
const TOPICS_MAX: usize = 10_000;

fn identity(category: &'static str, kind: &'static str, name: &str) -> Element {
    Element::new(ns::DISCO_INFO, "identity")
        .attr("category", category)
        .attr("type", kind)
        .attr("name", name)
}

fn features<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Element> {
    let feature = |name: &str| Element::new(ns::DISCO_INFO, "feature").attr("var", name);
    names.into_iter().map(feature).collect()
}

fn item(jid: String, node: Option<String>, name: Option<&str>) -> Element {
    Element::new(ns::DISCO_ITEMS, "item")
        .attr("jid", jid)
        .maybe_attr("node", node)
        .maybe_attr("name", name)
}

/// The page of sorted names that a request asks for, and what is said of it (XEP-0059).
fn page<'n>(names: &'n [String], query: &Element) -> (&'n [String], Element) {
    let set = query.find(ns::RSM, "set");
    let text = |name| set.and_then(|set| set.content_of(ns::RSM, name));
    let max = text("max").and_then(|max| max.parse().ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let (from, to) = match (text("before"), text("after")) {
        (Some(before), _) => {
            let is_last = before.is_empty();
            let to = names.partition_point(|name| is_last || *name < before);
            (to.saturating_sub(max), to)
        }
        (None, Some(after)) => {
            let from = names.partition_point(|name| *name <= after);
            (from, from.saturating_add(max).min(names.len()))
        }
        (None, None) => (0, max.min(names.len())),
    };
    let shown = names.get(from..to).unwrap_or_default();
    let mut said = Element::new(ns::RSM, "set");
    if let (Some(first), Some(last)) = (shown.first(), shown.last()) {
        let first = Element::new(ns::RSM, "first").attr("index", from.to_string()).text(first);
        said = said.child(first).child(Element::new(ns::RSM, "last").text(last));
    }
    (shown, said.child(Element::new(ns::RSM, "count").text(names.len().to_string())))
}

impl Session {
    fn server_features(&self) -> Vec<Element> {
        features([
            ns::DISCO_INFO,
            ns::DISCO_ITEMS,
            ns::PING,
            ns::VERSION,
            ns::CARBONS,
            "urn:xmpp:carbons:rules:0",
            "msgoffline",
            ns::AMP,
            "http://jabber.org/protocol/amp?condition=expire-at",
            "http://jabber.org/protocol/amp?action=drop",
        ])
    }

    /// What the user's own account can do.
    pub(super) fn account_info(&self, query: &Element) -> Element {
        Element::new(ns::DISCO_INFO, "query")
            .maybe_attr("node", query.get("node"))
            .child(identity("account", "registered", ""))
            .children(self.server_features())
    }

    /// `disco#info` of the server, a service, a queue, a topic or a room.
    pub(super) fn info(&self, query: &Element, route: &Route) -> Result<Element, StanzaError> {
        let node = query.get("node");
        let answer = Element::new(ns::DISCO_INFO, "query").maybe_attr("node", node);
        let base = [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING];
        Ok(match &route.place {
            Place::Server if node.is_none() && !self.is_component() => {
                answer.child(identity("server", "im", "PolyMQ")).children(self.server_features())
            }
            Place::Server if node.is_none() => {
                let kinds = [
                    identity("component", "generic", "PolyMQ"),
                    identity("pubsub", "service", "Topics"),
                    identity("conference", "text", "Rooms"),
                ];
                let all = [ns::PUBSUB, ns::MUC, ns::QUEUE, ns::COMMANDS];
                answer.children(kinds).children(features(base)).children(features(all))
            }
            Place::Service(Service::Topics) | Place::Named(Service::Topics, _) => {
                let kind = if node.is_some() { "leaf" } else { "service" };
                let pubsub = |name: &str| format!("{}#{name}", ns::PUBSUB);
                let names = [
                    "publish",
                    "publish-options",
                    "subscribe",
                    "retrieve-subscriptions",
                    "retrieve-items",
                    "last-published",
                    "persistent-items",
                    "retract-items",
                    "item-ids",
                    "auto-create",
                    "create-nodes",
                    "delete-nodes",
                ];
                let pubsub: Vec<String> = names.into_iter().map(pubsub).collect();
                answer
                    .child(identity("pubsub", kind, "Topics"))
                    .children(features(base))
                    .children(features([ns::PUBSUB]))
                    .children(features(pubsub.iter().map(String::as_str)))
            }
            Place::Service(Service::Rooms) => answer
                .child(identity("conference", "text", "Rooms"))
                .children(features(base))
                .children(features([ns::MUC, ns::RSM])),
            Place::Named(Service::Rooms, room) => answer
                .child(identity("conference", "text", room))
                .children(features(base))
                .children(features([
                    ns::MUC,
                    "muc_open",
                    "muc_public",
                    "muc_nonanonymous",
                    "muc_temporary",
                ])),
            Place::Service(Service::Queues) | Place::Named(Service::Queues, _) => {
                if let Some(node) = node {
                    return self.command_info(node, answer);
                }
                answer
                    .child(identity("component", "generic", "Queues"))
                    .children(features(base))
                    .children(features([ns::QUEUE, ns::PROPERTIES, ns::COMMANDS, ns::RSM]))
            }
            Place::Server | Place::User | Place::Elsewhere => {
                return Err(StanzaError::not_found("there is no such node"));
            }
        })
    }

    fn command_info(&self, node: &str, answer: Element) -> Result<Element, StanzaError> {
        if node == ns::COMMANDS {
            return Ok(answer.child(identity("automation", "command-list", "Commands")));
        }
        let known = COMMANDS.iter().find(|command| command.node() == node);
        let Some(command) = known else {
            return Err(StanzaError::not_found(format!("there is no command `{node}`")));
        };
        Ok(answer
            .child(identity("automation", "command-node", command.title))
            .children(features([ns::COMMANDS, ns::DATA_FORMS])))
    }

    /// `disco#items`. The list of queues comes from the broker.
    pub(super) fn items(
        &mut self,
        iq: &Element,
        query: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<Option<Element>, StanzaError> {
        let node = query.get("node").map(str::to_owned);
        let answer = Element::new(ns::DISCO_ITEMS, "query").maybe_attr("node", node.clone());
        let domains = &self.shared.domains;
        match (&route.place, node.as_deref()) {
            (Place::Server, None) if !self.is_component() => {
                let services = [
                    (Service::Queues, "Queues"),
                    (Service::Topics, "Topics"),
                    (Service::Rooms, "Rooms"),
                ];
                let services = services.map(|(s, name)| item(domains.service(s), None, Some(name)));
                Ok(Some(answer.children(services)))
            }
            (Place::Service(Service::Queues) | Place::Server, Some(ns::COMMANDS)) => {
                let jid = domains.service(Service::Queues);
                let list = COMMANDS
                    .iter()
                    .map(|command| item(jid.clone(), Some(command.node()), Some(command.title)));
                Ok(Some(answer.children(list)))
            }
            (Place::Service(Service::Rooms), None) => {
                self.list_rooms(iq, query, turn);
                Ok(None)
            }
            (Place::Named(Service::Rooms, room), None) => {
                self.list_occupants(iq, query, room.clone(), turn);
                Ok(None)
            }
            (Place::Service(Service::Queues), None) | (Place::Server, None) => {
                let set = query.find(ns::RSM, "set");
                if set.is_some_and(|set| set.find(ns::RSM, "before").is_some()) {
                    let text = "queues are listed forwards";
                    return Err(StanzaError::not_implemented(text));
                }
                self.list_queues(iq, query, turn);
                Ok(None)
            }
            (Place::Service(Service::Topics), None) => {
                self.list_topics(iq, query, turn);
                Ok(None)
            }
            _ => Ok(Some(answer)),
        }
    }

    fn list_queues(&mut self, iq: &Element, query: &Element, turn: &mut Turn<'_>) {
        let set = query.find(ns::RSM, "set");
        let text = |name| set.and_then(|set| set.content_of(ns::RSM, name));
        let after = text("after").filter(|after| !after.is_empty());
        let max = text("max").and_then(|max| max.parse().ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let iq = iq.clone();
        self.ask(
            turn,
            |request| Command::ListQueues { request, after, count_max: max },
            move |session, answer, turn| match answer {
                Ok(Answer::Queues { queues, total }) => {
                    let domains = &session.shared.domains;
                    // Mailboxes are users, and not for everybody to find.
                    let shown = queues.iter().filter(|q| Mailbox::parse(q.name.as_str()).is_none());
                    let list = shown.map(|queue| {
                        let jid = domains.address(Service::Queues, queue.name.as_str());
                        item(jid.to_string(), None, Some(queue.name.as_str()))
                    });
                    let mut set = Element::new(ns::RSM, "set");
                    for (name, queue) in [("first", queues.first()), ("last", queues.last())] {
                        let name = queue.map(|q| Element::new(ns::RSM, name).text(q.name.as_str()));
                        set = set.children(name);
                    }
                    let set = set.child(Element::new(ns::RSM, "count").text(total.to_string()));
                    let query = Element::new(ns::DISCO_ITEMS, "query").children(list).child(set);
                    session.send_result(&iq, Some(query), turn);
                }
                Ok(_) => session.send_result(&iq, None, turn),
                Err(refusal) => session.send_error(&iq, &StanzaError::from(refusal), turn),
            },
        );
    }

    /// Topics exist by being spoken of; those with a retained message can be listed.
    fn list_topics(&mut self, iq: &Element, query: &Element, turn: &mut Turn<'_>) {
        self.list_readable(iq, None, turn, {
            let query = query.clone();
            move |session, topics| {
                let service = session.shared.domains.service(Service::Topics);
                let mut nodes: Vec<_> = topics.iter().map(|key| resource_from_name(key)).collect();
                nodes.sort();
                let (shown, set) = page(&nodes, &query);
                let items =
                    shown.iter().map(|node| item(service.clone(), Some(node.clone()), None));
                Ok(list(items, set))
            }
        });
    }

    /// A room is a topic: who may not read it does not see it.
    fn list_rooms(&mut self, iq: &Element, query: &Element, turn: &mut Turn<'_>) {
        let mut rooms: Vec<String> = self.rooms(|rooms| rooms.keys().cloned().collect());
        rooms.sort();
        let keys = rooms.iter().map(|room| room_key(room)).collect();
        let query = query.clone();
        self.list_readable(iq, Some(keys), turn, move |session, topics| {
            let readable: HashSet<String> = topics.into_iter().collect();
            rooms.retain(|room| readable.contains(&room_key(room)));
            let (shown, set) = page(&rooms, &query);
            let jid = |room| session.shared.domains.address(Service::Rooms, room).to_string();
            Ok(list(shown.iter().map(|room| item(jid(room), None, Some(room))), set))
        });
    }

    fn list_occupants(&mut self, iq: &Element, query: &Element, room: String, turn: &mut Turn<'_>) {
        let query = query.clone();
        self.list_readable(iq, Some(vec![room_key(&room)]), turn, move |session, topics| {
            if topics.is_empty() {
                return Err(StanzaError::new("auth", "forbidden", "you may not read this room"));
            }
            let jid = session.shared.domains.address(Service::Rooms, &room);
            let mut nicks = session.rooms(|rooms| {
                let occupants = rooms.get(&room).map(|room| room.occupants.as_slice());
                let nicks = occupants.unwrap_or_default().iter().map(|o| o.nick.clone());
                nicks.collect::<Vec<_>>()
            });
            nicks.sort();
            let (shown, set) = page(&nicks, &query);
            let jid = |nick: &String| jid.with_resource(nick.clone()).to_string();
            Ok(list(shown.iter().map(|nick| item(jid(nick), None, None)), set))
        });
    }

    /// Answers with a list that is made of the topics which the user may read, of these, or of
    /// those with a retained message.
    fn list_readable(
        &mut self,
        iq: &Element,
        among: Option<Vec<String>>,
        turn: &mut Turn<'_>,
        make: impl FnOnce(&Self, Vec<String>) -> Result<Element, StanzaError> + Send + 'static,
    ) {
        let iq = iq.clone();
        let count_max = among.as_ref().map_or(TOPICS_MAX, Vec::len);
        self.ask(
            turn,
            |request| Command::ListTopics { request, among, count_max },
            move |session, answer, turn| {
                let made = match answer {
                    Ok(Answer::Topics(topics)) => make(session, topics),
                    Ok(_) => make(session, Vec::new()),
                    Err(refusal) => Err(StanzaError::from(refusal)),
                };
                match made {
                    Ok(query) => session.send_result(&iq, Some(query), turn),
                    Err(error) => session.send_error(&iq, &error, turn),
                }
            },
        );
    }
}

/// The answer with one page of a list.
fn list(items: impl Iterator<Item = Element>, set: Element) -> Element {
    Element::new(ns::DISCO_ITEMS, "query").children(items).child(set)
}

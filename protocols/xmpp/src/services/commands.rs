//! Ad-hoc commands (XEP-0050) that manage queues, with forms (XEP-0004).

use std::collections::HashMap;

use polymq_contract::{Answer, BindQueue, Command, DeclareQueue};
use polymq_model::{RequestId, Table, Value, address::TOPIC_EXCHANGE};

use super::iq::Route;
use crate::{
    error::StanzaError,
    jid::Place,
    session::{Session, Turn},
    xml::{Element, ns},
};

/// Queues that `list` shows at a time.
const LISTED_MAX: usize = 1000;

/// A command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    word: &'static str,
    /// For people.
    pub(super) title: &'static str,
    fields: &'static [Field],
}

/// A field of a command's form.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: &'static str,
    kind: &'static str,
    label: &'static str,
    is_required: bool,
}

const fn text(name: &'static str, label: &'static str, is_required: bool) -> Field {
    Field { name, kind: "text-single", label, is_required }
}

const fn flag(name: &'static str, label: &'static str) -> Field {
    Field { name, kind: "boolean", label, is_required: false }
}

const QUEUE: Field = text("queue", "Queue", true);
const BINDING: [Field; 3] = [
    QUEUE,
    text("exchange", "Exchange (amq.topic unless given)", false),
    text("key", "Binding key or pattern", true),
];

/// Every command.
pub(super) const COMMANDS: [Known; 8] = [
    Known {
        word: "declare",
        title: "Declare a queue",
        fields: &[
            QUEUE,
            flag("durable", "Survives a restart"),
            flag("auto-delete", "Goes with its last consumer"),
            Field {
                name: "arguments",
                kind: "text-multi",
                label: "Arguments, one `name=value` a line",
                is_required: false,
            },
        ],
    },
    Known {
        word: "delete",
        title: "Delete a queue",
        fields: &[
            QUEUE,
            flag("if-unused", "Only without consumers"),
            flag("if-empty", "Only without messages"),
        ],
    },
    Known { word: "purge", title: "Remove the messages of a queue", fields: &[QUEUE] },
    Known { word: "bind", title: "Bind a queue", fields: &BINDING },
    Known { word: "unbind", title: "Unbind a queue", fields: &BINDING },
    Known { word: "list", title: "List queues", fields: &[] },
    Known { word: "pause", title: "Stop the deliveries of a queue", fields: &[QUEUE] },
    Known { word: "resume", title: "Let a queue deliver again", fields: &[QUEUE] },
];

impl Known {
    /// The node that names it.
    pub(super) fn node(&self) -> String {
        format!("urn:polymq:command:{}", self.word)
    }

    fn form(&self) -> Element {
        let field = |field: &Field| {
            let required = Element::new(ns::DATA_FORMS, "required");
            Element::new(ns::DATA_FORMS, "field")
                .attr("var", field.name)
                .attr("type", field.kind)
                .attr("label", field.label)
                .children(field.is_required.then_some(required))
        };
        Element::new(ns::DATA_FORMS, "x")
            .attr("type", "form")
            .child(Element::new(ns::DATA_FORMS, "title").text(self.title))
            .children(self.fields.iter().map(field))
    }
}

/// What a form was filled in with.
struct Filled(HashMap<String, Vec<String>>);

impl Filled {
    fn read(command: &Element) -> Option<Self> {
        let form = command.find(ns::DATA_FORMS, "x")?;
        if form.get("type") != Some("submit") {
            return None;
        }
        let fields = form.elements().filter_map(|field| {
            let values = field.elements().filter(|value| value.name == "value");
            Some((field.get("var")?.to_owned(), values.map(Element::content).collect()))
        });
        Some(Self(fields.collect()))
    }

    fn text(&self, name: &str) -> String {
        self.0.get(name).and_then(|values| values.first()).cloned().unwrap_or_default()
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, StanzaError> {
        match self.text(name).as_str() {
            "" => Ok(default),
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => {
                let text = format!("the field `{name}` is `{other}`, and must be true or false");
                Err(StanzaError::bad_request(text))
            }
        }
    }

    /// Lines of `name=value`; whole numbers and truth values keep their type.
    fn arguments(&self) -> Result<Table, StanzaError> {
        let lines = self.0.get("arguments").into_iter().flatten().flat_map(|value| value.lines());
        let lines = lines.map(str::trim).filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let wrong =
                    || StanzaError::bad_request(format!("`{line}` is not of the form name=value"));
                let (name, value) = line.split_once('=').ok_or_else(wrong)?;
                let value = match (value.parse::<i64>(), value.parse::<bool>()) {
                    (Ok(number), _) => Value::I64(number),
                    (_, Ok(truth)) => Value::Bool(truth),
                    _ => Value::String(value.to_owned()),
                };
                Ok((name.trim().to_owned(), value))
            })
            .collect()
    }
}

impl Session {
    pub(super) fn on_command(
        &mut self,
        iq: &Element,
        command: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) {
        if let Err(error) = self.run_command(iq, command, route, turn) {
            self.send_error(iq, &error, turn);
        }
    }

    fn run_command(
        &mut self,
        iq: &Element,
        command: &Element,
        route: &Route,
        turn: &mut Turn<'_>,
    ) -> Result<(), StanzaError> {
        let node = command.get("node").unwrap_or_default();
        let known = COMMANDS.iter().find(|known| known.node() == node);
        let known =
            known.ok_or_else(|| StanzaError::not_found(format!("there is no command `{node}`")))?;
        let session = command.get("sessionid").map(str::to_owned);
        let session = session.unwrap_or_else(|| self.shared.random_name());
        if command.get("action") == Some("cancel") {
            let answer = answer(known, &session, "canceled");
            self.send_result(iq, Some(answer), turn);
            return Ok(());
        }
        let filled = match Filled::read(command) {
            Some(filled) => filled,
            // Sent to a queue's own address, the command needs no form.
            None if known.fields.len() <= 1 && matches!(route.place, Place::Named(..)) => {
                Filled(HashMap::new())
            }
            None if known.fields.is_empty() => Filled(HashMap::new()),
            None => {
                let actions = Element::new(ns::COMMANDS, "actions")
                    .attr("execute", "complete")
                    .child(Element::new(ns::COMMANDS, "complete"));
                let answer = answer(known, &session, "executing");
                self.send_result(iq, Some(answer.child(actions).child(known.form())), turn);
                return Ok(());
            }
        };
        let queue = match (&route.place, filled.text("queue")) {
            (Place::Named(_, name), given) if given.is_empty() => name.clone(),
            (_, given) => given,
        };
        for field in known.fields.iter().filter(|field| field.is_required) {
            let is_given = match field.name {
                "queue" => !queue.is_empty(),
                other => !filled.text(other).is_empty(),
            };
            if !is_given {
                let text = format!("the field `{}` is empty", field.name);
                return Err(StanzaError::bad_request(text));
            }
        }
        let make = order(known.word, queue, &filled)?;
        let (iq, known) = (iq.clone(), *known);
        self.ask(turn, make, move |s, result, turn| match result {
            Ok(done) => {
                let answer = answer(&known, &session, "completed").children(report(&done));
                s.send_result(&iq, Some(answer), turn);
            }
            Err(refusal) => s.send_error(&iq, &StanzaError::from(refusal), turn),
        });
        Ok(())
    }
}

/// What the broker is asked for.
fn order(
    word: &'static str,
    queue: String,
    filled: &Filled,
) -> Result<Box<dyn FnOnce(RequestId) -> Command>, StanzaError> {
    let binding = |queue: String| {
        let exchange = match filled.text("exchange") {
            given if given.is_empty() => TOPIC_EXCHANGE.to_owned(),
            given => given,
        };
        let (request, key, arguments) = (RequestId(0), filled.text("key"), Vec::new());
        BindQueue { request, queue, exchange, key, arguments }
    };
    Ok(match word {
        "declare" => {
            let declare = DeclareQueue {
                request: RequestId(0),
                queue,
                passive: false,
                durable: filled.flag("durable", true)?,
                exclusive: false,
                auto_delete: filled.flag("auto-delete", false)?,
                arguments: filled.arguments()?,
            };
            Box::new(move |request| {
                Command::DeclareQueue(Box::new(DeclareQueue { request, ..declare }))
            })
        }
        "delete" => {
            let if_unused = filled.flag("if-unused", false)?;
            let if_empty = filled.flag("if-empty", false)?;
            Box::new(move |request| Command::DeleteQueue { request, queue, if_unused, if_empty })
        }
        "purge" => Box::new(move |request| Command::PurgeQueue { request, queue }),
        "bind" => {
            let bind = binding(queue);
            Box::new(move |request| Command::BindQueue(Box::new(BindQueue { request, ..bind })))
        }
        "unbind" => {
            let bind = binding(queue);
            Box::new(move |request| Command::UnbindQueue(Box::new(BindQueue { request, ..bind })))
        }
        "list" => {
            Box::new(|request| Command::ListQueues { request, after: None, count_max: LISTED_MAX })
        }
        "pause" | "resume" => {
            let paused = word == "pause";
            Box::new(move |request| Command::PauseQueue { request, queue, paused })
        }
        other => return Err(StanzaError::not_implemented(format!("`{other}` does nothing"))),
    })
}

fn answer(known: &Known, session: &str, status: &'static str) -> Element {
    Element::new(ns::COMMANDS, "command")
        .attr("node", known.node())
        .attr("sessionid", session)
        .attr("status", status)
}

/// What came of a command, as a form or a note.
fn report(done: &Answer) -> Vec<Element> {
    let field = |name: &str, value: String| {
        Element::new(ns::DATA_FORMS, "field")
            .attr("var", name)
            .child(Element::new(ns::DATA_FORMS, "value").text(value))
    };
    let form = || Element::new(ns::DATA_FORMS, "x").attr("type", "result");
    match done {
        Answer::QueueDeclared { queue, messages, consumers } => vec![
            form()
                .child(field("queue", queue.to_string()))
                .child(field("messages", messages.to_string()))
                .child(field("consumers", consumers.to_string())),
        ],
        Answer::QueueDeleted { messages } | Answer::QueuePurged { messages } => {
            vec![form().child(field("messages", messages.to_string()))]
        }
        Answer::Queues { queues, .. } => {
            let column = |name: &str| Element::new(ns::DATA_FORMS, "field").attr("var", name);
            let columns = ["queue", "messages", "consumers"].map(column);
            let rows = queues.iter().map(|queue| {
                Element::new(ns::DATA_FORMS, "item")
                    .child(field("queue", queue.name.to_string()))
                    .child(field("messages", queue.messages.to_string()))
                    .child(field("consumers", queue.consumers.to_string()))
            });
            let reported = Element::new(ns::DATA_FORMS, "reported").children(columns);
            vec![form().child(reported).children(rows)]
        }
        _ => vec![Element::new(ns::COMMANDS, "note").attr("type", "info").text("Done.")],
    }
}

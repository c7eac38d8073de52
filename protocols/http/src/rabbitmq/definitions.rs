//! Definitions: everything that was declared, out and in.

use std::collections::HashSet;

use axum::http::{HeaderValue, header};
use polymq_broker::{
    BrokerHandle, Definition, Manager, NewBinding, PermissionView, PolicyKind, TopicPermissionView,
    UserLimits, VhostView, limit_from,
};
use polymq_contract::{DeclareExchange, DeclareQueue};
use polymq_model::{RequestId, UserName, VhostName};
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    limits,
    list::Columns,
    permissions, policies, users,
    values::{Fields, object},
    vhosts,
    wire::{self, Failure, Outcome, RABBITMQ_VERSION},
};

/// Without the places of a whole broker.
fn without(mut value: Value, names: &[&str]) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|name, _| !names.contains(&name.as_str()));
    }
    value
}

/// Whose definitions, and who asks for them.
pub(crate) struct Origin<'a> {
    pub(crate) manager: &'a Manager,
    pub(crate) broker: &'a BrokerHandle,
}

impl<'a> Origin<'a> {
    fn of(call: &'a Call) -> Self {
        Self { manager: &call.manager, broker: call.broker() }
    }
}

fn queues(origin: &Origin<'_>, vhost: Option<&str>) -> Result<Vec<Value>, Failure> {
    let mut shown = Vec::new();
    for queue in origin.broker.queue_refs(vhost)? {
        let queue = queue.details(None);
        if queue.owner.is_some() || queue.of_session {
            continue;
        }
        shown.push(json!({
            "name": queue.name.as_str(),
            "vhost": queue.vhost.as_str(),
            "durable": queue.durable,
            "auto_delete": queue.auto_delete,
            "arguments": object(&queue.arguments),
        }));
    }
    Ok(shown)
}

fn exchanges(origin: &Origin<'_>, vhost: Option<&str>) -> Result<Vec<Value>, Failure> {
    let views = origin.broker.exchanges(vhost, None)?.into_iter();
    let own = views.filter(|view| !view.name.is_empty() && !view.name.starts_with("amq."));
    let shown = own.map(|view| {
        json!({
            "name": view.name,
            "vhost": view.vhost.as_str(),
            "type": view.kind,
            "durable": view.durable,
            "auto_delete": view.auto_delete,
            "internal": view.internal,
            "arguments": object(&view.arguments),
        })
    });
    Ok(shown.collect())
}

fn bindings(
    origin: &Origin<'_>,
    vhost: Option<&str>,
    known: &[Value],
) -> Result<Vec<Value>, Failure> {
    let views = origin.broker.bindings(vhost)?.into_iter();
    let known: HashSet<(&str, &str)> = known
        .iter()
        .filter_map(|known| Some((known["vhost"].as_str()?, known["name"].as_str()?)))
        .collect();
    // Those of queues that are not among the definitions have no place here.
    let is_known = |vhost: &str, queue: &str| known.contains(&(vhost, queue));
    let own = views.filter(|view| {
        let to_known = !view.to_queue || is_known(view.vhost.as_str(), &view.destination);
        !view.source.is_empty() && to_known
    });
    let shown = own.map(|view| {
        json!({
            "source": view.source,
            "vhost": view.vhost.as_str(),
            "destination": view.destination,
            "destination_type": if view.to_queue { "queue" } else { "exchange" },
            "routing_key": view.key,
            "arguments": object(&view.arguments),
        })
    });
    Ok(shown.collect())
}

/// What belongs to a virtual host, or to all.
fn of_vhosts(origin: &Origin<'_>, vhost: Option<&str>) -> Result<Map<String, Value>, Failure> {
    let meant: Vec<VhostName> = origin
        .manager
        .vhosts()?
        .into_iter()
        .map(|view| view.name)
        .filter(|name| vhost.is_none_or(|vhost| vhost == name.as_str()))
        .collect();
    let policies_of = |kind| policies::rows_of(origin.manager, meant.clone(), kind);
    let mut parameters: Vec<Value> = policies_of(PolicyKind::Operator)?
        .iter()
        .map(|row| {
            json!({
                "component": "operator_policy",
                "vhost": row.vhost.as_str(),
                "name": row.name,
                "value": without(policies::object_of(row), &["vhost", "name"]),
            })
        })
        .collect();
    parameters.extend(limits::of_vhosts(origin.manager, vhost)?.into_iter().map(|(vhost, value)| {
        json!({ "component": "vhost-limits", "vhost": vhost, "name": "limits", "value": value })
    }));
    let policies: Vec<_> = policies_of(PolicyKind::User)?.iter().map(policies::object_of).collect();
    let queues = queues(origin, vhost)?;
    let mut shown = Map::new();
    shown.insert("rabbit_version".to_owned(), json!(RABBITMQ_VERSION));
    shown.insert("rabbitmq_version".to_owned(), json!(RABBITMQ_VERSION));
    shown.insert("product_name".to_owned(), json!("PolyMQ"));
    shown.insert("product_version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    shown.insert("parameters".to_owned(), json!(parameters));
    shown.insert("policies".to_owned(), json!(policies));
    shown.insert("exchanges".to_owned(), json!(exchanges(origin, vhost)?));
    shown.insert("bindings".to_owned(), json!(bindings(origin, vhost, &queues)?));
    shown.insert("queues".to_owned(), json!(queues));
    Ok(shown)
}

fn file(call: &Call, shown: Map<String, Value>) -> Outcome {
    let mut response = wire::ok(&Columns::of(call).pick(Value::Object(shown)))?;
    if let Some(name) = call.query("download") {
        // Whatever could end the name is left out.
        let name: String = name.chars().filter(|sign| !matches!(sign, '"' | '\\' | '/')).collect();
        let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
        let disposition = disposition.map_err(|_| Failure::bad("'download' is no file name"))?;
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// `GET /definitions`
pub(super) fn export(call: &Call) -> Outcome {
    file(call, document(&Origin::of(call))?)
}

/// Everything that was declared, secrets as hashes.
///
/// Errors: whoever asks is no administrator.
pub(crate) fn document(origin: &Origin<'_>) -> Result<Map<String, Value>, Failure> {
    let manager = origin.manager;
    let mut shown = of_vhosts(origin, None)?;
    let users = manager.users()?;
    let has_own_hashes = users.iter().any(|view| {
        view.record.password_hash.starts_with('$')
            && view.record.exported_hash().1 == "polymq_argon2id"
    });
    shown.insert("users".to_owned(), users.iter().map(users::object_of).collect());
    let vhosts = manager.vhosts()?;
    shown.insert("vhosts".to_owned(), vhosts.iter().map(vhosts::made).collect());
    let all = permissions::all(manager, origin.broker)?;
    let all: Vec<Value> =
        all.iter().map(|view: &PermissionView| permissions::object_of(view)).collect();
    shown.insert("permissions".to_owned(), json!(all));
    let topics = permissions::all_topics(manager, origin.broker)?;
    let topics = topics.iter().map(|view: &TopicPermissionView| permissions::topic_object_of(view));
    shown.insert("topic_permissions".to_owned(), topics.collect());
    let globals = manager.global_parameters()?.into_iter();
    let globals = globals.map(|(name, value)| json!({ "name": name, "value": value }));
    shown.insert("global_parameters".to_owned(), globals.collect());
    if has_own_hashes {
        let text = "passwords are hashed with Argon2id, which RabbitMQ cannot import: give these \
                    users a password there";
        shown.insert("warnings".to_owned(), json!([text]));
    }
    Ok(shown)
}

/// `GET /definitions/:vhost`
pub(super) fn export_vhost(call: &Call) -> Outcome {
    let vhost = call.vhost_name();
    if !call.broker().has_vhost(&vhost) {
        return Err(Failure::bad("vhost_not_found"));
    }
    let mut shown = of_vhosts(&Origin::of(call), Some(&vhost))?;
    for (name, part) in &mut shown {
        let is_listed = matches!(name.as_str(), "queues" | "exchanges" | "bindings" | "policies");
        if let (true, Value::Array(items)) = (is_listed, part) {
            items.iter_mut().for_each(|item| *item = without(item.take(), &["vhost"]));
        }
    }
    file(call, shown)
}

/// `POST /definitions`, `/definitions/:vhost`; all or nothing, unless `partial=true`.
pub(super) async fn import(call: Call) -> Outcome {
    let vhost = call.has_path("vhost").then(|| call.vhost_name());
    if vhost.as_deref().is_some_and(|vhost| !call.broker().has_vhost(vhost)) {
        return Err(Failure::bad("vhost_not_found"));
    }
    let content_type = call.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let json = match content_type.split_once("boundary=") {
        Some((kind, boundary)) if kind.starts_with("multipart/form-data") => {
            form_file(&call.body, boundary.trim_matches('"'))
                .ok_or_else(|| Failure::bad("the form has no part 'file'"))?
        }
        _ => &call.body,
    };
    let Document { found, mut wrong } = Document::read(&Origin::of(&call), vhost, json).await?;
    let is_partial = call.has_flag("partial");
    if !is_partial && !wrong.is_empty() {
        return Err(Failure::bad(wrong.join("; ")));
    }
    let (manager, now) = (call.manager, crate::clock::now());
    // Many definitions take their time.
    let imported = tokio::task::spawn_blocking(move || match is_partial {
        true => manager.import_partly(found, now),
        false => manager.import(found, now).map(|()| Vec::new()),
    });
    wrong.extend(imported.await.map_err(|error| Failure::internal(&error.to_string()))??);
    match wrong.is_empty() {
        true => wire::done(),
        false => wire::ok(&json!({ "left_out": wrong })),
    }
}

/// Reads a document; what names no virtual host belongs to `vhost`. Passwords are hashed, which
/// takes its time.
///
/// Errors: it is no document of definitions, with everything that is wrong.
pub(crate) async fn read(
    origin: &Origin<'_>,
    vhost: Option<String>,
    json: &[u8],
) -> Result<Vec<Definition>, Failure> {
    let Document { found, wrong } = Document::read(origin, vhost, json).await?;
    if wrong.is_empty() { Ok(found) } else { Err(Failure::bad(wrong.join("; "))) }
}

/// The part of a form that is called `file`.
fn form_file<'a>(body: &'a [u8], boundary: &str) -> Option<&'a [u8]> {
    let boundary = format!("--{boundary}");
    let mut starts: Vec<usize> = memchr::memmem::find_iter(body, boundary.as_bytes()).collect();
    starts.push(body.len());
    let parts = starts.windows(2).filter_map(|pair| match pair {
        &[from, to] => body.get(from + boundary.len()..to),
        _ => None,
    });
    let split = |part: &'a [u8]| {
        let at = memchr::memmem::find(part, b"\r\n\r\n")?;
        Some((std::str::from_utf8(part.get(..at)?).ok()?, part.get(at + 4..)?))
    };
    let is_file = |head: &str| {
        head.lines().any(|line| {
            let (name, value) = line.split_once(':').unwrap_or_default();
            let mut parameters = value.split(';').map(str::trim);
            name.eq_ignore_ascii_case("content-disposition")
                && parameters.any(|one| matches!(one, "name=\"file\"" | "name=file"))
        })
    };
    let (_, content) = parts.filter_map(split).find(|(head, _)| is_file(head))?;
    Some(content.strip_suffix(b"\r\n").unwrap_or(content))
}

fn list<'a>(fields: &'a Fields, name: &str) -> Result<&'a [Value], Failure> {
    match fields.get(name) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(Failure::bad(format!("'{name}' is no list: {other}"))),
    }
}

fn name<T>(name: Result<T, polymq_model::BadName>) -> Result<T, Failure> {
    name.map_err(|bad| Failure::bad(bad.to_string()))
}

/// What was read.
#[derive(Default)]
struct Document {
    found: Vec<Definition>,
    /// What cannot be read, each with its place.
    wrong: Vec<String>,
}

/// What reads an item of a list.
type ReadItem = fn(&Reader, &Fields) -> Result<Option<Definition>, Failure>;

/// The lists that concern the whole broker; users, whose passwords may have to be hashed, are
/// another.
const OF_BROKER: [(&str, ReadItem); 4] = [
    ("vhosts", Reader::vhost),
    ("permissions", Reader::permission),
    ("topic_permissions", Reader::topic_permission),
    ("global_parameters", Reader::global_parameter),
];

/// The lists that concern virtual hosts.
const OF_VHOSTS: [(&str, ReadItem); 5] = [
    ("parameters", Reader::parameter),
    ("policies", Reader::policy),
    ("exchanges", Reader::exchange),
    ("queues", Reader::queue),
    ("bindings", Reader::binding),
];

impl Document {
    /// Errors: it is no object of lists.
    async fn read(
        origin: &Origin<'_>,
        vhost: Option<String>,
        json: &[u8],
    ) -> Result<Self, Failure> {
        let fields = Fields::read(json)?;
        let known = origin.manager.vhosts()?;
        let reader = Reader { vhost, known };
        let mut document = Self::default();
        let of_broker = OF_BROKER.iter().filter(|_| reader.vhost.is_none());
        for (name, read) in of_broker.chain(&OF_VHOSTS) {
            for (at, item) in list(&fields, name)?.iter().enumerate() {
                let item = Fields::of(item).and_then(|item| read(&reader, &item));
                document.add((name, at), item.map(Vec::from_iter));
            }
        }
        if reader.vhost.is_none() {
            for (at, item) in list(&fields, "users")?.iter().enumerate() {
                match user(origin.broker, item).await {
                    // The server has no room to hash; nothing is wrong with the user.
                    Err(failure) if failure.status.is_server_error() => return Err(failure),
                    read => document.add(("users", at), read),
                }
            }
        }
        Ok(document)
    }

    fn add(&mut self, (list, at): (&str, usize), read: Result<Vec<Definition>, Failure>) {
        match read {
            Ok(read) => self.found.extend(read),
            Err(failure) => self.wrong.push(format!("{list}[{at}]: {}", failure.reason())),
        }
    }
}

async fn user(broker: &BrokerHandle, item: &Value) -> Result<Vec<Definition>, Failure> {
    let item = Fields::of(item)?;
    let name = name(UserName::new(item.needed_text("name")?))?;
    let mut found = Vec::new();
    if let Some(Value::Object(bounds)) = item.get("limits") {
        let mut limits = UserLimits::default();
        for (limit, max) in bounds {
            limits::set_in_user(&mut limits, limit, max.as_i64().and_then(limit_from))?;
        }
        found.push(Definition::UserLimits(name.clone(), limits));
    }
    found.push(Definition::User(name, users::change_of(broker, &item).await?));
    Ok(found)
}

/// Reads items of lists.
struct Reader {
    /// The virtual host of the path, for what names none.
    vhost: Option<String>,
    /// Virtual hosts that are there, for what a document does not say about them.
    known: Vec<VhostView>,
}

impl Reader {
    fn vhost_of(&self, fields: &Fields) -> Result<VhostName, Failure> {
        let named = match &self.vhost {
            Some(vhost) => vhost.clone(),
            None => fields.needed_text("vhost")?,
        };
        name(VhostName::new(named))
    }

    fn policy(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let (vhost, named) = (self.vhost_of(item)?, item.needed_text("name")?);
        let record = policies::record_of(item)?;
        Ok(Some(Definition::Policy(vhost, PolicyKind::User, named, record)))
    }

    fn exchange(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let declare = DeclareExchange {
            request: RequestId::default(),
            exchange: item.needed_text("name")?,
            kind: item.text("type")?.unwrap_or_else(|| "direct".to_owned()),
            passive: false,
            durable: item.flag("durable", true)?,
            auto_delete: item.flag("auto_delete", false)?,
            internal: item.flag("internal", false)?,
            arguments: item.table("arguments")?,
        };
        Ok(Some(Definition::Exchange(self.vhost_of(item)?, declare)))
    }

    fn queue(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let declare = DeclareQueue {
            request: RequestId::default(),
            queue: item.needed_text("name")?,
            passive: false,
            durable: item.flag("durable", true)?,
            exclusive: false,
            auto_delete: item.flag("auto_delete", false)?,
            arguments: item.table("arguments")?,
        };
        Ok(Some(Definition::Queue(self.vhost_of(item)?, declare)))
    }

    fn binding(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let binding = NewBinding {
            source: item.needed_text("source")?,
            destination: item.needed_text("destination")?,
            to_queue: item.needed_text("destination_type")? == "queue",
            key: item.text("routing_key")?.unwrap_or_default(),
            arguments: item.table("arguments")?,
        };
        Ok(Some(Definition::Binding(self.vhost_of(item)?, binding)))
    }

    fn vhost(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let vhost = name(VhostName::new(item.needed_text("name")?))?;
        let known = self.known.iter().find(|view| view.name == vhost);
        let now = known.map(|view| view.record.clone()).unwrap_or_default();
        Ok(Some(Definition::Vhost(vhost, vhosts::record_of(item, now)?)))
    }

    fn permission(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let user = name(UserName::new(item.needed_text("user")?))?;
        let record = permissions::record_of(item)?;
        Ok(Some(Definition::Permission(self.vhost_of(item)?, user, record)))
    }

    fn topic_permission(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let user = name(UserName::new(item.needed_text("user")?))?;
        let (exchange, record) = permissions::topic_record_of(item)?;
        Ok(Some(Definition::TopicPermission(self.vhost_of(item)?, user, exchange, record)))
    }

    fn global_parameter(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let value = item.get("value").cloned().unwrap_or_default();
        Ok(Some(Definition::GlobalParameter(item.needed_text("name")?, value)))
    }

    fn parameter(&self, item: &Fields) -> Result<Option<Definition>, Failure> {
        let (vhost, component) = (self.vhost_of(item)?, item.needed_text("component")?);
        let named = item.needed_text("name")?;
        match (component.as_str(), item.get("value")) {
            ("operator_policy", Some(value)) => {
                let record = policies::record_of(&Fields::of(value)?)?;
                Ok(Some(Definition::Policy(vhost, PolicyKind::Operator, named, record)))
            }
            ("vhost-limits", Some(Value::Object(map))) => {
                Ok(Some(Definition::VhostLimits(vhost, limits::vhost_limits_of(map)?)))
            }
            // How a server in Erlang writes no limits.
            ("vhost-limits", _) => Ok(None),
            (component, _) => Err(Failure::bad(format!(
                "parameter '{named}' in vhost '{vhost}': component {component} not found"
            ))),
        }
    }
}

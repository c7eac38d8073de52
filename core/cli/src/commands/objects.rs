//! Everything that is not a queue.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{BINDING_COLUMNS, Done, PLAIN, dry};
use crate::{
    api::{Api, Call, segment, vhost_segment},
    arguments::{
        BindingCommand, ConnCommand, ExchangeCommand, PermCommand, PolicyCommand, ScheduledCommand,
        UserCommand, VhostCommand,
    },
    failure::Failure,
    resource::{Session, made, typed},
};

pub(super) fn exchange(session: &Session, command: ExchangeCommand) -> Done {
    let of = |name: &str| {
        let name = if name.is_empty() { "amq.default" } else { name };
        session.api.in_vhost(&format!("exchanges/{}", segment(name)))
    };
    match command {
        ExchangeCommand::Ls(ls) => {
            let columns = &["name", "type", "durable", "auto_delete", "internal", "policy"];
            session.list(&session.api.in_vhost("exchanges"), &ls, columns)
        }
        ExchangeCommand::Show { name } => session.show(&of(&name)),
        ExchangeCommand::Create { name, kind, internal, made: wanted, change } => {
            let mut body = made(&wanted)?;
            body.insert("type".to_owned(), json!(kind));
            body.insert("internal".to_owned(), json!(internal));
            session.put(&of(&name), &Value::Object(body), change)
        }
        ExchangeCommand::Delete { name, if_unused, change, sure } => {
            let query: &[_] = if if_unused { &[("if_unused", "true".to_owned())] } else { &[] };
            session.delete(&of(&name), query, change, Some((&name, sure)))
        }
    }
}

pub(super) fn binding(session: &Session, command: BindingCommand) -> Done {
    let all = session.api.in_vhost("bindings");
    match command {
        BindingCommand::Ls(ls) => session.list(&all, &ls, BINDING_COLUMNS),
        BindingCommand::Create { source, destination, key, to_exchange, arguments, dry_run } => {
            let body = json!({
                "source": source,
                "destination": destination,
                "destination_type": if to_exchange { "exchange" } else { "queue" },
                "routing_key": key,
                "arguments": typed(&arguments)?,
            });
            session.change(&Call::new("POST", &all).json(&body), dry(dry_run))
        }
        BindingCommand::Delete { id, change } => {
            session.delete(&format!("{all}/{}", segment(&id)), &[], change, None)
        }
    }
}

pub(super) fn scheduled(session: &Session, command: ScheduledCommand) -> Done {
    let all = session.api.in_vhost("scheduled");
    let of = |id: &str| format!("{all}/{}", segment(id));
    match command {
        ScheduledCommand::Ls(ls) => {
            session.list(&all, &ls, &["id", "due_at", "exchange", "routing_key", "payload_bytes"])
        }
        ScheduledCommand::Move { id, due_at } => {
            let body = json!({ "due_at": due_at });
            session.change(&Call::new("PATCH", &of(&id)).json(&body), PLAIN)
        }
        ScheduledCommand::Cancel { id, change, sure } => {
            session.delete(&of(&id), &[], change, Some((&id, sure)))
        }
    }
}

pub(super) fn connection(session: &Session, command: ConnCommand) -> Done {
    let of = |id: &str| format!("connections/{}", segment(id));
    match command {
        ConnCommand::Ls(ls) => {
            let columns = &["id", "name", "protocol", "user", "vhost", "state", "channels"];
            session.list("connections", &ls, columns)
        }
        ConnCommand::Show { id } => session.show(&of(&id)),
        ConnCommand::Close { id, reason, change } => {
            let query: Vec<_> = reason.into_iter().map(|reason| ("reason", reason)).collect();
            session.delete(&of(&id), &query, change, None)
        }
    }
}

pub(super) fn vhost(session: &Session, command: VhostCommand) -> Done {
    let of = |name: &str| format!("vhosts/{}", vhost_segment(name));
    match command {
        VhostCommand::Ls(ls) => {
            session.list("vhosts", &ls, &["name", "description", "connections", "queues"])
        }
        VhostCommand::Show { name } => session.show(&of(&name)),
        VhostCommand::Create { name, description, protected, change } => {
            let mut body = json!({ "protected_from_deletion": protected });
            if let Some(description) = description {
                body["description"] = json!(description);
            }
            session.put(&of(&name), &body, change)
        }
        VhostCommand::Delete { name, change, sure } => {
            session.delete(&of(&name), &[], change, Some((&name, sure)))
        }
    }
}

pub(super) fn user(session: &Session, command: UserCommand) -> Done {
    let of = |name: &str| format!("users/{}", segment(name));
    match command {
        UserCommand::Ls(ls) => session.list("users", &ls, &["name", "tags", "loopback_only"]),
        UserCommand::Show { name } => session.show(&of(&name)),
        UserCommand::Create { name, tags, new_password_file, change } => {
            let mut body = json!({ "tags": tags });
            if let Some(file) = new_password_file {
                let text =
                    std::fs::read_to_string(&file).with_context(|| file.display().to_string());
                body["password"] = json!(text?.lines().next().unwrap_or_default());
            }
            session.put(&of(&name), &body, change)
        }
        UserCommand::Delete { name, change, sure } => {
            session.delete(&of(&name), &[], change, Some((&name, sure)))
        }
    }
}

pub(super) fn permission(session: &Session, command: PermCommand) -> Done {
    let of = |api: &Api, name: &str| {
        format!("users/{}/permissions/{}", segment(name), vhost_segment(api.vhost()))
    };
    match command {
        PermCommand::Show { name } => session.show(&of(&session.api, &name)),
        PermCommand::Set { name, configure, write, read, dry_run } => {
            let body = json!({ "configure": configure, "write": write, "read": read });
            session.put(&of(&session.api, &name), &body, dry(dry_run))
        }
        PermCommand::Delete { name, change } => {
            session.delete(&of(&session.api, &name), &[], change, None)
        }
    }
}

pub(super) fn policy(session: &Session, command: PolicyCommand) -> Done {
    let of = |name: &str| session.api.in_vhost(&format!("policies/{}", segment(name)));
    match command {
        PolicyCommand::Ls(ls) => {
            let columns = &["name", "pattern", "apply_to", "priority", "definition"];
            session.list(&session.api.in_vhost("policies"), &ls, columns)
        }
        PolicyCommand::Show { name } => session.show(&of(&name)),
        PolicyCommand::Set { name, pattern, definition, apply_to, priority, dry_run } => {
            let definition: Value = serde_json::from_str(&definition)
                .map_err(|error| Failure::Usage(format!("the definition is not JSON: {error}")))?;
            let mut body = json!({ "pattern": pattern, "definition": definition });
            if let Some(apply_to) = apply_to {
                body["apply_to"] = json!(apply_to);
            }
            if let Some(priority) = priority {
                body["priority"] = json!(priority);
            }
            session.put(&of(&name), &body, dry(dry_run))
        }
        PolicyCommand::Delete { name, change } => session.delete(&of(&name), &[], change, None),
    }
}

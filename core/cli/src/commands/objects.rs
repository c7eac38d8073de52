//! What messages pass beside queues: exchanges, bindings, connections, topics.

use serde_json::{Value, json};

use super::{BINDING_COLUMNS, CONSUMER_COLUMNS, Done, dry};
use crate::{
    api::{Call, segment},
    arguments::{
        BindingCommand, ChannelCommand, ConnCommand, ConsumerCommand, ExchangeCommand, Named,
        ScheduledCommand, TopicCommand,
    },
    failure::Failure,
    resource::{Session, made, say, typed},
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
        ExchangeCommand::Show(Named { name }) => session.show(&of(&name)),
        ExchangeCommand::Create { name, kind, internal, made: wanted, change } => {
            let mut body = made(&wanted)?;
            body.insert("type".to_owned(), json!(kind));
            body.insert("internal".to_owned(), json!(internal));
            session.create(&of(&name), &Value::Object(body), change)
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
        BindingCommand::Delete(removed) => {
            session.remove(&format!("{all}/{}", segment(&removed.name)), &removed)
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
        ScheduledCommand::Move { id, due_at, dry_run } => {
            let body = json!({ "due_at": due_at });
            session.change(&Call::new("PATCH", &of(&id)).json(&body), dry(dry_run))
        }
        ScheduledCommand::Cancel(removed) => session.remove(&of(&removed.name), &removed),
    }
}

pub(super) fn connection(session: &Session, command: ConnCommand) -> Done {
    let of = |id: &str| format!("connections/{}", segment(id));
    match command {
        ConnCommand::Ls(ls) => {
            let columns = &["id", "name", "protocol", "user", "vhost", "state", "channels"];
            session.list("connections", &ls, columns)
        }
        ConnCommand::Show(Named { name }) => session.show(&of(&name)),
        ConnCommand::Close { id, reason, change } => {
            let query: Vec<_> = reason.into_iter().map(|reason| ("reason", reason)).collect();
            session.end(&of(&id), &query, change, "closed")
        }
    }
}

pub(super) fn channel(session: &Session, command: &ChannelCommand) -> Done {
    let ChannelCommand::Ls(ls) = command;
    let mut channels = Vec::new();
    for connection in session.api.list("connections", &[], None)? {
        let Some(id) = connection.get("id").and_then(Value::as_str) else { continue };
        // One that has gone meanwhile has no channels either.
        let Ok(shown) =
            session.api.call(&Call::new("GET", &format!("connections/{}", segment(id))))
        else {
            continue;
        };
        let list = shown.get("channel_list").and_then(Value::as_array);
        channels.extend(list.into_iter().flatten().map(|channel| {
            let mut channel = channel.clone();
            channel["connection"] = json!(id);
            channel["user"] = connection.get("user").cloned().unwrap_or_default();
            channel
        }));
    }
    channels.truncate(ls.limit.unwrap_or(usize::MAX));
    let columns = &["connection", "user", "number", "prefetch", "consumers", "unacked"];
    Ok(session.output.rows(&channels, columns)?)
}

pub(super) fn consumer(session: &Session, command: ConsumerCommand) -> Done {
    let (queue, tag, connection, change) = match command {
        ConsumerCommand::Ls(ls) => return session.list("consumers", &ls, CONSUMER_COLUMNS),
        ConsumerCommand::Cancel { queue, tag, connection, change } => {
            (queue, tag, connection, change)
        }
    };
    let all = session.api.in_vhost(&format!("queues/{}/consumers", segment(&queue)));
    let mut found = session.api.list(&all, &[], None)?;
    let says = |row: &Value, name: &str, text: &str| row.get(name) == Some(&json!(text));
    found.retain(|row| says(row, "tag", &tag));
    if let Some(connection) = &connection {
        found.retain(|row| says(row, "connection", connection));
    }
    let [one] = found.as_slice() else {
        return match found.as_slice() {
            [] if change.idempotent => say("unchanged"),
            [] => Err(Failure::Missing(format!("no consumer `{tag}` of queue `{queue}`"))),
            _ => {
                session.output.rows(&found, CONSUMER_COLUMNS)?;
                let text = format!("several consumers are called `{tag}`: add --connection");
                Err(Failure::Usage(text))
            }
        };
    };
    let part = |name: &str| {
        let value = one.get(name).unwrap_or(&Value::Null);
        segment(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let path = format!("{all}/{}/{}/{}", part("connection"), part("channel"), part("tag"));
    session.end(&path, &[], change, "cancelled")
}

pub(super) fn topic(session: &Session, command: TopicCommand) -> Done {
    let retained = |key: &str| session.api.in_vhost(&format!("retained/{}", segment(key)));
    match command {
        TopicCommand::Ls { prefix, ls } => {
            let query: Vec<_> = prefix.into_iter().map(|prefix| ("prefix", prefix)).collect();
            let columns = &["name", "topic", "retained", "below"];
            session.list_with(&session.api.in_vhost("topics"), query, &ls, columns)
        }
        TopicCommand::Retained(Named { name }) => session.show(&retained(&name)),
        TopicCommand::Forget(removed) => session.remove(&retained(&removed.name), &removed),
    }
}

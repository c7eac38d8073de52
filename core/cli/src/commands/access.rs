//! Who may do what: virtual hosts, users, rights, bounds.

use serde_json::{Value, json};

use super::{Done, dry};
use crate::{
    api::{Api, Call, segment, vhost_segment},
    arguments::{
        BanCommand, LimitCommand, Named, PermCommand, PolicyCommand, TokenCommand, UserCommand,
        VhostCommand, Whose,
    },
    context::secret,
    failure::Failure,
    resource::{Session, typed},
};

pub(super) fn vhost(session: &Session, command: VhostCommand) -> Done {
    let of = |name: &str| format!("vhosts/{}", vhost_segment(name));
    match command {
        VhostCommand::Ls(ls) => {
            session.list("vhosts", &ls, &["name", "description", "connections", "queues"])
        }
        VhostCommand::Show(Named { name }) => session.show(&of(&name)),
        VhostCommand::Create { name, description, protected, change } => {
            let mut body = json!({ "protected_from_deletion": protected });
            if let Some(description) = description {
                body["description"] = json!(description);
            }
            session.create(&of(&name), &body, change)
        }
        VhostCommand::Delete(removed) => session.remove(&of(&removed.name), &removed),
    }
}

pub(super) fn user(session: &Session, command: UserCommand) -> Done {
    let of = |name: &str| format!("users/{}", segment(name));
    match command {
        UserCommand::Ls(ls) => session.list("users", &ls, &["name", "tags", "loopback_only"]),
        UserCommand::Show(Named { name }) => session.show(&of(&name)),
        UserCommand::Create { name, tags, new_password_file, change } => {
            let mut body = json!({ "tags": tags });
            if let Some(file) = new_password_file {
                body["password"] = json!(secret(&file)?);
            }
            session.create(&of(&name), &body, change)
        }
        UserCommand::Set { name, tags, new_password_file, dry_run } => {
            session.api.call(&Call::new("GET", &of(&name)))?;
            let mut body = json!({});
            if let Some(tags) = tags {
                body["tags"] = tags.into_iter().filter(|tag| !tag.is_empty()).collect();
            }
            if let Some(file) = new_password_file {
                body["password"] = json!(secret(&file)?);
            }
            session.put(&of(&name), &body, dry(dry_run))
        }
        UserCommand::Delete(removed) => session.remove(&of(&removed.name), &removed),
    }
}

pub(super) fn permission(session: &Session, command: PermCommand) -> Done {
    let of = |api: &Api, name: &str| {
        format!("users/{}/permissions/{}", segment(name), vhost_segment(api.vhost()))
    };
    match command {
        PermCommand::Ls(ls) => {
            session.list("permissions", &ls, &["user", "vhost", "configure", "write", "read"])
        }
        PermCommand::Show(Named { name }) => session.show(&of(&session.api, &name)),
        PermCommand::Set { name, configure, write, read, dry_run } => {
            let body = json!({ "configure": configure, "write": write, "read": read });
            session.put(&of(&session.api, &name), &body, dry(dry_run))
        }
        PermCommand::Delete(removed) => session.remove(&of(&session.api, &removed.name), &removed),
        PermCommand::Topics(ls) => {
            let columns = &["user", "vhost", "exchange", "write", "read", "syntax"];
            session.list("topic-permissions", &ls, columns)
        }
        PermCommand::SetTopics { name, exchange, write, read, syntax, dry_run } => {
            let body = json!({ "write": write, "read": read, "syntax": syntax });
            session.put(&topics(&session.api, &name, &exchange), &body, dry(dry_run))
        }
        PermCommand::DeleteTopics { name, exchange, change, sure } => {
            let path = topics(&session.api, &name, &exchange);
            session.delete(&path, &[], change, Some((&name, sure)))
        }
    }
}

/// The path of a topic permission; the exchange without a name is `amq.default`.
fn topics(api: &Api, user: &str, exchange: &str) -> String {
    let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
    let (user, vhost) = (segment(user), vhost_segment(api.vhost()));
    format!("users/{user}/topic-permissions/{vhost}/{}", segment(exchange))
}

pub(super) fn policy(session: &Session, command: PolicyCommand) -> Done {
    let of = |name: &str| session.api.in_vhost(&format!("policies/{}", segment(name)));
    match command {
        PolicyCommand::Ls(ls) => {
            let columns = &["name", "pattern", "apply_to", "priority", "definition"];
            session.list(&session.api.in_vhost("policies"), &ls, columns)
        }
        PolicyCommand::Show(Named { name }) => session.show(&of(&name)),
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
        PolicyCommand::Delete(removed) => session.remove(&of(&removed.name), &removed),
    }
}

pub(super) fn token(session: &Session, command: TokenCommand) -> Done {
    let of = |user: &str| format!("users/{}/tokens", segment(user));
    match command {
        TokenCommand::Ls { owner, ls } => {
            session.list(&of(&owner), &ls, &["id", "name", "scopes", "created_at", "expires_at"])
        }
        TokenCommand::Create { owner, name, scopes, expires_at, dry_run } => {
            let mut body = json!({});
            if let Some(name) = name {
                body["name"] = json!(name);
            }
            if !scopes.is_empty() {
                body["scopes"] = json!(scopes);
            }
            if let Some(expires_at) = expires_at {
                body["expires_at"] = json!(expires_at);
            }
            let query: &[_] = if dry_run { &[("dry_run", "true".to_owned())] } else { &[] };
            let path = of(&owner);
            let call = Call::new("POST", &path).query(query).json(&body);
            let made = session.api.call(&call)?;
            Ok(session.output.document(&made)?)
        }
        TokenCommand::Delete { owner, token } => {
            session.remove(&format!("{}/{}", of(&owner), segment(&token.name)), &token)
        }
    }
}

/// The bounds of a virtual host.
const VHOST_BOUNDS: [&str; 6] = [
    "connections_max",
    "queues_max",
    "bytes_high",
    "retained_bytes_max",
    "retained_count_max",
    "message_bytes_max",
];

pub(super) fn limit(session: &Session, command: LimitCommand) -> Done {
    let of = |whose: &Whose| match &whose.of_user {
        Some(user) => format!("users/{}/limits", segment(user)),
        None => session.api.in_vhost("limits"),
    };
    match command {
        LimitCommand::Show(whose) => session.show(&of(&whose)),
        LimitCommand::Set { bounds, whose, change } => {
            let path = of(&whose);
            let held = session.api.call(&Call::new("GET", &path))?;
            let names: &[&str] = match whose.of_user {
                Some(_) => &["connections_max", "channels_max"],
                None => &VHOST_BOUNDS,
            };
            let mut body = json!({});
            for name in names {
                body[name] = held.get(name).cloned().unwrap_or_default();
            }
            for (name, value) in typed(&bounds)?.as_object().into_iter().flatten() {
                if !names.contains(&name.as_str()) {
                    let known = names.join(", ");
                    return Err(Failure::Usage(format!("`{name}` is none of {known}")));
                }
                body[name] = value.clone();
            }
            session.put(&path, &body, change)
        }
        LimitCommand::Delete { whose, change, sure } => {
            let name = whose.of_user.as_deref().unwrap_or_else(|| session.api.vhost());
            session.delete(&of(&whose), &[], change, Some((name, sure)))
        }
    }
}

pub(super) fn ban(session: &Session, command: BanCommand) -> Done {
    let of = |id: &str| format!("bans/{}", segment(id));
    match command {
        BanCommand::Ls(ls) => {
            session.list("bans", &ls, &["id", "user", "address", "client_id", "reason", "until"])
        }
        BanCommand::Show(Named { name }) => session.show(&of(&name)),
        BanCommand::Create { id, banned_user, address, client_id, reason, until, change } => {
            let named = [
                ("user", banned_user),
                ("address", address),
                ("client_id", client_id),
                ("reason", reason),
                ("until", until),
            ];
            let said = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let body: Value = said.map(|(name, value)| (name.to_owned(), json!(value))).collect();
            session.create(&of(&id), &body, change)
        }
        BanCommand::Delete(removed) => session.remove(&of(&removed.name), &removed),
    }
}

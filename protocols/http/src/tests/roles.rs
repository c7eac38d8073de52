//! Every route with every role: what its document says it needs is what it needs.

use serde_json::Value;

use super::World;
use crate::serve::Audience;

/// Users and their tags, weakest first; all have every permission in the usual virtual host.
const ROLES: [(&str, &[&str]); 5] = [
    ("plain", &[]),
    ("manager", &["management"]),
    ("maker", &["policymaker"]),
    ("watcher", &["monitoring"]),
    ("root", &["administrator"]),
];

/// Who may use a route that says it needs this; `None` when that depends on more than tags.
fn may(permission: &str) -> Option<&'static [&'static str]> {
    match permission {
        "tag administrator" => Some(&["root"]),
        "tag monitoring" => Some(&["watcher", "root"]),
        "tag policymaker" => Some(&["maker", "root"]),
        "tag management; all with tag monitoring"
        | "tag management and a permission there, or tag monitoring" => {
            Some(&["manager", "maker", "watcher", "root"])
        }
        _ => None,
    }
}

/// The path with a value for each part; nothing of that name is there.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{vhost}" => "~",
        "{seq}" | "{id}" => "77",
        part if part.starts_with('{') => "none",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn each_route_needs_what_it_says_and_nothing_without_a_login() {
    let world = World::start(Audience::Users).await;
    for (user, tags) in ROLES {
        world.tagged(user, tags);
    }
    let document = crate::v1::api().document();
    let mut checked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let line = format!("{} {}", method.to_uppercase(), filled(path));
            let permission = operation["x-permission"].as_str().unwrap();
            if permission.starts_with("none") {
                continue;
            }
            anonymous(&world, &line).await;
            let Some(allowed) = may(permission) else { continue };
            for (user, _) in ROLES {
                checked += 1;
                let status = status_of(&world, user, &line, operation).await;
                let is_denied = status == 403;
                assert_eq!(is_denied, !allowed.contains(&user), "{line} as {user}: {status}");
                assert!(status < 500, "{line} as {user}: {status}");
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

async fn anonymous(world: &World, line: &str) {
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = world.send(&request).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{line}: {answer}");
}

async fn status_of(world: &World, user: &str, line: &str, operation: &Value) -> u16 {
    let mut client = world.client(user).await;
    // A dry run where there is one, so that each role finds the same world.
    let has_dry_run = operation["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .any(|parameter| parameter["name"] == "dry_run");
    let line = if has_dry_run { format!("{line}?dry_run=true") } else { line.to_owned() };
    let body = body_of(operation);
    let json = [("Content-Type", "application/json")];
    client.ask(&line, &json, body.to_string().as_bytes()).await.status
}

/// A body that the route reads.
fn body_of(operation: &Value) -> Value {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    match schema.as_str().and_then(|schema| schema.rsplit('/').next()) {
        Some("PermissionSpec") => serde_json::json!({ "configure": "", "write": "", "read": "" }),
        Some("TopicPermissionSpec") => serde_json::json!({ "write": "", "read": "" }),
        Some("PolicySpec") => {
            serde_json::json!({ "pattern": "x", "definition": { "max-length": 1 } })
        }
        Some("TraceSpec") => serde_json::json!({ "vhost": "nowhere" }),
        Some("BanSpec") => serde_json::json!({ "user": "nobody" }),
        _ => serde_json::json!({}),
    }
}

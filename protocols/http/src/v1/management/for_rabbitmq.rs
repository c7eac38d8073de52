//! A document of definitions without what a RabbitMQ refuses, as it would refuse all of it.

use serde_json::{Map, Value, json};

/// Keys that policies of users may have there. Those of plugins, and those that begin with `ha-`,
/// are left to the plugins.
const POLICY_KEYS: [&str; 22] = [
    "alternate-exchange",
    "consumer-timeout",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "delivery-limit",
    "expires",
    "federation-upstream",
    "federation-upstream-set",
    "initial-cluster-size",
    "max-age",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "max-length",
    "max-length-bytes",
    "message-ttl",
    "overflow",
    "queue-leader-locator",
    "queue-master-locator",
    "queue-mode",
    "queue-version",
    "stream-max-segment-size-bytes",
];
/// Keys that policies of operators may have there.
const OPERATOR_KEYS: [&str; 7] = [
    "delivery-limit",
    "expires",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "max-length",
    "max-length-bytes",
    "message-ttl",
];
/// Limits of virtual hosts there.
const LIMITS: [&str; 2] = ["max-connections", "max-queues"];

/// Leaves out what a RabbitMQ does not take, and says so in `warnings`.
pub(super) fn narrow(document: &mut Map<String, Value>) {
    let mut warnings = Vec::new();
    for user in list(document, "users").into_iter().flatten() {
        if user["hashing_algorithm"] == "polymq_argon2id" {
            user["password_hash"] = json!("");
            user["hashing_algorithm"] = json!("rabbit_password_hashing_sha256");
            warnings.push(format!(
                "user {} has no password there before it is given one",
                user["name"]
            ));
        }
    }
    if let Some(rules) = list(document, "topic_permissions") {
        rules.retain(|rule| {
            let is_known = rule["syntax"].is_null();
            if !is_known {
                warnings.push(format!(
                    "topic permission of user {} on {} is left out: it is no regular expression",
                    rule["user"], rule["exchange"]
                ));
            }
            is_known
        });
    }
    let is_known = |key: &str| POLICY_KEYS.contains(&key) || key.starts_with("ha-");
    if let Some(policies) = list(document, "policies") {
        policies.retain_mut(|policy| {
            let name = format!("policy {}", policy["name"]);
            keep(&mut policy["definition"], &name, is_known, &mut warnings)
        });
    }
    if let Some(parameters) = list(document, "parameters") {
        parameters.retain_mut(|parameter| match parameter["component"].as_str() {
            Some("operator_policy") => {
                let name = format!("operator policy {}", parameter["name"]);
                let definition = &mut parameter["value"]["definition"];
                keep(definition, &name, |key| OPERATOR_KEYS.contains(&key), &mut warnings)
            }
            Some("vhost-limits") => {
                let name = format!("the limits of vhost {}", parameter["vhost"]);
                let limits = &mut parameter["value"];
                keep(limits, &name, |key| LIMITS.contains(&key), &mut warnings)
            }
            _ => true,
        });
    }
    document.remove("warnings");
    if !warnings.is_empty() {
        document.insert("warnings".to_owned(), json!(warnings));
    }
}

fn list<'d>(document: &'d mut Map<String, Value>, name: &str) -> Option<&'d mut Vec<Value>> {
    document.get_mut(name).and_then(Value::as_array_mut)
}

/// Keeps some keys of an object; false when nothing is left of it.
fn keep(
    object: &mut Value,
    name: &str,
    is_known: impl Fn(&str) -> bool,
    warnings: &mut Vec<String>,
) -> bool {
    let Some(map) = object.as_object_mut() else { return true };
    let all: Vec<String> = map.keys().cloned().collect();
    map.retain(|key, _| is_known(key));
    let left_out: Vec<&str> =
        all.iter().map(String::as_str).filter(|key| !map.contains_key(*key)).collect();
    if !left_out.is_empty() {
        warnings.push(format!("{name} is without {} there", left_out.join(", ")));
    }
    !map.is_empty()
}

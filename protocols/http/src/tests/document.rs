//! The OpenAPI document: what is served is what is told.

use std::{collections::HashSet, fs, path::PathBuf};

use serde_json::Value;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/tests/openapi.json")
}

/// A change of the API is a change of this file, so that nobody makes one by accident. To write it
/// again: `BLESS=1 cargo test -p polymq-http document`.
#[test]
fn document_is_the_committed_one() {
    let document = format!("{:#}\n", crate::v1::api().document());
    if std::env::var_os("BLESS").is_some() {
        fs::write(golden(), &document).unwrap();
    }
    let committed = fs::read_to_string(golden()).unwrap();
    assert!(
        document == committed,
        "the API has changed: BLESS=1 cargo test -p polymq-http document"
    );
}

#[test]
fn each_operation_has_a_name_a_permission_and_declared_parts() {
    let document = crate::v1::api().document();
    let mut ids = HashSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].to_string()), "{place}: its id is taken");
            for field in ["summary", "x-permission"] {
                let text = operation[field].as_str().unwrap_or_default();
                assert!(!text.is_empty() && !text.ends_with('.'), "{place}: {field}");
            }
            let told: HashSet<_> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            assert_eq!(told.len(), path.matches('{').count(), "{place}");
        }
    }
    assert_references(&document, &document);
}

/// Every reference leads somewhere.
fn assert_references(part: &Value, document: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(
                    document.pointer(pointer).is_some_and(|found| !found.is_null()),
                    "{reference}"
                );
            }
            fields.values().for_each(|part| assert_references(part, document));
        }
        Value::Array(items) => items.iter().for_each(|part| assert_references(part, document)),
        _ => {}
    }
}

//! A JSON Schema of the file, for editors that complete and check while somebody writes.

use serde_json::{Value, json};

use super::{key::Key, listener::DEFAULT_LISTENERS, section::SECTIONS};

/// The schema. It says what fits each key; what does not fit together, `polymq check` says.
///
/// Specification: JSON Schema 2020-12.
pub(crate) fn schema() -> Value {
    let mut root = table("PolyMQ's configuration.");
    for section in SECTIONS {
        let place = section.path.split('.').fold(&mut root, step);
        describe(place, section.about);
        for key in section.keys {
            place["properties"][key.name] = of_key(key);
        }
    }
    // A listener that exists by itself has its own port.
    for (name, port) in DEFAULT_LISTENERS {
        let mut own = root["properties"]["listeners"]["additionalProperties"].clone();
        own["properties"]["bind"]["default"] = json!([format!(":{port}")]);
        root["properties"]["listeners"]["properties"][name] = own;
    }
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("polymq.toml");
    root
}

fn table(about: &str) -> Value {
    let mut table = json!({ "type": "object", "additionalProperties": false });
    table["properties"] = json!({});
    describe(&mut table, about);
    table
}

fn describe(place: &mut Value, about: &str) {
    let lines: Vec<_> = about.lines().map(str::trim).collect();
    place["description"] = json!(lines.join(" "));
}

/// The schema of a table's part; `*` is a name that the operator chooses.
fn step<'s>(place: &'s mut Value, part: &str) -> &'s mut Value {
    let inner = match part {
        "*" => &mut place["additionalProperties"],
        name => &mut place["properties"][name],
    };
    if !inner.is_object() {
        *inner = table("");
    }
    inner
}

fn of_key(key: &Key) -> Value {
    let mut schema = (key.schema)();
    describe(&mut schema, key.about);
    let text = format!("value = {}", (key.default)());
    let default = text.parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    // What a default says is not always what a file may say: "" stands for none.
    if let Some(default) = default.and_then(|value| serde_json::to_value(value).ok()) {
        schema["default"] = default;
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a value breaks of a schema, as far as ours go.
    fn broken(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let kind = schema["type"].as_str().unwrap();
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_u64(),
            _ => value.is_boolean(),
        };
        if !fits {
            return found.push(format!("{at} is no {kind}"));
        }
        if let Some(words) = schema.get("enum")
            && !words.as_array().unwrap().contains(value)
        {
            found.push(format!("{at} is none of {words}"));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            broken(&schema["items"], item, &format!("{at}.{index}"), found);
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let schema = match schema["properties"].get(name) {
                Some(known) => known,
                None => &schema["additionalProperties"],
            };
            match schema.is_object() {
                true => broken(schema, inner, &at, found),
                false => found.push(format!("{at} is unknown")),
            }
        }
    }

    fn problems(text: &str) -> Vec<String> {
        let table: toml::Table = text.parse().unwrap();
        let mut found = Vec::new();
        broken(&schema(), &serde_json::to_value(table).unwrap(), "", &mut found);
        found
    }

    #[test]
    fn the_schema_takes_the_reference_and_refuses_what_is_wrong() {
        assert_eq!(problems(&crate::config::reference()), Vec::<String>::new());
        assert_eq!(problems("[limits]\nconections = 1\n"), [".limits.conections is unknown"]);
        assert_eq!(problems("[tls.x]\nkey_file = 1\n"), [".tls.x.key_file is no string"]);
        let word = problems("[storage]\nbackend = \"files\"\n");
        assert!(word[0].starts_with(".storage.backend is none of"), "{word:?}");
        assert_eq!(problems("[listeners.mqtts]\nbind = [\":1\"]\nvhost = \"v\"\n").len(), 0);
    }

    #[test]
    fn every_key_is_in_the_schema_with_its_words_and_its_default() {
        let schema = schema();
        for section in SECTIONS {
            let mut place = &schema;
            for part in section.path.split('.') {
                place = match part {
                    "*" => &place["additionalProperties"],
                    name => &place["properties"][name],
                };
            }
            for key in section.keys {
                let known = &place["properties"][key.name];
                let text = format!("{}.{}: {known}", section.path, key.name);
                assert!(known["description"].as_str().is_some_and(|d| !d.is_empty()), "{text}");
                assert!(!known["default"].is_null(), "{text}");
            }
        }
        let pattern = &schema["properties"]["limits"]["properties"]["message_size"]["pattern"];
        assert_eq!(pattern, "^[0-9][0-9_]* *(GiB|MiB|KiB|GB|MB|KB|B)$");
    }
}

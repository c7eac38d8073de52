//! The OpenAPI 3.1 document, made from the operations that are served.

use serde_json::{Map, Value, json};

use crate::{
    api::{Answer, Kind, Media, Operation, Parameter, ROOT},
    schema::{Schema, Schemas, record},
};

record! {
    /// Why a request failed (RFC 9457).
    Problem {
        /// A name for the kind of problem.
        r#type: String,
        /// The words of the status.
        title: String,
        /// The status.
        status: u16,
        /// A word that never changes.
        code: String,
        /// A sentence for people.
        detail: String,
        /// The values of the sentence.
        params: Option<std::collections::BTreeMap<String, Value>>,
        /// Where in the request: a JSON pointer, or the name of a parameter or header.
        at: Option<String>,
        /// The request's id, as the log has it.
        request_id: Option<String>,
        /// All mistakes of the request, when there are several; the first is also told above.
        errors: Option<Vec<Mistake>>,
    }
}

record! {
    /// A mistake in a request.
    Mistake {
        /// A word that never changes.
        code: String,
        /// A sentence for people.
        detail: String,
        /// The values of the sentence.
        params: Option<std::collections::BTreeMap<String, Value>>,
        /// Where in the request: a JSON pointer, or the name of a parameter.
        at: Option<String>,
    }
}

/// The document of these operations.
pub(crate) fn document(operations: &[&'static Operation]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let path = paths.entry(format!("{ROOT}{}", operation.path)).or_insert_with(|| json!({}));
        path[operation.method.as_str()] = describe(operation, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "PolyMQ",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API of PolyMQ. In paths, `~` stands for the virtual host `/`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.into_json(),
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "bearer": { "type": "http", "scheme": "bearer" },
            },
        },
        "security": [{ "basic": [] }, { "bearer": [] }],
    })
}

fn describe(operation: &Operation, schemas: &mut Schemas) -> Value {
    let in_path = path_names(operation.path).map(|name| {
        json!({
            "name": name, "in": "path", "required": true, "schema": { "type": "string" },
        })
    });
    let of = |place: &'static str| move |parameter: &Parameter| told(parameter, place);
    let parameters: Vec<_> = in_path
        .chain(operation.query.iter().map(of("query")))
        .chain(operation.headers.iter().map(of("header")))
        .collect();
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "x-permission": operation.permission,
        "parameters": parameters,
        "responses": answers(operation.answers, schemas),
    });
    if !operation.body.is_empty() {
        described["requestBody"] = json!({ "content": content(operation.body, schemas) });
    }
    described
}

fn path_names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn told(parameter: &Parameter, place: &str) -> Value {
    let schema = match parameter.kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Number => json!({ "type": "integer", "minimum": 0 }),
        Kind::NumberOr(word) => json!({
            "oneOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "enum": [word] }],
        }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Time => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
    };
    json!({
        "name": parameter.name,
        "in": place,
        "description": parameter.about,
        "schema": schema,
    })
}

fn answers(answers: &[Answer], schemas: &mut Schemas) -> Value {
    let mut told = Map::new();
    for answer in answers {
        let mut described = json!({ "description": answer.about });
        if !answer.media.is_empty() {
            described["content"] = content(answer.media, schemas);
        }
        told.insert(answer.status.to_string(), described);
    }
    let problem = Problem::schema(schemas);
    let problem = json!({
        "description": "A problem; its `code` says which.",
        "content": { "application/problem+json": { "schema": problem } },
    });
    told.insert("default".to_owned(), problem);
    Value::Object(told)
}

fn content(media: &[Media], schemas: &mut Schemas) -> Value {
    let of = |media: &Media| {
        let schema = media.schema.map(|schema| json!({ "schema": schema(schemas) }));
        (media.content_type.to_owned(), schema.unwrap_or_else(|| json!({})))
    };
    media.iter().map(of).collect::<Map<_, _>>().into()
}

//! Everything in a document that does not fit its schema, so that a client hears of all its
//! mistakes at once.

use serde_json::Value;

use crate::{
    json::{step, unknown_field},
    problem::Problem,
    schema::{Schema, Schemas},
};

/// Mistakes that are told together.
const TOLD_MAX: usize = 20;

/// What in `document` is not as a `T` has it, in the order of the document.
pub(crate) fn find<T: Schema>(document: &Value) -> Vec<Problem> {
    let mut schemas = Schemas::default();
    let schema = T::schema(&mut schemas);
    let named = schemas.into_json();
    let mut search = Search { named: &named, at: String::new(), found: Vec::new() };
    search.look(document, &schema);
    search.found
}

struct Search<'s> {
    named: &'s Value,
    /// Where it looks, as a JSON pointer.
    at: String,
    found: Vec<Problem>,
}

impl<'s> Search<'s> {
    fn look(&mut self, value: &Value, schema: &'s Value) {
        if self.found.len() >= TOLD_MAX {
            return;
        }
        if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
            return self.look(value, &self.named[name]);
        }
        let (code, expected) = match schema["type"].as_str() {
            Some("boolean") if !value.is_boolean() => ("wrong_type", "true or false".to_owned()),
            Some("string") if !value.is_string() => ("wrong_type", "text".to_owned()),
            Some("number") if !value.is_number() => ("wrong_type", "a number".to_owned()),
            Some("array") if !value.is_array() => ("wrong_type", "a list".to_owned()),
            Some("object") if !value.is_object() => ("wrong_type", "an object".to_owned()),
            Some("integer") => match is_in_range(value, schema) {
                None => ("wrong_type", whole_number(schema)),
                Some(false) => ("out_of_range", whole_number(schema)),
                Some(true) => return,
            },
            _ => return self.look_inside(value, schema),
        };
        let text = format!("this is {}; it must be {expected}", kind_of(value));
        self.tell(Problem::bad(code, text));
    }

    fn tell(&mut self, mistake: Problem) {
        if self.found.len() < TOLD_MAX {
            self.found.push(mistake.at(self.at.clone()));
        }
    }

    fn look_inside(&mut self, value: &Value, schema: &'s Value) {
        match value {
            Value::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.below(&place.to_string(), |search| search.look(item, &schema["items"]));
                }
            }
            Value::Object(fields) => {
                let (known, any) = (&schema["properties"], &schema["additionalProperties"]);
                for (name, field) in fields {
                    let is_needed = is_required(schema, name);
                    self.below(name, |search| match known.get(name) {
                        // A field that may be left out may be `null`.
                        Some(_) if field.is_null() && !is_needed => {}
                        Some(schema) => search.look(field, schema),
                        None if any == false => search.unknown(name, known),
                        None => search.look(field, any),
                    });
                }
                let required = schema["required"].as_array().into_iter().flatten();
                let missing = required.filter_map(Value::as_str);
                for name in missing.filter(|name| !fields.contains_key(*name)) {
                    self.below(name, Search::missing);
                }
            }
            _ => {}
        }
    }

    fn below(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        let length = self.at.len();
        step(&mut self.at, name);
        look(self);
        self.at.truncate(length);
    }

    fn unknown(&mut self, name: &str, known: &Value) {
        let known = known.as_object().into_iter().flat_map(|known| known.keys());
        self.tell(unknown_field(name, known.map(String::as_str)));
    }

    fn missing(&mut self) {
        self.tell(Problem::bad("wrong_type", "this is missing"));
    }
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
}

/// `None` for what is no whole number.
fn is_in_range(value: &Value, schema: &Value) -> Option<bool> {
    let whole = |value: &Value| match value.as_u64() {
        Some(number) => Some(i128::from(number)),
        None => value.as_i64().map(i128::from),
    };
    let number = whole(value)?;
    let is_from = whole(&schema["minimum"]).is_none_or(|min| min <= number);
    Some(is_from && whole(&schema["maximum"]).is_none_or(|max| number <= max))
}

fn whole_number(schema: &Value) -> String {
    match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        (Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
        (Some(min), None) => format!("a whole number of {min} or more"),
        _ => "a whole number".to_owned(),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{json::read_record, schema::record};

    record! {
        /// A part.
        Part {
            /// How many.
            count: u8,
        }
    }

    record! {
        /// A whole.
        Whole {
            /// Its name.
            name: String,
            /// Whether it lasts.
            durable: Option<bool>,
            /// What it consists of.
            parts: Option<Vec<Part>>,
        }
    }

    fn told(document: &Value) -> Value {
        read_record::<Whole>(document.to_string().as_bytes()).unwrap_err().to_json()
    }

    fn places(document: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = told(document)["errors"].as_array().unwrap().clone();
        errors.iter().map(|error| (text(&error["code"]), text(&error["at"]))).collect()
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let parts = json!([{ "count": 1 }, { "count": 300 }, { "count": "x" }, { "cuont": 1 }]);
        let wrong = json!({ "durable": 1, "parts": parts, "nope": 1 });
        assert_eq!(told(&wrong)["at"], "/durable");
        let expected = [
            ("wrong_type", "/durable"),
            ("unknown_field", "/nope"),
            ("out_of_range", "/parts/1/count"),
            ("wrong_type", "/parts/2/count"),
            ("unknown_field", "/parts/3/cuont"),
            ("wrong_type", "/parts/3/count"),
            ("wrong_type", "/name"),
        ];
        let expected = expected.map(|(code, at)| (code.to_owned(), at.to_owned()));
        assert_eq!(places(&wrong), expected);
    }

    #[test]
    fn one_mistake_needs_no_list() {
        let wrong = told(&json!({ "name": "a", "durable": "x", "parts": null }));
        assert_eq!((&wrong["code"], &wrong["at"]), (&json!("wrong_type"), &json!("/durable")));
        assert_eq!(wrong["detail"], "this is text; it must be true or false");
        assert!(wrong.get("errors").is_none());
    }

    #[test]
    fn a_list_is_no_object() {
        let wrong = told(&json!(["a", true, []]));
        assert_eq!((&wrong["code"], &wrong["at"]), (&json!("wrong_type"), &json!("")));
        assert_eq!(wrong["detail"], "this is a list; it must be an object");
        let inner = told(&json!({ "name": "a", "parts": [[3]] }));
        assert_eq!(inner["at"], "/parts/0");
    }

    #[test]
    fn mistakes_that_are_told_are_bounded() {
        let many: Vec<Value> = vec![json!(1); 1000];
        assert_eq!(places(&json!({ "parts": many })).len(), TOLD_MAX);
    }
}

//! Reading JSON of clients: with the place of every mistake, and a guess at what was meant.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::{mistakes, problem::Problem, schema::Schema};

/// Depth of lists and objects.
pub(crate) const DEPTH_MAX: usize = 64;

/// Reads JSON.
///
/// Errors: it is malformed, too deep, or not that of a `T`.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if depth(bytes) > DEPTH_MAX {
        let text = format!("lists and objects are nested more than {DEPTH_MAX} deep");
        return Err(Problem::bad("bad_json", text).with("max", DEPTH_MAX));
    }
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut input).map_err(|error| {
        let at = pointer(error.path());
        problem(&error.into_inner()).at(at)
    })?;
    input.end().map_err(|error| problem(&error))?;
    Ok(value)
}

/// Reads JSON that is declared.
///
/// Errors: as of [`read`], with all places at which it is not that of a `T`.
pub(crate) fn read_record<T: DeserializeOwned + Schema>(bytes: &[u8]) -> Result<T, Problem> {
    read(bytes).map_err(|first| {
        if first.code() == "bad_json" {
            return first;
        }
        let document = serde_json::from_slice(bytes).unwrap_or_default();
        Problem::together(mistakes::find::<T>(&document)).unwrap_or(first)
    })
}

/// Reads a field that is there, so that `null` is something else than no field.
pub(crate) fn given<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

/// How deep lists and objects are nested.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn problem(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    if error.is_syntax() || error.is_eof() {
        let problem = Problem::bad("bad_json", text);
        return problem.with("line", error.line()).with("column", error.column());
    }
    if let Some((field, known)) = unknown_and_known(&text) {
        return unknown_field(field, known);
    }
    Problem::bad("wrong_type", text)
}

/// A field that does not exist, among those that do.
pub(crate) fn unknown_field<'a>(field: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    match nearest(field, known) {
        Some(near) => {
            let text = format!("there is no field `{field}`; is `{near}` meant?");
            Problem::bad("unknown_field", text).with("nearest", near)
        }
        None => Problem::bad("unknown_field", format!("there is no field `{field}`")),
    }
}

/// Takes the words of serde apart: the field that is unknown, and those that are known.
fn unknown_and_known(text: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let rest = text.strip_prefix("unknown field `")?;
    let (field, rest) = rest.split_once('`')?;
    Some((field, rest.split('`').skip(1).step_by(2)))
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => step(&mut out, &index.to_string()),
            Segment::Map { key } | Segment::Enum { variant: key } => step(&mut out, key),
            Segment::Unknown => step(&mut out, "?"),
        }
    }
    out
}

/// Makes a pointer go on to what has this name there.
pub(crate) fn step(pointer: &mut String, name: &str) {
    pointer.push('/');
    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

/// The known word that a misspelt one is most like, if it is like any.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are no mistakes of typing, and would take long to compare.
    if word.len() > 64 {
        return None;
    }
    let near = known.map(|known| (distance(word, known), known)).min_by_key(|(far, _)| *far)?;
    (near.0 <= 1 + word.len() / 4).then_some(near.1)
}

/// Characters to change, add or remove to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "count")]
        _count: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "inner")]
        _inner: Vec<Inner>,
    }

    fn told(text: &str) -> Value {
        read::<Outer>(text.as_bytes()).unwrap_err().to_json()
    }

    #[test]
    fn mistakes_name_their_place() {
        let wrong = told(r#"{"inner":[{"count":1},{"count":300}]}"#);
        assert_eq!(
            (&wrong["code"], &wrong["at"]),
            (&"wrong_type".into(), &"/inner/1/count".into())
        );
        let unknown = told(r#"{"inner":[{"cuont":1}]}"#);
        assert_eq!(unknown["code"], "unknown_field");
        assert_eq!(unknown["params"]["nearest"], "count");
        assert_eq!(told(r#"{"inner":[]"#)["code"], "bad_json");
        assert_eq!(told(r#"{"inner":[]} x"#)["code"], "bad_json");
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(depth(br#"{"a":[["}]]"]]}"#), 3);
        let deep = "[".repeat(100_000);
        assert_eq!(told(&deep)["code"], "bad_json");
    }

    #[test]
    fn guesses_are_near() {
        let known = || ["routing_key", "payload", "properties"].into_iter();
        assert_eq!(nearest("routingkey", known()), Some("routing_key"));
        assert_eq!(nearest("body", known()), None);
    }
}

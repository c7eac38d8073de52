//! Lists: pages by a cursor, a filter, an order, and a choice of fields.

use std::cmp::Ordering;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use polymq_filter::{Fields, Filter, Scalar};
use serde_json::{Map, Value, json};

use super::problems::bad_filter;
use crate::{
    api::{Answer, Kind, Media, Parameter},
    call::Call,
    clock,
    json::unknown_field,
    problem::Problem,
    schema::Schemas,
};

/// Rows of a page, when nobody says how many.
const ROWS: usize = 100;
/// Rows of a page at most.
const ROWS_MAX: usize = 1000;

const fn parameter(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

/// How many rows a page has.
pub(super) const LIMIT: Parameter =
    parameter("limit", Kind::Number, "Rows of a page: 100, at most 1,000");
/// Where a page begins.
pub(super) const AFTER: Parameter =
    parameter("after", Kind::Text, "Go on behind this cursor, the `next` of an earlier answer");
/// Which rows.
pub(super) const FILTER: Parameter =
    parameter("filter", Kind::Text, "A condition on the fields, as `messages.ready > 100`");
/// In which order.
pub(super) const SORT: Parameter =
    parameter("sort", Kind::Text, "The field to sort by, with `-` before it for the reverse");
/// Which fields.
pub(super) const FIELDS: Parameter =
    parameter("fields", Kind::Text, "Only these fields, separated by commas");
/// All of them.
pub(super) const QUERY: &[Parameter] = &[LIMIT, AFTER, FILTER, SORT, FIELDS];

/// What a list answers.
pub(super) const ANSWERS: &[Answer] =
    &[Answer { status: 200, about: "A page of rows", media: &[Media::json(schema)] }];

fn schema(all: &mut Schemas) -> Value {
    all.named("List", |_| {
        json!({
            "type": "object",
            "description": "A page of a list.",
            "properties": {
                "items": { "type": "array", "items": { "type": "object" } },
                "next": {
                    "type": ["string", "null"],
                    "description": "What to give as `after` for the next page.",
                },
                "total": {
                    "type": "object",
                    "properties": {
                        "value": { "type": "integer", "minimum": 0 },
                        "exact": { "type": "boolean" },
                    },
                    "required": ["value", "exact"],
                },
                "order": { "type": "string", "enum": ["key", "live"] },
            },
            "required": ["items", "next", "total", "order"],
        })
    })
}

/// A page of `items`. A row is only made of an item that is shown, or that a filter or an order
/// looks at; every row has all columns, of which some may be `null`.
///
/// Errors: the filter or the cursor is none, a column or a limit does not exist.
pub(super) fn page<T>(
    call: &Call,
    items: Vec<T>,
    key: impl Fn(&T) -> String,
    row: impl Fn(&T) -> Value,
) -> Result<Value, Problem> {
    let wanted = Wanted::of(call, "")?;
    wanted.check_columns(items.first().map(&row))?;
    let items = items.into_iter().map(|item| (key(&item), item));
    Ok(wanted.page(items, |_, _| None, |item| row(item)))
}

/// The same of many items that stand in the order of their keys: a page in this order looks at what
/// it shows. `key_column` is the column that holds the key, and `column` reads one that costs less
/// than the whole row, to order by.
///
/// Errors: as of [`page`].
pub(super) fn page_in_order<T>(
    call: &Call,
    items: &[T],
    (key_column, key): (&str, impl Fn(&T) -> &str),
    column: impl Fn(&T, &str) -> Option<Value>,
    row: impl Fn(&T) -> Value,
) -> Result<Value, Problem> {
    let wanted = Wanted::of(call, key_column)?;
    wanted.check_columns(items.first().map(&row))?;
    if wanted.filter.is_none() && wanted.by.is_none() {
        return Ok(wanted.page_by_key(items, key, row));
    }
    let items = items.iter().map(|item| (key(item).to_owned(), item));
    Ok(wanted.page(items, |item, name| column(item, name), |item| row(item)))
}

/// What somebody wants to see of a list.
struct Wanted<'c> {
    filter: Option<Filter>,
    /// Behind which row: what it was ordered by, and its key.
    after: Option<(Value, String)>,
    /// The column to order by; none for the key.
    by: Option<&'c str>,
    is_reverse: bool,
    fields: Option<Vec<&'c str>>,
    limit: usize,
    /// Which list it is, and its order: what a cursor belongs to.
    place: String,
}

impl<'c> Wanted<'c> {
    /// Errors: the filter, the cursor or the limit is none.
    fn of(call: &'c Call, key_column: &str) -> Result<Self, Problem> {
        let sort = call.query("sort").filter(|sort| !sort.is_empty());
        let (by, is_reverse) = match sort.map(|sort| (sort.strip_prefix('-'), sort)) {
            Some((Some(field), _)) => (Some(field), true),
            Some((None, field)) => (Some(field), false),
            None => (None, false),
        };
        let place = format!("{} {}", call.id(), sort.unwrap_or_default());
        Ok(Self {
            filter: filter(call)?,
            after: call.query("after").map(|text| cursor(text, &place)).transpose()?,
            by: by.filter(|by| *by != key_column),
            is_reverse,
            fields: call.query("fields").map(|fields| fields.split(',').collect()),
            limit: limit(call)?,
            place,
        })
    }

    /// Errors: a column that is asked for is none of those of a row. Without a row nobody knows.
    fn check_columns(&self, row: Option<Value>) -> Result<(), Problem> {
        let Some(Value::Object(columns)) = row else { return Ok(()) };
        let of_filter = self.filter.iter().flat_map(Filter::fields).map(|name| ("filter", name));
        let of_fields = self.fields.iter().flatten().map(|name| ("fields", *name));
        let asked = self.by.map(|by| ("sort", by)).into_iter().chain(of_fields).chain(of_filter);
        // What is below a column may differ from row to row, as arguments do.
        let top = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let is_unknown = |(_, name): &(&str, &str)| {
            !columns.contains_key(*name) && !columns.contains_key(&top(name))
        };
        let known = || columns.keys().map(String::as_str);
        let mistakes =
            asked.filter(is_unknown).map(|(at, name)| unknown_field(name, known()).at(at));
        Problem::together(mistakes.collect()).map_or(Ok(()), Err)
    }

    /// A page in the order of the keys, in which the items stand.
    fn page_by_key<T>(
        &self,
        items: &[T],
        key: impl Fn(&T) -> &str,
        row: impl Fn(&T) -> Value,
    ) -> Value {
        let mut rest = items;
        if let Some((_, after)) = &self.after {
            let is_before = |item: &T| match self.is_reverse {
                true => key(item) < after.as_str(),
                false => key(item) <= after.as_str(),
            };
            let (before, from) = items.split_at(items.partition_point(is_before));
            rest = if self.is_reverse { before } else { from };
        }
        let shown: Vec<&T> = match self.is_reverse {
            true => rest.iter().rev().take(self.limit).collect(),
            false => rest.iter().take(self.limit).collect(),
        };
        let last = shown.last().filter(|_| rest.len() > shown.len());
        let next = last.map(|last| to_cursor(&Value::Null, key(last), &self.place));
        self.answer(shown.into_iter().map(row), next, items.len())
    }

    /// A page in whatever order; every item has a row made that a filter or the order looks at.
    fn page<T>(
        &self,
        items: impl Iterator<Item = (String, T)>,
        column: impl Fn(&T, &str) -> Option<Value>,
        row: impl Fn(&T) -> Value,
    ) -> Value {
        let now_ms = clock::now().unix_ms;
        let mut rows: Vec<Row<T>> = Vec::with_capacity(items.size_hint().0);
        for (key, item) in items {
            let mut found = Row { key, by: Value::Null, item, made: None };
            if let Some(filter) = &self.filter {
                let made = row(&found.item);
                if !filter.selects(&Columns(&made), now_ms) {
                    continue;
                }
                found.made = Some(made);
            }
            if let Some(by) = self.by {
                found.by = match (&found.made, column(&found.item, by)) {
                    (_, Some(value)) => value,
                    (Some(made), None) => at(made, by).cloned().unwrap_or_default(),
                    (None, None) => {
                        let made = found.made.insert(row(&found.item));
                        at(made, by).cloned().unwrap_or_default()
                    }
                };
            }
            rows.push(found);
        }
        let order = |a: (&Value, &str), b: (&Value, &str)| {
            let order = compare(a.0, b.0).then_with(|| a.1.cmp(b.1));
            if self.is_reverse { order.reverse() } else { order }
        };
        rows.sort_by(|a, b| order((&a.by, &a.key), (&b.by, &b.key)));
        let total = rows.len();
        if let Some((by, key)) = &self.after {
            rows.retain(|row| order((&row.by, &row.key), (by, key)) == Ordering::Greater);
        }
        let next = (rows.len() > self.limit).then(|| rows.get(self.limit - 1)).flatten();
        let next = next.map(|last| to_cursor(&last.by, &last.key, &self.place));
        let shown = rows.into_iter().take(self.limit);
        let made = shown.map(|found| found.made.unwrap_or_else(|| row(&found.item)));
        self.answer(made, next, total)
    }

    fn answer(
        &self,
        rows: impl Iterator<Item = Value>,
        next: Option<String>,
        total: usize,
    ) -> Value {
        let items: Vec<Value> = match &self.fields {
            Some(fields) => rows.map(|row| only(&row, fields)).collect(),
            None => rows.collect(),
        };
        json!({
            "items": items,
            "next": next,
            "total": { "value": total, "exact": true },
            "order": if self.by.is_some() { "live" } else { "key" },
        })
    }
}

/// How many rows somebody wants.
///
/// Errors: none, or too many.
pub(super) fn limit(call: &Call) -> Result<usize, Problem> {
    let Some(wanted) = call.number("limit") else { return Ok(ROWS) };
    let fits = usize::try_from(wanted).ok().filter(|rows| (1..=ROWS_MAX).contains(rows));
    fits.ok_or_else(|| {
        let text = format!("`limit` is {wanted}; it must be from 1 to {ROWS_MAX}");
        Problem::bad("out_of_range", text).at("limit").with("max", ROWS_MAX)
    })
}

/// The filter of a request, if it has one.
///
/// Errors: it is none.
pub(super) fn filter(call: &Call) -> Result<Option<Filter>, Problem> {
    let text = call.query("filter").filter(|text| !text.trim().is_empty());
    text.map(Filter::parse).transpose().map_err(|bad| bad_filter(&bad).at("filter"))
}

struct Row<T> {
    key: String,
    by: Value,
    item: T,
    made: Option<Value>,
}

/// The text of a cursor behind a row of a list.
pub(super) fn to_cursor(by: &Value, key: &str, place: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json!([by, key, place]).to_string())
}

/// Reads a cursor.
///
/// Errors: it is none, or one of another list or order.
pub(super) fn cursor(text: &str, place: &str) -> Result<(Value, String), Problem> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
    let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let read = read.filter(|(_, _, of): &(Value, String, String)| of == place);
    read.map(|(by, key, _)| (by, key)).ok_or_else(bad_cursor)
}

/// A cursor that is none of ours, or of another list.
pub(super) fn bad_cursor() -> Problem {
    let text = "`after` is not the `next` of an earlier answer of this list in this order";
    Problem::bad("bad_cursor", text).at("after")
}

/// The columns of a row as a filter sees them, by dotted names.
pub(super) struct Columns<'r>(pub(super) &'r Value);

impl Fields for Columns<'_> {
    fn field(&self, name: &str) -> Option<Scalar<'_>> {
        match at(self.0, name)? {
            Value::Bool(truth) => Some(Scalar::Bool(*truth)),
            Value::String(text) => Some(Scalar::text(text)),
            Value::Number(number) => match number.as_i64() {
                Some(number) => Some(Scalar::Int(number)),
                None => number.as_f64().map(Scalar::Float),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

fn at<'r>(row: &'r Value, name: &str) -> Option<&'r Value> {
    // A name may hold dots itself.
    row.get(name).or_else(|| name.split('.').try_fold(row, |at, part| at.get(part)))
}

/// Nothing, truth, numbers, text: in this order.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        },
        _ => rank(a).cmp(&rank(b)),
    }
}

/// The row with these fields only.
fn only(row: &Value, fields: &[&str]) -> Value {
    let mut kept = Map::new();
    for field in fields {
        let Some(value) = at(row, field) else { continue };
        if row.get(field).is_some() {
            kept.insert((*field).to_owned(), value.clone());
            continue;
        }
        let mut place = &mut kept;
        let mut parts = field.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                place.insert(part.to_owned(), value.clone());
                break;
            }
            let inner = place.entry(part.to_owned()).or_insert_with(|| json!({}));
            match inner.as_object_mut() {
                Some(inner) => place = inner,
                None => break,
            }
        }
    }
    Value::Object(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_chosen_by_dotted_names() {
        let row = json!({ "name": "q", "messages": { "ready": 3, "unacked": 1 }, "x": null });
        assert_eq!(
            only(&row, &["name", "messages.ready", "none", "x"]),
            json!({ "name": "q", "messages": { "ready": 3 }, "x": null })
        );
    }

    #[test]
    fn cursors_keep_value_and_key() {
        let text = to_cursor(&json!(3.5), "a\"b", "listQueues -x");
        assert_eq!(cursor(&text, "listQueues -x").unwrap(), (json!(3.5), "a\"b".to_owned()));
        assert!(cursor(&text, "listQueues x").is_err(), "another order");
        assert!(cursor("%%", "").is_err() && cursor("e30", "").is_err());
    }

    #[test]
    fn a_filter_sees_columns() {
        let row = json!({ "name": "orders", "messages": { "ready": 3 }, "durable": true });
        let is = |text: &str| Filter::parse(text).unwrap().selects(&Columns(&row), 0);
        assert!(is("name LIKE 'ord%' AND messages.ready > 2 AND durable"));
        assert!(!is("messages.unacked = 0"));
    }

    #[test]
    fn values_of_all_kinds_have_an_order() {
        let mut values = vec![json!("a"), json!(2), json!(null), json!(1.5), json!(true)];
        values.sort_by(compare);
        assert_eq!(values, [json!(null), json!(true), json!(1.5), json!(2), json!("a")]);
    }
}

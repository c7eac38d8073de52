//! Lists: a page of them, in an order, with the columns that are asked for.

use std::{cmp::Ordering, collections::BTreeMap, ops::Range};

use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::{
    call::Call,
    wire::{Failure, Outcome, written},
};

/// Items of a page when nothing is said.
const PAGE_SIZE: i64 = 100;
/// The most items of a page.
const PAGE_SIZE_MAX: usize = 500;
/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;
/// Memory that a pattern may take once it is compiled, in bytes.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// How a list is wanted.
pub(super) struct Wanted {
    columns: Columns,
    sort: Option<Vec<String>>,
    is_reversed: bool,
    page: Option<Page>,
}

struct Page {
    number: usize,
    size: usize,
    name: Option<Regex>,
}

/// Which parts of an object are wanted, and of each of them; none is everything.
#[derive(Default)]
pub(super) struct Columns(BTreeMap<String, Columns>);

/// One thing of a list, before it is written.
pub(super) trait Row: Sized {
    /// What the list is ordered by when nothing else is said.
    fn place(&self) -> (&str, &str);
    /// What the filter by name looks at.
    fn name(&self) -> &str {
        self.place().1
    }
    /// How a number to order by is read, for columns that cost less than the whole object.
    fn number_of(path: &[String]) -> Option<NumberOf<Self>> {
        let _ = path;
        None
    }
}

/// Reads a number of a row.
pub(super) type NumberOf<T> = Box<dyn Fn(&T) -> f64>;

impl Columns {
    /// From `columns=a,b.c`.
    pub(super) fn of(call: &Call) -> Self {
        let text = call.query("columns").unwrap_or_default();
        let mut columns = Self::default();
        text.split(',').filter(|path| !path.is_empty()).for_each(|path| columns.add(path));
        columns
    }

    fn add(&mut self, path: &str) {
        let mut at = self;
        for step in path.split('.') {
            let is_wanted = at.0.contains_key(step);
            at = at.0.entry(step.to_owned()).or_default();
            // Wanted as a whole already.
            if is_wanted && at.0.is_empty() {
                return;
            }
        }
        at.0.clear();
    }

    /// The object with these parts only.
    pub(super) fn pick(&self, object: Value) -> Value {
        if self.0.is_empty() { object } else { self.part_of(&object).unwrap_or_default() }
    }

    /// Of an array the parts of its items.
    fn part_of(&self, value: &Value) -> Option<Value> {
        if self.0.is_empty() {
            return Some(value.clone());
        }
        match value {
            Value::Object(map) => {
                let parts = self.0.iter().filter_map(|(name, columns)| {
                    Some((name.clone(), columns.part_of(map.get(name)?)?))
                });
                Some(Value::Object(parts.collect()))
            }
            Value::Array(items) => {
                Some(items.iter().filter_map(|item| self.part_of(item)).collect())
            }
            _ => None,
        }
    }
}

fn path_of(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn find<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |at, step| at.get(step.as_str()))
}

impl Wanted {
    /// Errors: a page, a size or a pattern that is none.
    pub(super) fn of(call: &Call) -> Result<Self, Failure> {
        let sort = call.query("sort").filter(|column| !column.is_empty()).map(path_of);
        let is_reversed = call.query("sort_reverse") == Some("true");
        let page = match call.query("page") {
            None => None,
            Some(number) => Some(Page::of(call, number)?),
        };
        Ok(Self { columns: Columns::of(call), sort, is_reversed, page })
    }

    /// The list of what the user may see.
    ///
    /// Only what is on the page is written, unless the order asks for more than names and numbers.
    ///
    /// Errors: a page that there is not.
    pub(super) fn answer<T: Row>(&self, rows: Vec<T>, write: impl Fn(&T) -> Value) -> Outcome {
        self.answer_from(rows, false, write)
    }

    /// The same of `total` rows that stand in the order of their places. A page in this order looks
    /// at no others. All are in one virtual host, or in several.
    ///
    /// Errors: a page that there is not.
    pub(super) fn answer_in_order<T: Row>(
        &self,
        rows: impl Iterator<Item = T>,
        (total, is_one_vhost): (usize, bool),
        write: impl Fn(&T) -> Value,
    ) -> Outcome {
        // In several virtual hosts the order by name is another one.
        let is_plain = self
            .sort
            .as_deref()
            .is_none_or(|path| is_vhost(path) || (is_place(path) && is_one_vhost));
        match &self.page {
            Some(page) if is_plain && page.name.is_none() => {
                let range = mirrored(page.range(total)?, total, self.is_reversed);
                let mut list = List::new(Some(page), total, total, range.len());
                let mut rows: Vec<T> = rows.skip(range.start).take(range.len()).collect();
                if self.is_reversed {
                    rows.reverse();
                }
                rows.iter().for_each(|row| list.add(&self.columns.pick(write(row))));
                written(list.finish())
            }
            _ => self.answer_from(rows.collect(), is_plain, write),
        }
    }

    fn answer_from<T: Row>(
        &self,
        mut rows: Vec<T>,
        is_in_order: bool,
        write: impl Fn(&T) -> Value,
    ) -> Outcome {
        let total = rows.len();
        if let Some(name) = self.page.as_ref().and_then(|page| page.name.as_ref()) {
            rows.retain(|row| name.is_match(row.name()));
        }
        let filtered = rows.len();
        let range = match &self.page {
            None => 0..filtered,
            Some(page) => page.range(filtered)?,
        };
        let mut list = List::new(self.page.as_ref(), filtered, total, range.len());
        let mut add = |row: &T| list.add(&self.columns.pick(write(row)));
        match self.sort.as_deref() {
            Some(path) if !is_place(path) => match T::number_of(path) {
                Some(number) => self.by_number(rows, number, range).iter().for_each(add),
                None => self.by_value(&rows, path, range, &write).into_iter().for_each(add),
            },
            _ if is_in_order => {
                let page = rows.get(mirrored(range, filtered, self.is_reversed));
                let page = page.unwrap_or_default().iter();
                match self.is_reversed {
                    true => page.rev().for_each(add),
                    false => page.for_each(add),
                }
            }
            sort => {
                let by_name = |a: &T, b: &T| (a.name(), a.place()).cmp(&(b.name(), b.place()));
                let by_place = |a: &T, b: &T| a.place().cmp(&b.place());
                let is_by_place = sort.is_none_or(is_vhost);
                let order = |a: &T, b: &T| if is_by_place { by_place(a, b) } else { by_name(a, b) };
                self.select(&mut rows, range, order).iter().for_each(&mut add);
            }
        }
        written(list.finish())
    }

    fn select<'r, T>(
        &self,
        rows: &'r mut [T],
        range: Range<usize>,
        order: impl Fn(&T, &T) -> Ordering,
    ) -> &'r [T] {
        select(rows, range, |a, b| if self.is_reversed { order(b, a) } else { order(a, b) })
    }

    fn by_number<T: Row>(&self, rows: Vec<T>, number: NumberOf<T>, range: Range<usize>) -> Vec<T> {
        let mut keyed: Vec<(f64, T)> = rows.into_iter().map(|row| (number(&row), row)).collect();
        let order = |a: &(f64, T), b: &(f64, T)| {
            a.0.total_cmp(&b.0).then_with(|| a.1.place().cmp(&b.1.place()))
        };
        self.select(&mut keyed, range.clone(), order);
        let page = keyed.into_iter().skip(range.start).take(range.len());
        page.map(|(_, row)| row).collect()
    }

    fn by_value<'r, T: Row>(
        &self,
        rows: &'r [T],
        path: &[String],
        range: Range<usize>,
        write: &impl Fn(&T) -> Value,
    ) -> Vec<&'r T> {
        let key = |row: &T| find(&write(row), path).cloned().unwrap_or_default();
        let mut keyed: Vec<(Value, &T)> = rows.iter().map(|row| (key(row), row)).collect();
        let order = |a: &(Value, &T), b: &(Value, &T)| {
            compare(&a.0, &b.0).then_with(|| a.1.place().cmp(&b.1.place()))
        };
        self.select(&mut keyed, range, order).iter().map(|(_, row)| *row).collect()
    }
}

/// The text of a list, written item by item.
struct List {
    body: Vec<u8>,
    is_page: bool,
    has_items: bool,
}

impl List {
    fn new(page: Option<&Page>, filtered: usize, total: usize, items: usize) -> Self {
        let mut body = Vec::new();
        if let Some(page) = page {
            let counts = json!({
                "total_count": total,
                "filtered_count": filtered,
                "item_count": items,
                "page": page.number,
                "page_size": page.size,
                "page_count": filtered.div_ceil(page.size),
            });
            // The last brace makes room for the items.
            let counts = counts.to_string();
            body.extend_from_slice(counts.trim_end_matches('}').as_bytes());
            body.extend_from_slice(b",\"items\":");
        }
        body.push(b'[');
        Self { body, is_page: page.is_some(), has_items: false }
    }

    fn add(&mut self, item: &Value) {
        if std::mem::replace(&mut self.has_items, true) {
            self.body.push(b',');
        }
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut self.body, item);
    }

    fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(if self.is_page { b"]}" } else { b"]" });
        self.body
    }
}

fn is_vhost(path: &[String]) -> bool {
    path == ["vhost"]
}

/// The same range counted from the other end, if it is to be.
fn mirrored(range: Range<usize>, len: usize, is_mirrored: bool) -> Range<usize> {
    if is_mirrored { len - range.end..len - range.start } else { range }
}

/// Ordering by the virtual host keeps the usual order.
fn is_place(path: &[String]) -> bool {
    path == ["name"] || path == ["vhost"]
}

impl Page {
    fn of(call: &Call, number: &str) -> Result<Self, Failure> {
        let wrong = || Failure::bad("Pagination parameters are invalid");
        let count = |text: &str| text.parse::<i64>().map_err(|_| wrong());
        let number = count(number)?;
        let size = call.query("page_size").map_or(Ok(PAGE_SIZE), count)?;
        let (number, size) = match (usize::try_from(number), usize::try_from(size)) {
            (Ok(number @ 1..), Ok(size @ 1..=PAGE_SIZE_MAX)) => (number, size),
            _ => return Err(Failure::page_invalid(number, size)),
        };
        let name = call.query("name").filter(|name| !name.is_empty());
        let is_regex = call.query("use_regex") == Some("true");
        let name = name.map(|name| pattern(name, is_regex)).transpose()?;
        Ok(Self { number, size, name })
    }

    fn range(&self, count: usize) -> Result<Range<usize>, Failure> {
        let start = (self.number - 1).saturating_mul(self.size);
        if start > count {
            return Err(Failure::page_out_of_range(self.number, self.size, count));
        }
        Ok(start..count.min(start.saturating_add(self.size)))
    }
}

/// Errors: the pattern is too long or no regular expression.
fn pattern(name: &str, is_regex: bool) -> Result<Regex, Failure> {
    if name.len() > PATTERN_BYTES_MAX {
        return Err(Failure::bad(format!("a name filter has at most {PATTERN_BYTES_MAX} bytes")));
    }
    let text = if is_regex { name.to_owned() } else { regex::escape(name) };
    RegexBuilder::new(&text)
        .case_insensitive(true)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| Failure::bad(format!("invalid regex: {error}")))
}

/// The rows of a range in order. The others are not sorted.
fn select<T>(rows: &mut [T], range: Range<usize>, order: impl Fn(&T, &T) -> Ordering) -> &mut [T] {
    if range.is_empty() {
        return &mut [];
    }
    if range.start > 0 {
        rows.select_nth_unstable_by(range.start, &order);
    }
    let count = range.len();
    let rest = rows.get_mut(range.start..).unwrap_or_default();
    if count < rest.len() {
        rest.select_nth_unstable_by(count, &order);
    }
    let page = rest.get_mut(..count).unwrap_or_default();
    page.sort_unstable_by(order);
    page
}

/// Numbers before text, as in Erlang; what is missing comes first.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Number(_) => 1,
        Value::Bool(_) => 2,
        Value::Object(_) => 3,
        Value::Array(_) => 4,
        Value::String(_) => 5,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            a.total_cmp(&b)
        }
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_sorting_everything_would_give() {
        let all: Vec<u32> = (0..1000_u32).map(|n| n.wrapping_mul(2_654_435_761) % 997).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        for range in [0..0, 0..10, 0..1000, 300..400, 990..1000, 1000..1000] {
            let mut rows = all.clone();
            let page = select(&mut rows, range.clone(), u32::cmp);
            assert_eq!(page, &sorted[range]);
        }
    }

    #[test]
    fn columns_keep_their_nesting() {
        let mut columns = Columns::default();
        ["a", "b.c", "x.y", "f", "f.g", "h.i", "h"].into_iter().for_each(|path| columns.add(path));
        let picked = columns.pick(json!({ "a": 1, "b": { "c": 2, "d": 3 }, "e": 4 }));
        assert_eq!(picked, json!({ "a": 1, "b": { "c": 2 } }));
        let whole = json!({ "f": { "g": 1, "z": 2 }, "h": { "i": 1, "z": 2 } });
        assert_eq!(columns.pick(whole.clone()), whole);
    }

    #[test]
    fn columns_go_into_lists() {
        let mut columns = Columns::default();
        columns.add("list.a.b");
        let picked = columns.pick(json!({ "list": [{ "a": [{ "b": 1, "c": 2 }] }, {}, 5] }));
        assert_eq!(picked, json!({ "list": [{ "a": [{ "b": 1 }] }, {}] }));
    }

    #[test]
    fn a_name_is_a_part_or_a_pattern_whatever_its_case() {
        assert!(pattern("a.C", false).unwrap().is_match("xA.cx"));
        assert!(!pattern("a.C", false).unwrap().is_match("abc"));
        assert!(pattern("^A.c$", true).unwrap().is_match("abC"));
        assert!(pattern("(", true).is_err());
        assert!(pattern("(", false).is_ok());
    }
}

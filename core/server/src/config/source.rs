//! The layers of the configuration, weakest first: file, environment, flags. Each later layer
//! replaces single keys of the earlier ones.

use std::collections::{BTreeMap, BTreeSet};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    key::{self, Section},
    problem::{FileText, Origin, Problem, nearest},
    value::{Raw, Setting},
};

/// Prefix of variables that set keys.
pub(crate) const ENV_PREFIX: &str = "POLYMQ__";

/// What was set, by path, and what was wrong with it.
#[derive(Debug)]
pub(crate) struct Source {
    sections: &'static [Section],
    /// Keys that belong to releases to come.
    planned: &'static [&'static str],
    pub(crate) file: FileText,
    entries: BTreeMap<String, (Raw, Origin)>,
    /// Tables of the file, empty ones included.
    tables: BTreeSet<String>,
    /// Values that were asked for, as they stand in the end.
    taken: Vec<(String, String, Origin)>,
    pub(crate) problems: Vec<Problem>,
}

/// What a path is.
enum Known {
    Key,
    Table,
    Planned,
    Unknown,
}

impl Source {
    pub(crate) fn new(
        sections: &'static [Section],
        planned: &'static [&'static str],
        file: FileText,
    ) -> Self {
        let mut source = Self {
            sections,
            planned,
            file,
            entries: BTreeMap::new(),
            tables: BTreeSet::new(),
            taken: Vec::new(),
            problems: Vec::new(),
        };
        source.read_file();
        source
    }

    fn read_file(&mut self) {
        let text = self.file.text.clone();
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            self.note(Origin::File(span), error.message().to_owned(), None);
        }
        if self.problems.is_empty() {
            self.walk("", table.get_ref());
        }
    }

    fn walk(&mut self, path: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = join(path, name.get_ref());
            let origin = Origin::File(name.span());
            match (self.known(&path), value.get_ref()) {
                (Known::Table, DeValue::Table(inner)) => {
                    self.walk(&path, inner);
                    self.tables.insert(path);
                }
                (Known::Table, _) => {
                    self.note(Origin::File(value.span()), format!("`{path}` is a table"), None);
                }
                (Known::Key, raw) => {
                    let entry = (untyped(raw), Origin::File(value.span()));
                    self.entries.insert(path, entry);
                }
                (Known::Planned, _) => self.note_planned(&path, origin),
                (Known::Unknown, _) => self.note_unknown(&path, origin),
            }
        }
    }

    /// Adds variables of the environment; those without our prefix are none of our business.
    pub(crate) fn add_env(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
            let path = path.to_ascii_lowercase().replace("__", ".");
            self.set(&path, value, Origin::Env(name));
        }
    }

    /// Adds `key=value`; `flag` is how the operator wrote it, with that at its end.
    pub(crate) fn add_flag(&mut self, setting: &str, flag: &str) {
        match setting.split_once('=') {
            Some((path, value)) => {
                // The value may be a secret, and stands beside the key where it may be shown.
                let flag = flag.strip_suffix(value).unwrap_or(flag);
                let origin = Origin::Flag(flag.trim_end_matches(['=', ' ']).to_owned());
                self.set(path.trim(), value.to_owned(), origin);
            }
            None => {
                let origin = Origin::Flag(flag.to_owned());
                let help = Some("write key=value, such as limits.connections=1000".to_owned());
                self.note(origin, format!("`{setting}` sets nothing"), help);
            }
        }
    }

    fn set(&mut self, path: &str, value: String, origin: Origin) {
        match self.known(path) {
            Known::Key => {
                self.entries.insert(path.to_owned(), (Raw::Text(value), origin));
            }
            Known::Table => self.note(origin, format!("`{path}` is a table, not a key"), None),
            Known::Planned => self.note_planned(path, origin),
            Known::Unknown => self.note_unknown(path, origin),
        }
    }

    fn known(&self, path: &str) -> Known {
        if self.planned.iter().any(|planned| covers(planned, path)) {
            return Known::Planned;
        }
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        let is_key = self.sections.iter().any(|section| {
            matches(section.path, table) && section.keys.iter().any(|key| key.name == name)
        });
        if is_key {
            return Known::Key;
        }
        // A name that the operator chooses must be sayable in the environment and in a path.
        let is_plain = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let is_table = path.split('.').all(is_plain)
            && self.sections.iter().any(|section| begins(section.path, path));
        if is_table { Known::Table } else { Known::Unknown }
    }

    /// Names that could stand where `path` has its last part.
    fn siblings(&self, path: &str) -> BTreeSet<&'static str> {
        let table = path.rsplit_once('.').map_or("", |(table, _)| table);
        let depth = table.split('.').filter(|part| !part.is_empty()).count();
        let mut names = BTreeSet::new();
        for section in self.sections {
            if matches(section.path, table) {
                names.extend(section.keys.iter().map(|key| key.name));
            }
            if begins(section.path, table) || table.is_empty() {
                names.extend(section.path.split('.').nth(depth).filter(|name| *name != "*"));
            }
        }
        names
    }

    fn note_unknown(&mut self, path: &str, origin: Origin) {
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        let siblings = self.siblings(path);
        let of_store =
            ["users", "user", "permissions", "vhosts", "queues", "exchanges", "bindings"];
        if of_store.contains(&name) || of_store.iter().any(|kept| path.starts_with(kept)) {
            let help = format!("{name} are kept in the store, not in the configuration");
            return self.note(origin, format!("unknown key `{path}`"), Some(help));
        }
        let help = match nearest(name, siblings.iter().copied()) {
            Some(meant) => format!("did you mean `{}`?", join(table, meant)),
            None => {
                let names: Vec<_> = siblings.into_iter().collect();
                format!("known here: {}", names.join(", "))
            }
        };
        self.note(origin, format!("unknown key `{path}`"), Some(help));
    }

    fn note_planned(&mut self, path: &str, origin: Origin) {
        self.note(origin, format!("`{path}` is planned and not available yet"), None);
    }

    pub(crate) fn note(&mut self, origin: Origin, message: String, help: Option<String>) {
        self.problems.push(Problem { origin, message, help });
    }

    /// Notes a mistake in the value of `path`.
    pub(crate) fn note_at(&mut self, path: &str, message: String, help: Option<String>) {
        self.note(self.origin(path), message, help);
    }

    /// Where the value of `path` comes from.
    pub(crate) fn origin(&self, path: &str) -> Origin {
        self.entries.get(path).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// Names used below the table `prefix`, such as those of listeners.
    pub(crate) fn names(&self, prefix: &str) -> BTreeSet<String> {
        let below = |path: &String| {
            let rest = path.strip_prefix(prefix)?.strip_prefix('.')?;
            Some(rest.split('.').next().unwrap_or(rest).to_owned())
        };
        self.entries.keys().chain(&self.tables).filter_map(below).collect()
    }

    /// The value of a key, or its default when nothing fits.
    pub(crate) fn take<T: Setting>(&mut self, section: &str, name: &str, default: &str) -> T {
        let path = join(section, name);
        let mut origin = Origin::Default;
        let mut value = None;
        if let Some((raw, from)) = self.entries.get(&path).cloned() {
            value = T::read(&raw);
            if value.is_none() {
                let message = format!("`{path}` has a value that does not fit");
                self.note(from.clone(), message, Some(format!("expected {}", T::expects())));
            }
            origin = from;
        }
        let value = value.unwrap_or_else(|| key::default(default));
        self.taken.push((path, value.show(), origin));
        value
    }

    /// Shows another value for a key that was taken: a default that its place decides.
    pub(crate) fn show_as(&mut self, path: &str, value: String) {
        if let Some((_, shown, _)) = self.taken.iter_mut().find(|(taken, ..)| taken == path) {
            *shown = value;
        }
    }

    /// Every value as it stands, with its origin.
    pub(crate) fn effective(&self) -> Vec<(String, String, String)> {
        let shown = |(path, value, origin): &(String, String, Origin)| {
            (path.clone(), value.clone(), self.file.place(origin))
        };
        self.taken.iter().map(shown).collect()
    }
}

fn untyped(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Str(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix())
                .map_or(Raw::Other("a number out of range"), Raw::Int)
        }
        DeValue::Boolean(truth) => Raw::Bool(*truth),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item: &Spanned<_>| untyped(item.get_ref())).collect())
        }
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn join(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

/// Whether `path` is `pattern`, where `*` stands for any one part.
fn matches(pattern: &str, path: &str) -> bool {
    pattern.split('.').count() == path.split('.').count() && begins(pattern, path)
}

/// Whether `path` is the beginning of `pattern` or all of it.
fn begins(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('.');
    path.split('.').all(|part| parts.next().is_some_and(|own| own == "*" || own == part))
}

/// Whether `path` is what `pattern` stands for, or is below it.
fn covers(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('.');
    pattern.split('.').all(|own| parts.next().is_some_and(|part| own == "*" || own == part))
}

//! Changing single values in the text of a configuration file, whose other lines stay as they are.

use std::{
    ffi::OsString,
    fs, io,
    io::Write,
    ops::Range,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use toml::de::{DeTable, DeValue};

/// The text with another value for a key, or without the key. `None` where that takes more than one
/// line, such as a key to take out of a table that is written in one.
pub(crate) fn with_value(text: &str, key: &str, value: Option<&str>) -> Option<String> {
    let place = find(DeTable::parse(text).ok()?.get_ref(), key);
    match (place, value) {
        (Some((_, old)), Some(value)) => Some(replaced(text, old, value)),
        (Some((name, old)), None) => without(text, name, old),
        (None, Some(value)) => Some(added(text, key, value)),
        (None, None) => Some(text.to_owned()),
    }
}

/// The line that says the same in a file, with the table it stands in.
pub(crate) fn as_lines(key: &str, value: Option<&str>) -> String {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    match value {
        Some(value) => format!("[{table}] {name} = {value}"),
        None => format!("[{table}] without {name}"),
    }
}

/// Puts a text in the place of a file: after a crash there is either one.
///
/// Errors: the folder or the file may not be written to.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut fresh = OsString::from(".");
    fresh.push(name);
    fresh.push(".new");
    let fresh = folder.join(fresh);
    let before = fs::metadata(&path)?;
    // What the owner has closed to the server is not opened by way of its folder.
    fs::OpenOptions::new().write(true).open(&path)?;
    let written = (|| {
        let mut file = fs::File::create(&fresh)?;
        file.set_permissions(before.permissions())?;
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
            chown(&fresh, Some(before.uid()), Some(before.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Where the name and the value of a key stand.
fn find(table: &DeTable<'_>, key: &str) -> Option<(Range<usize>, Range<usize>)> {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    let (name, value) = table.iter().find(|(name, _)| *name.get_ref() == first)?;
    match (rest, value.get_ref()) {
        (None, _) => Some((name.span(), value.span())),
        (Some(rest), DeValue::Table(inner)) => find(inner, rest),
        (Some(_), _) => None,
    }
}

fn replaced(text: &str, range: Range<usize>, with: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(range, with);
    text
}

/// The text without the lines of a key, if nothing else stands there.
fn without(text: &str, name: Range<usize>, value: Range<usize>) -> Option<String> {
    let start = text.get(..name.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let rest = text.get(value.end..)?;
    let end = rest.find('\n').map_or(text.len(), |newline| value.end + newline + 1);
    let is_name = |sign: char| sign.is_alphanumeric() || "-_.\"' \t".contains(sign);
    let before = text.get(start..name.start)?;
    let behind = text.get(value.end..end)?.trim();
    let is_alone = before.chars().all(is_name) && (behind.is_empty() || behind.starts_with('#'));
    is_alone.then(|| replaced(text, start..end, ""))
}

/// The text with a line for a key that is not there: below the head of its table, or at the end.
fn added(text: &str, key: &str, value: &str) -> String {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let line = format!("{name} = {value}\n");
    if table.is_empty() {
        return format!("{line}{text}");
    }
    let mut at = 0;
    for known in text.split_inclusive('\n') {
        at += known.len();
        if is_head(known, table) {
            let newline = if known.ends_with('\n') { "" } else { "\n" };
            return replaced(text, at..at, &format!("{newline}{line}"));
        }
    }
    let gap = if text.is_empty() || text.ends_with('\n') { "\n" } else { "\n\n" };
    format!("{text}{gap}[{table}]\n{line}")
}

/// True of `[table]`, however it is spaced.
fn is_head(line: &str, table: &str) -> bool {
    let Some((head, behind)) = line.trim().strip_prefix('[').and_then(|l| l.split_once(']')) else {
        return false;
    };
    let behind = behind.trim();
    let parts = head.split('.').map(|part| part.trim().trim_matches(['"', '\'']));
    parts.eq(table.split('.')) && (behind.is_empty() || behind.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\n[limits] # bounds\nconnections = 10 # few\n\
                        disk_free = { low = \"1GiB\", resume = \"2GiB\" }\n\n\
                        [ listeners . \"amqp\" ]\nbind = [\n  \":5672\", # usual\n]\n";

    #[test]
    fn a_value_changes_and_nothing_else_does() {
        let changed = with_value(FILE, "limits.connections", Some("20")).unwrap();
        assert_eq!(changed, FILE.replace("10", "20"));
        let changed = with_value(FILE, "limits.disk_free.low", Some("\"5GiB\"")).unwrap();
        assert_eq!(changed, FILE.replace("\"1GiB\"", "\"5GiB\""));
        let changed = with_value(FILE, "listeners.amqp.bind", Some("[\":1\"]")).unwrap();
        assert!(changed.ends_with("[ listeners . \"amqp\" ]\nbind = [\":1\"]\n"), "{changed}");
    }

    #[test]
    fn a_key_that_is_new_comes_to_its_table() {
        let changed = with_value(FILE, "limits.prefetch_max", Some("5")).unwrap();
        assert!(changed.contains("# bounds\nprefetch_max = 5\nconnections"), "{changed}");
        let changed = with_value(FILE, "logging.level", Some("\"debug\"")).unwrap();
        assert_eq!(changed, format!("{FILE}\n[logging]\nlevel = \"debug\"\n"));
        let changed = with_value("", "logging.level", Some("\"debug\"")).unwrap();
        assert_eq!(changed, "\n[logging]\nlevel = \"debug\"\n");
    }

    #[test]
    fn a_key_goes_with_its_lines() {
        let changed = with_value(FILE, "limits.connections", None).unwrap();
        assert_eq!(changed, FILE.replace("connections = 10 # few\n", ""));
        let changed = with_value(FILE, "listeners.amqp.bind", None).unwrap();
        assert!(changed.ends_with("\"amqp\" ]\n"), "{changed}");
        assert_eq!(with_value(FILE, "limits.disk_free.low", None), None);
        assert_eq!(with_value(FILE, "limits.not_there", None).as_deref(), Some(FILE));
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("polymq.toml");
        fs::write(&path, "a").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, "b").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

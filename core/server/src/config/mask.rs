//! Text without the secrets in it.

/// Parameters of URLs, and keys of a file, whose values are shown nowhere when they hold one of
/// these words.
const SECRET_WORDS: [&str; 6] = ["pass", "secret", "token", "auth", "sig", "key"];
const HIDDEN: &str = "***";

/// Every URL in a text without what lets somebody in.
pub(crate) fn urls(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(['"', '\'', ' ', '\t']).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        // A database wants to know its user; over HTTP a name alone may be a token.
        let is_http = before.ends_with("http://") || before.ends_with("https://");
        shown.push_str(before);
        shown.push_str(&parameters(&login(url, is_http)));
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// The part of a URL behind `://` without its password, which may hold any character that
/// somebody has forgotten to encode.
fn login(url: &str, is_http: bool) -> String {
    let Some((login, place)) = url.rsplit_once('@') else { return url.to_owned() };
    match login.split_once(':') {
        _ if is_http => format!("{HIDDEN}@{place}"),
        Some((user, _)) => format!("{user}:{HIDDEN}@{place}"),
        None => url.to_owned(),
    }
}

fn parameters(url: &str) -> String {
    let Some((place, query)) = url.split_once('?') else { return url.to_owned() };
    let shown = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        _ => parameter.to_owned(),
    });
    format!("{place}?{}", shown.collect::<Vec<_>>().join("&"))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Keys and tables of ours whose names sound like those of secrets.
const HARMLESS: [&str; 3] = ["client_auth", "auth", "auth.oauth2"];

/// A line of a file, as a mistake in it is shown: it may be a secret at the wrong place. `table` is
/// the one that it stands in.
pub(crate) fn line(line: &str, table: &str) -> String {
    let hides = |name: &str| is_secret(name) && !HARMLESS.contains(&name.trim());
    match line.split_once('=') {
        Some((key, value)) if (hides(key) || hides(table)) && value.contains(['"', '\'']) => {
            format!("{key}= {HIDDEN}")
        }
        _ => urls(line),
    }
}

/// The table that a line stands in, as `[storage.postgres.password]` begins it.
pub(crate) fn table_of<'t>(lines: impl DoubleEndedIterator<Item = &'t str>) -> &'t str {
    let header = |line: &'t str| {
        let name = line.trim().strip_prefix('[')?.split(']').next()?;
        Some(name.trim_start_matches('['))
    };
    lines.rev().find_map(header).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_hidden() {
        for (text, shown) in [
            ("postgres://u:s3c@ret@h/d", "postgres://u:***@h/d"),
            ("postgres://u:s3/c?ret@h/d", "postgres://u:***@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u@h/d?password=a@b&x=1", "postgres://u@h/d?password=***&x=1"),
            ("https://t0ken@h/", "https://***@h/"),
            ("https://h/keys?access_token=x", "https://h/keys?access_token=***"),
            ("/etc/keys.json", "/etc/keys.json"),
            ("a \"http://u:p@h\" b \"x://v:q@i\"", "a \"http://***@h\" b \"x://v:***@i\""),
        ] {
            assert_eq!(urls(text), shown);
        }
        assert_eq!(line("password = \"s3cret\"", ""), "password = ***");
        assert_eq!(line("key_file = 7", ""), "key_file = 7");
        assert_eq!(line("urll = \"postgres://u:p@h\"", ""), "urll = \"postgres://u:***@h\"");
        let of_table = line("value=\"s3cret\"", "storage.postgres.password");
        assert_eq!(of_table, "value= ***");
        assert_eq!(line("client_auth = \"some\"", "tls.a"), "client_auth = \"some\"");
        assert_eq!(line("mechanism = \"x\"", "auth"), "mechanism = \"x\"");
        let text = "[a]\nx = 1\n[[b.c]]\ny = 2\n";
        assert_eq!(table_of(text.lines()), "b.c");
        assert_eq!(table_of("x = 1".lines()), "");
    }
}

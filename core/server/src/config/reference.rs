//! The reference file: every key with its default and what it means, made from the declarations.

use std::fmt::Write;

use super::{
    key::{Key, Section},
    listener::DEFAULT_LISTENERS,
    section::SECTIONS,
};

const HEAD: &str = "\
# PolyMQ: every key with its default. All of them may be left out.
#
# Sizes and times carry their unit: \"16MiB\", \"30s\". An unknown key is an error.
# A key may also be set by the environment (POLYMQ__LIMITS__CONNECTIONS=1000) and, stronger
# still, by a flag (--set limits.connections=1000).
# `polymq check FILE` shows every value and where it comes from.
";

/// The text of `config/polymq.toml`.
pub(crate) fn reference() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        text.push('\n');
        push_about(&mut text, section.about);
        match section.path {
            "listeners.*" => push_listeners(&mut text, section),
            path => push_section(&mut text, path, section),
        }
    }
    text
}

const STARTER_HEAD: &str = "\
# PolyMQ. Each key stands here with its default, as a comment: take the # away to change it.
#
# Sizes and times carry their unit: \"16MiB\", \"30s\". An unknown key is an error.
# `polymq check FILE` shows every value and where it comes from; `polymq config diff` what a reload
# would change. A key may also be set by the environment (POLYMQ__LIMITS__CONNECTIONS=1000) and,
# stronger still, by a flag (--set limits.connections=1000).
";

/// A file to begin with: the reference in which nothing is set, so that the defaults of later
/// versions hold, too.
pub(crate) fn starter() -> String {
    let reference = reference();
    let body = reference.strip_prefix(HEAD).unwrap_or(&reference);
    let mut text = STARTER_HEAD.to_owned();
    for line in body.lines() {
        let is_plain = line.is_empty() || line.starts_with(['#', '[']);
        let _ = writeln!(text, "{}{line}", if is_plain { "" } else { "# " });
    }
    text
}

fn push_section(text: &mut String, path: &str, section: &Section) {
    // A section under a chosen name has no default, so it is shown as an example.
    let (mark, path) = match path.strip_suffix(".*") {
        Some("components") => ("# ", "components.prosody".to_owned()),
        Some(table) => ("# ", format!("{table}.public")),
        None => ("", path.to_owned()),
    };
    let _ = writeln!(text, "{mark}[{path}]");
    for key in section.keys {
        push_about(text, key.about);
        let _ = writeln!(text, "{mark}{} = {}", key.name, (key.default)());
    }
}

fn push_listeners(text: &mut String, section: &Section) {
    text.push_str("#\n# The keys of a listener:\n");
    for Key { name, about, default, .. } in section.keys {
        let about = about.replace('\n', "");
        let _ = writeln!(text, "#   {name} = {}:{about}", default());
    }
    text.push_str("[listeners]\n");
    for (name, port) in DEFAULT_LISTENERS {
        let _ = writeln!(text, "{name} = {{ bind = [\":{port}\"] }}");
    }
    text.push_str(
        "# amqps = { protocol = \"amqp\", bind = [\"0.0.0.0:5671\"], tls = \"public\" }\n\
         # mqtts = { protocol = \"mqtt\", bind = [\"0.0.0.0:8883\"], tls = \"public\" }\n\
         # stomps = { protocol = \"stomp\", bind = [\"0.0.0.0:61614\"], tls = \"public\" }\n\
         # xmpps = { protocol = \"xmpp\", bind = [\"0.0.0.0:5223\"], tls = \"public\" }\n",
    );
}

fn push_about(text: &mut String, about: &str) {
    for line in about.lines() {
        let _ = writeln!(text, "#{line}");
    }
}

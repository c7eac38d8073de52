//! Names as local parts of XMPP addresses, and the queues that are mailboxes of users.

use std::borrow::Cow;

/// What the names of mailboxes begin with.
pub const MAILBOX_PREFIX: &str = "xmpp-mailbox-";

/// Characters that a local part cannot hold, and how XEP-0106 writes them. The backslash is last:
/// it is written so only where it would otherwise begin one of these.
const ESCAPES: [(char, &str); 10] = [
    (' ', "\\20"),
    ('"', "\\22"),
    ('&', "\\26"),
    ('\'', "\\27"),
    ('/', "\\2f"),
    (':', "\\3a"),
    ('<', "\\3c"),
    ('>', "\\3e"),
    ('@', "\\40"),
    ('\\', "\\5c"),
];

/// Longest part of an XMPP address in bytes (RFC 7622, section 3.1).
pub const JID_PART_BYTES_MAX: usize = 1023;

fn is_escape(text: &str) -> bool {
    ESCAPES.iter().any(|(_, escape)| text.starts_with(escape))
}

/// The name as a local part.
///
/// `None` when preparing a local part (RFC 8265) would not leave the name what it is: local parts
/// have no upper case, no control characters, and no space at either end. Characters beyond ASCII
/// are left to other forms, because peers disagree about how they are prepared.
///
/// Specification: XEP-0106.
pub fn local_from_name(name: &str) -> Option<String> {
    let is_kept = |c: char| c.is_ascii() && !c.is_ascii_control() && !c.is_ascii_uppercase();
    let has_space_outside = name.starts_with(' ') || name.ends_with(' ');
    if name.is_empty() || name.starts_with('~') || has_space_outside || !name.chars().all(is_kept) {
        return None;
    }
    let mut local = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        match ESCAPES.iter().find(|(special, _)| *special == c) {
            Some(('\\', _)) if !is_escape(name.get(at..).unwrap_or_default()) => local.push(c),
            Some((_, escape)) => local.push_str(escape),
            None => local.push(c),
        }
    }
    (local.len() <= JID_PART_BYTES_MAX).then_some(local)
}

/// The name that a local part stands for.
pub fn name_from_local(local: &str) -> Cow<'_, str> {
    if !local.contains('\\') {
        return Cow::Borrowed(local);
    }
    let mut name = String::with_capacity(local.len());
    let mut rest = local;
    while let Some(c) = rest.chars().next() {
        let escape = ESCAPES.iter().find(|(_, escape)| rest.starts_with(escape));
        let (c, len) = match escape {
            Some((c, escape)) => (*c, escape.len()),
            None => (c, c.len_utf8()),
        };
        name.push(c);
        rest = rest.get(len..).unwrap_or_default();
    }
    Cow::Owned(name)
}

/// The local part of a user: its name where that can be one, otherwise `~` and the name in
/// hexadecimal, as local parts have no upper case.
pub fn local_from_user(user: &str) -> String {
    local_from_name(user).unwrap_or_else(|| {
        use std::fmt::Write as _;
        let mut local = "~".to_owned();
        for byte in user.bytes() {
            // Writing to a String cannot fail.
            let _ = write!(local, "{byte:02x}");
        }
        local
    })
}

/// The user that a local part stands for; `None` when it can be nobody's.
pub fn user_from_local(local: &str) -> Option<String> {
    let user = match local.strip_prefix('~') {
        Some(hex) => {
            let digit = |at: usize| hex.get(at..at.checked_add(2)?);
            let bytes: Option<Vec<u8>> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(digit(at)?, 16).ok())
                .collect();
            String::from_utf8(bytes?).ok()?
        }
        None => name_from_local(local).into_owned(),
    };
    (local_from_user(&user) == local).then_some(user)
}

/// A key on the default exchange that is the mailbox of a user, or of one of its resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// The user.
    pub user: String,
    /// The domain.
    pub domain: &'a str,
    /// The mailbox of all resources.
    pub queue: &'a str,
    /// The resource, when the key names one.
    pub resource: Option<&'a str>,
}

impl<'a> Mailbox<'a> {
    /// Reads a key; `None` when it is no mailbox.
    pub fn parse(key: &'a str) -> Option<Self> {
        let jid = key.strip_prefix(MAILBOX_PREFIX)?;
        let (bare, resource) = match jid.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (jid, None),
        };
        let (local, domain) = bare.split_once('@')?;
        let queue = key.get(..MAILBOX_PREFIX.len().checked_add(bare.len())?)?;
        Some(Self { user: user_from_local(local)?, domain, queue, resource })
    }
}

/// The key that a bare or full address of a user stands for.
pub fn mailbox_key(jid: &str) -> String {
    format!("{MAILBOX_PREFIX}{jid}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test] // XEP-0106, section 4.
    fn names_of_the_specification_are_escaped() {
        for (name, local) in [
            ("space cadet", "space\\20cadet"),
            ("call me \"ishmael\"", "call\\20me\\20\\22ishmael\\22"),
            ("at&t guy", "at\\26t\\20guy"),
            ("d'artagnan", "d\\27artagnan"),
            ("/.fanboy", "\\2f.fanboy"),
            ("::foo::", "\\3a\\3afoo\\3a\\3a"),
            ("<foo>", "\\3cfoo\\3e"),
            ("user@host", "user\\40host"),
            ("c:\\net", "c\\3a\\net"),
            ("c:\\cool stuff", "c\\3a\\cool\\20stuff"),
            ("c:\\5commas", "c\\3a\\5c5commas"),
        ] {
            assert_eq!(local_from_name(name).as_deref(), Some(local), "{name}");
            assert_eq!(name_from_local(local), name);
        }
    }

    #[test]
    fn names_that_preparing_would_change_are_no_local_parts() {
        for name in ["", "Orders", " x", "x ", "~x", "a\tb", "é"] {
            assert_eq!(local_from_name(name), None, "{name}");
        }
    }

    #[test]
    fn mailbox_keys_name_user_domain_and_resource() {
        let key = mailbox_key("u\\40x@example.org/a/b@c");
        let mailbox = Mailbox::parse(&key).unwrap();
        assert_eq!((mailbox.user.as_str(), mailbox.domain), ("u@x", "example.org"));
        assert_eq!(mailbox.queue, "xmpp-mailbox-u\\40x@example.org");
        assert_eq!(mailbox.resource, Some("a/b@c"));
        for key in ["orders", "xmpp-mailbox-", "xmpp-mailbox-u", "xmpp-mailbox-~zz@d"] {
            assert_eq!(Mailbox::parse(key), None, "{key}");
        }
    }

    proptest! {
        #![proptest_config(crate::test_config(256))]
        #[test]
        fn every_user_has_a_local_part_of_its_own(
            user in "[a-zA-Z0-9 @/\\\\~é:&'\"<>2-5cf]{1,12}",
        ) {
            prop_assert_eq!(user_from_local(&local_from_user(&user)), Some(user));
        }

        #[test]
        fn escaping_is_undone(name in "[a-z0-9 @/\\\\:&'\"<>2-5cf]{1,12}") {
            if let Some(local) = local_from_name(&name) {
                prop_assert_eq!(name_from_local(&local), name.as_str());
            }
        }
    }
}

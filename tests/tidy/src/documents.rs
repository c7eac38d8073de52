//! Documents: each folder explains itself, and nothing speaks of one machine or one tracker.

use crate::{project::TextFile, shape::Finding};

/// Folders above the crates that have a README of one screen.
const FOLDERS: [&str; 6] = ["config", "core", "docs", "protocols", "storage", "tests"];

/// Beginnings of paths that exist on somebody's machine only.
const PRIVATE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Folders with code and without a README.
pub fn folders_without_readme(files: &[TextFile]) -> Vec<Finding> {
    let all = || files.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
    // A crate inside the folder of another is explained there.
    let is_inside = |folder: &str| all().any(|outer| folder.starts_with(&format!("{outer}/")));
    let crates = all().filter(|folder| !is_inside(folder));
    let lacks = |folder: &&str| {
        let readme = format!("{folder}/README.md");
        !files.iter().any(|file| file.path == readme)
    };
    let finding = |folder: &str| Finding {
        key: folder.to_owned(),
        text: format!("{folder} has no README.md"),
    };
    FOLDERS.into_iter().chain(crates).filter(lacks).map(finding).collect()
}

/// Files that name a path of one machine, or the number of an issue.
pub fn private_words(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let path = PRIVATE_PATHS.into_iter().find(|path| begins_a_path(line, path));
            let word = path.or_else(|| issue_number(line));
            if let Some(word) = word {
                findings.push(Finding {
                    key: file.path.clone(),
                    text: format!("{}:{}: `{word}` means nothing elsewhere", file.path, index + 1),
                });
            }
        }
    }
    findings
}

/// Whether `path` stands in the line at the beginning of an absolute path.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|sign| !(sign.is_alphanumeric() || "._-}~/".contains(sign)))
    })
}

fn issue_number(line: &str) -> Option<&str> {
    let lower = line.to_ascii_lowercase();
    let at = lower.find("issue ")?;
    let number = line.get(at + 6..)?.trim_start_matches('#');
    number.starts_with(|sign: char| sign.is_ascii_digit()).then(|| &line[at..at + 6])
}

/// Links of Markdown files to files of the project that are not there.
pub fn broken_links(files: &[TextFile]) -> Vec<Finding> {
    let exists = |path: &str| {
        let folder = format!("{path}/");
        files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (at, _) in file.text.match_indices("](") {
            let Some((target, _)) = file.text[at + 2..].split_once(')') else { continue };
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = resolved(&file.path, target);
            if !exists(&path) {
                findings.push(Finding {
                    key: format!("{} -> {target}", file.path),
                    text: format!("{} links to {target}, which is not there", file.path),
                });
            }
        }
    }
    findings
}

/// The path of `target` as seen from the file `from`.
fn resolved(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_without_readme_is_found() {
        let crate_only = [TextFile::new("core/x/Cargo.toml", "")];
        let keys: Vec<_> =
            folders_without_readme(&crate_only).into_iter().map(|found| found.key).collect();
        assert!(keys.contains(&"core/x".to_owned()) && keys.contains(&"core".to_owned()));
        let both = [crate_only[0].clone(), TextFile::new("core/x/README.md", "")];
        assert!(!folders_without_readme(&both).iter().any(|found| found.key == "core/x"));
    }

    #[test]
    fn path_of_a_machine_and_number_of_an_issue_are_found() {
        for text in [concat!("see /ho", "me/ann/x"), concat!("as iss", "ue 7 says")] {
            assert_eq!(private_words(&[TextFile::new("a.md", text)]).len(), 1, "{text}");
        }
        for text in [concat!("./wo", "rk/x"), "an issue of taste", concat!("a/wo", "rk/b")] {
            assert!(private_words(&[TextFile::new("a.md", text)]).is_empty(), "{text}");
        }
    }

    #[test]
    fn link_to_nothing_is_found() {
        let text =
            "[a](../core/x/README.md#part) [b](gone.md) [c](https://example.org) [d](../core)";
        let files = [TextFile::new("docs/a.md", text), TextFile::new("core/x/README.md", "")];
        let found = broken_links(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, "docs/a.md -> gone.md");
    }
}

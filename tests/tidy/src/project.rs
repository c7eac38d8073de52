//! The files of the project.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 8] =
    ["target", ".git", "node_modules", "data", "__pycache__", ".venv", "venv", "corpus"];
/// Larger files are data.
const BYTES_MAX: u64 = 1024 * 1024;

/// A text file, by its path from the root of the project.
#[derive(Debug, Clone)]
pub struct TextFile {
    /// Path with `/` between its parts.
    pub path: String,
    /// Content.
    pub text: String,
}

impl TextFile {
    /// A file with this content; for tests.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it serves tests.
    pub fn is_test(&self) -> bool {
        let in_tests = |part: &str| part == "tests" || part == "tests.rs";
        // `tests/` at the root holds crates, whose sources are held to the rules.
        let own = self.path.strip_prefix("tests/").unwrap_or(&self.path);
        own.split('/').any(in_tests) || own.ends_with("_tests.rs")
    }
}

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All text files of the project.
///
/// Errors: a folder or a file cannot be read.
pub fn text_files() -> anyhow::Result<Vec<TextFile>> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() && !FOREIGN.iter().any(|foreign| name == *foreign) {
                folders.push(path);
            } else if kind.is_file() && entry.metadata()?.len() <= BYTES_MAX {
                // What is no UTF-8 is no text.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let path = path.strip_prefix(&root)?.to_string_lossy().into_owned();
                files.push(TextFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

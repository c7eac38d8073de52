//! Sizes, and what every crate says about unsafe code.

use crate::{
    project::TextFile,
    rust_text::{functions, lines_without_tests},
};

/// Lines of a file without its tests.
pub const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from `fn` to its last brace.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
pub const LINE_CHARACTERS_MAX: usize = 100;

/// Something to put right. `key` names it in the list of known exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, with the function where there is one.
    pub key: String,
    /// A sentence.
    pub text: String,
}

/// Files that are too long.
pub fn long_files(files: &[TextFile]) -> Vec<Finding> {
    let sources = files.iter().filter(|file| file.is_rust() && !file.is_test());
    let long = sources.filter_map(|file| {
        let lines = lines_without_tests(&file.text);
        (lines > FILE_LINES_MAX).then(|| Finding {
            key: file.path.clone(),
            text: format!("{} has {lines} lines, {FILE_LINES_MAX} are allowed", file.path),
        })
    });
    long.collect()
}

/// Functions that are too long.
pub fn long_functions(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for function in functions(&file.text) {
            if function.lines > FUNCTION_LINES_MAX {
                findings.push(Finding {
                    key: format!("{}::{}", file.path, function.name),
                    text: format!(
                        "{}:{}: `{}` has {} lines, {FUNCTION_LINES_MAX} are allowed",
                        file.path, function.line, function.name, function.lines
                    ),
                });
            }
        }
    }
    findings
}

/// Files with lines that are too wide.
pub fn wide_lines(files: &[TextFile]) -> Vec<Finding> {
    let is_measured = |file: &&TextFile| file.is_rust() || file.path.ends_with(".py");
    let mut findings = Vec::new();
    for file in files.iter().filter(is_measured) {
        let is_wide = |(_, line): &(usize, &str)| line.chars().count() > LINE_CHARACTERS_MAX;
        let wide: Vec<_> = file.text.lines().enumerate().filter(is_wide).collect();
        if let Some((index, _)) = wide.first() {
            findings.push(Finding {
                key: file.path.clone(),
                text: format!(
                    "{}:{}: the first of {} lines beyond {LINE_CHARACTERS_MAX} characters",
                    file.path,
                    index + 1,
                    wide.len()
                ),
            });
        }
    }
    findings
}

/// Crates that do not forbid unsafe code.
pub fn crates_that_allow_unsafe(files: &[TextFile]) -> Vec<Finding> {
    let is_root = |file: &&TextFile| {
        file.path.ends_with("/src/lib.rs") || file.path.ends_with("/src/main.rs")
    };
    let allows = |file: &&TextFile| !file.text.contains("#![forbid(unsafe_code)]");
    let finding = |file: &TextFile| Finding {
        key: file.path.clone(),
        text: format!("{} does not say #![forbid(unsafe_code)]", file.path),
    };
    files.iter().filter(is_root).filter(allows).map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> [TextFile; 1] {
        [TextFile::new(path, text)]
    }

    #[test]
    fn long_file_is_found_and_its_tests_do_not_count() {
        let long = "a\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(long_files(&file("core/x/src/a.rs", &long)).len(), 1);
        assert!(long_files(&file("core/x/src/tests.rs", &long)).is_empty());
        assert!(long_files(&file("core/x/tests/a.rs", &long)).is_empty());
        assert_eq!(long_files(&file("tests/x/src/a.rs", &long)).len(), 1);
        let tested = format!("a\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(long_files(&file("core/x/src/a.rs", &tested)).is_empty());
    }

    #[test]
    fn long_function_is_found() {
        let long = format!("fn f() {{\n{}}}\n", "    a();\n".repeat(FUNCTION_LINES_MAX - 1));
        let found = long_functions(&file("core/x/src/a.rs", &long));
        assert_eq!(found[0].key, "core/x/src/a.rs::f");
        let short = format!("fn f() {{\n{}}}\n", "    a();\n".repeat(FUNCTION_LINES_MAX - 2));
        assert!(long_functions(&file("core/x/src/a.rs", &short)).is_empty());
    }

    #[test]
    fn wide_line_is_found_by_characters() {
        let wide = format!("x\n{}\n", "é".repeat(LINE_CHARACTERS_MAX + 1));
        assert!(wide_lines(&file("a.rs", &wide))[0].text.starts_with("a.rs:2:"));
        assert!(wide_lines(&file("a.rs", &"é".repeat(LINE_CHARACTERS_MAX))).is_empty());
        assert!(wide_lines(&file("a.md", &wide)).is_empty());
    }

    #[test]
    fn crate_that_allows_unsafe_code_is_found() {
        assert_eq!(crates_that_allow_unsafe(&file("core/x/src/lib.rs", "")).len(), 1);
        let forbidding = file("core/x/src/lib.rs", "#![forbid(unsafe_code)]\n");
        assert!(crates_that_allow_unsafe(&forbidding).is_empty());
    }
}

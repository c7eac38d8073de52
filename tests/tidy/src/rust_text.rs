//! Just enough understanding of Rust to measure it: what is code, and where functions end.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of its `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

/// The text with comments and the insides of literals replaced by spaces; lines stay lines.
pub(crate) fn code_only(text: &str) -> String {
    let signs: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&sign) = signs.get(at) {
        let end = end_of_hidden(&signs, at);
        if end == at {
            code.push(sign);
            at += 1;
            continue;
        }
        code.extend(signs[at..end].iter().map(|hidden| if *hidden == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn end_of_hidden(signs: &[char], at: usize) -> usize {
    let next = |offset: usize| signs.get(at + offset).copied();
    let until = |start: usize, mark: &str| {
        let mark: Vec<char> = mark.chars().collect();
        let found = signs
            .get(start..)
            .and_then(|rest| rest.windows(mark.len()).position(|window| window == mark.as_slice()));
        found.map_or(signs.len(), |position| start + position + mark.len())
    };
    match (signs[at], next(1)) {
        ('/', Some('/')) => until(at, "\n").saturating_sub(1).max(at + 2),
        ('/', Some('*')) => until(at + 2, "*/"),
        ('r', Some('"' | '#')) if !is_word_before(signs, at) => {
            let hashes = signs[at + 1..].iter().take_while(|sign| **sign == '#').count();
            match next(1 + hashes) {
                Some('"') => until(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes))),
                // A raw identifier.
                _ => at,
            }
        }
        ('"', _) => end_of_quoted(signs, at, '"'),
        ('\'', Some('\\')) => end_of_quoted(signs, at, '\''),
        // A character; otherwise a lifetime.
        ('\'', Some(_)) if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn is_word_before(signs: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| signs.get(before));
    // `br"..."` is raw, too.
    before.is_some_and(|sign| (sign.is_alphanumeric() && *sign != 'b') || *sign == '_')
}

fn end_of_quoted(signs: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while let Some(&sign) = signs.get(at) {
        match sign {
            '\\' => at += 2,
            sign if sign == quote => return at + 1,
            _ => at += 1,
        }
    }
    signs.len()
}

/// Every function with a body, in the order of its first line. Inner ones are listed, too.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let code = code_only(text);
    let bytes = code.as_bytes();
    let mut functions = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let is_keyword = start == 0 || !(is_name_byte(bytes[start - 1]));
        let name: String = code[start + 3..]
            .chars()
            .take_while(|sign| sign.is_alphanumeric() || *sign == '_')
            .collect();
        if !is_keyword || name.is_empty() {
            continue;
        }
        if let Some(end) = end_of_body(bytes, start) {
            let line_of = |at: usize| code[..at].matches('\n').count() + 1;
            let (line, last) = (line_of(start), line_of(end));
            functions.push(Function { name, line, lines: last - line + 1 });
        }
    }
    functions
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The closing brace of the function that starts at `start`; `None` when it has no body.
fn end_of_body(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut brackets) = (0_usize, 0_usize);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b';' if depth == 0 && brackets == 0 => return None,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Lines before the module of unit tests.
pub(crate) fn lines_without_tests(text: &str) -> usize {
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {");
    let lines: Vec<&str> = text.lines().collect();
    lines.windows(2).position(is_tests).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_no_code() {
        let text = "a // }\nb \"{\\\"\" /* } */ c '{' d '\\'' r#\"} \"#; 'x: loop";
        let code = code_only(text);
        assert!(!code.contains(['{', '}', '"']), "{code}");
        for word in ["a", "b", "c", "d", "'x: loop"] {
            assert!(code.contains(word), "{word} in {code}");
        }
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn functions_are_measured_to_their_last_brace() {
        let text = "trait T { fn none(&self); }\nfn a(x: [u8; 2]) {\n    let s = \"}\";\n}\n\
                    pub fn b() -> u8 { 1 }\n";
        let found = functions(text);
        assert_eq!(
            found,
            [
                Function { name: "a".into(), line: 2, lines: 3 },
                Function { name: "b".into(), line: 5, lines: 1 },
            ]
        );
    }

    #[test]
    fn unit_tests_do_not_count() {
        assert_eq!(lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(lines_without_tests("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
    }
}

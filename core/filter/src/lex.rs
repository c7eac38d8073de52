//! Text to words.

use crate::{BadFilter, FILTER_BYTES_MAX};

/// A word and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) at: usize,
    pub(crate) word: Word,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Word {
    /// A name without quotes: a field, or a word of the language.
    Name(String),
    /// A field in double quotes.
    Quoted(String),
    Text(String),
    Int(i64),
    Float(f64),
    Sign(&'static str),
    End,
}

/// Signs, the longer ones first.
const SIGNS: [&str; 14] =
    ["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/"];

/// Errors: a sign that is none, a text without an end, a number that is none.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, BadFilter> {
    if text.len() > FILTER_BYTES_MAX {
        let what = format!("a filter has at most {FILTER_BYTES_MAX} bytes");
        return Err(BadFilter::new(FILTER_BYTES_MAX, what));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..)
        && let Some(first) = rest.chars().next()
    {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (word, length) = next(rest, first, at)?;
        tokens.push(Token { at, word });
        at += length;
    }
    tokens.push(Token { at, word: Word::End });
    Ok(tokens)
}

fn next(rest: &str, first: char, at: usize) -> Result<(Word, usize), BadFilter> {
    match first {
        '\'' | '"' => {
            let (text, length) = quoted(rest, first)
                .ok_or_else(|| BadFilter::new(at, format!("this {first} has no end")))?;
            let word = if first == '"' { Word::Quoted(text) } else { Word::Text(text) };
            Ok((word, length))
        }
        '0'..='9' | '.' => number(rest, at),
        _ if is_name_start(first) => {
            let length = rest.find(|c| !is_name_part(c)).unwrap_or(rest.len());
            let name = rest.get(..length).unwrap_or_default();
            Ok((Word::Name(name.to_owned()), length))
        }
        _ => match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            Some(sign) => Ok((Word::Sign(sign), sign.len())),
            None => Err(BadFilter::new(at, format!("`{first}` means nothing here"))),
        },
    }
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

fn is_name_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '.')
}

/// Text between quotes, in which a double quote sign stands for one; and its length with them.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut signs = rest.char_indices().skip(1).peekable();
    while let Some((at, sign)) = signs.next() {
        if sign == quote && signs.next_if(|(_, next)| *next == quote).is_none() {
            return Some((text, at + 1));
        }
        text.push(sign);
    }
    None
}

fn number(rest: &str, at: usize) -> Result<(Word, usize), BadFilter> {
    let bytes = rest.as_bytes();
    let mut length = 0;
    while let Some(byte) = bytes.get(length) {
        let after_exponent =
            length > 0 && matches!(bytes.get(length - 1), Some(b'e' | b'E')) && length > 1;
        let is_part = byte.is_ascii_alphanumeric()
            || *byte == b'.'
            || (matches!(byte, b'+' | b'-') && after_exponent);
        if !is_part {
            break;
        }
        length += 1;
    }
    let text = rest.get(..length).unwrap_or_default();
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    let word = match is_whole {
        true => text.parse().map(Word::Int).ok(),
        false => None,
    };
    let fraction = || text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Word::Float);
    let bad = || BadFilter::new(at, format!("`{text}` is no number"));
    Ok((word.or_else(fraction).ok_or_else(bad)?, length))
}

//! Words to a tree, by descent. Precedence from loose to tight: `OR`, `AND`, `NOT`, comparisons,
//! `+ -`, `* /`, signs.

use regex::{Regex, RegexBuilder};

use crate::{
    BadFilter, DEPTH_MAX, PATTERN_CHARS_MAX,
    duration::duration_from_text,
    lex::{Token, Word, tokens},
    path::Path,
    tree::{Arithmetic, Comparison, Condition, Operand},
};

/// Memory of a compiled pattern at most, in bytes.
const PATTERN_MEMORY_BYTES_MAX: usize = 256 * 1024;

/// Errors: the first mistake.
pub(crate) fn parse(text: &str) -> Result<Condition, BadFilter> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let condition = parser.condition()?;
    match parser.peek() {
        Word::End => condition.into_condition(),
        _ => Err(parser.bad("the filter should end here, or go on with AND or OR")),
    }
}

/// What stands in brackets is a condition or a value; which of them is known behind it.
enum Parsed {
    Condition(Condition),
    Value(Operand, usize),
}

impl Parsed {
    fn into_condition(self) -> Result<Condition, BadFilter> {
        match self {
            Self::Condition(condition) => Ok(condition),
            Self::Value(
                operand @ (Operand::Bool(_) | Operand::Field(_) | Operand::Json(_) | Operand::Null),
                _,
            ) => Ok(Condition::Truth(operand)),
            Self::Value(_, at) => Err(BadFilter::new(at, "a number or text is not a condition")),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn token(&self) -> &Token {
        // The last is the end, which nobody steps over.
        self.tokens.get(self.next).unwrap_or(&self.tokens[self.tokens.len() - 1])
    }

    fn peek(&self) -> &Word {
        &self.token().word
    }

    fn at(&self) -> usize {
        self.token().at
    }

    fn step(&mut self) -> Word {
        let word = self.peek().clone();
        if word != Word::End {
            self.next += 1;
        }
        word
    }

    fn bad(&self, what: impl Into<String>) -> BadFilter {
        BadFilter::new(self.at(), what)
    }

    fn is_word(&self, wanted: &str) -> bool {
        matches!(self.peek(), Word::Name(name) if name.eq_ignore_ascii_case(wanted))
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let is_there = self.is_word(wanted);
        self.next += usize::from(is_there);
        is_there
    }

    fn take_sign(&mut self, wanted: &str) -> bool {
        let is_there = matches!(self.peek(), Word::Sign(sign) if *sign == wanted);
        self.next += usize::from(is_there);
        is_there
    }

    fn want_sign(&mut self, wanted: &str) -> Result<(), BadFilter> {
        match self.take_sign(wanted) {
            true => Ok(()),
            false => Err(self.bad(format!("`{wanted}` is missing here"))),
        }
    }

    fn want_word(&mut self, wanted: &str) -> Result<(), BadFilter> {
        match self.take_word(wanted) {
            true => Ok(()),
            false => Err(self.bad(format!("{wanted} is missing here"))),
        }
    }

    fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, BadFilter>,
    ) -> Result<T, BadFilter> {
        if self.depth >= DEPTH_MAX {
            return Err(self.bad(format!("a filter nests at most {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn condition(&mut self) -> Result<Parsed, BadFilter> {
        self.chain("OR", Condition::Or, |parser| parser.chain("AND", Condition::And, Self::negated))
    }

    /// Parts with a word between them.
    fn chain(
        &mut self,
        word: &str,
        join: fn(Vec<Condition>) -> Condition,
        part: impl Fn(&mut Self) -> Result<Parsed, BadFilter>,
    ) -> Result<Parsed, BadFilter> {
        let first = part(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first.into_condition()?];
        while self.take_word(word) {
            parts.push(part(self)?.into_condition()?);
        }
        Ok(Parsed::Condition(join(parts)))
    }

    fn negated(&mut self) -> Result<Parsed, BadFilter> {
        if !self.take_word("NOT") {
            return self.predicate();
        }
        let inner = self.nested(Self::negated)?.into_condition()?;
        Ok(Parsed::Condition(Condition::Not(Box::new(inner))))
    }

    fn predicate(&mut self) -> Result<Parsed, BadFilter> {
        let at = self.at();
        let left = match self.sum()? {
            Parsed::Condition(condition) => return Ok(Parsed::Condition(condition)),
            Parsed::Value(operand, _) => operand,
        };
        if let Some(comparison) = self.comparison() {
            let right_at = self.at();
            let right = self.value()?;
            let (left, right) = durations(left, right, right_at, at)?;
            return Ok(Parsed::Condition(Condition::Compare(left, comparison, right)));
        }
        if self.take_word("IS") {
            let negated = self.take_word("NOT");
            self.want_word("NULL")?;
            return Ok(Parsed::Condition(not_if(negated, Condition::IsNull(left))));
        }
        let negated = self.take_word("NOT");
        let found = match () {
            () if self.take_word("BETWEEN") => self.between(left, at)?,
            () if self.take_word("IN") => self.list(left, at)?,
            () if self.take_word("LIKE") => self.like(left)?,
            () if negated => return Err(self.bad("BETWEEN, IN or LIKE is missing here")),
            () => return Ok(Parsed::Value(left, at)),
        };
        Ok(Parsed::Condition(not_if(negated, found)))
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let comparison = match self.peek() {
            Word::Sign("=") => Comparison::Equal,
            Word::Sign("<>" | "!=") => Comparison::Differs,
            Word::Sign("<") => Comparison::Less,
            Word::Sign("<=") => Comparison::LessOrEqual,
            Word::Sign(">") => Comparison::Greater,
            Word::Sign(">=") => Comparison::GreaterOrEqual,
            _ => return None,
        };
        self.next += 1;
        Some(comparison)
    }

    fn between(&mut self, of: Operand, at: usize) -> Result<Condition, BadFilter> {
        let low_at = self.at();
        let (of, low) = durations(of, self.value()?, low_at, at)?;
        self.want_word("AND")?;
        let high_at = self.at();
        let (of, high) = durations(of, self.value()?, high_at, at)?;
        Ok(Condition::Between { of, low, high })
    }

    fn list(&mut self, mut of: Operand, at: usize) -> Result<Condition, BadFilter> {
        self.want_sign("(")?;
        let mut list = Vec::new();
        loop {
            let item_at = self.at();
            let (left, item) = durations(of, self.value()?, item_at, at)?;
            of = left;
            list.push(item);
            if !self.take_sign(",") {
                break;
            }
        }
        self.want_sign(")")?;
        Ok(Condition::In { of, list })
    }

    fn like(&mut self, of: Operand) -> Result<Condition, BadFilter> {
        let at = self.at();
        let pattern = self.text("a pattern in quotes")?;
        let mut escape = None;
        if self.take_word("ESCAPE") {
            let escape_at = self.at();
            let text = self.text("a sign in quotes")?;
            let mut signs = text.chars();
            match (signs.next(), signs.next()) {
                (Some(sign), None) => escape = Some(sign),
                _ => return Err(BadFilter::new(escape_at, "ESCAPE takes one sign")),
            }
        }
        let expression = like_expression(&pattern, escape)
            .ok_or_else(|| BadFilter::new(at, "the escape sign stands before %, _ or itself"))?;
        Ok(Condition::Pattern { of, pattern: compile(&expression, at)? })
    }

    fn text(&mut self, wanted: &str) -> Result<String, BadFilter> {
        match self.peek() {
            Word::Text(text) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.bad(format!("{wanted} is missing here"))),
        }
    }

    /// A value, where a condition would make no sense.
    fn value(&mut self) -> Result<Operand, BadFilter> {
        let at = self.at();
        match self.sum()? {
            Parsed::Value(operand, _) => Ok(operand),
            Parsed::Condition(_) => Err(BadFilter::new(at, "a value is missing here")),
        }
    }

    fn sum(&mut self) -> Result<Parsed, BadFilter> {
        let signs = [("+", Arithmetic::Add), ("-", Arithmetic::Subtract)];
        self.arithmetic(signs, |parser| {
            let signs = [("*", Arithmetic::Multiply), ("/", Arithmetic::Divide)];
            parser.arithmetic(signs, Self::signed)
        })
    }

    fn arithmetic(
        &mut self,
        signs: [(&str, Arithmetic); 2],
        part: impl Fn(&mut Self) -> Result<Parsed, BadFilter>,
    ) -> Result<Parsed, BadFilter> {
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = signs.into_iter().find(|(sign, _)| self.take_sign(sign)) {
            let at = self.at();
            match part(self)? {
                Parsed::Value(operand, _) => rest.push((operator, operand)),
                Parsed::Condition(_) => return Err(BadFilter::new(at, "a value is missing here")),
            }
        }
        match first {
            first if rest.is_empty() => Ok(first),
            Parsed::Value(first, at) => {
                Ok(Parsed::Value(Operand::Chain(Box::new(first), rest), at))
            }
            Parsed::Condition(_) => Err(self.bad("a condition cannot be calculated with")),
        }
    }

    fn signed(&mut self) -> Result<Parsed, BadFilter> {
        let at = self.at();
        let is_minus = self.take_sign("-");
        if !is_minus && !self.take_sign("+") {
            return self.primary();
        }
        let inner = self.nested(Self::signed)?;
        match inner {
            Parsed::Value(Operand::Int(number), _) if is_minus && number != i64::MIN => {
                Ok(Parsed::Value(Operand::Int(-number), at))
            }
            Parsed::Value(operand, _) if is_minus => {
                Ok(Parsed::Value(Operand::Minus(Box::new(operand)), at))
            }
            Parsed::Value(operand, _) => Ok(Parsed::Value(operand, at)),
            Parsed::Condition(_) => Err(BadFilter::new(at, "a sign stands before a number")),
        }
    }

    fn primary(&mut self) -> Result<Parsed, BadFilter> {
        let at = self.at();
        if self.take_sign("(") {
            let inner = self.nested(Self::condition)?;
            self.want_sign(")")?;
            return Ok(inner);
        }
        let operand = match self.peek().clone() {
            Word::Int(number) => Operand::Int(number),
            Word::Float(number) => Operand::Float(number),
            Word::Text(text) => Operand::Text(text.into()),
            Word::Quoted(name) => Operand::Field(name.into()),
            Word::Name(name) if is_reserved(&name) => {
                return Err(self.bad(format!("a value is missing before {name}")));
            }
            Word::Name(name) => return self.named(&name, at),
            Word::Sign(_) | Word::End => return Err(self.bad("a value is missing here")),
        };
        self.step();
        Ok(Parsed::Value(operand, at))
    }

    /// A constant, a function or a field.
    fn named(&mut self, name: &str, at: usize) -> Result<Parsed, BadFilter> {
        self.step();
        let lower = name.to_ascii_lowercase();
        let operand = match lower.as_str() {
            "true" => Operand::Bool(true),
            "false" => Operand::Bool(false),
            "null" => Operand::Null,
            _ if self.take_sign("(") => return self.function(&lower, at),
            _ => Operand::Field(name.into()),
        };
        Ok(Parsed::Value(operand, at))
    }

    fn function(&mut self, name: &str, at: usize) -> Result<Parsed, BadFilter> {
        let parsed = match name {
            "json" => {
                let path_at = self.at();
                let text = self.text("a path in quotes")?;
                let path = Path::parse(&text)
                    .map_err(|(before, what)| BadFilter::new(path_at + 1 + before, what))?;
                Parsed::Value(Operand::Json(path), at)
            }
            "age" => Parsed::Value(Operand::Age(self.field()?), at),
            "matches" => {
                let of = self.value()?;
                self.want_sign(",")?;
                let pattern_at = self.at();
                let text = self.text("a regular expression in quotes")?;
                let pattern = compile(&text, pattern_at)?;
                Parsed::Condition(Condition::Pattern { of, pattern })
            }
            _ => {
                let what =
                    format!("there is no function `{name}`; there are json, matches and age");
                return Err(BadFilter::new(at, what));
            }
        };
        self.want_sign(")")?;
        Ok(parsed)
    }

    fn field(&mut self) -> Result<Box<str>, BadFilter> {
        match self.peek().clone() {
            Word::Name(name) | Word::Quoted(name) => {
                self.step();
                Ok(name.into())
            }
            _ => Err(self.bad("a field with a time is missing here")),
        }
    }
}

fn not_if(negated: bool, condition: Condition) -> Condition {
    if negated { Condition::Not(Box::new(condition)) } else { condition }
}

/// Words that are no fields unless they stand in double quotes.
fn is_reserved(name: &str) -> bool {
    ["and", "or", "not", "between", "in", "like", "escape", "is"]
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word))
}

/// An age compares with text that is a duration.
///
/// Errors: the text is none.
fn durations(
    left: Operand,
    right: Operand,
    right_at: usize,
    left_at: usize,
) -> Result<(Operand, Operand), BadFilter> {
    let to_ms = |text: &str, at| {
        let ms = duration_from_text(text).and_then(|ms| i64::try_from(ms).ok());
        let what = || BadFilter::new(at, format!("'{text}' is no duration such as '5m' or '30s'"));
        ms.map(Operand::Int).ok_or_else(what)
    };
    match (&left, &right) {
        (Operand::Age(_), Operand::Text(text)) => {
            let ms = to_ms(text, right_at)?;
            Ok((left, ms))
        }
        (Operand::Text(text), Operand::Age(_)) => Ok((to_ms(text, left_at)?, right)),
        _ => Ok((left, right)),
    }
}

/// Errors: the text is no regular expression, or too large a one.
fn compile(expression: &str, at: usize) -> Result<Regex, BadFilter> {
    // The signs of a LIKE pattern may need a second one each.
    if expression.chars().count() > 2 * PATTERN_CHARS_MAX {
        let what = format!("a pattern has at most {PATTERN_CHARS_MAX} characters");
        return Err(BadFilter::new(at, what));
    }
    RegexBuilder::new(expression)
        .size_limit(PATTERN_MEMORY_BYTES_MAX)
        .dfa_size_limit(PATTERN_MEMORY_BYTES_MAX)
        .build()
        .map_err(|error| BadFilter::new(at, format!("this is no pattern: {error}")))
}

/// The regular expression of a LIKE pattern; `None` when an escape sign escapes nothing.
fn like_expression(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut expression = String::from("(?s)^");
    let mut signs = pattern.chars();
    while let Some(sign) = signs.next() {
        match sign {
            sign if Some(sign) == escape => {
                let escaped = signs.next().filter(|s| matches!(s, '%' | '_') || *s == sign)?;
                expression.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
            }
            '%' => expression.push_str(".*"),
            '_' => expression.push('.'),
            sign => expression.push_str(&regex::escape(sign.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    Some(expression)
}

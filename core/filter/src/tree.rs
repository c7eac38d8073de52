//! A condition as a tree. Chains of one operator are lists, so that a long chain is not deep.

use regex::Regex;

use crate::path::Path;

/// What is true, false or unknown.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Or(Vec<Condition>),
    And(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Comparison, Operand),
    Between {
        of: Operand,
        low: Operand,
        high: Operand,
    },
    In {
        of: Operand,
        list: Vec<Operand>,
    },
    /// `LIKE`, and `matches`.
    Pattern {
        of: Operand,
        pattern: Regex,
    },
    IsNull(Operand),
    /// A field or constant that is a truth value.
    Truth(Operand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Differs,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What has a value.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Field(Box<str>),
    /// The value at a path in the body.
    Json(Path),
    /// Milliseconds since the time in a field.
    Age(Box<str>),
    Minus(Box<Operand>),
    /// The first, and what follows with its operator.
    Chain(Box<Operand>, Vec<(Arithmetic, Operand)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

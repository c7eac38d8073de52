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

impl Condition {
    /// Adds the names of the fields it looks at.
    pub(crate) fn name_fields<'c>(&'c self, names: &mut Vec<&'c str>) {
        match self {
            Self::Or(parts) | Self::And(parts) => {
                parts.iter().for_each(|part| part.name_fields(names));
            }
            Self::Not(inner) => inner.name_fields(names),
            Self::Compare(left, _, right) => {
                [left, right].iter().for_each(|o| o.name_fields(names))
            }
            Self::Between { of, low, high } => {
                [of, low, high].iter().for_each(|operand| operand.name_fields(names));
            }
            Self::In { of, list } => {
                of.name_fields(names);
                list.iter().for_each(|item| item.name_fields(names));
            }
            Self::Pattern { of, .. } | Self::IsNull(of) | Self::Truth(of) => of.name_fields(names),
        }
    }
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

impl Operand {
    fn name_fields<'c>(&'c self, names: &mut Vec<&'c str>) {
        match self {
            Self::Field(name) | Self::Age(name) => names.push(name),
            Self::Minus(inner) => inner.name_fields(names),
            Self::Chain(first, rest) => {
                first.name_fields(names);
                rest.iter().for_each(|(_, operand)| operand.name_fields(names));
            }
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Json(_) => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

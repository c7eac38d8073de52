//! Three-valued logic: `Some(true)`, `Some(false)`, and `None` for unknown.

use std::{borrow::Cow, cell::OnceCell, cmp::Ordering};

use serde_json::Value;

use crate::{
    Fields, JSON_BYTES_MAX,
    scalar::{Scalar, order, time_of},
    tree::{Arithmetic, Comparison, Condition, Operand},
};

/// One question: the fields, the time, and the body once somebody has asked for it.
pub(crate) struct Context<'f> {
    fields: &'f dyn Fields,
    now_ms: u64,
    document: OnceCell<Option<Value>>,
}

impl<'f> Context<'f> {
    pub(crate) fn new(fields: &'f dyn Fields, now_ms: u64) -> Self {
        Self { fields, now_ms, document: OnceCell::new() }
    }

    fn document(&self) -> Option<&Value> {
        let read = || {
            let body = self.fields.body().filter(|body| body.len() <= JSON_BYTES_MAX)?;
            serde_json::from_slice(body).ok()
        };
        self.document.get_or_init(read).as_ref()
    }
}

pub(crate) fn truth(condition: &Condition, context: &Context<'_>) -> Option<bool> {
    match condition {
        Condition::Or(parts) => any(parts, context, true),
        Condition::And(parts) => any(parts, context, false),
        Condition::Not(inner) => truth(inner, context).map(|truth| !truth),
        Condition::Compare(left, comparison, right) => compare(left, *comparison, right, context),
        Condition::Between { of, low, high } => and(
            compare(of, Comparison::GreaterOrEqual, low, context),
            compare(of, Comparison::LessOrEqual, high, context),
        ),
        Condition::In { of, list } => {
            let each = |item: &Operand| compare(of, Comparison::Equal, item, context);
            let mut found = Some(false);
            for item in list {
                match each(item) {
                    Some(true) => return Some(true),
                    Some(false) => {}
                    None => found = None,
                }
            }
            found
        }
        Condition::Pattern { of, pattern } => match value(of, context)? {
            Scalar::Text(text) => Some(pattern.is_match(&text)),
            _ => Some(false),
        },
        Condition::IsNull(of) => Some(value(of, context).is_none()),
        Condition::Truth(of) => match value(of, context)? {
            Scalar::Bool(truth) => Some(truth),
            _ => None,
        },
    }
}

/// `decisive` when a part is that; else unknown when a part is unknown.
fn any(parts: &[Condition], context: &Context<'_>, decisive: bool) -> Option<bool> {
    let mut found = Some(!decisive);
    for part in parts {
        match truth(part, context) {
            Some(truth) if truth == decisive => return Some(decisive),
            Some(_) => {}
            None => found = None,
        }
    }
    found
}

fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn compare(
    left: &Operand,
    comparison: Comparison,
    right: &Operand,
    context: &Context<'_>,
) -> Option<bool> {
    let (left, right) = (value(left, context)?, value(right, context)?);
    // Unlike types neither equal nor differ.
    let Some(order) = order(&left, &right) else { return Some(false) };
    Some(match comparison {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::Differs => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
    })
}

/// The value; `None` for NULL.
fn value<'c>(operand: &'c Operand, context: &'c Context<'_>) -> Option<Scalar<'c>> {
    match operand {
        Operand::Null => None,
        Operand::Bool(truth) => Some(Scalar::Bool(*truth)),
        Operand::Int(number) => Some(Scalar::Int(*number)),
        Operand::Float(number) => Some(Scalar::Float(*number)),
        Operand::Text(text) => Some(Scalar::text(text)),
        Operand::Field(name) => context.fields.field(name),
        Operand::Json(path) => from_json(path.find(context.document()?)?),
        Operand::Age(name) => {
            let then = match context.fields.field(name)? {
                Scalar::Int(ms) | Scalar::Time(ms) => ms,
                Scalar::Text(text) => time_of(&text)?,
                _ => return None,
            };
            let now = i64::try_from(context.now_ms).unwrap_or(i64::MAX);
            Some(Scalar::Int(now.saturating_sub(then)))
        }
        Operand::Minus(inner) => match value(inner, context)? {
            Scalar::Int(number) => Some(match number.checked_neg() {
                Some(number) => Scalar::Int(number),
                None => Scalar::Float(-(number as f64)),
            }),
            Scalar::Float(number) => Some(Scalar::Float(-number)),
            _ => None,
        },
        Operand::Chain(first, rest) => {
            let mut total = value(first, context)?;
            for (operator, operand) in rest {
                total = calculate(&total, *operator, &value(operand, context)?)?;
            }
            Some(total)
        }
    }
}

fn from_json(value: &Value) -> Option<Scalar<'_>> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::Bool(truth) => Some(Scalar::Bool(*truth)),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Some(Scalar::Int(number)),
            None => number.as_f64().map(Scalar::Float),
        },
        Value::String(text) => Some(Scalar::Text(Cow::Borrowed(text))),
    }
}

/// Whole numbers stay whole as long as they fit. NULL for a division by zero and for what is no
/// number.
fn calculate(
    left: &Scalar<'_>,
    operator: Arithmetic,
    right: &Scalar<'_>,
) -> Option<Scalar<'static>> {
    if let (Scalar::Int(a) | Scalar::Time(a), Scalar::Int(b) | Scalar::Time(b)) = (left, right) {
        let whole = match operator {
            Arithmetic::Add => a.checked_add(*b),
            Arithmetic::Subtract => a.checked_sub(*b),
            Arithmetic::Multiply => a.checked_mul(*b),
            Arithmetic::Divide if *b == 0 => return None,
            Arithmetic::Divide => a.checked_div(*b),
        };
        if let Some(whole) = whole {
            return Some(Scalar::Int(whole));
        }
    }
    let (a, b) = (fraction(left)?, fraction(right)?);
    let result = match operator {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
    };
    result.is_finite().then_some(Scalar::Float(result))
}

fn fraction(value: &Scalar<'_>) -> Option<f64> {
    match value {
        Scalar::Int(number) | Scalar::Time(number) => Some(*number as f64),
        Scalar::Float(number) => Some(*number),
        Scalar::Bool(_) | Scalar::Text(_) => None,
    }
}

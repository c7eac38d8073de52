//! Regular expressions as RabbitMQ's permissions use them: found anywhere in a name unless they
//! say otherwise, look-around permitted.

use fancy_regex::{Regex, RegexBuilder};
use polymq_contract::{Refusal, RefusalKind};

/// Longest expression in bytes.
const EXPRESSION_BYTES_MAX: usize = 4096;
/// Steps that one with look-around may take on one name; beyond them it does not match.
const STEPS_MAX: usize = 100_000;
/// Memory that a compiled expression may take, in bytes.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression(Regex);

impl Expression {
    /// Errors: kind `Invalid` when it is too long or no regular expression.
    pub(super) fn compile(expression: &str) -> Result<Self, Refusal> {
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(Refusal::new(
                RefusalKind::Invalid,
                format!("a permission expression has at most {EXPRESSION_BYTES_MAX} bytes"),
            ));
        }
        let built = RegexBuilder::new(or_nothing(expression))
            .backtrack_limit(STEPS_MAX)
            .delegate_size_limit(COMPILED_BYTES_MAX)
            .build();
        built.map(Self).map_err(|error| {
            let text = format!("`{expression}` is no regular expression: {error}");
            Refusal::new(RefusalKind::Invalid, text)
        })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name).unwrap_or(false)
    }
}

/// An empty expression allows nothing but the empty name, as in RabbitMQ.
pub(super) fn or_nothing(expression: &str) -> &str {
    if expression.is_empty() { "^$" } else { expression }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, name: &str) -> bool {
        Expression::compile(expression).unwrap().matches(name)
    }

    #[test]
    fn an_expression_is_found_anywhere_unless_it_is_anchored() {
        assert!(matches("^tut-", "tut-1") && matches("ut", "tut-1"));
        assert!(!matches("^ut", "tut-1") && !matches("^tut$", "tut-1"));
    }

    #[test]
    fn an_empty_expression_allows_nothing() {
        assert!(!matches("", "q"));
    }

    #[test]
    fn look_around_is_permitted_and_bounded() {
        assert!(matches(r"^(?!amq\.)", "q") && !matches(r"^(?!amq\.)", "amq.topic"));
        let endless = format!("{}!", "a".repeat(200));
        assert!(!matches(r"^(?=(a|aa)+$)", &endless));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for bad in ["(", "[", &"a".repeat(EXPRESSION_BYTES_MAX + 1), r"(\w{100}){100}"] {
            assert_eq!(Expression::compile(bad).unwrap_err().kind, RefusalKind::Invalid);
        }
    }
}

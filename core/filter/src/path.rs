//! Places in a JSON document: `$.a.b`, `$['a b'][0]`.

use serde_json::Value;

/// Steps of a path at most.
const STEPS_MAX: usize = 32;

/// A place in a JSON document.
#[derive(Debug, Clone)]
pub(crate) struct Path(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    Key(Box<str>),
    Index(usize),
}

impl Path {
    /// Errors: what is wrong, and how many bytes stand before it.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let Some(mut rest) = text.strip_prefix('$') else {
            return Err((0, "a path begins with `$`"));
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let (step, behind) =
                next(rest).ok_or((at, "a path goes on with `.name`, `['name']` or `[0]`"))?;
            if steps.len() >= STEPS_MAX {
                return Err((at, "a path has at most 32 steps"));
            }
            steps.push(step);
            rest = behind;
        }
        Ok(Self(steps))
    }

    /// The value at this place.
    pub(crate) fn find<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(document, |at, step| match step {
            Step::Key(key) => at.get(&**key),
            Step::Index(index) => at.get(index),
        })
    }
}

fn next(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let length = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(length);
        return (!name.is_empty()).then(|| (Step::Key(name.into()), behind));
    }
    let rest = text.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(rest) = rest.strip_prefix(quote) {
            let (name, behind) = rest.split_once(quote)?;
            return Some((Step::Key(name.into()), behind.strip_prefix(']')?));
        }
    }
    let (index, behind) = rest.split_once(']')?;
    Some((Step::Index(index.parse().ok()?), behind))
}

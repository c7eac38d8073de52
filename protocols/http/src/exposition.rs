//! The text format that Prometheus reads.

use std::fmt::{Display, Write};

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// Text in the making.
#[derive(Debug)]
pub(crate) struct Exposition {
    prefix: &'static str,
    text: String,
}

impl Exposition {
    /// Nothing yet; every name will begin with `prefix` and an underscore.
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    /// A metric with one number for each set of labels.
    pub(crate) fn family<'a, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        values: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], V)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
        for (labels, value) in values {
            self.line(name, "", labels, value);
        }
    }

    /// A metric without labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help, [(&[] as &[_], value)]);
    }

    /// A histogram; each bucket has its upper bound and the observations that fell into it alone.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, buckets: &[(f64, u64)], sum: f64) {
        let bound =
            |bound: f64| if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
        let bounds: Vec<_> = buckets.iter().map(|(at, count)| (bound(*at), *count)).collect();
        let mut texts: Vec<_> =
            bounds.iter().map(|(text, count)| (text.as_str(), *count)).collect();
        if !buckets.iter().any(|(bound, _)| bound.is_infinite()) {
            texts.push(("+Inf", 0));
        }
        self.buckets(name, help, &[], &texts, sum);
    }

    /// The same with labels, and bounds as they are to be written; the last one is `+Inf`.
    pub(crate) fn buckets(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        buckets: &[(&str, u64)],
        sum: impl Display,
    ) {
        self.histograms(name, help, [(labels, buckets, sum)]);
    }

    /// Several of one name, each with labels of its own.
    pub(crate) fn histograms<'a, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        sets: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], &'a [(&'a str, u64)], V)>,
    ) {
        self.head(name, "histogram", help);
        for (labels, buckets, sum) in sets {
            let mut count = 0;
            for (bound, observations) in buckets {
                count += observations;
                self.line(name, "_bucket", &[labels, &[("le", *bound)]].concat(), count);
            }
            self.line(name, "_sum", labels, sum);
            self.line(name, "_count", labels, count);
        }
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let prefix = self.prefix;
        let head = format_args!("# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}");
        let _ = writeln!(self.text, "{head}");
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}_{name}{suffix}", self.prefix);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            for sign in text.chars() {
                match sign {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Exposition::new("polymq");
        let labels: &[_] = &[("a", "x\"\\\n"), ("b", "y")];
        text.family("m", Kind::Gauge, "Help.", [(labels, 1)]);
        assert_eq!(
            text.finish(),
            "# HELP polymq_m Help.\n# TYPE polymq_m gauge\npolymq_m{a=\"x\\\"\\\\\\n\",b=\"y\"} 1\n"
        );
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut text = Exposition::new("polymq");
        text.histogram("h", "Help.", &[(0.001, 2), (f64::INFINITY, 3)], 1.5);
        let text = text.finish();
        assert!(text.ends_with(
            "polymq_h_bucket{le=\"0.001\"} 2\npolymq_h_bucket{le=\"+Inf\"} 5\n\
             polymq_h_sum 1.5\npolymq_h_count 5\n"
        ));
    }
}

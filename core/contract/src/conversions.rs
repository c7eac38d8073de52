//! Messages that leave in another form than they came in, and the fields that they lose.

use std::sync::OnceLock;

use polymq_model::{Format, carry::Outcome};

use crate::counters::Counter;

/// Forms that are told apart; [`polymq_model::format::FormatId`] is their place.
const FORMATS: usize = 16;

/// Canonical fields as metrics name them. What is none of them is a header, the last.
const FIELDS: [&str; 16] = [
    "id",
    "content_type",
    "content_encoding",
    "text",
    "qos",
    "retain",
    "priority",
    "ttl",
    "timestamp",
    "correlation",
    "reply_to",
    "type",
    "user_id",
    "app_id",
    "group_id",
    "header",
];

const OUTCOMES: usize = Outcome::ALL.len();

/// Conversions by the form that messages have and the form they get. Pairs that do not occur take
/// no memory. A message that enters is converted to the form of the broker itself, so what is
/// removed from it counts there.
#[derive(Debug, Default)]
pub struct Conversions {
    pairs: [[OnceLock<Box<Pair>>; FORMATS]; FORMATS],
}

/// One pair of forms.
#[derive(Debug)]
pub struct Pair {
    /// Name of the form that messages have.
    pub from: &'static str,
    /// Name of the form that they get.
    pub to: &'static str,
    /// Conversions. What many subscribers share is converted once.
    pub messages: Counter,
    fields: [[Counter; OUTCOMES]; FIELDS.len()],
}

impl Conversions {
    /// The pair of two forms.
    #[inline]
    pub fn pair(&self, from: &Format, to: &Format) -> &Pair {
        let place = |format: &Format| usize::from(format.id.0).min(FORMATS - 1);
        let slot = &self.pairs[place(from)][place(to)];
        slot.get_or_init(|| {
            Box::new(Pair {
                from: from.name,
                to: to.name,
                messages: Counter::default(),
                fields: Default::default(),
            })
        })
    }

    /// How often something was dropped for a reason, whatever it was.
    pub fn dropped(&self, why: Outcome) -> u64 {
        let losses = self.all().flat_map(Pair::losses);
        losses.filter(|(_, outcome, _)| *outcome == why).map(|(_, _, count)| count).sum()
    }

    /// The pairs that have occurred.
    pub fn all(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().flatten().filter_map(|pair| pair.get().map(|pair| &**pair))
    }
}

impl Pair {
    /// A message lost `count` times a field, or headers, for a reason.
    pub fn dropped(&self, field: &str, outcome: Outcome, count: usize) {
        let last = FIELDS.len() - 1;
        let field = FIELDS.iter().position(|known| *known == field).unwrap_or(last);
        let reason = Outcome::ALL.iter().position(|known| *known == outcome).unwrap_or_default();
        self.fields[field][reason].add(count);
    }

    /// What messages have lost: field, reason, how often.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, Outcome, u64)> {
        let rows = FIELDS.into_iter().zip(&self.fields);
        let counts = rows.flat_map(|(field, counts)| {
            Outcome::ALL
                .into_iter()
                .zip(counts)
                .map(move |(why, count)| (field, why, count.value()))
        });
        counts.filter(|(_, _, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use polymq_model::{Properties, format::FormatId};

    use super::*;

    static A: Format = Format { id: FormatId(1), name: "a", decode: Properties::of_head };
    static FAR: Format = Format { id: FormatId(200), name: "far", decode: Properties::of_head };

    #[test]
    fn losses_are_told_by_field_and_reason() {
        let conversions = Conversions::default();
        assert_eq!(conversions.all().count(), 0);
        let pair = conversions.pair(&A, &FAR);
        pair.messages.add(2);
        pair.dropped("priority", Outcome::NoPlace, 1);
        pair.dropped("header", Outcome::TooLong, 3);
        pair.dropped("unheard of", Outcome::TooLong, 1);
        let all: Vec<_> = conversions.all().collect();
        assert_eq!(
            (all.len(), all[0].from, all[0].to, all[0].messages.value()),
            (1, "a", "far", 2)
        );
        let losses: Vec<_> = all[0].losses().collect();
        let expected = [("priority", Outcome::NoPlace, 1), ("header", Outcome::TooLong, 4)];
        assert_eq!(losses, expected);
        assert_eq!(conversions.dropped(Outcome::TooLong), 4);
    }
}

//! What has happened to messages, as numbers with their rates.

use polymq_broker::{Activity, Sample, Span};
use serde_json::{Map, Value, json};

use super::wire::Failure;

/// Most steps in an age.
const STEPS_MAX: i64 = 500;

/// Reads a number of a sample.
pub(super) type Read = fn(&Sample) -> u64;

type Number = (&'static str, fn(&Activity) -> u64);

/// Numbers at a moment.
pub(super) trait Moment {
    /// When, in ms since 1970.
    fn at_ms(&self) -> u64;
}

impl Moment for Sample {
    fn at_ms(&self) -> u64 {
        self.at_ms
    }
}

/// What a queue shows.
pub(super) const OF_QUEUE: [Number; 9] = [
    ("publish", |a| a.published),
    ("deliver", |a| a.delivered),
    ("deliver_no_ack", |a| a.delivered_no_ack),
    ("get", |a| a.got),
    ("get_no_ack", |a| a.got_no_ack),
    ("get_empty", |a| a.got_empty),
    ("deliver_get", Activity::delivered_in_any_way),
    ("redeliver", |a| a.redelivered),
    ("ack", |a| a.acknowledged),
];

/// What an exchange shows.
pub(super) const OF_EXCHANGE: [Number; 2] =
    [("publish_in", |a| a.published), ("publish_out", |a| a.published_out)];

/// What a channel, a virtual host and the overview show.
pub(super) const OF_ALL: [Number; 14] = [
    ("publish", |a| a.published),
    ("confirm", |a| a.confirmed),
    ("return_unroutable", |a| a.returned),
    ("drop_unroutable", |a| a.dropped),
    ("deliver", |a| a.delivered),
    ("deliver_no_ack", |a| a.delivered_no_ack),
    ("get", |a| a.got),
    ("get_no_ack", |a| a.got_no_ack),
    ("get_empty", |a| a.got_empty),
    ("deliver_get", Activity::delivered_in_any_way),
    ("redeliver", |a| a.redelivered),
    ("ack", |a| a.acknowledged),
    // Messages are written in batches and read in pages; there is no such count by message.
    ("disk_reads", |_| 0),
    ("disk_writes", |_| 0),
];

/// Which samples a request wants to see, by `lengths_age`, `lengths_incr` and the like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spans {
    pub(super) lengths: Option<Span>,
    pub(super) msg_rates: Option<Span>,
    pub(super) data_rates: Option<Span>,
    pub(super) node_stats: Option<Span>,
}

impl Spans {
    /// Errors: an age or a step that is not positive, or too many steps.
    pub(super) fn of(query: &[(String, String)]) -> Result<Self, Failure> {
        let secs = |name: String| -> Option<i64> {
            let (_, value) = query.iter().find(|(known, _)| *known == name)?;
            value.parse().ok()
        };
        let of = |what: &str| span(secs(format!("{what}_age")), secs(format!("{what}_incr")));
        Ok(Self {
            lengths: of("lengths")?,
            msg_rates: of("msg_rates")?,
            data_rates: of("data_rates")?,
            node_stats: of("node_stats")?,
        })
    }
}

/// Both numbers, or nothing is wanted.
fn span(age_secs: Option<i64>, step_secs: Option<i64>) -> Result<Option<Span>, Failure> {
    let (Some(age), Some(step)) = (age_secs, step_secs) else { return Ok(None) };
    if age <= 0 || step <= 0 || age / step > STEPS_MAX {
        let text = format!("Invalid range parameters: age {age}, incr {step}");
        return Err(Failure::bad(text));
    }
    let ms = |secs: i64| secs.unsigned_abs().saturating_mul(1000);
    Ok(Some(Span { age_ms: ms(age), step_ms: ms(step) }))
}

/// `message_stats`: always complete, with zeros.
pub(super) fn message_stats(
    numbers: &[Number],
    activity: &Activity,
    recent: &[Sample],
    is_sampled: bool,
) -> Value {
    let mut stats = Map::new();
    for (name, read) in numbers {
        stats.insert((*name).to_owned(), json!(read(activity)));
        let details = details(recent, is_sampled, |sample| read(&sample.activity));
        stats.insert(format!("{name}_details"), details);
    }
    Value::Object(stats)
}

/// The rate of a number in its last two samples, and the samples themselves if they are wanted.
pub(super) fn details<T: Moment>(
    recent: &[T],
    is_sampled: bool,
    read: impl Fn(&T) -> u64,
) -> Value {
    let mut details = json!({ "rate": rate(recent, &read) });
    if is_sampled {
        let samples: Vec<_> = recent
            .iter()
            .rev()
            .map(|sample| json!({ "sample": read(sample), "timestamp": sample.at_ms() }))
            .collect();
        let sum: f64 = recent.iter().map(|sample| read(sample) as f64).sum();
        let avg = if recent.is_empty() { 0.0 } else { sum / recent.len() as f64 };
        let avg_rate = match recent {
            [first, .., last] => rate_between(first, last, &read),
            _ => 0.0,
        };
        details["samples"] = json!(samples);
        details["avg"] = json!(avg);
        details["avg_rate"] = json!(avg_rate);
    }
    details
}

/// How fast a number grows, a second, by its last two samples.
pub(super) fn rate<T: Moment>(recent: &[T], read: &impl Fn(&T) -> u64) -> f64 {
    match recent {
        [.., before, last] => rate_between(before, last, read),
        _ => 0.0,
    }
}

fn rate_between<T: Moment>(from: &T, to: &T, read: &impl Fn(&T) -> u64) -> f64 {
    let secs = to.at_ms().saturating_sub(from.at_ms()) as f64 / 1000.0;
    let more = read(to) as f64 - read(from) as f64;
    if secs > 0.0 { more / secs } else { 0.0 }
}

/// `messages`, `messages_ready`, `messages_unacknowledged` and their rates.
pub(super) fn lengths(
    (ready, unsettled): (u64, u64),
    recent: &[Sample],
    is_sampled: bool,
) -> [(&'static str, Value); 6] {
    let details = |read: fn(&Sample) -> u64| details(recent, is_sampled, read);
    [
        ("messages", json!(ready + unsettled)),
        ("messages_details", details(|s| s.ready + s.unsettled)),
        ("messages_ready", json!(ready)),
        ("messages_ready_details", details(|s| s.ready)),
        ("messages_unacknowledged", json!(unsettled)),
        ("messages_unacknowledged_details", details(|s| s.unsettled)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, published: u64) -> Sample {
        let activity = Activity { published, ..Activity::default() };
        Sample { at_ms, activity, ready: published, ..Sample::default() }
    }

    #[test]
    fn a_rate_is_that_of_the_last_two_samples() {
        let recent = [sample(0, 0), sample(5_000, 50), sample(10_000, 60)];
        let details = details(&recent, true, |sample| sample.activity.published);
        assert_eq!(details["rate"], json!(2.0));
        assert_eq!(details["avg_rate"], json!(6.0));
        assert_eq!(details["samples"][0], json!({ "sample": 60, "timestamp": 10_000 }));
    }

    #[test]
    fn a_span_has_two_numbers_and_at_most_five_hundred_steps() {
        let of = |age, step| span(age, step).map_err(|failure| failure.reason());
        let seconds = |age: u64, step: u64| Span { age_ms: age * 1000, step_ms: step * 1000 };
        assert_eq!(of(Some(60), None), Ok(None));
        assert_eq!(of(None, Some(5)), Ok(None));
        assert_eq!(of(Some(2500), Some(5)), Ok(Some(seconds(2500, 5))));
        assert_eq!(of(Some(5), Some(86_400)), Ok(Some(seconds(5, 86_400))));
        for (age, step) in [(600, 1), (60, 0), (-1, 5), (2505, 5), (0, 5)] {
            let text = format!("Invalid range parameters: age {age}, incr {step}");
            assert_eq!(of(Some(age), Some(step)), Err(text));
        }
    }

    #[test]
    fn a_queue_that_shrinks_has_a_negative_rate() {
        let recent = [sample(0, 50), sample(5_000, 0)];
        assert_eq!(details(&recent, false, |sample| sample.ready), json!({ "rate": -10.0 }));
    }

    #[test]
    fn numbers_of_what_never_happened_are_zero() {
        let stats = message_stats(&OF_ALL, &Activity::default(), &[], false);
        assert_eq!(stats["ack"], json!(0));
        assert_eq!(stats["ack_details"], json!({ "rate": 0.0 }));
    }
}

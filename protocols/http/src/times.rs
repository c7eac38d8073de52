//! How long requests take, by the part of the API that they are for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::exposition::Exposition;

/// The parts, by how their paths begin; the first that fits counts, and the last is everything.
const ROUTES: [(&str, &str); 6] = [
    ("v1", "/api/v1/"),
    ("api", "/api/"),
    ("metrics", "/metrics"),
    ("health", "/health"),
    ("websocket", "/ws/"),
    ("other", ""),
];
/// Upper bounds in ms, as numbers and as seconds; what takes longer is a class of its own.
const BOUNDS: [(u64, &str); 9] = [
    (1, "0.001"),
    (5, "0.005"),
    (10, "0.01"),
    (50, "0.05"),
    (100, "0.1"),
    (500, "0.5"),
    (1_000, "1"),
    (5_000, "5"),
    (30_000, "30"),
];

#[derive(Debug, Default)]
struct Times {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// How long requests took to their answers' heads; one that waits for messages is among them.
#[derive(Debug, Default)]
pub(crate) struct RequestTimes([Times; ROUTES.len()]);

/// The part that a path is for.
pub(crate) fn route_of(prefix: &str, path: &str) -> usize {
    let path = path.strip_prefix(prefix).unwrap_or(path);
    ROUTES.iter().position(|(_, begin)| path.starts_with(begin)).unwrap_or(ROUTES.len() - 1)
}

impl RequestTimes {
    /// A request of a part took so long.
    pub(crate) fn note(&self, route: usize, took: Duration) {
        let Some(times) = self.0.get(route) else { return };
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let class = BOUNDS.iter().take_while(|(bound, _)| ms >= *bound).count();
        if let Some(count) = times.counts.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        times.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn write(&self, text: &mut Exposition) {
        let bounds = BOUNDS.map(|(_, text)| text).into_iter().chain(["+Inf"]);
        let set = |((route, _), times): (&(&'static str, &str), &Times)| {
            let counts = times.counts.iter().map(|count| count.load(Ordering::Relaxed));
            let sum = times.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
            ([("route", *route)], bounds.clone().zip(counts).collect::<Vec<_>>(), sum)
        };
        let sets: Vec<_> = ROUTES.iter().zip(&self.0).map(set).collect();
        let help = "Time from a request to the head of its answer; long polls included.";
        let sets = sets.iter().map(|(labels, buckets, sum)| (&labels[..], &buckets[..], *sum));
        text.histograms("http_request_seconds", help, sets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_their_part_and_time() {
        let times = RequestTimes::default();
        times.note(route_of("/mq", "/mq/api/v1/overview"), Duration::from_millis(7));
        times.note(route_of("", "/api/overview"), Duration::from_secs(60));
        times.note(route_of("", "/"), Duration::ZERO);
        let mut text = Exposition::new("polymq");
        times.write(&mut text);
        let text = text.finish();
        for line in [
            r#"polymq_http_request_seconds_bucket{route="v1",le="0.005"} 0"#,
            r#"polymq_http_request_seconds_bucket{route="v1",le="0.01"} 1"#,
            r#"polymq_http_request_seconds_bucket{route="api",le="30"} 0"#,
            r#"polymq_http_request_seconds_count{route="api"} 1"#,
            r#"polymq_http_request_seconds_bucket{route="other",le="0.001"} 1"#,
            r#"polymq_http_request_seconds_sum{route="v1"} 0.007"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE").count(), 1);
    }
}

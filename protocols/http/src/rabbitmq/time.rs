//! Dates as RabbitMQ writes them.

use polymq_model::carry::rfc3339_from_ms;

/// `2026-11-27T23:50:04.651+00:00`
pub(super) fn date(unix_ms: u64) -> String {
    let utc = rfc3339_from_ms(i64::try_from(unix_ms).unwrap_or(i64::MAX));
    utc.replace('Z', "+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(date(951_782_400_000), "2000-02-29T00:00:00.000+00:00");
        assert_eq!(date(1_795_823_404_651), "2026-11-27T23:50:04.651+00:00");
        assert_eq!(date(1_767_225_599_999), "2025-12-31T23:59:59.999+00:00");
    }
}

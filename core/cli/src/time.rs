//! Times on the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_SECS: u64 = 86_400;

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time in RFC 3339, in UTC.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let (secs, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (year, month, day) = date(secs / DAY_SECS);
    let (hour, minute, second) = (secs % DAY_SECS / 3600, secs % 3600 / 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The date of a day since 1970. Days are counted from 1 March of the year 0, so that a leap day is
/// the last of its year, and in cycles of 400 years, which are all of the same length.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + later, month, day)
}

/// `90s`, `10m`, `2h`, `1d`.
pub(crate) fn age(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY_SECS,
        _ => return None,
    };
    number.checked_mul(secs).map(Duration::from_secs)
}

/// A time in RFC 3339, or how long ago it was, as a time in RFC 3339. The broker reads the former.
pub(crate) fn since(text: &str) -> Result<String, String> {
    if let Some(age) = age(text) {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        return Ok(rfc3339(now_ms().saturating_sub(age)));
    }
    if text.len() >= "2030-01-31T12:00Z".len() && text.contains('T') {
        return Ok(text.to_owned());
    }
    Err("expected a time as 2030-01-31T12:00:00Z, or how long ago it was, as 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_798_761_600_000, "2027-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), expected);
        }
    }

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(age("10m"), Some(Duration::from_secs(600)));
        assert_eq!(age("1d"), Some(Duration::from_secs(DAY_SECS)));
        for bad in ["", "m", "10", "1.5h", "-1s", "1w", "99999999999999999999s"] {
            assert_eq!(age(bad), None, "{bad}");
        }
        assert_eq!(since("2026-11-28T10:00:00Z").as_deref(), Ok("2026-11-28T10:00:00Z"));
        assert!(since("yesterday").is_err());
    }
}

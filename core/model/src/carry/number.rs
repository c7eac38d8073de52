//! Rounding rules of times, and RFC 3339.

/// Milliseconds left until `deadline_ms`; `None` without a deadline (0). Zero means expired.
pub fn remaining_ms(deadline_ms: u64, now_ms: u64) -> Option<u64> {
    (deadline_ms != 0).then(|| deadline_ms.saturating_sub(now_ms))
}

/// How many units of `unit_ms` hold `ms`: expiry rounds up, so that a life of 999 ms is 1 s and
/// never 0.
pub fn round_up(ms: u64, unit_ms: u64) -> u64 {
    ms.div_ceil(unit_ms.max(1))
}

/// The expiry, in ms, that a target with this unit shows for a deadline; `None` without one.
///
/// A message at or past its deadline is not delivered, so at least one unit is left.
pub fn expiry_shown_ms(deadline_ms: u64, now_ms: u64, unit_ms: u64) -> Option<u64> {
    let left = remaining_ms(deadline_ms, now_ms)?;
    Some(round_up(left, unit_ms).max(1).saturating_mul(unit_ms))
}

/// The expiry of a message that says it twice: natively and carried. A second hop does not lengthen
/// a life.
///
/// A carried expiry alone counts for nothing: the client that removed the native one wanted none.
pub fn smaller_ttl(native_ms: Option<u64>, carried_ms: Option<u64>) -> Option<u64> {
    let native = native_ms?;
    Some(carried_ms.map_or(native, |carried| carried.min(native)))
}

/// Milliseconds to whole seconds, rounded down; `None` before 1970, which no protocol can say in
/// seconds.
pub fn seconds_down(ms: i64) -> Option<u64> {
    u64::try_from(ms).ok().map(|ms| ms / 1000)
}

const DAY_MS: i64 = 86_400_000;
/// First and last moment that RFC 3339 can write: the years 0000 to 9999.
const RFC3339_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// RFC 3339 in UTC with milliseconds. Moments outside the years 0000 to 9999 are the number of
/// milliseconds.
pub fn rfc3339_from_ms(ms: i64) -> String {
    if !RFC3339_MS.contains(&ms) {
        return ms.to_string();
    }
    let (days, rest) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    // Days since 0000-03-01, so that a leap day ends its year; cycles of 400, 100, 4 and 1 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (secs, ms) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Reads RFC 3339 with any offset and fraction, or a number of milliseconds.
pub fn rfc3339_to_ms(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2).filter(|month| (1..=12).contains(month))?;
    let day = digits(parts.next()?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=month_days).contains(&day) {
        return None;
    }
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * DAY_MS + time_of_day_ms(time)?)
}

/// Reads `hh:mm:ss[.fraction](Z|±hh:mm)` as milliseconds since midnight UTC; a leap second is the
/// next second.
fn time_of_day_ms(time: &str) -> Option<i64> {
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(at)?;
    let offset_minutes = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = digits(hours, 2)? * 60 + digits(minutes, 2)?;
            if sign == "+" { minutes } else { -minutes }
        }
        _ => return None,
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = whole.splitn(3, ':');
    let hour = digits(parts.next()?, 2).filter(|hour| *hour < 24)?;
    let minute = digits(parts.next()?, 2).filter(|minute| *minute < 60)?;
    let second = digits(parts.next()?, 2).filter(|second| *second <= 60)?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let ms = digits(&thousandths, 3)?;
    Some(((hour * 60 + minute - offset_minutes) * 60 + second) * 1000 + ms)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let plain = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

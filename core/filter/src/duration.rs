//! Durations as people write them: `250ms`, `30s`, `5m`, `1h30m`, `2d`.

/// Units, longest first, with their length in ms.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration, in ms; `None` when the text is none.
pub fn duration_from_text(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, behind) = behind.split_at(letters);
        let (_, ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(ms)?)?;
        rest = behind;
    }
    Some(total)
}

/// Writes a duration of so many ms in its largest whole unit.
pub fn duration_to_text(ms: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| ms.is_multiple_of(*unit) && (ms > 0 || *unit == 1000);
    let (name, unit) = UNITS.iter().find(fits).copied().unwrap_or(("ms", 1));
    format!("{}{name}", ms / unit)
}

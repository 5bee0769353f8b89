//! Times on the command line, and the clock of the adapters.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, now.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Reads RFC 3339 or milliseconds since the Unix epoch.
///
/// # Errors
/// Says which two forms are taken.
pub fn parse_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|_| {
            "expected RFC 3339 such as `2026-11-23T08:00:00Z`, or milliseconds since the Unix epoch"
                .to_owned()
        })
}

/// RFC 3339 in UTC with milliseconds; the number itself when it is out of the calendar's range.
#[must_use]
pub fn text_ms(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse_ms("1763886000123"), Ok(1_763_886_000_123));
        assert_eq!(parse_ms("2025-11-23T08:20:00.123Z"), Ok(1_763_886_000_123));
        assert_eq!(
            parse_ms("2025-11-23T09:20:00.123+01:00"),
            Ok(1_763_886_000_123)
        );
        assert!(parse_ms("yesterday").is_err());
    }
}

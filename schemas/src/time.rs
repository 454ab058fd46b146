//! Points in time, as integers: never a clock, always a value that came with a record.

use serde::{Deserialize, Serialize};

/// When something happened, by the record itself: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventTime(pub i64);

/// When the log took a record in, stamped by the log: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppendTime(pub i64);

/// How far a raw partition has come: the running maximum of its append times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionClock(pub i64);

/// Parses an RFC 3339 instant such as `2026-11-22T17:18:35.720Z`, to the millisecond (towards the past).
///
/// `None` for anything else; the caller falls back to the next time source and counts which one it took.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<EventTime> {
    let instant: jiff::Timestamp = text.parse().ok()?;
    Some(EventTime(instant.as_millisecond()))
}

/// Writes a time as RFC 3339 with milliseconds, in UTC.
///
/// Times outside of the years that RFC 3339 can write come out as the plain number.
#[must_use]
pub fn format_rfc3339(time: EventTime) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(|_| time.0.to_string(), |instant| format!("{instant:.3}"))
}

/// The start of the window of `size_ms` that holds `time`: floor, also before 1970.
///
/// `size_ms` must be positive; `rem_euclid` because `-1 % 60` is `-1`, which would open a window in the future.
#[must_use]
pub fn window_start(time: EventTime, size_ms: i64) -> EventTime {
    EventTime(time.0 - time.0.rem_euclid(size_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_to_the_millisecond() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:01.234Z"), Some(EventTime(1234)));
        assert_eq!(parse_rfc3339("2026-11-22T17:18:35.720Z"), Some(EventTime(1_795_367_915_720)));
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(format_rfc3339(EventTime(1_795_367_915_720)), "2026-11-22T17:18:35.720Z");
    }

    #[test]
    fn windows_are_floors_before_the_epoch_too() {
        assert_eq!(window_start(EventTime(61_000), 60_000), EventTime(60_000));
        assert_eq!(window_start(EventTime(60_000), 60_000), EventTime(60_000));
        assert_eq!(window_start(EventTime(-1), 60_000), EventTime(-60_000));
    }
}

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

/// The wall time of a process, as it wrote it into a header: milliseconds since the Unix epoch. It can
/// confirm an append time, and nothing is derived from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallTime(pub i64);

/// Parses an RFC 3339 instant such as `2026-11-22T17:18:35.720Z`, to the millisecond (towards the past).
///
/// `None` for anything else; the caller falls back to the next time source and counts which one it took.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<EventTime> {
    if let Some(time) = usual_rfc3339(text.as_bytes()) {
        return Some(time);
    }
    let instant: jiff::Timestamp = text.parse().ok()?;
    Some(EventTime(instant.as_millisecond()))
}

/// Reads the form of time that Codex writes and nearly all records have: milliseconds, in UTC. `None` for
/// every other form, and for dates and times of day that do not exist; a leap second is one of them.
fn usual_rfc3339(text: &[u8]) -> Option<EventTime> {
    const FORM: &[u8; 24] = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let text: &[u8; 24] = text.try_into().ok()?;
    let is_usual = text.iter().zip(FORM).all(|(byte, form)| {
        if *form == b'd' {
            byte.is_ascii_digit()
        } else {
            byte == form
        }
    });
    if !is_usual {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .fold(0, |number: i64, digit| number * 10 + i64::from(digit - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-01-01, counted in years that begin in March, so that the leap day is the last day of
    // its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (month * 153 + 2) / 5
        + day
        - 719_469;
    Some(EventTime(
        (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + number(20, 23),
    ))
}

/// Writes a time as RFC 3339 with milliseconds, in UTC.
///
/// Times outside of the years that RFC 3339 can write come out as the plain number.
#[must_use]
pub fn format_rfc3339(time: EventTime) -> String {
    jiff::Timestamp::from_millisecond(time.0)
        .map_or_else(|_| time.0.to_string(), |instant| format!("{instant:.3}"))
}

/// The start of the window of `size_ms` that holds `time`: floor, also before 1970.
///
/// `size_ms` must be positive; `rem_euclid` because `-1 % 60` is `-1`, which would open a window in the
/// future.
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
        assert_eq!(
            parse_rfc3339("2026-11-22T17:18:35.720Z"),
            Some(EventTime(1_795_367_915_720))
        );
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(
            format_rfc3339(EventTime(1_795_367_915_720)),
            "2026-11-22T17:18:35.720Z"
        );
    }

    #[test]
    fn the_usual_form_is_read_as_every_other() {
        let slowly = |text: &str| {
            text.parse::<jiff::Timestamp>()
                .ok()
                .map(|instant| EventTime(instant.as_millisecond()))
        };
        // Days that exist, and days that do not.
        for year in (0..=9999).step_by(7).chain(1890..2110) {
            for month in 0..=13 {
                for day in [0, 1, 15, 28, 29, 30, 31, 32] {
                    let text = format!("{year:04}-{month:02}-{day:02}T23:59:59.999Z");
                    assert_eq!(parse_rfc3339(&text), slowly(&text), "{text}");
                }
            }
        }
        for time in [
            "24:00:00.000",
            "00:60:00.000",
            "00:00:60.000",
            "00:00:61.000",
            "12:34:56.007",
            "1x:34:56.007",
            "12:34:56,007",
        ] {
            let text = format!("2026-11-22T{time}Z");
            assert_eq!(parse_rfc3339(&text), slowly(&text), "{text}");
        }
        assert!(
            usual_rfc3339(b"2024-02-29T00:00:00.000Z").is_some()
                && usual_rfc3339(b"2023-02-29T00:00:00.000Z").is_none()
        );
    }

    #[test]
    fn windows_are_floors_before_the_epoch_too() {
        assert_eq!(window_start(EventTime(61_000), 60_000), EventTime(60_000));
        assert_eq!(window_start(EventTime(60_000), 60_000), EventTime(60_000));
        assert_eq!(window_start(EventTime(-1), 60_000), EventTime(-60_000));
    }
}

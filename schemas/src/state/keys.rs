//! Keys of the changelogs: one form for each kind of entry, written and read here and nowhere else.
//!
//! A changelog partition belongs to one input partition. A value replaces what its key had before.
//!
//! | stage | key | value |
//! |---|---|---|
//! | sessions | `s/TENANT/CONVERSATION` | [`SessionState`](super::SessionState): who, counts, last offsets, what detectors remember |
//! | sessions | `m/BUCKET/NUMBER/TENANT/CONVERSATION` | [`MarkChunk`](super::MarkChunk): up to 128 dedup marks of 10 minutes |
//! | sessions | `i/INBOX TOPIC/PARTITION`, `i/spool/ID` | [`OriginMark`](super::OriginMark): the last record taken from that inbox partition or spool |
//! | series | `t/SERIES` | [`SeriesEntry`](super::SeriesEntry): the total |
//! | series | `o/SIZE/START/SERIES` | [`SeriesEntry`](super::SeriesEntry): an open window |
//! | series | `c/ARRIVAL/SIZE/START/SERIES` | [`SeriesEntry`](super::SeriesEntry): a correction that is not published yet |
//! | series | `f/SIZE/SERIES` | [`SeriesEntry`](super::SeriesEntry): the last final window, for gauges |
//! | all | `meta` | [`Meta`](super::Meta): position, clock, epoch, semantics, writer, positions of sources or targets |

use std::fmt;
use std::str::FromStr;

/// The key of a changelog entry, by the stage that it belongs to.
///
/// Written with slashes between its parts; the last part may hold slashes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateKey<'k> {
    /// `meta`: the position up to which the partition's state is complete; every stage has it.
    Meta,
    /// A key of stage `sessions`.
    Sessions(SessionsKey<'k>),
    /// A key of stage `series`.
    Series(SeriesKey<'k>),
}

/// The key of an entry of stage `sessions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionsKey<'k> {
    /// `s/TENANT/CONVERSATION`: a session.
    Session {
        /// The key of the conversation's raw records: tenant and conversation.
        conversation: &'k str,
    },
    /// `m/BUCKET/NUMBER/TENANT/CONVERSATION`: a chunk of dedup marks.
    Marks {
        /// Start of the chunk's bucket, ms of the partition clock.
        bucket: i64,
        /// Number of the chunk within its bucket.
        number: u32,
        /// The key of the conversation's raw records: tenant and conversation.
        conversation: &'k str,
    },
    /// `i/SOURCE`: the last record taken from an inbox partition or a spool.
    Origin {
        /// The source, as in [`Origin::source`](crate::origin::Origin::source).
        source: &'k str,
    },
}

/// The key of an entry of stage `series`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeriesKey<'k> {
    /// `t/SERIES`: the total of a series.
    Total {
        /// The series key.
        series: &'k str,
    },
    /// `o/SIZE/START/SERIES`: an open window of a series.
    OpenWindow {
        /// Index of the window's size; 0 is the smallest.
        size: usize,
        /// Start of the window, ms of event time.
        start: i64,
        /// The series key.
        series: &'k str,
    },
    /// `c/ARRIVAL/SIZE/START/SERIES`: a correction that is not published yet.
    Correction {
        /// Start of the slot of arrival, ms of the source's clock.
        arrival: i64,
        /// Index of the window's size; 0 is the smallest.
        size: usize,
        /// Start of the window, ms of event time.
        start: i64,
        /// The series key.
        series: &'k str,
    },
    /// `f/SIZE/SERIES`: the last final window of a series, for gauges.
    LastFinal {
        /// Index of the window's size; 0 is the smallest.
        size: usize,
        /// The series key.
        series: &'k str,
    },
}

/// Why a text is not a changelog key: it has none of the known forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "changelog key {key:?} is of no known form: it was written by a newer version, or by another program"
)]
pub struct StateKeyError {
    /// The key.
    pub key: String,
}

impl<'k> StateKey<'k> {
    /// Reads a key.
    ///
    /// # Errors
    /// The key has none of the known forms: its kind is unknown, a part is missing, or a number can't be
    /// read.
    pub fn parse(key: &'k str) -> Result<Self, StateKeyError> {
        known(key).ok_or_else(|| StateKeyError { key: key.to_owned() })
    }
}

impl fmt::Display for StateKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("meta"),
            Self::Sessions(key) => key.fmt(f),
            Self::Series(key) => key.fmt(f),
        }
    }
}

impl fmt::Display for SessionsKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Session { conversation } => write!(f, "s/{conversation}"),
            Self::Marks {
                bucket,
                number,
                conversation,
            } => write!(f, "m/{bucket}/{number}/{conversation}"),
            Self::Origin { source } => write!(f, "i/{source}"),
        }
    }
}

impl fmt::Display for SeriesKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Total { series } => write!(f, "t/{series}"),
            Self::OpenWindow { size, start, series } => write!(f, "o/{size}/{start}/{series}"),
            Self::Correction {
                arrival,
                size,
                start,
                series,
            } => write!(f, "c/{arrival}/{size}/{start}/{series}"),
            Self::LastFinal { size, series } => write!(f, "f/{size}/{series}"),
        }
    }
}

fn known(key: &str) -> Option<StateKey<'_>> {
    if key == "meta" {
        return Some(StateKey::Meta);
    }
    let (kind, rest) = key.split_once('/')?;
    match kind {
        "s" | "m" | "i" => sessions_key(kind, rest).map(StateKey::Sessions),
        "t" | "o" | "c" | "f" => series_key(kind, rest).map(StateKey::Series),
        _ => None,
    }
}

fn sessions_key<'k>(kind: &str, rest: &'k str) -> Option<SessionsKey<'k>> {
    Some(match kind {
        "s" => SessionsKey::Session { conversation: rest },
        "m" => {
            let (bucket, rest) = number(rest)?;
            let (number, conversation) = number(rest)?;
            SessionsKey::Marks {
                bucket,
                number,
                conversation,
            }
        }
        "i" => SessionsKey::Origin { source: rest },
        _ => return None,
    })
}

fn series_key<'k>(kind: &str, rest: &'k str) -> Option<SeriesKey<'k>> {
    Some(match kind {
        "t" => SeriesKey::Total { series: rest },
        "o" => {
            let (size, rest) = number(rest)?;
            let (start, series) = number(rest)?;
            SeriesKey::OpenWindow { size, start, series }
        }
        "c" => {
            let (arrival, rest) = number(rest)?;
            let (size, rest) = number(rest)?;
            let (start, series) = number(rest)?;
            SeriesKey::Correction {
                arrival,
                size,
                start,
                series,
            }
        }
        "f" => {
            let (size, series) = number(rest)?;
            SeriesKey::LastFinal { size, series }
        }
        _ => return None,
    })
}

/// The number before the first slash, and what follows the slash.
fn number<T: FromStr>(text: &str) -> Option<(T, &str)> {
    let (number, rest) = text.split_once('/')?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_written_as_they_were_before_they_had_a_type() {
        let key = |key: StateKey<'_>| key.to_string();
        assert_eq!(key(StateKey::Meta), "meta");
        assert_eq!(
            key(StateKey::Sessions(SessionsKey::Session { conversation: "t/c" })),
            "s/t/c"
        );
        let marks = StateKey::Sessions(SessionsKey::Marks {
            bucket: 600_000,
            number: 3,
            conversation: "t/c",
        });
        assert_eq!(key(marks), "m/600000/3/t/c");
        let source = "codex.inbox.logs.v1/3";
        assert_eq!(
            key(StateKey::Sessions(SessionsKey::Origin { source })),
            "i/codex.inbox.logs.v1/3"
        );
        let correction = StateKey::Series(SeriesKey::Correction {
            arrival: -60_000,
            size: 2,
            start: 0,
            series: "x/y",
        });
        assert_eq!(key(correction), "c/-60000/2/0/x/y");
    }

    #[test]
    fn other_texts_are_no_keys() {
        let wrong = [
            "",
            "s",
            "meta/",
            "m/garbage",
            "m/1/2",
            "m/x/2/t/c",
            "m/1/-2/t/c",
            "o/0/x/s",
            "o/-1/0/s",
            "c/1/0/s",
            "f/s",
            "z/1",
        ];
        for text in wrong {
            let error = StateKey::parse(text).unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bucket: i64, number: u32, size: usize, start: i64, text in "[a-z/\u{1f}]{0,9}") {
            let (conversation, source, series) = (text.as_str(), text.as_str(), text.as_str());
            let keys = [
                StateKey::Meta,
                StateKey::Sessions(SessionsKey::Session { conversation }),
                StateKey::Sessions(SessionsKey::Marks { bucket, number, conversation }),
                StateKey::Sessions(SessionsKey::Origin { source }),
                StateKey::Series(SeriesKey::Total { series }),
                StateKey::Series(SeriesKey::OpenWindow { size, start, series }),
                StateKey::Series(SeriesKey::Correction { arrival: bucket, size, start, series }),
                StateKey::Series(SeriesKey::LastFinal { size, series }),
            ];
            for key in keys {
                let written = key.to_string();
                prop_assert_eq!(StateKey::parse(&written), Ok(key));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = StateKey::parse(&text);
        }
    }
}

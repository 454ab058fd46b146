//! The row table: every kind of row that a derivation publishes, one arm each.
//!
//! A task emits rows; the topic, key and encoding of each are decided here. To add a kind of row: its topic
//! in `topic.rs`, its struct and Avro schema in a file beside this one, and its arms below.

use super::{RowError, SessionRow, WindowRow, WindowSize};
use crate::topic::{Holds, RowKind, Topic};

/// A derived row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A segment of a session, as it is at a position of its partition.
    Session(Box<SessionRow>),
    /// A final window of a series, or a correction of one.
    Window(WindowSize, Box<WindowRow>),
}

impl Row {
    /// The topic that the row goes to; its partition there is that of the task's input.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Session(_) => Topic::Sessions,
            Self::Window(size, _) => size.topic(),
        }
    }

    /// The key of the row's record.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Session(row) => row.key(),
            Self::Window(_, row) => row.series(),
        }
    }

    /// The value of the row's record. Equal rows always have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Session(row) => row.encode(),
            Self::Window(_, row) => row.encode(),
        }
    }

    /// Reads the value of a record of a derived topic.
    ///
    /// # Errors
    /// The topic holds no derived rows, or the bytes are not a row of it.
    pub fn decode(topic: Topic, bytes: &[u8]) -> Result<Self, RowError> {
        let window = |size| Ok(Self::Window(size, Box::new(WindowRow::decode(bytes)?)));
        match topic.def().holds {
            Holds::Rows(RowKind::Session) => Ok(Self::Session(Box::new(SessionRow::decode(bytes)?))),
            Holds::Rows(RowKind::Window1m) => window(WindowSize::Small),
            Holds::Rows(RowKind::Window5m) => window(WindowSize::Middle),
            Holds::Rows(RowKind::Window1h) => window(WindowSize::Large),
            Holds::Raw(_)
            | Holds::Inbox(_)
            | Holds::Quarantined
            | Holds::Control
            | Holds::Labels
            | Holds::Deltas
            | Holds::State => Err(RowError::NotDerived(topic)),
        }
    }

    /// The row as a JSON object, for people. It can hold more than the row itself, such as the quantiles of a
    /// distribution.
    ///
    /// # Panics
    /// Never: rows are plain data with text keys.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Session(row) => serde_json::to_value(row).expect("a row is plain data with text keys"),
            Self::Window(_, row) => row.to_json(),
        }
    }

    /// The session row; `None` for a row of another kind.
    #[must_use]
    pub fn into_session(self) -> Option<SessionRow> {
        match self {
            Self::Session(row) => Some(*row),
            Self::Window(..) => None,
        }
    }

    /// About how many bytes the row takes in a commit. Commits are bounded by the sum, so it is rather too
    /// high than too low.
    #[must_use]
    pub fn bytes_about(&self) -> usize {
        match self {
            Self::Session(_) => SESSION_BYTES_ABOUT,
            Self::Window(_, row) => WINDOW_BYTES_ABOUT + row.variable_bytes(),
        }
    }
}

/// About how many bytes a session row takes with its key: identity texts, forty counts, tables of tools and
/// decisions.
const SESSION_BYTES_ABOUT: usize = 4_096;
/// About how many bytes a window row takes beside its labels and buckets.
const WINDOW_BYTES_ABOUT: usize = 256;

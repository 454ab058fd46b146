//! Keys and values of the changelogs: the state of a task, entry by entry.
//!
//! Every value is one protobuf message, written by hand, so that fields can be added. A value replaces what
//! its key had before.

mod keys;
mod meta;
mod series;
mod session;

pub use keys::{SeriesKey, SessionsKey, StateKey, StateKeyError};
pub use meta::{Meta, SourceState};
pub use series::SeriesEntry;
pub use session::{
    Counts, DecisionCount, HeldResponse, Identity, MarkChunk, OpenRequest, OriginMark, PrewarmCounts,
    PrewarmState, SessionState, ToolCount, TransportState, WebsocketCounts,
};

/// One entry to be written to a changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The written form of a [`StateKey`].
    pub key: String,
    /// The value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

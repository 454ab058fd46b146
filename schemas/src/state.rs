//! Keys and values of the changelogs: the state of a task, entry by entry, in a versioned binary form.
//!
//! Every value is one protobuf message, so that fields can be added; a value replaces its key's state whole.

mod keys;
mod meta;
mod series;
mod session;

pub use keys::{StateKey, StateKeyError};
pub use meta::{Meta, SourceState};
pub use series::SeriesEntry;
pub use session::{Counts, DecisionCount, Identity, MarkChunk, OriginMark, SessionState, ToolCount};

/// One upsert of a changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, within the partition: a [`StateKey`], written.
    pub key: String,
    /// The value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

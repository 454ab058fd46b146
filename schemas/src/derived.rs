//! Derived rows: what other teams read from the derived topics, as structs and as Avro.
//!
//! Values are in Avro's single-object encoding. The schemas are in `schemas/avro`, field by field; those that rows were
//! written with before are in `schemas/avro/past`.

mod avro;
mod row;
mod session;
mod window;

pub use row::Row;
pub use session::{
    DecisionCount, SESSIONS_AVSC, SESSIONS_AVSC_PAST, SessionRow, SessionState, Tokens, ToolCount,
};
pub use window::{Bucket, LabelValue, WINDOWS_AVSC, WindowRow, WindowSize, WindowValue};

use crate::topic::Topic;

/// Why bytes are not a derived row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The topic holds something else.
    #[error("{} holds no derived rows", .0.name())]
    NotDerived(Topic),
    /// Not the single-object encoding.
    #[error("not Avro's single-object encoding: it begins with C3 01 and a schema's fingerprint")]
    Header,
    /// Written with a schema that this build does not have.
    #[error(
        "written with the schema of fingerprint {0}, which this build does not know: use the build that wrote it"
    )]
    Schema(String),
    /// The datum is not of the schema. (The reader's own error quotes the whole schema, and helps nobody.)
    #[error("the {0} bytes after the fingerprint are not a row of its schema")]
    Datum(usize),
    /// There are bytes after the row.
    #[error("{0} bytes follow the row")]
    Trailing(usize),
}

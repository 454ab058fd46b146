//! Derived rows: what other teams read from the derived topics, as structs and as Avro.
//!
//! Values are in Avro's single-object encoding. The schemas are in `schemas/avro`, with a doc for each field;
//! earlier schemas, with which rows in topics may be written, are in `schemas/avro/past`.

mod avro;
mod row;
mod session;
mod window;

pub use row::Row;
pub use session::{
    DecisionCount, Prewarm, SESSIONS_AVSC, SESSIONS_AVSC_PAST, SegmentState, SessionRow, Tokens, ToolCount,
    Websocket,
};
pub use window::{Bucket, COMPLETE, LabelValue, WINDOWS_AVSC, WindowRow, WindowSize, WindowValue};

use crate::topic::Topic;

/// Why bytes are not a derived row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The topic holds no derived rows.
    #[error("{} holds no derived rows", .0.name())]
    NotDerived(Topic),
    /// The bytes are not in the single-object encoding.
    #[error("not Avro's single-object encoding: it begins with C3 01 and a schema's fingerprint")]
    Header,
    /// The row was written with a schema that this version does not have.
    #[error(
        "written with the schema of fingerprint {0}, which this build does not know: use the build that wrote it"
    )]
    Schema(String),
    /// The bytes after the fingerprint are not a row of its schema. The Avro reader's error is left out: it
    /// quotes the whole schema and does not say where the row differs.
    #[error("the {0} bytes after the fingerprint are not a row of its schema")]
    Datum(usize),
    /// Further bytes follow the row.
    #[error("{0} bytes follow the row")]
    Trailing(usize),
}

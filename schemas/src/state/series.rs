//! State of stage `series`: totals, open windows, corrections and the last final windows.

use crate::delta::AmountBytes;
use prost::Message;

/// The value of one series entry: its total, an open window, a correction, or the last final window.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SeriesEntry {
    /// How much.
    #[prost(message, optional, tag = "1")]
    pub amount: Option<AmountBytes>,
    /// For a last final window: its start, ms.
    #[prost(int64, optional, tag = "2")]
    pub start_ms: Option<i64>,
}

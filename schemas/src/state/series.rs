//! State of stage `series`: totals, open windows, corrections and the last final windows, each an amount of
//! one series.

use crate::delta::AmountBytes;
use prost::Message;

/// The value of a changelog entry of stage `series`: a total, an open window, a correction, or a last final
/// window.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SeriesEntry {
    /// How much was added.
    #[prost(message, optional, tag = "1")]
    pub amount: Option<AmountBytes>,
    /// Start of the window, ms, for a last final window only; the keys of other windows hold it.
    #[prost(int64, optional, tag = "2")]
    pub start_ms: Option<i64>,
}

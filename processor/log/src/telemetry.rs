//! The log's own metrics, by name. What they are called on `/metrics` and how they are described is a row in the table of
//! the process that shows them.
#![expect(
    clippy::disallowed_macros,
    reason = "this is the one place of the log's metrics"
)]

/// The counter of open transactions of other workers that were ended because readers waited behind them.
pub const WRITERS_FENCED: &str = "tacho_writers_fenced_total";

/// Counts a dead worker's transaction that was ended.
pub fn writer_fenced() {
    metrics::counter!(WRITERS_FENCED).increment(1);
}

//! The log's own metrics, by name. Their kind, labels and help are rows in the table of the process that shows them.
#![expect(
    clippy::disallowed_macros,
    reason = "this is the one place of the log's metrics"
)]

/// The counter of open transactions of other workers that were ended because readers waited behind them.
pub const WRITERS_FENCED: &str = "tacho_writers_fenced_total";

/// Counts an open transaction of another worker that was ended.
pub fn writer_fenced() {
    metrics::counter!(WRITERS_FENCED).increment(1);
}

//! Counts in the process's metrics what is drained from the inbox.

use crate::telemetry::Series;
use metrics::{Counter, Gauge, Label};
use schemas::signal::Signal;

/// The handles of the inbox, registered once. It must be made after the metrics recorder is installed.
pub(super) struct InboxTelemetry {
    records: [Counter; 3],
    parts: [Counter; 3],
    restarts: Counter,
}

fn by_signal(signal: Signal) -> [Label; 1] {
    [Label::new("signal", signal.name())]
}

impl InboxTelemetry {
    pub fn new() -> Self {
        Self {
            records: Signal::ALL.map(|signal| Series::InboxRecords.counter(by_signal(signal))),
            parts: Signal::ALL.map(|signal| Series::InboxParts.counter(by_signal(signal))),
            restarts: Series::InboxRestarts.counter([]),
        }
    }

    /// The gauge of each signal's lag, in records, in the order of [`Signal::ALL`].
    pub fn lags(&self) -> [Gauge; 3] {
        Signal::ALL.map(|signal| Series::InboxLag.gauge(by_signal(signal)))
    }

    /// Counts an inbox record whose position is committed.
    pub fn drained(&self, signal: Signal) {
        self.records[signal as usize].increment(1);
    }

    /// Counts the raw records that inbox records became.
    pub fn parts(&self, signal: Signal, parts: u64) {
        self.parts[signal as usize].increment(parts);
    }

    /// Counts an inbox record that went to the quarantine.
    pub fn quarantined(&self, reason: &'static str) {
        Series::InboxQuarantined
            .counter([Label::new("reason", reason)])
            .increment(1);
    }

    /// Counts records that were deleted from the inbox before they were drained.
    pub fn lost(&self, signal: Signal, records: u64) {
        Series::InboxLost.counter(by_signal(signal)).increment(records);
    }

    /// Counts a new beginning after a failure.
    pub fn restarted(&self) {
        self.restarts.increment(1);
    }
}

//! Counts in the process's metrics what sinks can't tell of.

use crate::telemetry::Series;
use metrics::Label;
use schemas::signal::Signal;

/// Counts a refused request whose records may be in Kafka all the same.
pub(crate) fn unsure(signal: Signal) {
    Series::Unsure
        .counter([Label::new("signal", signal.name())])
        .increment(1);
}

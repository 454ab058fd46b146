//! Shows a spool in the process's metrics.

use crate::telemetry::Series;
use metrics::{Counter, Gauge, Label};

/// The handles of one spool, registered once. It must be made after the metrics recorder is installed.
pub(super) struct SpoolTelemetry {
    pub bytes: Gauge,
    pub records: Gauge,
    pub age: Gauge,
    pub active: Gauge,
    pub appended: Counter,
    pub drained: Counter,
    pub full: Counter,
    pub lost: Counter,
    prefix: String,
}

/// What was tried when the spool's volume failed: a closed set of label values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Write,
    Read,
    Remove,
}

impl Doing {
    const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Remove => "remove",
        }
    }
}

impl SpoolTelemetry {
    /// The handles of the spool of the topics with that prefix.
    pub fn new(prefix: &str) -> Self {
        let labels = || [Label::new("prefix", prefix.to_owned())];
        Self {
            bytes: Series::SpoolBytes.gauge(labels()),
            records: Series::SpoolRecords.gauge(labels()),
            age: Series::SpoolAge.gauge(labels()),
            active: Series::SpoolActive.gauge(labels()),
            appended: Series::SpoolAppended.counter(labels()),
            drained: Series::SpoolDrained.counter(labels()),
            full: Series::SpoolFull.counter(labels()),
            lost: Series::SpoolLost.counter(labels()),
            prefix: prefix.to_owned(),
        }
    }

    /// Counts a failure of the volume.
    pub fn failed(&self, doing: Doing) {
        Series::SpoolErrors
            .counter([
                Label::new("doing", doing.name()),
                Label::new("prefix", self.prefix.clone()),
            ])
            .increment(1);
    }
}

//! The three signals of OTLP, and the topics that hold requests of each.
//!
//! Every match lists all variants, so that a new signal does not compile before it has its place here.

use crate::topic::{Holds, Topic};

/// A signal of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Log records, from which everything is derived.
    Logs,
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// All signals, in the order of their discriminants: `Signal::ALL[signal as usize] == signal`.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Traces, Self::Metrics];

    /// The signal's name, as label values and file names have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// The signal's path in OTLP/HTTP.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Logs => "/v1/logs",
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The path of the signal's `Export` call in OTLP/gRPC.
    #[must_use]
    pub const fn grpc_path(self) -> &'static str {
        match self {
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    /// The topic that ingest writes the signal's raw records to.
    #[must_use]
    pub const fn raw(self) -> Topic {
        match self {
            Self::Logs => Topic::RawLogs,
            Self::Traces => Topic::RawTraces,
            Self::Metrics => Topic::RawMetrics,
        }
    }

    /// The topic that foreign writers write the signal's requests to.
    #[must_use]
    pub const fn inbox(self) -> Topic {
        match self {
            Self::Logs => Topic::InboxLogs,
            Self::Traces => Topic::InboxTraces,
            Self::Metrics => Topic::InboxMetrics,
        }
    }

    /// The signal whose requests a raw or inbox topic holds; none for every other topic.
    #[must_use]
    pub const fn of(topic: Topic) -> Option<Self> {
        match topic.def().holds {
            Holds::Raw(signal) | Holds::Inbox(signal) => Some(signal),
            Holds::Quarantined
            | Holds::Rows(_)
            | Holds::Control
            | Holds::Labels
            | Holds::Deltas
            | Holds::State => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray;

    #[test]
    fn each_signal_has_one_raw_and_one_inbox_topic() {
        for (index, signal) in Signal::ALL.into_iter().enumerate() {
            assert_eq!(signal as usize, index);
            let topics: Vec<Topic> = Topic::VARIANTS
                .iter()
                .copied()
                .filter(|topic| Signal::of(*topic) == Some(signal))
                .collect();
            assert_eq!(topics, [signal.raw(), signal.inbox()]);
        }
    }
}

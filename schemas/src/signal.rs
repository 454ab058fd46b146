//! The three kinds of telemetry that come in.

use crate::topic::Topic;

/// A signal of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Log records: what everything is derived from.
    Logs,
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Traces, Self::Metrics];

    /// The name, as a label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// The path of OTLP/HTTP.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Logs => "/v1/logs",
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The path of the `Export` call of OTLP/gRPC.
    #[must_use]
    pub const fn grpc_path(self) -> &'static str {
        match self {
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    /// That of a raw topic.
    #[must_use]
    pub fn of(topic: Topic) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.topic() == topic)
    }

    /// Where foreign writers put it.
    #[must_use]
    pub const fn inbox(self) -> Topic {
        match self {
            Self::Logs => Topic::InboxLogs,
            Self::Traces => Topic::InboxTraces,
            Self::Metrics => Topic::InboxMetrics,
        }
    }

    /// Where its raw records go.
    #[must_use]
    pub const fn topic(self) -> Topic {
        match self {
            Self::Logs => Topic::RawLogs,
            Self::Traces => Topic::RawTraces,
            Self::Metrics => Topic::RawMetrics,
        }
    }
}

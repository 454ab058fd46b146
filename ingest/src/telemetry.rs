//! The process's own series: the only place of this crate that writes metrics.

use crate::privacy::Counts;
use crate::signal::Signal;
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use schemas::event::PRIVATE_KEYS;
use std::time::Duration;

/// A series, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each has its help, below")]
pub enum Series {
    Requests,
    RequestDuration,
    PayloadBytes,
    Rejected,
    Redactions,
    SpanEventsRemoved,
    TruncatedValues,
}

impl Series {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Requests,
        Self::RequestDuration,
        Self::PayloadBytes,
        Self::Rejected,
        Self::Redactions,
        Self::SpanEventsRemoved,
        Self::TruncatedValues,
    ];

    /// Name and help.
    #[must_use]
    pub const fn def(self) -> (&'static str, &'static str) {
        match self {
            Self::Requests => ("tacho_ingest_requests_total", "OTLP requests answered, by protocol, signal and status code"),
            Self::RequestDuration => ("tacho_ingest_request_duration_seconds", "Time from a request's head to its answer, by protocol"),
            Self::PayloadBytes => ("tacho_ingest_payload_bytes", "Size of request bodies after decompression, by signal"),
            Self::Rejected => ("tacho_ingest_rejected_total", "OTLP requests refused, by reason"),
            Self::Redactions => (
                "tacho_redactions_total",
                "Attributes removed before the first write, by key; body: log bodies; tacho: attributes that only Tachograph may write",
            ),
            Self::SpanEventsRemoved => ("tacho_span_events_removed_total", "Span events removed because their target is not a safe one"),
            Self::TruncatedValues => ("tacho_truncated_values_total", "Texts cut because their record was over the limit"),
        }
    }

    const fn name(self) -> &'static str {
        self.def().0
    }
}

/// Tells the installed recorder what each series is.
pub fn describe() {
    for series in Series::ALL {
        let (name, help) = series.def();
        match series {
            Series::RequestDuration => describe_histogram!(name, Unit::Seconds, help),
            Series::PayloadBytes => describe_histogram!(name, Unit::Bytes, help),
            _ => describe_counter!(name, help),
        }
    }
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/HTTP, protobuf or JSON.
    Http,
    /// OTLP/gRPC.
    Grpc,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// Handles, taken once: make it after the recorder is installed.
pub(crate) struct Telemetry {
    durations: [Histogram; 2],
    payloads: [Histogram; 3],
    removed: [Counter; PRIVATE_KEYS.len()],
    bodies: Counter,
    stripped: Counter,
    span_events: Counter,
    truncated: Counter,
}

impl Telemetry {
    pub fn new() -> Self {
        describe();
        let redactions = |key: &'static str| counter!(Series::Redactions.name(), "key" => key);
        Self {
            durations: [Protocol::Http, Protocol::Grpc]
                .map(|protocol| histogram!(Series::RequestDuration.name(), "protocol" => protocol.name())),
            payloads: Signal::ALL.map(|signal| histogram!(Series::PayloadBytes.name(), "signal" => signal.name())),
            removed: PRIVATE_KEYS.map(redactions),
            bodies: redactions("body"),
            stripped: redactions("tacho"),
            span_events: counter!(Series::SpanEventsRemoved.name()),
            truncated: counter!(Series::TruncatedValues.name()),
        }
    }

    /// A request was answered with `code`: HTTP's or gRPC's number.
    pub fn answered(&self, protocol: Protocol, signal: Option<Signal>, code: u16, rejected: Option<&'static str>, took: Duration) {
        let signal = signal.map_or("none", Signal::name);
        counter!(Series::Requests.name(), "protocol" => protocol.name(), "signal" => signal, "code" => code.to_string()).increment(1);
        self.durations[protocol as usize].record(took.as_secs_f64());
        if let Some(reason) = rejected {
            counter!(Series::Rejected.name(), "reason" => reason).increment(1);
        }
    }

    pub fn payload(&self, signal: Signal, bytes: usize) {
        // Bodies are far below 2^32 bytes.
        self.payloads[signal as usize].record(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    pub fn cleaned(&self, counts: &Counts) {
        for (counter, &count) in self.removed.iter().zip(&counts.removed) {
            counter.increment(count);
        }
        self.bodies.increment(counts.bodies);
        self.stripped.increment(counts.stripped);
        self.span_events.increment(counts.span_events);
        self.truncated.increment(counts.truncated);
    }
}

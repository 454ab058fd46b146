//! The process's own series: the only place of this crate that writes metrics.
#![expect(clippy::disallowed_macros, reason = "this is the one place for them")]

use crate::privacy::Counts;
use crate::signal::Signal;
use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use schemas::event::PRIVATE_KEYS;
use std::sync::OnceLock;
use std::time::Duration;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Upper bounds of the buckets of request durations, in seconds.
const DURATION_BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 4.0];
/// Upper bounds of the buckets of bodies, in bytes.
const PAYLOAD_BOUNDS: [f64; 8] = [1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// A series, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each has its help, below")]
pub enum Series {
    Requests,
    RequestDuration,
    PayloadBytes,
    Rejected,
    RejectedRecords,
    Connections,
    ConnectionsCut,
    Redactions,
    SpanEventsRemoved,
    TruncatedValues,
    InboxRecords,
    InboxParts,
    InboxQuarantined,
    InboxLost,
    InboxLag,
    InboxRestarts,
}

impl Series {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Requests,
        Self::RequestDuration,
        Self::PayloadBytes,
        Self::Rejected,
        Self::RejectedRecords,
        Self::Connections,
        Self::ConnectionsCut,
        Self::Redactions,
        Self::SpanEventsRemoved,
        Self::TruncatedValues,
        Self::InboxRecords,
        Self::InboxParts,
        Self::InboxQuarantined,
        Self::InboxLost,
        Self::InboxLag,
        Self::InboxRestarts,
    ];

    /// Name and help.
    #[must_use]
    pub const fn def(self) -> (&'static str, &'static str) {
        match self {
            Self::Requests => ("tacho_ingest_requests_total", "OTLP requests answered, by protocol, signal and status code"),
            Self::RequestDuration => ("tacho_ingest_request_duration_seconds", "Time from a request's head to its answer, by protocol"),
            Self::PayloadBytes => ("tacho_ingest_payload_bytes", "Size of request bodies after decompression, by signal"),
            Self::Rejected => ("tacho_ingest_rejected_total", "OTLP requests refused, by reason"),
            Self::RejectedRecords => (
                "tacho_ingest_rejected_records_total",
                "Log records, spans and data points left out of requests that were taken, by signal",
            ),
            Self::Connections => ("tacho_ingest_connections", "Open connections"),
            Self::ConnectionsCut => (
                "tacho_ingest_connections_cut_total",
                "Connections closed by the server, by reason: header, a request's head did not come in time; idle; protocol",
            ),
            Self::Redactions => (
                "tacho_redactions_total",
                "Attributes removed before the first write, by key; body: log bodies; tacho: attributes that only Tachograph may write",
            ),
            Self::SpanEventsRemoved => ("tacho_span_events_removed_total", "Span events removed because their target is not a safe one"),
            Self::TruncatedValues => ("tacho_truncated_values_total", "Texts cut because their record was over the limit"),
            Self::InboxRecords => ("tacho_inbox_records_total", "Records of the inbox topics that are drained, by signal"),
            Self::InboxParts => ("tacho_inbox_parts_total", "Raw records that they became, by signal"),
            Self::InboxQuarantined => ("tacho_inbox_quarantined_total", "Records of the inbox that went to the quarantine, by reason"),
            Self::InboxLost => ("tacho_inbox_lost_records_total", "Records deleted from the inbox before they were drained, by signal"),
            Self::InboxLag => ("tacho_inbox_lag_records", "Records in this process's inbox partitions that are not drained yet, by signal"),
            Self::InboxRestarts => ("tacho_inbox_restarts_total", "Times that draining began anew after a failure"),
        }
    }

    const fn name(self) -> &'static str {
        self.def().0
    }
}

/// Installs a recorder for a process that is ingest alone, once; later calls change nothing.
///
/// # Errors
/// Another library's recorder is installed already.
pub fn install() -> Result<(), BuildError> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let bounds = [(Series::RequestDuration, &DURATION_BOUNDS[..]), (Series::PayloadBytes, &PAYLOAD_BOUNDS[..])];
    let handle = bounds
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (series, bounds)| {
            builder.set_buckets_for_metric(Matcher::Full(series.name().to_owned()), bounds)
        })?
        .install_recorder()?;
    // Two first callers at once: the second one's install_recorder has failed above.
    let _ = HANDLE.set(handle);
    Ok(())
}

/// The series as Prometheus text; empty before [`install`].
#[must_use]
pub fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds recorded values into their histograms; call it every few seconds.
pub fn upkeep() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// Tells the installed recorder what each series is.
pub fn describe() {
    for series in Series::ALL {
        let (name, help) = series.def();
        match series {
            Series::RequestDuration => describe_histogram!(name, Unit::Seconds, help),
            Series::PayloadBytes => describe_histogram!(name, Unit::Bytes, help),
            Series::InboxLag | Series::Connections => describe_gauge!(name, help),
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

    pub fn rejected_records(&self, signal: Signal, count: u64) {
        counter!(Series::RejectedRecords.name(), "signal" => signal.name()).increment(count);
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

/// Connections of all listeners.
pub(crate) struct ConnectionTelemetry {
    pub open: Gauge,
}

impl ConnectionTelemetry {
    pub fn new() -> Self {
        Self { open: gauge!(Series::Connections.name()) }
    }

    pub fn cut(&self, reason: &'static str) {
        counter!(Series::ConnectionsCut.name(), "reason" => reason).increment(1);
    }
}

/// Handles of the inbox, taken once: make it after the recorder is installed.
pub(crate) struct InboxTelemetry {
    records: [Counter; 3],
    parts: [Counter; 3],
    restarts: Counter,
}

impl InboxTelemetry {
    pub fn new() -> Self {
        let of = |series: Series| Signal::ALL.map(|signal| counter!(series.name(), "signal" => signal.name()));
        Self { records: of(Series::InboxRecords), parts: of(Series::InboxParts), restarts: counter!(Series::InboxRestarts.name()) }
    }

    /// One for each signal.
    pub fn lags(&self) -> [Gauge; 3] {
        Signal::ALL.map(|signal| gauge!(Series::InboxLag.name(), "signal" => signal.name()))
    }

    pub fn drained(&self, signal: Signal) {
        self.records[signal as usize].increment(1);
    }

    pub fn parts(&self, signal: Signal, parts: u64) {
        self.parts[signal as usize].increment(parts);
    }

    pub fn quarantined(&self, reason: &'static str) {
        counter!(Series::InboxQuarantined.name(), "reason" => reason).increment(1);
    }

    pub fn lost(&self, signal: Signal, records: u64) {
        counter!(Series::InboxLost.name(), "signal" => signal.name()).increment(records);
    }

    pub fn restarted(&self) {
        self.restarts.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{CounterFn, Key, KeyName, Metadata, Recorder, SharedString};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

    /// Keeps counters by name and labels.
    #[derive(Default)]
    struct Counters(Counts);

    struct Cell(String, Counts);

    impl CounterFn for Cell {
        fn increment(&self, value: u64) {
            *self.1.lock().expect("no test panics with the lock").entry(self.0.clone()).or_default() += value;
        }

        fn absolute(&self, _value: u64) {}
    }

    impl Recorder for Counters {
        fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}
        fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}
        fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}

        fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
            let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            Counter::from_arc(Arc::new(Cell(format!("{}{{{}}}", key.name(), labels.join(",")), Arc::clone(&self.0))))
        }

        fn register_gauge(&self, _key: &Key, _metadata: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _key: &Key, _metadata: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn counts_go_to_the_series_of_their_rule() {
        let recorder = Counters::default();
        metrics::with_local_recorder(&recorder, || {
            let telemetry = Telemetry::new();
            let counts = crate::privacy::Counts { removed: [1, 2, 3, 4, 5], bodies: 6, stripped: 7, span_events: 8, truncated: 9 };
            telemetry.cleaned(&counts);
            telemetry.answered(Protocol::Http, Some(Signal::Logs), 413, Some("body_size"), Duration::ZERO);
        });
        let seen = recorder.0.lock().expect("no test panics with the lock").clone();
        let expected = [
            ("tacho_ingest_rejected_total{reason=body_size}", 1),
            ("tacho_ingest_requests_total{protocol=http,signal=logs,code=413}", 1),
            ("tacho_redactions_total{key=arguments}", 2),
            ("tacho_redactions_total{key=body}", 6),
            ("tacho_redactions_total{key=content}", 4),
            ("tacho_redactions_total{key=output}", 3),
            ("tacho_redactions_total{key=prompt}", 1),
            ("tacho_redactions_total{key=response}", 5),
            ("tacho_redactions_total{key=tacho}", 7),
            ("tacho_span_events_removed_total{}", 8),
            ("tacho_truncated_values_total{}", 9),
        ];
        assert_eq!(seen, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
}

//! The process's own series: the only place of this crate that writes metrics.
#![expect(clippy::disallowed_macros, reason = "this is the one place for them")]

use crate::connection::agent::Agent;
use crate::prepare::privacy::Counts;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use schemas::event::PRIVATE_KEYS;
use schemas::privacy::{Action, FIELD_COUNT, fields};
use schemas::signal::Signal;
use std::sync::OnceLock;
use std::time::Duration;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Upper bounds of the buckets of request durations, in seconds.
const DURATION_BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 4.0];
/// Upper bounds of the buckets of bodies, in bytes.
const PAYLOAD_BOUNDS: [f64; 8] = [
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
];

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
    SpoolBytes,
    SpoolRecords,
    SpoolAge,
    SpoolActive,
    SpoolAppended,
    SpoolDrained,
    SpoolFull,
    SpoolLost,
    SpoolErrors,
    Unsure,
    ProbablyLost,
}

impl Series {
    /// All of them.
    pub const ALL: [Self; 27] = [
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
        Self::SpoolBytes,
        Self::SpoolRecords,
        Self::SpoolAge,
        Self::SpoolActive,
        Self::SpoolAppended,
        Self::SpoolDrained,
        Self::SpoolFull,
        Self::SpoolLost,
        Self::SpoolErrors,
        Self::Unsure,
        Self::ProbablyLost,
    ];

    /// Name and help.
    #[must_use]
    pub const fn def(self) -> (&'static str, &'static str) {
        match self {
            Self::Requests => (
                "tacho_ingest_requests_total",
                "OTLP requests answered, by protocol, signal and status code",
            ),
            Self::RequestDuration => (
                "tacho_ingest_request_duration_seconds",
                "Time from a request's head to its answer, by protocol",
            ),
            Self::PayloadBytes => (
                "tacho_ingest_payload_bytes",
                "Size of request bodies after decompression, by signal",
            ),
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
                "What was changed before the first write, by field of the privacy policy, rule and action; policy: the whole value; no_hash_key: dropped, since there is no key; field tacho: attributes that only Tachograph may write",
            ),
            Self::SpanEventsRemoved => (
                "tacho_span_events_removed_total",
                "Span events removed because their target is not a safe one",
            ),
            Self::TruncatedValues => (
                "tacho_truncated_values_total",
                "Texts cut because their record was over the limit",
            ),
            Self::InboxRecords => (
                "tacho_inbox_records_total",
                "Records of the inbox topics that are drained, by signal",
            ),
            Self::InboxParts => (
                "tacho_inbox_parts_total",
                "Raw records that they became, by signal",
            ),
            Self::InboxQuarantined => (
                "tacho_inbox_quarantined_total",
                "Records of the inbox that went to the quarantine, by reason",
            ),
            Self::InboxLost => (
                "tacho_inbox_lost_records_total",
                "Records deleted from the inbox before they were drained, by signal",
            ),
            Self::InboxLag => (
                "tacho_inbox_lag_records",
                "Records in this process's inbox partitions that are not drained yet, by signal",
            ),
            Self::InboxRestarts => (
                "tacho_inbox_restarts_total",
                "Times that draining began anew after a failure",
            ),
            Self::SpoolBytes => ("tacho_spool_bytes", "Bytes of the spool on its volume"),
            Self::SpoolRecords => (
                "tacho_spool_records",
                "Raw records in the spool that are not drained yet",
            ),
            Self::SpoolAge => (
                "tacho_spool_oldest_age_seconds",
                "How long the oldest record in the spool has waited; 0: none waits",
            ),
            Self::SpoolActive => (
                "tacho_spool_active",
                "1 while requests go through the spool, 0 while they go to Kafka directly",
            ),
            Self::SpoolAppended => (
                "tacho_spool_appended_records_total",
                "Raw records written to the spool",
            ),
            Self::SpoolDrained => (
                "tacho_spool_drained_records_total",
                "Raw records of the spool that Kafka has",
            ),
            Self::SpoolFull => (
                "tacho_spool_full_total",
                "Requests that the spool had no room for",
            ),
            Self::SpoolLost => (
                "tacho_spool_lost_records_total",
                "Raw records of the spool that can't be read any more, at least",
            ),
            Self::SpoolErrors => (
                "tacho_spool_errors_total",
                "Failures of the spool's volume, by what was tried",
            ),
            Self::Unsure => (
                "tacho_ingest_unsure_total",
                "Requests refused that may be in Kafka all the same, by signal",
            ),
            Self::ProbablyLost => (
                "tacho_ingest_probably_lost_total",
                "Requests refused to a client that does not send again, or for what sending again won't mend, by agent",
            ),
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
    let bounds = [
        (Series::RequestDuration, &DURATION_BOUNDS[..]),
        (Series::PayloadBytes, &PAYLOAD_BOUNDS[..]),
    ];
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
            Series::InboxLag
            | Series::Connections
            | Series::SpoolBytes
            | Series::SpoolRecords
            | Series::SpoolAge
            | Series::SpoolActive => {
                describe_gauge!(name, help)
            }
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

    /// The code of a request that was taken.
    const fn success(self) -> u16 {
        match self {
            Self::Http => 200,
            Self::Grpc => 0,
        }
    }
}

/// Handles, taken once: make it after the recorder is installed.
pub(crate) struct Telemetry {
    /// Requests that were taken, by protocol and signal, once there was one.
    taken: [[OnceLock<Counter>; 3]; 2],
    durations: [Histogram; 2],
    payloads: [Histogram; 3],
    dropped: [Counter; FIELD_COUNT],
    hashed: [Counter; FIELD_COUNT],
    unhashed: [Counter; FIELD_COUNT],
    stripped: Counter,
    span_events: Counter,
    truncated: Counter,
}

/// The place of span events among the fields.
const SPAN_EVENTS_AT: usize = PRIVATE_KEYS.len() + 1;

/// Both labels are of closed sets: the fields, and the ids of the rules.
fn redactions(field: &'static str, rule: &'static str, action: Action) -> Counter {
    counter!(Series::Redactions.name(), "field" => field, "rule" => rule, "action" => action.name())
}

impl Telemetry {
    pub fn new() -> Self {
        describe();
        let fields: Vec<&'static str> = fields().collect();
        let all = |rule, action| std::array::from_fn(|index| redactions(fields[index], rule, action));
        Self {
            taken: Default::default(),
            durations: [Protocol::Http, Protocol::Grpc]
                .map(|protocol| histogram!(Series::RequestDuration.name(), "protocol" => protocol.name())),
            payloads: Signal::ALL
                .map(|signal| histogram!(Series::PayloadBytes.name(), "signal" => signal.name())),
            dropped: all("policy", Action::Drop),
            hashed: all("policy", Action::Hash),
            unhashed: all("no_hash_key", Action::Drop),
            stripped: redactions("tacho", "reserved", Action::Drop),
            span_events: counter!(Series::SpanEventsRemoved.name()),
            truncated: counter!(Series::TruncatedValues.name()),
        }
    }

    /// A request was answered with `code`: HTTP's or gRPC's number.
    pub fn answered(
        &self,
        protocol: Protocol,
        signal: Option<Signal>,
        code: u16,
        rejected: Option<&'static str>,
        took: Duration,
    ) {
        let requests = || {
            let signal = signal.map_or("none", Signal::name);
            counter!(Series::Requests.name(), "protocol" => protocol.name(), "signal" => signal, "code" => code.to_string())
        };
        match signal.filter(|_| code == protocol.success()) {
            // Nearly all: their counters are not looked for again.
            Some(signal) => self.taken[protocol as usize][signal as usize]
                .get_or_init(requests)
                .increment(1),
            None => requests().increment(1),
        }
        self.durations[protocol as usize].record(took.as_secs_f64());
        if let Some(reason) = rejected {
            counter!(Series::Rejected.name(), "reason" => reason).increment(1);
        }
    }

    /// A request of that client was refused; whether it was told to come again.
    pub fn refused(&self, agent: Agent, may_come_again: bool) {
        if !(may_come_again && agent.sends_again()) {
            counter!(Series::ProbablyLost.name(), "agent" => agent.label()).increment(1);
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
        let whole = [
            (&self.dropped, &counts.dropped),
            (&self.hashed, &counts.hashed),
            (&self.unhashed, &counts.unhashed),
        ];
        for (counter, &count) in whole
            .into_iter()
            .flat_map(|(counters, counts)| counters.iter().zip(counts))
        {
            if count > 0 {
                counter.increment(count);
            }
        }
        for (&(field, rule), &count) in &counts.scrubbed {
            redactions(fields().nth(field).unwrap_or("other"), rule, Action::Scrub).increment(count);
        }
        self.stripped.increment(counts.stripped);
        self.span_events
            .increment(counts.dropped[SPAN_EVENTS_AT] + counts.unhashed[SPAN_EVENTS_AT]);
        self.truncated.increment(counts.truncated);
    }
}

/// A request was refused that may be in Kafka all the same.
pub(crate) fn unsure(signal: Signal) {
    counter!(Series::Unsure.name(), "signal" => signal.name()).increment(1);
}

/// Handles of the spool, taken once: make it after the recorder is installed.
pub(crate) struct SpoolTelemetry {
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

impl SpoolTelemetry {
    pub fn new(prefix: &str) -> Self {
        let count = |series: Series| counter!(series.name(), "prefix" => prefix.to_owned());
        let show = |series: Series| gauge!(series.name(), "prefix" => prefix.to_owned());
        Self {
            bytes: show(Series::SpoolBytes),
            records: show(Series::SpoolRecords),
            age: show(Series::SpoolAge),
            active: show(Series::SpoolActive),
            appended: count(Series::SpoolAppended),
            drained: count(Series::SpoolDrained),
            full: count(Series::SpoolFull),
            lost: count(Series::SpoolLost),
            prefix: prefix.to_owned(),
        }
    }

    pub fn failed(&self, doing: &'static str) {
        counter!(Series::SpoolErrors.name(), "doing" => doing, "prefix" => self.prefix.clone()).increment(1);
    }
}

/// Connections of all listeners.
pub(crate) struct ConnectionTelemetry {
    pub open: Gauge,
}

impl ConnectionTelemetry {
    pub fn new() -> Self {
        Self {
            open: gauge!(Series::Connections.name()),
        }
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
        let of =
            |series: Series| Signal::ALL.map(|signal| counter!(series.name(), "signal" => signal.name()));
        Self {
            records: of(Series::InboxRecords),
            parts: of(Series::InboxParts),
            restarts: counter!(Series::InboxRestarts.name()),
        }
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
            *self
                .1
                .lock()
                .expect("no test panics with the lock")
                .entry(self.0.clone())
                .or_default() += value;
        }

        fn absolute(&self, _value: u64) {}
    }

    impl Recorder for Counters {
        fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}
        fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}
        fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _help: SharedString) {}

        fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
            let labels: Vec<_> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            Counter::from_arc(Arc::new(Cell(
                format!("{}{{{}}}", key.name(), labels.join(",")),
                Arc::clone(&self.0),
            )))
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
            let mut counts = crate::prepare::privacy::Counts {
                stripped: 7,
                truncated: 9,
                ..crate::prepare::privacy::Counts::default()
            };
            (
                counts.dropped[0],
                counts.dropped[SPAN_EVENTS_AT],
                counts.hashed[6],
                counts.unhashed[7],
            ) = (1, 8, 2, 3);
            counts.scrubbed.insert((2, "github-pat"), 4);
            telemetry.cleaned(&counts);
            telemetry.answered(
                Protocol::Http,
                Some(Signal::Logs),
                413,
                Some("body_size"),
                Duration::ZERO,
            );
            telemetry.refused(Agent::Rust(Some(31)), true);
            telemetry.refused(Agent::Collector, true);
            telemetry.refused(Agent::Collector, false);
        });
        let seen = recorder.0.lock().expect("no test panics with the lock").clone();
        let expected = [
            ("tacho_ingest_probably_lost_total{agent=collector}", 1),
            ("tacho_ingest_probably_lost_total{agent=rust-0.31}", 1),
            ("tacho_ingest_rejected_total{reason=body_size}", 1),
            (
                "tacho_ingest_requests_total{protocol=http,signal=logs,code=413}",
                1,
            ),
            (
                "tacho_redactions_total{field=output,rule=github-pat,action=scrub}",
                4,
            ),
            ("tacho_redactions_total{field=prompt,rule=policy,action=drop}", 1),
            (
                "tacho_redactions_total{field=span_events,rule=policy,action=drop}",
                8,
            ),
            ("tacho_redactions_total{field=tacho,rule=reserved,action=drop}", 7),
            (
                "tacho_redactions_total{field=user.account_id,rule=no_hash_key,action=drop}",
                3,
            ),
            (
                "tacho_redactions_total{field=user.email,rule=policy,action=hash}",
                2,
            ),
            ("tacho_span_events_removed_total{}", 8),
            ("tacho_truncated_values_total{}", 9),
        ];
        assert_eq!(
            seen,
            expected.map(|(name, count)| (name.to_owned(), count)).into()
        );
    }
}

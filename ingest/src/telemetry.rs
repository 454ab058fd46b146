//! The table of the process's own metrics: the only file of this crate that registers any.
//!
//! Each concern keeps its handles beside its code, in a `telemetry` module of its own, and gets them here.
//!
//! **Invariant:** the values of a label are a closed set, or what the operator has set; never a tenant, a conversation, a person
//! or a path.
#![expect(clippy::disallowed_macros, reason = "this is the one place for them")]

use metrics::{
    Counter, Gauge, Histogram, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Upper bounds of the buckets of request durations, in seconds.
const DURATION_BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 4.0];
/// Upper bounds of the buckets of body sizes, in bytes.
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

/// A metric of ingest itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is explained by its help text, below")]
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

/// How a [`Series`] adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesKind {
    /// A number that never goes down while the process lives.
    Counter,
    /// The latest value.
    Gauge,
    /// A distribution of durations, in seconds.
    Seconds,
    /// A distribution of sizes, in bytes.
    Bytes,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct SeriesDef {
    /// The name on `/metrics`.
    pub name: &'static str,
    /// The help text on `/metrics`.
    pub help: &'static str,
    /// How values add up.
    pub kind: SeriesKind,
}

const fn counter_def(name: &'static str, help: &'static str) -> SeriesDef {
    SeriesDef {
        name,
        help,
        kind: SeriesKind::Counter,
    }
}

const fn gauge_def(name: &'static str, help: &'static str) -> SeriesDef {
    SeriesDef {
        name,
        help,
        kind: SeriesKind::Gauge,
    }
}

impl Series {
    /// All series, in the order of the table.
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

    /// The series' row of the table.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: one arm a series")]
    pub const fn def(self) -> SeriesDef {
        match self {
            Self::Requests => counter_def(
                "tacho_ingest_requests_total",
                "OTLP requests answered, by protocol, signal and status code",
            ),
            Self::RequestDuration => SeriesDef {
                name: "tacho_ingest_request_duration_seconds",
                help: "Time from a request's head to its answer, by protocol",
                kind: SeriesKind::Seconds,
            },
            Self::PayloadBytes => SeriesDef {
                name: "tacho_ingest_payload_bytes",
                help: "Size of request bodies after decompression, by signal",
                kind: SeriesKind::Bytes,
            },
            Self::Rejected => counter_def("tacho_ingest_rejected_total", "OTLP requests refused, by reason"),
            Self::RejectedRecords => counter_def(
                "tacho_ingest_rejected_records_total",
                "Log records, spans and data points left out of requests that were taken, by signal",
            ),
            Self::Connections => gauge_def("tacho_ingest_connections", "Open connections"),
            Self::ConnectionsCut => counter_def(
                "tacho_ingest_connections_cut_total",
                "Connections closed by the server, by reason: header, a request's head did not come in time; idle; protocol",
            ),
            Self::Redactions => counter_def(
                "tacho_redactions_total",
                "What was changed before the first write, by field of the privacy policy, rule and action; policy: the whole value; no_hash_key: dropped, since there is no key; field tacho: attributes that only Tachograph may write",
            ),
            Self::SpanEventsRemoved => counter_def(
                "tacho_span_events_removed_total",
                "Span events removed because their target is not a safe one",
            ),
            Self::TruncatedValues => counter_def(
                "tacho_truncated_values_total",
                "Texts cut because their record was over the limit",
            ),
            Self::InboxRecords => counter_def(
                "tacho_inbox_records_total",
                "Records of the inbox topics that are drained, by signal",
            ),
            Self::InboxParts => counter_def(
                "tacho_inbox_parts_total",
                "Raw records that they became, by signal",
            ),
            Self::InboxQuarantined => counter_def(
                "tacho_inbox_quarantined_total",
                "Records of the inbox that went to the quarantine, by reason",
            ),
            Self::InboxLost => counter_def(
                "tacho_inbox_lost_records_total",
                "Records deleted from the inbox before they were drained, by signal",
            ),
            Self::InboxLag => gauge_def(
                "tacho_inbox_lag_records",
                "Records in this process's inbox partitions that are not drained yet, by signal",
            ),
            Self::InboxRestarts => counter_def(
                "tacho_inbox_restarts_total",
                "Times that draining began anew after a failure",
            ),
            Self::SpoolBytes => gauge_def("tacho_spool_bytes", "Bytes of the spool on its volume"),
            Self::SpoolRecords => gauge_def(
                "tacho_spool_records",
                "Raw records in the spool that are not drained yet",
            ),
            Self::SpoolAge => gauge_def(
                "tacho_spool_oldest_age_seconds",
                "How long the oldest record in the spool has waited; 0: none waits",
            ),
            Self::SpoolActive => gauge_def(
                "tacho_spool_active",
                "1 while requests go through the spool, 0 while they go to Kafka directly",
            ),
            Self::SpoolAppended => counter_def(
                "tacho_spool_appended_records_total",
                "Raw records written to the spool",
            ),
            Self::SpoolDrained => counter_def(
                "tacho_spool_drained_records_total",
                "Raw records of the spool that Kafka has",
            ),
            Self::SpoolFull => counter_def(
                "tacho_spool_full_total",
                "Requests that the spool had no room for",
            ),
            Self::SpoolLost => counter_def(
                "tacho_spool_lost_records_total",
                "Raw records of the spool that can't be read any more, at least",
            ),
            Self::SpoolErrors => counter_def(
                "tacho_spool_errors_total",
                "Failures of the spool's volume, by what was tried",
            ),
            Self::Unsure => counter_def(
                "tacho_ingest_unsure_total",
                "Requests refused that may be in Kafka all the same, by signal",
            ),
            Self::ProbablyLost => counter_def(
                "tacho_ingest_probably_lost_total",
                "Requests refused to a client that does not send again, or for what sending again won't mend, by agent",
            ),
        }
    }

    const fn name(self) -> &'static str {
        self.def().name
    }

    /// The handle of the counter with these labels.
    pub(crate) fn counter<const N: usize>(self, labels: [Label; N]) -> Counter {
        counter!(self.name(), Vec::from(labels))
    }

    /// The handle of the gauge with these labels.
    pub(crate) fn gauge<const N: usize>(self, labels: [Label; N]) -> Gauge {
        gauge!(self.name(), Vec::from(labels))
    }

    /// The handle of the histogram with these labels.
    pub(crate) fn histogram<const N: usize>(self, labels: [Label; N]) -> Histogram {
        histogram!(self.name(), Vec::from(labels))
    }
}

/// Installs the metrics recorder of a process that is ingest alone, and describes all series to it; every call after the
/// first changes nothing.
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
    // HANDLE is empty here: of two first callers at once, only one gets past install_recorder.
    let _ = HANDLE.set(handle);
    describe();
    Ok(())
}

/// All series as Prometheus text; empty before [`install`].
#[must_use]
pub fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds recorded values into their histograms; to be called every few seconds.
pub fn upkeep() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// Gives the installed recorder the help text and unit of each series. A process with a recorder of its own calls it once.
pub fn describe() {
    for series in Series::ALL {
        let SeriesDef { name, help, kind } = series.def();
        match kind {
            SeriesKind::Counter => describe_counter!(name, help),
            SeriesKind::Gauge => describe_gauge!(name, help),
            SeriesKind::Seconds => describe_histogram!(name, Unit::Seconds, help),
            SeriesKind::Bytes => describe_histogram!(name, Unit::Bytes, help),
        }
    }
}

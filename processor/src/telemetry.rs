//! The process's own metrics: how the machine is doing, as opposed to what it derives.
//!
//! They live and die with the process and carry no explicit timestamp. Their names are disjoint from those of
//! the metric table ([`schemas::metric`]), so both stand on one `/metrics`; a test compares the names in the
//! shipped scrape configuration with this table. A gauge that nobody has set for 60 s is gone: its partition
//! is elsewhere.
//!
//! They are metrics of the `metrics` facade. Results are not: the facade can't restore a histogram, and no
//! exporter sets timestamps.
#![expect(clippy::disallowed_macros, reason = "this is the one place for them")]

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use processor_log::telemetry::WRITERS_FENCED;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strum::VariantArray;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// How long a gauge is shown after it was set last. The gauges of owned partitions are set every 5 s, so a
/// gauge that is older belongs to a partition that another process owns now.
const GAUGE_IDLE: Duration = Duration::from_secs(60);

/// The duration of the last restore in seconds, as bits of an `f64`. [`upkeep`] sets the gauge again and
/// again, so that it stays shown.
static RESTORE_SECONDS: AtomicU64 = AtomicU64::new(NOT_RESTORED);

/// The value of [`RESTORE_SECONDS`] before the first restore: bits of a NaN, which no duration has.
const NOT_RESTORED: u64 = u64::MAX;

/// Upper bounds of the latency buckets, in seconds.
const LATENCY_BOUNDS: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 60.0, 300.0, 3600.0,
];

/// A metric of the process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
#[expect(
    missing_docs,
    reason = "each is explained by its help text, in `SelfMetric::def`"
)]
pub enum SelfMetric {
    Transactions,
    StateKeys,
    StateRestore,
    ConsumerLag,
    ClockLag,
    EndToEndLatency,
    Ticks,
    DeltaDuplicates,
    LabelOverflow,
    LostRecords,
    ClockHeld,
    WritersFenced,
    PriceTable,
    LogInfo,
}

/// The kind of a [`SelfMetric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfKind {
    /// A number that never decreases while the process lives.
    Counter,
    /// The latest of several values.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// The definition of a [`SelfMetric`]: one row of the table.
#[derive(Clone, Copy, Debug)]
pub struct SelfDef {
    /// The metric's name on `/metrics`.
    pub name: &'static str,
    /// What the metric is, in one sentence: the text of `# HELP`.
    pub help: &'static str,
    /// The kind of the metric.
    pub kind: SelfKind,
    /// The names of the metric's labels.
    pub labels: &'static [&'static str],
}

const fn def(
    name: &'static str,
    kind: SelfKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> SelfDef {
    SelfDef {
        name,
        help,
        kind,
        labels,
    }
}

impl SelfMetric {
    /// The metric's definition.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: one arm a metric")]
    pub const fn def(self) -> SelfDef {
        use SelfKind::{Counter, Gauge, Histogram};
        match self {
            Self::Transactions => def(
                "tacho_transactions_total",
                Counter,
                &["outcome"],
                "Commits by outcome: committed, aborted and sent again, or not confirmed and done again after a restore.",
            ),
            Self::StateKeys => def(
                "tacho_state_keys",
                Gauge,
                &["stage", "partition"],
                "Keys in the state of a task.",
            ),
            Self::StateRestore => def(
                "tacho_state_restore_seconds",
                Gauge,
                &[],
                "How long the last restore of all state took.",
            ),
            Self::ConsumerLag => def(
                "tacho_consumer_lag_records",
                Gauge,
                &["topic", "partition"],
                "Records in the log that are not in the committed state.",
            ),
            Self::ClockLag => def(
                "tacho_partition_clock_lag_seconds",
                Gauge,
                &["partition"],
                "How far the clock of a raw partition is behind the wall clock; above 15 s at rest, ticks do not come.",
            ),
            Self::EndToEndLatency => def(
                "tacho_end_to_end_latency_seconds",
                Histogram,
                &[],
                "From a raw record's append to the commit that made it visible.",
            ),
            Self::Ticks => def(
                "tacho_ticks_total",
                Counter,
                &[],
                "Ticks appended to raw partitions that are read to their end.",
            ),
            Self::DeltaDuplicates => def(
                "tacho_delta_duplicates_total",
                Counter,
                &[],
                "Delta records dropped because their position was seen before.",
            ),
            Self::LabelOverflow => def(
                "tacho_label_overflow_total",
                Counter,
                &["label"],
                "Label values shown as other: over the cap, or too long.",
            ),
            Self::LostRecords => def(
                "tacho_lost_records_total",
                Counter,
                &["topic", "partition"],
                "Records that retention or truncation removed before they were read.",
            ),
            Self::ClockHeld => def(
                "tacho_clock_held_total",
                Counter,
                &["partition"],
                "Raw records too far ahead of their partition's clock to move it, since nothing confirmed their append time.",
            ),
            Self::WritersFenced => def(
                WRITERS_FENCED,
                Counter,
                &[],
                "Open transactions of other workers that were ended because readers waited behind them.",
            ),
            Self::PriceTable => def(
                "tacho_price_table_info",
                Gauge,
                &["version", "epoch"],
                "1, with the version of the latest price table and the epoch that is in force.",
            ),
            Self::LogInfo => def(
                "tacho_log_info",
                Gauge,
                &["log", "id"],
                "1, with the name of the derivation shown (label log of its results) and its id; one name with two ids means that results of two logs are added up.",
            ),
        }
    }
}

/// Installs the recorder of the process and describes every metric; later calls change nothing.
///
/// # Errors
/// Another library's recorder is installed already.
pub fn install() -> Result<(), BuildError> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let handle = builder(GAUGE_IDLE)?.install_recorder()?;
    describe();
    // Of two first callers at once, the second one has failed in install_recorder.
    let _ = HANDLE.set(handle);
    Ok(())
}

fn builder(gauge_idle: Duration) -> Result<PrometheusBuilder, BuildError> {
    let latency = Matcher::Full(SelfMetric::EndToEndLatency.def().name.to_owned());
    PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::GAUGE, Some(gauge_idle))
        .set_buckets_for_metric(latency, &LATENCY_BOUNDS)
}

/// Describes every metric to the recorder in use.
fn describe() {
    for metric in SelfMetric::VARIANTS {
        let def = metric.def();
        match def.kind {
            SelfKind::Counter => metrics::describe_counter!(def.name, def.help),
            SelfKind::Gauge => metrics::describe_gauge!(def.name, def.help),
            SelfKind::Histogram => metrics::describe_histogram!(def.name, def.help),
        }
    }
}

/// The process's own metrics as Prometheus text; empty before [`install`].
#[must_use]
pub fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Moves recorded values into their histograms, so that they do not take memory while nobody scrapes, and
/// sets the gauges of the process again, so that they stay shown. Must be called every few seconds.
pub fn upkeep() {
    show_restore();
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// Counts the end of a commit: `committed`, `aborted` (it is sent again), or `not_confirmed` (state is
/// restored).
pub fn transaction(outcome: &'static str) {
    metrics::counter!(SelfMetric::Transactions.def().name, "outcome" => outcome).increment(1);
}

/// Sets the number of keys in the state of a task; `stage` is the stage's name.
pub fn state_keys(stage: &'static str, partition: i32, keys: usize) {
    gauge(
        SelfMetric::StateKeys,
        &[("stage", stage.to_owned()), ("partition", partition.to_string())],
        count(keys),
    );
}

/// Sets how long the last restore took.
pub fn restored(took: Duration) {
    RESTORE_SECONDS.store(took.as_secs_f64().to_bits(), Ordering::Relaxed);
    show_restore();
}

fn show_restore() {
    let bits = RESTORE_SECONDS.load(Ordering::Relaxed);
    if bits != NOT_RESTORED {
        gauge(SelfMetric::StateRestore, &[], f64::from_bits(bits));
    }
}

/// Sets how many records of a partition are not in the committed state yet; a negative number counts as 0.
pub fn consumer_lag(topic: &'static str, partition: i32, records: i64) {
    let labels = [("topic", topic.to_owned()), ("partition", partition.to_string())];
    gauge(
        SelfMetric::ConsumerLag,
        &labels,
        count(usize::try_from(records).unwrap_or(0)),
    );
}

/// Sets how far a raw partition's clock is behind the wall clock, in ms; may be negative.
pub fn clock_lag(partition: i32, lag_ms: i64) {
    gauge(
        SelfMetric::ClockLag,
        &[("partition", partition.to_string())],
        seconds(lag_ms),
    );
}

/// Adds the time from a raw record's append to the commit that includes it, in ms.
pub fn end_to_end(latency_ms: i64) {
    metrics::histogram!(SelfMetric::EndToEndLatency.def().name).record(seconds(latency_ms.max(0)));
}

/// Counts a tick that was appended.
pub fn tick() {
    metrics::counter!(SelfMetric::Ticks.def().name).increment(1);
}

/// Counts a delta record that was dropped because it was merged before.
pub fn delta_duplicate() {
    metrics::counter!(SelfMetric::DeltaDuplicates.def().name).increment(1);
}

/// Counts label values that are shown as `other`.
pub fn label_overflow(label: &'static str, values: u64) {
    metrics::counter!(SelfMetric::LabelOverflow.def().name, "label" => label).increment(values);
}

/// Counts records that could not move the clock of a raw partition.
pub fn clock_held(partition: i32, records: u64) {
    metrics::counter!(SelfMetric::ClockHeld.def().name, "partition" => partition.to_string())
        .increment(records);
}

/// Sets the gauge that names the price table of the latest epoch.
pub fn price_table(version: &str, epoch: i64) {
    gauge(
        SelfMetric::PriceTable,
        &[("version", version.to_owned()), ("epoch", epoch.to_string())],
        1.0,
    );
}

/// Sets the gauge that names the derivation of the results.
pub fn log_info(log: &str, id: &str) {
    let labels = [("log", log.to_owned()), ("id", id.to_owned())];
    gauge(SelfMetric::LogInfo, &labels, 1.0);
}

/// Counts records that were deleted before they were read.
pub fn lost(topic: &'static str, partition: i32, records: u64) {
    metrics::counter!(SelfMetric::LostRecords.def().name, "topic" => topic, "partition" => partition.to_string()).increment(records);
}

fn gauge(metric: SelfMetric, labels: &[(&'static str, String)], value: f64) {
    let labels: Vec<metrics::Label> = labels
        .iter()
        .map(|(name, value)| metrics::Label::new(*name, value.clone()))
        .collect();
    metrics::gauge!(metric.def().name, labels).set(value);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge: beyond 2^53 the relative error of the cast is 1e-16"
)]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge: milliseconds up to 2^53 are exact"
)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests;

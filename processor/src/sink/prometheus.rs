//! The committed view for Prometheus, with an explicit timestamp on every sample, beside the process's own
//! metrics.
//!
//! Results are state and survive a restart, so counters never reset, and the exact count between two instants
//! is a subtraction. A sample's timestamp is that of its deltas partition in the committed state, so a sample
//! is a function of its timestamp: two processes that show one series during a hand-over agree, or Prometheus
//! refuses the older. A scrape needs `honor_timestamps: true`, which is Prometheus' default. A partition
//! whose worker's lease ran out is not shown. Gauges of windows show the last final window of each size, and
//! are absent where the series has no row in it.
//!
//! What is shown is collected once ([`families`], `model.rs`) and written as text (`text.rs`) or protobuf
//! (`protobuf.rs`), by what the scraper accepts (`accept.rs`); both by hand, because no exposition library
//! sets timestamps. A property test holds one against the other, for any view. The process's own metrics come
//! from their exporter as text, without timestamps; for protobuf that text is read back (`own.rs`). The
//! shipped scrape configuration leaves them `instance` and `pod`, which it takes from results.
//!
//! Money is integers in state, and becomes dollars and credits here (`counted`): an exact decimal in text,
//! the nearest double in protobuf.

mod accept;
mod model;
mod own;
mod protobuf;
mod text;

pub use accept::Format;
pub use model::{Distribution, Family, FamilyKind, Labels, Native, Sample, Value};

use crate::view::{PartitionView, Shown, View};
use schemas::delta::Series;
use schemas::histogram::Histogram;
use schemas::metric::{Amount, Kind, Metric, Unit};
use strum::{EnumCount, VariantArray};

/// The names of the window sizes, smallest first: the values of label `window`.
pub const WINDOW_NAMES: [&str; 3] = ["1m", "5m", "1h"];

/// The quantiles that are shown of a window, in thousandths, and the values of label `quantile`.
pub const QUANTILES: [(u64, &str); 4] = [(500, "0.5"), (900, "0.9"), (950, "0.95"), (990, "0.99")];

/// The schema of native histograms: 8 buckets for each power of two, each of which is the sum of 4 buckets of state.
pub const NATIVE_SCHEMA: i32 = 3;

/// The body of a scrape's answer: all that the view holds, then `own`, the process's own metrics as text. The names of both
/// are disjoint.
#[must_use]
pub fn body(view: &View, own: &str, format: Format) -> Vec<u8> {
    let derived = families(view);
    match format {
        Format::Text => {
            let mut text = text::encode(&derived);
            text.push_str(own);
            text.into_bytes()
        }
        Format::Protobuf => {
            let mut bytes = protobuf::encode(&derived);
            bytes.extend(protobuf::encode(&own::parse(own)));
            bytes
        }
    }
}

/// All that the view holds: families in the order of the metric table, samples sorted by their labels.
///
/// Left out are families without a sample, partitions whose worker's lease has run out, and series with a key that this
/// version can't read.
#[must_use]
pub fn families(view: &View) -> Vec<Family> {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); Metric::COUNT];
    for entry in &view.partitions {
        if entry.is_shown() {
            collect(&view.log, entry.value(), &mut samples);
        }
    }
    let of = |(&metric, mut samples): (&Metric, Vec<Sample>)| {
        samples.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let def = metric.def();
        let kind = match def.kind {
            Kind::Counter => FamilyKind::Counter,
            Kind::Histogram { .. } => FamilyKind::Histogram,
            Kind::UpDown | Kind::WindowRatio | Kind::WindowQuantiles => FamilyKind::Gauge,
        };
        (!samples.is_empty()).then(|| Family {
            name: def.name.into(),
            help: def.help.into(),
            kind,
            samples,
        })
    };
    Metric::VARIANTS.iter().zip(samples).filter_map(of).collect()
}

/// Adds the samples of a partition. The last label of each is the name of the derivation.
fn collect(log: &str, partition: &PartitionView, samples: &mut [Vec<Sample>]) {
    let at = Some(partition.timestamp.0);
    for (key, shown) in &partition.series {
        let Some(series) = Series::parse(key) else {
            continue;
        };
        let samples = &mut samples[series.metric as usize];
        let mut push = |more: &[(&'static str, &str)], value: Value| {
            let own = series.labels().map(|(label, value)| (label.def().name, value));
            let mut labels: Labels = own.map(|(name, value)| (name.into(), value.to_owned())).collect();
            for (name, value) in more.iter().chain(&[("log", log)]) {
                labels.push(((*name).into(), (*value).to_owned()));
            }
            samples.push(Sample { labels, value, at });
        };
        let def = series.metric.def();
        match (def.kind, &shown.total) {
            (Kind::Counter | Kind::UpDown, Some(Amount::Count(value))) => {
                push(&[], counted(*value, def.unit))
            }
            (Kind::Histogram { first, last }, Some(Amount::Values(values))) => {
                let distribution = distribution(values, (first, last), def.unit);
                push(&[], Value::Histogram(distribution));
            }
            (Kind::WindowRatio | Kind::WindowQuantiles, _) => {
                for (size, window) in WINDOW_NAMES.iter().enumerate() {
                    let Some(amount) = last_final(shown, partition, size) else {
                        continue;
                    };
                    for (quantile, value) in gauges(amount) {
                        let window = [("window", *window)];
                        let quantile = quantile.map(|quantile| ("quantile", quantile));
                        let more: Vec<_> = window.into_iter().chain(quantile).collect();
                        push(&more, Value::Float(value));
                    }
                }
            }
            // A total that is missing, or has another form than the metric's kind, was written by another version.
            (Kind::Counter | Kind::UpDown | Kind::Histogram { .. }, _) => {}
        }
    }
}

/// A count of sub-units as a number of units. Nothing else turns counts of money into dollars and credits.
fn counted(value: i64, unit: Unit) -> Value {
    if unit.per() == 1 {
        return Value::Integer(value);
    }
    let sign = if value < 0 { "-" } else { "" };
    Value::Decimal(format!("{sign}{}", exact(value.unsigned_abs(), unit.per())))
}

/// The series' value in the latest final window of a size; `None` if the series has no row for that window.
#[must_use]
pub fn last_final<'s>(shown: &'s Shown, partition: &PartitionView, size: usize) -> Option<&'s Amount> {
    let latest = (*partition.latest_final.get(size)?)?;
    let (start, amount) = shown.last_final.get(&size)?;
    (*start == latest).then_some(amount)
}

/// The gauges of a window's amount: a ratio, or quantiles with their names.
fn gauges(amount: &Amount) -> Vec<(Option<&'static str>, f64)> {
    match amount {
        Amount::Ratio {
            numerator,
            denominator,
        } if *denominator > 0 => vec![(None, ratio(*numerator, *denominator))],
        Amount::Values(values) => QUANTILES
            .iter()
            .filter_map(|(thousandths, name)| Some((Some(*name), values.quantile(*thousandths)?)))
            .collect(),
        Amount::Ratio { .. } | Amount::Count(_) => Vec::new(),
    }
}

fn distribution(values: &Histogram, (first, last): (i32, i32), unit: Unit) -> Distribution {
    Distribution {
        count: values.count,
        sum: exact(values.sum, unit.per()),
        classic: values
            .cumulative_by_octave(first, last)
            .into_iter()
            .map(|(exponent, count)| (f64::from(exponent).exp2(), count))
            .collect(),
        native: Some(Native {
            schema: NATIVE_SCHEMA,
            zero: values.zero,
            buckets: values.buckets_at(NATIVE_SCHEMA),
        }),
    }
}

/// `part` divided by `whole`, which must not be 0, for display.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "for display: beyond 2^53 the relative error of the cast is 1e-16"
)]
pub fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// `sub_units` divided by `per`, which must be a power of ten, as an exact decimal.
#[must_use]
pub fn exact(sub_units: u64, per: u64) -> String {
    let (whole, rest) = (sub_units / per, sub_units % per);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = usize::try_from(per.ilog10()).unwrap_or_default();
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests;

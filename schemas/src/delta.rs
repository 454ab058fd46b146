//! What stage `sessions` sends to stage `series`: per series and minute, how much was added.

use crate::histogram::Histogram;
use crate::metric::{Amount, Label, Metric};
use prost::Message;
use std::collections::BTreeMap;

/// Between the parts of a series key; no label value contains it.
pub const SEPARATOR: char = '\u{1f}';

/// A series: a metric and the values of its labels, in the order of its definition.
///
/// Written as the metric's name and the values, with [`SEPARATOR`] between: the key of state, deltas and rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series<'k> {
    /// The metric.
    pub metric: Metric,
    /// One value for each of `metric.def().labels`; an empty one is not shown.
    pub values: Vec<&'k str>,
}

impl<'k> Series<'k> {
    /// Reads a series key; `None` if this build does not know the metric, or its labels were others.
    #[must_use]
    pub fn parse(key: &'k str) -> Option<Self> {
        let mut parts = key.split(SEPARATOR);
        let metric = Metric::by_name(parts.next()?)?;
        let values: Vec<&str> = parts.collect();
        (values.len() == metric.def().labels.len()).then_some(Self { metric, values })
    }

    /// The labels that have a value, with it.
    pub fn labels(&self) -> impl Iterator<Item = (Label, &'k str)> + '_ {
        self.metric
            .def()
            .labels
            .iter()
            .copied()
            .zip(self.values.iter().copied())
            .filter(|(_, value)| !value.is_empty())
    }
}

/// Where a delta belongs in event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Start of the slot (a minute by default), in ms of event time.
    pub start: i64,
    /// For how many of the window sizes, smallest first, it came too late for the final.
    pub late: u32,
    /// Start of the slot of its arrival, in ms of the partition clock; `None` if it was in time for all.
    pub arrival: Option<i64>,
}

/// Deltas of one source partition since its last record to this target, and how far the source has come.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeltaRecord {
    /// The raw partition.
    #[prost(int32, tag = "1")]
    pub source: i32,
    /// `position` of the source's last record to this target; 0 at first.
    #[prost(int64, tag = "2")]
    pub previous: i64,
    /// The source's position: everything before it is in this record or an earlier one.
    #[prost(int64, tag = "3")]
    pub position: i64,
    /// The source's partition clock, in ms.
    #[prost(int64, tag = "4")]
    pub clock: i64,
    /// Ordered by series, slot, late level and arrival.
    #[prost(message, repeated, tag = "5")]
    pub deltas: Vec<DeltaEntry>,
}

/// One delta.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeltaEntry {
    /// The series key, labels resolved.
    #[prost(string, tag = "1")]
    pub series: String,
    /// Start of the slot, ms.
    #[prost(int64, tag = "2")]
    pub slot: i64,
    /// Late level.
    #[prost(uint32, tag = "3")]
    pub late: u32,
    /// Start of the arrival slot, ms, if late.
    #[prost(int64, optional, tag = "4")]
    pub arrival: Option<i64>,
    /// How much.
    #[prost(message, optional, tag = "5")]
    pub amount: Option<AmountBytes>,
}

/// An [`Amount`] as written.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AmountBytes {
    #[prost(oneof = "AmountForm", tags = "1, 2, 3")]
    form: Option<AmountForm>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum AmountForm {
    #[prost(sint64, tag = "1")]
    Count(i64),
    #[prost(message, tag = "2")]
    Ratio(RatioBytes),
    #[prost(message, tag = "3")]
    Values(HistogramBytes),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RatioBytes {
    #[prost(uint64, tag = "1")]
    numerator: u64,
    #[prost(uint64, tag = "2")]
    denominator: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct HistogramBytes {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(uint64, tag = "2")]
    sum: u64,
    #[prost(uint64, tag = "3")]
    zero: u64,
    #[prost(sint32, repeated, tag = "4")]
    indexes: Vec<i32>,
    #[prost(uint64, repeated, tag = "5")]
    counts: Vec<u64>,
}

impl From<&Amount> for AmountBytes {
    fn from(amount: &Amount) -> Self {
        let form = match amount {
            Amount::Count(count) => AmountForm::Count(*count),
            Amount::Ratio {
                numerator,
                denominator,
            } => AmountForm::Ratio(RatioBytes {
                numerator: *numerator,
                denominator: *denominator,
            }),
            Amount::Values(histogram) => AmountForm::Values(HistogramBytes {
                count: histogram.count,
                sum: histogram.sum,
                zero: histogram.zero,
                indexes: histogram.buckets.keys().copied().collect(),
                counts: histogram.buckets.values().copied().collect(),
            }),
        };
        Self { form: Some(form) }
    }
}

impl From<&AmountBytes> for Amount {
    /// An absent form (a newer writer's) reads as a count of 0: it changes nothing.
    fn from(bytes: &AmountBytes) -> Self {
        match &bytes.form {
            None => Self::Count(0),
            Some(AmountForm::Count(count)) => Self::Count(*count),
            Some(AmountForm::Ratio(ratio)) => Self::Ratio {
                numerator: ratio.numerator,
                denominator: ratio.denominator,
            },
            Some(AmountForm::Values(values)) => Self::Values(Histogram {
                count: values.count,
                sum: values.sum,
                zero: values.zero,
                buckets: values
                    .indexes
                    .iter()
                    .copied()
                    .zip(values.counts.iter().copied())
                    .collect::<BTreeMap<_, _>>(),
            }),
        }
    }
}

/// The target partition of a series among `targets`: stable, by xxh3 of the key.
#[must_use]
pub fn target_of(series: &str, targets: i32) -> i32 {
    let count = u64::try_from(targets.max(1)).unwrap_or(1);
    i32::try_from(xxhash_rust::xxh3::xxh3_64(series.as_bytes()) % count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_survive_writing() {
        let mut histogram = Histogram::default();
        [0, 3, 700, 1 << 40]
            .iter()
            .for_each(|value| histogram.record(*value, 1_000));
        for amount in [
            Amount::Count(-3),
            Amount::Ratio {
                numerator: 1,
                denominator: 7,
            },
            Amount::Values(histogram),
        ] {
            assert_eq!(Amount::from(&AmountBytes::from(&amount)), amount);
        }
    }

    #[test]
    fn series_keys_are_checked_against_the_table() {
        let key = format!("tacho_event_time_clamped_total{SEPARATOR}default");
        assert_eq!(
            Series::parse(&key).map(|series| series.values),
            Some(vec!["default"])
        );
        assert_eq!(Series::parse("tacho_event_time_clamped_total"), None);
        assert_eq!(Series::parse("nobody_knows"), None);
    }
}

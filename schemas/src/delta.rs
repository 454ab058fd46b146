//! Deltas: what stages send to stage `series`. For each series and slot (a minute by default), how much was
//! added since the sender's last commit.
//!
//! A [`DeltaRecord`] says who sent it (stage and partition), `previous`, `position`, the sender's clock, and
//! the deltas. `previous` is the position in the last record of that sender to that target. The receiver
//! drops a record that is not above its last position of the sender, and stops where `previous` is not that
//! position: it does not rely on transactions alone. What does not fit into [`DELTA_RECORD_BYTES_MAX`] goes
//! on in further parts with the same position, in the same transaction; position and clock count with the
//! last part.
//!
//! The target of a series is xxh3 of its key modulo the number of targets. There are 8 targets by default,
//! however many partitions the raw topics have, since the time of a Kafka commit grows with the partitions
//! that it touches.
//!
//! **Invariant:** adding the deltas of any batching of the same records gives the same sums.

use crate::histogram::Histogram;
use crate::metric::{Amount, Label, Metric};
use crate::time::{EventTime, PartitionClock};
use prost::Message;
use std::collections::BTreeMap;

/// The character between the parts of a series key; no label value contains it.
pub const SEPARATOR: char = '\u{1f}';

/// A series: a metric and the values of its labels, in the order of its definition.
///
/// Written as the metric's name and the values, with [`SEPARATOR`] between them: the series key of state and
/// deltas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series<'k> {
    /// The metric.
    pub metric: Metric,
    /// The value of each of `metric.def().labels`; an empty value is not shown.
    pub values: Vec<&'k str>,
}

impl<'k> Series<'k> {
    /// Reads a series key; `None` if this version does not know the metric, or gives it another number of
    /// labels.
    #[must_use]
    pub fn parse(key: &'k str) -> Option<Self> {
        let mut parts = key.split(SEPARATOR);
        let metric = Metric::by_name(parts.next()?)?;
        let values: Vec<&str> = parts.collect();
        (values.len() == metric.def().labels.len()).then_some(Self { metric, values })
    }

    /// The labels that have a value, and the value of each.
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
    /// Start of the slot.
    pub start: EventTime,
    /// The late level: for how many of the window sizes, smallest first, the delta came too late for the
    /// final.
    pub late: u32,
    /// Start of the slot in which the delta arrived, by the partition clock; `None` if it was in time for all
    /// sizes.
    pub arrival: Option<PartitionClock>,
}

/// Deltas of one source since its last record to this target, and how far the source has come.
///
/// A source is an input partition of a stage that emits deltas. What does not fit into one record goes on in
/// further records of the same transaction, its *parts*: all have the same `previous`, `position` and
/// `clock`, which count with the last part only.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeltaRecord {
    /// The source's partition of the stage's input.
    #[prost(int32, tag = "1")]
    pub source: i32,
    /// `position` of the source's last record to this target; 0 in the first one.
    #[prost(int64, tag = "2")]
    pub previous: i64,
    /// The source's position: everything before it is in this record, in another part of it or in an earlier
    /// record.
    #[prost(int64, tag = "3")]
    pub position: i64,
    /// The source's clock, ms.
    #[prost(int64, tag = "4")]
    pub clock: i64,
    /// The deltas, ordered by series, slot, late level and arrival over all parts.
    #[prost(message, repeated, tag = "5")]
    pub deltas: Vec<DeltaEntry>,
    /// The source's stage ([`crate::stage::StageDef::code`]). Records of older versions carry none, which
    /// reads as stage `sessions`.
    #[prost(uint32, tag = "6")]
    pub stage: u32,
    /// The number of this part, from 0.
    #[prost(uint32, tag = "7")]
    pub part: u32,
    /// How many parts there are; absent if there is one.
    #[prost(uint32, tag = "8")]
    pub of: u32,
}

impl DeltaRecord {
    /// Whether no part follows this one.
    #[must_use]
    pub const fn is_last_part(&self) -> bool {
        self.part.saturating_add(1) >= self.of
    }
}

/// The most bytes of a delta record; what does not fit goes on in the next part.
pub const DELTA_RECORD_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a delta record beside its deltas: its numbers, each with its tag.
pub const DELTA_RECORD_HEAD_BYTES_MAX: usize = 7 * VARINT_BYTES_MAX;

/// The most bytes of a field that is a 64-bit number, its tag included.
const VARINT_BYTES_MAX: usize = 11;
/// The most bytes of a delta beside its series key and its histogram's buckets: nine numbers, and the tag and
/// length of entry, key, amount, histogram and its two lists.
const ENTRY_BYTES_MAX: usize = 9 * VARINT_BYTES_MAX + 6 * 6;
/// The most bytes of one bucket of a histogram: its index and its count.
pub const BUCKET_BYTES_MAX: usize = 5 + 10;

/// The most bytes that a delta takes in a [`DeltaRecord`], found without encoding it.
#[must_use]
pub fn entry_bytes_max(series: &str, amount: &Amount) -> usize {
    let buckets = match amount {
        Amount::Count(_) | Amount::Ratio { .. } => 0,
        Amount::Values(histogram) => histogram.buckets.len(),
    };
    ENTRY_BYTES_MAX + series.len() + buckets * BUCKET_BYTES_MAX
}

/// One delta: how much is added to one series in one slot.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeltaEntry {
    /// The series key, with the label values that are shown.
    #[prost(string, tag = "1")]
    pub series: String,
    /// Start of the slot, ms of event time.
    #[prost(int64, tag = "2")]
    pub slot: i64,
    /// The late level: for how many of the window sizes the delta came too late.
    #[prost(uint32, tag = "3")]
    pub late: u32,
    /// Start of the slot of arrival, ms; absent if the delta was in time.
    #[prost(int64, optional, tag = "4")]
    pub arrival: Option<i64>,
    /// How much is added.
    #[prost(message, optional, tag = "5")]
    pub amount: Option<AmountBytes>,
}

/// The encoded form of an [`Amount`].
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
    /// A form that this version does not know reads as a count of 0, which changes nothing.
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

/// The partition of the deltas topic that a series goes to, of `targets` partitions: the same in every
/// version.
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
    fn an_entry_is_never_larger_than_its_bound() {
        let mut histogram = Histogram::default();
        (0..63).for_each(|power| histogram.record(1 << power, 1));
        (histogram.count, histogram.sum, histogram.zero) = (u64::MAX, u64::MAX, u64::MAX);
        histogram.buckets.values_mut().for_each(|count| *count = u64::MAX);
        let ratio = Amount::Ratio {
            numerator: u64::MAX,
            denominator: u64::MAX,
        };
        for amount in [Amount::Count(i64::MIN), ratio, Amount::Values(histogram)] {
            for series in ["", "s", &"x".repeat(100_000)] {
                let entry = DeltaEntry {
                    series: series.to_owned(),
                    slot: i64::MIN,
                    late: u32::MAX,
                    arrival: Some(i64::MIN),
                    amount: Some(AmountBytes::from(&amount)),
                };
                let mut record = DeltaRecord {
                    source: -1,
                    previous: i64::MIN,
                    position: i64::MIN,
                    clock: i64::MIN,
                    deltas: Vec::new(),
                    stage: u32::MAX,
                    part: u32::MAX,
                    of: u32::MAX,
                };
                assert!(record.encoded_len() <= DELTA_RECORD_HEAD_BYTES_MAX);
                record.deltas.push(entry);
                let bound = DELTA_RECORD_HEAD_BYTES_MAX + entry_bytes_max(series, &amount);
                assert!(
                    record.encoded_len() <= bound,
                    "{} > {bound}",
                    record.encoded_len()
                );
            }
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

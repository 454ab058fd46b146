//! The row of the windows topics. Its fields are those of `avro/codex.windows.v1.avsc`, in the same order.

use crate::delta::Series;
use crate::derived::RowError;
use crate::derived::avro::AvroCodec;
use crate::histogram;
use crate::metric::{Amount, Metric};
use crate::topic::Topic;
use serde::{Deserialize, Serialize};
use serde_json::json;
use strum::VariantArray;

/// The Avro schema of the three windows topics.
pub const WINDOWS_AVSC: &str = include_str!("../../avro/codex.windows.v1.avsc");

static CODEC: AvroCodec = AvroCodec::new(WINDOWS_AVSC, &[]);

/// A window size; its length is in the seed ([`crate::settings::TimeRules::window_sizes_ms`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub enum WindowSize {
    /// The smallest: a minute by default.
    Small,
    /// The middle one: five minutes by default.
    Middle,
    /// The largest: an hour by default.
    Large,
}

impl WindowSize {
    /// The size at `index` of the seed's sizes, from 0; `None` beyond the third, which no valid seed has.
    #[must_use]
    pub fn at(index: usize) -> Option<Self> {
        Self::VARIANTS.get(index).copied()
    }

    /// The topic with the rows of windows of this size.
    #[must_use]
    pub const fn topic(self) -> Topic {
        match self {
            Self::Small => Topic::Windows1m,
            Self::Middle => Topic::Windows5m,
            Self::Large => Topic::Windows1h,
        }
    }
}

/// What was added to one series in one window: the final, or a correction to be added to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Window")]
pub struct WindowRow {
    /// Name of the metric.
    pub metric: String,
    /// The labels that have a value, in the order of the metric's definition.
    pub labels: Vec<LabelValue>,
    /// Length of the window, ms.
    pub size_ms: i64,
    /// Start of the window, ms.
    pub start_ms: i64,
    /// End of the window, ms.
    pub end_ms: i64,
    /// For a correction, the start of the slot in which its records arrived, ms of the partition clock;
    /// `None` for the final.
    pub arrival_ms: Option<i64>,
    /// How much was added.
    pub value: WindowValue,
}

/// A label of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelValue {
    /// The label's name.
    pub name: String,
    /// The label's value, never empty.
    pub value: String,
}

/// How much was added, in the form of the metric's kind. The order of variants is that of the schema's union.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowValue {
    /// The value of a counter or an up-down counter.
    Count {
        /// How much was added; money is in nano-dollars or millionths of a credit.
        count: i64,
    },
    /// The value of a ratio, as two sums.
    Ratio {
        /// How many of the things counted in `denominator` have the property.
        numerator: i64,
        /// How many things there are.
        denominator: i64,
    },
    /// The value of a distribution, as a [`histogram::Histogram`].
    Histogram {
        /// The scale of the buckets: [`histogram::SCALE`].
        scale: i32,
        /// How many sub-units of `sum` make one unit.
        per_unit: i64,
        /// Number of values.
        count: i64,
        /// Sum of the values, in sub-units.
        sum: i64,
        /// Number of values that were 0.
        zero: i64,
        /// The buckets that hold values, by ascending index.
        buckets: Vec<Bucket>,
    },
}

/// A bucket of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The bucket's index at the row's scale.
    pub index: i32,
    /// How many values the bucket holds.
    pub count: i64,
}

/// The name in the rows that tell that a window is complete on their partition; no metric has it.
pub const COMPLETE: &str = "tacho_window_complete";

/// The quantiles in [`WindowRow::to_json`]: name, and value in thousandths.
const QUANTILES: [(&str, u64); 4] = [("p50", 500), ("p90", 900), ("p95", 950), ("p99", 990)];

impl WindowRow {
    /// The row of a series' window; `None` if this version does not know the key's metric, or gives it
    /// another number of labels.
    #[must_use]
    pub fn new(
        series_key: &str,
        size_ms: i64,
        start_ms: i64,
        arrival_ms: Option<i64>,
        amount: &Amount,
    ) -> Option<Self> {
        let series = Series::parse(series_key)?;
        let definition = series.metric.def();
        let labels = series.labels().map(|(label, value)| LabelValue {
            name: label.def().name.to_owned(),
            value: value.to_owned(),
        });
        let value = match amount {
            Amount::Count(count) => WindowValue::Count { count: *count },
            Amount::Ratio {
                numerator,
                denominator,
            } => WindowValue::Ratio {
                numerator: long(*numerator),
                denominator: long(*denominator),
            },
            Amount::Values(values) => WindowValue::Histogram {
                scale: histogram::SCALE,
                per_unit: long(definition.unit.per()),
                count: long(values.count),
                sum: long(values.sum),
                zero: long(values.zero),
                buckets: values
                    .buckets
                    .iter()
                    .map(|(index, count)| Bucket {
                        index: *index,
                        count: long(*count),
                    })
                    .collect(),
            },
        };
        Some(Self {
            metric: definition.name.to_owned(),
            labels: labels.collect(),
            size_ms,
            start_ms,
            end_ms: start_ms.saturating_add(size_ms),
            arrival_ms,
            value,
        })
    }

    /// The row that tells that a window is complete on its partition: all of its finals are before it.
    #[must_use]
    pub fn complete(size_ms: i64, start_ms: i64) -> Self {
        Self {
            metric: COMPLETE.to_owned(),
            labels: Vec::new(),
            size_ms,
            start_ms,
            end_ms: start_ms.saturating_add(size_ms),
            arrival_ms: None,
            value: WindowValue::Count { count: 1 },
        }
    }

    /// The series as Prometheus writes it, `metric{label="value",…}`: the key of the row's record.
    #[must_use]
    pub fn series(&self) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|label| format!("{}={:?}", label.name, label.value))
            .collect();
        format!("{}{{{}}}", self.metric, labels.join(","))
    }

    /// About how many bytes labels and buckets take in the record's key and value.
    pub(super) fn variable_bytes(&self) -> usize {
        let labels: usize = self
            .labels
            .iter()
            .map(|label| 2 * (label.name.len() + label.value.len()))
            .sum();
        let buckets = match &self.value {
            WindowValue::Count { .. } | WindowValue::Ratio { .. } => 0,
            WindowValue::Histogram { buckets, .. } => buckets.len(),
        };
        labels + buckets * size_of::<Bucket>()
    }

    /// The row in Avro's single-object encoding. Equal rows always have equal bytes.
    ///
    /// # Panics
    /// Never: a test writes rows of every shape.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        CODEC.encode(self)
    }

    /// Reads a row in Avro's single-object encoding.
    ///
    /// # Errors
    /// The bytes are not a row of this schema.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        CODEC.decode(bytes)
    }

    /// The row as a JSON object for people. It adds what the topic does not hold: `quantiles`, in units,
    /// beside a distribution; `ratio` beside a ratio; `per_unit` beside a count of sub-units.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut row = json!({
            "metric": self.metric,
            "labels": self.labels,
            "size_ms": self.size_ms,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "arrival_ms": self.arrival_ms,
        });
        match &self.value {
            WindowValue::Count { count } => {
                row["value"] = json!({ "count": count });
                // Counts of money are in nano-dollars or millionths of a credit.
                let per_unit = Metric::by_name(&self.metric).map_or(1, |metric| metric.def().unit.per());
                if per_unit != 1 {
                    row["value"]["per_unit"] = json!(per_unit);
                }
            }
            WindowValue::Ratio {
                numerator,
                denominator,
            } => {
                row["value"] = json!({ "numerator": numerator, "denominator": denominator });
                row["ratio"] = if *denominator == 0 {
                    json!(null)
                } else {
                    json!(*numerator as f64 / *denominator as f64)
                };
            }
            WindowValue::Histogram {
                scale,
                per_unit,
                count,
                sum,
                zero,
                buckets,
            } => {
                row["value"] = json!({
                    "scale": scale, "per_unit": per_unit, "count": count, "sum": sum, "zero": zero, "buckets": buckets,
                });
                if let Some(values) = self.histogram() {
                    row["quantiles"] = QUANTILES
                        .iter()
                        .map(|(name, thousandths)| ((*name).to_owned(), json!(values.quantile(*thousandths))))
                        .collect::<serde_json::Map<_, _>>()
                        .into();
                }
            }
        }
        row
    }

    /// The distribution that the row holds; `None` for a row with a value of another form or scale.
    #[must_use]
    pub fn histogram(&self) -> Option<histogram::Histogram> {
        let WindowValue::Histogram {
            scale: histogram::SCALE,
            count,
            sum,
            zero,
            buckets,
            ..
        } = &self.value
        else {
            return None;
        };
        Some(histogram::Histogram {
            count: natural(*count),
            sum: natural(*sum),
            zero: natural(*zero),
            buckets: buckets
                .iter()
                .map(|bucket| (bucket.index, natural(bucket.count)))
                .collect(),
        })
    }
}

/// A count as Avro's `long`, its only 64-bit integer, which is signed.
fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn natural(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

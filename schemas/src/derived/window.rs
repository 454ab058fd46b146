//! The row of the windows topics. Its fields are those of `avro/codex.windows.v1.avsc`, in that order.

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

/// One of the window sizes; their lengths are in the seed ([`crate::settings::TimeRules::window_sizes_ms`]).
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
    /// The size at that place among the seed's sizes, from 0; `None` beyond the third, which no valid seed has.
    #[must_use]
    pub fn at(index: usize) -> Option<Self> {
        Self::VARIANTS.get(index).copied()
    }

    /// The topic of its rows.
    #[must_use]
    pub const fn topic(self) -> Topic {
        match self {
            Self::Small => Topic::Windows1m,
            Self::Middle => Topic::Windows5m,
            Self::Large => Topic::Windows1h,
        }
    }
}

/// What one series did in one window: its final, or a correction to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Window")]
pub struct WindowRow {
    /// Name of the metric.
    pub metric: String,
    /// Labels in the order of the metric's definition; those without a value are left out.
    pub labels: Vec<LabelValue>,
    /// Length of the window, ms.
    pub size_ms: i64,
    /// Start of the window, ms.
    pub start_ms: i64,
    /// End of the window, ms.
    pub end_ms: i64,
    /// `None`: the final. Else a correction: start of the slot of its arrival, ms of the partition clock.
    pub arrival_ms: Option<i64>,
    /// How much.
    pub value: WindowValue,
}

/// A label of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelValue {
    /// Its name.
    pub name: String,
    /// Its value, never empty.
    pub value: String,
}

/// How much, in the form that the metric's kind asks for. The order of variants is that of the schema's union.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowValue {
    /// For a counter or an up-down counter.
    Count {
        /// How much was added: for money, in nano-dollars or millionths of a credit.
        count: i64,
    },
    /// For a ratio.
    Ratio {
        /// Of those…
        numerator: i64,
        /// …among these.
        denominator: i64,
    },
    /// For a distribution: see [`histogram::Histogram`].
    Histogram {
        /// [`histogram::SCALE`].
        scale: i32,
        /// How many sub-units of `sum` make one unit.
        per_unit: i64,
        /// Number of values.
        count: i64,
        /// Their sum, in sub-units.
        sum: i64,
        /// Number of values that were 0.
        zero: i64,
        /// By ascending index.
        buckets: Vec<Bucket>,
    },
}

/// A bucket that holds values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its index.
    pub index: i32,
    /// How many values it holds.
    pub count: i64,
}

/// The quantiles that are shown, in thousandths.
const QUANTILES: [(&str, u64); 4] = [("p50", 500), ("p90", 900), ("p95", 950), ("p99", 990)];

impl WindowRow {
    /// The row of a series; `None` if this build does not know the key's metric, or its labels were others.
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

    /// The series as people and Prometheus write it: `metric{label="value",…}`; the key of the row's record.
    #[must_use]
    pub fn series(&self) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|label| format!("{}={:?}", label.name, label.value))
            .collect();
        format!("{}{{{}}}", self.metric, labels.join(","))
    }

    /// How many bytes labels and buckets take, in key and value together.
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

    /// The row in Avro's single-object encoding: the same bytes for the same row, always.
    ///
    /// # Panics
    /// Never: a test writes rows of every shape.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        CODEC.encode(self)
    }

    /// Reads a row.
    ///
    /// # Errors
    /// The bytes are not a row of this schema.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        CODEC.decode(bytes)
    }

    /// The row for people: with `quantiles` in units beside a distribution, `ratio` beside a ratio and `per_unit` beside a
    /// count of parts of its unit, none of which is in the topic.
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
                // Money: the count is of nano-dollars, or of millionths of a credit.
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

    /// The distribution; `None` for a row of another form or another scale.
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

/// Avro's only 64-bit integer is signed.
fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn natural(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

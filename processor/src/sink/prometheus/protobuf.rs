//! The protobuf format: messages `io.prometheus.client.MetricFamily`, each after its length.
//!
//! Histograms have their classic and their native form; a scraper uses the one that it is configured for. The messages are
//! prost structs written by hand, because the crates that have this format set no timestamps, and their builds need `protoc`.
//!
//! Source: `metrics.proto` of github.com/prometheus/client_model, version 0.6; fields that are not set here are left out.

use super::model::{Distribution, Family, FamilyKind, Native, Sample, Value};
use prost::{Enumeration, Message};
use std::collections::BTreeMap;

/// The value of `Content-Type`.
pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Half the width of the bucket around 0: 2^-128, as in other client libraries, so that merging with theirs widens nothing. The
/// smallest value above 0 is a millionth of a unit, so this bucket holds exactly the zeros.
pub const ZERO_THRESHOLD: f64 = f64::from_bits((1023 - 128) << 52);

#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub help: Option<String>,
    #[prost(enumeration = "MetricType", optional, tag = "3")]
    pub r#type: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum MetricType {
    Counter = 0,
    Gauge = 1,
    Summary = 2,
    Untyped = 3,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    pub summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Number>,
    #[prost(int64, optional, tag = "6")]
    pub timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// The messages `Gauge`, `Counter` and `Untyped`, which all have this field only.
#[derive(Clone, PartialEq, Message)]
pub struct Number {
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub quantile: Vec<Quantile>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Quantile {
    #[prost(double, optional, tag = "1")]
    pub quantile: Option<f64>,
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

/// Encodes families in their order, each after its length.
#[must_use]
pub fn encode(families: &[Family]) -> Vec<u8> {
    families
        .iter()
        .map(family)
        .flat_map(|family| family.encode_length_delimited_to_vec())
        .collect()
}

fn family(family: &Family) -> MetricFamily {
    let kind = match family.kind {
        FamilyKind::Counter => MetricType::Counter,
        FamilyKind::Gauge => MetricType::Gauge,
        FamilyKind::Histogram => MetricType::Histogram,
        FamilyKind::Summary => MetricType::Summary,
        FamilyKind::Untyped => MetricType::Untyped,
    };
    MetricFamily {
        name: Some(family.name.to_string()),
        help: (!family.help.is_empty()).then(|| family.help.to_string()),
        r#type: Some(kind as i32),
        metric: family
            .samples
            .iter()
            .map(|sample| metric(family.kind, sample))
            .collect(),
    }
}

fn metric(kind: FamilyKind, sample: &Sample) -> Metric {
    let label = |(name, value): &(_, String)| LabelPair {
        name: Some(ToString::to_string(name)),
        value: Some(value.clone()),
    };
    let mut metric = Metric {
        label: sample.labels.iter().map(label).collect(),
        timestamp_ms: sample.at,
        ..Metric::default()
    };
    match &sample.value {
        Value::Integer(value) => number(&mut metric, kind, float(*value)),
        Value::Decimal(value) => number(&mut metric, kind, decimal(value).unwrap_or(f64::NAN)),
        Value::Float(value) => number(&mut metric, kind, *value),
        Value::Histogram(values) => metric.histogram = Some(histogram(values)),
        Value::Summary {
            count,
            sum,
            quantiles,
        } => {
            let quantile = |&(quantile, value): &(f64, f64)| Quantile {
                quantile: Some(quantile),
                value: Some(value),
            };
            metric.summary = Some(Summary {
                sample_count: Some(*count),
                sample_sum: decimal(sum),
                quantile: quantiles.iter().map(quantile).collect(),
            });
        }
    }
    metric
}

fn number(metric: &mut Metric, kind: FamilyKind, value: f64) {
    let value = Some(Number { value: Some(value) });
    match kind {
        FamilyKind::Counter => metric.counter = value,
        FamilyKind::Gauge => metric.gauge = value,
        FamilyKind::Untyped | FamilyKind::Histogram | FamilyKind::Summary => metric.untyped = value,
    }
}

fn histogram(values: &Distribution) -> Histogram {
    let infinite = (f64::INFINITY, values.count);
    let bucket = |&(bound, count): &(f64, u64)| Bucket {
        cumulative_count: Some(count),
        upper_bound: Some(bound),
    };
    let mut shown = Histogram {
        sample_count: Some(values.count),
        sample_sum: decimal(&values.sum),
        bucket: values.classic.iter().chain([&infinite]).map(bucket).collect(),
        ..Histogram::default()
    };
    if let Some(Native {
        schema,
        zero,
        buckets,
    }) = &values.native
    {
        shown.schema = Some(*schema);
        // With a threshold above 0, a scraper sees a native histogram even if it has no buckets yet.
        shown.zero_threshold = Some(ZERO_THRESHOLD);
        shown.zero_count = Some(*zero);
        (shown.positive_span, shown.positive_delta) = spans(buckets);
    }
    shown
}

/// The spans of a native histogram (runs of buckets without a gap), and the difference of each bucket's count from that of the
/// bucket before.
fn spans(buckets: &BTreeMap<i32, u64>) -> (Vec<BucketSpan>, Vec<i64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut deltas = Vec::with_capacity(buckets.len());
    let (mut next, mut before) = (0, 0);
    for (&index, &count) in buckets {
        match spans.last_mut() {
            Some(BucketSpan {
                length: Some(length), ..
            }) if index == next => *length += 1,
            _ => spans.push(BucketSpan {
                offset: Some(index - next),
                length: Some(1),
            }),
        }
        next = index + 1;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        before = count;
    }
    (spans, deltas)
}

/// A decimal as the nearest double, which a reader of the text gets too.
fn decimal(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the format has doubles only: counts up to 2^53 are exact"
)]
fn float(value: i64) -> f64 {
    value as f64
}

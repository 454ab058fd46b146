//! Makes requests of every shape, with a canary wherever text must not stay.

use crate::model::{holds_text, is_safe};
use ingest::prepare::privacy::TRACE_SAFE;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use proptest::prelude::*;
use schemas::event::PRIVATE_KEYS;

/// A text that must be in no cleaned request.
pub const CANARY: &str = "canary-7f3a";

pub fn holding(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

pub fn text(text: &str) -> AnyValue {
    holding(Value::StringValue(text.to_owned()))
}

pub fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..Default::default()
    }
}

pub fn int(key: &str, number: usize) -> KeyValue {
    pair(key, holding(Value::IntValue(number as i64)))
}

pub fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(AnyValue { value: None }),
        "[a-zé]{0,6}".prop_map(|plain| text(&plain)),
        any::<i64>().prop_map(|number| holding(Value::IntValue(number))),
        any::<bool>().prop_map(|flag| holding(Value::BoolValue(flag))),
        Just(holding(Value::DoubleValue(0.5))),
        Just(holding(Value::BytesValue(b"bytes".to_vec()))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|values| holding(Value::ArrayValue(ArrayValue { values }))),
            prop::collection::vec((key(), inner), 0..3).prop_map(|pairs| {
                let values = pairs.into_iter().map(|(key, value)| pair(key, value)).collect();
                holding(Value::KvlistValue(KeyValueList { values }))
            }),
        ]
    })
}

pub fn key() -> impl Strategy<Value = &'static str> {
    let mut keys = PRIVATE_KEYS.to_vec();
    keys.extend([
        "model",
        "note",
        "prompt_length",
        "tacho.prompt.bytes",
        "tacho.exit_code",
        "",
        "Prompt",
        "conversation.id",
        "sender_thread_id",
        "receiver_thread_id",
    ]);
    prop::sample::select(keys)
}

/// Attributes with any keys and values, and a canary wherever text must not stay.
pub fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec((key(), value()).prop_map(|(key, value)| pair(key, value)), 0..4).prop_map(
        |mut list| {
            list.iter_mut().for_each(plant);
            list
        },
    )
}

pub fn body() -> impl Strategy<Value = Option<AnyValue>> {
    prop::option::of(value()).prop_map(|mut body| {
        if let Some(body) = &mut body
            && holds_text(body)
        {
            fill(body);
        }
        body
    })
}

/// Puts the canary into an attribute wherever text must not stay.
pub fn plant(pair: &mut KeyValue) {
    let Some(value) = &mut pair.value else { return };
    if PRIVATE_KEYS.contains(&pair.key.as_str()) || pair.key.starts_with("tacho.") {
        fill(value);
        return;
    }
    match &mut value.value {
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(plant_value),
        Some(Value::KvlistValue(list)) => list.values.iter_mut().for_each(plant),
        _ => {}
    }
}

pub fn plant_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(plant_value),
        Some(Value::KvlistValue(list)) => list.values.iter_mut().for_each(plant),
        _ => {}
    }
}

/// Puts the canary into every text of a value.
pub fn fill(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::StringValue(text)) => text.push_str(CANARY),
        Some(Value::BytesValue(bytes)) => bytes.extend_from_slice(CANARY.as_bytes()),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(fill),
        Some(Value::KvlistValue(list)) => list
            .values
            .iter_mut()
            .filter_map(|pair| pair.value.as_mut())
            .for_each(fill),
        _ => {}
    }
}

pub fn resource(attributes: &[KeyValue]) -> Option<Resource> {
    Some(Resource {
        attributes: attributes.to_vec(),
        ..Default::default()
    })
}

pub fn scope(attributes: &[KeyValue]) -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "codex_otel.log_only".to_owned(),
        attributes: attributes.to_vec(),
        ..Default::default()
    })
}

pub fn logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let record = (attributes(), body()).prop_map(|(attributes, body)| LogRecord {
        observed_time_unix_nano: 7,
        severity_number: 9,
        trace_id: vec![1; 16],
        flags: 1,
        attributes,
        body,
        ..Default::default()
    });
    (attributes(), attributes(), prop::collection::vec(record, 0..4)).prop_map(
        |(of_resource, of_scope, log_records)| {
            let scope_logs = vec![ScopeLogs {
                scope: scope(&of_scope),
                log_records,
                schema_url: "url".to_owned(),
            }];
            ExportLogsServiceRequest {
                resource_logs: vec![ResourceLogs {
                    resource: resource(&of_resource),
                    scope_logs,
                    ..Default::default()
                }],
            }
        },
    )
}

pub fn traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let target = prop::option::of(prop::sample::select(vec![
        TRACE_SAFE,
        "codex_otel.trace_safe.sub",
        "codex_otel.trace_safely",
        "hyper",
    ]));
    let event = (attributes(), target).prop_map(|(mut attributes, target)| {
        if !target.is_some_and(is_safe) {
            attributes
                .iter_mut()
                .filter_map(|pair| pair.value.as_mut())
                .for_each(fill);
        }
        attributes.extend(target.map(|target| pair("target", text(target))));
        span::Event {
            time_unix_nano: 3,
            name: "event".to_owned(),
            attributes,
            ..Default::default()
        }
    });
    let lists = prop::array::uniform4(attributes());
    (lists, prop::collection::vec(event, 0..3)).prop_map(
        |([of_resource, of_scope, of_span, of_link], events)| {
            let link = span::Link {
                trace_id: vec![2; 16],
                attributes: of_link,
                ..Default::default()
            };
            let span = Span {
                name: "run_turn".to_owned(),
                attributes: of_span,
                events,
                links: vec![link],
                ..Default::default()
            };
            let scope_spans = vec![ScopeSpans {
                scope: scope(&of_scope),
                spans: vec![span],
                ..Default::default()
            }];
            ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans {
                    resource: resource(&of_resource),
                    scope_spans,
                    ..Default::default()
                }],
            }
        },
    )
}

/// The attributes of each part of a metrics request.
#[derive(Clone, Debug)]
struct Lists {
    resource: Vec<KeyValue>,
    scope: Vec<KeyValue>,
    metric: Vec<KeyValue>,
    number: Vec<KeyValue>,
    histogram: Vec<KeyValue>,
    exponential: Vec<KeyValue>,
    summary: Vec<KeyValue>,
    exemplar: Vec<KeyValue>,
}

/// Data of each kind, with attributes in every point and exemplar.
fn data(lists: &Lists) -> [Data; 5] {
    let exemplars = vec![Exemplar {
        filtered_attributes: lists.exemplar.clone(),
        span_id: vec![1; 8],
        ..Default::default()
    }];
    let number = NumberDataPoint {
        attributes: lists.number.clone(),
        exemplars: exemplars.clone(),
        ..Default::default()
    };
    let histogram = HistogramDataPoint {
        attributes: lists.histogram.clone(),
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![0.5],
        exemplars: exemplars.clone(),
        ..Default::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        attributes: lists.exponential.clone(),
        scale: -3,
        exemplars,
        ..Default::default()
    };
    let summary = SummaryDataPoint {
        attributes: lists.summary.clone(),
        ..Default::default()
    };
    [
        Data::Gauge(Gauge {
            data_points: vec![number.clone()],
        }),
        Data::Sum(Sum {
            data_points: vec![number],
            aggregation_temporality: 1,
            is_monotonic: true,
        }),
        Data::Histogram(Histogram {
            data_points: vec![histogram],
            aggregation_temporality: 1,
        }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exponential],
            aggregation_temporality: 1,
        }),
        Data::Summary(Summary {
            data_points: vec![summary],
        }),
    ]
}

pub fn metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let lists = prop::array::uniform8(attributes()).prop_map(
        |[
            resource,
            scope,
            metric,
            number,
            histogram,
            exponential,
            summary,
            exemplar,
        ]| Lists {
            resource,
            scope,
            metric,
            number,
            histogram,
            exponential,
            summary,
            exemplar,
        },
    );
    lists.prop_map(|lists| {
        let metrics = data(&lists).map(|data| Metric {
            name: "codex.x".to_owned(),
            metadata: lists.metric.clone(),
            data: Some(data),
            ..Default::default()
        });
        let scope_metrics = vec![ScopeMetrics {
            scope: scope(&lists.scope),
            metrics: metrics.to_vec(),
            ..Default::default()
        }];
        let resource_metrics = vec![ResourceMetrics {
            resource: resource(&lists.resource),
            scope_metrics,
            ..Default::default()
        }];
        ExportMetricsServiceRequest { resource_metrics }
    })
}

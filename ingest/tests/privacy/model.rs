//! The rules of cleaning once more, on decoded messages: simple, slow, and sharing nothing with the walker.

use crate::given::int;
use ingest::prepare::privacy::TRACE_SAFE;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Gauge, Sum};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use schemas::event::PRIVATE_KEYS;

/// The names of the fields that a policy keeps.
pub type Fields<'a> = &'a [&'a str];

pub fn is_safe(target: &str) -> bool {
    target
        .strip_prefix(TRACE_SAFE)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

pub fn holds_text(value: &AnyValue) -> bool {
    match &value.value {
        Some(Value::StringValue(_) | Value::BytesValue(_)) => true,
        Some(Value::ArrayValue(list)) => list.values.iter().any(holds_text),
        Some(Value::KvlistValue(list)) => list
            .values
            .iter()
            .filter_map(|pair| pair.value.as_ref())
            .any(holds_text),
        _ => false,
    }
}

/// The size of a value, as `tacho.<key>.bytes` tells it.
pub fn size(value: &AnyValue) -> usize {
    match &value.value {
        Some(Value::StringValue(text)) => text.len(),
        _ => value.encoded_len(),
    }
}

/// Cleans attributes, and what is in their values.
pub fn clean(list: &mut Vec<KeyValue>, kept: Fields<'_>) {
    list.retain(|pair| !pair.key.starts_with("tacho."));
    for pair in list {
        if PRIVATE_KEYS.contains(&pair.key.as_str()) && !kept.contains(&pair.key.as_str()) {
            *pair = int(
                &format!("tacho.{}.bytes", pair.key),
                pair.value.as_ref().map_or(0, size),
            );
        } else if let Some(value) = &mut pair.value {
            clean_value(value, kept);
        }
    }
}

/// Cleans the attributes of a span or link, of which texts are removed too unless their key is private or a known name.
pub fn clean_span(list: &mut Vec<KeyValue>, kept: Fields<'_>) {
    let is_name = |pair: &KeyValue| {
        ["model", "conversation.id"].contains(&pair.key.as_str())
            && pair.value.as_ref().is_none_or(|value| value.encoded_len() <= 128)
    };
    let stays = |pair: &KeyValue| {
        PRIVATE_KEYS.contains(&pair.key.as_str())
            || is_name(pair)
            || !pair.value.as_ref().is_some_and(holds_text)
    };
    list.retain(|pair| kept.contains(&"span_attributes") || stays(pair));
    clean(list, kept);
}

pub fn clean_value(value: &mut AnyValue, kept: Fields<'_>) {
    match &mut value.value {
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(|value| clean_value(value, kept)),
        Some(Value::KvlistValue(list)) => clean(&mut list.values, kept),
        _ => {}
    }
}

pub fn clean_envelope(resource: &mut Option<Resource>, kept: Fields<'_>) {
    resource
        .iter_mut()
        .for_each(|resource| clean(&mut resource.attributes, kept));
}

pub fn clean_scope(scope: &mut Option<InstrumentationScope>, kept: Fields<'_>) {
    scope
        .iter_mut()
        .for_each(|scope| clean(&mut scope.attributes, kept));
}

pub fn clean_logs(request: &mut ExportLogsServiceRequest, kept: Fields<'_>) {
    for logs in &mut request.resource_logs {
        clean_envelope(&mut logs.resource, kept);
        for scope in &mut logs.scope_logs {
            clean_scope(&mut scope.scope, kept);
            for record in &mut scope.log_records {
                clean(&mut record.attributes, kept);
                if let Some(body) = record
                    .body
                    .take_if(|body| !kept.contains(&"body") && holds_text(body))
                {
                    record.attributes.push(int("tacho.body.bytes", size(&body)));
                }
                record.body.iter_mut().for_each(|value| clean_value(value, kept));
            }
        }
    }
}

pub fn clean_traces(request: &mut ExportTraceServiceRequest, kept: Fields<'_>) {
    for spans in &mut request.resource_spans {
        clean_envelope(&mut spans.resource, kept);
        for scope in &mut spans.scope_spans {
            clean_scope(&mut scope.scope, kept);
            for span in &mut scope.spans {
                clean_span(&mut span.attributes, kept);
                span.links
                    .iter_mut()
                    .for_each(|link| clean_span(&mut link.attributes, kept));
                span.events.retain(|event| {
                    if kept.contains(&"span_events") {
                        return true;
                    }
                    let target = event.attributes.iter().find(|pair| pair.key == "target").and_then(|pair| pair.value.as_ref());
                    matches!(target, Some(AnyValue { value: Some(Value::StringValue(target)) }) if is_safe(target))
                });
                span.events
                    .iter_mut()
                    .for_each(|event| clean(&mut event.attributes, kept));
            }
        }
    }
}

pub fn clean_exemplars(exemplars: &mut [Exemplar], kept: Fields<'_>) {
    exemplars
        .iter_mut()
        .for_each(|exemplar| clean(&mut exemplar.filtered_attributes, kept));
}

pub fn clean_metrics(request: &mut ExportMetricsServiceRequest, kept: Fields<'_>) {
    for metrics in &mut request.resource_metrics {
        clean_envelope(&mut metrics.resource, kept);
        for scope in &mut metrics.scope_metrics {
            clean_scope(&mut scope.scope, kept);
            for metric in &mut scope.metrics {
                clean(&mut metric.metadata, kept);
                match metric.data.as_mut().unwrap() {
                    Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => {
                        data_points.iter_mut().for_each(|point| {
                            clean(&mut point.attributes, kept);
                            clean_exemplars(&mut point.exemplars, kept);
                        })
                    }
                    Data::Histogram(histogram) => histogram.data_points.iter_mut().for_each(|point| {
                        clean(&mut point.attributes, kept);
                        clean_exemplars(&mut point.exemplars, kept);
                    }),
                    Data::ExponentialHistogram(histogram) => {
                        histogram.data_points.iter_mut().for_each(|point| {
                            clean(&mut point.attributes, kept);
                            clean_exemplars(&mut point.exemplars, kept);
                        })
                    }
                    Data::Summary(summary) => summary
                        .data_points
                        .iter_mut()
                        .for_each(|point| clean(&mut point.attributes, kept)),
                }
            }
        }
    }
}

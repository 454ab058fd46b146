//! Tests what OTLP/JSON comes to, input by input. Proto3's JSON mapping and the OTLP specification decide; where they leave
//! room, no request is lost whose reading does no harm.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod logs;
mod refused;
mod spans_and_metrics;

use ingest::Signal;
use ingest::prepare::json::{JsonError, to_protobuf};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(text: &str) -> Option<AnyValue> {
    any(Value::StringValue(text.to_owned()))
}

fn pair(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value,
        ..Default::default()
    }
}

fn in_logs(record: LogRecord) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..Default::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs,
            ..Default::default()
        }],
    }
}

fn in_spans(span: Span) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..Default::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..Default::default()
        }],
    }
}

fn in_metrics(data: metric::Data) -> ExportMetricsServiceRequest {
    let metrics = vec![Metric {
        data: Some(data),
        ..Default::default()
    }];
    let scope_metrics = vec![ScopeMetrics {
        metrics,
        ..Default::default()
    }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..Default::default()
        }],
    }
}

fn read_logs(json: &[u8]) -> ExportLogsServiceRequest {
    let bytes = to_protobuf(Signal::Logs, json)
        .unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(json)));
    ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap()
}

/// A request whose only log record has these members.
fn in_record(members: &str) -> Vec<u8> {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}"#).into_bytes()
}

/// A request whose only span has these members.
fn in_span(members: &str) -> Vec<u8> {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#).into_bytes()
}

/// A request whose only metric has these members.
fn in_metric(members: &str) -> Vec<u8> {
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{{members}}}]}}]}}]}}"#).into_bytes()
}

/// A trace id in hex.
const TRACE: &str = "5B8EFFF798038103D269B633813FC60C";

fn trace_id() -> Vec<u8> {
    (0..16)
        .map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

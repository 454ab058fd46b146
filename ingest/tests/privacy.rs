//! What goes in and what may come out: the walker against the same rules on decoded messages.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use ingest::Signal;
use ingest::privacy::{Cleaned, DEPTH_MAX, PrivacyError, RECORD_BYTES_MAX, TRACE_SAFE, apply};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use proptest::prelude::*;
use prost::Message;
use schemas::event::PRIVATE_KEYS;

const CANARY: &str = "canary-7f3a";

fn holding(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    holding(Value::StringValue(text.to_owned()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

fn int(key: &str, number: usize) -> KeyValue {
    pair(key, holding(Value::IntValue(number as i64)))
}

// ---- what goes in

fn value() -> impl Strategy<Value = AnyValue> {
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
            prop::collection::vec(inner.clone(), 0..3).prop_map(|values| holding(Value::ArrayValue(ArrayValue { values }))),
            prop::collection::vec((key(), inner), 0..3).prop_map(|pairs| {
                let values = pairs.into_iter().map(|(key, value)| pair(key, value)).collect();
                holding(Value::KvlistValue(KeyValueList { values }))
            }),
        ]
    })
}

fn key() -> impl Strategy<Value = &'static str> {
    let mut keys = PRIVATE_KEYS.to_vec();
    keys.extend(["model", "prompt_length", "tacho.prompt.bytes", "tacho.exit_code", "", "Prompt"]);
    prop::sample::select(keys)
}

/// Attributes with a canary wherever text must not stay.
fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec((key(), value()).prop_map(|(key, value)| pair(key, value)), 0..4).prop_map(|mut list| {
        list.iter_mut().for_each(plant);
        list
    })
}

fn body() -> impl Strategy<Value = Option<AnyValue>> {
    prop::option::of(value()).prop_map(|mut body| {
        if let Some(body) = &mut body
            && holds_text(body)
        {
            fill(body);
        }
        body
    })
}

fn plant(pair: &mut KeyValue) {
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

fn plant_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(plant_value),
        Some(Value::KvlistValue(list)) => list.values.iter_mut().for_each(plant),
        _ => {}
    }
}

/// Puts the canary into every text of a value.
fn fill(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::StringValue(text)) => text.push_str(CANARY),
        Some(Value::BytesValue(bytes)) => bytes.extend_from_slice(CANARY.as_bytes()),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(fill),
        Some(Value::KvlistValue(list)) => list.values.iter_mut().filter_map(|pair| pair.value.as_mut()).for_each(fill),
        _ => {}
    }
}

fn resource(attributes: &[KeyValue]) -> Option<Resource> {
    Some(Resource { attributes: attributes.to_vec(), ..Default::default() })
}

fn scope(attributes: &[KeyValue]) -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "codex_otel.log_only".to_owned(), attributes: attributes.to_vec(), ..Default::default() })
}

fn logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let record = (attributes(), body()).prop_map(|(attributes, body)| LogRecord {
        observed_time_unix_nano: 7,
        severity_number: 9,
        trace_id: vec![1; 16],
        flags: 1,
        attributes,
        body,
        ..Default::default()
    });
    (attributes(), attributes(), prop::collection::vec(record, 0..4)).prop_map(|(of_resource, of_scope, log_records)| {
        let scope_logs = vec![ScopeLogs { scope: scope(&of_scope), log_records, schema_url: "url".to_owned() }];
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource: resource(&of_resource), scope_logs, ..Default::default() }],
        }
    })
}

fn traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let target = prop::option::of(prop::sample::select(vec![TRACE_SAFE, "codex_otel.trace_safe.sub", "codex_otel.trace_safely", "hyper"]));
    let event = (attributes(), target).prop_map(|(mut attributes, target)| {
        if !target.is_some_and(is_safe) {
            attributes.iter_mut().filter_map(|pair| pair.value.as_mut()).for_each(fill);
        }
        attributes.extend(target.map(|target| pair("target", text(target))));
        span::Event { time_unix_nano: 3, name: "event".to_owned(), attributes, ..Default::default() }
    });
    let lists = prop::array::uniform4(attributes());
    (lists, prop::collection::vec(event, 0..3)).prop_map(|([of_resource, of_scope, of_span, of_link], events)| {
        let link = span::Link { trace_id: vec![2; 16], attributes: of_link, ..Default::default() };
        let span = Span { name: "run_turn".to_owned(), attributes: of_span, events, links: vec![link], ..Default::default() };
        let scope_spans = vec![ScopeSpans { scope: scope(&of_scope), spans: vec![span], ..Default::default() }];
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource: resource(&of_resource), scope_spans, ..Default::default() }],
        }
    })
}

fn metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    prop::array::uniform8(attributes()).prop_map(|[of_resource, of_scope, of_metric, number, histogram, exponential, summary, exemplar]| {
        let exemplars = vec![Exemplar { filtered_attributes: exemplar, span_id: vec![1; 8], ..Default::default() }];
        let number = NumberDataPoint { attributes: number, exemplars: exemplars.clone(), ..Default::default() };
        let histogram = HistogramDataPoint {
            attributes: histogram,
            bucket_counts: vec![1, 2],
            explicit_bounds: vec![0.5],
            exemplars: exemplars.clone(),
            ..Default::default()
        };
        let exponential = ExponentialHistogramDataPoint { attributes: exponential, scale: -3, exemplars, ..Default::default() };
        let summary = SummaryDataPoint { attributes: summary, ..Default::default() };
        let data = [
            Data::Gauge(Gauge { data_points: vec![number.clone()] }),
            Data::Sum(Sum { data_points: vec![number], aggregation_temporality: 1, is_monotonic: true }),
            Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 1 }),
            Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![exponential], aggregation_temporality: 1 }),
            Data::Summary(Summary { data_points: vec![summary] }),
        ];
        let metrics =
            data.map(|data| Metric { name: "codex.x".to_owned(), metadata: of_metric.clone(), data: Some(data), ..Default::default() });
        let scope_metrics = vec![ScopeMetrics { scope: scope(&of_scope), metrics: metrics.to_vec(), ..Default::default() }];
        let resource_metrics = vec![ResourceMetrics { resource: resource(&of_resource), scope_metrics, ..Default::default() }];
        ExportMetricsServiceRequest { resource_metrics }
    })
}

// ---- the same rules on decoded messages

fn is_safe(target: &str) -> bool {
    target.strip_prefix(TRACE_SAFE).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn holds_text(value: &AnyValue) -> bool {
    match &value.value {
        Some(Value::StringValue(_) | Value::BytesValue(_)) => true,
        Some(Value::ArrayValue(list)) => list.values.iter().any(holds_text),
        Some(Value::KvlistValue(list)) => list.values.iter().filter_map(|pair| pair.value.as_ref()).any(holds_text),
        _ => false,
    }
}

fn size(value: &AnyValue) -> usize {
    match &value.value {
        Some(Value::StringValue(text)) => text.len(),
        _ => value.encoded_len(),
    }
}

fn clean(list: &mut Vec<KeyValue>) {
    list.retain(|pair| !pair.key.starts_with("tacho."));
    for pair in list {
        if PRIVATE_KEYS.contains(&pair.key.as_str()) {
            *pair = int(&format!("tacho.{}.bytes", pair.key), pair.value.as_ref().map_or(0, size));
        } else if let Some(value) = &mut pair.value {
            clean_value(value);
        }
    }
}

fn clean_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(clean_value),
        Some(Value::KvlistValue(list)) => clean(&mut list.values),
        _ => {}
    }
}

fn clean_envelope(resource: &mut Option<Resource>) {
    resource.iter_mut().for_each(|resource| clean(&mut resource.attributes));
}

fn clean_scope(scope: &mut Option<InstrumentationScope>) {
    scope.iter_mut().for_each(|scope| clean(&mut scope.attributes));
}

fn clean_logs(request: &mut ExportLogsServiceRequest) {
    for logs in &mut request.resource_logs {
        clean_envelope(&mut logs.resource);
        for scope in &mut logs.scope_logs {
            clean_scope(&mut scope.scope);
            for record in &mut scope.log_records {
                clean(&mut record.attributes);
                if let Some(body) = record.body.take_if(|body| holds_text(body)) {
                    record.attributes.push(int("tacho.body.bytes", size(&body)));
                }
                record.body.iter_mut().for_each(clean_value);
            }
        }
    }
}

fn clean_traces(request: &mut ExportTraceServiceRequest) {
    for spans in &mut request.resource_spans {
        clean_envelope(&mut spans.resource);
        for scope in &mut spans.scope_spans {
            clean_scope(&mut scope.scope);
            for span in &mut scope.spans {
                clean(&mut span.attributes);
                span.links.iter_mut().for_each(|link| clean(&mut link.attributes));
                span.events.retain(|event| {
                    let target = event.attributes.iter().find(|pair| pair.key == "target").and_then(|pair| pair.value.as_ref());
                    matches!(target, Some(AnyValue { value: Some(Value::StringValue(target)) }) if is_safe(target))
                });
                span.events.iter_mut().for_each(|event| clean(&mut event.attributes));
            }
        }
    }
}

fn clean_exemplars(exemplars: &mut [Exemplar]) {
    exemplars.iter_mut().for_each(|exemplar| clean(&mut exemplar.filtered_attributes));
}

fn clean_metrics(request: &mut ExportMetricsServiceRequest) {
    for metrics in &mut request.resource_metrics {
        clean_envelope(&mut metrics.resource);
        for scope in &mut metrics.scope_metrics {
            clean_scope(&mut scope.scope);
            for metric in &mut scope.metrics {
                clean(&mut metric.metadata);
                match metric.data.as_mut().unwrap() {
                    Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => data_points.iter_mut().for_each(|point| {
                        clean(&mut point.attributes);
                        clean_exemplars(&mut point.exemplars);
                    }),
                    Data::Histogram(histogram) => histogram.data_points.iter_mut().for_each(|point| {
                        clean(&mut point.attributes);
                        clean_exemplars(&mut point.exemplars);
                    }),
                    Data::ExponentialHistogram(histogram) => histogram.data_points.iter_mut().for_each(|point| {
                        clean(&mut point.attributes);
                        clean_exemplars(&mut point.exemplars);
                    }),
                    Data::Summary(summary) => summary.data_points.iter_mut().for_each(|point| clean(&mut point.attributes)),
                }
            }
        }
    }
}

// ---- any order of fields

/// Which fields of a log request's messages are messages themselves: `(message, field, message in it)`.
const NESTED: &[(&str, u32, &str)] = &[
    ("request", 1, "resource logs"),
    ("resource logs", 1, "resource"),
    ("resource logs", 2, "scope logs"),
    ("resource", 1, "pair"),
    ("scope logs", 1, "scope"),
    ("scope logs", 2, "record"),
    ("scope", 3, "pair"),
    ("record", 5, "any"),
    ("record", 6, "pair"),
    ("pair", 2, "any"),
    ("any", 5, "array"),
    ("any", 6, "list"),
    ("array", 1, "any"),
    ("list", 1, "pair"),
];

/// The message with its fields in the opposite order, at every depth.
fn reversed(name: &str, message: &[u8]) -> Vec<u8> {
    let (mut fields, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let start = rest;
        let (number, wire) = prost::encoding::decode_key(&mut rest).unwrap();
        if wire == prost::encoding::WireType::LengthDelimited {
            let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
            let (payload, after) = rest.split_at(length);
            rest = after;
            let inner = NESTED.iter().find(|nested| nested.0 == name && nested.1 == number).map(|nested| nested.2);
            let payload = inner.map_or_else(|| payload.to_vec(), |inner| reversed(inner, payload));
            let mut field = Vec::new();
            prost::encoding::bytes::encode(number, &payload, &mut field);
            fields.push(field);
        } else {
            prost::encoding::skip_field(wire, number, &mut rest, prost::encoding::DecodeContext::default()).unwrap();
            fields.push(start[..start.len() - rest.len()].to_vec());
        }
    }
    fields.reverse();
    fields.concat()
}

fn cleaned(signal: Signal, bytes: Vec<u8>) -> Cleaned {
    apply(signal, Bytes::from(bytes), false).unwrap()
}

fn check<M: Message + Default + PartialEq + std::fmt::Debug>(
    signal: Signal,
    bytes: Vec<u8>,
    model: impl FnOnce(&mut M),
) -> Result<(), TestCaseError> {
    let mut expected = M::decode(bytes.as_slice()).unwrap();
    model(&mut expected);
    let output = cleaned(signal, bytes).bytes;
    prop_assert!(!output.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "a canary came out");
    prop_assert_eq!(M::decode(output.clone()).unwrap(), expected);
    // What is clean stays as it is, but for its own marks, which are stripped like anybody's.
    let again = cleaned(signal, output.to_vec());
    prop_assert_eq!(again.counts.removed, [0; PRIVATE_KEYS.len()]);
    Ok(())
}

proptest! {
    #[test]
    fn logs_lose_texts_and_nothing_else(request in logs()) {
        check(Signal::Logs, request.encode_to_vec(), clean_logs)?;
    }

    #[test]
    fn logs_in_any_order_of_fields(request in logs()) {
        check(Signal::Logs, reversed("request", &request.encode_to_vec()), clean_logs)?;
    }

    #[test]
    fn traces_lose_texts_and_nothing_else(request in traces()) {
        check(Signal::Traces, request.encode_to_vec(), clean_traces)?;
    }

    #[test]
    fn metrics_lose_texts_and_nothing_else(request in metrics()) {
        check(Signal::Metrics, request.encode_to_vec(), clean_metrics)?;
    }

    #[test]
    fn keeping_texts_only_strips(request in logs()) {
        let mut expected = request.clone();
        fn strip(list: &mut Vec<KeyValue>) {
            list.retain(|pair| !pair.key.starts_with("tacho."));
            list.iter_mut().filter_map(|pair| pair.value.as_mut()).for_each(strip_value);
        }
        fn strip_value(value: &mut AnyValue) {
            match &mut value.value {
                Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(strip_value),
                Some(Value::KvlistValue(list)) => strip(&mut list.values),
                _ => {}
            }
        }
        for logs in &mut expected.resource_logs {
            logs.resource.iter_mut().for_each(|resource| strip(&mut resource.attributes));
            for scope in &mut logs.scope_logs {
                scope.scope.iter_mut().for_each(|scope| strip(&mut scope.attributes));
                for record in &mut scope.log_records {
                    strip(&mut record.attributes);
                    record.body.iter_mut().for_each(strip_value);
                }
            }
        }
        let output = apply(Signal::Logs, Bytes::from(request.encode_to_vec()), true).unwrap();
        prop_assert_eq!(ExportLogsServiceRequest::decode(output.bytes).unwrap(), expected);
    }

    /// Whatever is let through can be read by everybody else.
    #[test]
    fn damaged_bytes_are_refused_or_readable(
        logs in logs(), traces in traces(), metrics in metrics(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for (signal, mut bytes) in
            [(Signal::Logs, logs.encode_to_vec()), (Signal::Traces, traces.encode_to_vec()), (Signal::Metrics, metrics.encode_to_vec())]
        {
            if bytes.is_empty() {
                continue;
            }
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            readable(signal, &bytes)?;
            bytes.truncate(cut.index(bytes.len()));
            readable(signal, &bytes)?;
        }
    }

    #[test]
    fn random_bytes_are_refused_or_readable(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for signal in Signal::ALL {
            readable(signal, &bytes)?;
        }
    }
}

fn readable(signal: Signal, bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Cleaned { bytes, .. }) = apply(signal, Bytes::copy_from_slice(bytes), false) else { return Ok(()) };
    let read = match signal {
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).map(drop),
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).map(drop),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).map(drop),
    };
    prop_assert!(read.is_ok(), "{:?}", read);
    Ok(())
}

// ---- single cases

fn one_record(record: LogRecord) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] }
}

fn attributes_of(request: Bytes) -> Vec<KeyValue> {
    ExportLogsServiceRequest::decode(request).unwrap().resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0).attributes
}

#[test]
fn what_needs_no_change_is_the_same_bytes() {
    let mut bytes = one_record(LogRecord { attributes: vec![pair("model", text("gpt"))], ..Default::default() }).encode_to_vec();
    // An unknown field, and a length that is written longer than needed.
    bytes.extend_from_slice(&[0xfa, 0x01, 0x82, 0x00, b'h', b'i']);
    let input = Bytes::from(bytes);
    let output = apply(Signal::Logs, input.clone(), false).unwrap();
    assert_eq!((output.bytes.as_ptr(), output.bytes.len()), (input.as_ptr(), input.len()));
    assert_eq!(output.counts, Default::default());
}

#[test]
fn facts_are_taken_out_of_a_tool_result() {
    let result = |tool: &str, arguments: &str, output: &str| {
        let attributes = vec![
            pair("event.name", text("codex.tool_result")),
            pair("tacho.exit_code", text("forged")),
            pair("tool_name", text(tool)),
            pair("arguments", text(arguments)),
            pair("output", text(output)),
        ];
        let request = one_record(LogRecord { attributes, ..Default::default() });
        let mut list = attributes_of(cleaned(Signal::Logs, request.encode_to_vec()).bytes);
        assert_eq!(list[2], int("tacho.arguments.bytes", arguments.len()));
        assert_eq!(list[3], int("tacho.output.bytes", output.len()));
        list.split_off(4)
    };
    let output = "Chunk ID: 0c19cd\nWall time: 0.05 seconds\nProcess exited with code 3\nOriginal token count: 2\nOutput:\nx\n";
    assert_eq!(
        result("exec_command", r#"{"cmd":"TOKEN=x git push origin"}"#, output),
        [int("tacho.exit_code", 3), pair("tacho.command_shape", text("git push"))]
    );
    assert_eq!(
        result("spawn_agent", r#"{"message":"do"}"#, r#"{"agent_id":"01a2","nickname":"Ptolemy"}"#),
        [pair("tacho.spawned_agent", text("01a2"))]
    );
    assert_eq!(result("apply_patch", "*** Begin Patch", "Exit code: 0\nOutput:\n"), []);
}

#[test]
fn a_record_over_the_limit_keeps_all_but_the_end_of_a_text() {
    let long = "l".repeat(RECORD_BYTES_MAX + 1000);
    let attributes = vec![pair("event.name", text("codex.other")), pair("note", text(&long))];
    let output = cleaned(Signal::Logs, one_record(LogRecord { attributes, ..Default::default() }).encode_to_vec());
    assert_eq!(output.counts.truncated, 1);
    let list = attributes_of(output.bytes);
    assert_eq!(list[0], pair("event.name", text("codex.other")));
    let Some(AnyValue { value: Some(Value::StringValue(kept)) }) = &list[1].value else { panic!("no text") };
    let (kept, marker) = kept.split_once("...[truncated ").unwrap();
    assert_eq!(marker, format!("{} bytes]", long.len() - kept.len()));
    assert!(kept.len() > RECORD_BYTES_MAX - 1000 && long.starts_with(kept));
}

#[test]
fn depth_has_a_limit_that_prost_reads() {
    let nested = |levels: usize| {
        let mut value = holding(Value::IntValue(1));
        for _ in 0..levels {
            value = holding(Value::ArrayValue(ArrayValue { values: vec![value] }));
        }
        one_record(LogRecord { attributes: vec![pair("deep", value)], ..Default::default() }).encode_to_vec()
    };
    // Request, resource, scope, record, attribute and value are six; each level adds two.
    let most = (DEPTH_MAX - 6) / 2;
    let deepest = cleaned(Signal::Logs, nested(most)).bytes;
    ExportLogsServiceRequest::decode(deepest).unwrap();
    for levels in [most + 1, 500] {
        let error = apply(Signal::Logs, Bytes::from(nested(levels)), false).unwrap_err();
        assert_eq!(error, PrivacyError::Wire(ingest::WireError::TooDeep), "{levels}");
    }
}

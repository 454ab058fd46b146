//! What OTLP/JSON comes to, input by input: decided by proto3's JSON mapping and the OTLP specification, and where those
//! leave room, so that no request is lost where reading it does no harm.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

fn logs(record: LogRecord) -> ExportLogsServiceRequest {
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

fn spans(span: Span) -> ExportTraceServiceRequest {
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

fn metrics(data: metric::Data) -> ExportMetricsServiceRequest {
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

/// The members of a log record, in a request.
fn in_record(members: &str) -> Vec<u8> {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}"#).into_bytes()
}

fn in_span(members: &str) -> Vec<u8> {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#).into_bytes()
}

fn in_metric(members: &str) -> Vec<u8> {
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{{members}}}]}}]}}]}}"#).into_bytes()
}

const TRACE: &str = "5B8EFFF798038103D269B633813FC60C";

fn trace_id() -> Vec<u8> {
    (0..16)
        .map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

#[test]
fn log_records() {
    let plain = LogRecord::default;
    let body = |value| LogRecord {
        body: any(value),
        ..plain()
    };
    let attributes = |attributes| LogRecord {
        attributes,
        ..plain()
    };
    let table: Vec<(&str, LogRecord)> = vec![
        ("", plain()),
        // Nulls, for messages, lists, numbers, texts and ids.
        (
            r#""body":null,"attributes":null,"timeUnixNano":null,"severityText":null,"traceId":null,"flags":null"#,
            plain(),
        ),
        (
            r#""attributes":[null,{"key":"k"},null]"#,
            attributes(vec![pair("k", None)]),
        ),
        (
            r#""attributes":[{"key":"k","value":null}]"#,
            attributes(vec![pair("k", None)]),
        ),
        (
            r#""attributes":[{"value":{"intValue":7}}]"#,
            attributes(vec![pair("", any(Value::IntValue(7)))]),
        ),
        (r#""attributes":[{}]"#, attributes(vec![pair("", None)])),
        // Values that are there and hold nothing.
        (
            r#""body":{}"#,
            LogRecord {
                body: Some(AnyValue { value: None }),
                ..plain()
            },
        ),
        (
            r#""body":{"ofTomorrow":[1,{"a":2}]}"#,
            LogRecord {
                body: Some(AnyValue { value: None }),
                ..plain()
            },
        ),
        (
            r#""body":{"stringValue":null}"#,
            LogRecord {
                body: Some(AnyValue { value: None }),
                ..plain()
            },
        ),
        (
            r#""body":{"stringValue":""}"#,
            body(Value::StringValue(String::new())),
        ),
        (r#""body":{"intValue":0}"#, body(Value::IntValue(0))),
        (r#""body":{"boolValue":false}"#, body(Value::BoolValue(false))),
        (
            r#""body":{"arrayValue":{}}"#,
            body(Value::ArrayValue(ArrayValue::default())),
        ),
        (
            r#""body":{"arrayValue":{"values":null}}"#,
            body(Value::ArrayValue(ArrayValue::default())),
        ),
        (
            r#""body":{"arrayValue":{"values":[]}}"#,
            body(Value::ArrayValue(ArrayValue::default())),
        ),
        (
            r#""body":{"kvlistValue":{}}"#,
            body(Value::KvlistValue(KeyValueList::default())),
        ),
        // A null among values keeps its place.
        (
            r#""body":{"arrayValue":{"values":[null,{"boolValue":true}]}}"#,
            body(Value::ArrayValue(ArrayValue {
                values: vec![AnyValue { value: None }, any(Value::BoolValue(true)).unwrap()],
            })),
        ),
        (
            r#""body":{"kvlistValue":{"values":[{"key":"a","value":{"stringValue":"b"}}]}}"#,
            body(Value::KvlistValue(KeyValueList {
                values: vec![pair("a", text("b"))],
            })),
        ),
        // Integers: strings, numbers, with exponent, with fraction 0; the largest and the smallest.
        (
            r#""timeUnixNano":"5""#,
            LogRecord {
                time_unix_nano: 5,
                ..plain()
            },
        ),
        (
            r#""timeUnixNano":5"#,
            LogRecord {
                time_unix_nano: 5,
                ..plain()
            },
        ),
        (
            r#""timeUnixNano":1e3"#,
            LogRecord {
                time_unix_nano: 1000,
                ..plain()
            },
        ),
        (
            r#""timeUnixNano":1.0"#,
            LogRecord {
                time_unix_nano: 1,
                ..plain()
            },
        ),
        (
            r#""timeUnixNano":"1e3""#,
            LogRecord {
                time_unix_nano: 1000,
                ..plain()
            },
        ),
        (
            r#""timeUnixNano":18446744073709551615"#,
            LogRecord {
                time_unix_nano: u64::MAX,
                ..plain()
            },
        ),
        (
            r#""timeUnixNano":"18446744073709551615""#,
            LogRecord {
                time_unix_nano: u64::MAX,
                ..plain()
            },
        ),
        (
            r#""body":{"intValue":"-9223372036854775808"}"#,
            body(Value::IntValue(i64::MIN)),
        ),
        (r#""body":{"intValue":-8}"#, body(Value::IntValue(-8))),
        (
            r#""flags":4294967295,"droppedAttributesCount":"3""#,
            LogRecord {
                flags: u32::MAX,
                dropped_attributes_count: 3,
                ..plain()
            },
        ),
        (
            r#""severityNumber":9"#,
            LogRecord {
                severity_number: 9,
                ..plain()
            },
        ),
        // Doubles.
        (r#""body":{"doubleValue":"1.5"}"#, body(Value::DoubleValue(1.5))),
        (r#""body":{"doubleValue":1}"#, body(Value::DoubleValue(1.0))),
        (r#""body":{"doubleValue":0}"#, body(Value::DoubleValue(0.0))),
        (r#""body":{"doubleValue":-0.0}"#, body(Value::DoubleValue(-0.0))),
        (
            r#""body":{"doubleValue":"Infinity"}"#,
            body(Value::DoubleValue(f64::INFINITY)),
        ),
        (
            r#""body":{"doubleValue":"-Infinity"}"#,
            body(Value::DoubleValue(f64::NEG_INFINITY)),
        ),
        // Ids in hex, of both cases; none.
        (
            r#""traceId":"5B8EFFF798038103D269B633813FC60C""#,
            LogRecord {
                trace_id: trace_id(),
                ..plain()
            },
        ),
        (
            r#""traceId":"5b8efff798038103d269b633813fc60c""#,
            LogRecord {
                trace_id: trace_id(),
                ..plain()
            },
        ),
        (r#""traceId":"","spanId":"""#, plain()),
        // Bytes: both alphabets, with and without padding.
        (
            r#""body":{"bytesValue":"+/8="}"#,
            body(Value::BytesValue(vec![0xfb, 0xff])),
        ),
        (
            r#""body":{"bytesValue":"-_8"}"#,
            body(Value::BytesValue(vec![0xfb, 0xff])),
        ),
        (r#""body":{"bytesValue":""}"#, body(Value::BytesValue(Vec::new()))),
        // Names of protobuf, and names of tomorrow, are unknown.
        (
            r#""time_unix_nano":5,"severity_text":"x","ofTomorrow":{"deep":[[[]]]},"attributes":[{"key":"k","x":1}]"#,
            attributes(vec![pair("k", None)]),
        ),
        // Twice the same: the last counts, lists go on.
        (
            r#""timeUnixNano":1,"timeUnixNano":2"#,
            LogRecord {
                time_unix_nano: 2,
                ..plain()
            },
        ),
        (
            r#""attributes":[{"key":"a"}],"attributes":[{"key":"b"}]"#,
            attributes(vec![pair("a", None), pair("b", None)]),
        ),
        (
            r#""body":{"stringValue":"a","intValue":1}"#,
            body(Value::IntValue(1)),
        ),
        // Text: escapes, pairs of surrogates, half of one.
        (
            r#""severityText":"\u00e9\ud83d\ude00\n\u0000""#,
            LogRecord {
                severity_text: "é😀\n\0".to_owned(),
                ..plain()
            },
        ),
        (
            r#""severityText":"a\ud800b""#,
            LogRecord {
                severity_text: "a\u{fffd}\u{fffd}\u{fffd}b".to_owned(),
                ..plain()
            },
        ),
        (
            r#""k\udc00":1,"eventName":"e""#,
            LogRecord {
                event_name: "e".to_owned(),
                ..plain()
            },
        ),
    ];
    assert!(table.len() >= 40);
    for (members, expected) in table {
        assert_eq!(read_logs(&in_record(members)), logs(expected), "{members}");
    }
    // NaN is equal to nothing.
    let nan = read_logs(&in_record(r#""body":{"doubleValue":"NaN"}"#));
    let body = nan.resource_logs[0].scope_logs[0].log_records[0]
        .body
        .clone()
        .unwrap();
    assert!(matches!(body.value, Some(Value::DoubleValue(value)) if value.is_nan()));
}

#[test]
fn whole_requests() {
    let empty = ExportLogsServiceRequest::default();
    let resource = |resource| ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource,
            ..Default::default()
        }],
    };
    for (json, expected) in [
        ("{}", empty.clone()),
        ("", empty.clone()),
        (" \n{} \t", empty.clone()),
        ("\u{feff}{\"resourceLogs\":[]}", empty.clone()),
        (r#"{"resourceLogs":null}"#, empty.clone()),
        (r#"{"resourceLogs":[null]}"#, empty.clone()),
        (r#"{"ofTomorrow":7,"resource_logs":[{}]}"#, empty),
        (r#"{"resourceLogs":[{}]}"#, resource(None)),
        (
            r#"{"resourceLogs":[{"resource":null,"scopeLogs":null,"schemaUrl":null}]}"#,
            resource(None),
        ),
        (
            r#"{"resourceLogs":[{"resource":{"attributes":[],"entityRefs":[],"droppedAttributesCount":0}}]}"#,
            resource(Some(Resource::default())),
        ),
        (
            r#"{"resourceLogs":[{"resource":{"entityRefs":[{"type":"host","idKeys":["a",null,""]}]}}]}"#,
            resource(Some(Resource {
                entity_refs: vec![EntityRef {
                    r#type: "host".to_owned(),
                    id_keys: vec!["a".to_owned(), String::new()],
                    ..Default::default()
                }],
                ..Default::default()
            })),
        ),
    ] {
        assert_eq!(read_logs(json.as_bytes()), expected, "{json}");
    }
    let scope = read_logs(br#"{"resourceLogs":[{"scopeLogs":[{"scope":{"name":"n","version":"v"},"schemaUrl":"u"}],"schemaUrl":"w"}]}"#);
    let expected = ScopeLogs {
        scope: Some(InstrumentationScope {
            name: "n".to_owned(),
            version: "v".to_owned(),
            ..Default::default()
        }),
        schema_url: "u".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        (
            &scope.resource_logs[0].scope_logs[0],
            scope.resource_logs[0].schema_url.as_str()
        ),
        (&expected, "w")
    );
}

#[test]
fn spans_of_json() {
    let read = |members: &str| {
        ExportTraceServiceRequest::decode(to_protobuf(Signal::Traces, &in_span(members)).unwrap().as_slice())
            .unwrap()
    };
    for (members, expected) in [
        ("", Span::default()),
        (r#""status":null,"events":null,"links":[null]"#, Span::default()),
        (
            r#""status":{}"#,
            Span {
                status: Some(Status::default()),
                ..Default::default()
            },
        ),
        (
            r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"","traceState":"s","name":"n","kind":2,
               "startTimeUnixNano":"1","endTimeUnixNano":2,"status":{"code":2,"message":"m"},"flags":257,"droppedEventsCount":1,
               "droppedLinksCount":2,"droppedAttributesCount":3,"attributes":[{"key":"k","value":{"stringValue":"v"}}],
               "events":[{"timeUnixNano":"9","name":"e","attributes":[{"key":"k"}],"droppedAttributesCount":4}],
               "links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","traceState":"t","flags":5,"droppedAttributesCount":6}]"#,
            Span {
                trace_id: trace_id(),
                span_id: 0xEEE1_9B7E_C3C1_B174_u64.to_be_bytes().to_vec(),
                trace_state: "s".to_owned(),
                name: "n".to_owned(),
                kind: 2,
                start_time_unix_nano: 1,
                end_time_unix_nano: 2,
                status: Some(Status {
                    code: 2,
                    message: "m".to_owned(),
                }),
                flags: 257,
                dropped_events_count: 1,
                dropped_links_count: 2,
                dropped_attributes_count: 3,
                attributes: vec![pair("k", text("v"))],
                events: vec![Event {
                    time_unix_nano: 9,
                    name: "e".to_owned(),
                    attributes: vec![pair("k", None)],
                    dropped_attributes_count: 4,
                }],
                links: vec![Link {
                    trace_id: trace_id(),
                    span_id: 0xEEE1_9B7E_C3C1_B174_u64.to_be_bytes().to_vec(),
                    trace_state: "t".to_owned(),
                    flags: 5,
                    dropped_attributes_count: 6,
                    ..Default::default()
                }],
                ..Default::default()
            },
        ),
    ] {
        assert_eq!(read(members), spans(expected), "{members}");
    }
}

#[test]
fn metrics_of_json() {
    for (members, expected) in metric_table() {
        let read = to_protobuf(Signal::Metrics, &in_metric(members)).unwrap();
        assert_eq!(
            ExportMetricsServiceRequest::decode(read.as_slice()).unwrap(),
            metrics(expected),
            "{members}"
        );
    }
}

fn metric_table() -> Vec<(&'static str, metric::Data)> {
    let number = |value| NumberDataPoint {
        value,
        ..Default::default()
    };
    let gauge = |data_points| metric::Data::Gauge(Gauge { data_points });
    let exemplars = vec![Exemplar {
        time_unix_nano: 1,
        value: Some(exemplar::Value::AsDouble(0.0)),
        trace_id: trace_id(),
        ..Default::default()
    }];
    let mut table = vec![
        (r#""gauge":{}"#, gauge(vec![])),
        (r#""gauge":{"dataPoints":null}"#, gauge(vec![])),
        (
            r#""gauge":{"dataPoints":[{"asInt":0},{"asInt":"-5"},{"asDouble":"2.5"},{"asDouble":0}]}"#,
            gauge(vec![
                number(Some(number_data_point::Value::AsInt(0))),
                number(Some(number_data_point::Value::AsInt(-5))),
                number(Some(number_data_point::Value::AsDouble(2.5))),
                number(Some(number_data_point::Value::AsDouble(0.0))),
            ]),
        ),
        (
            r#""sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"startTimeUnixNano":"1","timeUnixNano":2,"flags":1,
            "attributes":[{"key":"k"}],"exemplars":[{"timeUnixNano":"1","asDouble":0,"traceId":"5B8EFFF798038103D269B633813FC60C"}]}]}"#,
            metric::Data::Sum(Sum {
                aggregation_temporality: 1,
                is_monotonic: true,
                data_points: vec![NumberDataPoint {
                    start_time_unix_nano: 1,
                    time_unix_nano: 2,
                    flags: 1,
                    attributes: vec![pair("k", None)],
                    exemplars,
                    value: None,
                }],
            }),
        ),
    ];
    table.extend(distributions());
    table
}

fn distributions() -> [(&'static str, metric::Data); 3] {
    [
        (
            r#""histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","sum":0,"min":"-Infinity","max":1.5,
            "bucketCounts":["1",2,0],"explicitBounds":[0,"1.5"],"timeUnixNano":4}]}"#,
            metric::Data::Histogram(Histogram {
                aggregation_temporality: 2,
                data_points: vec![HistogramDataPoint {
                    count: 3,
                    sum: Some(0.0),
                    min: Some(f64::NEG_INFINITY),
                    max: Some(1.5),
                    bucket_counts: vec![1, 2, 0],
                    explicit_bounds: vec![0.0, 1.5],
                    time_unix_nano: 4,
                    ..Default::default()
                }],
            }),
        ),
        (
            r#""exponentialHistogram":{"dataPoints":[{"scale":-3,"zeroCount":"1","zeroThreshold":0.5,"positive":{"offset":-2,"bucketCounts":["300",0]},
            "negative":{},"count":5,"flags":7}]}"#,
            metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint {
                    scale: -3,
                    zero_count: 1,
                    zero_threshold: 0.5,
                    positive: Some(Buckets {
                        offset: -2,
                        bucket_counts: vec![300, 0],
                    }),
                    negative: Some(Buckets::default()),
                    count: 5,
                    flags: 7,
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        (
            r#""summary":{"dataPoints":[{"count":1,"sum":2,"quantileValues":[{"quantile":0.5,"value":"3"},null]}]}"#,
            metric::Data::Summary(Summary {
                data_points: vec![SummaryDataPoint {
                    count: 1,
                    sum: 2.0,
                    quantile_values: vec![ValueAtQuantile {
                        quantile: 0.5,
                        value: 3.0,
                    }],
                    ..Default::default()
                }],
            }),
        ),
    ]
}

#[test]
fn what_is_refused() {
    let deep = |levels: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(levels);
        format!(r#""body":{open}{}"#, "]}}".repeat(levels))
    };
    for members in [
        // Ids in base64, ids with a digit too few, ids that are numbers.
        r#""traceId":"W47/95gDgQPSabYzgT/GDA==""#.to_owned(),
        r#""traceId":"5b8""#.to_owned(),
        r#""traceId":7"#.to_owned(),
        // Enums are integers.
        r#""severityNumber":"SEVERITY_NUMBER_INFO""#.to_owned(),
        // Not whole, out of range.
        r#""timeUnixNano":1.5"#.to_owned(),
        r#""timeUnixNano":-1"#.to_owned(),
        r#""timeUnixNano":18446744073709551616"#.to_owned(),
        r#""timeUnixNano":"""#.to_owned(),
        r#""flags":4294967296"#.to_owned(),
        r#""body":{"intValue":"9223372036854775808"}"#.to_owned(),
        r#""body":{"intValue":true}"#.to_owned(),
        // Words for numbers that JSON does not know, and other spellings.
        r#""body":{"doubleValue":"nan"}"#.to_owned(),
        r#""body":{"doubleValue":"inf"}"#.to_owned(),
        r#""body":{"doubleValue":NaN}"#.to_owned(),
        // Another kind of value.
        r#""body":"text""#.to_owned(),
        r#""body":[]"#.to_owned(),
        r#""body":{"stringValue":7}"#.to_owned(),
        r#""body":{"boolValue":"true"}"#.to_owned(),
        r#""body":{"bytesValue":"*"}"#.to_owned(),
        r#""attributes":{}"#.to_owned(),
        r#""attributes":["k"]"#.to_owned(),
        deep(50),
        deep(100_000),
        "\"a\":".to_owned(),
    ] {
        assert!(
            to_protobuf(Signal::Logs, &in_record(&members)).is_err(),
            "{}",
            &members[..members.len().min(80)]
        );
    }
    assert!(to_protobuf(Signal::Logs, &in_record(&deep(30))).is_ok());
    // What is not looked at may be as deep as it likes.
    let unknown = format!(r#""x":{}{}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(to_protobuf(Signal::Logs, &in_record(&unknown)).is_ok());
    for json in [
        "null",
        "[]",
        "7",
        "\"a\"",
        "{",
        "{}}",
        "{\"resourceLogs\":[{}}",
        "nul",
    ] {
        for signal in Signal::ALL {
            assert!(to_protobuf(signal, json.as_bytes()).is_err(), "{json}");
        }
    }
    assert!(matches!(
        to_protobuf(Signal::Logs, &in_record(r#""flags":{}"#)),
        Err(JsonError::Form { line: 1, .. })
    ));
    assert!(matches!(
        to_protobuf(Signal::Logs, &in_record(r#""flags":"#)),
        Err(JsonError::Syntax { line: 1, .. })
    ));
}

//! Log records and whole log requests.

use super::*;

/// The members of a log record in JSON, and the log record that they come to.
type Row = (&'static str, LogRecord);

fn body(value: Value) -> LogRecord {
    LogRecord {
        body: any(value),
        ..LogRecord::default()
    }
}

/// A log record with a body that holds no value.
fn holds_nothing() -> LogRecord {
    LogRecord {
        body: Some(AnyValue { value: None }),
        ..LogRecord::default()
    }
}

fn attributes(attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        attributes,
        ..LogRecord::default()
    }
}

fn time(time_unix_nano: u64) -> LogRecord {
    LogRecord {
        time_unix_nano,
        ..LogRecord::default()
    }
}

/// Nulls stand for what is not there: for messages, lists, numbers, texts and ids.
fn nulls() -> Vec<Row> {
    vec![
        ("", LogRecord::default()),
        (
            r#""body":null,"attributes":null,"timeUnixNano":null,"severityText":null,"traceId":null,"flags":null"#,
            LogRecord::default(),
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
    ]
}

/// Values may be there and hold nothing. A null among values keeps its place.
fn empty_values() -> Vec<Row> {
    vec![
        (r#""body":{}"#, holds_nothing()),
        (r#""body":{"ofTomorrow":[1,{"a":2}]}"#, holds_nothing()),
        (r#""body":{"stringValue":null}"#, holds_nothing()),
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
    ]
}

/// Integers are strings or numbers, with an exponent or a fraction of 0, up to the largest and the smallest.
fn integers() -> Vec<Row> {
    vec![
        (r#""timeUnixNano":"5""#, time(5)),
        (r#""timeUnixNano":5"#, time(5)),
        (r#""timeUnixNano":1e3"#, time(1000)),
        (r#""timeUnixNano":1.0"#, time(1)),
        (r#""timeUnixNano":"1e3""#, time(1000)),
        (r#""timeUnixNano":18446744073709551615"#, time(u64::MAX)),
        (r#""timeUnixNano":"18446744073709551615""#, time(u64::MAX)),
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
                ..LogRecord::default()
            },
        ),
        (
            r#""severityNumber":9"#,
            LogRecord {
                severity_number: 9,
                ..LogRecord::default()
            },
        ),
    ]
}

/// Doubles are numbers or strings; ids are hex in any case; bytes are base64 in both alphabets, with and without padding.
fn doubles_ids_and_bytes() -> Vec<Row> {
    vec![
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
        (
            r#""traceId":"5B8EFFF798038103D269B633813FC60C""#,
            LogRecord {
                trace_id: trace_id(),
                ..LogRecord::default()
            },
        ),
        (
            r#""traceId":"5b8efff798038103d269b633813fc60c""#,
            LogRecord {
                trace_id: trace_id(),
                ..LogRecord::default()
            },
        ),
        (r#""traceId":"","spanId":"""#, LogRecord::default()),
        (
            r#""body":{"bytesValue":"+/8="}"#,
            body(Value::BytesValue(vec![0xfb, 0xff])),
        ),
        (
            r#""body":{"bytesValue":"-_8"}"#,
            body(Value::BytesValue(vec![0xfb, 0xff])),
        ),
        (r#""body":{"bytesValue":""}"#, body(Value::BytesValue(Vec::new()))),
    ]
}

/// Names of protobuf, and names of later versions, are unknown. Of a member that is there twice the last counts, and lists go on.
/// Texts have escapes, pairs of surrogates, and halves of pairs.
fn names_and_texts() -> Vec<Row> {
    vec![
        (
            r#""time_unix_nano":5,"severity_text":"x","ofTomorrow":{"deep":[[[]]]},"attributes":[{"key":"k","x":1}]"#,
            attributes(vec![pair("k", None)]),
        ),
        (r#""timeUnixNano":1,"timeUnixNano":2"#, time(2)),
        (
            r#""attributes":[{"key":"a"}],"attributes":[{"key":"b"}]"#,
            attributes(vec![pair("a", None), pair("b", None)]),
        ),
        (
            r#""body":{"stringValue":"a","intValue":1}"#,
            body(Value::IntValue(1)),
        ),
        (
            r#""severityText":"\u00e9\ud83d\ude00\n\u0000""#,
            LogRecord {
                severity_text: "é😀\n\0".to_owned(),
                ..LogRecord::default()
            },
        ),
        (
            r#""severityText":"a\ud800b""#,
            LogRecord {
                severity_text: "a\u{fffd}\u{fffd}\u{fffd}b".to_owned(),
                ..LogRecord::default()
            },
        ),
        (
            r#""k\udc00":1,"eventName":"e""#,
            LogRecord {
                event_name: "e".to_owned(),
                ..LogRecord::default()
            },
        ),
    ]
}

#[test]
fn log_records() {
    let table = [
        nulls(),
        empty_values(),
        integers(),
        doubles_ids_and_bytes(),
        names_and_texts(),
    ]
    .concat();
    assert!(table.len() >= 40);
    for (members, expected) in table {
        assert_eq!(read_logs(&in_record(members)), in_logs(expected), "{members}");
    }
    // NaN equals nothing, so it is compared by itself.
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

use super::*;
use crate::prepare::wire::put_len;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

fn attribute(key: &str, text: &str) -> KeyValue {
    let value = AnyValue {
        value: Some(any_value::Value::StringValue(text.to_owned())),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..Default::default()
    }
}

fn record(attributes: &[(&str, &str)]) -> LogRecord {
    LogRecord {
        attributes: attributes
            .iter()
            .map(|(key, text)| attribute(key, text))
            .collect(),
        ..Default::default()
    }
}

fn request(scopes: Vec<Vec<LogRecord>>) -> ExportLogsServiceRequest {
    let scope_logs = scopes
        .into_iter()
        .enumerate()
        .map(|(at, log_records)| ScopeLogs {
            scope: Some(InstrumentationScope {
                name: format!("scope {at}"),
                ..Default::default()
            }),
            log_records,
            schema_url: "url".to_owned(),
        })
        .collect();
    let resource = Resource {
        attributes: vec![attribute("service.name", "codex_exec")],
        ..Default::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs,
            ..Default::default()
        }],
    }
}

fn routed(request: &ExportLogsServiceRequest) -> Vec<RawRecord> {
    route(Signal::Logs, "default", &Bytes::from(request.encode_to_vec())).unwrap()
}

fn keys(records: &[RawRecord]) -> Vec<&str> {
    records.iter().map(|record| record.key.as_str()).collect()
}

#[test]
fn one_conversation_passes_through_untouched() {
    let mut bytes = request(vec![
        vec![record(&[("conversation.id", "c1")])],
        vec![record(&[("conversation.id", "c1")])],
    ])
    .encode_to_vec();
    bytes.extend_from_slice(&[0x7a, 0x01, b'?']);
    let bytes = Bytes::from(bytes);
    let records = route(Signal::Logs, "default", &bytes).unwrap();
    assert_eq!(keys(&records), ["default/c1"]);
    assert_eq!(records[0].value.as_ptr(), bytes.as_ptr());
    assert_eq!(records[0].value, bytes);
}

#[test]
fn conversations_are_split_with_their_resource_and_scope() {
    let (a1, a2, b1) = (
        record(&[("conversation.id", "a"), ("n", "1")]),
        record(&[("conversation.id", "a"), ("n", "2")]),
        record(&[("conversation.id", "b")]),
    );
    let records = routed(&request(vec![vec![a1.clone(), b1.clone()], vec![a2.clone()]]));
    assert_eq!(keys(&records), ["default/a", "default/b"]);
    let decoded: Vec<_> = records
        .iter()
        .map(|record| ExportLogsServiceRequest::decode(record.value.clone()).unwrap())
        .collect();
    assert_eq!(decoded[0], request(vec![vec![a1], vec![a2]]));
    assert_eq!(decoded[1], request(vec![vec![b1]]));
}

#[test]
fn ids_fall_back_in_order() {
    let with_trace = LogRecord {
        trace_id: vec![0xab; 16],
        ..record(&[("conversation.id", "")])
    };
    let anonymous = record(&[("k", "v")]);
    let records = routed(&request(vec![vec![
        record(&[("receiver_thread_id", "r"), ("sender_thread_id", "s")]),
        record(&[("receiver_thread_id", "r")]),
        with_trace,
        anonymous.clone(),
        anonymous.clone(),
    ]]));
    let content = format!("default/{}", hash(&anonymous.encode_to_vec()));
    assert_eq!(
        keys(&records),
        [
            "default/s",
            "default/r",
            &format!("default/{}", "ab".repeat(16)),
            &content
        ]
    );
}

#[test]
fn ids_that_confuse_a_key_are_hashed() {
    for id in ["a/b", "a\nb", &"x".repeat(129)] {
        let records = routed(&request(vec![vec![record(&[("conversation.id", id)])]]));
        assert_eq!(keys(&records), [format!("default/{}", hash(id.as_bytes()))]);
    }
}

#[test]
fn a_conversation_larger_than_a_message_is_split() {
    let text = "t".repeat(3 << 20);
    let large: Vec<_> = (0..7)
        .map(|n| record(&[("conversation.id", "c"), ("n", &n.to_string()), ("text", &text)]))
        .collect();
    let records = routed(&request(vec![large.clone()]));
    assert_eq!(keys(&records), ["default/c"; 4]);
    let mut seen = Vec::new();
    for record in records {
        assert!(record.value.len() <= VALUE_BYTES_MAX);
        let part = ExportLogsServiceRequest::decode(record.value).unwrap();
        assert_eq!(
            part.resource_logs[0].resource,
            request(vec![]).resource_logs[0].resource
        );
        seen.extend(
            part.resource_logs
                .into_iter()
                .flat_map(|logs| logs.scope_logs)
                .flat_map(|scope| scope.log_records),
        );
    }
    assert_eq!(seen, large);
}

#[test]
fn a_part_is_numbered_by_its_last_item_wherever_it_is_cut() {
    let large = |text: usize| {
        let text = "t".repeat(text);
        let of = |id: &'static str| (0..5).map(move |_| id);
        request(vec![
            of("a")
                .chain(of("b"))
                .map(|id| record(&[("conversation.id", id), ("text", &text)]))
                .collect(),
        ])
    };
    let parts = |request| {
        routed(&request)
            .iter()
            .map(|record| (record.key.clone(), record.part))
            .collect::<Vec<_>>()
    };
    let (a, b) = ("default/a".to_owned(), "default/b".to_owned());
    assert_eq!(parts(large(1)), [(a.clone(), 4), (b.clone(), 9)]);
    assert_eq!(
        parts(large(3 << 20)),
        [
            (a.clone(), 1),
            (a.clone(), 3),
            (a, 4),
            (b.clone(), 6),
            (b.clone(), 8),
            (b, 9)
        ]
    );
    assert_eq!(
        routed(&request(vec![vec![record(&[("conversation.id", "a")]); 3]]))[0].part,
        2
    );
}

#[test]
fn texts_do_not_decide_where_an_anonymous_record_goes() {
    let text = |text: &str| AnyValue {
        value: Some(any_value::Value::StringValue(text.to_owned())),
    };
    let one = |more: &[(&str, &str)], body: Option<&str>| {
        let record = record(&[&[("k", "v")], more].concat());
        keys(&routed(&request(vec![vec![LogRecord {
            body: body.map(text),
            ..record
        }]])))
        .concat()
    };
    let plain = one(&[], None);
    assert_eq!(
        one(&[("prompt", "p"), ("tacho.output.bytes", "1")], Some("body")),
        plain
    );
    assert_ne!(one(&[("l", "p")], None), plain);
}

#[test]
fn splitting_does_not_multiply_a_request_without_bound() {
    let mut large = request(vec![
        (0..200)
            .map(|n| record(&[("conversation.id", &n.to_string())]))
            .collect(),
    ]);
    large.resource_logs[0].resource = Some(Resource {
        attributes: vec![attribute("k", &"r".repeat(1 << 20))],
        ..Default::default()
    });
    let result = route(Signal::Logs, "default", &Bytes::from(large.encode_to_vec()));
    assert_eq!(result, Err(RouteError::TooManyParts));
    large.resource_logs[0].resource = Some(Resource {
        attributes: vec![attribute("k", &"r".repeat(8 << 20))],
        ..Default::default()
    });
    let result = route(Signal::Logs, "default", &Bytes::from(large.encode_to_vec()));
    assert!(matches!(result, Err(RouteError::TooLarge { .. })), "{result:?}");
}

#[test]
fn nothing_in_nothing_out() {
    for bytes in [Vec::new(), request(vec![vec![]]).encode_to_vec()] {
        for signal in Signal::ALL {
            assert_eq!(
                route(signal, "default", &Bytes::from(bytes.clone())),
                Ok(Vec::new())
            );
        }
    }
}

#[test]
fn spans_go_by_trace_and_metrics_by_resource() {
    let mut span = Vec::new();
    put_len(&mut span, 1, &[0xcd; 16]);
    let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_len(&mut scope, 2, &span);
    put_len(&mut resource, 1, b"\x10\x00");
    put_len(&mut resource, 2, &scope);
    put_len(&mut request, 1, &resource);
    let request = Bytes::from(request);
    let spans = route(Signal::Traces, "default", &request).unwrap();
    assert_eq!(keys(&spans), [format!("default/{}", "cd".repeat(16))]);
    let metrics = route(Signal::Metrics, "default", &request).unwrap();
    assert_eq!(keys(&metrics), [format!("default/{}", hash(b"\x10\x00"))]);
    assert_eq!(metrics[0].value, request);
}

/// A request with a resource for each element: the value of its attribute `env`, and the conversations of its records.
fn environments(of: &[(&str, &[&str])]) -> ExportLogsServiceRequest {
    let resource_logs = of.iter().map(|(env, ids)| {
        let records = ids.iter().map(|id| record(&[("conversation.id", id)])).collect();
        let mut logs = request(vec![records]).resource_logs.remove(0);
        logs.resource = resource_of(env);
        logs
    });
    ExportLogsServiceRequest {
        resource_logs: resource_logs.collect(),
    }
}

fn routes() -> Routes {
    use crate::prepare::environment::Route;
    let route = |value: &str, prefix: &str| Route {
        attribute: Some("env".to_owned()),
        value: Some(value.to_owned()),
        tenant: None,
        prefix: prefix.to_owned(),
    };
    Routes::new("", &[route("ci", "ci."), route("load", "load.")]).unwrap()
}

#[test]
fn a_request_is_split_by_environment_and_conversation() {
    let whole = environments(&[
        ("dev", &["a", "b"]),
        ("ci", &["a"]),
        ("load", &["a"]),
        ("dev", &["a"]),
    ]);
    let bytes = Bytes::from(whole.encode_to_vec());
    let records = route_by(
        &routes(),
        Signal::Logs,
        "default",
        &bytes,
        &Conversations::default(),
    )
    .unwrap();
    let at: Vec<_> = records
        .iter()
        .map(|record| (record.environment, record.key.as_str(), record.part))
        .collect();
    assert_eq!(
        at,
        [
            (0, "default/a", 1),
            (0, "default/b", 2),
            (1, "default/a", 3),
            (2, "default/a", 4)
        ]
    );
    let decoded: Vec<_> = records
        .iter()
        .map(|record| ExportLogsServiceRequest::decode(record.value.clone()).unwrap())
        .collect();
    assert_eq!(decoded[0], environments(&[("dev", &["a"]), ("dev", &["a"])]));
    assert_eq!(decoded[2], environments(&[("ci", &["a"])]));
    let without = route(Signal::Logs, "default", &bytes).unwrap();
    assert_eq!(
        keys(&without),
        ["default/a", "default/b"],
        "without rules all is one environment"
    );
}

#[test]
fn a_request_of_one_environment_passes_through_untouched() {
    let bytes = Bytes::from(environments(&[("ci", &["a"]), ("ci", &["a"])]).encode_to_vec());
    let records = route_by(
        &routes(),
        Signal::Logs,
        "default",
        &bytes,
        &Conversations::default(),
    )
    .unwrap();
    assert_eq!((records.len(), records[0].environment), (1, 1));
    assert_eq!(records[0].value.as_ptr(), bytes.as_ptr());
}

/// A resource whose attribute `env` has that value.
fn resource_of(env: &str) -> Option<Resource> {
    Some(Resource {
        attributes: vec![attribute("env", env)],
        ..Default::default()
    })
}

#[test]
fn traces_are_split_by_environment_alone() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let spans = |env: &str, trace: u8| ResourceSpans {
        resource: resource_of(env),
        scope_spans: vec![ScopeSpans {
            spans: vec![Span {
                trace_id: vec![trace; 16],
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![spans("dev", 1), spans("ci", 2), spans("dev", 3)],
    };
    let records = route_by(
        &routes(),
        Signal::Traces,
        "default",
        &Bytes::from(request.encode_to_vec()),
        &Conversations::default(),
    )
    .unwrap();
    let at: Vec<_> = records
        .iter()
        .map(|record| (record.environment, record.key.clone()))
        .collect();
    assert_eq!(
        at,
        [
            (0, format!("default/{}", "01".repeat(16))),
            (1, format!("default/{}", "02".repeat(16)))
        ]
    );
    let first = ExportTraceServiceRequest::decode(records[0].value.clone()).unwrap();
    assert_eq!(
        first,
        ExportTraceServiceRequest {
            resource_spans: vec![spans("dev", 1), spans("dev", 3)]
        }
    );
}

#[test]
fn metrics_are_split_by_environment_alone() {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
    let metrics = |env: &str| ResourceMetrics {
        resource: resource_of(env),
        scope_metrics: vec![ScopeMetrics {
            metrics: vec![Metric::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![metrics("dev"), metrics("ci")],
    };
    let records = route_by(
        &routes(),
        Signal::Metrics,
        "default",
        &Bytes::from(request.encode_to_vec()),
        &Conversations::default(),
    )
    .unwrap();
    let at: Vec<_> = records
        .iter()
        .map(|record| (record.environment, record.key.clone()))
        .collect();
    let key = |env: &str| format!("default/{}", hash(&resource_of(env).unwrap().encode_to_vec()));
    assert_eq!(at, [(0, key("dev")), (1, key("ci"))]);
}

//! Tests cleaning against a model: the same rules, applied to decoded messages.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod given;
mod model;

use bytes::Bytes;
use given::{CANARY, holding, int, logs, metrics, pair, text, traces};
use ingest::Signal;
use ingest::prepare::environment::Routes;
use ingest::prepare::privacy::{Cleaned, DEPTH_MAX, PrivacyError, RECORD_BYTES_MAX, apply};
use ingest::prepare::route::{route, route_by};
use model::{Fields, clean_logs, clean_metrics, clean_traces};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;
use schemas::privacy::{Action, Actions, FIELD_COUNT};

/// The fields of a log request's messages that are messages themselves: `(message, field, message in it)`.
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

/// A message with its fields in the opposite order, at every depth.
fn reversed(name: &str, message: &[u8]) -> Vec<u8> {
    let (mut fields, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let start = rest;
        let (number, wire) = prost::encoding::decode_key(&mut rest).unwrap();
        if wire == prost::encoding::WireType::LengthDelimited {
            let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
            let (payload, after) = rest.split_at(length);
            rest = after;
            let inner = NESTED
                .iter()
                .find(|nested| nested.0 == name && nested.1 == number)
                .map(|nested| nested.2);
            let payload = inner.map_or_else(|| payload.to_vec(), |inner| reversed(inner, payload));
            let mut field = Vec::new();
            prost::encoding::bytes::encode(number, &payload, &mut field);
            fields.push(field);
        } else {
            prost::encoding::skip_field(wire, number, &mut rest, prost::encoding::DecodeContext::default())
                .unwrap();
            fields.push(start[..start.len() - rest.len()].to_vec());
        }
    }
    fields.reverse();
    fields.concat()
}

fn cleaned(signal: Signal, bytes: Vec<u8>) -> Cleaned {
    cleaned_under(signal, bytes, &[])
}

fn cleaned_under(signal: Signal, bytes: Vec<u8>, kept: Fields<'_>) -> Cleaned {
    apply(
        signal,
        Bytes::from(bytes),
        Actions::of(|field| {
            if kept.contains(&field) {
                Action::Keep
            } else {
                Action::Drop
            }
        }),
        None,
    )
    .unwrap()
}

/// The fields that a policy keeps; often none.
fn policies() -> impl Strategy<Value = Vec<&'static str>> {
    let fields: Vec<_> = schemas::privacy::fields().collect();
    let count = fields.len();
    prop_oneof![Just(Vec::new()), prop::sample::subsequence(fields, 0..=count)]
}

/// Cleans a request, and compares the result with that of the model.
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(
    signal: Signal,
    bytes: Vec<u8>,
    kept: Fields<'_>,
    model: impl FnOnce(&mut M, Fields<'_>),
) -> Result<(), TestCaseError> {
    let mut expected = M::decode(bytes.as_slice()).unwrap();
    model(&mut expected, kept);
    let cleaned = cleaned_under(signal, bytes, kept);
    routed(signal, &cleaned)?;
    let output = cleaned.bytes;
    prop_assert!(
        !kept.is_empty()
            || !output
                .windows(CANARY.len())
                .any(|window| window == CANARY.as_bytes()),
        "a canary came out"
    );
    prop_assert_eq!(M::decode(output.clone()).unwrap(), expected);
    // Cleaning what is clean drops nothing; only attributes of `tacho.*` are removed like those of any client.
    let again = cleaned_under(signal, output.to_vec(), kept);
    prop_assert_eq!(again.counts.dropped, [0; FIELD_COUNT]);
    Ok(())
}

proptest! {
    #[test]
    fn logs_lose_texts_and_nothing_else(request in logs(), kept in policies()) {
        check(Signal::Logs, request.encode_to_vec(), &kept, clean_logs)?;
    }

    #[test]
    fn logs_in_any_order_of_fields(request in logs(), kept in policies()) {
        check(Signal::Logs, reversed("request", &request.encode_to_vec()), &kept, clean_logs)?;
    }

    #[test]
    fn traces_lose_texts_and_nothing_else(request in traces(), kept in policies()) {
        check(Signal::Traces, request.encode_to_vec(), &kept, clean_traces)?;
    }

    #[test]
    fn metrics_lose_texts_and_nothing_else(request in metrics(), kept in policies()) {
        check(Signal::Metrics, request.encode_to_vec(), &kept, clean_metrics)?;
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
        let output = apply(Signal::Logs, Bytes::from(request.encode_to_vec()), Actions::all(Action::Keep), None).unwrap();
        prop_assert_eq!(ExportLogsServiceRequest::decode(output.bytes).unwrap(), expected);
    }

    /// Whatever is let through can be read by other decoders.
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

/// Checks that bytes are refused, or come out as something that prost decodes.
fn readable(signal: Signal, bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(cleaned) = apply(
        signal,
        Bytes::copy_from_slice(bytes),
        Actions::all(Action::Drop),
        None,
    ) else {
        return Ok(());
    };
    routed(signal, &cleaned)?;
    let bytes = cleaned.bytes;
    let read = match signal {
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).map(drop),
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).map(drop),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).map(drop),
    };
    prop_assert!(read.is_ok(), "{:?}", read);
    Ok(())
}

/// Checks that routing gives the same records with the conversations that cleaning has seen, and without them.
fn routed(signal: Signal, cleaned: &Cleaned) -> Result<(), TestCaseError> {
    let slowly = route(signal, "default", &cleaned.bytes);
    prop_assert!(slowly.is_ok(), "{:?}", slowly);
    let quickly = route_by(
        &Routes::default(),
        signal,
        "default",
        &cleaned.bytes,
        &cleaned.conversations,
    );
    prop_assert_eq!(quickly, slowly);
    Ok(())
}

fn one_record(record: LogRecord) -> ExportLogsServiceRequest {
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

fn attributes_of(request: Bytes) -> Vec<KeyValue> {
    ExportLogsServiceRequest::decode(request)
        .unwrap()
        .resource_logs
        .remove(0)
        .scope_logs
        .remove(0)
        .log_records
        .remove(0)
        .attributes
}

#[test]
fn what_needs_no_change_is_the_same_bytes() {
    let mut bytes = one_record(LogRecord {
        attributes: vec![pair("model", text("gpt"))],
        ..Default::default()
    })
    .encode_to_vec();
    // This is an unknown field, with a length that takes more bytes than needed.
    bytes.extend_from_slice(&[0xfa, 0x01, 0x82, 0x00, b'h', b'i']);
    let input = Bytes::from(bytes);
    let output = apply(Signal::Logs, input.clone(), Actions::all(Action::Drop), None).unwrap();
    assert_eq!(
        (output.bytes.as_ptr(), output.bytes.len()),
        (input.as_ptr(), input.len())
    );
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
        let request = one_record(LogRecord {
            attributes,
            ..Default::default()
        });
        let mut list = attributes_of(cleaned(Signal::Logs, request.encode_to_vec()).bytes);
        assert_eq!(list[2], int("tacho.arguments.bytes", arguments.len()));
        assert_eq!(list[3], int("tacho.output.bytes", output.len()));
        list.split_off(4)
    };
    let output = "Chunk ID: 0c19cd\nWall time: 0.05 seconds\nProcess exited with code 3\nOriginal token count: 2\nOutput:\nx\n";
    assert_eq!(
        result("exec_command", r#"{"cmd":"TOKEN=x git push origin"}"#, output),
        [
            int("tacho.exit_code", 3),
            pair("tacho.command_shape", text("git push"))
        ]
    );
    assert_eq!(
        result(
            "spawn_agent",
            r#"{"message":"do"}"#,
            r#"{"agent_id":"01a2","nickname":"Ptolemy"}"#
        ),
        [pair("tacho.spawned_agent", text("01a2"))]
    );
    assert_eq!(
        result("apply_patch", "*** Begin Patch", "Exit code: 0\nOutput:\n"),
        []
    );
}

#[test]
fn a_word_is_taken_out_of_an_error_message() {
    let error = |event: &str, message: AnyValue, action: Action| {
        let attributes = vec![
            pair("event.name", text(event)),
            pair("tacho.error", text("forged")),
            pair("error.message", message),
        ];
        let request = one_record(LogRecord {
            attributes,
            ..Default::default()
        })
        .encode_to_vec();
        attributes_of(
            apply(Signal::Logs, request.into(), Actions::all(action), None)
                .unwrap()
                .bytes,
        )
        .split_off(2)
    };
    for action in [Action::Drop, Action::Scrub, Action::Keep] {
        assert_eq!(
            error("codex.api_request", text("it timed out"), action),
            [pair("tacho.error", text("timeout"))]
        );
        assert_eq!(
            error("codex.api_request", text("http 500"), action),
            [pair("tacho.error", text("other"))]
        );
        assert_eq!(
            error("codex.sse_event", text("idle timeout waiting for SSE"), action),
            [pair("tacho.error", text("idle_timeout"))]
        );
        assert_eq!(
            error("codex.sse_event", holding(Value::IntValue(7)), action),
            [pair("tacho.error", text("unreadable"))]
        );
        assert_eq!(error("codex.tool_result", text("it timed out"), action), []);
    }
}

#[test]
fn names_in_spans_stay_and_texts_go() {
    let attributes = vec![
        pair("code.file.path", text("core/src/session/mod.rs")),
        pair("thread.id", holding(Value::IntValue(7))),
        pair("thread.id", text("01a20456-beb6-7bd3-a0c9-8b370f76554d")),
        pair("model", text(&"long ".repeat(40))),
        pair("note", text("an answer")),
        pair(
            "list",
            holding(Value::ArrayValue(ArrayValue {
                values: vec![text("an answer")],
            })),
        ),
        pair("count", holding(Value::IntValue(7))),
    ];
    let span = Span {
        attributes: attributes.clone(),
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..Default::default()
    }];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..Default::default()
        }],
    };
    let output = cleaned(Signal::Traces, request.encode_to_vec());
    let mut decoded = ExportTraceServiceRequest::decode(output.bytes).unwrap();
    let stayed = decoded
        .resource_spans
        .remove(0)
        .scope_spans
        .remove(0)
        .spans
        .remove(0)
        .attributes;
    assert_eq!(stayed, [&attributes[..3], &attributes[6..]].concat());
    assert_eq!(output.counts.dropped[FIELD_COUNT - 1], 3);
}

#[test]
fn a_record_over_the_limit_keeps_all_but_the_end_of_a_text() {
    let long = "l".repeat(RECORD_BYTES_MAX + 1000);
    let attributes = vec![pair("event.name", text("codex.other")), pair("note", text(&long))];
    let output = cleaned(
        Signal::Logs,
        one_record(LogRecord {
            attributes,
            ..Default::default()
        })
        .encode_to_vec(),
    );
    assert_eq!(output.counts.truncated, 1);
    let list = attributes_of(output.bytes);
    assert_eq!(list[0], pair("event.name", text("codex.other")));
    let Some(AnyValue {
        value: Some(Value::StringValue(kept)),
    }) = &list[1].value
    else {
        panic!("no text")
    };
    let (kept, marker) = kept.split_once("...[truncated ").unwrap();
    assert_eq!(marker, format!("{} bytes]", long.len() - kept.len()));
    assert!(kept.len() > RECORD_BYTES_MAX - 1000 && long.starts_with(kept));
}

#[test]
fn a_conversation_that_is_cut_is_the_one_that_is_written() {
    let attributes = vec![pair(
        "conversation.id",
        text(&"c".repeat(RECORD_BYTES_MAX + 1000)),
    )];
    let output = cleaned(
        Signal::Logs,
        one_record(LogRecord {
            attributes,
            ..Default::default()
        })
        .encode_to_vec(),
    );
    assert_eq!(output.counts.truncated, 1);
    routed(Signal::Logs, &output).unwrap();
}

#[test]
fn depth_has_a_limit_that_prost_reads() {
    let nested = |levels: usize| {
        let mut value = holding(Value::IntValue(1));
        for _ in 0..levels {
            value = holding(Value::ArrayValue(ArrayValue { values: vec![value] }));
        }
        one_record(LogRecord {
            attributes: vec![pair("deep", value)],
            ..Default::default()
        })
        .encode_to_vec()
    };
    // The value is at depth six (request, resource, scope, record, attribute, value), and each level adds two.
    let most = (DEPTH_MAX - 6) / 2;
    let deepest = cleaned(Signal::Logs, nested(most)).bytes;
    ExportLogsServiceRequest::decode(deepest).unwrap();
    for levels in [most + 1, 500] {
        let error = apply(
            Signal::Logs,
            Bytes::from(nested(levels)),
            Actions::all(Action::Drop),
            None,
        )
        .unwrap_err();
        assert_eq!(error, PrivacyError::Wire(ingest::WireError::TooDeep), "{levels}");
    }
}

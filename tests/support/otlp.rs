//! Encoders of log requests with given records.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use schemas::time::{EventTime, format_rfc3339};

/// A string as the value of an attribute.
pub fn text(value: impl Into<String>) -> Value {
    Value::StringValue(value.into())
}

/// An integer as the value of an attribute.
pub fn int(value: i64) -> Value {
    Value::IntValue(value)
}

/// An attribute.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// A log record as Codex writes it: without `time_unix_nano`, and with the event's time as an attribute and as the observed
/// time.
pub fn record(event: &str, conversation: &str, time_ms: i64, more: Vec<(&str, Value)>) -> LogRecord {
    let mut attributes = vec![
        attribute("event.name", text(event)),
        attribute("event.timestamp", text(format_rfc3339(EventTime(time_ms)))),
        attribute("conversation.id", text(conversation)),
    ];
    attributes.extend(more.into_iter().map(|(key, value)| attribute(key, value)));
    LogRecord {
        observed_time_unix_nano: u64::try_from(time_ms).unwrap() * 1_000_000,
        attributes,
        ..LogRecord::default()
    }
}

/// A prompt of a user.
pub fn prompt(conversation: &str, time_ms: i64) -> LogRecord {
    record(
        "codex.user_prompt",
        conversation,
        time_ms,
        vec![("prompt_length", text("5")), ("model", text("gpt-5.5"))],
    )
}

/// A completed response with that many tokens, none of which are cached or reasoning tokens.
pub fn tokens(conversation: &str, time_ms: i64, input: i64, output: i64) -> LogRecord {
    let attributes = vec![
        ("event.kind", text("response.completed")),
        ("input_token_count", text(input.to_string())),
        ("output_token_count", text(output.to_string())),
        ("cached_token_count", int(0)),
        ("reasoning_token_count", int(0)),
        ("tool_token_count", text((input + output).to_string())),
        ("model", text("gpt-5.5")),
    ];
    record("codex.sse_event", conversation, time_ms, attributes)
}

/// An HTTP attempt at the model API.
pub fn request(conversation: &str, time_ms: i64, model: &str, status: i64, duration_ms: &str) -> LogRecord {
    let attributes = vec![
        ("model", text(model)),
        ("duration_ms", text(duration_ms)),
        ("http.response.status_code", int(status)),
        ("attempt", int(0)),
        ("endpoint", text("/responses")),
    ];
    record("codex.api_request", conversation, time_ms, attributes)
}

/// A log request with these records.
pub fn logs(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs {
        log_records,
        ..ScopeLogs::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs,
            ..ResourceLogs::default()
        }],
    }
}

/// A log request with these records, in protobuf.
pub fn encode(log_records: Vec<LogRecord>) -> Vec<u8> {
    logs(log_records).encode_to_vec()
}

/// The bytes compressed by gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

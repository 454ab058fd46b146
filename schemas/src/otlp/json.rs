//! OTLP/JSON onto the same types as the binary form.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding": ids in hex, 64-bit integers as strings or numbers, unknown
//! fields ignored, absent fields and nulls are defaults.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a body is not an OTLP/JSON request.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all, or nested deeper than 128 levels.
    #[error("the body is not valid JSON")]
    Syntax(#[source] serde_json::Error),
    /// JSON, but not of the form of the request.
    #[error("the body is not an OTLP/JSON {signal} request: {source}")]
    Form {
        /// `logs`, `trace` or `metrics`.
        signal: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Reads a log request.
///
/// # Errors
/// The body is not one.
pub fn logs(body: &[u8]) -> Result<ExportLogsServiceRequest, JsonError> {
    read(body, "logs")
}

/// Reads a trace request.
///
/// # Errors
/// The body is not one.
pub fn traces(body: &[u8]) -> Result<ExportTraceServiceRequest, JsonError> {
    read(body, "trace")
}

/// Reads a metric request.
///
/// # Errors
/// The body is not one.
pub fn metrics(body: &[u8]) -> Result<ExportMetricsServiceRequest, JsonError> {
    read(body, "metrics")
}

fn read<T: DeserializeOwned>(body: &[u8], signal: &'static str) -> Result<T, JsonError> {
    let mut json = serde_json::from_slice(body).map_err(JsonError::Syntax)?;
    complete(&mut json);
    serde_json::from_value(json).map_err(|source| JsonError::Form { signal, source })
}

/// Takes out nulls and puts in the empty lists and keys that proto3 JSON leaves out but the derived readers want.
fn complete(json: &mut Value) {
    match json {
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(complete);
        }
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            for (name, member) in members.iter_mut() {
                complete(member);
                match (name.as_str(), member) {
                    ("arrayValue" | "kvlistValue", Value::Object(list)) => {
                        let values = list.entry("values").or_insert_with(|| Value::Array(Vec::new()));
                        if name == "kvlistValue" {
                            keys(values);
                        }
                    }
                    ("attributes" | "filteredAttributes", pairs) => keys(pairs),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn keys(pairs: &mut Value) {
    for pair in pairs.as_array_mut().into_iter().flatten() {
        if let Value::Object(pair) = pair {
            pair.entry("key").or_insert_with(|| Value::String(String::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_body_is_an_empty_request() {
        assert_eq!(logs(b"{}").unwrap(), ExportLogsServiceRequest::default());
        assert_eq!(traces(b"{}").unwrap(), ExportTraceServiceRequest::default());
        assert_eq!(metrics(b"{}").unwrap(), ExportMetricsServiceRequest::default());
        assert!(matches!(logs(b"{"), Err(JsonError::Syntax(_))));
        assert!(matches!(logs(b"[1]"), Err(JsonError::Form { .. })));
        assert!(matches!(logs(br#"{"resourceLogs": 3}"#), Err(JsonError::Form { .. })));
    }

    #[test]
    fn nulls_and_what_is_left_out_are_defaults() {
        let body = br#"{"resourceLogs": [{"resource": null, "unknownField": 1, "scopeLogs": [{"logRecords": [{
            "timeUnixNano": 5, "observedTimeUnixNano": "6", "traceId": "", "body": null, "attributes": [
                {"value": {"intValue": 7}}, {"key": "list", "value": {"arrayValue": {}}}, {"key": "none", "value": null},
                {"key": "map", "value": {"kvlistValue": {"values": [{"value": {"intValue": "-8"}}]}}}]}]}]}]}"#;
        let request = logs(body).unwrap();
        let record = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano, record.attributes.len()), (5, 6, 4));
    }
}

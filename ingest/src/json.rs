//! OTLP/JSON, turned into the binary form that everything else works on.

use crate::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde::de::DeserializeOwned;

/// The body is no OTLP/JSON request. What is wrong with it is not told: it would quote the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an OTLP/JSON request: line {line}, column {column}")]
pub struct JsonError {
    /// From 1; 0 where it is not known.
    pub line: usize,
    /// From 1; 0 where it is not known.
    pub column: usize,
}

/// The request in protobuf.
///
/// # Errors
/// The body is not JSON, or not a request of that signal.
pub fn to_protobuf(signal: Signal, body: &[u8]) -> Result<Vec<u8>, JsonError> {
    match signal {
        Signal::Logs => convert::<ExportLogsServiceRequest>(body),
        Signal::Traces => convert::<ExportTraceServiceRequest>(body),
        Signal::Metrics => convert::<ExportMetricsServiceRequest>(body),
    }
}

fn convert<T: Message + DeserializeOwned>(body: &[u8]) -> Result<Vec<u8>, JsonError> {
    let request: T = serde_json::from_slice(body).map_err(|error| JsonError { line: error.line(), column: error.column() })?;
    Ok(request.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_nothing() {
        let error = to_protobuf(Signal::Logs, br#"{"resourceLogs": "canary"}"#).unwrap_err();
        assert_eq!(error.line, 1);
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

//! OTLP/JSON, turned into the binary form that everything else works on.

use crate::signal::Signal;
use prost::Message;
use schemas::otlp::json;

/// The body is no OTLP/JSON request. What is wrong with it is not told beyond its place: it would quote the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("not valid JSON: line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON of another form.
    #[error("valid JSON, but not an OTLP request of this signal: see the OTLP specification, JSON Protobuf Encoding")]
    Form,
}

impl From<json::JsonError> for JsonError {
    fn from(error: json::JsonError) -> Self {
        match error {
            json::JsonError::Syntax(error) => Self::Syntax { line: error.line(), column: error.column() },
            json::JsonError::Form { .. } => Self::Form,
        }
    }
}

/// The request in protobuf.
///
/// # Errors
/// The body is not JSON, or not a request of that signal.
pub fn to_protobuf(signal: Signal, body: &[u8]) -> Result<Vec<u8>, JsonError> {
    Ok(match signal {
        Signal::Logs => json::logs(body)?.encode_to_vec(),
        Signal::Traces => json::traces(body)?.encode_to_vec(),
        Signal::Metrics => json::metrics(body)?.encode_to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_nothing() {
        for body in [&br#"{"resourceLogs": "canary"}"#[..], br#"{"canary"#] {
            let error = to_protobuf(Signal::Logs, body).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}

//! Turns OTLP/JSON into binary protobuf, on which everything else works.

use crate::prepare::memory::capacity;
use schemas::otlp::json;
use schemas::signal::Signal;

pub use schemas::otlp::json::JsonError;

/// The request in protobuf, whatever its size.
///
/// # Errors
/// The body is not JSON, or not a request of that signal.
pub fn to_protobuf(signal: Signal, body: &[u8]) -> Result<Vec<u8>, JsonError> {
    to_protobuf_within(signal, body, usize::MAX)
}

/// The request in protobuf, of `limit` bytes at most.
///
/// # Errors
/// The body is not JSON, not a request of that signal, or too large.
pub fn to_protobuf_within(signal: Signal, body: &[u8], limit: usize) -> Result<Vec<u8>, JsonError> {
    let request = match signal {
        Signal::Logs => json::Request::Logs,
        Signal::Traces => json::Request::Traces,
        Signal::Metrics => json::Request::Metrics,
    };
    // Protobuf is smaller than JSON, but for lists of numbers. A large buffer gets room for all at once, since growing copies
    // it and holds it twice.
    let room = capacity(body.len() / 4).max(if body.len() > 1 << 20 {
        limit.min(4 * body.len())
    } else {
        0
    });
    json::to_protobuf(request, body, Vec::with_capacity(room), limit)
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

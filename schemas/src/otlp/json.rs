//! OTLP/JSON to protobuf in one pass, without a tree of the document: memory is that of the result.
//!
//! Ids are in hex, enums are integers, 64-bit integers are strings or numbers, unknown members are ignored,
//! absent members and nulls are defaults. A member that occurs twice is written twice, and merged by whoever
//! decodes the result. U+FFFD stands for text that is not Unicode (half of a surrogate pair), so that no
//! request is refused for it.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding"; proto3's JSON mapping.

mod read;
mod table;
mod text;
mod write;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::error::Category;

/// The kind of an export request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `ExportLogsServiceRequest`.
    Logs,
    /// `ExportTraceServiceRequest`.
    Traces,
    /// `ExportMetricsServiceRequest`.
    Metrics,
}

impl Request {
    /// All kinds of requests.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Traces, Self::Metrics];

    const fn table(self) -> &'static table::Message {
        match self {
            Self::Logs => &table::LOGS,
            Self::Traces => &table::TRACES,
            Self::Metrics => &table::METRICS,
        }
    }
}

/// Why a body is not an OTLP/JSON request. The error holds nothing of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The body is not JSON, or is nested deeper than 128 levels.
    #[error("not valid JSON, or nested too deeply: line {line}, column {column}")]
    Syntax {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// The body is JSON, but does not have the form of the request.
    #[error(
        "not an OTLP request of this signal: line {line}, column {column}; see the OTLP specification, JSON Protobuf Encoding"
    )]
    Form {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// The body's protobuf form is larger than the limit, in bytes.
    #[error("over {0} bytes in its binary form")]
    TooLarge(usize),
}

/// Writes the protobuf form of a JSON body, of at most `limit` bytes, into `room`, which must be empty and is
/// given back. A body without content is an empty request.
///
/// # Errors
/// The body is not JSON, not a request of that kind, or its protobuf form is too large.
pub fn to_protobuf(request: Request, body: &[u8], room: Vec<u8>, limit: usize) -> Result<Vec<u8>, JsonError> {
    let body = content(body);
    let mut out = write::Writer::new(room, limit);
    if body.is_empty() {
        return Ok(out.into_bytes());
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = read::message(request.table(), &mut out, &mut reader).and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(out.into_bytes()),
        Err(_) if out.is_over() => Err(JsonError::TooLarge(limit)),
        Err(error) => Err(place(&error)),
    }
}

/// The kinds of requests that have the body's members; none for a body without content or without a known
/// member.
///
/// # Errors
/// The body is not a JSON object.
pub fn requests(body: &[u8]) -> Result<Vec<Request>, JsonError> {
    let body = content(body);
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = [false; 3];
    let mut reader = serde_json::Deserializer::from_slice(body);
    let mut see = |name: &[u8]| {
        for request in Request::ALL {
            found[request as usize] |= request.table().field(name).is_some();
        }
    };
    read::members(&mut see, &mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| place(&error))?;
    Ok(Request::ALL
        .into_iter()
        .filter(|request| found[*request as usize])
        .collect())
}

/// Reads a log request.
///
/// # Errors
/// The body is not such a request.
pub fn logs(body: &[u8]) -> Result<ExportLogsServiceRequest, JsonError> {
    decoded(Request::Logs, body)
}

/// Reads a trace request.
///
/// # Errors
/// The body is not such a request.
pub fn traces(body: &[u8]) -> Result<ExportTraceServiceRequest, JsonError> {
    decoded(Request::Traces, body)
}

/// Reads a metric request.
///
/// # Errors
/// The body is not such a request.
pub fn metrics(body: &[u8]) -> Result<ExportMetricsServiceRequest, JsonError> {
    decoded(Request::Metrics, body)
}

fn decoded<M: prost::Message + Default>(request: Request, body: &[u8]) -> Result<M, JsonError> {
    let bytes = to_protobuf(request, body, Vec::new(), usize::MAX)?;
    Ok(M::decode(bytes.as_slice()).expect("what was written by the tables of a message is that message"))
}

/// The body without a byte order mark, and without space at its ends.
fn content(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

fn place(error: &serde_json::Error) -> JsonError {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Data => JsonError::Form { line, column },
        Category::Io | Category::Syntax | Category::Eof => JsonError::Syntax { line, column },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_body_is_an_empty_request() {
        for body in [&b"{}"[..], b"", b" \n", b"\xef\xbb\xbf{}"] {
            assert_eq!(logs(body).unwrap(), ExportLogsServiceRequest::default());
            assert_eq!(traces(body).unwrap(), ExportTraceServiceRequest::default());
            assert_eq!(metrics(body).unwrap(), ExportMetricsServiceRequest::default());
        }
        assert!(matches!(logs(b"{"), Err(JsonError::Syntax { .. })));
        assert!(matches!(logs(b"{} {}"), Err(JsonError::Syntax { .. })));
        assert!(matches!(logs(b"[1]"), Err(JsonError::Form { .. })));
        assert!(matches!(
            logs(br#"{"resourceLogs": 3}"#),
            Err(JsonError::Form { .. })
        ));
    }

    #[test]
    fn what_it_becomes_is_bounded() {
        let body = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":[0,0,0,0]}]}}]}]}]}"#;
        let whole = to_protobuf(Request::Metrics, body, Vec::new(), 1000).unwrap();
        assert_eq!(
            to_protobuf(Request::Metrics, body, Vec::new(), whole.len()).as_ref(),
            Ok(&whole)
        );
        assert_eq!(
            to_protobuf(Request::Metrics, body, Vec::new(), whole.len() - 1),
            Err(JsonError::TooLarge(whole.len() - 1))
        );
    }

    #[test]
    fn members_tell_the_request() {
        let of = |body: &[u8]| requests(body).unwrap();
        assert_eq!(
            of(br#"{"x": {"resourceLogs": []}, "resourceSpans": [{"a": [1]}]}"#),
            [Request::Traces]
        );
        assert_eq!(
            of(br#"{"resourceLogs": [], "resourceMetrics": null}"#),
            [Request::Logs, Request::Metrics]
        );
        assert_eq!(of(b"{}"), []);
        assert!(requests(b"7").is_err());
    }
}

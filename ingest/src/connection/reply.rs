//! How an outcome reads to the client: status, message and when to come back, over HTTP and gRPC.

use crate::prepare::admit::{Busy, Excess};
use crate::prepare::coding::Coding;
use crate::prepare::json::JsonError;
use crate::prepare::privacy::PrivacyError;
use crate::prepare::route::RouteError;
use crate::prepare::wire::WireError;
use crate::sink::SinkError;
use axum::http::StatusCode;
use prost::Message as _;
use schemas::signal::Signal;
use serde_json::json;
use tonic::Code;

/// Why a request is refused. The message of each goes to the client and so holds nothing of the payload.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is, right above it")]
pub enum Reject {
    #[error(
        "no such path: OTLP/HTTP has /v1/logs, /v1/traces and /v1/metrics, under any prefix, and / for all three"
    )]
    NotFound,
    #[error("no such method: OTLP has Export of logs, traces and metrics")]
    NoSuchMethod,
    #[error("only POST is served here")]
    Method,
    #[error("content type must be application/x-protobuf or application/json")]
    ContentType,
    #[error("content encoding must be gzip, zstd, identity or none")]
    ContentEncoding,
    #[error("grpc-encoding must be gzip, zstd or identity")]
    GrpcEncoding,
    #[error("the call must hold one message, with its length in front")]
    GrpcFrame,
    #[error(
        "the content does not tell which signal it is of: post it to /v1/logs, /v1/traces or /v1/metrics"
    )]
    Unclear,
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the body is larger than {0} bytes when decompressed")]
    DecodedTooLarge(usize),
    #[error("the body is not valid {}", .0.name())]
    Compressed(Coding),
    #[error("the body did not come in time")]
    Slow,
    #[error("the body broke off")]
    Body,
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("not an OTLP request: {0}")]
    Wire(#[from] WireError),
    #[error(transparent)]
    Excess(#[from] Excess),
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("too many large requests at once; send again later")]
    Crowded,
    #[error("the request could not be worked on: {0}")]
    Internal(&'static str),
}

/// What a refusal is in the terms of each protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For HTTP.
    pub http: StatusCode,
    /// For gRPC, and in the body over HTTP.
    pub code: Code,
    /// The label value of `tacho_ingest_rejected_total`.
    pub reason: &'static str,
    /// Whether, and after how many seconds, to send again.
    pub retry_after: Option<u32>,
}

impl Reject {
    /// What the refusal is in the terms of each protocol.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::NotFound => verdict(StatusCode::NOT_FOUND, Code::NotFound, "path"),
            Self::NoSuchMethod => verdict(StatusCode::NOT_FOUND, Code::Unimplemented, "path"),
            Self::Method => verdict(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, "method"),
            Self::ContentType => verdict(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::InvalidArgument,
                "content_type",
            ),
            Self::ContentEncoding => verdict(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::InvalidArgument,
                "content_encoding",
            ),
            Self::GrpcEncoding => verdict(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::Unimplemented,
                "content_encoding",
            ),
            Self::GrpcFrame => malformed("grpc_frame"),
            Self::Unclear => malformed("signal"),
            Self::BodyTooLarge(_) => too_large("body_size"),
            Self::DecodedTooLarge(_) | Self::Json(JsonError::TooLarge(_)) => too_large("decoded_size"),
            Self::Compressed(coding) => malformed(coding.name()),
            // Not 408: OTLP clients do not send again after that.
            Self::Slow => again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "slow", 1),
            Self::Body => malformed("body"),
            Self::Json(_) => malformed("json"),
            Self::Wire(_) | Self::Privacy(PrivacyError::Wire(_)) | Self::Route(RouteError::Wire(_)) => {
                malformed("protobuf")
            }
            Self::Excess(Excess::Records | Excess::Parts) => too_large("records"),
            Self::Excess(Excess::Fields) => too_large("fields"),
            Self::Excess(Excess::Bytes) => too_large("records_size"),
            Self::Privacy(PrivacyError::RecordTooLarge { .. }) => too_large("record_size"),
            Self::Route(RouteError::TooLarge { .. }) | Self::Sink(SinkError::TooLarge(_)) => {
                too_large("message_size")
            }
            Self::Route(RouteError::TooManyParts) => too_large("split_size"),
            Self::Busy(_) => again(
                StatusCode::TOO_MANY_REQUESTS,
                Code::ResourceExhausted,
                "tenant_busy",
                1,
            ),
            Self::Crowded => again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "crowded", 1),
            Self::Sink(SinkError::Unavailable(_)) => again(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "log_unavailable",
                1,
            ),
            Self::Sink(SinkError::Full(_)) => {
                again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "log_full", 30)
            }
            Self::Internal(_) => verdict(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "internal"),
        }
    }

    /// The refusal as `google.rpc.Status`: what is wrong with a request that is refused for ever has `BadRequest`, one that
    /// may be sent again `RetryInfo`, and one that is too large neither.
    #[must_use]
    pub fn status(&self) -> RpcStatus {
        let verdict = self.verdict();
        let mut message = self.to_string();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        }
        let details = if verdict.http == StatusCode::BAD_REQUEST {
            let violation = FieldViolation {
                field: verdict.reason.to_owned(),
                description: message.clone(),
            };
            vec![Any::of(
                BAD_REQUEST,
                &BadRequest {
                    field_violations: vec![violation],
                },
            )]
        } else if let Some(seconds) = verdict.retry_after {
            vec![Any::of(
                RETRY_INFO,
                &RetryInfo {
                    retry_delay: Some(Duration {
                        seconds: seconds.into(),
                    }),
                },
            )]
        } else {
            Vec::new()
        };
        RpcStatus {
            code: verdict.code as i32,
            message,
            details,
        }
    }
}

impl Reject {
    /// Says it in the log; gives the reason, as a label value. What clients did is not worth a line of a log that is read.
    pub(crate) fn tell(&self) -> &'static str {
        let verdict = self.verdict();
        if verdict.http.is_server_error() && !matches!(self, Self::Slow) {
            tracing::warn!(reason = verdict.reason, error = %self, "request refused");
        } else {
            tracing::debug!(reason = verdict.reason, error = %self, "request refused");
        }
        verdict.reason
    }
}

const fn verdict(http: StatusCode, code: Code, reason: &'static str) -> Verdict {
    Verdict {
        http,
        code,
        reason,
        retry_after: None,
    }
}

const fn malformed(reason: &'static str) -> Verdict {
    verdict(StatusCode::BAD_REQUEST, Code::InvalidArgument, reason)
}

const fn too_large(reason: &'static str) -> Verdict {
    verdict(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, reason)
}

const fn again(http: StatusCode, code: Code, reason: &'static str, seconds: u32) -> Verdict {
    Verdict {
        http,
        code,
        reason,
        retry_after: Some(seconds),
    }
}

/// Messages to clients are cut to that: an answer stays far below the 4 MiB that OTLP allows.
pub const MESSAGE_BYTES_MAX: usize = 1024;

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.Status`, the body of every refusal. Source: googleapis `google/rpc/status.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What was wrong.
    #[prost(string, tag = "2")]
    pub message: String,
    /// `BadRequest` or `RetryInfo`.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// What it holds.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Any {
    fn of(type_url: &str, message: &impl prost::Message) -> Self {
        Self {
            type_url: type_url.to_owned(),
            value: message.encode_to_vec(),
        }
    }
}

/// `google.rpc.BadRequest`. Source: googleapis `google/rpc/error_details.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BadRequest {
    /// What is wrong.
    #[prost(message, repeated, tag = "1")]
    pub field_violations: Vec<FieldViolation>,
}

/// One fault of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FieldViolation {
    /// What is at fault: the reason of the refusal.
    #[prost(string, tag = "1")]
    pub field: String,
    /// What is wrong with it.
    #[prost(string, tag = "2")]
    pub description: String,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RetryInfo {
    /// When to send again.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<Duration>,
}

/// `google.protobuf.Duration`, of whole seconds.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Duration {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
}

impl RpcStatus {
    /// As protobuf.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let detail = |any: &Any| match any.type_url.as_str() {
            BAD_REQUEST => {
                let faults = BadRequest::decode(any.value.as_slice())
                    .unwrap_or_default()
                    .field_violations;
                let faults: Vec<_> = faults
                    .iter()
                    .map(|fault| json!({ "field": fault.field, "description": fault.description }))
                    .collect();
                json!({ "@type": BAD_REQUEST, "fieldViolations": faults })
            }
            _ => {
                let delay = RetryInfo::decode(any.value.as_slice())
                    .unwrap_or_default()
                    .retry_delay
                    .unwrap_or_default();
                json!({ "@type": any.type_url, "retryDelay": format!("{}s", delay.seconds) })
            }
        };
        let details: Vec<_> = self.details.iter().map(detail).collect();
        json!({ "code": self.code, "message": self.message, "details": details })
            .to_string()
            .into_bytes()
    }
}

/// A request that was taken, and what of it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What it was of.
    pub signal: Signal,
    /// Log records, spans or data points that were not taken.
    pub rejected: u64,
    /// Why, or what was changed; none: all of it was taken as it came.
    pub warning: Option<String>,
}

impl Accepted {
    pub(crate) fn new(signal: Signal, rejected: Option<(u64, PrivacyError)>, truncated: u64) -> Self {
        let left_out = rejected.map(|(count, error)| format!("{count} left out; the first of them: {error}"));
        let cut = (truncated > 0)
            .then(|| format!("{truncated} texts cut, because their records were over the limit"));
        let warning = match (left_out, cut) {
            (Some(left_out), Some(cut)) => Some(format!("{left_out}; {cut}")),
            (left_out, cut) => left_out.or(cut),
        };
        Self {
            signal,
            rejected: rejected.map_or(0, |(count, _)| count),
            warning,
        }
    }

    /// The `Export…ServiceResponse`: of no bytes where all was taken as it came.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        let Some(warning) = &self.warning else {
            return Vec::new();
        };
        let partial = PartialSuccess {
            rejected: self.rejected.cast_signed(),
            error_message: warning.clone(),
        };
        ExportResponse {
            partial_success: Some(partial),
        }
        .encode_to_vec()
    }

    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let Some(warning) = &self.warning else {
            return b"{}".to_vec();
        };
        let rejected = match self.signal {
            Signal::Logs => "rejectedLogRecords",
            Signal::Traces => "rejectedSpans",
            Signal::Metrics => "rejectedDataPoints",
        };
        json!({ "partialSuccess": { rejected: self.rejected.to_string(), "errorMessage": warning } })
            .to_string()
            .into_bytes()
    }
}

/// The responses of all three services, which differ in names only.
#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_later_says_when() {
        let unavailable = Reject::Sink(SinkError::Unavailable("broker down".to_owned()));
        assert_eq!(unavailable.verdict().http, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(unavailable.verdict().retry_after, Some(1));
        assert_eq!(Reject::Busy(Busy).verdict().http, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(Reject::Busy(Busy).verdict().retry_after, Some(1));
        assert_eq!(Reject::Compressed(Coding::Gzip).verdict().retry_after, None);
        assert_eq!(
            Reject::Sink(SinkError::TooLarge(String::new())).verdict().http,
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }

    #[test]
    fn a_status_reads_the_same_in_both_encodings() {
        let status = Reject::Compressed(Coding::Gzip).status();
        assert_eq!(
            RpcStatus::decode(status.to_protobuf().as_slice()).unwrap(),
            status
        );
        let json: serde_json::Value = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(json["code"], 3);
        assert_eq!(json["message"], "the body is not valid gzip");
        assert_eq!(json["details"][0]["@type"], BAD_REQUEST);
        assert_eq!(
            json["details"][0]["fieldViolations"][0]["description"],
            json["message"]
        );
        let json: serde_json::Value = serde_json::from_slice(&Reject::Busy(Busy).status().to_json()).unwrap();
        assert_eq!(
            (&json["details"][0]["@type"], &json["details"][0]["retryDelay"]),
            (&json!(RETRY_INFO), &json!("1s"))
        );
    }

    #[test]
    fn only_what_may_pass_later_has_retry_info() {
        let kind = |reject: Reject| reject.status().details.first().map(|any| any.type_url.clone());
        assert_eq!(kind(Reject::Crowded).as_deref(), Some(RETRY_INFO));
        assert_eq!(kind(Reject::Unclear).as_deref(), Some(BAD_REQUEST));
        assert_eq!(kind(Reject::BodyTooLarge(1)), None);
        assert_eq!(kind(Reject::NotFound), None);
    }

    #[test]
    fn a_long_message_is_cut() {
        let status = Reject::Sink(SinkError::Unavailable("é".repeat(1 << 20))).status();
        assert!(status.message.len() <= MESSAGE_BYTES_MAX && status.to_json().len() < 2 * MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_partial_success_is_what_the_services_answer() {
        use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
        let whole = Accepted::new(Signal::Logs, None, 0);
        assert_eq!(
            (whole.to_protobuf(), whole.to_json()),
            (Vec::new(), b"{}".to_vec())
        );
        let part = Accepted::new(
            Signal::Logs,
            Some((3, PrivacyError::RecordTooLarge { bytes: 9 })),
            2,
        );
        let decoded = ExportLogsServiceResponse::decode(part.to_protobuf().as_slice())
            .unwrap()
            .partial_success
            .unwrap();
        assert_eq!(
            (decoded.rejected_log_records, Some(decoded.error_message)),
            (3, part.warning.clone())
        );
        let json: serde_json::Value = serde_json::from_slice(&part.to_json()).unwrap();
        assert_eq!(json["partialSuccess"]["rejectedLogRecords"], "3");
        assert!(
            json["partialSuccess"]["errorMessage"]
                .as_str()
                .unwrap()
                .ends_with("2 texts cut, because their records were over the limit")
        );
    }
}

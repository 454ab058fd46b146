//! How an outcome reads to the client: status, message and when to come back, over HTTP and gRPC.

use crate::admit::{Busy, RECORDS_MAX};
use crate::json::JsonError;
use crate::privacy::PrivacyError;
use crate::route::RouteError;
use crate::sink::SinkError;
use crate::wire::WireError;
use axum::http::StatusCode;
use prost::Message as _;
use tonic::Code;

/// Why a request is refused. The message of each goes to the client and so holds nothing of the payload.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is, right above it")]
pub enum Reject {
    #[error("no such path: OTLP/HTTP has /v1/logs, /v1/traces and /v1/metrics")]
    NotFound,
    #[error("only POST is served here")]
    Method,
    #[error("content type must be application/x-protobuf or application/json")]
    ContentType,
    #[error("content encoding must be gzip, identity or none")]
    ContentEncoding,
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the body is larger than {0} bytes when decompressed")]
    DecodedTooLarge(usize),
    #[error("the body is not valid gzip")]
    Gzip,
    #[error("the body did not come in time")]
    Slow,
    #[error("the body broke off")]
    Body,
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("not an OTLP request: {0}")]
    Wire(#[from] WireError),
    #[error("the request holds more than {RECORDS_MAX} records: send smaller batches")]
    TooManyRecords,
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Sink(#[from] SinkError),
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
            Self::Method => verdict(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, "method"),
            Self::ContentType => verdict(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, "content_type"),
            Self::ContentEncoding => verdict(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, "content_encoding"),
            Self::BodyTooLarge(_) => too_large("body_size"),
            Self::DecodedTooLarge(_) => too_large("decoded_size"),
            Self::Gzip => malformed("gzip"),
            Self::Slow => verdict(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, "slow"),
            Self::Body => malformed("body"),
            Self::Json(_) => malformed("json"),
            Self::Wire(_) | Self::Privacy(PrivacyError::Wire(_)) | Self::Route(RouteError::Wire(_)) => malformed("protobuf"),
            Self::TooManyRecords => too_large("records"),
            Self::Privacy(PrivacyError::RecordTooLarge { .. }) => too_large("record_size"),
            Self::Route(RouteError::TooLarge { .. }) | Self::Sink(SinkError::TooLarge(_)) => too_large("message_size"),
            Self::Route(RouteError::TooManyParts) => too_large("split_size"),
            Self::Busy(_) => again(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, "tenant_busy", 1),
            Self::Sink(SinkError::Unavailable(_)) => again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "log_unavailable", 1),
            Self::Sink(SinkError::Full(_)) => again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "log_full", 30),
            Self::Internal(_) => verdict(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "internal"),
        }
    }

    /// The refusal as `google.rpc.Status`.
    #[must_use]
    pub fn status(&self) -> RpcStatus {
        RpcStatus { code: self.verdict().code as i32, message: self.to_string(), details: Vec::new() }
    }
}

const fn verdict(http: StatusCode, code: Code, reason: &'static str) -> Verdict {
    Verdict { http, code, reason, retry_after: None }
}

const fn malformed(reason: &'static str) -> Verdict {
    verdict(StatusCode::BAD_REQUEST, Code::InvalidArgument, reason)
}

const fn too_large(reason: &'static str) -> Verdict {
    verdict(StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument, reason)
}

const fn again(http: StatusCode, code: Code, reason: &'static str, seconds: u32) -> Verdict {
    Verdict { http, code, reason, retry_after: Some(seconds) }
}

/// `google.rpc.Status`, the body of every refusal. Source: googleapis `google/rpc/status.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What was wrong.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Never filled here; encoded `google.protobuf.Any` messages.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub details: Vec<Vec<u8>>,
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
        serde_json::json!({ "code": self.code, "message": self.message }).to_string().into_bytes()
    }
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
        assert_eq!(Reject::Gzip.verdict().retry_after, None);
        assert_eq!(Reject::Sink(SinkError::TooLarge(String::new())).verdict().http, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn a_status_reads_the_same_in_both_encodings() {
        let status = Reject::Gzip.status();
        assert_eq!(RpcStatus::decode(status.to_protobuf().as_slice()).unwrap(), status);
        let json: serde_json::Value = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(json["code"], 3);
        assert_eq!(json["message"], "the body is not valid gzip");
    }
}

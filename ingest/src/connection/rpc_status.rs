//! Writes refusals as `google.rpc.Status`, in protobuf and JSON.

use crate::connection::verdict::Verdict;
use axum::http::StatusCode;
use prost::Message as _;
use serde_json::json;

/// Longest message to a client, in bytes; longer ones are cut, so that an answer stays far below the 4 MiB that OTLP allows.
pub const MESSAGE_BYTES_MAX: usize = 1024;

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The message `google.rpc.Status`, which is the body of every refusal. Source: googleapis `google/rpc/status.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// The status code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What was wrong, in words.
    #[prost(string, tag = "2")]
    pub message: String,
    /// One `BadRequest` or `RetryInfo`, or nothing.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// The message `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// The type of the message in it.
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

/// The message `google.rpc.BadRequest`. Source: googleapis `google/rpc/error_details.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BadRequest {
    /// The faults of the request.
    #[prost(message, repeated, tag = "1")]
    pub field_violations: Vec<FieldViolation>,
}

/// One fault of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FieldViolation {
    /// The reason of the refusal.
    #[prost(string, tag = "1")]
    pub field: String,
    /// What is wrong, in words.
    #[prost(string, tag = "2")]
    pub description: String,
}

/// The message `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RetryInfo {
    /// How long to wait before the request is sent again.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<Duration>,
}

/// The message `google.protobuf.Duration`, of whole seconds.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Duration {
    /// The number of seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
}

impl RpcStatus {
    /// The status of a refusal. A request that is malformed has `BadRequest`, one that may be sent again `RetryInfo`, and one
    /// that is too large or goes to no place neither. The message is cut to [`MESSAGE_BYTES_MAX`].
    pub(crate) fn of(verdict: Verdict, mut message: String) -> Self {
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        }
        let details = if verdict.http == StatusCode::BAD_REQUEST {
            let violation = FieldViolation {
                field: verdict.reason.name().to_owned(),
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
        Self {
            code: verdict.code as i32,
            message,
            details,
        }
    }

    /// The status in protobuf.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// The status in JSON.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::error::RequestError;
    use crate::prepare::admit::Busy;
    use crate::prepare::coding::Coding;
    use crate::prepare::error::PipelineError;
    use crate::sink::SinkError;

    fn status_of(error: PipelineError) -> RpcStatus {
        RequestError::from(error).status()
    }

    #[test]
    fn a_status_reads_the_same_in_both_encodings() {
        let status = status_of(PipelineError::Compressed(Coding::Gzip));
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
        let json: serde_json::Value = serde_json::from_slice(&status_of(Busy.into()).to_json()).unwrap();
        assert_eq!(
            (&json["details"][0]["@type"], &json["details"][0]["retryDelay"]),
            (&json!(RETRY_INFO), &json!("1s"))
        );
    }

    #[test]
    fn only_what_may_pass_later_has_retry_info() {
        let kind = |error: RequestError| error.status().details.first().map(|any| any.type_url.clone());
        assert_eq!(kind(PipelineError::Crowded.into()).as_deref(), Some(RETRY_INFO));
        assert_eq!(
            kind(PipelineError::UnclearSignal.into()).as_deref(),
            Some(BAD_REQUEST)
        );
        assert_eq!(kind(PipelineError::BodyTooLarge(1).into()), None);
        assert_eq!(kind(RequestError::NotFound), None);
    }

    #[test]
    fn a_long_message_is_cut() {
        let status = status_of(SinkError::Unavailable("é".repeat(1 << 20)).into());
        assert!(status.message.len() <= MESSAGE_BYTES_MAX && status.to_json().len() < 2 * MESSAGE_BYTES_MAX);
    }
}

//! Maps each reason of a refusal to the status codes of HTTP and gRPC, and to when to send again.

use crate::prepare::reason::Reason;
use axum::http::StatusCode;
use tonic::Code;

/// What a refusal is in the terms of each protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The status code of HTTP.
    pub http: StatusCode,
    /// The status code of gRPC, which is also in the body over HTTP.
    pub code: Code,
    /// The label value of `tacho_ingest_rejected_total`.
    pub reason: Reason,
    /// After how many seconds the client may send the request again; none where that would be refused too.
    pub retry_after: Option<u32>,
}

impl Verdict {
    /// The verdict for a reason.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        let (http, code, retry_after) = match reason {
            Reason::NotFound => (StatusCode::NOT_FOUND, Code::NotFound, None),
            Reason::NoSuchMethod => (StatusCode::NOT_FOUND, Code::Unimplemented, None),
            Reason::Method => (StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, None),
            Reason::ContentType | Reason::ContentEncoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, None)
            }
            Reason::GrpcEncoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented, None),
            Reason::GrpcFrame
            | Reason::Signal
            | Reason::Compression(_)
            | Reason::Body
            | Reason::Json
            | Reason::Protobuf => (StatusCode::BAD_REQUEST, Code::InvalidArgument, None),
            Reason::BodySize
            | Reason::DecodedSize
            | Reason::Records
            | Reason::Fields
            | Reason::RecordsSize
            | Reason::RecordSize
            | Reason::MessageSize
            | Reason::SplitSize => (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, None),
            Reason::Busy => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, Some(1)),
            // A slow body gets 503 and not 408, after which OTLP clients do not send again.
            Reason::Slow | Reason::Crowded | Reason::LogUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(1))
            }
            Reason::LogFull => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(30)),
            Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, None),
        };
        Self {
            http,
            code,
            reason,
            retry_after,
        }
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

    #[test]
    fn what_may_pass_later_says_when() {
        let verdict = |error: PipelineError| RequestError::from(error).verdict();
        let unavailable = PipelineError::Sink(SinkError::Unavailable("broker down".to_owned()));
        let unavailable = verdict(unavailable);
        assert_eq!(unavailable.http, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(unavailable.retry_after, Some(1));
        assert_eq!(verdict(Busy.into()).http, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(verdict(Busy.into()).retry_after, Some(1));
        assert_eq!(verdict(PipelineError::Compressed(Coding::Gzip)).retry_after, None);
        assert_eq!(
            verdict(SinkError::TooLarge(String::new()).into()).http,
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }
}

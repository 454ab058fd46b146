//! Names why a request is refused, from its head on, and logs refusals.

use crate::connection::rpc_status::RpcStatus;
use crate::connection::verdict::Verdict;
use crate::prepare::error::PipelineError;
use crate::prepare::reason::Reason;

/// Why a request is refused. The message goes to the client, so it holds nothing of the payload.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is explained by its message, right above it")]
pub enum RequestError {
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
    #[error("the body did not come in time")]
    Slow,
    #[error("the body broke off")]
    Body,
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

impl RequestError {
    /// The reason that the refusal is counted under.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotFound => Reason::NotFound,
            Self::NoSuchMethod => Reason::NoSuchMethod,
            Self::Method => Reason::Method,
            Self::ContentType => Reason::ContentType,
            Self::ContentEncoding => Reason::ContentEncoding,
            Self::GrpcEncoding => Reason::GrpcEncoding,
            Self::GrpcFrame => Reason::GrpcFrame,
            Self::Slow => Reason::Slow,
            Self::Body => Reason::Body,
            Self::Pipeline(error) => error.reason(),
        }
    }

    /// What the refusal is in the terms of each protocol.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        Verdict::of(self.reason())
    }

    /// The refusal as `google.rpc.Status`.
    #[must_use]
    pub fn status(&self) -> RpcStatus {
        RpcStatus::of(self.verdict(), self.to_string())
    }

    /// Logs the refusal. Faults of clients are logged at debug level, since nobody who reads the log can mend them.
    pub(crate) fn log(&self) {
        let verdict = self.verdict();
        let reason = verdict.reason.name();
        if verdict.http.is_server_error() && !matches!(self, Self::Slow) {
            tracing::warn!(reason, error = %self, "request refused");
        } else {
            tracing::debug!(reason, error = %self, "request refused");
        }
    }
}

//! Names why a request that was read can't be taken.

use crate::prepare::admit::{Busy, Excess};
use crate::prepare::coding::Coding;
use crate::prepare::json::JsonError;
use crate::prepare::privacy::PrivacyError;
use crate::prepare::reason::Reason;
use crate::prepare::route::RouteError;
use crate::prepare::wire::WireError;
use crate::sink::SinkError;

/// Why the pipeline refuses a request. The message goes to the client, so it holds nothing of the payload.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is explained by its message, right above it")]
pub enum PipelineError {
    #[error(
        "the content does not tell which signal it is of: post it to /v1/logs, /v1/traces or /v1/metrics"
    )]
    UnclearSignal,
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the body is larger than {0} bytes when decompressed")]
    DecodedTooLarge(usize),
    #[error("the body is not valid {}", .0.name())]
    Compressed(Coding),
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

impl PipelineError {
    /// The reason that the refusal is counted under.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::UnclearSignal => Reason::Signal,
            Self::BodyTooLarge(_) => Reason::BodySize,
            Self::DecodedTooLarge(_) | Self::Json(JsonError::TooLarge(_)) => Reason::DecodedSize,
            Self::Compressed(coding) => Reason::Compression(*coding),
            Self::Json(JsonError::Syntax { .. } | JsonError::Form { .. }) => Reason::Json,
            Self::Wire(_) | Self::Privacy(PrivacyError::Wire(_)) | Self::Route(RouteError::Wire(_)) => {
                Reason::Protobuf
            }
            Self::Excess(Excess::Records | Excess::Parts) => Reason::Records,
            Self::Excess(Excess::Fields) => Reason::Fields,
            Self::Excess(Excess::Bytes) => Reason::RecordsSize,
            Self::Privacy(PrivacyError::RecordTooLarge { .. }) => Reason::RecordSize,
            Self::Route(RouteError::TooLarge { .. }) | Self::Sink(SinkError::TooLarge(_)) => {
                Reason::MessageSize
            }
            Self::Route(RouteError::TooManyParts) => Reason::SplitSize,
            Self::Busy(_) => Reason::Busy,
            Self::Sink(SinkError::Unavailable(_)) => Reason::LogUnavailable,
            Self::Sink(SinkError::Full(_)) => Reason::LogFull,
            Self::Crowded => Reason::Crowded,
            Self::Internal(_) => Reason::Internal,
        }
    }
}

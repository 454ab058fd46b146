//! Names the reasons why requests are refused, as a closed set for labels and for the quarantine.

use crate::prepare::coding::Coding;

/// Why a request, or a record of the inbox, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is explained by the message of its error")]
pub enum Reason {
    NotFound,
    NoSuchMethod,
    Method,
    ContentType,
    ContentEncoding,
    GrpcEncoding,
    GrpcFrame,
    Signal,
    BodySize,
    DecodedSize,
    Compression(Coding),
    Slow,
    Body,
    Json,
    Protobuf,
    Records,
    Fields,
    RecordsSize,
    RecordSize,
    MessageSize,
    SplitSize,
    Busy,
    Crowded,
    LogUnavailable,
    LogFull,
    Internal,
}

impl Reason {
    /// The value of label `reason`, and of the quarantine's header of that name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound | Self::NoSuchMethod => "path",
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::ContentEncoding | Self::GrpcEncoding => "content_encoding",
            Self::GrpcFrame => "grpc_frame",
            Self::Signal => "signal",
            Self::BodySize => "body_size",
            Self::DecodedSize => "decoded_size",
            Self::Compression(coding) => coding.name(),
            Self::Slow => "slow",
            Self::Body => "body",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Records => "records",
            Self::Fields => "fields",
            Self::RecordsSize => "records_size",
            Self::RecordSize => "record_size",
            Self::MessageSize => "message_size",
            Self::SplitSize => "split_size",
            Self::Busy => "tenant_busy",
            Self::Crowded => "crowded",
            Self::LogUnavailable => "log_unavailable",
            Self::LogFull => "log_full",
            Self::Internal => "internal",
        }
    }
}

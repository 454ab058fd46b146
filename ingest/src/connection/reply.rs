//! Writes the answer to a request that was taken, in protobuf and JSON: `Export…ServiceResponse`.

use crate::prepare::pipeline::Accepted;
use prost::Message as _;
use schemas::signal::Signal;
use serde_json::json;

/// The response in protobuf: of no bytes where all of the request was taken as it came.
pub(super) fn success_protobuf(accepted: &Accepted) -> Vec<u8> {
    let Some(warning) = &accepted.warning else {
        return Vec::new();
    };
    let partial = PartialSuccess {
        rejected: accepted.rejected.cast_signed(),
        error_message: warning.clone(),
    };
    ExportResponse {
        partial_success: Some(partial),
    }
    .encode_to_vec()
}

/// The response in JSON.
pub(super) fn success_json(accepted: &Accepted) -> Vec<u8> {
    let Some(warning) = &accepted.warning else {
        return b"{}".to_vec();
    };
    let rejected = match accepted.signal {
        Signal::Logs => "rejectedLogRecords",
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
    };
    json!({ "partialSuccess": { rejected: accepted.rejected.to_string(), "errorMessage": warning } })
        .to_string()
        .into_bytes()
}

/// The response of each of the three services, which differ in names only.
#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// What of a request was not taken as it came.
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
    use crate::prepare::privacy::PrivacyError;
    use crate::prepare::request::LeftOut;

    #[test]
    fn a_partial_success_is_what_the_services_answer() {
        use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
        let whole = Accepted::new(Signal::Logs, None, 0);
        assert_eq!(
            (success_protobuf(&whole), success_json(&whole)),
            (Vec::new(), b"{}".to_vec())
        );
        let part = Accepted::new(
            Signal::Logs,
            Some(LeftOut {
                count: 3,
                error: PrivacyError::RecordTooLarge { bytes: 9 },
            }),
            2,
        );
        let decoded = ExportLogsServiceResponse::decode(success_protobuf(&part).as_slice())
            .unwrap()
            .partial_success
            .unwrap();
        assert_eq!(
            (decoded.rejected_log_records, Some(decoded.error_message)),
            (3, part.warning.clone())
        );
        let json: serde_json::Value = serde_json::from_slice(&success_json(&part)).unwrap();
        assert_eq!(json["partialSuccess"]["rejectedLogRecords"], "3");
        assert!(
            json["partialSuccess"]["errorMessage"]
                .as_str()
                .unwrap()
                .ends_with("2 texts cut, because their records were over the limit")
        );
    }
}

//! The Kafka headers of raw records that have an origin, which are those that came through an inbox or a spool.

use crate::sink::RawRecord;
use crate::sink::kafka::{wall_ms, with_policy};
use rdkafka::message::{Header, OwnedHeaders};
use schemas::origin::Origin;
use schemas::record::{HEADER_ORIGIN, HEADER_WALL};

/// Returns the headers of a raw record: when it was written, its origin, and the privacy policy it went through.
pub(crate) fn with_origin(record: &RawRecord, origin: Origin<'_>) -> OwnedHeaders {
    let (wall, origin) = (wall_ms().to_string(), origin.to_string());
    let headers = OwnedHeaders::new()
        .insert(Header {
            key: HEADER_WALL,
            value: Some(&wall),
        })
        .insert(Header {
            key: HEADER_ORIGIN,
            value: Some(&origin),
        });
    with_policy(headers, record)
}

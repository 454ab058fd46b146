//! The headers of raw records that have an origin: those from an inbox or a spool.

use crate::sink::RawRecord;
use crate::sink::kafka::{wall_ms, with_policy};
use rdkafka::message::{Header, OwnedHeaders};
use schemas::origin::Origin;
use schemas::record::{HEADER_ORIGIN, HEADER_WALL};

/// The headers of a raw record with this origin.
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

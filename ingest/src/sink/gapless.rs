//! The headers of raw records whose runs have no holes: those of the inbox and of the spool. Why that is so is in
//! [`crate::inbox`].

use crate::sink::RawRecord;
use crate::sink::kafka::{wall_ms, with_policy};
use rdkafka::message::{Header, OwnedHeaders};
use schemas::origin::Origin;
use schemas::record::{HEADER_ORIGIN, HEADER_WALL};

/// The headers of a raw record that has an origin.
pub(crate) fn headers(record: &RawRecord, origin: Origin<'_>) -> OwnedHeaders {
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

//! What the producers have in common whose runs have no holes: those of the inbox and of the spool. Why that is so is in
//! [`crate::inbox`].

use crate::sink::RawRecord;
use crate::sink::kafka::{MESSAGE_BYTES_MAX, wall_ms, with_policy};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use schemas::cluster::Cluster;
use schemas::origin::Origin;
use schemas::record::{HEADER_ORIGIN, HEADER_WALL};
use std::time::Duration;

/// Records that wait for the broker, at most.
const QUEUE_RECORDS_MAX: usize = 20_000;
/// And KiB of them; one more than fits waits.
const QUEUE_KIB_MAX: usize = 64 << 10;
/// How long one look at what was delivered takes.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// A producer that writes in order, one request at a time, and never gives a record up: it ends at the first that fails.
pub(crate) fn config(cluster: &Cluster, client_id: &str) -> ClientConfig {
    let mut config: ClientConfig = cluster.properties(client_id).collect();
    config
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        .set("max.in.flight.requests.per.connection", "1")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string())
        // It warns that the guarantee is experimental; what fails is told by other ways.
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Error);
    config
}

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

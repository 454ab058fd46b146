//! What the producers have in common whose runs have no holes: what a partition gets of a run is always a beginning of it.

use crate::cluster::Cluster;
use rdkafka::ClientConfig;
use std::time::Duration;

/// Records that wait for the broker, at most.
const QUEUE_RECORDS_MAX: usize = 20_000;
/// KiB of records that wait for the broker, at most; one more than fits waits.
const QUEUE_KIB_MAX: usize = 64 << 10;
/// How long one look at what was delivered takes.
pub const LOOK: Duration = Duration::from_millis(20);

/// A producer that writes in order, one request at a time, and never gives a record up: it ends at the first that fails.
#[must_use]
pub fn config(cluster: &Cluster, client_id: &str, message_bytes_max: usize) -> ClientConfig {
    let mut config: ClientConfig = cluster.properties(client_id).collect();
    config
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("message.max.bytes", message_bytes_max.to_string())
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

//! Makes the idempotent producer of raw records, hands records to it, and replaces it where it failed.

use super::ConnectError;
use crate::sink::partition::murmur2_partition;
use crate::sink::{HOLD_LOGS, RawRecord, SinkError};
use processor_log::cluster::Cluster;
use processor_log::contact::Contact;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use schemas::record::{HEADER_POLICY, HEADER_WALL};
use schemas::topic::Topic;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How long the producer tries a record, long after its request was refused, since clients that send once do not come again.
/// It is longer than brokers take to notice that one of them is gone, by default 9 s.
pub const GIVE_UP: Duration = Duration::from_secs(30);
/// How long the producer tries a record before a spool, which takes the record over. The client looks once a second, so it may
/// be a second more; requests that wait have deadlines of their own.
pub(super) const GIVE_UP_TO_SPOOL: Duration = HOLD_LOGS;
/// How long a broker may take to answer a request before the request is sent again.
const REQUEST_TIME_MAX: Duration = HOLD_LOGS;
/// The first pause between two tries of a request, in ms: a new leader should not wait for us.
const RETRY_PAUSE_MS: &str = "50";
/// The longest pause between two tries of a request, in ms.
const RETRY_PAUSE_MAX_MS: &str = "200";
/// How often the client asks who leads partitions, in ms. By itself it asks when a broker goes, which is before another leader
/// is chosen, and then every five minutes; but requests are held for seconds only.
pub(crate) const LEADERS_EVERY_MS: &str = "500";
/// Largest message, in bytes; the topics' `max.message.bytes` must be at least that.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// How many records may wait for the brokers.
const QUEUE_RECORDS_MAX: usize = 200_000;
/// How many KiB of records may wait for the brokers.
const QUEUE_KIB_MAX: usize = 128 << 10;
/// How long between two tries to hand a record to a producer whose queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// A producer that can be replaced by another one with the same settings.
pub(super) struct Producing {
    config: ClientConfig,
    producer: RwLock<FutureProducer>,
    contact: Contact,
}

impl Producing {
    pub fn new(cluster: &Cluster, linger_ms: u64, give_up: Duration) -> Result<Self, ConnectError> {
        let config = client_config(cluster, linger_ms, give_up);
        let producer = config.create().map_err(|source| ConnectError::Client {
            bootstrap: cluster.bootstrap.clone(),
            source,
        })?;
        Ok(Self {
            config,
            producer: RwLock::new(producer),
            contact: Contact::new(cluster, Topic::RawLogs),
        })
    }

    pub fn get(&self) -> FutureProducer {
        self.producer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces a producer that met a fatal error, after which it takes no record any more.
    pub fn replace_if_dead(&self) {
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let Some((code, reason)) = producer.client().fatal_error() else {
            return;
        };
        tracing::error!(%code, reason, "the producer failed for good: making another");
        self.replace(&mut producer);
    }

    /// Replaces a producer that reaches no broker any more. The records that it still has have failed.
    pub fn replace_if_cut_off(&self) {
        let old = self.get();
        if self.contact.is_lost(old.client()) {
            self.replace(&mut self.producer.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn replace(&self, producer: &mut FutureProducer) {
        match self.config.create() {
            Ok(fresh) => *producer = fresh,
            Err(error) => tracing::error!(%error, "no other producer could be made"),
        }
    }
}

fn client_config(cluster: &Cluster, linger_ms: u64, give_up: Duration) -> ClientConfig {
    let mut config: ClientConfig = cluster.properties("tacho-ingest").collect();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", linger_ms.to_string())
        .set("topic.metadata.refresh.interval.ms", LEADERS_EVERY_MS)
        .set("retry.backoff.ms", RETRY_PAUSE_MS)
        .set("retry.backoff.max.ms", RETRY_PAUSE_MAX_MS)
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("message.timeout.ms", give_up.as_millis().to_string())
        .set("request.timeout.ms", REQUEST_TIME_MAX.as_millis().to_string())
        .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string());
    config
}

/// Hands one record to a producer; waits for room in its queue up to `deadline`.
pub(super) async fn enqueue(
    producer: &FutureProducer,
    topic: &str,
    record: &RawRecord,
    partitions: i32,
    deadline: Instant,
) -> Result<DeliveryFuture, SinkError> {
    let partition = murmur2_partition(record.key.as_bytes(), partitions);
    loop {
        let wall = wall_ms().to_string();
        let headers = with_policy(
            OwnedHeaders::new().insert(Header {
                key: HEADER_WALL,
                value: Some(&wall),
            }),
            record,
        );
        let attempt = FutureRecord::to(topic)
            .partition(partition)
            .key(&record.key)
            .payload(record.value.as_ref())
            .headers(headers);
        match producer.send_result(attempt) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            Err((error, _)) => return Err(refusal(&error)),
        }
    }
}

/// The headers, with the epoch of the policy that the record was cleaned under.
pub(crate) fn with_policy(headers: OwnedHeaders, record: &RawRecord) -> OwnedHeaders {
    match record.policy {
        Some(epoch) => headers.insert(Header {
            key: HEADER_POLICY,
            value: Some(&epoch.to_string()),
        }),
        None => headers,
    }
}

/// Wall time, in ms since the Unix epoch.
pub(crate) fn wall_ms() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis())
}

/// What the sender of a record is told of a producer's error.
pub(super) fn refusal(error: &KafkaError) -> SinkError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            SinkError::TooLarge(error.to_string())
        }
        _ => SinkError::Unavailable(error.to_string()),
    }
}

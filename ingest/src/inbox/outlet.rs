//! Writes drained records, by a producer whose runs have no holes (why that matters is in [`super`]).

use super::Target;
use super::drain::{DrainError, Received, RecordId, Stop};
use super::quarantine::quarantined_bytes;
use crate::sink::RawRecord;
use crate::sink::headers::with_origin;
use crate::sink::kafka::MESSAGE_BYTES_MAX;
use crate::sink::partition::murmur2_partition;
use processor_log::cluster::Cluster;
use processor_log::kafka::gapless::{self, GaplessError, GaplessProducer};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use schemas::id::DEFAULT_TENANT;
use schemas::origin::Origin;
use schemas::record::{HEADER_CUT_FROM, HEADER_ORIGIN, HEADER_REASON, HEADER_RETRY_OF, HEADER_TENANT};
use schemas::signal::Signal;
use schemas::topic::Topic;

/// How many bytes one request to a broker may have, unless it holds one record.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The inbox record that a record in flight belongs to.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub id: RecordId,
    /// The size of the record in flight.
    pub bytes: usize,
}

fn log_client_error(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "librdkafka", %error, reason, "inbox producer error");
}

impl From<GaplessError> for DrainError {
    fn from(error: GaplessError) -> Self {
        match error {
            GaplessError::Write(error) => Self::Write(error),
            GaplessError::CutOff => Self::CutOff("writing"),
            GaplessError::Ending => Self::Ending,
        }
    }
}

/// A producer, and the names of the topics.
pub(super) struct Outlet {
    producer: GaplessProducer<Sent>,
    /// The raw topics of each environment, in the order of [`Signal::ALL`], and how many partitions each topic has.
    raw: Vec<([String; 3], i32)>,
    quarantine: String,
}

impl Outlet {
    pub fn connect(cluster: &Cluster, raw_partitions: i32, others: &[Target]) -> Result<Self, DrainError> {
        let producer = GaplessProducer::new(cluster, &client_config(cluster), log_client_error);
        let raw = |prefix: &str| Signal::ALL.map(|signal| format!("{prefix}{}", signal.raw().name()));
        let main = (raw(&cluster.prefix), raw_partitions);
        Ok(Self {
            producer: producer.map_err(|source| DrainError::Client {
                doing: "making a producer",
                source,
            })?,
            raw: std::iter::once(main)
                .chain(
                    others
                        .iter()
                        .map(|other| (raw(&other.prefix), other.raw_partitions)),
                )
                .collect(),
            quarantine: format!("{}{}", cluster.prefix, Topic::Quarantine.name()),
        })
    }

    /// Takes one part of an inbox record. Blocks while the producer's queue is full.
    ///
    /// # Errors
    /// A record before it failed, or this one can't be taken.
    pub fn raw(
        &self,
        record: &RawRecord,
        origin: Origin<'_>,
        retry_of: Option<&str>,
        sent: Sent,
        stop: &Stop,
    ) -> Result<(), DrainError> {
        let headers = with_retry(with_origin(record, origin), retry_of);
        let (topics, partitions) = self
            .raw
            .get(usize::from(record.environment))
            .ok_or(DrainError::Mismatch)?;
        let partition = murmur2_partition(record.key.as_bytes(), *partitions);
        let message = BaseRecord::with_opaque_to(&topics[record.signal as usize], Box::new(sent));
        self.send(
            message
                .partition(partition)
                .key(record.key.as_str())
                .payload(&record.value[..])
                .headers(headers),
            stop,
        )
    }

    /// Takes an inbox record that can't become raw ones, for the quarantine. Blocks and fails as [`Outlet::raw`].
    pub fn quarantine(
        &self,
        record: &Received,
        reason: &str,
        sent: Sent,
        stop: &Stop,
    ) -> Result<(), DrainError> {
        let origin = format!("{}@{}", record.id.source, record.id.offset);
        let bytes = quarantined_bytes(&record.value);
        let headers = OwnedHeaders::new()
            .insert(Header {
                key: HEADER_REASON,
                value: Some(reason),
            })
            .insert(Header {
                key: HEADER_ORIGIN,
                value: Some(&origin),
            })
            .insert(Header {
                key: HEADER_TENANT,
                value: Some(DEFAULT_TENANT),
            });
        let mut headers = with_retry(headers, record.retry_of.as_deref());
        if bytes.len() < record.value.len() {
            let length = record.value.len().to_string();
            headers = headers.insert(Header {
                key: HEADER_CUT_FROM,
                value: Some(&length),
            });
        }
        let message = BaseRecord::with_opaque_to(&self.quarantine, Box::new(sent));
        self.send(
            message.partition(0).key(reason).payload(&*bytes).headers(headers),
            stop,
        )
    }

    fn send(&self, record: BaseRecord<'_, str, [u8], Box<Sent>>, stop: &Stop) -> Result<(), DrainError> {
        Ok(self.producer.send(record, || stop.is_over())?)
    }

    /// Waits until everything that was taken is durable: for as long as it takes, or until the end's time is over.
    pub fn wait(&self, stop: &Stop) -> Result<(), DrainError> {
        Ok(self.producer.wait(|| stop.is_over())?)
    }

    /// The records that the brokers turned down for their own size. A small record shares its request with others, so nobody can
    /// tell which of them was too large.
    pub fn refused(&self) -> Vec<RecordId> {
        self.producer.failures(|failed| {
            let refused = failed
                .iter()
                .filter(|(error, sent)| is_too_large(error) && sent.bytes > REQUEST_BYTES_MAX);
            refused.map(|(_, sent)| sent.id.clone()).collect()
        })
    }
}

/// The headers, with which record of the quarantine this is a retry of, if it is one.
fn with_retry(headers: OwnedHeaders, retry_of: Option<&str>) -> OwnedHeaders {
    match retry_of {
        Some(retry_of) => headers.insert(Header {
            key: HEADER_RETRY_OF,
            value: Some(retry_of),
        }),
        None => headers,
    }
}

fn is_too_large(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
    )
}

fn client_config(cluster: &Cluster) -> ClientConfig {
    let mut config = gapless::config(cluster, "tacho-ingest-inbox", MESSAGE_BYTES_MAX);
    config.set("batch.size", REQUEST_BYTES_MAX.to_string());
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlet_needs_no_broker_to_begin() {
        let cluster = Cluster::plain("127.0.0.1:9", "");
        assert!(Outlet::connect(&cluster, 3, &[]).is_ok());
    }
}

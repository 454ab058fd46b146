//! Drains a spool into Kafka, in runs without a hole, like the inbox (why that matters is in [`crate::inbox`]).

use super::upstream::{Outlet, OutletError, Upstream};
use crate::sink::headers::with_origin;
use crate::sink::kafka::{Flight, KafkaSink, LEADERS_EVERY_MS, MESSAGE_BYTES_MAX};
use crate::sink::partition::murmur2_partition;
use crate::sink::{Fate, RawRecord};
use processor_log::cluster::Cluster;
use processor_log::kafka::gapless::{self, GaplessError, GaplessProducer};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseRecord;
use schemas::origin::Origin;
use schemas::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

impl Upstream for KafkaSink {
    type Flight = Flight;
    type Outlet = KafkaOutlet;

    async fn launch(&self, records: &[RawRecord], until: Instant) -> Vec<Fate<Flight>> {
        Self::launch(self, records, until).await
    }

    fn after_failure(&self) {
        Self::after_failure(self);
    }

    fn ready(&self) -> bool {
        crate::sink::Sink::ready(self)
    }

    fn look_again(&self) -> bool {
        Self::look_again(self)
    }

    fn outlet(&self) -> Result<KafkaOutlet, OutletError> {
        KafkaOutlet::connect(self.cluster(), self.partitions()).map_err(OutletError::Connect)
    }
}

fn log_client_error(error: &KafkaError, reason: &str) {
    tracing::debug!(target: "librdkafka", %error, reason, "spool producer error");
}

impl From<GaplessError> for OutletError {
    fn from(error: GaplessError) -> Self {
        match error {
            GaplessError::Write(error) => Self::Write(error),
            GaplessError::CutOff => Self::CutOff,
            GaplessError::Ending => Self::Ending,
        }
    }
}

/// The way from a spool to the raw topics of a cluster.
pub struct KafkaOutlet {
    producer: GaplessProducer<()>,
    /// The names of the raw topics, in the order of [`Signal::ALL`].
    names: [String; 3],
    partitions: i32,
}

impl KafkaOutlet {
    fn connect(cluster: &Cluster, partitions: i32) -> Result<Self, KafkaError> {
        let producer = GaplessProducer::new(cluster, &client_config(cluster), log_client_error)?;
        let names = Signal::ALL.map(|signal| format!("{}{}", cluster.prefix, signal.raw().name()));
        Ok(Self {
            producer,
            names,
            partitions,
        })
    }

    /// Hands one record to the producer; blocks while its queue is full.
    fn send(
        &self,
        source: &str,
        number: u64,
        record: &RawRecord,
        stop: &AtomicBool,
    ) -> Result<(), OutletError> {
        let offset = i64::try_from(number).unwrap_or(i64::MAX);
        let message = BaseRecord::with_opaque_to(&self.names[record.signal as usize], Box::new(()))
            .partition(murmur2_partition(record.key.as_bytes(), self.partitions))
            .key(record.key.as_str())
            .payload(&record.value[..])
            .headers(with_origin(
                record,
                Origin {
                    source,
                    offset,
                    part: 0,
                    stamped_ms: 0,
                },
            ));
        Ok(self.producer.send(message, || stop.load(Ordering::Relaxed))?)
    }
}

impl Outlet for KafkaOutlet {
    fn write(
        &mut self,
        source: &str,
        records: &[(u64, RawRecord)],
        stop: &AtomicBool,
    ) -> Result<(), OutletError> {
        for (number, record) in records {
            self.send(source, *number, record, stop)?;
        }
        Ok(self.producer.wait(|| stop.load(Ordering::Relaxed))?)
    }
}

fn client_config(cluster: &Cluster) -> ClientConfig {
    let mut config = gapless::config(cluster, "tacho-ingest-spool", MESSAGE_BYTES_MAX);
    config.set("topic.metadata.refresh.interval.ms", LEADERS_EVERY_MS);
    config
}

//! Drains a spool into Kafka, in runs without a hole, like the inbox (why that matters is in [`crate::inbox`]).

use super::upstream::{Outlet, OutletError, Upstream};
use crate::sink::gapless::headers;
use crate::sink::kafka::{Flight, KafkaSink, LEADERS_EVERY_MS, MESSAGE_BYTES_MAX};
use crate::sink::partition::murmur2_partition;
use crate::sink::{Fate, RawRecord};
use processor_log::cluster::Cluster;
use processor_log::contact::Contact;
use processor_log::kafka::gapless::{self, LOOK};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use schemas::origin::Origin;
use schemas::signal::Signal;
use schemas::topic::Topic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
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

/// Keeps the first failure of a delivery.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    fn check(&self) -> Result<(), OutletError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed
            .as_ref()
            .map_or(Ok(()), |error| Err(OutletError::Write(error.clone())))
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "spool producer error");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| error.clone());
        }
    }
}

/// A producer that never gives a record up, and ends at the first one that fails.
pub struct KafkaOutlet {
    producer: BaseProducer<Deliveries>,
    contact: Contact,
    /// The names of the raw topics, in the order of [`Signal::ALL`].
    names: [String; 3],
    partitions: i32,
}

impl KafkaOutlet {
    fn connect(cluster: &Cluster, partitions: i32) -> Result<Self, KafkaError> {
        let producer = client_config(cluster).create_with_context(Deliveries::default())?;
        let names = Signal::ALL.map(|signal| format!("{}{}", cluster.prefix, signal.raw().name()));
        Ok(Self {
            producer,
            contact: Contact::new(cluster, Topic::RawLogs),
            names,
            partitions,
        })
    }

    /// Checks that the producer reaches the cluster. It never gives a record up, so one that is cut off would wait for ever.
    fn stay_in_contact(&self) -> Result<(), OutletError> {
        match self.contact.is_lost(self.producer.client()) {
            true => Err(OutletError::CutOff),
            false => Ok(()),
        }
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
        let mut message = BaseRecord::to(&self.names[record.signal as usize])
            .partition(murmur2_partition(record.key.as_bytes(), self.partitions))
            .key(record.key.as_str())
            .payload(&record.value[..])
            .headers(headers(
                record,
                Origin {
                    source,
                    offset,
                    part: 0,
                    stamped_ms: 0,
                },
            ));
        let mut wait = Duration::ZERO;
        loop {
            self.producer.poll(wait);
            self.producer.context().check()?;
            message = match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !stop.load(Ordering::Relaxed) =>
                {
                    back
                }
                Err((error, _)) => return Err(OutletError::Write(error)),
            };
            self.stay_in_contact()?;
            wait = LOOK;
        }
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
        loop {
            let is_flushed = self.producer.flush(LOOK).is_ok();
            self.producer.context().check()?;
            match is_flushed {
                true => return Ok(()),
                false if stop.load(Ordering::Relaxed) => {
                    return Err(OutletError::Ending);
                }
                false => self.stay_in_contact()?,
            }
        }
    }
}

fn client_config(cluster: &Cluster) -> ClientConfig {
    let mut config = gapless::config(cluster, "tacho-ingest-spool", MESSAGE_BYTES_MAX);
    config.set("topic.metadata.refresh.interval.ms", LEADERS_EVERY_MS);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_takes_its_settings_whatever_is_passed_through() {
        let mut cluster = Cluster::plain("127.0.0.1:9", "");
        cluster
            .options
            .insert("message.timeout.ms".to_owned(), "5".to_owned());
        let native = client_config(&cluster).create_native_config().unwrap();
        for (name, value) in [
            ("max.in.flight", "1"),
            ("message.timeout.ms", "0"),
            ("enable.gapless.guarantee", "true"),
        ] {
            assert_eq!(native.get(name).unwrap(), value, "{name}");
        }
    }
}

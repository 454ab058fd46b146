//! A producer whose runs have no holes: what a partition gets of a run of records is always a beginning of the run. Ingest's
//! inbox and spool write with it.
//!
//! Records of a partition are sent in order, one request at a time, and no record is given up: the producer is of no use
//! after the first record that fails (`enable.gapless.guarantee`).

use crate::cluster::Cluster;
use crate::contact::Contact;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use schemas::topic::Topic;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many records wait for the broker at most.
const QUEUE_RECORDS_MAX: usize = 20_000;
/// How many KiB of records wait for the broker at most; whoever sends one more waits.
const QUEUE_KIB_MAX: usize = 64 << 10;
/// How long one look at what was delivered takes.
const LOOK: Duration = Duration::from_millis(20);
/// How many failures are kept; those behind the first usually follow from it.
const FAILURES_MAX: usize = 16;

/// The properties of such a producer, to which its user adds its own.
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
        // At lower levels the client warns that the guarantee is experimental. Failures come as errors.
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Error);
    config
}

/// Why a run can't go on.
#[derive(Debug, thiserror::Error)]
pub enum GaplessError {
    /// A record of the run was not written; the first one that failed.
    #[error("a record was not written")]
    Write(#[source] KafkaError),
    /// The producer reaches no broker, while a new client does: it would wait for ever.
    #[error("the producer reaches no broker")]
    CutOff,
    /// The user's time is over while records wait.
    #[error("the process ends before all is written")]
    Ending,
}

/// Logs an error of a client, with the client's reason.
pub type LogClientError = fn(&KafkaError, &str);

/// Keeps the records that the client could not deliver, each with what its sender attached to it.
struct Failures<T> {
    failed: Mutex<Vec<(KafkaError, T)>>,
    log_error: LogClientError,
}

impl<T> Failures<T> {
    fn lock(&self) -> MutexGuard<'_, Vec<(KafkaError, T)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + Sync> ClientContext for Failures<T> {
    fn error(&self, error: KafkaError, reason: &str) {
        (self.log_error)(&error, reason);
    }
}

impl<T: Send + Sync + 'static> ProducerContext for Failures<T> {
    type DeliveryOpaque = Box<T>;

    fn delivery(&self, result: &DeliveryResult<'_>, attached: Box<T>) {
        let Err((error, _)) = result else { return };
        let mut failed = self.lock();
        if failed.len() < FAILURES_MAX {
            failed.push((error.clone(), *attached));
        }
    }
}

/// A producer whose runs have no holes. A value of type `T` is attached to each record, and comes back with its failure.
pub struct GaplessProducer<T: Send + Sync + 'static> {
    producer: BaseProducer<Failures<T>>,
    contact: Contact,
}

impl<T: Send + Sync + 'static> GaplessProducer<T> {
    /// A producer with properties that began with [`config`]. It connects by itself.
    ///
    /// # Errors
    /// The client refuses the properties.
    pub fn new(cluster: &Cluster, config: &ClientConfig, log_error: LogClientError) -> KafkaResult<Self> {
        let failures = Failures {
            failed: Mutex::default(),
            log_error,
        };
        Ok(Self {
            producer: config.create_with_context(failures)?,
            contact: Contact::new(cluster, Topic::RawLogs),
        })
    }

    /// Hands one record to the client; blocks while the client's queue is full, until `is_over`.
    ///
    /// # Errors
    /// This record or one before it failed, the producer is cut off, or the time is over.
    pub fn send(
        &self,
        record: BaseRecord<'_, str, [u8], Box<T>>,
        is_over: impl Fn() -> bool,
    ) -> Result<(), GaplessError> {
        let mut record = record;
        let mut wait = Duration::ZERO;
        loop {
            // A failure is noticed before another record could go past the one that failed.
            self.producer.poll(wait);
            self.check()?;
            record = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => back,
                Err((error, back)) => {
                    // The last failure of the run: nothing is sent after it, so it has no bound.
                    self.producer
                        .context()
                        .lock()
                        .push((error.clone(), *back.delivery_opaque));
                    return Err(GaplessError::Write(error));
                }
            };
            if is_over() {
                return Err(GaplessError::Ending);
            }
            self.stay_in_contact()?;
            wait = LOOK;
        }
    }

    /// Waits until every record is durable: for as long as it takes, or until `is_over`.
    ///
    /// # Errors
    /// A record failed, the producer is cut off, or the time is over.
    pub fn wait(&self, is_over: impl Fn() -> bool) -> Result<(), GaplessError> {
        loop {
            let is_flushed = self.producer.flush(LOOK).is_ok();
            self.check()?;
            if is_flushed {
                return Ok(());
            }
            if is_over() {
                return Err(GaplessError::Ending);
            }
            self.stay_in_contact()?;
        }
    }

    /// The failures so far, the first one first, each with what was attached to the record.
    pub fn failures<R>(&self, look: impl FnOnce(&[(KafkaError, T)]) -> R) -> R {
        look(&self.producer.context().lock())
    }

    fn check(&self) -> Result<(), GaplessError> {
        match self.producer.context().lock().first() {
            None => Ok(()),
            Some((error, _)) => Err(GaplessError::Write(error.clone())),
        }
    }

    /// Checks that the producer reaches the cluster, since it never gives a record up by itself.
    fn stay_in_contact(&self) -> Result<(), GaplessError> {
        match self.contact.is_lost(self.producer.client()) {
            true => Err(GaplessError::CutOff),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guarantee_holds_whatever_an_operator_passes_through() {
        let mut cluster = Cluster::plain("127.0.0.1:9", "");
        for (name, value) in [
            ("delivery.timeout.ms", "5"),
            ("enable.gapless.guarantee", "false"),
            ("max.in.flight", "9"),
            ("request.required.acks", "1"),
        ] {
            cluster.options.insert(name.to_owned(), value.to_owned());
        }
        let native = config(&cluster, "gapless", 1 << 20)
            .create_native_config()
            .unwrap();
        for (name, value) in [
            ("acks", "-1"),
            ("enable.gapless.guarantee", "true"),
            ("max.in.flight", "1"),
            ("message.timeout.ms", "0"),
        ] {
            assert_eq!(native.get(name).unwrap(), value, "{name}");
        }
    }
}

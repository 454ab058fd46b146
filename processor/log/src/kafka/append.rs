//! The producer of durable appends in order, outside of transactions. A producer that failed is given up.

use super::clients::{self, APPEND_MAX_MS};
use super::names::{Names, headers};
use crate::cluster::Cluster;
use crate::{Appended, LogError};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use schemas::record::NewRecord;
use schemas::time::AppendTime;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long a sender waits for room in the client's buffer before it tries again.
pub(super) const BUFFER_WAIT: Duration = Duration::from_millis(5);
/// How long beyond its own time limit the client may take to report on an append.
const REPORT_GRACE: Duration = Duration::from_secs(5);

/// What became of a record: its index within the append, and where it is.
type Report = (usize, Result<Appended, KafkaError>);

/// Passes delivery reports on to whoever waits for the append.
struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<(usize, Sender<Report>)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (index, sender) = *opaque;
        let report = match result {
            Ok(message) => Ok(Appended {
                offset: message.offset(),
                appended: AppendTime(message.timestamp().to_millis().unwrap_or(0)),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        // The receiver is gone where the append was given up.
        let _ = sender.send((index, report));
    }
}

/// The producer of one worker's appends.
pub(super) struct Appender {
    cluster: Cluster,
    /// The client; none before the first use and after a failure.
    producer: Option<ThreadedProducer<Reports>>,
}

impl Appender {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            producer: None,
        }
    }

    /// Makes the producer anew: one that lived through an outage can keep a record back for as long as that record may
    /// take. It is made ahead of its use, since the client asks for its id on the caller's thread, for half a second if the
    /// brokers are not connected yet.
    pub fn recover(&mut self) -> Result<(), LogError> {
        if let Some(producer) = self.producer.take() {
            // The old producer has nothing on its way, since each append waits for all its records.
            give_up(Arc::new(producer));
        }
        self.producer = Some(self.make()?);
        Ok(())
    }

    fn make(&self) -> Result<ThreadedProducer<Reports>, LogError> {
        clients::producer(&self.cluster)
            .create_with_context(Reports)
            .map_err(|error| LogError::failed("making a producer", error))
    }

    /// See [`crate::Log::append`].
    pub fn append(&mut self, names: &Names, records: &[NewRecord]) -> Result<Vec<Appended>, LogError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.make()?,
        };
        match send_all(&producer, names, records) {
            Ok(appended) => {
                self.producer = Some(producer);
                Ok(appended)
            }
            Err(error) => {
                // Records that are still on their way must not come behind later ones.
                give_up(Arc::new(producer));
                Err(error)
            }
        }
    }
}

fn send_all(
    producer: &ThreadedProducer<Reports>,
    names: &Names,
    records: &[NewRecord],
) -> Result<Vec<Appended>, LogError> {
    let deadline = Instant::now() + Duration::from_millis(APPEND_MAX_MS) + REPORT_GRACE;
    let (sender, reports) = std::sync::mpsc::channel();
    for (index, record) in records.iter().enumerate() {
        let topic = names.name(record.to.topic);
        let mut message = BaseRecord::with_opaque_to(&topic, Box::new((index, sender.clone())))
            .partition(record.to.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers = headers(record, None);
        while let Err((error, back)) = producer.send::<[u8], [u8]>(message) {
            if !queue_full(&error) || Instant::now() > deadline {
                return Err(LogError::failed(format!("appending to {}", record.to), error));
            }
            std::thread::sleep(BUFFER_WAIT);
            message = back;
        }
    }
    drop(sender);
    collect(&reports, records, deadline)
}

fn collect(
    reports: &Receiver<Report>,
    records: &[NewRecord],
    deadline: Instant,
) -> Result<Vec<Appended>, LogError> {
    let mut appended = vec![None; records.len()];
    for _ in records {
        let (index, report) = reports
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .map_err(|error| {
                let what = match error {
                    RecvTimeoutError::Timeout => "in time",
                    RecvTimeoutError::Disconnected => "any more",
                };
                LogError::unavailable(format!("appending: not all records were confirmed {what}"))
            })?;
        let to = records[index].to;
        let report = report.map_err(|error| LogError::failed(format!("appending to {to}"), error))?;
        appended[index] = Some(report);
    }
    Ok(appended
        .into_iter()
        .map(|done| done.expect("each record has one report"))
        .collect())
}

/// Whether the client's own buffer has no room for a record now.
pub(super) fn queue_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}

/// Ends a producer aside: its destruction can block, and what it still holds must not be sent.
pub(super) fn give_up<C: ProducerContext + 'static, P: Producer<C> + Send + Sync + 'static>(
    producer: Arc<P>,
) {
    producer.purge(PurgeConfig::default().queue().inflight());
    drop(clients::drop_aside(producer));
}

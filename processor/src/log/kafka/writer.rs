//! The two producers: one for durable appends in order, one for transactions. A producer that failed is given up.

use super::clients::{self, APPEND_MAX_MS, COMMIT_MAX, FENCE_MAX, failed};
use super::names::{Names, headers};
use crate::log::{Appended, Commit, LogError};
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use schemas::cluster::Cluster;
use schemas::record::NewRecord;
use schemas::time::AppendTime;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long a full buffer of the client is waited for before the next look.
const BUFFER_WAIT: Duration = Duration::from_millis(5);
/// Beyond its own time limit the client must answer within this.
const REPORT_GRACE: Duration = Duration::from_secs(5);

/// What became of a record: its number within the append, and where it is.
type Report = (usize, Result<Appended, KafkaError>);

/// Passes delivery reports on.
struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<(usize, Sender<Report>)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (index, sender) = *opaque;
        let report = match result {
            Ok(message) => Ok(Appended { offset: message.offset(), appended: AppendTime(message.timestamp().to_millis().unwrap_or(0)) }),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody waits any more where the append was given up.
        let _ = sender.send((index, report));
    }
}

/// Appends outside of transactions.
pub(super) struct Appender {
    cluster: Cluster,
    producer: Option<ThreadedProducer<Reports>>,
}

impl Appender {
    pub fn new(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), producer: None }
    }

    pub fn append(&mut self, names: &Names, records: &[NewRecord]) -> Result<Vec<Appended>, LogError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => clients::producer(&self.cluster).create_with_context(Reports).map_err(|error| failed("making a producer", &error))?,
        };
        match send_all(&producer, names, records) {
            Ok(appended) => {
                self.producer = Some(producer);
                Ok(appended)
            }
            Err(error) => {
                // Records that are still on their way must not come behind later ones.
                give_up(producer);
                Err(error)
            }
        }
    }
}

fn send_all(producer: &ThreadedProducer<Reports>, names: &Names, records: &[NewRecord]) -> Result<Vec<Appended>, LogError> {
    let deadline = Instant::now() + Duration::from_millis(APPEND_MAX_MS) + REPORT_GRACE;
    let (sender, reports) = std::sync::mpsc::channel();
    for (index, record) in records.iter().enumerate() {
        let topic = names.name(record.to.topic);
        let mut message = BaseRecord::with_opaque_to(&topic, Box::new((index, sender.clone()))).partition(record.to.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers = headers(record);
        while let Err((error, back)) = producer.send::<[u8], [u8]>(message) {
            if !queue_full(&error) || Instant::now() > deadline {
                return Err(failed(&format!("appending to {topic}/{}", record.to.partition), &error));
            }
            std::thread::sleep(BUFFER_WAIT);
            message = back;
        }
    }
    drop(sender);
    collect(&reports, records, deadline)
}

fn collect(reports: &Receiver<Report>, records: &[NewRecord], deadline: Instant) -> Result<Vec<Appended>, LogError> {
    let mut appended = vec![None; records.len()];
    for _ in records {
        let (index, report) = reports.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => "in time",
                RecvTimeoutError::Disconnected => "any more",
            };
            LogError::Unavailable { reason: format!("appending: not all records were confirmed {what}") }
        })?;
        appended[index] = Some(report.map_err(|error| failed(&format!("appending to {}", records[index].to), &error))?);
    }
    Ok(appended.into_iter().map(|done| done.expect("each record has one report")).collect())
}

fn queue_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}

/// Ends a producer aside: its destruction can block, and what it still holds must not be sent.
fn give_up<C: ProducerContext + 'static>(producer: ThreadedProducer<C>) {
    producer.purge(PurgeConfig::default().queue().inflight());
    // Without a thread it is dropped here: slower, and as right.
    let _ = std::thread::Builder::new().name("producer-end".to_owned()).spawn(move || drop(producer));
}

/// Atomic commits.
pub(super) struct Transactions {
    cluster: Cluster,
    /// `None`: opened for reading only.
    id: Option<String>,
    /// `None` before the first use and after a failure.
    producer: Option<ThreadedProducer<DefaultProducerContext>>,
    /// Set by a failure, until [`Transactions::recover`].
    failed: bool,
}

impl Transactions {
    pub fn new(cluster: &Cluster, id: Option<String>) -> Self {
        Self { cluster: cluster.clone(), id, producer: None, failed: false }
    }

    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// A new producer with the same id: fences older ones and ends their open transaction.
    pub fn recover(&mut self) -> Result<(), LogError> {
        if let Some(producer) = self.producer.take() {
            give_up(producer);
        }
        let Some(id) = &self.id else {
            return Err(LogError::Unavailable { reason: "this log was opened without a transactional id: for reading only".to_owned() });
        };
        let producer: ThreadedProducer<DefaultProducerContext> =
            clients::transactional(&self.cluster, id).create().map_err(|error| failed("making a transactional producer", &error))?;
        if let Err(error) = producer.init_transactions(FENCE_MAX) {
            give_up(producer);
            return Err(failed(&format!("taking over transactional id {id}"), &error));
        }
        self.producer = Some(producer);
        self.failed = false;
        Ok(())
    }

    pub fn commit(&mut self, names: &Names, consumer: &BaseConsumer, commit: &Commit) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::NotCommitted { reason: "an earlier commit failed: recover first".to_owned() });
        }
        if self.producer.is_none() {
            self.recover()?;
        }
        if commit.records.is_empty() && commit.positions.is_empty() {
            return Ok(());
        }
        let producer = self.producer.take().expect("recover made one");
        match transact(&producer, names, consumer, commit) {
            Ok(()) => {
                self.producer = Some(producer);
                Ok(())
            }
            Err(reason) => {
                self.failed = true;
                give_up(producer);
                Err(LogError::NotCommitted { reason })
            }
        }
    }
}

fn transact(
    producer: &ThreadedProducer<DefaultProducerContext>,
    names: &Names,
    consumer: &BaseConsumer,
    commit: &Commit,
) -> Result<(), String> {
    let deadline = Instant::now() + COMMIT_MAX;
    let left = || deadline.saturating_duration_since(Instant::now());
    let step = |what: &'static str| move |error: KafkaError| format!("{what}: {error}");
    producer.begin_transaction().map_err(step("begin"))?;
    for record in &commit.records {
        let topic = names.name(record.to.topic);
        let mut message = BaseRecord::to(&topic).partition(record.to.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers = headers(record);
        while let Err((error, back)) = producer.send::<[u8], [u8]>(message) {
            if !queue_full(&error) || left().is_zero() {
                return Err(format!("sending to {topic}/{}: {error}", record.to.partition));
            }
            std::thread::sleep(BUFFER_WAIT);
            message = back;
        }
    }
    if !commit.positions.is_empty() {
        let group = consumer.group_metadata().ok_or_else(|| "the consumer has no group".to_owned())?;
        producer.send_offsets_to_transaction(&names.list(&commit.positions), &group, left()).map_err(step("positions"))?;
    }
    producer.commit_transaction(left()).map_err(step("commit"))
}

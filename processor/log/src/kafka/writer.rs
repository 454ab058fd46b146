//! The two producers: one for durable appends in order, one for transactions. A producer that failed is given up.

use super::clients::{self, APPEND_MAX_MS, COMMIT_MAX, FENCE_MAX, FENCE_TRY, failed};
use super::group::Group;
use super::names::{Names, headers};
use crate::cluster::Cluster;
use crate::{Appended, Commit, LogError};
use rdkafka::ClientContext;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use schemas::record::NewRecord;
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// How long a full buffer of the client is waited for before the next look.
const BUFFER_WAIT: Duration = Duration::from_millis(5);
/// How long it is waited between two looks whether all records of a transaction are written.
const FLUSH_STEP: Duration = Duration::from_millis(1);
/// How long an abort may take; then the producer is given up.
const ABORT_MAX: Duration = Duration::from_secs(5);
/// Beyond its own time limit the client must answer within this.
const REPORT_GRACE: Duration = Duration::from_secs(5);

/// Beyond its own time limit the client must have sent positions within this; then it never answers.
const POSITIONS_GRACE: Duration = Duration::from_secs(2);
const NO_ANSWER: KafkaError = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);

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
            Ok(message) => Ok(Appended {
                offset: message.offset(),
                appended: AppendTime(message.timestamp().to_millis().unwrap_or(0)),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody waits any more where the append was given up.
        let _ = sender.send((index, report));
    }
}

/// The context of a transactional producer.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    /// What becomes of a transaction is an error of the call that meets it, and an abort in a rebalance is none at all: the
    /// client would log each of them as one.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "TXNERR" {
            tracing::debug!(target: "librdkafka", message, "transaction error");
        } else {
            DefaultClientContext.log(level, facility, message);
        }
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A producer of transactions.
pub(super) type TransactionalProducer = BaseProducer<Quiet>;

/// Appends outside of transactions.
pub(super) struct Appender {
    cluster: Cluster,
    producer: Option<ThreadedProducer<Reports>>,
}

impl Appender {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            producer: None,
        }
    }

    /// Makes the producer anew: one that lived through an outage can keep a record back for as long as it may take. Made ahead
    /// of its use, since the client asks for its id on its own thread, for half a second if the brokers are not connected yet.
    pub fn recover(&mut self) -> Result<(), LogError> {
        if let Some(producer) = self.producer.take() {
            // Nothing is on its way: each append waits for all its records.
            give_up(Arc::new(producer));
        }
        self.producer = Some(self.make()?);
        Ok(())
    }

    fn make(&self) -> Result<ThreadedProducer<Reports>, LogError> {
        clients::producer(&self.cluster)
            .create_with_context(Reports)
            .map_err(|error| failed("making a producer", &error))
    }

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
                return Err(failed(
                    &format!("appending to {topic}/{}", record.to.partition),
                    &error,
                ));
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
                LogError::Unavailable {
                    reason: format!("appending: not all records were confirmed {what}"),
                }
            })?;
        appended[index] =
            Some(report.map_err(|error| failed(&format!("appending to {}", records[index].to), &error))?);
    }
    Ok(appended
        .into_iter()
        .map(|done| done.expect("each record has one report"))
        .collect())
}

fn queue_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}

/// Ends a producer aside: its destruction can block, and what it still holds must not be sent.
fn give_up<C: ProducerContext + 'static, P: Producer<C> + Send + Sync + 'static>(producer: Arc<P>) {
    producer.purge(PurgeConfig::default().queue().inflight());
    drop(clients::drop_aside(producer));
}

/// A transactional producer that has fenced all older ones with its id and ended their open transaction.
pub(super) fn fencing_producer(cluster: &Cluster, id: &str) -> KafkaResult<TransactionalProducer> {
    let deadline = Instant::now() + FENCE_MAX;
    loop {
        match fence(cluster, id) {
            Err(error) if is_timeout(&error) && !left(deadline).is_zero() => {
                tracing::debug!(%error, id, "once more, with a new client")
            }
            outcome => return outcome,
        }
    }
}

fn is_timeout(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(
        error.rdkafka_error_code(),
        Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut)
    )
}

fn fence(cluster: &Cluster, id: &str) -> KafkaResult<TransactionalProducer> {
    let producer: TransactionalProducer = clients::transactional(cluster, id).create_with_context(Quiet)?;
    // The client looks for its coordinator twice a second: with a connection the first look finds it.
    let known = Names::new(&cluster.prefix).name(Topic::Control);
    let outcome = producer
        .client()
        .fetch_metadata(Some(&known), FENCE_TRY)
        .and_then(|_| producer.init_transactions(FENCE_TRY));
    match outcome {
        Ok(()) => Ok(producer),
        Err(error) => {
            give_up(Arc::new(producer));
            Err(error)
        }
    }
}

/// Atomic commits.
pub(super) struct Transactions {
    cluster: Cluster,
    /// `None`: opened for reading only.
    id: Option<String>,
    /// `None` before the first use and after a failure.
    producer: Option<Arc<TransactionalProducer>>,
    /// Set by a failure, until [`Transactions::recover`].
    failed: bool,
}

impl Transactions {
    pub fn new(cluster: &Cluster, id: Option<String>) -> Self {
        Self {
            cluster: cluster.clone(),
            id,
            producer: None,
            failed: false,
        }
    }

    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// Whether this log may commit.
    pub const fn is_writer(&self) -> bool {
        self.id.is_some()
    }

    /// A new producer with the same id: fences older ones and ends their open transaction.
    pub fn recover(&mut self) -> Result<(), LogError> {
        if let Some(producer) = self.producer.take() {
            give_up(producer);
        }
        let Some(id) = &self.id else {
            return Err(LogError::Unavailable {
                reason: "this log was opened without a transactional id: for reading only".to_owned(),
            });
        };
        let fencing = |error| failed(&format!("taking over transactional id {id}"), &error);
        let producer = fencing_producer(&self.cluster, id).map_err(fencing)?;
        self.producer = Some(Arc::new(producer));
        self.failed = false;
        Ok(())
    }

    /// Writes records and positions in one transaction.
    ///
    /// After [`Failure::Aborted`] the next commit may follow; after all others [`Transactions::recover`] comes first.
    pub fn commit(&mut self, names: &Names, group: &Group, commit: &Commit) -> Result<(), Failure> {
        if self.failed {
            return Err(Failure::Dead(
                "an earlier commit failed: recover first".to_owned(),
            ));
        }
        if self.producer.is_none() {
            self.recover().map_err(|error| Failure::Dead(error.to_string()))?;
        }
        if commit.parts.is_empty() {
            return Ok(());
        }
        let producer = self.producer.take().expect("recover made one");
        let result = Transaction {
            producer: &producer,
            id: self.id(),
            names,
            group,
        }
        .run(commit);
        match result {
            Ok(()) | Err(Failure::Aborted(_)) => self.producer = Some(producer),
            Err(_) => {
                self.failed = true;
                give_up(producer);
            }
        }
        result
    }
}

/// Why a transaction did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was aborted, and the brokers have said so.
    Aborted(String),
    /// The producer is of no use any more, and nothing was committed by it.
    Dead(String),
    /// Nobody knows whether it was committed.
    Unknown(String),
}

/// One transaction on its way.
struct Transaction<'a> {
    producer: &'a Arc<TransactionalProducer>,
    id: &'a str,
    names: &'a Names,
    group: &'a Group,
}

impl Transaction<'_> {
    fn run(&self, commit: &Commit) -> Result<(), Failure> {
        let deadline = Instant::now() + COMMIT_MAX;
        self.producer
            .begin_transaction()
            .map_err(|error| Failure::Dead(format!("begin: {error}")))?;
        // Positions before records: a commit that meets a rebalance is refused here, and an abort without records costs
        // the client nothing. With records on their way it takes a new producer epoch, and half a second.
        self.again("positions", deadline, || self.send_positions(commit, deadline))
            .map_err(|error| match error {
                NO_ANSWER => Failure::Dead("positions: no answer in time".to_owned()),
                error => self.aborted("positions", &error),
            })?;
        self.send(commit, deadline)?;
        self.again("commit", deadline, || {
            self.producer.commit_transaction(left(deadline))
        })
        .map_err(|error| match &error {
            KafkaError::Transaction(cause) if cause.txn_requires_abort() => self.aborted("commit", &error),
            KafkaError::Transaction(cause) if cause.is_fatal() => Failure::Dead(format!("commit: {error}")),
            _ => Failure::Unknown(format!("commit: {error}")),
        })
    }

    /// On a thread of its own: the client can wait for ever for a coordinator that it has given up, whatever time it is told
    /// (its issue 5511). That thread stays then, with the old producer, which whoever recovers fences.
    fn send_positions(&self, commit: &Commit, deadline: Instant) -> Result<(), KafkaError> {
        let group = self.group.metadata().ok_or(KafkaError::Canceled)?;
        let (producer, positions) = (Arc::clone(self.producer), self.names.list(&commit.positions()));
        let (sender, outcome) = std::sync::mpsc::channel();
        let send = move || {
            // Nobody waits any more where it took too long.
            let _ = sender.send(producer.send_offsets_to_transaction(&positions, &group, left(deadline)));
        };
        // Without a thread nothing is sent, and the transaction is aborted.
        thread::Builder::new()
            .name("positions".to_owned())
            .spawn(send)
            .map_err(|_| KafkaError::Canceled)?;
        outcome
            .recv_timeout(left(deadline) + POSITIONS_GRACE)
            .unwrap_or(Err(NO_ANSWER))
    }

    fn send(&self, commit: &Commit, deadline: Instant) -> Result<(), Failure> {
        let mut begun = BTreeSet::new();
        // Records of one topic mostly follow one another.
        let (mut last, mut topic) = (None, String::new());
        for record in commit.records() {
            if last.replace(record.to.topic) != Some(record.to.topic) {
                topic = self.names.name(record.to.topic);
            }
            let mut message = BaseRecord::to(&topic).partition(record.to.partition);
            message.key = record.key.as_deref();
            message.payload = record.value.as_deref();
            message.headers = headers(record, begun.insert(record.to).then_some(self.id));
            while let Err((error, back)) = self.producer.send::<[u8], [u8]>(message) {
                if !queue_full(&error) || left(deadline).is_zero() {
                    return Err(self.aborted(&format!("sending to {topic}/{}", record.to.partition), &error));
                }
                self.producer.poll(BUFFER_WAIT);
                message = back;
            }
        }
        // The flush that comes with the commit looks every 100 ms; this one does every millisecond. It must be a flush, not
        // a look at the queue alone: it wakes the client's threads, without which a partition that has just joined the
        // transaction can wait until its records time out (seen with 256).
        // Slept, not polled: a poll of a millisecond or less spins until it is over.
        while self.producer.flush(Duration::ZERO).is_err() && !left(deadline).is_zero() {
            std::thread::sleep(FLUSH_STEP);
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Repeats a call while the client says that this may help.
    fn again(
        &self,
        what: &str,
        deadline: Instant,
        mut call: impl FnMut() -> Result<(), KafkaError>,
    ) -> Result<(), KafkaError> {
        loop {
            match call() {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !left(deadline).is_zero() => {
                    tracing::debug!(%error, "{what}: once more");
                }
                outcome => return outcome,
            }
        }
    }

    /// Before anybody was asked to commit: aborts, so that it is certain that nothing was.
    fn aborted(&self, what: &str, error: &KafkaError) -> Failure {
        let reason = format!("{what}: {error}");
        if matches!(error, KafkaError::Transaction(cause) if cause.is_fatal()) {
            return Failure::Dead(reason);
        }
        match self.producer.abort_transaction(ABORT_MAX) {
            Ok(()) => Failure::Aborted(reason),
            Err(error) => Failure::Dead(format!("{reason}; abort: {error}")),
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

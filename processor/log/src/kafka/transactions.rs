//! The producer of transactions, and what becomes of each. A producer whose transaction has an unclear end is
//! given up.
//!
//! Positions are sent to a transaction before its records, so that one that meets a rebalance is refused
//! before it has written anything. They are sent on a thread of their own, which is left behind where the
//! client never answers: librdkafka can wait without end for a group coordinator that it has given up,
//! whatever time limit it was told (its issue 5511). One client may try for 5 s to take a `transactional.id`
//! over, then a new one does.
//!
//! librdkafka keeps one producer epoch for all transactions (no KIP-890; 2.12.1 on Kafka 4.4.0: twelve in a
//! row), so a producer whose commit got no answer is never used again: a late answer could end a later
//! transaction.

use super::append::{BUFFER_WAIT, give_up, queue_full};
use super::clients::{self, COMMIT_MAX, FENCE_MAX, FENCE_TRY};
use super::group::Group;
use super::names::{Names, headers};
use crate::cluster::Cluster;
use crate::error::Cause;
use crate::{Commit, LogError};
use rdkafka::ClientContext;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long between two looks whether all records of a transaction are written.
const FLUSH_STEP: Duration = Duration::from_millis(1);
/// How long an abort may take; then the producer is given up.
const ABORT_MAX: Duration = Duration::from_secs(5);
/// How long beyond its own time limit the client may take to send positions; after that it never answers.
const POSITIONS_GRACE: Duration = Duration::from_secs(2);
/// The error of positions that were not sent in time.
const NO_ANSWER: KafkaError = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);

/// The context of a transactional producer.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    /// Logs errors of transactions at debug level: the call that meets one gives it to the caller, and an abort in a
    /// rebalance is no error, while the client would log both as errors.
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

/// A client that can run transactions.
pub(super) type TransactionalProducer = BaseProducer<Quiet>;

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
    // The client looks for its coordinator twice a second; with a connection to a broker its first look finds it.
    let known = Names::new(cluster).name(Topic::Control);
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

/// The commits of one worker, each a transaction.
pub(super) struct Transactions {
    cluster: Cluster,
    /// The transactional id; `None` for a user that never commits.
    id: Option<String>,
    /// The client; `None` before the first use and after a failure.
    producer: Option<Arc<TransactionalProducer>>,
    /// Whether a transaction failed since the last [`Transactions::recover`].
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

    /// Whether this user of the log may commit.
    pub const fn is_writer(&self) -> bool {
        self.id.is_some()
    }

    /// Makes a new producer with the same id, which fences older ones and ends their open transaction.
    pub fn recover(&mut self) -> Result<(), LogError> {
        if let Some(producer) = self.producer.take() {
            give_up(producer);
        }
        let Some(id) = &self.id else {
            return Err(LogError::unavailable(
                "this log was opened without a transactional id, so it can't commit",
            ));
        };
        let fencing = |error| LogError::failed(format!("taking over transactional id {id}"), error);
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
            return Err(Failure::Dead(Said::only(
                "an earlier commit failed: recover first",
            )));
        }
        if self.producer.is_none() {
            self.recover()
                .map_err(|error| Failure::Dead(Said::by("recovering", error)))?;
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

/// What was said of a failed transaction: the step that failed, and the client's error.
#[derive(Debug)]
pub(super) struct Said {
    pub reason: String,
    pub source: Option<Cause>,
}

impl Said {
    fn only(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            source: None,
        }
    }

    fn by(reason: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self {
            reason: reason.into(),
            source: Some(source.into()),
        }
    }
}

/// Why a transaction did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The transaction was aborted, and the brokers have said so.
    Aborted(Said),
    /// The producer is of no use any more, and nothing was committed by it.
    Dead(Said),
    /// Nobody knows whether it was committed.
    Unknown(Said),
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
            .map_err(|error| Failure::Dead(Said::by("begin", error)))?;
        // Positions before records: a commit that meets a rebalance is refused here, and an abort without records costs
        // the client nothing. With records on their way it takes a new producer epoch, and half a second.
        self.again("positions", deadline, || self.send_positions(commit, deadline))
            .map_err(|error| {
                if error == NO_ANSWER {
                    Failure::Dead(Said::only("positions: no answer in time"))
                } else {
                    self.aborted("positions", error)
                }
            })?;
        self.send(commit, deadline)?;
        self.again("commit", deadline, || {
            self.producer.commit_transaction(left(deadline))
        })
        .map_err(|error| self.not_committed(error))
    }

    /// What became of a transaction that the brokers were asked to commit, and that met an error.
    fn not_committed(&self, error: KafkaError) -> Failure {
        if let KafkaError::Transaction(cause) = &error {
            if cause.txn_requires_abort() {
                return self.aborted("commit", error);
            }
            if cause.is_fatal() {
                return Failure::Dead(Said::by("commit", error));
            }
        }
        Failure::Unknown(Said::by("commit", error))
    }

    /// Sends the positions on a thread of their own: the client can wait for ever for a coordinator that it has given up,
    /// whatever time it is told (its issue 5511). That thread stays then, with the old producer, which whoever recovers
    /// fences.
    fn send_positions(&self, commit: &Commit, deadline: Instant) -> Result<(), KafkaError> {
        let group = self.group.metadata().ok_or(KafkaError::Canceled)?;
        let (producer, positions) = (Arc::clone(self.producer), self.names.list(&commit.positions()));
        let (sender, outcome) = std::sync::mpsc::channel();
        let send = move || {
            // The receiver is gone where the send took too long.
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
        // Records of one topic mostly follow one another, so a topic's name is made once for each run of them.
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
                    return Err(self.aborted(&format!("sending to {}", record.to), error));
                }
                self.producer.poll(BUFFER_WAIT);
                message = back;
            }
        }
        // The flush that comes with the commit looks every 100 ms; this one does every millisecond. It must be a flush, not
        // a look at the queue alone: a flush wakes the client's threads, without which a partition that has just joined the
        // transaction can wait until its records time out (seen with 256).
        // The thread sleeps between flushes, since a poll of a millisecond or less spins until it is over.
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

    /// Aborts the transaction, where it is certain that the brokers have not committed it.
    fn aborted(&self, step: &str, error: KafkaError) -> Failure {
        if matches!(&error, KafkaError::Transaction(cause) if cause.is_fatal()) {
            return Failure::Dead(Said::by(step, error));
        }
        match self.producer.abort_transaction(ABORT_MAX) {
            Ok(()) => Failure::Aborted(Said::by(step, error)),
            Err(abort) => Failure::Dead(Said::by(format!("{step}: {error}; abort"), abort)),
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

//! How the clients are set up, and what their errors mean.

use super::Member;
use crate::LogError;
use crate::cluster::Cluster;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a question to the brokers (metadata, offsets, topics) may take.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long an append outside of transactions may take until all its records are reported durable, ms.
pub(super) const APPEND_MAX_MS: u64 = 10_000;
/// The broker aborts a transaction that is open for longer, ms: a dead worker's must not hold up readers.
pub(super) const TRANSACTION_MAX_MS: u64 = 10_000;
/// How long a message of a transaction may take, ms: less than the transaction.
pub(super) const TRANSACTION_MESSAGE_MAX_MS: u64 = 8_000;
/// How long a commit may take; then its outcome is unknown.
pub(super) const COMMIT_MAX: Duration = Duration::from_secs(10);
/// How long it may take to fence older users; includes the end of their open transactions.
pub(super) const FENCE_MAX: Duration = Duration::from_secs(15);
/// How long one client tries that, before a new one does: it may be cut off (see [`crate::contact`]). To begin anew costs
/// nothing: the brokers go on with the end of the transaction.
pub(super) const FENCE_TRY: Duration = Duration::from_secs(5);
/// How large a message may be, bytes: as the topics' `max.message.bytes`.
const MESSAGE_BYTES_MAX: u64 = 8_400_000;
/// How much of one partition a fetch brings, bytes, unless its first batch alone is larger. Answers beyond the allocator's
/// largest block are new memory from the system each time, and zeroing that costs more than the fetch.
const FETCH_BYTES: u64 = 1 << 20;
/// How long the brokers wait for something to give, ms; and for how much, when a member of the group asks: a steady flow of
/// small requests would be an answer for each of them, at the cost of both sides.
const FETCH_WAIT_MS: u64 = 50;
const FETCH_ENOUGH_BYTES: u64 = 64 << 10;
/// How much of one partition a consumer reads ahead, KiB.
const READ_AHEAD_KIB: u64 = 16 * 1024;

/// How often a client asks who leads, ms. It asks by itself when a broker goes, which is before another one is chosen; then every
/// five minutes, until then it would go on with what it knew.
const LEADERS_EVERY_MS: u64 = 1_000;
/// How often a member of the group gives a sign of life, ms, at most.
const HEARTBEAT_MS: u128 = 100;
/// How long until a request of a transaction is sent again, ms, and at most after several times. The first one of a commit
/// is turned down until the brokers have written the end of the last one everywhere, which takes milliseconds; the client's
/// own 100 ms, doubled each time, made commits of it that took 2.6 s.
const RETRY_MS: u64 = 10;
const RETRY_MAX_MS: u64 = 100;
/// How often the client tells how far partitions are readable, ms.
const STATISTICS_MS: u64 = 250;

/// A consumer that may meet the end of a partition.
pub(super) type EndingConsumer = BaseConsumer<EndIsNoError>;

/// Settings that all clients share; what comes after these wins, so that nothing passed through can weaken them.
fn client(cluster: &Cluster) -> ClientConfig {
    let mut config: ClientConfig = cluster.properties("tachograph").collect();
    config
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("receive.message.max.bytes", "268435456")
        .set("topic.metadata.refresh.interval.ms", LEADERS_EVERY_MS.to_string())
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Warning);
    config
}

/// A consumer that is given its partitions: it never joins the group, whose id is there for offsets only.
pub(super) fn consumer(cluster: &Cluster, group: &str) -> ClientConfig {
    let mut config = client(cluster);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Also makes the brokers answer with stable group positions only.
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", READ_AHEAD_KIB.to_string())
        .set("fetch.message.max.bytes", FETCH_BYTES.to_string())
        .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string());
    config
}

/// A consumer that shares its partitions with others.
pub(super) fn member(cluster: &Cluster, group: &str, member: &Member) -> ClientConfig {
    let session_ms = member.session_timeout.as_millis();
    let mut config = consumer(cluster, group);
    config
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session_ms.to_string())
        // Members hear of a rebalance by their next heartbeat: a hand-over takes two or three of them.
        .set(
            "heartbeat.interval.ms",
            HEARTBEAT_MS.min(session_ms / 5).to_string(),
        )
        .set("fetch.min.bytes", FETCH_ENOUGH_BYTES.to_string())
        .set("statistics.interval.ms", STATISTICS_MS.to_string());
    if member.is_static {
        config.set("group.instance.id", &member.name);
    }
    config
}

/// A consumer for questions about the whole log, uncommitted records included; it never reads.
pub(super) fn uncommitted(cluster: &Cluster) -> ClientConfig {
    let mut config = client(cluster);
    config.set("isolation.level", "read_uncommitted");
    config
}

/// The same, connected.
pub(super) fn connected(cluster: &Cluster, known: &str) -> Result<BaseConsumer, LogError> {
    let client: BaseConsumer = uncommitted(cluster)
        .create()
        .map_err(|error| failed("making a client", &error))?;
    let nobody = |error| {
        failed(
            &format!("no Kafka broker answers at {}", cluster.bootstrap),
            &error,
        )
    };
    client.fetch_metadata(Some(known), REQUEST_MAX).map_err(nobody)?;
    Ok(client)
}

/// A producer of durable records in order, without transactions.
pub(super) fn producer(cluster: &Cluster) -> ClientConfig {
    let mut config = client(cluster);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("compression.codec", "lz4")
        .set("message.timeout.ms", APPEND_MAX_MS.to_string());
    config
}

/// A transactional producer.
pub(super) fn transactional(cluster: &Cluster, id: &str) -> ClientConfig {
    let mut config = producer(cluster);
    config
        .set("transactional.id", id)
        // The transaction tells whether all were written; a report for each record is work for nothing.
        .set("delivery.report.only.error", "true")
        .set("retry.backoff.ms", RETRY_MS.to_string())
        .set("retry.backoff.max.ms", RETRY_MAX_MS.to_string())
        .set("transaction.timeout.ms", TRANSACTION_MAX_MS.to_string())
        .set("message.timeout.ms", TRANSACTION_MESSAGE_MAX_MS.to_string());
    config
}

/// A client for the administration of topics.
pub(super) fn admin(cluster: &Cluster) -> ClientConfig {
    client(cluster)
}

/// What went wrong, in words.
pub(super) fn failed(doing: &str, error: &KafkaError) -> LogError {
    LogError::Unavailable {
        reason: format!("{doing}: {error}"),
    }
}

/// Drops a client on a thread of its own, since its end can block; on this one where no thread is to be had, slower and as right.
pub(super) fn drop_aside<T: Send + 'static>(client: T) -> Option<JoinHandle<()>> {
    thread::Builder::new()
        .name("client-end".to_owned())
        .spawn(move || drop(client))
        .ok()
}

/// How long between two attempts to ask.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Asks again, for up to [`REQUEST_MAX`], while a partition has no leader yet, just created or just moved, and while the
/// client connects again.
pub(super) fn ask<T>(
    doing: impl Fn() -> String,
    mut question: impl FnMut() -> KafkaResult<T>,
) -> Result<T, LogError> {
    let deadline = Instant::now() + REQUEST_MAX;
    loop {
        match question() {
            Err(error) if may_pass(&error) && Instant::now() < deadline => std::thread::sleep(ASK_EVERY),
            outcome => return outcome.map_err(|error| failed(&doing(), &error)),
        }
    }
}

/// Whether the client did not know who leads, or knew wrongly, or has lost whom it asked.
fn may_pass(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MetadataFetch(code) | KafkaError::OffsetFetch(code) if matches!(
            code,
            RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::DestroyBroker
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
        )
    )
}

/// Whether the client mends this by itself, by connecting again.
pub(super) fn passing(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    )
}

/// Whether the position that a consumer was told to read from is not in the log.
pub(super) fn out_of_range(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange
        )
    )
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread, whichever runtime is around: librdkafka's own threads drive it.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}
/// The context of a consumer that reads to the end of partitions: the client calls the end an error of its own, and would
/// log it as one.
pub struct EndIsNoError;

impl ClientContext for EndIsNoError {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::error!(target: "librdkafka", %error, reason, "client error");
        }
    }
}

impl ConsumerContext for EndIsNoError {}

//! How the clients of librdkafka are set up, and what their errors mean.

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
/// How long a transaction may be open before the brokers abort it, ms: a dead worker's must not hold up readers.
pub(super) const TRANSACTION_MAX_MS: u64 = 10_000;
/// How long a message of a transaction may take, ms: less than the transaction itself.
pub(super) const TRANSACTION_MESSAGE_MAX_MS: u64 = 8_000;
/// How long a commit may take; then its outcome is unknown.
pub(super) const COMMIT_MAX: Duration = Duration::from_secs(10);
/// How long it may take to fence older users of a transactional id; includes the end of their open transactions.
pub(super) const FENCE_MAX: Duration = Duration::from_secs(15);
/// How long one client tries to fence before a new client does: it may be cut off (see [`crate::contact`]). To begin anew
/// costs nothing, since the brokers go on with the end of the open transaction.
pub(super) const FENCE_TRY: Duration = Duration::from_secs(5);
/// How large a message may be, bytes: the topics' `max.message.bytes`.
const MESSAGE_BYTES_MAX: u64 = 8_400_000;
/// How much of one partition a fetch brings, bytes, unless its first batch alone is larger. Answers beyond the allocator's
/// largest block are new memory from the system each time, and zeroing that costs more than the fetch.
const FETCH_BYTES: u64 = 1 << 20;
/// How long the brokers hold a fetch back for records to come, ms.
const FETCH_WAIT_MS: u64 = 50;
/// With how much the brokers answer a fetch of a group's member at once, bytes: a steady flow of small records would be an
/// answer for each of them, at the cost of both sides.
const FETCH_ENOUGH_BYTES: u64 = 64 << 10;
/// How much of one partition a consumer reads ahead, KiB.
const READ_AHEAD_KIB: u64 = 16 * 1024;

/// How often a client asks who leads each partition, ms. By itself it asks when a broker goes, which is before another
/// leader is chosen, and then not for five minutes.
const LEADERS_EVERY_MS: u64 = 1_000;
/// The longest time between two heartbeats of a member of the group, ms.
const HEARTBEAT_MS: u128 = 100;
/// How long until a request of a transaction is sent again, ms. The first request of a commit is turned down until the
/// brokers have written the end of the last transaction everywhere, which takes milliseconds; the client's own 100 ms,
/// doubled each time, made commits of it that took 2.6 s.
const RETRY_MS: u64 = 10;
/// How long until a request of a transaction is sent again at most, after it was turned down several times, ms.
const RETRY_MAX_MS: u64 = 100;
/// How often the client tells how far partitions are readable, ms.
const STATISTICS_MS: u64 = 250;

/// A consumer that may meet the end of a partition.
pub(super) type EndingConsumer = BaseConsumer<EndIsNoError>;

/// Properties that all clients share. A client's own properties are set after these and win, so that nothing that an operator
/// passes through can weaken them.
fn client(cluster: &Cluster) -> ClientConfig {
    let mut config: ClientConfig = cluster.properties("tachograph").collect();
    config
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("receive.message.max.bytes", "268435456")
        .set("topic.metadata.refresh.interval.ms", LEADERS_EVERY_MS.to_string())
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Warning);
    config
}

/// Properties of a consumer that is given its partitions. It never joins the group, whose id is there for offsets alone.
pub(super) fn consumer(cluster: &Cluster, group: &str) -> ClientConfig {
    let mut config = client(cluster);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // With this level the brokers also answer with stable positions of the group only.
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", READ_AHEAD_KIB.to_string())
        .set("fetch.message.max.bytes", FETCH_BYTES.to_string())
        .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string());
    config
}

/// Properties of a consumer that shares the partitions with the other members of its group.
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

/// Properties of a consumer for questions about the whole log, uncommitted records included; it never reads.
pub(super) fn uncommitted(cluster: &Cluster) -> ClientConfig {
    let mut config = client(cluster);
    config.set("isolation.level", "read_uncommitted");
    config
}

/// A client as [`uncommitted`] sets it up, which has heard of a broker; it asks about the topic `known`.
///
/// # Errors
/// No broker answers within `answer_max`.
pub(super) fn connected(
    cluster: &Cluster,
    known: &str,
    answer_max: Duration,
) -> Result<BaseConsumer, LogError> {
    let client: BaseConsumer = uncommitted(cluster)
        .create()
        .map_err(|error| LogError::failed("making a client", error))?;
    client.fetch_metadata(Some(known), answer_max).map_err(|error| {
        LogError::failed(format!("no Kafka broker answers at {}", cluster.bootstrap), error)
    })?;
    Ok(client)
}

/// Properties of a producer of durable records in order, without transactions.
pub(super) fn producer(cluster: &Cluster) -> ClientConfig {
    let mut config = client(cluster);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("compression.type", "lz4")
        .set("message.timeout.ms", APPEND_MAX_MS.to_string());
    config
}

/// Properties of a transactional producer.
pub(super) fn transactional(cluster: &Cluster, id: &str) -> ClientConfig {
    let mut config = producer(cluster);
    config
        .set("transactional.id", id)
        // The end of the transaction tells whether all records were written, so reports for each are work for nothing.
        .set("delivery.report.only.error", "true")
        .set("retry.backoff.ms", RETRY_MS.to_string())
        .set("retry.backoff.max.ms", RETRY_MAX_MS.to_string())
        .set("transaction.timeout.ms", TRANSACTION_MAX_MS.to_string())
        .set("message.timeout.ms", TRANSACTION_MESSAGE_MAX_MS.to_string());
    config
}

/// Properties of a client for the administration of topics.
pub(super) fn admin(cluster: &Cluster) -> ClientConfig {
    client(cluster)
}

/// Drops a client on a thread of its own, since its end can block. Where there is no thread to be had, the client is dropped
/// on this one.
pub(super) fn drop_aside<T: Send + 'static>(client: T) -> Option<JoinHandle<()>> {
    thread::Builder::new()
        .name("client-end".to_owned())
        .spawn(move || drop(client))
        .ok()
}

/// Waits until the partitions that were just taken from a consumer, by an assignment of others or of none, are stopped.
///
/// The client stops a partition beside the call that takes it away. Where the same partition is given and taken again before
/// that, the client stops it twice, and its assertion `rktp->rktp_started` ends the process (librdkafka 2.12.1,
/// `rd_kafka_assignment_partition_stopped`). Its main thread works off one queue in order: when it has answered a first
/// question, the stop that was queued before is carried out, and when it has answered a second one, the end of the stop is
/// noted.
pub(super) fn wait_for_stops<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> KafkaResult<()> {
    for _ in 0..2 {
        consumer.assignment()?;
    }
    Ok(())
}

/// How long between two tries of a question to the brokers.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Asks the brokers, and asks again for up to `answer_max` while a partition has no leader yet, just created or just
/// moved, and while the client connects again. `doing` names the question for the error.
pub(super) fn ask<T>(
    answer_max: Duration,
    doing: impl Fn() -> String,
    mut question: impl FnMut() -> KafkaResult<T>,
) -> Result<T, LogError> {
    let deadline = Instant::now() + answer_max;
    loop {
        match question() {
            Err(error) if may_pass(&error) && Instant::now() < deadline => std::thread::sleep(ASK_EVERY),
            outcome => return outcome.map_err(|error| LogError::failed(doing(), error)),
        }
    }
}

/// Whether the client did not know a partition's leader, or knew a wrong one, or has lost the broker that it asked.
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

/// Whether the client mends this error by itself, by connecting again.
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

/// Wakes the thread that waits for a future.
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

/// The context of a consumer that reads to the end of partitions: the client calls the end an error, and would log it as
/// one.
pub(super) struct EndIsNoError;

impl ClientContext for EndIsNoError {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::error!(target: "librdkafka", %error, reason, "client error");
        }
    }
}

impl ConsumerContext for EndIsNoError {}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::{Offset, TopicPartitionList};

    /// How often the partition is given anew. Without the wait the client aborts within a few hundred.
    const TURNS: usize = 5_000;

    #[test]
    fn a_partition_is_given_anew_at_once_again_and_again() {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("topic", 1, 1).unwrap();
        let cluster = Cluster::plain(&brokers.bootstrap_servers(), "");
        let consumer: EndingConsumer = consumer(&cluster, "again")
            .set("enable.partition.eof", "true")
            .create_with_context(EndIsNoError)
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("topic", 0, Offset::Offset(0)).unwrap();
        consumer.assign(&list).unwrap();
        // The end that the client tells shows that it has started the partition.
        while consumer.poll(REQUEST_MAX).is_none() {}
        for _ in 0..TURNS {
            consumer.assign(&list).unwrap();
            wait_for_stops(&consumer).unwrap();
        }
    }
}

//! The consumer that shares the partitions of the inbox with all other ingests: a group of its own
//! (`tacho-inbox`), dynamic members.
//!
//! librdkafka tells of a rebalance within a poll, and then waits until the partitions are assigned or
//! unassigned. The change is only noted there ([`context`]), and answered between two batches, when
//! everything that was read is committed ([`rebalance`]).
//!
//! The partitions of the three inbox topics are shared out as one set, so one process may have most of those
//! that are busy.

mod context;
mod rebalance;

use super::Settings;
use super::drain::{DrainError, Received, RecordId};
use bytes::Bytes;
use context::{Change, GroupContext};
use metrics::Gauge;
use processor_log::contact::Contact;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::record::{HEADER_RETRY_OF, RETRY_OF_BYTES_MAX};
use schemas::signal::Signal;
use schemas::topic::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The group's name, behind the prefix.
const GROUP: &str = "tacho-inbox";
/// How long one request to the brokers may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How much the consumer reads ahead, in KiB.
const READ_AHEAD_KIB: u64 = 16 << 10;
/// How often a member sends a heartbeat, in ms; more often where the session timeout is short.
const HEARTBEAT_MS: u128 = 500;
/// How often the client looks for new topics and partitions, in ms.
const METADATA_MS: u64 = 30_000;
/// How often the client gives statistics, from which the lag is shown, in ms.
const STATISTICS_MS: u64 = 2_000;

/// A consumer, and the topics that it reads.
pub(super) struct Group {
    consumer: BaseConsumer<GroupContext>,
    contact: Contact,
    /// The raw topics that are written, of all environments, and how many partitions each must have.
    raw: Vec<(String, i32)>,
    /// The inbox topics that were there at the last look.
    found: BTreeSet<String>,
    /// Whether missing topics were already logged.
    missing_logged: bool,
    /// The names of the sources that records are said to come from, by signal and partition.
    sources: BTreeMap<(Signal, i32), Arc<str>>,
}

impl Group {
    /// A consumer that has joined nothing yet.
    pub fn connect(settings: &Settings, lags: [Gauge; 3]) -> Result<Self, DrainError> {
        let name = |topic: Topic| format!("{}{}", settings.cluster.prefix, topic.name());
        let names = Signal::ALL.map(|signal| name(signal.inbox()));
        let raw = |prefix: &str, signal: Signal, partitions: i32| {
            (format!("{prefix}{}", signal.raw().name()), partitions)
        };
        let main = std::iter::once((settings.cluster.prefix.as_str(), settings.raw_partitions));
        let others = settings
            .others
            .iter()
            .map(|other| (other.prefix.as_str(), other.raw_partitions));
        let consumer = client_config(settings).create_with_context(GroupContext::new(names, lags));
        Ok(Self {
            consumer: consumer.map_err(|source| DrainError::Client {
                doing: "making a consumer",
                source,
            })?,
            contact: Contact::new(&settings.cluster, Topic::RawLogs),
            raw: main
                .chain(others)
                .flat_map(|(prefix, partitions)| Signal::ALL.map(|signal| raw(prefix, signal, partitions)))
                .collect(),
            found: BTreeSet::new(),
            missing_logged: false,
            sources: BTreeMap::new(),
        })
    }

    fn context(&self) -> &GroupContext {
        self.consumer.context()
    }

    fn names(&self) -> &[String; 3] {
        &self.context().names
    }

    /// Whether an inbox topic was not there at the last look.
    pub fn lacks_topics(&self) -> bool {
        self.found.len() < self.names().len()
    }

    /// Looks which inbox topics are there, and joins the group for them. The brokers are asked for all topics, since asking for
    /// one by name could create it.
    pub fn look(&mut self) -> Result<(), DrainError> {
        let metadata = self.consumer.fetch_metadata(None, REQUEST_MAX);
        let metadata = metadata.map_err(|source| DrainError::Client {
            doing: "looking for the topics",
            source,
        })?;
        let count = |name: &String| {
            metadata
                .topics()
                .iter()
                .find(|topic| topic.name() == name)
                .map_or(0, |topic| topic.partitions().len())
        };
        if self
            .raw
            .iter()
            .any(|(name, partitions)| i32::try_from(count(name)) != Ok(*partitions))
        {
            return Err(DrainError::Mismatch);
        }
        let found: BTreeSet<String> = self
            .names()
            .iter()
            .filter(|name| count(name) > 0)
            .cloned()
            .collect();
        if found.len() < self.names().len() && !std::mem::replace(&mut self.missing_logged, true) {
            tracing::info!(
                found = found.len(),
                "not all inbox topics are there: `tacho topics apply` makes them; looking again"
            );
        }
        if found.len() > self.found.len() {
            let names: Vec<&str> = found.iter().map(String::as_str).collect();
            self.consumer
                .subscribe(&names)
                .map_err(|source| DrainError::Client {
                    doing: "joining the group",
                    source,
                })?;
            tracing::info!(topics = names.len(), "draining the inbox");
            self.found = found;
        }
        Ok(())
    }

    /// Reads records, those of each partition in order, up to the limits; waits at most `wait` for the first. Ends early at a
    /// change of who has which partitions.
    pub fn collect(
        &mut self,
        records_max: usize,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Received>, DrainError> {
        if self.contact.is_lost(self.consumer.client()) {
            return Err(DrainError::CutOff("reading the inbox"));
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let deadline = Instant::now() + wait;
        while batch.len() < records_max && bytes < bytes_max && !self.context().has_changes() {
            let left = if batch.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            let Self {
                consumer, sources, ..
            } = self;
            let polled = match consumer.poll(left) {
                Some(Ok(message)) => Ok(received(&message, consumer.context(), sources)),
                Some(Err(error)) => Err(error),
                None if !batch.is_empty() || Instant::now() >= deadline => break,
                None => continue,
            };
            match polled {
                Ok(Some(record)) => {
                    bytes += record.value.len();
                    batch.push(record);
                }
                Ok(None) => {}
                Err(error) if is_passing(&error) => tracing::warn!(%error, "reading the inbox goes on"),
                // What was read so far is not committed, so it is read again.
                Err(source) => {
                    return Err(DrainError::Client {
                        doing: "reading the inbox",
                        source,
                    });
                }
            }
        }
        Ok(batch)
    }

    /// Commits the positions behind a batch that is durable. Where they are refused because partitions move, whoever has the
    /// partitions next drains the records again.
    pub fn commit(&self, batch: &[Received]) -> Result<(), DrainError> {
        let mut ends: BTreeMap<(Signal, i32), i64> = BTreeMap::new();
        for record in batch {
            ends.insert((record.signal, record.partition), record.id.offset + 1);
        }
        self.context()
            .positions()
            .extend(ends.iter().map(|(at, end)| (*at, *end)));
        let mut list = TopicPartitionList::with_capacity(ends.len());
        let failed = |source| DrainError::Client {
            doing: "committing positions",
            source,
        };
        for ((signal, partition), end) in ends {
            list.add_partition_offset(&self.names()[signal as usize], partition, Offset::Offset(end))
                .map_err(failed)?;
        }
        match self.consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(()),
            Err(error) if is_moving(&error) => {
                tracing::info!(%error, "partitions move: positions were not committed");
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// A message as a record of the inbox; none where it is of no inbox topic.
fn received(
    message: &BorrowedMessage<'_>,
    context: &GroupContext,
    sources: &mut BTreeMap<(Signal, i32), Arc<str>>,
) -> Option<Received> {
    let signal = context.signal(message.topic())?;
    let partition = message.partition();
    let source = sources
        .entry((signal, partition))
        .or_insert_with(|| format!("{}/{partition}", signal.inbox().name()).into());
    let stamped_ms = match message.timestamp() {
        Timestamp::LogAppendTime(ms) => ms,
        Timestamp::CreateTime(_) | Timestamp::NotAvailable => 0,
    };
    Some(Received {
        signal,
        partition,
        id: RecordId {
            source: Arc::clone(source),
            offset: message.offset(),
        },
        stamped_ms,
        retry_of: message.headers().and_then(retry_of),
        value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    })
}

/// Returns the quarantined record that the headers name as the one retried; `None` if they name none, or in unusable text.
fn retry_of(headers: &BorrowedHeaders) -> Option<String> {
    let header = headers.iter().find(|header| header.key == HEADER_RETRY_OF)?;
    let text = std::str::from_utf8(header.value?).ok()?;
    (text.len() <= RETRY_OF_BYTES_MAX && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Whether the client recovers from an error by itself.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error,
        KafkaError::MessageConsumption(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::CoordinatorLoadInProgress
                | Code::PollExceeded
        )
    )
}

/// Whether a commit was refused because the group is changing, or has taken this member for gone.
fn is_moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::RebalanceInProgress
                | Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::AssignmentLost
                | Code::NoOffset
        )
    )
}

fn client_config(settings: &Settings) -> ClientConfig {
    let mut config: ClientConfig = settings.cluster.properties("tacho-ingest-inbox").collect();
    let session_ms = settings.session_timeout.as_millis();
    config
        .set("group.id", format!("{}{GROUP}", settings.cluster.prefix))
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session_ms.to_string())
        .set(
            "heartbeat.interval.ms",
            HEARTBEAT_MS.min(session_ms / 5).to_string(),
        )
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", READ_AHEAD_KIB.to_string())
        .set("topic.metadata.refresh.interval.ms", METADATA_MS.to_string())
        .set("statistics.interval.ms", STATISTICS_MS.to_string());
    config
}

impl Drop for Group {
    /// Answers what is left to answer: the client's own close waits until every rebalance is answered.
    fn drop(&mut self) {
        self.context().close();
        while let Some(change) = self.context().next_change() {
            let answered = match change {
                Change::Assigned(_) => self.consumer.incremental_assign(&TopicPartitionList::new()),
                Change::Gone(list) => self.consumer.incremental_unassign(&list),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance at the end could not be answered");
            }
        }
    }
}

//! The consumer that shares the partitions of the inbox with all other ingests.
//!
//! librdkafka tells of a rebalance within a poll, and then waits until the partitions are assigned or unassigned. The
//! change is only noted there; it is answered between two batches, when all that was read is committed.

use super::{DrainError, Place, Received, Settings};
use bytes::Bytes;
use metrics::Gauge;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::statistics::Partition;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, Statistics, TopicPartitionList};
use schemas::record::{HEADER_RETRY_OF, RETRY_OF_BYTES_MAX};
use schemas::signal::Signal;
use schemas::topic::Topic;
use shell::contact::Contact;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The group, behind the prefix.
const GROUP: &str = "tacho-inbox";
/// How long one question to the brokers may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How much the consumer reads ahead, KiB.
const READ_AHEAD_KIB: u64 = 16 << 10;
/// How often a member gives a sign of life, ms, at most.
const HEARTBEAT_MS: u128 = 500;
/// How often new topics and partitions are looked for, ms.
const METADATA_MS: u64 = 30_000;
/// How often the lag is told, ms.
const STATISTICS_MS: u64 = 2_000;

/// A change of who has which partitions.
enum Change {
    Assigned(TopicPartitionList),
    Gone(TopicPartitionList),
}

/// What the client tells from within a poll.
struct Told {
    changes: Mutex<VecDeque<Change>>,
    /// The consumer is being closed: nobody answers any more.
    closing: AtomicBool,
    names: [String; 3],
    lags: [Gauge; 3],
    /// The position of each partition that is ours, by the signal's number.
    positions: Mutex<BTreeMap<(usize, i32), i64>>,
}

impl ClientContext for Told {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "inbox consumer error");
    }

    fn stats(&self, statistics: Statistics) {
        let positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        for (signal, (name, lag)) in self.names.iter().zip(&self.lags).enumerate() {
            let Some(topic) = statistics.topics.get(name) else {
                continue;
            };
            // The client's own lag counts from its last commit, which may be somebody else's by now.
            let behind = |(partition, state): (&i32, &Partition)| {
                positions
                    .get(&(signal, *partition))
                    .map_or(0, |position| (state.ls_offset - position).max(0))
            };
            let records: i64 = topic.partitions.iter().map(behind).sum();
            lag.set(f64::from(u32::try_from(records).unwrap_or(u32::MAX)));
        }
    }
}

impl ConsumerContext for Told {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            let answered = if assigned {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance at the end could not be answered");
            }
            return;
        }
        let change = if assigned {
            Change::Assigned(list.clone())
        } else {
            Change::Gone(list.clone())
        };
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(change);
    }
}

/// A consumer, and the topics that it reads.
pub(super) struct Group {
    consumer: BaseConsumer<Told>,
    contact: Contact,
    /// The raw topics that are written, of all environments, and how many partitions each must have.
    raw: Vec<(String, i32)>,
    /// Inbox topics that are there, as of the last look.
    found: BTreeSet<String>,
    /// Whether that was told.
    told: bool,
    /// By full name and partition: what records are said to come from.
    sources: BTreeMap<(usize, i32), Arc<str>>,
}

impl Group {
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
        let told = Told {
            changes: Mutex::default(),
            closing: AtomicBool::new(false),
            names,
            lags,
            positions: Mutex::default(),
        };
        let consumer = client_config(settings).create_with_context(told);
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
            told: false,
            sources: BTreeMap::new(),
        })
    }

    fn names(&self) -> &[String; 3] {
        &self.consumer.context().names
    }

    /// Whether an inbox topic was not there at the last look.
    pub fn lacks_topics(&self) -> bool {
        self.found.len() < self.names().len()
    }

    /// Looks which topics are there, and joins for those that are. Asks for all: asking for one could create it.
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
        if found.len() < self.names().len() && !std::mem::replace(&mut self.told, true) {
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

    /// Answers what was told about partitions; gives what was deleted from them before it was drained.
    pub fn answer(&self) -> Result<Vec<(Signal, u64)>, DrainError> {
        let mut lost = Vec::new();
        while let Some(change) = self.pop() {
            match change {
                Change::Assigned(list) => {
                    let from = self.starts(list, &mut lost)?;
                    tracing::info!(partitions = from.count(), "inbox partitions assigned");
                    let answered = self.consumer.incremental_assign(&from);
                    answered.map_err(|source| DrainError::Client {
                        doing: "taking partitions over",
                        source,
                    })?;
                }
                Change::Gone(list) => {
                    tracing::info!(partitions = list.count(), "inbox partitions given away");
                    let answered = self.consumer.incremental_unassign(&list);
                    answered.map_err(|source| DrainError::Client {
                        doing: "giving partitions away",
                        source,
                    })?;
                    let mut positions = self.positions();
                    for element in list.elements() {
                        let signal = self.signal(element.topic());
                        signal.and_then(|signal| positions.remove(&(signal as usize, element.partition())));
                    }
                }
            }
        }
        Ok(lost)
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<(usize, i32), i64>> {
        self.consumer
            .context()
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Change> {
        self.consumer
            .context()
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    fn is_told(&self) -> bool {
        !self
            .consumer
            .context()
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Where each partition begins: at the group's position, or at the start of the log where there is none.
    fn starts(
        &self,
        list: TopicPartitionList,
        lost: &mut Vec<(Signal, u64)>,
    ) -> Result<TopicPartitionList, DrainError> {
        if list.count() == 0 {
            return Ok(list);
        }
        let committed = self.consumer.committed_offsets(list, REQUEST_MAX);
        let committed = committed.map_err(|source| DrainError::Client {
            doing: "asking for committed positions",
            source,
        })?;
        let mut from = TopicPartitionList::with_capacity(committed.count());
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let extent = self.consumer.fetch_watermarks(topic, partition, REQUEST_MAX);
            let (start, end) = extent.map_err(|source| DrainError::Client {
                doing: "asking for the extent of an inbox",
                source,
            })?;
            let begin = match element.offset() {
                Offset::Offset(position) if (start..=end).contains(&position) => position,
                Offset::Offset(position) => {
                    tracing::error!(
                        topic,
                        partition,
                        position,
                        start,
                        end,
                        "the position is not in the inbox any more: going on at its start"
                    );
                    self.lose(topic, start - position, lost);
                    start
                }
                _ if start > 0 => {
                    tracing::error!(
                        topic,
                        partition,
                        start,
                        "records were deleted before anything was drained"
                    );
                    self.lose(topic, start, lost);
                    start
                }
                _ => start,
            };
            if let Some(signal) = self.signal(topic) {
                self.positions().insert((signal as usize, partition), begin);
            }
            let added = from.add_partition_offset(topic, partition, Offset::Offset(begin));
            added.map_err(|source| DrainError::Client {
                doing: "taking partitions over",
                source,
            })?;
        }
        Ok(from)
    }

    fn lose(&self, topic: &str, records: i64, lost: &mut Vec<(Signal, u64)>) {
        if let (Some(signal), Ok(records)) = (self.signal(topic), u64::try_from(records)) {
            lost.push((signal, records));
        }
    }

    fn signal(&self, topic: &str) -> Option<Signal> {
        Signal::ALL
            .into_iter()
            .zip(self.names())
            .find(|(_, name)| *name == topic)
            .map(|(signal, _)| signal)
    }

    /// Records, each partition's in order, up to the limits; waits at most `wait` for the first. Ends early at a change of
    /// who has what.
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
        while batch.len() < records_max && bytes < bytes_max && !self.is_told() {
            let left = if batch.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            let Self {
                consumer, sources, ..
            } = self;
            let polled = match consumer.poll(left) {
                Some(Ok(message)) => Ok(received(&message, &consumer.context().names, sources)),
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
                Err(error) if passing(&error) => tracing::warn!(%error, "reading the inbox goes on"),
                // What was read is not committed: it is read again.
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

    /// Commits the positions behind a batch that is durable. One that is refused because partitions move is done again
    /// by whoever has them next.
    pub fn commit(&self, batch: &[Received]) -> Result<(), DrainError> {
        let mut ends: BTreeMap<(usize, i32), i64> = BTreeMap::new();
        for record in batch {
            let partition = record
                .place
                .source
                .rsplit_once('/')
                .and_then(|(_, partition)| partition.parse().ok())
                .unwrap_or(0);
            ends.insert((record.signal as usize, partition), record.place.offset + 1);
        }
        self.positions().extend(ends.iter().map(|(at, end)| (*at, *end)));
        let mut list = TopicPartitionList::with_capacity(ends.len());
        let failed = |source| DrainError::Client {
            doing: "committing positions",
            source,
        };
        for ((signal, partition), end) in ends {
            list.add_partition_offset(&self.names()[signal], partition, Offset::Offset(end))
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

/// `None` if it is of no inbox.
fn received(
    message: &BorrowedMessage<'_>,
    names: &[String; 3],
    sources: &mut BTreeMap<(usize, i32), Arc<str>>,
) -> Option<Received> {
    let signal = Signal::ALL
        .into_iter()
        .zip(names)
        .find(|(_, name)| *name == message.topic())?
        .0;
    let partition = message.partition();
    let source = sources.entry((signal as usize, partition));
    let source = source.or_insert_with(|| format!("{}/{partition}", signal.inbox().name()).into());
    let stamped_ms = match message.timestamp() {
        Timestamp::LogAppendTime(ms) => ms,
        Timestamp::CreateTime(_) | Timestamp::NotAvailable => 0,
    };
    Some(Received {
        signal,
        place: Place {
            source: Arc::clone(source),
            offset: message.offset(),
        },
        stamped_ms,
        retry_of: message.headers().and_then(retry_of),
        value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    })
}

/// What an inbox record says of the quarantine that it was in.
fn retry_of(headers: &BorrowedHeaders) -> Option<String> {
    let header = headers.iter().find(|header| header.key == HEADER_RETRY_OF)?;
    let text = std::str::from_utf8(header.value?).ok()?;
    (text.len() <= RETRY_OF_BYTES_MAX && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Whether the client mends this by itself.
fn passing(error: &KafkaError) -> bool {
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

/// Whether a commit came when the group was changing, or after we were taken for gone.
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
    /// The client's own close waits until every rebalance is answered.
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        while let Some(change) = self.pop() {
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

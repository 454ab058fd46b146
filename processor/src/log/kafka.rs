//! Real Kafka, by rdkafka: one process with one worker, which is given its partitions.
//!
//! Any error of a transaction is answered in the one way that is always right: the producer is given up, a new one
//! with the same id fences it, and the caller restores (`Log::recover`).

mod clients;
mod names;
mod reader;
pub mod topics;
mod writer;

use super::{Appended, Batch, Commit, Extent, Log, LogError, Ownership};
use clients::{REQUEST_MAX, failed, out_of_range, passing};
use names::{Names, size};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, admin::AdminClient, client::DefaultClientContext};
use reader::Readers;
use schemas::cluster::Cluster;
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use writer::{Appender, Transactions};

/// How many bytes of records one poll gives out at most, unless its first record alone is larger.
const POLL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A member that is silent for so long loses its partitions, unless told otherwise.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

/// Which cluster, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// The cluster.
    pub cluster: Cluster,
    /// The consumer group that the positions belong to.
    pub group: String,
    /// Who we are in it; `None` to read only.
    pub member: Option<Member>,
}

/// A worker's place in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The identity that commits and fences, unique in the group and stable over restarts: with the group's name it is
    /// the `transactional.id`, and the `group.instance.id` if membership is static.
    pub name: String,
    /// Whether the group keeps the partitions for a member that went, until the session times out.
    pub is_static: bool,
    /// A member that is silent for so long loses its partitions.
    pub session_timeout: Duration,
}

impl KafkaConfig {
    /// For reading only.
    #[must_use]
    pub fn reader(cluster: &Cluster, group: &str) -> Self {
        Self { cluster: cluster.clone(), group: group.to_owned(), member: None }
    }

    /// A worker with defaults: static membership, session timeout 15 s.
    #[must_use]
    pub fn worker(cluster: &Cluster, group: &str, name: &str) -> Self {
        let member = Member { name: name.to_owned(), is_static: true, session_timeout: SESSION_TIMEOUT };
        Self { cluster: cluster.clone(), group: group.to_owned(), member: Some(member) }
    }
}

/// A log on a cluster.
pub struct KafkaLog {
    cluster: Cluster,
    names: Names,
    /// Polls the assigned partitions; its group holds the positions.
    consumer: BaseConsumer,
    /// Answers for everything in the log, uncommitted records included.
    uncommitted: BaseConsumer,
    readers: Readers,
    appender: Appender,
    transactions: Transactions,
    admin: Option<AdminClient<DefaultClientContext>>,
    /// Where the poll of each assigned partition goes on.
    assigned: BTreeMap<TopicPartition, Position>,
    joined: Option<Ownership>,
    /// Met behind records that were given out first.
    poll_error: Option<LogError>,
}

impl KafkaLog {
    /// Connects; fences nobody before the first [`Log::recover`] or [`Log::commit`].
    ///
    /// # Errors
    /// No broker answers.
    pub fn connect(config: KafkaConfig) -> Result<Self, LogError> {
        let KafkaConfig { cluster, group, member } = config;
        let transactional_id = member.as_ref().map(|member| format!("{group}-{}", member.name));
        let names = Names::new(&cluster.prefix);
        let consumer: BaseConsumer = clients::consumer(&cluster, &group).create().map_err(|error| failed("making a consumer", &error))?;
        let uncommitted: BaseConsumer = clients::uncommitted(&cluster).create().map_err(|error| failed("making a client", &error))?;
        uncommitted
            .fetch_metadata(Some(&names.name(Topic::Control)), REQUEST_MAX)
            .map_err(|error| failed(&format!("no Kafka broker answers at {}", cluster.bootstrap), &error))?;
        Ok(Self {
            readers: Readers::new(&cluster, &group, names.clone()),
            appender: Appender::new(&cluster),
            transactions: Transactions::new(&cluster, transactional_id),
            cluster,
            names,
            consumer,
            uncommitted,
            admin: None,
            assigned: BTreeMap::new(),
            joined: None,
            poll_error: None,
        })
    }

    /// Which of the assigned partitions no longer has its position.
    fn gone(&mut self) -> LogError {
        let assigned = self.assigned.clone();
        for (at, position) in assigned {
            match self.extent(at) {
                Ok(extent) if position < extent.start || position > extent.end => {
                    return LogError::OutOfRange { at, wanted: position.0, start: extent.start.0 };
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        LogError::Unavailable { reason: "a position was out of range, and is not any more: assign again".to_owned() }
    }
}

impl Log for KafkaLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        let name = self.names.name(topic);
        topics::partitions_of(&self.uncommitted, &name)?.ok_or_else(|| topics::missing(&name))
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let name = self.names.name(at.topic);
        let asking = || format!("asking for the extent of {at}");
        let (start, end) = clients::ask(asking, || self.uncommitted.fetch_watermarks(&name, at.partition, REQUEST_MAX))?;
        Ok(Extent { start: Position(start), end: Position(end) })
    }

    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let asking = |error| failed("asking for committed positions", &error);
        let found = self.consumer.committed_offsets(self.names.unset(at), REQUEST_MAX).map_err(asking)?;
        let mut positions = Vec::with_capacity(at.len());
        for at in at {
            let element = found.find_partition(&self.names.name(at.topic), at.partition);
            let element = element.ok_or_else(|| LogError::Unavailable { reason: format!("no answer about {at}") })?;
            element.error().map_err(asking)?;
            positions.push(match element.offset() {
                Offset::Offset(offset) => Some(Position(offset)),
                _ => None,
            });
        }
        Ok(positions)
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.readers.read(at, from, max)
    }

    fn join(&mut self) -> Result<(), LogError> {
        let inputs = super::all_inputs(self.partitions(Topic::RawLogs)?, self.partitions(Topic::Deltas)?);
        self.joined = Some(Ownership::Assigned(inputs));
        Ok(())
    }

    fn ownership(&mut self) -> Option<Ownership> {
        self.joined.take()
    }

    fn settle(&mut self, _wait: Duration) -> Result<(), LogError> {
        Ok(())
    }

    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.assigned.extend(from.iter().copied());
        let all: Vec<_> = self.assigned.iter().map(|(at, position)| (*at, *position)).collect();
        self.consumer.assign(&self.names.list(&all)).map_err(|error| failed("assigning partitions", &error))?;
        self.poll_error = None;
        Ok(())
    }

    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.assigned.retain(|taken, _| !at.contains(taken));
        let all: Vec<_> = self.assigned.iter().map(|(at, position)| (*at, *position)).collect();
        self.consumer.assign(&self.names.list(&all)).map_err(|error| failed("assigning partitions", &error))
    }

    /// A lost connection is no error here: the client connects again, and appends and commits tell.
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        if let Some(error) = self.poll_error.take() {
            return Err(error);
        }
        let deadline = Instant::now() + wait;
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < max && bytes < POLL_BYTES_MAX {
            let wait = if records.is_empty() { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            let error = match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    if let Some(record) = self.names.record(&message) {
                        bytes += size(&record);
                        self.assigned.insert(record.from, record.position());
                        records.push(record);
                    }
                    continue;
                }
                Some(Err(error)) if passing(&error) => {
                    tracing::warn!(%error, "the consumer lost a broker; it connects again");
                    continue;
                }
                Some(Err(error)) if out_of_range(&error) => self.gone(),
                Some(Err(error)) => failed("polling", &error),
                None => break,
            };
            if records.is_empty() {
                return Err(error);
            }
            self.poll_error = Some(error);
            break;
        }
        Ok(records)
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        self.appender.append(&self.names, &records)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        self.transactions.commit(&self.names, &self.consumer, &commit)
    }

    fn recover(&mut self) -> Result<(), LogError> {
        self.transactions.recover()
    }

    fn trim(&mut self, at: TopicPartition, position: Position) -> Result<(), LogError> {
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => clients::admin(&self.cluster).create().map_err(|error| failed("making an admin client", &error))?,
        };
        let deleting = |error| failed(&format!("deleting records of {at} before {}", position.0), &error);
        let list = self.names.list(&[(at, position)]);
        let result = clients::block_on(admin.delete_records(&list, &topics::admin_options()));
        self.admin = Some(admin);
        for element in result.map_err(deleting)?.elements() {
            element.error().map_err(deleting)?;
        }
        Ok(())
    }

    fn writer(&self) -> &str {
        self.transactions.id()
    }

    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

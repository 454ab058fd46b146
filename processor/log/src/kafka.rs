//! Real Kafka, by rdkafka: a worker that shares the input partitions with its group, or a reader.
//!
//! What becomes of a commit is known before the next one begins: committed, aborted (the caller sends again what it
//! still owns), or neither, and then the producer is given up, a new one with the same id fences it, and the caller
//! restores (`Log::recover`). librdkafka does not bump the epoch with each transaction (KIP-890), so after an unclear
//! answer the old producer is never used again: a late answer of a broker could end a later transaction.

mod clients;
mod fence;
pub mod gapless;
mod group;
mod name;
mod names;
mod offsets;
mod reader;
pub mod topics;
mod writer;

pub use clients::EndIsNoError;

use super::{Appended, Batch, Commit, Extent, Log, LogError, Ownership};
use crate::cluster::Cluster;
use crate::contact::Contact;
use clients::{REQUEST_MAX, failed};
use fence::{Fencer, Patience, Waiting};
use group::Group;
use name::Name;
use names::Names;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{admin::AdminClient, client::DefaultClientContext};
use reader::Readers;
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Offered, Record};
use schemas::stage::Stage;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use writer::{Appender, Failure, Transactions};

/// A member that is silent for so long loses its partitions, unless told otherwise.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long positions may be unstable: longer than a transaction lives.
const UNSTABLE_MAX: Duration = Duration::from_secs(20);
/// How long the brokers are asked for them at a time, before a look for a dead worker's transaction.
const UNSTABLE_STEP: Duration = Duration::from_millis(500);
/// Between two looks for the end of an open transaction.
const STABLE_STEP: Duration = Duration::from_millis(20);

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
        Self {
            cluster: cluster.clone(),
            group: group.to_owned(),
            member: None,
        }
    }

    /// A worker with defaults: static membership, session timeout 15 s.
    #[must_use]
    pub fn worker(cluster: &Cluster, group: &str, name: &str) -> Self {
        let member = Member {
            name: name.to_owned(),
            is_static: true,
            session_timeout: SESSION_TIMEOUT,
        };
        Self {
            cluster: cluster.clone(),
            group: group.to_owned(),
            member: Some(member),
        }
    }
}

/// A log on a cluster.
pub struct KafkaLog {
    cluster: Cluster,
    names: Names,
    /// Polls the partitions that are ours; its group holds the positions.
    group: Group,
    contact: Contact,
    /// Answers for everything in the log, uncommitted records included.
    uncommitted: BaseConsumer,
    readers: Readers,
    appender: Appender,
    transactions: Transactions,
    admin: Option<AdminClient<DefaultClientContext>>,
    /// What the group has committed, as far as this worker knows.
    committed: BTreeMap<TopicPartition, Position>,
    /// Readers of changelogs behind an open transaction.
    waiting: Waiting,
    patience: Patience,
    fencer: Fencer,
}

impl KafkaLog {
    /// Connects; fences nobody before the first [`Log::recover`] or [`Log::commit`].
    ///
    /// # Errors
    /// No broker answers.
    pub fn connect(config: KafkaConfig) -> Result<Self, LogError> {
        let KafkaConfig {
            cluster,
            group,
            member,
        } = config;
        let names = Names::new(&cluster.prefix);
        let consumer = match &member {
            Some(member) => clients::member(&cluster, &group, member),
            None => clients::consumer(&cluster, &group),
        };
        let uncommitted = clients::connected(&cluster, &names.name(Topic::Control))?;
        let static_member = member.as_ref().filter(|member| member.is_static);
        let name = static_member.map(|member| Name::new(&group, &member.name, member.session_timeout));
        let transactions =
            Transactions::new(&cluster, member.map(|member| format!("{group}-{}", member.name)));
        Ok(Self {
            fencer: Fencer::new(&cluster, &group, &names, transactions.id()),
            readers: Readers::new(&cluster, &group, names.clone()),
            appender: Appender::new(&cluster),
            transactions,
            group: Group::new(consumer, names.clone(), name)?,
            contact: Contact::new(&cluster, Topic::Control),
            cluster,
            names,
            uncommitted,
            admin: None,
            committed: BTreeMap::new(),
            waiting: Waiting::default(),
            patience: Patience::default(),
        })
    }

    /// The group's positions; an error while a transaction that includes one of them is open.
    fn positions(&self, at: &[TopicPartition], wait: Duration) -> KafkaResult<Vec<Option<Position>>> {
        let found = self
            .group
            .consumer()
            .committed_offsets(self.names.unset(at), wait)?;
        at.iter()
            .map(|at| offsets::answered(&found, &self.names, *at))
            .collect()
    }

    /// A client for deletions that knows the brokers: one that does not looks for leaders at once, in vain, and then every 3 s.
    fn connected_admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        let making = |error| failed("making an admin client", &error);
        let admin: AdminClient<DefaultClientContext> =
            clients::admin(&self.cluster).create().map_err(making)?;
        admin
            .inner()
            .fetch_metadata(Some(&self.names.name(Topic::Deltas)), REQUEST_MAX)
            .map_err(making)?;
        Ok(admin)
    }

    /// How far a partition is readable: to its last stable offset.
    fn stable(&self, at: TopicPartition) -> Result<Position, LogError> {
        Ok(offsets::extent(self.group.consumer(), &self.names, at)?.end)
    }

    /// Ends the open transaction that a reader of that partition has waited behind for too long, if there is one; and
    /// how far the partition is readable.
    fn unblock(&mut self, at: TopicPartition) -> Result<Position, LogError> {
        let stable = self.stable(at)?;
        let end = self.extent(at)?.end;
        self.waiting.look(at, stable.0, end.0);
        if let Some(from) = self
            .waiting
            .stuck(at, self.patience.wait())
            .filter(|_| self.transactions.is_writer())
        {
            self.fencer.end_transaction(at, from)?;
        }
        Ok(stable)
    }

    /// After a commit with an unknown outcome: fences it, and reads back what became of it.
    fn read_back(&mut self, commit: Commit, reason: String) -> Result<(), LogError> {
        let unclear = |error: LogError| LogError::NotCommitted {
            reason: format!("{reason}; {error}"),
        };
        self.recover().map_err(unclear)?;
        let at: Vec<TopicPartition> = commit.parts.iter().map(|part| part.input).collect();
        let before: Vec<Option<Position>> = at.iter().map(|at| self.committed.get(at).copied()).collect();
        let now = self.committed(&at).map_err(unclear)?;
        if !at.is_empty()
            && now
                .iter()
                .zip(&commit.parts)
                .all(|(now, part)| *now == Some(part.position))
        {
            tracing::info!(reason, "a commit without an answer has succeeded");
            return Ok(());
        }
        if !at.is_empty() && now == before {
            return Err(LogError::Aborted {
                reason,
                commit: Box::new(commit),
            });
        }
        Err(LogError::NotCommitted {
            reason: format!("{reason}; others have committed meanwhile"),
        })
    }
}

impl Log for KafkaLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        let name = self.names.name(topic);
        topics::partitions_of(&self.uncommitted, &name)?.ok_or_else(|| topics::missing(&name))
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        offsets::extent(&self.uncommitted, &self.names, at)
    }

    fn ends(&mut self, at: &[TopicPartition]) -> Result<Vec<Position>, LogError> {
        offsets::ends(&self.uncommitted, &self.names, at)
    }

    /// Waits for open transactions that include one of the positions, and ends those of dead workers.
    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let deadline = Instant::now() + UNSTABLE_MAX;
        loop {
            match self.positions(at, UNSTABLE_STEP) {
                Ok(positions) => {
                    for (at, position) in at.iter().zip(&positions) {
                        match position {
                            Some(position) => self.committed.insert(*at, *position),
                            None => self.committed.remove(at),
                        };
                    }
                    return Ok(positions);
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(failed("asking for committed positions", &error));
                }
                Err(error) => tracing::debug!(%error, "committed positions are not stable yet"),
            }
            for changelog in at.iter().filter_map(|at| Stage::changelog_of(*at)) {
                self.unblock(changelog)?;
            }
        }
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.readers.read(at, from, max)
    }

    fn read_all(&mut self, at: &[TopicPartition], take: &mut dyn FnMut(Record)) -> Result<(), LogError> {
        let deadline = Instant::now() + UNSTABLE_MAX;
        let mut topics: BTreeMap<Topic, Vec<(i32, Position)>> = BTreeMap::new();
        let extents = offsets::extents(&self.uncommitted, &self.names, at)?;
        let stable = offsets::ends(self.group.consumer(), &self.names, at)?;
        for ((&at, Extent { start, end }), mut stable) in at.iter().zip(extents).zip(stable) {
            while start < end && stable < end {
                if Instant::now() > deadline {
                    return Err(LogError::Unavailable {
                        reason: format!("{at}: a transaction stays open before {}", end.0),
                    });
                }
                std::thread::sleep(STABLE_STEP);
                stable = self.unblock(at)?;
            }
            if start < end {
                topics.entry(at.topic).or_default().push((at.partition, start));
            }
        }
        topics
            .iter()
            .try_for_each(|(topic, from)| self.readers.read_all(*topic, from, take))
    }

    fn join(&mut self) -> Result<(), LogError> {
        self.group.join()
    }

    fn ownership(&mut self) -> Option<Ownership> {
        self.group.ownership()
    }

    fn settle(&mut self, wait: Duration) -> Result<(), LogError> {
        self.group.settle(wait)
    }

    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        self.group.take_over(from)
    }

    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.group.release(at)
    }

    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        self.poll_each(max, wait, &mut |record| records.push(record.to_record()))?;
        Ok(records)
    }

    fn poll_each(
        &mut self,
        max: usize,
        wait: Duration,
        show: &mut dyn FnMut(Offered<'_>),
    ) -> Result<usize, LogError> {
        if self.contact.is_lost(self.group.consumer().client()) {
            return Err(LogError::Unavailable {
                reason: "the group's client reaches no broker".to_owned(),
            });
        }
        let count = self.group.poll(max, wait, show)?;
        if let Some((at, from)) = self.group.stuck(self.patience.wait()) {
            // The client told that up to a quarter of a second ago; another worker may have ended it meanwhile.
            if self.stable(at)? <= from {
                self.fencer.end_transaction(at, from)?;
            }
            self.group.wait_anew();
        }
        Ok(count)
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        self.appender.append(&self.names, &records)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        let done = commit.positions();
        let began = Instant::now();
        match self.transactions.commit(&self.names, &self.group, &commit) {
            Ok(()) => self.patience.committed(began.elapsed()),
            Err(Failure::Aborted(reason)) => {
                return Err(LogError::Aborted {
                    reason,
                    commit: Box::new(commit),
                });
            }
            Err(Failure::Dead(reason)) => return Err(LogError::NotCommitted { reason }),
            Err(Failure::Unknown(reason)) => self.read_back(commit, reason)?,
        }
        self.committed.extend(done);
        Ok(())
    }

    fn recover(&mut self) -> Result<(), LogError> {
        // Who has lost his name to another process must not fence it.
        self.group.recover()?;
        self.transactions.recover()?;
        self.appender.recover()?;
        // New clients were answered. Of those that stay, one may be cut off.
        if self.contact.is_silent(self.uncommitted.client()) {
            self.uncommitted = clients::connected(&self.cluster, &self.names.name(Topic::Control))?;
        }
        if self.contact.is_silent(self.group.consumer().client()) {
            tracing::warn!("the group's client reaches no broker, and a new one does: it is replaced");
            self.group.replace()?;
        }
        Ok(())
    }

    fn trim(&mut self, before: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let Some((at, _)) = before.first() else {
            return Ok(());
        };
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => self.connected_admin()?,
        };
        let list = self.names.list(before);
        let outcome = clients::ask(
            || {
                format!(
                    "deleting records of {} and {} other partitions",
                    at,
                    before.len() - 1
                )
            },
            || {
                let deleted = clients::block_on(admin.delete_records(&list, &topics::admin_options()))?;
                deleted.elements().iter().try_for_each(|element| element.error())
            },
        );
        if outcome.is_ok() {
            self.admin = Some(admin);
        }
        outcome
    }

    fn writer(&self) -> &str {
        self.transactions.id()
    }

    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

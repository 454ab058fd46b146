//! Real Kafka, by rdkafka: a worker that shares the input partitions with its group ([`KafkaLog`]), and a reader
//! ([`KafkaReader`]).
//!
//! What becomes of a commit is known before the next one begins: committed, aborted (the caller sends again what it
//! still owns), or neither. In the last case the producer is given up, a new one with the same id fences it, and the
//! caller restores (`Log::recover`). librdkafka does not bump the epoch with each transaction (KIP-890), so after an
//! unclear answer the old producer is never used again: a late answer of a broker could end a later transaction.

mod append;
mod clients;
mod config;
mod cursors;
mod fence;
pub mod gapless;
mod group;
mod name;
mod names;
mod offsets;
mod reader;
pub mod topics;
mod transactions;

pub use config::{KafkaConfig, Member, SESSION_TIMEOUT};
pub use reader::KafkaReader;

use crate::cluster::Cluster;
use crate::contact::Contact;
use crate::{Appended, Batch, Commit, Extent, Log, LogError, Ownership, ReadLog};
use append::Appender;
use clients::REQUEST_MAX;
use fence::{Fencer, Patience, Waiting};
use group::Group;
use name::Name;
use names::Names;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{admin::AdminClient, client::DefaultClientContext};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Offered, Record};
use schemas::stage::Stage;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use transactions::{Failure, Said, Transactions};

/// How long the group's positions may be unstable: longer than a transaction lives.
const UNSTABLE_MAX: Duration = Duration::from_secs(20);
/// How long the brokers are asked for positions at a time, before a look for a dead worker's transaction.
const UNSTABLE_STEP: Duration = Duration::from_millis(500);
/// How long between two looks for the end of an open transaction.
const STABLE_STEP: Duration = Duration::from_millis(20);

/// A log on a cluster, as one worker uses it.
pub struct KafkaLog {
    cluster: Cluster,
    names: Names,
    /// Polls the partitions that this worker owns; the consumer group holds their positions.
    group: Group,
    contact: Contact,
    /// Answers questions about partitions, uncommitted records included, and reads them.
    reader: KafkaReader,
    appender: Appender,
    transactions: Transactions,
    /// The client that deletes records; none before the first deletion and after one that failed.
    admin: Option<AdminClient<DefaultClientContext>>,
    /// What the group has committed, as far as this worker knows.
    committed: BTreeMap<TopicPartition, Position>,
    /// Reads of changelogs that wait behind an open transaction.
    waiting: Waiting,
    patience: Patience,
    fencer: Fencer,
}

impl KafkaLog {
    /// Connects to the cluster; fences nobody before the first [`Log::recover`] or [`Log::commit`].
    ///
    /// # Errors
    /// No broker answers.
    pub fn connect(config: KafkaConfig) -> Result<Self, LogError> {
        let KafkaConfig {
            cluster,
            group,
            member,
        } = config;
        let names = Names::new(&cluster);
        let consumer = match &member {
            Some(member) => clients::member(&cluster, &group, member),
            None => clients::consumer(&cluster, &group),
        };
        let reader = KafkaReader::connect(&cluster, &group)?;
        let static_member = member.as_ref().filter(|member| member.is_static);
        let name = static_member.map(|member| Name::new(&group, &member.name, member.session_timeout));
        let transactions =
            Transactions::new(&cluster, member.map(|member| format!("{group}-{}", member.name)));
        Ok(Self {
            fencer: Fencer::new(&cluster, &group, &names, transactions.id()),
            reader,
            appender: Appender::new(&cluster),
            transactions,
            group: Group::new(consumer, names.clone(), name)?,
            contact: Contact::new(&cluster, Topic::Control),
            cluster,
            names,
            admin: None,
            committed: BTreeMap::new(),
            waiting: Waiting::default(),
            patience: Patience::default(),
        })
    }

    /// The group's committed positions; an error while a transaction that includes one of them is open.
    fn positions(&self, at: &[TopicPartition], wait: Duration) -> KafkaResult<Vec<Option<Position>>> {
        let found = self
            .group
            .consumer()
            .committed_offsets(self.names.unset(at), wait)?;
        at.iter()
            .map(|at| offsets::answered(&found, &self.names, *at))
            .collect()
    }

    /// A client for deletions that knows the brokers: one that does not looks for leaders at once, in vain, and then
    /// every 3 s.
    fn connected_admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        let making = |error| LogError::failed("making an admin client", error);
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
        Ok(offsets::extent(self.group.consumer(), &self.names, at, REQUEST_MAX)?.end)
    }

    /// Ends the open transaction that a reader of that partition has waited behind for too long, if there is one; and
    /// tells how far the partition is readable.
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

    /// Fences a commit whose outcome is unknown, and reads back what became of it. `said` is what was said instead of an
    /// outcome.
    fn read_back(&mut self, commit: Commit, said: Said) -> Result<(), LogError> {
        let Said { reason, source } = said;
        let unclear = |error: LogError| LogError::NotCommitted {
            reason: format!("{reason}, and what became of it can't be read back"),
            source: Some(error.into()),
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
                source,
                commit: Box::new(commit),
            });
        }
        Err(LogError::NotCommitted {
            reason: format!("{reason}; others have committed meanwhile"),
            source,
        })
    }
}

impl ReadLog for KafkaLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        self.reader.partitions(topic)
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        self.reader.extent(at)
    }

    fn ends(&mut self, at: &[TopicPartition]) -> Result<Vec<Position>, LogError> {
        self.reader.ends(at)
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.reader.read(at, from, max)
    }

    fn read_all(&mut self, at: &[TopicPartition], take: &mut dyn FnMut(Record)) -> Result<(), LogError> {
        let deadline = Instant::now() + UNSTABLE_MAX;
        let mut topics: BTreeMap<Topic, Vec<(i32, Position)>> = BTreeMap::new();
        let extents = self.reader.extents(at)?;
        let stable = offsets::ends(self.group.consumer(), &self.names, at, REQUEST_MAX)?;
        for ((&at, Extent { start, end }), mut stable) in at.iter().zip(extents).zip(stable) {
            while start < end && stable < end {
                if Instant::now() > deadline {
                    let reason = format!("{at}: a transaction stays open before {}", end.0);
                    return Err(LogError::unavailable(reason));
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
            .try_for_each(|(topic, from)| self.reader.read_topic(*topic, from, take))
    }
}

impl Log for KafkaLog {
    /// Reads the committed positions; waits for open transactions that include one of them, and ends those of dead workers.
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
                    return Err(LogError::failed("asking for committed positions", error));
                }
                Err(error) => tracing::debug!(%error, "committed positions are not stable yet"),
            }
            for changelog in at.iter().filter_map(|at| Stage::changelog_of(*at)) {
                self.unblock(changelog)?;
            }
        }
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
            return Err(LogError::unavailable("the group's client reaches no broker"));
        }
        let count = self.group.poll(max, wait, show)?;
        if let Some((at, from)) = self.group.stuck(self.patience.wait()) {
            // What the client tells is up to a quarter of a second old: another worker may have ended the transaction since.
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
            Err(Failure::Aborted(Said { reason, source })) => {
                return Err(LogError::Aborted {
                    reason,
                    source,
                    commit: Box::new(commit),
                });
            }
            Err(Failure::Dead(Said { reason, source })) => {
                return Err(LogError::NotCommitted { reason, source });
            }
            Err(Failure::Unknown(said)) => self.read_back(commit, said)?,
        }
        self.committed.extend(done);
        Ok(())
    }

    fn recover(&mut self) -> Result<(), LogError> {
        // The group first: a worker that has lost its name to another process must not fence that process.
        self.group.recover()?;
        self.transactions.recover()?;
        self.appender.recover()?;
        // Producers are new and were answered just now; clients that stay may be cut off.
        self.reader.stay_in_contact(&self.contact)?;
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
            REQUEST_MAX,
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

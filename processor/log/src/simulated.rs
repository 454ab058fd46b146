//! A log in memory, for simulation: one seed decides every fault, one virtual clock every append time.
//!
//! It models what the runner must survive on Kafka: commits that fail, that are aborted, or whose answer is lost; appends
//! whose answer is lost; transactions that a dead writer leaves open, and readers that wait at the last stable offset;
//! marks that come to each partition, and to the group's positions, in their own time; a group whose members come, go,
//! sleep and die, with generations that fence them; fencing by name; brokers' clocks that differ, and jump.
//!
//! No call waits: where a client would wait, the cluster's time has passed when the call returns.

mod group;
mod handle;
mod partition;
mod transaction;

use super::LogError;
use group::Group;
pub use handle::SimLog;
use partition::{Partition, TransactionId};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The clock of a new cluster, ms: 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;

/// How often each fault happens: chances in 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The chance that a commit fails, and its transaction stays open: it has no effect in the end, but readers wait behind it.
    pub commit_lost: u32,
    /// The chance that a commit is aborted, and the writer is told so.
    pub commit_aborted: u32,
    /// The chance that a commit takes effect, and its answer is lost.
    pub commit_unanswered: u32,
    /// The chance that an append has no effect.
    pub append_lost: u32,
    /// The chance that an append takes effect, and its answer is lost.
    pub append_unanswered: u32,
    /// The chance that a transaction's mark comes late to a partition, or to the group's positions.
    pub mark_late: u32,
    /// The chance that changes of ownership reach a member only later.
    pub news_late: u32,
    /// The chance that the leader of a partition changes when the clock moves, and with it by how much the leader's clock is
    /// wrong: by up to [`SKEW_MS`] either way.
    pub leader_moves: u32,
}

/// The most that a broker's clock is wrong by, ms.
pub const SKEW_MS: i64 = 3_000;

/// How many values a clock's error can have: from minus to plus [`SKEW_MS`].
const SKEW_RANGE: u64 = 2 * SKEW_MS.unsigned_abs() + 1;

/// What happened on a cluster, for tests to see that their seeds show something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Assignments made anew.
    pub rebalances: usize,
    /// Members whose session timed out.
    pub expelled: usize,
    /// Commits that were aborted, and whose writers were told so.
    pub aborted: usize,
    /// Writers fenced by readers that waited behind their open transaction.
    pub fenced: usize,
    /// Marks that came late.
    pub late_marks: usize,
    /// Times that a reader waited for a mark.
    pub waits: usize,
}

/// The cluster that all handles share; clones are the same cluster.
#[derive(Clone)]
pub struct SimCluster {
    brokers: Arc<Mutex<Brokers>>,
}

/// Everything that the brokers of a simulated cluster know.
struct Brokers {
    random: Random,
    faults: Faults,
    happened: Happened,
    wall_ms: i64,
    raw_partitions: i32,
    delta_partitions: i32,
    partitions: BTreeMap<TopicPartition, Partition>,
    positions: BTreeMap<TopicPartition, Position>,
    /// The number of the latest handle of each writer.
    epochs: BTreeMap<String, u64>,
    transactions: BTreeMap<TransactionId, transaction::Transaction>,
    next_transaction: TransactionId,
    group: Group,
    next_handle: u64,
}

/// `splitmix64`: small, and the same everywhere. Source: Steele, Lea, Flood, OOPSLA 2014, doi:10.1145/2660193.2660195.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.next() % 1000 < u64::from(per_mille)
    }
}

impl SimCluster {
    /// An empty cluster without faults; `random` decides the faults, `seed` the partition counts.
    #[must_use]
    pub fn new(random: u64, seed: &Seed) -> Self {
        let brokers = Brokers {
            random: Random(random),
            faults: Faults::default(),
            happened: Happened::default(),
            wall_ms: START_MS,
            raw_partitions: seed.raw_partitions,
            delta_partitions: seed.delta_partitions,
            partitions: BTreeMap::new(),
            positions: BTreeMap::new(),
            epochs: BTreeMap::new(),
            transactions: BTreeMap::new(),
            next_transaction: 0,
            group: Group::default(),
            next_handle: 0,
        };
        Self {
            brokers: Arc::new(Mutex::new(brokers)),
        }
    }

    /// A handle of that writer; handles of one writer fence each other by [`super::Log::recover`].
    #[must_use]
    pub fn log(&self, writer: &str) -> SimLog {
        let mut brokers = self.brokers();
        let epoch = brokers.epochs.get(writer).copied().unwrap_or(0);
        brokers.next_handle += 1;
        SimLog::new(self.clone(), writer, brokers.next_handle, epoch)
    }

    /// Sets what goes wrong from now on. Without late marks, those on their way arrive; without moving leaders, their clocks
    /// are right.
    pub fn set_faults(&self, faults: Faults) {
        let mut brokers = self.brokers();
        brokers.faults = faults;
        if faults.mark_late == 0 {
            brokers.bring_marks();
        }
        if faults.leader_moves == 0 {
            brokers
                .partitions
                .values_mut()
                .for_each(|partition| partition.skew_ms = 0);
        }
    }

    /// Moves the clock on by `ms`, and does what happens by itself in that time: marks arrive, transactions and sessions time
    /// out.
    pub fn advance(&self, ms: i64) {
        let mut brokers = self.brokers();
        brokers.wall_ms += ms;
        brokers.pass();
        brokers.beat();
        brokers.move_leaders();
    }

    /// Stops a writer's signs of life to the group, or lets them go on.
    pub fn set_silent(&self, writer: &str, is_silent: bool) {
        self.brokers().group.set_silent(writer, None, is_silent);
    }

    /// Counts of what has happened so far.
    #[must_use]
    pub fn happened(&self) -> Happened {
        self.brokers().happened
    }

    /// The cluster's clock, ms since the Unix epoch.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        self.brokers().wall_ms
    }

    /// A random number of this cluster's sequence, for the test's own decisions.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.brokers().random.next()
    }

    /// All records of a partition that readers see.
    #[must_use]
    pub fn records(&self, at: TopicPartition) -> Vec<Record> {
        self.brokers()
            .partitions
            .get(&at)
            .map(|partition| partition.readable().cloned().collect())
            .unwrap_or_default()
    }

    /// Appends records with the offsets and append times that they carry.
    ///
    /// # Errors
    /// An offset is below the partition's end; the records before it were appended.
    pub fn import(&self, records: Vec<Record>) -> Result<(), LogError> {
        let mut brokers = self.brokers();
        for record in records {
            let partition = brokers.partition(record.from)?;
            if record.offset < partition.end {
                let reason = format!(
                    "can't import offset {}: the partition goes on at {}",
                    record.offset, partition.end
                );
                return Err(LogError::corrupt(record.from.to_string(), reason));
            }
            partition.insert(record);
        }
        Ok(())
    }

    /// Compacts the compacted topics: of each key only the latest record stays, and no tombstone.
    pub fn compact(&self) {
        for (at, partition) in &mut self.brokers().partitions {
            if at.topic.def().cleanup.is_compacted() {
                partition.compact();
            }
        }
    }

    fn brokers(&self) -> MutexGuard<'_, Brokers> {
        self.brokers
            .lock()
            .expect("nothing panics while holding this lock")
    }
}

impl Brokers {
    fn count(&self, topic: Topic) -> i32 {
        topic
            .def()
            .partitions
            .count(self.raw_partitions, self.delta_partitions)
    }

    fn check(&self, at: TopicPartition) -> Result<(), LogError> {
        if (0..self.count(at.topic)).contains(&at.partition) {
            return Ok(());
        }
        Err(LogError::Topic {
            topic: at.topic.name().to_owned(),
            fault: format!("it has no partition {}", at.partition),
        })
    }

    fn partition(&mut self, at: TopicPartition) -> Result<&mut Partition, LogError> {
        self.check(at)?;
        Ok(self.partitions.entry(at).or_default())
    }

    fn move_leaders(&mut self) {
        let moves = self.faults.leader_moves;
        for partition in self.partitions.values_mut() {
            if self.random.chance(moves) {
                partition.skew_ms =
                    i64::try_from(self.random.next() % SKEW_RANGE).unwrap_or_default() - SKEW_MS;
            }
        }
    }
}

//! A log in memory, for simulation: one seed decides every fault, one virtual clock every append time.
//!
//! It models what the runner must survive today: commits that fail without effect, or with effect and a lost answer;
//! appends whose answer is lost; fencing; the control mark that a transaction leaves in each of its partitions, so
//! that offsets have holes. It does not yet model transactions that stay open, the last stable offset, marks that
//! arrive at different times per partition, unstable positions, group generations and clocks that jump.

use super::{Appended, Batch, Commit, Extent, Log, LogError, Ownership};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::settings::Seed;
use schemas::time::AppendTime;
use schemas::topic::{Cleanup, FEW_PARTITIONS, Partitions, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The clock of a new cluster, ms: 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;

/// How often things go wrong: chances in 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A commit fails and has no effect.
    pub commit_lost: u32,
    /// A commit takes effect, and its answer is lost.
    pub commit_unanswered: u32,
    /// An append has no effect.
    pub append_lost: u32,
    /// An append takes effect, and its answer is lost.
    pub append_unanswered: u32,
}

/// The cluster that all handles share; clones are the same cluster.
#[derive(Clone)]
pub struct SimCluster {
    state: Arc<Mutex<State>>,
}

struct State {
    random: Random,
    faults: Faults,
    wall_ms: i64,
    raw_partitions: i32,
    delta_partitions: i32,
    partitions: BTreeMap<TopicPartition, Partition>,
    positions: BTreeMap<TopicPartition, Position>,
    /// By writer: the number of its latest user.
    epochs: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Partition {
    start: i64,
    end: i64,
    last_ms: i64,
    records: BTreeMap<i64, Record>,
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
        let state = State {
            random: Random(random),
            faults: Faults::default(),
            wall_ms: START_MS,
            raw_partitions: seed.raw_partitions,
            delta_partitions: seed.delta_partitions,
            partitions: BTreeMap::new(),
            positions: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A handle of that writer; handles of one writer fence each other by [`Log::recover`].
    #[must_use]
    pub fn log(&self, writer: &str) -> SimLog {
        let epoch = self.state().epochs.get(writer).copied().unwrap_or(0);
        SimLog { cluster: self.clone(), writer: writer.to_owned(), epoch, failed: false, assigned: Vec::new(), joined: None, turn: 0 }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Moves the clock on.
    pub fn advance(&self, ms: i64) {
        self.state().wall_ms += ms;
    }

    /// The clock, ms since the Unix epoch.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        self.state().wall_ms
    }

    /// A random number of this cluster's sequence, for the test's own decisions.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.state().random.next()
    }

    /// Everything that a partition holds.
    #[must_use]
    pub fn records(&self, at: TopicPartition) -> Vec<Record> {
        self.state().partitions.get(&at).map(|partition| partition.records.values().cloned().collect()).unwrap_or_default()
    }

    /// Takes in records with the offsets and append times that they carry.
    ///
    /// # Errors
    /// An offset is below the partition's end; what came before it was taken in.
    pub fn import(&self, records: Vec<Record>) -> Result<(), LogError> {
        let mut state = self.state();
        for record in records {
            let partition = state.partition(record.from)?;
            if record.offset < partition.end {
                let reason = format!("can't import offset {}: the partition goes on at {}", record.offset, partition.end);
                return Err(LogError::Corrupt { at: record.from.to_string(), reason });
            }
            partition.end = record.offset + 1;
            partition.last_ms = partition.last_ms.max(record.appended.0);
            partition.records.insert(record.offset, record);
        }
        Ok(())
    }

    /// Compacts: of each compacted topic's keys only the latest record stays, and no tombstone.
    pub fn compact(&self) {
        for (at, partition) in &mut self.state().partitions {
            if at.topic.cleanup() != Cleanup::Compact {
                continue;
            }
            let latest: BTreeMap<_, _> = partition.records.values().map(|record| (record.key.clone(), record.offset)).collect();
            let latest: BTreeSet<i64> = latest.into_values().collect();
            partition.records.retain(|offset, record| latest.contains(offset) && record.value.is_some());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding this lock")
    }
}

impl State {
    fn count(&self, topic: Topic) -> i32 {
        match topic.partitions() {
            Partitions::LikeRawLogs => self.raw_partitions,
            Partitions::LikeDeltas => self.delta_partitions,
            Partitions::Few => FEW_PARTITIONS,
            Partitions::One => 1,
        }
    }

    fn check(&self, at: TopicPartition) -> Result<(), LogError> {
        if (0..self.count(at.topic)).contains(&at.partition) {
            return Ok(());
        }
        Err(LogError::Topic { topic: at.topic.name().to_owned(), fault: format!("it has no partition {}", at.partition) })
    }

    fn partition(&mut self, at: TopicPartition) -> Result<&mut Partition, LogError> {
        self.check(at)?;
        Ok(self.partitions.entry(at).or_default())
    }

    fn put(&mut self, record: NewRecord) -> Result<Appended, LogError> {
        let now = self.wall_ms;
        let partition = self.partition(record.to)?;
        let appended = AppendTime(now.max(partition.last_ms));
        let offset = partition.end;
        partition.end += 1;
        partition.last_ms = appended.0;
        let NewRecord { to, key, value, headers } = record;
        partition.records.insert(offset, Record { from: to, offset, appended, key, value, headers });
        Ok(Appended { offset, appended })
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        let partition = self.partition(at)?;
        if from.0 < partition.start || from.0 > partition.end {
            return Err(LogError::OutOfRange { at, wanted: from.0, start: partition.start });
        }
        let records: Vec<Record> = partition.records.range(from.0..).take(max).map(|(_, record)| record.clone()).collect();
        // As many as asked for: there may be more. Fewer: that was all, and the next read begins at the end.
        let next = match records.last() {
            Some(last) if records.len() == max => last.position(),
            None if max == 0 => from,
            _ => Position(partition.end),
        };
        Ok(Batch { records, next })
    }
}

/// One user of a [`SimCluster`].
pub struct SimLog {
    cluster: SimCluster,
    writer: String,
    epoch: u64,
    /// Set by a failed commit, until [`Log::recover`].
    failed: bool,
    assigned: Vec<(TopicPartition, Position)>,
    /// What joining told, until it is asked for.
    joined: Option<Ownership>,
    turn: usize,
}

impl SimLog {
    fn try_commit(&self, commit: Commit) -> Result<(), String> {
        let mut state = self.cluster.state();
        let current = state.epochs.get(&self.writer).copied().unwrap_or(0);
        if self.failed {
            return Err("an earlier commit failed: recover first".to_owned());
        }
        if self.epoch != current {
            return Err(format!("fenced: {} is in use by a later handle", self.writer));
        }
        let places = commit.records.iter().map(|record| record.to).chain(commit.positions.iter().map(|(at, _)| *at));
        for at in places {
            state.check(at).map_err(|error| error.to_string())?;
        }
        let faults = state.faults;
        if state.random.chance(faults.commit_lost) {
            return Err("simulated: the commit was lost".to_owned());
        }
        let touched: BTreeSet<TopicPartition> = commit.records.iter().map(|record| record.to).collect();
        for record in commit.records {
            state.put(record).map_err(|error| error.to_string())?;
        }
        for at in touched {
            // The control mark that ends a transaction takes an offset.
            state.partition(at).map_err(|error| error.to_string())?.end += 1;
        }
        state.positions.extend(commit.positions);
        if state.random.chance(faults.commit_unanswered) {
            return Err("simulated: the commit's answer was lost".to_owned());
        }
        Ok(())
    }
}

impl Log for SimLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        Ok(self.cluster.state().count(topic))
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let mut state = self.cluster.state();
        let partition = state.partition(at)?;
        Ok(Extent { start: Position(partition.start), end: Position(partition.end) })
    }

    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let state = self.cluster.state();
        Ok(at.iter().map(|at| state.positions.get(at).copied()).collect())
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.cluster.state().read(at, from, max)
    }

    fn join(&mut self) -> Result<(), LogError> {
        let inputs = super::all_inputs(self.partitions(Topic::RawLogs)?, self.partitions(Topic::Deltas)?);
        self.joined = Some(Ownership::Assigned(inputs));
        Ok(())
    }

    fn ownership(&mut self) -> Option<Ownership> {
        self.joined.take()
    }

    /// Ownership never changes here.
    fn settle(&mut self, _wait: Duration) -> Result<(), LogError> {
        Ok(())
    }

    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let state = self.cluster.state();
        for (at, _) in from {
            state.check(*at)?;
        }
        drop(state);
        super::place(&mut self.assigned, from);
        self.turn = 0;
        Ok(())
    }

    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.assigned.retain(|(taken, _)| !at.contains(taken));
        self.turn = 0;
        Ok(())
    }

    /// Never waits: time is virtual, and passes by [`SimCluster::advance`] only.
    fn poll(&mut self, max: usize, _wait: Duration) -> Result<Vec<Record>, LogError> {
        let mut state = self.cluster.state();
        let mut records = Vec::new();
        for step in 0..self.assigned.len() {
            let index = (self.turn + step) % self.assigned.len();
            let (at, position) = self.assigned[index];
            let batch = state.read(at, position, max - records.len())?;
            self.assigned[index].1 = batch.next;
            records.extend(batch.records);
            if records.len() >= max {
                self.turn = index + 1;
                break;
            }
        }
        Ok(records)
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        let lost = |what: &str| LogError::Unavailable { reason: format!("simulated: the append{what} was lost") };
        let mut state = self.cluster.state();
        for record in &records {
            state.check(record.to)?;
        }
        let faults = state.faults;
        if state.random.chance(faults.append_lost) {
            return Err(lost(""));
        }
        let appended = records.into_iter().map(|record| state.put(record)).collect::<Result<_, _>>()?;
        if state.random.chance(faults.append_unanswered) {
            return Err(lost("'s answer"));
        }
        Ok(appended)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        if commit == Commit::default() {
            return Ok(());
        }
        self.try_commit(commit).map_err(|reason| {
            self.failed = true;
            LogError::NotCommitted { reason }
        })
    }

    fn recover(&mut self) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        let epoch = state.epochs.entry(self.writer.clone()).or_default();
        *epoch += 1;
        self.epoch = *epoch;
        self.failed = false;
        Ok(())
    }

    fn trim(&mut self, at: TopicPartition, position: Position) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        let partition = state.partition(at)?;
        partition.start = partition.start.max(position.0.min(partition.end));
        partition.records = partition.records.split_off(&partition.start);
        Ok(())
    }

    fn writer(&self) -> &str {
        &self.writer
    }

    fn wall_ms(&self) -> i64 {
        self.cluster.wall_ms()
    }
}

//! The seam between the runner and the log: poll, append, commit with offsets, read from a position.
//!
//! Everything that touches records goes through [`Log`], so the same runner, `tacho read` and tests work on real
//! Kafka ([`kafka`]), on the durable log within one process ([`embedded`]) and in simulation ([`simulated`]).
//!
//! **Architecture Invariant:** records, state and input positions of a commit become visible together or not at all.

pub mod cluster;
pub mod contact;
pub mod embedded;
pub mod kafka;
pub mod simulated;
pub mod telemetry;

use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Offered, Record};
use schemas::stage::Stage;
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::time::Duration;
use strum::VariantArray;

/// Where an appended record ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its offset.
    pub offset: i64,
    /// The log's time for it.
    pub appended: AppendTime,
}

/// The readable part of a partition: from `start`, up to but without `end`.
///
/// `end` is the high watermark as a reader of everything sees it: with an open transaction it is past what
/// [`Log::read`] gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first offset still there.
    pub start: Position,
    /// The offset that the next record gets.
    pub end: Position,
}

/// What one read gave: committed records, and where to go on, past aborted records and control marks too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order of offsets; may be empty while `next` moves on.
    pub records: Vec<Record>,
    /// Where the next read begins.
    pub next: Position,
}

/// One atomic step of a consumer: all of its parts become visible together, or none does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// One for each input partition of the step.
    pub parts: Vec<Part>,
}

/// What a commit holds of one input partition; to leave the partition out is to leave out its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The input partition.
    pub input: TopicPartition,
    /// The position to go on from: the records include what follows from everything before it.
    pub position: Position,
    /// Changelogs, derived rows, deltas and quarantined records, in the order in which they are written.
    pub records: Vec<NewRecord>,
}

impl Commit {
    /// The position of each input partition.
    #[must_use]
    pub fn positions(&self) -> Vec<(TopicPartition, Position)> {
        self.parts
            .iter()
            .map(|part| (part.input, part.position))
            .collect()
    }

    /// The records of all parts, in order.
    pub fn records(&self) -> impl Iterator<Item = &NewRecord> {
        self.parts.iter().flat_map(|part| &part.records)
    }

    /// The records of all parts, in order.
    #[must_use]
    pub fn into_records(self) -> Vec<NewRecord> {
        self.parts.into_iter().flat_map(|part| part.records).collect()
    }
}

/// What a poll told about who owns input partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// These are ours from now on: restore their state, then [`Log::take_over`] them. May be empty.
    Assigned(Vec<TopicPartition>),
    /// These go to another worker: commit what is folded, then [`Log::release`] them. They are ours until then.
    Revoked(Vec<TopicPartition>),
    /// These are no longer ours: drop their state, commit nothing of them, [`Log::release`] them.
    Lost(Vec<TopicPartition>),
}

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The position is no longer in the log.
    #[error("{at} has no position {wanted} any more: it begins at {start}")]
    OutOfRange {
        /// The partition.
        at: TopicPartition,
        /// The position asked for.
        wanted: i64,
        /// The first position that is there.
        start: i64,
    },
    /// The topic is not there, or has another number of partitions than the seed says, or wrong settings.
    #[error("topic {topic}: {fault}")]
    Topic {
        /// Its name, prefix included.
        topic: String,
        /// What is wrong, and the command or setting that mends it.
        fault: String,
    },
    /// Nothing of a commit is in the log, and this handle may try again: with what is still owned.
    #[error("commit aborted: {reason}")]
    Aborted {
        /// What the log said.
        reason: String,
        /// The commit, as it was given.
        commit: Box<Commit>,
    },
    /// Somebody else has this worker's identity: two processes have one name.
    #[error("fenced: {reason}")]
    Fenced {
        /// What the log said.
        reason: String,
    },
    /// The outcome of a commit is unknown or negative: drop all state, begin anew and restore.
    #[error("commit not confirmed: {reason}")]
    NotCommitted {
        /// What the log said.
        reason: String,
    },
    /// The log can't be reached, or failed.
    #[error("log unavailable: {reason}")]
    Unavailable {
        /// What the log said.
        reason: String,
    },
    /// There is no room left.
    #[error("log full: {reason}")]
    Full {
        /// What the log said.
        reason: String,
    },
    /// What is stored can't be read as what it should be.
    #[error("{at} holds what can't be read: {reason}")]
    Corrupt {
        /// Where.
        at: String,
        /// What is wrong.
        reason: String,
    },
}

/// All input partitions of a log that one worker has for itself.
fn all_inputs(partitions: impl Fn(Topic) -> i32) -> Vec<TopicPartition> {
    let of = |stage: &Stage| {
        let topic = stage.def().input;
        (0..partitions(topic)).map(move |partition| TopicPartition { topic, partition })
    };
    Stage::VARIANTS.iter().flat_map(of).collect()
}

/// Adds partitions to those given out, or moves them there.
fn place(assigned: &mut Vec<(TopicPartition, Position)>, from: &[(TopicPartition, Position)]) {
    assigned.retain(|(at, _)| from.iter().all(|(taken, _)| taken != at));
    assigned.extend_from_slice(from);
}

/// How many records [`Log::read_all`] reads at once, where a log has no way of its own.
const READ_ALL_BATCH: usize = 10_000;

/// A log as one worker sees it. Synchronous: the worker is a plain thread, and librdkafka's transaction calls block.
pub trait Log: Send {
    /// How many partitions a topic has.
    ///
    /// # Errors
    /// The topic is not there, or the log can't be reached.
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError>;

    /// The readable part of a partition, and beyond it (see [`Extent`]).
    ///
    /// # Errors
    /// The log can't be reached.
    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError>;

    /// The ends of several partitions, in the order asked.
    ///
    /// # Errors
    /// The log can't be reached.
    fn ends(&mut self, at: &[TopicPartition]) -> Result<Vec<Position>, LogError> {
        at.iter().map(|at| Ok(self.extent(*at)?.end)).collect()
    }

    /// The consumer group's committed positions, in the order asked; waits for pending transactions first.
    ///
    /// # Errors
    /// The log can't be reached.
    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError>;

    /// Up to `max` committed records from `from`; an empty batch with `next == from` means: nothing there now.
    ///
    /// Used for restore, for tailing control and labels, and by `tacho read`; independent of [`Log::poll`].
    ///
    /// # Errors
    /// The position is gone, or the log can't be reached.
    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError>;

    /// All committed records of partitions, each partition's in order, from its start to at least where it ends at the
    /// time of the call, uncommitted records included: waits for the open transactions among them. For restore.
    ///
    /// # Errors
    /// The log can't be reached.
    fn read_all(&mut self, at: &[TopicPartition], take: &mut dyn FnMut(Record)) -> Result<(), LogError> {
        for &at in at {
            let extent = self.extent(at)?;
            let mut from = extent.start;
            while from < extent.end {
                let batch = self.read(at, from, READ_ALL_BATCH)?;
                batch.records.into_iter().for_each(&mut *take);
                from = batch.next;
            }
        }
        Ok(())
    }

    /// Becomes one of those who share the input partitions; [`Log::ownership`] then tells which ones are ours. To be
    /// called once, after [`Log::recover`].
    ///
    /// # Errors
    /// The log can't be reached.
    fn join(&mut self) -> Result<(), LogError>;

    /// What changed about who owns input partitions, in order, since it was last asked: told by [`Log::join`],
    /// [`Log::poll`] and [`Log::settle`]. Until a change is answered there is no other.
    fn ownership(&mut self) -> Option<Ownership>;

    /// Waits up to `wait` for news about ownership, after a commit was aborted; records that come in meanwhile are kept
    /// for the next poll.
    ///
    /// # Errors
    /// The log can't be reached.
    fn settle(&mut self, wait: Duration) -> Result<(), LogError>;

    /// Lets [`Log::poll`] give out these partitions too, from these positions; answers [`Ownership::Assigned`].
    /// A partition that it gives out already goes on from the position.
    ///
    /// # Errors
    /// The log can't be reached.
    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError>;

    /// Gives out nothing more of these partitions; answers [`Ownership::Revoked`] and [`Ownership::Lost`].
    ///
    /// # Errors
    /// The log can't be reached.
    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError>;

    /// Committed records of the taken partitions, each partition's in order: up to `max`, waiting at most `wait`
    /// for the first.
    ///
    /// # Errors
    /// A position is gone (nothing is reset silently), or the log can't be reached.
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, LogError>;

    /// As [`Log::poll`], but shows the records where they are, one after another, and says how many there were.
    ///
    /// # Errors
    /// As [`Log::poll`]. Some may have been shown: what follows from them must be dropped.
    fn poll_each(
        &mut self,
        max: usize,
        wait: Duration,
        show: &mut dyn FnMut(Offered<'_>),
    ) -> Result<usize, LogError> {
        let records = self.poll(max, wait)?;
        records.iter().for_each(|record| record.offer(&mut *show));
        Ok(records.len())
    }

    /// Appends outside of any transaction; on return the records are durable. Order within a partition is kept.
    ///
    /// # Errors
    /// Not all records are durable: some may be.
    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError>;

    /// Writes records and positions in one atomic step.
    ///
    /// # Errors
    /// [`LogError::Aborted`]: nothing of it is in the log, and the state is still good. All others: the caller drops its
    /// state, calls [`Log::recover`] and restores.
    fn commit(&mut self, commit: Commit) -> Result<(), LogError>;

    /// Makes the log usable after a failed commit and fences every older user of the same identity. All partitions may be
    /// lost by it: [`Log::ownership`] tells.
    ///
    /// # Errors
    /// The log can't be reached: call again. [`LogError::Fenced`]: another process has this worker's identity.
    fn recover(&mut self) -> Result<(), LogError>;

    /// Deletes the records before a position of each of these partitions: of `tacho.deltas` once consumed, and what
    /// retention allows.
    ///
    /// # Errors
    /// The log can't be reached.
    fn trim(&mut self, before: &[(TopicPartition, Position)]) -> Result<(), LogError>;

    /// The stable identity that fences: `transactional.id`, or the data directory's.
    fn writer(&self) -> &str;

    /// The log's own wall time, for `tacho-wall` and for the timing of commits; never reaches the core but in headers.
    fn wall_ms(&self) -> i64;
}

/// Reads the partitions given out in turn, up to `max` records in all; the next time goes on behind where this one ended.
fn read_in_turn(
    assigned: &mut [(TopicPartition, Position)],
    turn: &mut usize,
    max: usize,
    mut read: impl FnMut(TopicPartition, Position, usize) -> Result<Batch, LogError>,
) -> Result<Vec<Record>, LogError> {
    let mut records = Vec::new();
    for step in 0..assigned.len() {
        let index = (*turn + step) % assigned.len();
        let (at, position) = assigned[index];
        let batch = read(at, position, max - records.len())?;
        assigned[index].1 = batch.next;
        records.extend(batch.records);
        if records.len() >= max {
            *turn = index + 1;
            break;
        }
    }
    Ok(records)
}

//! The seam between everything that works with records and the log that holds them.
//!
//! ```text
//!   ReadLog                partitions, extent, read          tacho read, followers of a topic, restore
//!      ▲
//!     Log                  join, poll, append, commit        a worker
//!      ▲
//!   ┌──┴──────┬──────────┐
//! kafka    embedded  simulated                               one contract, tests/contract.rs
//! ```
//!
//! The same runner, `tacho read` and tests work on real Kafka ([`kafka`]), on the durable log within one process
//! ([`embedded`]) and in simulation ([`simulated`]). What else reaches a cluster is here too: its address and the properties
//! of all clients ([`cluster`]), whether a client still reaches it ([`contact`]), following a topic ([`follow`]), and the
//! producer of ingest's inbox and spool ([`kafka::gapless`]).
//!
//! **Architecture Invariant:** records, state and input positions of a commit become visible together or not at all.
#![deny(missing_docs, clippy::wildcard_enum_match_arm)]

mod assigned;
pub mod cluster;
pub mod contact;
pub mod control;
pub mod embedded;
mod error;
pub mod follow;
pub mod kafka;
pub mod simulated;
pub mod telemetry;

pub use error::{Cause, LogError, chain};

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
    /// The record's offset.
    pub offset: i64,
    /// The time that the log stamped the record with.
    pub appended: AppendTime,
}

/// Where a partition begins and ends: from `start`, up to but without `end`.
///
/// `end` is the high watermark: while a transaction is open it is past the last stable offset, up to which
/// [`ReadLog::read`] gives out records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first offset still there.
    pub start: Position,
    /// The offset that the next record gets.
    pub end: Position,
}

/// What one read gave: committed records, and where to go on, which may be past aborted records and control marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records in order of offsets; may be empty while `next` moves on.
    pub records: Vec<Record>,
    /// Where the next read begins.
    pub next: Position,
}

/// One atomic step of a worker: all of its parts become visible together, or none does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// One part for each input partition of the step.
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

/// A change of the input partitions that a worker owns, and what the worker does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The worker owns these partitions from now on: it restores their state, then answers by [`Log::take_over`]. May be
    /// empty.
    Assigned(Vec<TopicPartition>),
    /// These partitions go to another worker: the worker commits what it has folded of them, then answers by
    /// [`Log::release`]. It owns them until then.
    Revoked(Vec<TopicPartition>),
    /// The worker owns these partitions no longer: it drops their state, commits nothing of them, and answers by
    /// [`Log::release`].
    Lost(Vec<TopicPartition>),
}

/// All input partitions of a log; `partitions` is how many a topic has.
fn all_inputs(partitions: impl Fn(Topic) -> i32) -> Vec<TopicPartition> {
    let of = |stage: &Stage| {
        let topic = stage.def().input;
        (0..partitions(topic)).map(move |partition| TopicPartition { topic, partition })
    };
    Stage::VARIANTS.iter().flat_map(of).collect()
}

/// How many records [`ReadLog::read_all`] reads at once, where a log has no way of its own.
const READ_ALL_BATCH: usize = 10_000;

/// The records of a log, for whoever only reads: restore, followers of a topic, `tacho read`.
pub trait ReadLog: Send {
    /// How many partitions a topic has.
    ///
    /// # Errors
    /// The topic is not there, or the log can't be reached.
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError>;

    /// Where a partition begins and ends (see [`Extent`]).
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

    /// Up to `max` committed records from `from`; an empty batch with `next == from` means: nothing there now.
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
}

/// A log as one worker uses it. Calls block: the worker is a plain thread, and so are librdkafka's calls for transactions.
pub trait Log: ReadLog {
    /// The consumer group's committed positions, in the order asked; waits for pending transactions first.
    ///
    /// # Errors
    /// The log can't be reached.
    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError>;

    /// Becomes one of the workers that share the input partitions; [`Log::ownership`] then tells which ones this worker owns.
    /// To be called once, after [`Log::recover`].
    ///
    /// # Errors
    /// The log can't be reached.
    fn join(&mut self) -> Result<(), LogError>;

    /// The next change of ownership, in order; [`Log::join`], [`Log::poll`] and [`Log::settle`] learn of them. Until a change
    /// is answered there is no other.
    fn ownership(&mut self) -> Option<Ownership>;

    /// Waits up to `wait` for a change of ownership, after a commit was aborted; records that come in meanwhile are kept
    /// for the next poll.
    ///
    /// # Errors
    /// The log can't be reached.
    fn settle(&mut self, wait: Duration) -> Result<(), LogError>;

    /// Lets [`Log::poll`] give out these partitions too, from these positions; answers [`Ownership::Assigned`]. A partition
    /// that is given out already goes on from the new position.
    ///
    /// # Errors
    /// The log can't be reached.
    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError>;

    /// Gives out nothing more of these partitions; answers [`Ownership::Revoked`] and [`Ownership::Lost`].
    ///
    /// # Errors
    /// The log can't be reached.
    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError>;

    /// Committed records of the partitions that were taken over, each partition's in order: up to `max`, waiting at most
    /// `wait` for the first.
    ///
    /// # Errors
    /// A position is gone (nothing is reset silently), or the log can't be reached.
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, LogError>;

    /// As [`Log::poll`], but shows the records where they are, one after another, and says how many there were.
    ///
    /// # Errors
    /// As [`Log::poll`]. Records that were shown before the error count for nothing: what follows from them must be dropped.
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
    /// Not all records are durable, while some may be.
    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError>;

    /// Writes records and positions in one atomic step.
    ///
    /// # Errors
    /// [`LogError::Aborted`]: nothing of it is in the log, and the caller's state is still good. After all others the caller
    /// drops its state, calls [`Log::recover`] and restores.
    fn commit(&mut self, commit: Commit) -> Result<(), LogError>;

    /// Makes the log usable after a failed commit, and fences every older user of the same identity. The worker may lose all
    /// partitions by it: [`Log::ownership`] tells.
    ///
    /// # Errors
    /// The log can't be reached: call again. [`LogError::Fenced`]: another process has this worker's identity.
    fn recover(&mut self) -> Result<(), LogError>;

    /// Deletes the records before a position of each of these partitions: of `tacho.deltas` once they are consumed.
    ///
    /// # Errors
    /// The log can't be reached.
    fn trim(&mut self, before: &[(TopicPartition, Position)]) -> Result<(), LogError>;

    /// The stable identity that fences: the `transactional.id`, or the data directory's.
    fn writer(&self) -> &str;

    /// The log's wall time, ms since the Unix epoch: for the header `tacho-wall` and the timing of commits. It reaches the
    /// core in headers alone.
    fn wall_ms(&self) -> i64;
}

//! Tasks: the state that folds one partition of a stage's input, and what a worker asks of it.
//!
//! A commit has three steps: [`Task::take`] of each task that moved; labels resolved for all of them at once;
//! [`Task::seal`] of each with its resolved deltas. The types keep that order: only
//! [`crate::LabelTable::resolve`] makes [`Deltas`] of [`RawDeltas`], and only `seal` gives the [`Meta`] that
//! a commit must hold.

use crate::{Deltas, RawDeltas, Rules, SeriesTask, SessionTask};
use schemas::delta::DeltaRecord;
use schemas::derived::Row;
use schemas::id::{Epoch, Position, TopicPartition};
use schemas::origin::Origin;
use schemas::record::{HEADER_EPOCH, HEADER_ORIGIN, HEADER_TICK, HEADER_WALL, Offered};
use schemas::stage::Stage;
use schemas::state::{Change, Meta, StateKey, StateKeyError};
use schemas::time::{AppendTime, PartitionClock, WallTime};
use std::collections::BTreeSet;

/// State that folds one partition of a stage's input.
pub trait Task: Sized {
    /// An empty task, whose first record is the one at `from`.
    fn new(at: TopicPartition, rules: &Rules, from: Position) -> Self;

    /// Rebuilds a task from its changelog: the meta record, and the latest value of every other key, in any
    /// order.
    ///
    /// # Errors
    /// An entry can't be read, or belongs to no state of this stage.
    fn restore<'c>(
        at: TopicPartition,
        rules: &Rules,
        meta: &Meta,
        entries: impl IntoIterator<Item = (StateKey<'c>, &'c [u8])>,
    ) -> Result<Self, RestoreError>;

    /// Folds one record; records must come in the order of their offsets. A fault of a client's record is an
    /// outcome, never an error.
    ///
    /// # Errors
    /// The log itself is broken. Nothing was folded, and the task must not go on.
    fn apply(&mut self, input: Input<'_>, rules: &Rules) -> Result<Applied, Halt>;

    /// Takes the effects of the records since the last call. The caller commits them, or drops the task.
    fn take(&mut self, rules: &Rules) -> Effects;

    /// Turns resolved deltas into delta records, remembers what was sent, and gives the meta record of the
    /// commit. Must be called once after each [`Task::take`]. `writer` is the `transactional.id` that
    /// commits.
    fn seal(&mut self, deltas: Deltas, writer: &str, rules: &Rules) -> Sealed;

    /// The next offset to read.
    fn position(&self) -> Position;

    /// How much the next [`Task::take`] gives, at least.
    fn pending(&self) -> Pending;
}

/// A task of any stage.
#[derive(Clone, Debug)]
pub enum AnyTask {
    /// A task of [`Stage::Sessions`].
    Sessions(Box<SessionTask>),
    /// A task of [`Stage::Series`].
    Series(Box<SeriesTask>),
}

/// Evaluates `$call` with the task of whichever variant is there.
macro_rules! of_any {
    ($any:expr, $task:ident => $call:expr) => {
        match $any {
            AnyTask::Sessions($task) => $call,
            AnyTask::Series($task) => $call,
        }
    };
}

impl AnyTask {
    /// An empty task of that stage, as by [`Task::new`].
    #[must_use]
    pub fn new(stage: Stage, at: TopicPartition, rules: &Rules, from: Position) -> Self {
        match stage {
            Stage::Sessions => Self::Sessions(Box::new(Task::new(at, rules, from))),
            Stage::Series => Self::Series(Box::new(Task::new(at, rules, from))),
        }
    }

    /// Rebuilds a task of that stage from its changelog, as by [`Task::restore`].
    ///
    /// # Errors
    /// An entry can't be read, or belongs to no state of that stage.
    pub fn restore<'c>(
        stage: Stage,
        at: TopicPartition,
        rules: &Rules,
        meta: &Meta,
        entries: impl IntoIterator<Item = (StateKey<'c>, &'c [u8])>,
    ) -> Result<Self, RestoreError> {
        Ok(match stage {
            Stage::Sessions => Self::Sessions(Box::new(Task::restore(at, rules, meta, entries)?)),
            Stage::Series => Self::Series(Box::new(Task::restore(at, rules, meta, entries)?)),
        })
    }

    /// Folds one record, as by [`Task::apply`].
    ///
    /// # Errors
    /// The log itself is broken. Nothing was folded, and the task must not go on.
    pub fn apply(&mut self, input: Input<'_>, rules: &Rules) -> Result<Applied, Halt> {
        of_any!(self, task => task.apply(input, rules))
    }

    /// Goes on at a later position: the records before it are gone from the log. Says whether the stage can: one that
    /// follows chains of records can't.
    pub fn skip_to(&mut self, position: Position) -> bool {
        match self {
            Self::Sessions(task) => {
                task.skip_to(position);
                true
            }
            Self::Series(_) => false,
        }
    }

    /// Takes the effects since the last call, as by [`Task::take`].
    pub fn take(&mut self, rules: &Rules) -> Effects {
        of_any!(self, task => task.take(rules))
    }

    /// Turns resolved deltas into delta records, as by [`Task::seal`].
    pub fn seal(&mut self, deltas: Deltas, writer: &str, rules: &Rules) -> Sealed {
        of_any!(self, task => task.seal(deltas, writer, rules))
    }

    /// The next offset to read.
    #[must_use]
    pub fn position(&self) -> Position {
        of_any!(self, task => task.position())
    }

    /// How much the next [`AnyTask::take`] gives, at least.
    #[must_use]
    pub fn pending(&self) -> Pending {
        of_any!(self, task => task.pending())
    }

    /// The task's stage.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Sessions(_) => Stage::Sessions,
            Self::Series(_) => Stage::Series,
        }
    }

    /// How many keys are in state: conversations in stage `sessions`, series in stage `series`.
    #[must_use]
    pub fn state_keys(&self) -> usize {
        of_any!(self, task => task.state_keys())
    }

    /// The session task; `None` for a task of another stage.
    #[must_use]
    pub fn sessions(&self) -> Option<&SessionTask> {
        match self {
            Self::Sessions(task) => Some(task),
            Self::Series(_) => None,
        }
    }

    /// The series task; `None` for a task of another stage.
    #[must_use]
    pub fn series(&self) -> Option<&SeriesTask> {
        match self {
            Self::Series(task) => Some(task),
            Self::Sessions(_) => None,
        }
    }

    /// The partition clock of a task whose input is ticked; `None` before its first record, and for tasks of
    /// other stages.
    #[must_use]
    pub fn clock(&self) -> Option<PartitionClock> {
        match self {
            Self::Sessions(task) => task.clock(),
            Self::Series(_) => None,
        }
    }

    /// The epoch of the partition; epoch 0 for tasks of stages that have none.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Sessions(task) => task.epoch(),
            Self::Series(_) => Epoch(0),
        }
    }
}

/// A record as a task reads it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The record's offset.
    pub offset: i64,
    /// When the log took the record in.
    pub appended: AppendTime,
    /// The writer's wall time (header `tacho-wall`).
    pub wall: Option<WallTime>,
    /// Whether the record is a tick.
    pub tick: bool,
    /// The epoch that the record starts; `None` for all but some ticks.
    pub epoch: Option<Epoch>,
    /// Where the record was in an inbox or a spool; `None` if it was in neither.
    pub origin: Option<Origin<'a>>,
    /// The record's key.
    pub key: &'a str,
    /// The record's value.
    pub value: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads what a task needs from a log record. A key that is not UTF-8 becomes the empty one; of several
    /// headers with the same name the last one counts.
    #[must_use]
    pub fn of(record: &Offered<'a>) -> Self {
        let mut input = Self {
            offset: record.offset,
            appended: record.appended,
            wall: None,
            tick: false,
            epoch: None,
            origin: None,
            key: record
                .key
                .and_then(|key| std::str::from_utf8(key).ok())
                .unwrap_or(""),
            value: record.value.unwrap_or_default(),
        };
        for (name, header) in record.headers {
            let text = std::str::from_utf8(header).ok();
            match *name {
                HEADER_WALL => input.wall = text.and_then(|text| text.parse().ok()).map(WallTime),
                HEADER_TICK => input.tick = true,
                HEADER_EPOCH => input.epoch = text.and_then(|text| text.parse().ok()).map(Epoch),
                HEADER_ORIGIN => input.origin = text.and_then(Origin::parse),
                _ => {}
            }
        }
        input
    }

    /// The position after the record.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position::after(self.offset)
    }
}

/// What became of a record that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The record was folded.
    Folded,
    /// The record was folded before, and was dropped. Only the log itself can repeat a record; what clients
    /// repeat is an outcome of folding.
    Duplicate,
}

/// Why a task can't go on: the log is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The record is none that its topic may hold.
    #[error("the record is not what this topic holds")]
    Foreign,
    /// A delta record of the same source before this one is missing.
    #[error("deltas of source {source_partition} of stage {} are missing between {} and {}", .stage.def().name, .have.0, .previous.0)]
    Gap {
        /// The stage of the source.
        stage: Stage,
        /// The source's partition of that stage's input.
        source_partition: i32,
        /// The position up to which the source's deltas are merged.
        have: Position,
        /// The position after which the record's deltas begin.
        previous: Position,
    },
}

/// How much the next take gives: a commit comes early when it is much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Records to be written: changelog entries and rows.
    pub entries: usize,
    /// Bytes to be written of what the number of records does not bound: deltas, rows, large state and
    /// quarantined values.
    pub bytes: usize,
}

impl Pending {
    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// The difference of both, 0 where `other` is larger.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(other.entries),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// A raw record that can't be folded, for the quarantine topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The record's offset in the raw partition.
    pub offset: i64,
    /// Why the record can't be folded: `undecodable` or `misrouted`.
    pub reason: &'static str,
    /// The record's key.
    pub key: String,
    /// The record's value.
    pub value: Vec<u8>,
}

/// Everything that follows from the records since the last take. Its order is fixed: the same records give
/// the same bytes.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// The changes of the changelog, without the meta record.
    pub changes: Vec<Change>,
    /// Rows, in the order in which they came about.
    pub rows: Vec<Row>,
    /// Deltas under series keys whose label values are not resolved yet.
    pub deltas: RawDeltas,
    /// Records for the quarantine topic.
    pub quarantined: Vec<Quarantined>,
    /// The keys of the series whose total or last final window changed.
    pub touched: BTreeSet<String>,
}

/// What [`Task::seal`] adds to the effects of a task to make a commit of them.
#[derive(Debug)]
#[must_use]
pub struct Sealed {
    /// Delta records, each with its partition of the deltas topic, in the order in which they must be
    /// written.
    pub deltas: Vec<(i32, DeltaRecord)>,
    /// The meta record of the changelog.
    pub meta: Meta,
}

/// Why state can't be rebuilt from a changelog.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The value of an entry can't be decoded as what its key stands for.
    #[error("changelog entry {key:?} can't be read")]
    Entry {
        /// The entry's key.
        key: String,
        /// Why the value can't be decoded.
        #[source]
        source: prost::DecodeError,
    },
    /// The key of an entry has no known form.
    #[error(transparent)]
    Key(#[from] StateKeyError),
    /// The key of an entry belongs to another stage, or has a number that this log can't have.
    #[error(
        "changelog key {key:?} is none of stage {stage}: the changelog was written by another program, or mixed up"
    )]
    Stage {
        /// The entry's key.
        key: String,
        /// The name of the stage that is restored.
        stage: &'static str,
    },
    /// The meta record names a stage that this version does not know.
    #[error(
        "the meta record names a source of stage {stage}, which this version does not know: use the version that wrote it"
    )]
    Source {
        /// The number of the stage ([`schemas::stage::StageDef::code`]).
        stage: u32,
    },
}

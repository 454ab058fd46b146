//! What the worker asks of every task, whatever its stage.
//!
//! A commit goes: [`Task::take`] for each task that moved; labels resolved for all of them at once; [`Task::seal`] with
//! the resolved deltas. The types keep that order: only [`crate::LabelTable::resolve`] makes [`Deltas`] of [`RawDeltas`],
//! and only `seal` gives the [`Meta`] that a commit must hold.

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
    /// The task at its first start: nothing known, to be fed from `from` on.
    fn new(at: TopicPartition, rules: &Rules, from: Position) -> Self;

    /// Rebuilds a task from its changelog: the meta record, and the latest value of every other key, in any order.
    ///
    /// # Errors
    /// An entry that can't be read, or is none of this stage.
    fn restore<'c>(
        at: TopicPartition,
        rules: &Rules,
        meta: &Meta,
        entries: impl IntoIterator<Item = (StateKey<'c>, &'c [u8])>,
    ) -> Result<Self, RestoreError>;

    /// Folds one record. What is wrong with a record of a client is an outcome, never an error.
    ///
    /// # Errors
    /// The log itself is broken: nothing was folded, and the task must stop.
    fn apply(&mut self, input: Input<'_>, rules: &Rules) -> Result<Applied, Halt>;

    /// Takes what follows from the records since the last take. The caller commits it, or drops the task.
    fn take(&mut self, rules: &Rules) -> Effects;

    /// Turns resolved deltas into the records that carry them, remembers what was sent, and gives the meta record of the
    /// commit; to be called after each [`Task::take`]. `writer` is the `transactional.id` that commits.
    fn seal(&mut self, deltas: Deltas, writer: &str, rules: &Rules) -> Sealed;

    /// The next offset to read.
    fn position(&self) -> Position;

    /// How much the next take is going to hold, at least.
    fn pending(&self) -> Pending;
}

/// A task of any stage.
#[derive(Clone, Debug)]
pub enum AnyTask {
    /// Of [`Stage::Sessions`].
    Sessions(Box<SessionTask>),
    /// Of [`Stage::Series`].
    Series(Box<SeriesTask>),
}

/// Calls the same method of whichever task it is.
macro_rules! of_any {
    ($any:expr, $task:ident => $call:expr) => {
        match $any {
            AnyTask::Sessions($task) => $call,
            AnyTask::Series($task) => $call,
        }
    };
}

impl AnyTask {
    /// A task of that stage at its first start; see [`Task::new`].
    #[must_use]
    pub fn new(stage: Stage, at: TopicPartition, rules: &Rules, from: Position) -> Self {
        match stage {
            Stage::Sessions => Self::Sessions(Box::new(Task::new(at, rules, from))),
            Stage::Series => Self::Series(Box::new(Task::new(at, rules, from))),
        }
    }

    /// A task of that stage from its changelog; see [`Task::restore`].
    ///
    /// # Errors
    /// See [`Task::restore`].
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

    /// See [`Task::apply`].
    ///
    /// # Errors
    /// See [`Task::apply`].
    pub fn apply(&mut self, input: Input<'_>, rules: &Rules) -> Result<Applied, Halt> {
        of_any!(self, task => task.apply(input, rules))
    }

    /// See [`Task::take`].
    pub fn take(&mut self, rules: &Rules) -> Effects {
        of_any!(self, task => task.take(rules))
    }

    /// See [`Task::seal`].
    pub fn seal(&mut self, deltas: Deltas, writer: &str, rules: &Rules) -> Sealed {
        of_any!(self, task => task.seal(deltas, writer, rules))
    }

    /// See [`Task::position`].
    #[must_use]
    pub fn position(&self) -> Position {
        of_any!(self, task => task.position())
    }

    /// See [`Task::pending`].
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

    /// How many keys are in state: conversations, or series.
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

    /// The partition clock, for a stage whose input is ticked; `None` before its first record, and for other stages.
    #[must_use]
    pub fn clock(&self) -> Option<PartitionClock> {
        match self {
            Self::Sessions(task) => task.clock(),
            Self::Series(_) => None,
        }
    }

    /// The epoch of the partition; epoch 0 for stages that have none.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Sessions(task) => task.epoch(),
            Self::Series(_) => Epoch(0),
        }
    }
}

/// A record offered to a task, in the order of offsets.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its offset.
    pub offset: i64,
    /// When the log took it in.
    pub appended: AppendTime,
    /// The writer's wall time (header `tacho-wall`).
    pub wall: Option<WallTime>,
    /// Whether it is a tick.
    pub tick: bool,
    /// The epoch that it starts, if it is a tick that starts one.
    pub epoch: Option<Epoch>,
    /// Where in an inbox it came from, if it did.
    pub origin: Option<Origin<'a>>,
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads what a task needs off a log record; a key that is not text becomes the empty one. Of a header that is there
    /// more than once, the last counts.
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
    /// It was folded.
    Folded,
    /// It was there before, whole: dropped. Only the log itself can repeat a record so; what clients repeat is an
    /// outcome of the fold.
    Duplicate,
}

/// Why a task can't go on: the log is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The record is not what its topic holds.
    #[error("the record is not what this topic holds")]
    Foreign,
    /// A delta record between the last one of its source and this one is missing.
    #[error("deltas of source {source_partition} of stage {} are missing between {have} and {previous}", .stage.def().name)]
    Gap {
        /// The stage that sent it.
        stage: Stage,
        /// The partition of that stage's input.
        source_partition: i32,
        /// The position up to which the source is merged.
        have: i64,
        /// The position at which the record begins.
        previous: i64,
    },
}

/// How much follows from the records since the last take: a commit is brought forward by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Records to be written: changelog entries and rows.
    pub entries: usize,
    /// Bytes to be written of what is not bounded by its number: deltas, rows, large state and quarantined values.
    pub bytes: usize,
}

impl Pending {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What is left of `self` when `other` is taken away.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(other.entries),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// A raw record that can't be folded: its bytes go to the quarantine topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its offset in the raw partition.
    pub offset: i64,
    /// Why, in one word: `undecodable` or `misrouted`.
    pub reason: &'static str,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// Everything that follows from the inputs since the last take, in a fixed order.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// Upserts of the changelog, without the meta record.
    pub changes: Vec<Change>,
    /// Rows, in the order in which they came about.
    pub rows: Vec<Row>,
    /// Deltas under raw series keys.
    pub deltas: RawDeltas,
    /// Records for the quarantine topic.
    pub quarantined: Vec<Quarantined>,
    /// The series whose total or last final window changed, ascending.
    pub touched: BTreeSet<String>,
}

/// What completes a commit of a task.
#[derive(Debug)]
#[must_use]
pub struct Sealed {
    /// Delta records, each with its partition of the deltas topic, in the order in which they must be written.
    pub deltas: Vec<(i32, DeltaRecord)>,
    /// The changelog's meta record.
    pub meta: Meta,
}

/// Why state can't be rebuilt from a changelog.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// An entry is not what its key says.
    #[error("changelog entry {key:?} can't be read")]
    Entry {
        /// Its key.
        key: String,
        /// What prost said.
        #[source]
        source: prost::DecodeError,
    },
    /// A key of no known form.
    #[error(transparent)]
    Key(#[from] StateKeyError),
    /// A key that another stage has, or with a number that this log can't have.
    #[error(
        "changelog key {key:?} is none of stage {stage}: the changelog was written by another program, or mixed up"
    )]
    Stage {
        /// The key.
        key: String,
        /// Name of the stage.
        stage: &'static str,
    },
    /// The meta record names a stage that this version does not know.
    #[error(
        "the meta record names a source of stage {stage}, which this version does not know: use the version that wrote it"
    )]
    Source {
        /// Number of the stage.
        stage: u32,
    },
}

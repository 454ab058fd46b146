//! The output of event handlers: facts, which become deltas, and rows.

use crate::clock;
use crate::combiner::Combiner;
use schemas::delta::Slot;
use schemas::derived::Row;
use schemas::fact::{Dimensions, Fact};
use schemas::id::{Position, TopicPartition};
use schemas::settings::TimeRules;
use schemas::time::{EventTime, PartitionClock};

/// Takes what one record means: the facts and rows that its handler emits.
#[derive(Debug)]
pub struct Out<'a> {
    pub(crate) combiner: &'a mut Combiner,
    pub(crate) rows: &'a mut Vec<Row>,
    pub(crate) slot: Slot,
    pub(crate) who: Dimensions<'a>,
    pub(crate) at: TopicPartition,
    pub(crate) position: Position,
    pub(crate) clock: PartitionClock,
    pub(crate) time: &'a TimeRules,
}

impl Out<'_> {
    /// Emits a fact: every metric that is made of its kind adds what it makes of the fact.
    pub fn emit(&mut self, fact: &Fact) {
        self.combiner.observe(fact, &self.who, self.slot);
    }

    /// Sets the event time of the facts that come next, for those that are not of the record at hand.
    pub fn move_to(&mut self, time: EventTime) {
        self.slot = clock::slot(time, self.clock, self.time);
    }

    /// The partition clock after the raw record moved it.
    #[must_use]
    pub const fn clock(&self) -> PartitionClock {
        self.clock
    }

    /// Emits a row, which is published with the next commit.
    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The partition of the raw record, for rows that say where they come from.
    #[must_use]
    pub const fn at(&self) -> TopicPartition {
        self.at
    }

    /// The position after the raw record, for rows that say up to where they are complete.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }
}

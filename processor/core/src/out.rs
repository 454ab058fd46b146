//! Where an event handler puts what a record means: facts, which become deltas, and rows.

use crate::sessions::Combiner;
use schemas::delta::Slot;
use schemas::derived::Row;
use schemas::fact::{Dimensions, Fact};
use schemas::id::{Position, TopicPartition};

/// The way out of an event handler, for one record.
#[derive(Debug)]
pub struct Out<'a> {
    pub(crate) combiner: &'a mut Combiner,
    pub(crate) rows: &'a mut Vec<Row>,
    pub(crate) slot: Slot,
    pub(crate) who: Dimensions<'a>,
    pub(crate) at: TopicPartition,
    pub(crate) position: Position,
}

impl Out<'_> {
    /// Adds what every metric makes of a fact.
    pub fn tell(&mut self, fact: &Fact) {
        self.combiner.observe(fact, &self.who, self.slot);
    }

    /// Publishes a row with the next commit.
    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The partition of the record, for rows that say where they come from.
    #[must_use]
    pub const fn at(&self) -> TopicPartition {
        self.at
    }

    /// The position after the raw record, for rows that say how much they hold.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }
}

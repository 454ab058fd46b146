//! The partitions that one user of a log polls, and how far it is in each: for the logs that have no client to keep that.

use crate::{Batch, LogError};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;

/// The partitions that a poll gives records of, in a fixed order.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    /// Each partition with the position that its next record is read from.
    partitions: Vec<(TopicPartition, Position)>,
    /// Index of the partition that the next poll begins with: a busy one must not starve the others.
    turn: usize,
}

impl Assigned {
    /// Adds partitions, or moves those that are there, to these positions.
    pub(crate) fn take_over(&mut self, from: &[(TopicPartition, Position)]) {
        self.partitions
            .retain(|(at, _)| from.iter().all(|(taken, _)| taken != at));
        self.partitions.extend_from_slice(from);
        self.turn = 0;
    }

    /// Takes partitions out; those that are not there change nothing.
    pub(crate) fn release(&mut self, at: &[TopicPartition]) {
        self.partitions.retain(|(taken, _)| !at.contains(taken));
        self.turn = 0;
    }

    /// Reads the partitions in turn, up to `max` records in all; the next call goes on behind where this one ended.
    ///
    /// # Errors
    /// A call of `read` failed. The records of the calls before are dropped then, while their positions have moved on.
    pub(crate) fn read_in_turn(
        &mut self,
        max: usize,
        mut read: impl FnMut(TopicPartition, Position, usize) -> Result<Batch, LogError>,
    ) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        for step in 0..self.partitions.len() {
            let index = (self.turn + step) % self.partitions.len();
            let (at, position) = self.partitions[index];
            let batch = read(at, position, max - records.len())?;
            self.partitions[index].1 = batch.next;
            records.extend(batch.records);
            if records.len() >= max {
                self.turn = index + 1;
                break;
            }
        }
        Ok(records)
    }
}

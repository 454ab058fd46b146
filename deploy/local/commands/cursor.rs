//! A place in a partition that a command reads: from the first record that is there to where the partition ended when the
//! command began.

use processor_log::{Extent, LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;

/// One partition, and the position up to which it is read.
pub struct Cursor {
    pub at: TopicPartition,
    pub extent: Extent,
    pub next: Position,
}

impl Cursor {
    /// A cursor at the first record of a partition that is there.
    ///
    /// # Errors
    /// The log can't be read, or has no such partition.
    pub fn at_start(log: &mut (impl ReadLog + ?Sized), at: TopicPartition) -> Result<Self, LogError> {
        let extent = log.extent(at)?;
        Ok(Self {
            at,
            extent,
            next: extent.start,
        })
    }

    /// The next records before the cursor's end, at most `max`; none at the end, or where records are not readable yet.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn step(&mut self, log: &mut (impl ReadLog + ?Sized), max: usize) -> Result<Vec<Record>, LogError> {
        while self.next < self.extent.end {
            let batch = match log.read(self.at, self.next, max) {
                Ok(batch) => batch,
                // Retention deleted what the cursor stood at: the next record is the first that is still there.
                Err(LogError::OutOfRange { start, .. }) if start > self.next.0 => {
                    self.next = Position(start);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let stuck = batch.next == self.next;
            self.next = batch.next;
            let end = self.extent.end.0;
            let before_end = batch.records.into_iter().filter(|record| record.offset < end);
            let records: Vec<Record> = before_end.collect();
            if stuck || !records.is_empty() {
                return Ok(records);
            }
        }
        Ok(Vec::new())
    }
}

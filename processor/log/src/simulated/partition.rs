//! One partition of the simulated log: records, and the marks that end transactions.

use crate::{Appended, Batch, LogError};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::time::AppendTime;
use std::collections::{BTreeMap, BTreeSet};

/// A transaction's number.
pub(super) type TransactionId = u64;

/// The records of one partition, and which of them readers see.
#[derive(Default)]
pub(super) struct Partition {
    /// The first offset that was not deleted.
    pub start: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// The largest append time so far, ms.
    last_ms: i64,
    /// By how much the clock of this partition's leader is wrong, ms.
    pub skew_ms: i64,
    records: BTreeMap<i64, Record>,
    /// Offsets that transactions without a mark have written.
    unmarked: BTreeMap<TransactionId, Vec<i64>>,
}

impl Partition {
    /// Appends a record, of a transaction or of none.
    pub fn put(&mut self, record: NewRecord, now_ms: i64, of: Option<TransactionId>) -> Appended {
        let appended = AppendTime(self.last_ms.max(now_ms + self.skew_ms));
        let offset = self.end;
        let NewRecord {
            to,
            key,
            value,
            headers,
        } = record;
        self.insert(Record {
            from: to,
            offset,
            appended,
            key,
            value,
            headers,
        });
        if let Some(transaction) = of {
            self.unmarked.entry(transaction).or_default().push(offset);
        }
        Appended { offset, appended }
    }

    /// Appends a record with the offset and time that it has; the offset must not be below the end.
    pub fn insert(&mut self, record: Record) {
        self.end = record.offset + 1;
        self.last_ms = self.last_ms.max(record.appended.0);
        self.records.insert(record.offset, record);
    }

    /// Appends the mark that ends a transaction, which takes an offset; the records of an aborted one are gone then.
    pub fn mark(&mut self, transaction: TransactionId, is_committed: bool) {
        for offset in self.unmarked.remove(&transaction).unwrap_or_default() {
            if !is_committed {
                self.records.remove(&offset);
            }
        }
        self.end += 1;
    }

    /// The last stable offset: where the first transaction without a mark begins.
    pub fn stable(&self) -> i64 {
        self.unmarked
            .values()
            .filter_map(|written| written.first())
            .min()
            .copied()
            .unwrap_or(self.end)
    }

    /// The transactions that hold readers up here.
    pub fn unmarked(&self) -> Vec<TransactionId> {
        self.unmarked.keys().copied().collect()
    }

    /// See [`crate::ReadLog::read`].
    pub fn read(&self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        if from.0 < self.start || from.0 > self.end {
            return Err(LogError::OutOfRange {
                at,
                wanted: from.0,
                start: self.start,
            });
        }
        let stable = self.stable().max(from.0);
        let records: Vec<Record> = self
            .records
            .range(from.0..stable)
            .take(max)
            .map(|(_, record)| record.clone())
            .collect();
        // With fewer records than asked for, that was all, and the next read begins at the end.
        let next = match records.last() {
            Some(last) if records.len() == max => last.position(),
            None if max == 0 => from,
            _ => Position(stable),
        };
        Ok(Batch { records, next })
    }

    /// The records that readers see, in order.
    pub fn readable(&self) -> impl Iterator<Item = &Record> {
        self.records.range(..self.stable()).map(|(_, record)| record)
    }

    /// Deletes the records before an offset.
    pub fn trim(&mut self, before: i64) {
        self.start = self.start.max(before.min(self.end));
        self.records = self.records.split_off(&self.start);
    }

    /// Keeps only the latest record of each key, and no tombstone. Records that readers do not see yet are left alone.
    pub fn compact(&mut self) {
        let stable = self.stable();
        let latest: BTreeMap<_, _> = self
            .readable()
            .map(|record| (record.key.clone(), record.offset))
            .collect();
        let latest: BTreeSet<i64> = latest.into_values().collect();
        self.records
            .retain(|offset, record| *offset >= stable || latest.contains(offset) && record.value.is_some());
    }
}

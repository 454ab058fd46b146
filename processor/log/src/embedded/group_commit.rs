//! What the requests of one group will write, on top of what is visible: one atomic batch with one fsync for all of them.
//!
//! Nothing is changed before [`GroupCommit::write`].

use super::codec::{self, PartitionState};
use super::store::{Store, number, stored};
use crate::{Appended, Commit, LogError};
use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode};
use prost::Message;
use schemas::id::TopicPartition;
use schemas::record::{NewRecord, Record};
use schemas::time::AppendTime;
use std::collections::{BTreeMap, HashMap};

/// How many records one step of deletion takes, so that appends need not wait long for it.
const DELETE_STEP: usize = 4096;

/// The changes of a group, not yet written.
pub(super) struct GroupCommit<'s> {
    store: &'s Store,
    /// Holds the deletions; [`GroupCommit::write`] adds the rest.
    batch: OwnedWriteBatch,
    /// Append time of the group's records, ms, unless a partition's last record is later.
    now_ms: i64,
    /// The partitions that change, as they will be.
    states: BTreeMap<TopicPartition, PartitionState>,
    /// The consumer group's positions that change.
    positions: BTreeMap<TopicPartition, i64>,
    /// New records by their keys in the store. They are kept aside from the batch, since within one batch a key must not be
    /// both written and deleted.
    puts: BTreeMap<[u8; 13], Vec<u8>>,
    /// Why nothing of the group may be written: a request was taken in part only.
    broken: Option<LogError>,
    /// The keys of compacted topics that change: the offset and size of each key's latest record, or `None` where the key was
    /// deleted.
    latest: HashMap<Vec<u8>, Option<(i64, u64)>>,
}

impl<'s> GroupCommit<'s> {
    /// A group without changes; `now_ms` is its append time.
    pub fn new(store: &'s Store, now_ms: i64) -> Self {
        Self {
            store,
            batch: store.db.batch(),
            now_ms,
            states: BTreeMap::new(),
            positions: BTreeMap::new(),
            puts: BTreeMap::new(),
            broken: None,
            latest: HashMap::new(),
        }
    }

    /// Adds records behind each other, or none of them.
    ///
    /// # Errors
    /// A partition is not there, a key is missing where the topic is compacted, or the store failed.
    pub fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        self.check(&records)?;
        let mut appended = Vec::with_capacity(records.len());
        for record in records {
            let state = self.state(record.to)?;
            let time = AppendTime(self.now_ms.max(state.last_ms));
            appended.push(Appended {
                offset: state.end,
                appended: time,
            });
            self.put(record, state.end, time)?;
        }
        Ok(appended)
    }

    /// Adds records and positions, or nothing.
    ///
    /// # Errors
    /// As [`GroupCommit::append`]; or a position is ahead of the log.
    pub fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        self.check(commit.records())?;
        let positions = commit.positions();
        for (at, position) in &positions {
            let state = self.state(*at)?;
            if position.0 > state.end {
                let reason = format!(
                    "position {} of {at} is ahead of the log, which ends at {}",
                    position.0, state.end
                );
                return Err(LogError::not_committed(reason));
            }
        }
        self.append(commit.into_records())?;
        self.positions
            .extend(positions.into_iter().map(|(at, position)| (at, position.0)));
        Ok(())
    }

    /// Adds records with the offsets and times that they bring; offsets must ascend.
    ///
    /// # Errors
    /// As [`GroupCommit::append`]; or an offset is taken.
    pub fn import(&mut self, records: Vec<Record>) -> Result<(), LogError> {
        for record in records {
            let (at, offset, time) = (record.from, record.offset, record.appended);
            let state = self.state(at)?;
            if offset < state.end {
                let reason = format!(
                    "can't import offset {offset}: the partition goes on at {}",
                    state.end
                );
                return Err(LogError::corrupt(at.to_string(), reason));
            }
            let record = NewRecord {
                to: at,
                key: record.key,
                value: record.value,
                headers: record.headers,
            };
            self.check([&record])?;
            self.put(record, offset, time)?;
        }
        Ok(())
    }

    /// Deletes up to [`DELETE_STEP`] of the oldest records before `until`; whether there are more.
    pub fn delete_before(&mut self, at: TopicPartition, until: i64) -> Result<bool, LogError> {
        let mut state = self.state(at)?;
        let until = until.min(state.end);
        if until <= state.start {
            return Ok(false);
        }
        let compacted = at.topic.def().cleanup.is_compacted();
        let mut more = false;
        let range = self.store.keys.record(at, state.start)..self.store.keys.record(at, until);
        state.start = until;
        for (taken, entry) in self.store.records.range(range).enumerate() {
            let (key, value) = stored(entry.into_inner())?;
            let offset = codec::offset_of(&key).unwrap_or(until);
            if taken == DELETE_STEP {
                state.start = offset;
                more = true;
                break;
            }
            if compacted && let Some(record_key) = codec::decode(at, offset, &value)?.key {
                self.batch
                    .remove(&self.store.latest, self.store.keys.latest(at, &record_key));
            }
            state.bytes = state.bytes.saturating_sub(value.len() as u64);
            self.batch.remove(&self.store.records, key);
        }
        self.states.insert(at, state);
        Ok(more)
    }

    /// Writes everything as one atomic batch, then makes it visible.
    pub fn write(mut self, mode: PersistMode) -> Result<(), LogError> {
        if let Some(error) = self.broken {
            return Err(LogError::failed("nothing of its group was written", error));
        }
        for (key, value) in std::mem::take(&mut self.puts) {
            self.batch.insert(&self.store.records, key, value);
        }
        for (at, state) in &self.states {
            self.batch.insert(
                &self.store.meta,
                self.store.keys.state(*at),
                state.encode_to_vec(),
            );
        }
        for (at, position) in &self.positions {
            self.batch.insert(
                &self.store.meta,
                self.store.keys.committed(*at),
                position.to_be_bytes(),
            );
        }
        for (key, latest) in &self.latest {
            match latest {
                Some((offset, _)) => {
                    self.batch
                        .insert(&self.store.latest, key.as_slice(), offset.to_be_bytes())
                }
                None => self.batch.remove(&self.store.latest, key.as_slice()),
            }
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        stored(self.batch.durability(Some(mode)).commit())?;
        self.store.publish(|visible| {
            visible.states.extend(self.states);
            visible.committed.extend(self.positions);
        });
        Ok(())
    }

    /// Refuses records that can't be taken, before the first of their request is.
    fn check<'r>(&self, records: impl IntoIterator<Item = &'r NewRecord>) -> Result<(), LogError> {
        for record in records {
            self.state(record.to)?;
            if record.to.topic.def().cleanup.is_compacted() && record.key.is_none() {
                let fault = "a record without a key, which a compacted topic can't take".to_owned();
                return Err(LogError::Topic {
                    topic: record.to.topic.name().to_owned(),
                    fault,
                });
            }
        }
        Ok(())
    }

    /// A partition as this group leaves it.
    fn state(&self, at: TopicPartition) -> Result<PartitionState, LogError> {
        match self.states.get(&at) {
            Some(state) => Ok(*state),
            None => self.store.state(at),
        }
    }

    /// Adds one record. An error here leaves a request half taken, so the whole group is broken by it.
    fn put(&mut self, record: NewRecord, offset: i64, time: AppendTime) -> Result<(), LogError> {
        self.try_put(record, offset, time)
            .inspect_err(|error| self.broken = Some(error.clone()))
    }

    fn try_put(&mut self, record: NewRecord, offset: i64, time: AppendTime) -> Result<(), LogError> {
        let at = record.to;
        let mut state = self.state(at)?;
        state.end = offset + 1;
        state.last_ms = state.last_ms.max(time.0);
        let compacted = at.topic.def().cleanup.is_compacted();
        let key = record.key.clone().filter(|_| compacted);
        let tombstone = record.value.is_none();
        let value = codec::encode(record, time);
        let size = value.len() as u64;
        if let Some(key) = key {
            let freed = self.supersede(at, &key, (!tombstone).then_some((offset, size)))?;
            state.bytes = state.bytes.saturating_sub(freed);
            if tombstone {
                // A compacted topic holds the latest values only: a deleted key leaves nothing but the offset.
                self.states.insert(at, state);
                return Ok(());
            }
        }
        state.bytes += size;
        self.puts.insert(self.store.keys.record(at, offset), value);
        self.states.insert(at, state);
        Ok(())
    }

    /// Deletes the record that was the key's latest, and notes where the new one is and its size; gives the bytes that this
    /// frees.
    fn supersede(
        &mut self,
        at: TopicPartition,
        key: &Bytes,
        new: Option<(i64, u64)>,
    ) -> Result<u64, LogError> {
        let index = self.store.keys.latest(at, key);
        let old = match self.latest.get(&index) {
            Some(new) => *new,
            None => self.stored_latest(at, &index)?,
        };
        let mut freed = 0;
        if let Some((offset, size)) = old {
            let record = self.store.keys.record(at, offset);
            if self.puts.remove(&record).is_none() {
                self.batch.remove(&self.store.records, record);
            }
            freed = size;
        }
        self.latest.insert(index, new);
        Ok(freed)
    }

    /// The offset and size of a key's latest record in the store.
    fn stored_latest(&self, at: TopicPartition, index: &[u8]) -> Result<Option<(i64, u64)>, LogError> {
        let Some(bytes) = stored(self.store.latest.get(index))? else {
            return Ok(None);
        };
        let offset = number(&bytes, || format!("the key index of {at}"))?;
        let size = stored(self.store.records.size_of(self.store.keys.record(at, offset)))?.unwrap_or(0);
        Ok(Some((offset, u64::from(size))))
    }
}

//! A group in the making: what it will write, on top of what is visible. Nothing is changed before [`Stage::write`].

use super::codec::{self, Part};
use super::store::{Store, no_such};
use super::writer::stored;
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

/// Changes, not yet written.
pub(super) struct Stage<'s> {
    store: &'s Store,
    batch: OwnedWriteBatch,
    now_ms: i64,
    parts: BTreeMap<TopicPartition, Part>,
    positions: BTreeMap<TopicPartition, i64>,
    /// New records. Kept aside from the batch: within one batch, a key must not be both written and deleted.
    puts: BTreeMap<[u8; 13], Vec<u8>>,
    /// Set where a request was staged in part only: nothing of the group may be written then.
    broken: Option<String>,
    /// For compacted topics: where this group put a key's latest record and its size; `None` where it deleted the key.
    latest: HashMap<Vec<u8>, Option<(i64, u64)>>,
}

impl<'s> Stage<'s> {
    pub fn new(store: &'s Store, now_ms: i64) -> Self {
        Self {
            store,
            batch: store.db.batch(),
            now_ms,
            parts: BTreeMap::new(),
            positions: BTreeMap::new(),
            puts: BTreeMap::new(),
            broken: None,
            latest: HashMap::new(),
        }
    }

    /// Adds records behind each other, or none of them.
    pub fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        self.check(&records)?;
        let mut appended = Vec::with_capacity(records.len());
        for record in records {
            let part = self.part(record.to)?;
            let time = AppendTime(self.now_ms.max(part.last_ms));
            appended.push(Appended {
                offset: part.end,
                appended: time,
            });
            self.put(record, part.end, time)?;
        }
        Ok(appended)
    }

    /// Adds records and positions, or nothing.
    pub fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        self.check(commit.records())?;
        let positions = commit.positions();
        for (at, position) in &positions {
            let part = self.part(*at)?;
            if position.0 > part.end {
                let reason = format!(
                    "position {} of {at} is ahead of the log, which ends at {}",
                    position.0, part.end
                );
                return Err(LogError::NotCommitted { reason });
            }
        }
        self.append(commit.into_records())?;
        self.positions
            .extend(positions.into_iter().map(|(at, position)| (at, position.0)));
        Ok(())
    }

    /// Adds records with the offsets and times that they bring, which must ascend.
    pub fn import(&mut self, records: Vec<Record>) -> Result<(), LogError> {
        for record in records {
            let (at, offset, time) = (record.from, record.offset, record.appended);
            let part = self.part(at)?;
            if offset < part.end {
                let reason = format!(
                    "can't import offset {offset}: the partition goes on at {}",
                    part.end
                );
                return Err(LogError::Corrupt {
                    at: at.to_string(),
                    reason,
                });
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

    /// Deletes up to a step's worth of the oldest records before `until`; whether there are more.
    pub fn delete_before(&mut self, at: TopicPartition, until: i64) -> Result<bool, LogError> {
        let mut part = self.part(at)?;
        let until = until.min(part.end);
        if until <= part.start {
            return Ok(false);
        }
        let compacted = at.topic.def().cleanup.is_compacted();
        let mut more = false;
        let range = codec::record_key(at, part.start)..codec::record_key(at, until);
        part.start = until;
        for (taken, entry) in self.store.records.range(range).enumerate() {
            let (key, value) = stored(entry.into_inner())?;
            let offset = codec::offset_of(&key).unwrap_or(until);
            if taken == DELETE_STEP {
                part.start = offset;
                more = true;
                break;
            }
            if compacted && let Some(record_key) = codec::decode(at, offset, &value)?.key {
                self.batch
                    .remove(&self.store.latest, codec::latest_key(at, &record_key));
            }
            part.bytes = part.bytes.saturating_sub(value.len() as u64);
            self.batch.remove(&self.store.records, key);
        }
        self.parts.insert(at, part);
        Ok(more)
    }

    /// Writes everything as one atomic batch, then makes it visible.
    pub fn write(mut self, mode: PersistMode) -> Result<(), LogError> {
        if let Some(reason) = self.broken {
            return Err(LogError::Unavailable { reason });
        }
        for (key, value) in std::mem::take(&mut self.puts) {
            self.batch.insert(&self.store.records, key, value);
        }
        for (at, part) in &self.parts {
            self.batch
                .insert(&self.store.meta, codec::part_key(*at), part.encode_to_vec());
        }
        for (at, position) in &self.positions {
            self.batch
                .insert(&self.store.meta, codec::group_key(*at), position.to_be_bytes());
        }
        for (key, place) in &self.latest {
            match place {
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
            visible.parts.extend(self.parts);
            visible.positions.extend(self.positions);
        });
        Ok(())
    }

    fn check<'r>(&self, records: impl IntoIterator<Item = &'r NewRecord>) -> Result<(), LogError> {
        for record in records {
            self.part(record.to)?;
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

    fn part(&self, at: TopicPartition) -> Result<Part, LogError> {
        if let Some(part) = self.parts.get(&at) {
            return Ok(*part);
        }
        self.store
            .part(at)
            .map_err(|_| no_such(at, self.store.partitions(at.topic)))
    }

    fn put(&mut self, record: NewRecord, offset: i64, time: AppendTime) -> Result<(), LogError> {
        let outcome = self.try_put(record, offset, time);
        if let Err(error) = &outcome {
            self.broken = Some(format!("nothing of its group was written: {error}"));
        }
        outcome
    }

    fn try_put(&mut self, record: NewRecord, offset: i64, time: AppendTime) -> Result<(), LogError> {
        let at = record.to;
        let mut part = self.part(at)?;
        part.end = offset + 1;
        part.last_ms = part.last_ms.max(time.0);
        let compacted = at.topic.def().cleanup.is_compacted();
        let key = record.key.clone().filter(|_| compacted);
        let tombstone = record.value.is_none();
        let value = codec::encode(record, time);
        let size = value.len() as u64;
        if let Some(key) = key {
            let freed = self.supersede(at, &key, (!tombstone).then_some((offset, size)))?;
            part.bytes = part.bytes.saturating_sub(freed);
            if tombstone {
                // A compacted topic holds the latest values only: a deleted key leaves nothing but the offset.
                self.parts.insert(at, part);
                return Ok(());
            }
        }
        part.bytes += size;
        self.puts.insert(codec::record_key(at, offset), value);
        self.parts.insert(at, part);
        Ok(())
    }

    /// Deletes the record that was the key's latest and notes the new one; gives the bytes that this frees.
    fn supersede(
        &mut self,
        at: TopicPartition,
        key: &Bytes,
        place: Option<(i64, u64)>,
    ) -> Result<u64, LogError> {
        let index = codec::latest_key(at, key);
        let old = match self.latest.get(&index) {
            Some(staged) => *staged,
            None => self.stored_latest(at, &index)?,
        };
        let mut freed = 0;
        if let Some((offset, size)) = old {
            let place = codec::record_key(at, offset);
            if self.puts.remove(&place).is_none() {
                self.batch.remove(&self.store.records, place);
            }
            freed = size;
        }
        self.latest.insert(index, place);
        Ok(freed)
    }

    fn stored_latest(&self, at: TopicPartition, index: &[u8]) -> Result<Option<(i64, u64)>, LogError> {
        let Some(bytes) = stored(self.store.latest.get(index))? else {
            return Ok(None);
        };
        let corrupt = |_| LogError::Corrupt {
            at: format!("the key index of {at}"),
            reason: "not 8 bytes".to_owned(),
        };
        let offset = bytes
            .as_ref()
            .try_into()
            .map(i64::from_be_bytes)
            .map_err(corrupt)?;
        let size = stored(self.store.records.size_of(codec::record_key(at, offset)))?.unwrap_or(0);
        Ok(Some((offset, u64::from(size))))
    }
}

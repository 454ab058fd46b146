//! The store, and the table of what readers see of it: shared by the writer thread and all readers.
//!
//! **Architecture Invariant:** readers see a record, a position or a deletion only once it is durable.

use super::codec::{self, COUNTS_KEY, Keys, PartitionCounts, PartitionState};
use super::derivations;
use crate::{Batch, LogError};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use prost::Message;
use schemas::id::{Position, TopicPartition};
use schemas::settings::Seed;
use schemas::topic::{Prefix, Topic};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};
use strum::VariantArray;

/// How many bytes of records one read gives out at most, unless its first record alone is larger.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much the store's journal holds at most, bytes: a start after a crash has to replay that much.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The store with the table of what readers may see.
pub(super) struct Store {
    pub db: Database,
    /// Records by topic, partition and offset.
    pub records: Keyspace,
    /// The offset of each key's latest record, for compacted topics.
    pub latest: Keyspace,
    /// Partition counts, derivations, [`PartitionState`]s and committed positions.
    pub meta: Keyspace,
    /// The keys of the derivation that is open.
    pub keys: Keys,
    /// What the other derivations have committed: the lowest position of each partition that they share with this one.
    pub committed_elsewhere: BTreeMap<TopicPartition, i64>,
    counts: PartitionCounts,
    visible: RwLock<Visible>,
    /// A number that is counted up whenever something becomes visible.
    version: Mutex<u64>,
    changed: Condvar,
}

/// The partitions and positions that readers see: changed only after the fsync.
#[derive(Default)]
pub(super) struct Visible {
    pub states: BTreeMap<TopicPartition, PartitionState>,
    /// The consumer group's committed positions.
    pub committed: BTreeMap<TopicPartition, i64>,
}

impl Store {
    /// Opens or makes the store, for the derivation of that prefix; `seed` gives a new one its partition counts.
    ///
    /// # Errors
    /// The store can't be read, or holds values that can't be decoded.
    pub fn open(path: &Path, seed: &Seed, derived_prefix: &str) -> Result<Self, LogError> {
        let builder = Database::builder(path).max_journaling_size(JOURNAL_BYTES_MAX);
        let db = stored(builder.open())?;
        let keyspace = |name| stored(db.keyspace(name, KeyspaceCreateOptions::default));
        let (records, latest, meta) = (keyspace("records")?, keyspace("latest")?, keyspace("meta")?);
        let counts = match stored(meta.get(COUNTS_KEY))? {
            Some(bytes) => decode_meta(&bytes, "partition counts")?,
            None => {
                let counts = PartitionCounts {
                    raw: seed.raw_partitions,
                    delta: seed.delta_partitions,
                };
                stored(meta.insert(COUNTS_KEY, counts.encode_to_vec()))?;
                stored(db.persist(PersistMode::SyncAll))?;
                counts
            }
        };
        let all = derivations::open(&db, &meta, derived_prefix)?;
        let shared = all_partitions(counts).filter(|at| at.topic.def().prefix == Prefix::Log);
        let committed_elsewhere = all.committed_elsewhere(&meta, shared)?;
        let keys = all.keys;
        let visible = visible(&meta, counts, keys)?;
        Ok(Self {
            db,
            records,
            latest,
            meta,
            keys,
            committed_elsewhere,
            counts,
            visible: RwLock::new(visible),
            version: Mutex::new(0),
            changed: Condvar::new(),
        })
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: Topic) -> i32 {
        count(self.counts, topic)
    }

    /// Changes what readers see, and wakes those who wait.
    pub fn publish(&self, change: impl FnOnce(&mut Visible)) {
        change(&mut self.visible.write().expect(NO_PANIC));
        *self.version.lock().expect(NO_PANIC) += 1;
        self.changed.notify_all();
    }

    /// Looks at what readers see, all of it as of one moment.
    pub fn look<T>(&self, view: impl FnOnce(&Visible) -> T) -> T {
        view(&self.visible.read().expect(NO_PANIC))
    }

    /// A partition as readers see it.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn state(&self, at: TopicPartition) -> Result<PartitionState, LogError> {
        self.look(|visible| visible.states.get(&at).copied())
            .ok_or_else(|| no_such(at, self.partitions(at.topic)))
    }

    /// All partitions as readers see them.
    pub fn states(&self) -> Vec<(TopicPartition, PartitionState)> {
        self.look(|visible| visible.states.iter().map(|(at, state)| (*at, *state)).collect())
    }

    /// The consumer group's committed position in a partition.
    pub fn committed(&self, at: TopicPartition) -> Option<i64> {
        self.look(|visible| visible.committed.get(&at).copied())
    }

    /// How often something became visible until now; see [`Store::wait`].
    pub fn version(&self) -> u64 {
        *self.version.lock().expect(NO_PANIC)
    }

    /// Waits until something became visible after version `seen`, or until `deadline`; false at the deadline.
    pub fn wait(&self, seen: u64, deadline: Instant) -> bool {
        let mut version = self.version.lock().expect(NO_PANIC);
        while *version == seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            version = self.changed.wait_timeout(version, left).expect(NO_PANIC).0;
        }
        true
    }

    /// See [`crate::ReadLog::read`].
    pub fn read(&self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.state(at)?;
        // One snapshot for the bounds and the records: a commit, compaction and deletion included, is seen whole.
        let snapshot = self.db.snapshot();
        let state = match stored(snapshot.get(&self.meta, self.keys.state(at)))? {
            Some(bytes) => decode_meta(&bytes, "partition state")?,
            None => PartitionState::default(),
        };
        if from.0 < state.start || from.0 > state.end {
            return Err(LogError::OutOfRange {
                at,
                wanted: from.0,
                start: state.start,
            });
        }
        if max == 0 {
            return Ok(Batch {
                records: Vec::new(),
                next: from,
            });
        }
        // Compaction leaves holes: with nothing more to give out, the next read begins at the end.
        let mut batch = Batch {
            records: Vec::new(),
            next: Position(state.end),
        };
        let mut bytes = 0;
        let range = self.keys.record(at, from.0)..self.keys.record(at, state.end);
        for entry in snapshot.range(&self.records, range) {
            let (key, value) = stored(entry.into_inner())?;
            let offset = codec::offset_of(&key)
                .ok_or_else(|| LogError::corrupt(at.to_string(), "a record's key is too short"))?;
            if batch.records.len() == max || (bytes > 0 && bytes + value.len() > READ_BYTES_MAX) {
                batch.next = Position(offset);
                break;
            }
            bytes += value.len();
            batch.records.push(codec::decode(at, offset, &value)?);
        }
        Ok(batch)
    }
}

/// Why a lock is never poisoned: no code that holds one can panic.
const NO_PANIC: &str = "nothing panics while holding this lock";

/// What readers see of a store that was just opened: everything that is in it.
fn visible(meta: &Keyspace, counts: PartitionCounts, keys: Keys) -> Result<Visible, LogError> {
    let mut visible = Visible::default();
    for at in all_partitions(counts) {
        let state = match stored(meta.get(keys.state(at)))? {
            Some(bytes) => decode_meta(&bytes, "partition state")?,
            None => PartitionState::default(),
        };
        visible.states.insert(at, state);
        if let Some(bytes) = stored(meta.get(keys.committed(at)))? {
            visible
                .committed
                .insert(at, number(&bytes, || format!("the group's position in {at}"))?);
        }
    }
    Ok(visible)
}

/// A stored offset: eight bytes, big endian. `at` names where it is for the error.
pub(super) fn number(bytes: &[u8], at: impl FnOnce() -> String) -> Result<i64, LogError> {
    bytes
        .try_into()
        .map(i64::from_be_bytes)
        .map_err(|_| LogError::corrupt(at(), "not 8 bytes"))
}

fn decode_meta<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M, LogError> {
    M::decode(bytes).map_err(|error| LogError::undecodable("the store", what, error))
}

const fn count(counts: PartitionCounts, topic: Topic) -> i32 {
    topic.def().partitions.count(counts.raw, counts.delta)
}

fn all_partitions(counts: PartitionCounts) -> impl Iterator<Item = TopicPartition> {
    let partitions =
        move |topic| (0..count(counts, topic)).map(move |partition| TopicPartition { topic, partition });
    Topic::VARIANTS.iter().copied().flat_map(partitions)
}

/// The error of a partition that the directory does not have.
pub(super) fn no_such(at: TopicPartition, partitions: i32) -> LogError {
    LogError::Topic {
        topic: at.topic.name().to_owned(),
        fault: format!(
            "it has {partitions} partitions, and no {}: the seed's counts are fixed for a directory",
            at.partition
        ),
    }
}

/// The outcome of a call of the store, its error turned into one of the log; a full disk has a variant of its own.
pub(super) fn stored<T>(result: Result<T, fjall::Error>) -> Result<T, LogError> {
    result.map_err(store_error)
}

fn store_error(error: fjall::Error) -> LogError {
    if let fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) = &error
        && matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    {
        return LogError::Full {
            reason: "the disk of the data directory is full; free some, then restart".to_owned(),
        };
    }
    let reason = if matches!(error, fjall::Error::Poisoned) {
        "the store takes no writes since one failed; see the log, then restart"
    } else if matches!(error, fjall::Error::Locked) {
        "another process uses the store"
    } else {
        "the store failed"
    };
    LogError::failed(reason, error)
}

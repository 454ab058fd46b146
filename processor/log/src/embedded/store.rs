//! What is stored, and what of it is visible: shared by the writer thread and all readers.

use super::codec::{self, COUNTS_KEY, Counts, Part};
use crate::{Batch, LogError};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use prost::Message;
use schemas::id::{Position, TopicPartition};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};
use strum::VariantArray;

/// How many bytes of records one read gives out at most, unless its first record alone is larger.
pub(super) const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much the store's journal holds at most, bytes: what a start after a crash has to replay.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The store with the table of what readers may see.
pub(super) struct Store {
    pub db: Database,
    /// Records by place.
    pub records: Keyspace,
    /// For compacted topics: the offset of each key's latest record.
    pub latest: Keyspace,
    /// Partition counts, [`Part`]s and group positions.
    pub meta: Keyspace,
    counts: Counts,
    visible: RwLock<Visible>,
    /// Counted up whenever records become visible.
    version: Mutex<u64>,
    changed: Condvar,
}

/// What readers see: changed only after the fsync.
#[derive(Default)]
pub(super) struct Visible {
    pub parts: BTreeMap<TopicPartition, Part>,
    pub positions: BTreeMap<TopicPartition, i64>,
}

impl Store {
    pub fn open(path: &Path, seed: &Seed) -> Result<Self, LogError> {
        let db = Database::builder(path)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .open()
            .map_err(|error| store_error(&error))?;
        let keyspace = |name| {
            db.keyspace(name, KeyspaceCreateOptions::default)
                .map_err(|error| store_error(&error))
        };
        let (records, latest, meta) = (keyspace("records")?, keyspace("latest")?, keyspace("meta")?);
        let counts = match meta.get(COUNTS_KEY).map_err(|error| store_error(&error))? {
            Some(bytes) => decode_meta(&bytes, "counts")?,
            None => {
                let counts = Counts {
                    raw: seed.raw_partitions,
                    delta: seed.delta_partitions,
                };
                meta.insert(COUNTS_KEY, counts.encode_to_vec())
                    .map_err(|error| store_error(&error))?;
                db.persist(PersistMode::SyncAll)
                    .map_err(|error| store_error(&error))?;
                counts
            }
        };
        let mut visible = Visible::default();
        for at in all_partitions(counts) {
            let part = match meta
                .get(codec::part_key(at))
                .map_err(|error| store_error(&error))?
            {
                Some(bytes) => decode_meta(&bytes, "a partition's state")?,
                None => Part::default(),
            };
            visible.parts.insert(at, part);
            if let Some(bytes) = meta
                .get(codec::group_key(at))
                .map_err(|error| store_error(&error))?
            {
                let position =
                    bytes
                        .as_ref()
                        .try_into()
                        .map(i64::from_be_bytes)
                        .map_err(|_| LogError::Corrupt {
                            at: format!("the group's position in {at}"),
                            reason: "not 8 bytes".to_owned(),
                        })?;
                visible.positions.insert(at, position);
            }
        }
        Ok(Self {
            db,
            records,
            latest,
            meta,
            counts,
            visible: RwLock::new(visible),
            version: Mutex::new(0),
            changed: Condvar::new(),
        })
    }

    pub fn partitions(&self, topic: Topic) -> i32 {
        count(self.counts, topic)
    }

    /// Changes what readers see.
    pub fn publish(&self, change: impl FnOnce(&mut Visible)) {
        change(
            &mut self
                .visible
                .write()
                .expect("nothing panics while holding this lock"),
        );
        *self
            .version
            .lock()
            .expect("nothing panics while holding this lock") += 1;
        self.changed.notify_all();
    }

    pub fn look<T>(&self, view: impl FnOnce(&Visible) -> T) -> T {
        view(
            &self
                .visible
                .read()
                .expect("nothing panics while holding this lock"),
        )
    }

    pub fn part(&self, at: TopicPartition) -> Result<Part, LogError> {
        self.look(|visible| visible.parts.get(&at).copied())
            .ok_or_else(|| no_such(at, self.partitions(at.topic)))
    }

    /// How often something became visible until now; see [`Store::wait`].
    pub fn version(&self) -> u64 {
        *self
            .version
            .lock()
            .expect("nothing panics while holding this lock")
    }

    /// Waits until something became visible after `seen`, or until `deadline`; false at the deadline.
    pub fn wait(&self, seen: u64, deadline: Instant) -> bool {
        let mut version = self
            .version
            .lock()
            .expect("nothing panics while holding this lock");
        while *version == seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            version = self
                .changed
                .wait_timeout(version, left)
                .expect("nothing panics while holding this lock")
                .0;
        }
        true
    }

    pub fn read(&self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.part(at)?;
        // One snapshot for the bounds and the records: a commit, compaction and deletion included, is seen whole.
        let snapshot = self.db.snapshot();
        let part: Part = match snapshot
            .get(&self.meta, codec::part_key(at))
            .map_err(|error| store_error(&error))?
        {
            Some(bytes) => decode_meta(&bytes, "a partition's state")?,
            None => Part::default(),
        };
        if from.0 < part.start || from.0 > part.end {
            return Err(LogError::OutOfRange {
                at,
                wanted: from.0,
                start: part.start,
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
            next: Position(part.end),
        };
        let mut bytes = 0;
        for entry in snapshot.range(
            &self.records,
            codec::record_key(at, from.0)..codec::record_key(at, part.end),
        ) {
            let (key, value) = entry.into_inner().map_err(|error| store_error(&error))?;
            let offset = codec::offset_of(&key).ok_or_else(|| LogError::Corrupt {
                at: at.to_string(),
                reason: "a record's key is too short".to_owned(),
            })?;
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

fn decode_meta<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M, LogError> {
    M::decode(bytes).map_err(|error| LogError::Corrupt {
        at: format!("the store's {what}"),
        reason: error.to_string(),
    })
}

const fn count(counts: Counts, topic: Topic) -> i32 {
    topic.def().partitions.count(counts.raw, counts.delta)
}

fn all_partitions(counts: Counts) -> impl Iterator<Item = TopicPartition> {
    let partitions =
        move |topic| (0..count(counts, topic)).map(move |partition| TopicPartition { topic, partition });
    Topic::VARIANTS.iter().copied().flat_map(partitions)
}

pub(super) fn no_such(at: TopicPartition, partitions: i32) -> LogError {
    LogError::Topic {
        topic: at.topic.name().to_owned(),
        fault: format!(
            "it has {partitions} partitions, and no {}: the seed's counts are fixed for a directory",
            at.partition
        ),
    }
}

/// Says what the store said; a full disk by its own name.
pub(super) fn store_error(error: &fjall::Error) -> LogError {
    let io = match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => Some(io),
        _ => None,
    };
    match (error, io.map(std::io::Error::kind)) {
        (_, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) => LogError::Full {
            reason: "the disk of the data directory is full; free some, then restart".to_owned(),
        },
        (fjall::Error::Poisoned, _) => LogError::Unavailable {
            reason: "the store takes no writes since one failed; see the log, then restart".to_owned(),
        },
        (fjall::Error::Locked, _) => LogError::Unavailable {
            reason: "another process uses the store".to_owned(),
        },
        _ => LogError::Unavailable {
            reason: format!("the store failed: {error}"),
        },
    }
}

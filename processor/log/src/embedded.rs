//! A durable log within one process, on an embedded store (fjall, an LSM tree).
//!
//! Records lie in the store by (topic, partition, offset). One thread writes (`writer.rs`): the requests that
//! wait become one atomic batch with one fsync (`group_commit.rs`), and are answered and readable only then,
//! so a commit is never ahead of raw records. The log stamps append times itself, where it gives the offset:
//! they never go back within a partition. Compacted topics hold exactly the latest value of each key: the
//! record before it goes in the same batch.
//!
//! A lock file keeps a second process out. Other processes read through the admin port of the one that holds
//! the directory; its address and token are in `admin.json`, with mode 0600 (`deploy/local/admin_file.rs`).
//!
//! It is not a broker: one process has the directory, there is no network, no group and no replication.
//!
//! **Architecture Invariant:** readers see what is durable, and nothing else.

mod codec;
mod derivations;
mod directory;
mod group_commit;
mod retention;
mod store;
mod writer;

pub use retention::{RAW_AGE_MAX_MS, RAW_BYTES_MAX, Retention};

use crate::assigned::Assigned;
use crate::{Appended, Batch, Commit, Extent, Log, LogError, Ownership, ReadLog};
use directory::Directory;
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::Store;
use writer::{Queue, Request, Writer};

/// Free disk below which appends are refused, bytes: the store needs room for its own work, to delete too.
pub const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// How much the log keeps, and how much disk it leaves; the defaults are the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How much of the raw topics is kept.
    pub retention: Retention,
    /// Free disk that stays free, bytes: with less, appends are refused ([`LogError::Full`]); with less than half, commits too.
    pub disk_reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            disk_reserve_bytes: DISK_RESERVE_BYTES,
        }
    }
}

/// The log of a data directory, open in this process.
pub struct Embedded {
    store: Arc<Store>,
    /// The way to the writer's thread; taken on drop, which ends that thread.
    queue: Option<Queue>,
    thread: Option<JoinHandle<()>>,
    /// The number of the handle that may commit; see [`Log::recover`].
    epoch: Arc<AtomicU64>,
    /// Holds the directory's lock. It is the last field, so that the lock goes after the store.
    directory: Directory,
}

impl Embedded {
    /// Opens the log in `dir`, which is made if it is not there; `seed` gives a fresh one its partition counts.
    ///
    /// # Errors
    /// Another process has the directory, it holds something else, or the store can't be read.
    pub fn open(dir: &Path, seed: &Seed) -> Result<Arc<Self>, LogError> {
        Self::open_with(dir, seed, "", Limits::default())
    }

    /// [`Embedded::open`], for the derivation of that prefix, and with other limits. A directory holds several derivations side
    /// by side, of which one is open.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with(
        dir: &Path,
        seed: &Seed,
        derived_prefix: &str,
        limits: Limits,
    ) -> Result<Arc<Self>, LogError> {
        let log = Self::open_any(dir, seed, derived_prefix, limits)?;
        if derivations::is_retired(&log.store.meta, derived_prefix)? {
            return Err(LogError::unavailable(format!(
                "the derivation under {derived_prefix:?} of {} is retired: raw records that it has not read may be gone; name another \
                 one with --derived-prefix",
                dir.display()
            )));
        }
        Ok(log)
    }

    /// Opens the log, for a derivation that may be retired.
    fn open_any(
        dir: &Path,
        seed: &Seed,
        derived_prefix: &str,
        limits: Limits,
    ) -> Result<Arc<Self>, LogError> {
        let directory = Directory::take(dir)?;
        let store = Arc::new(Store::open(&directory.store, seed, derived_prefix)?);
        let (queue, requests) = Queue::new();
        let epoch = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            store: Arc::clone(&store),
            dir: dir.to_owned(),
            waiting: queue.bytes(),
            epoch: Arc::clone(&epoch),
            retention: limits.retention,
            reserve_bytes: limits.disk_reserve_bytes,
        };
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(&requests))
            .map_err(|error| LogError::failed("can't start the log's thread", error))?;
        Ok(Arc::new(Self {
            store,
            queue: Some(queue),
            thread: Some(thread),
            epoch,
            directory,
        }))
    }

    /// Opens the log in `dir` for commands: to read what the derivation of that prefix has, which may be retired, and to write
    /// to what all derivations share. No new derivation is made.
    ///
    /// # Errors
    /// As [`Embedded::open`]; or the directory has no such derivation.
    pub fn open_for_commands(dir: &Path, seed: &Seed, derived_prefix: &str) -> Result<Arc<Self>, LogError> {
        Self::known(dir, seed, derived_prefix)?;
        Self::open_any(dir, seed, derived_prefix, Limits::default())
    }

    /// The derivations of the directory `dir` by their prefixes, and whether each is retired.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn derivations(dir: &Path, seed: &Seed) -> Result<BTreeMap<String, bool>, LogError> {
        let log = Self::open_any(dir, seed, "", Limits::default())?;
        let meta = &log.store.meta;
        let all = derivations::all(meta)?.into_keys();
        all.map(|prefix| Ok((prefix.clone(), derivations::is_retired(meta, &prefix)?)))
            .collect()
    }

    /// Retires the derivation of that prefix for good: its rows can be read, it is not gone on with, and holds no raw record
    /// back.
    ///
    /// # Errors
    /// As [`Embedded::open_for_commands`].
    pub fn retire(dir: &Path, seed: &Seed, derived_prefix: &str) -> Result<(), LogError> {
        Self::known(dir, seed, derived_prefix)?;
        let log = Self::open_any(dir, seed, "", Limits::default())?;
        derivations::retire(&log.store.db, &log.store.meta, derived_prefix)
    }

    /// Checks that the directory has a derivation of that prefix; every one has that without a prefix.
    fn known(dir: &Path, seed: &Seed, derived_prefix: &str) -> Result<(), LogError> {
        if derived_prefix.is_empty() || Self::derivations(dir, seed)?.contains_key(derived_prefix) {
            return Ok(());
        }
        Err(LogError::unavailable(format!(
            "{} has no derivation under {derived_prefix:?}",
            dir.display()
        )))
    }

    /// A handle for a worker or reader of its own.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> EmbeddedLog {
        let epoch = self.epoch.load(Ordering::SeqCst);
        EmbeddedLog {
            log: Arc::clone(self),
            epoch,
            assigned: Assigned::default(),
            joined: None,
        }
    }

    /// How many partitions a topic has in this directory.
    #[must_use]
    pub fn partitions(&self, topic: Topic) -> i32 {
        self.store.partitions(topic)
    }

    /// Appends records; the answer comes once they are durable. Never blocks: where too much waits, the answer is an error.
    pub fn append_async(
        &self,
        records: Vec<NewRecord>,
    ) -> tokio::sync::oneshot::Receiver<Result<Vec<Appended>, LogError>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.queue().append(
            records,
            Box::new(move |answer| {
                // Nobody receives the answer where whoever asked has gone; the records are kept all the same.
                let _ = sender.send(answer);
            }),
        );
        receiver
    }

    /// Appends records with the offsets and append times that they carry: for comparing logs, and for tools.
    ///
    /// Offsets must ascend within a partition and not be there yet; holes are kept.
    ///
    /// # Errors
    /// An offset is taken, or the log can't write; no record was appended then.
    pub fn import(&self, records: Vec<Record>) -> Result<(), LogError> {
        self.queue().ask(|reply| Request::Import { records, reply })
    }

    /// Deletes what is due by age and size as of `now_ms`; the log does so by itself every few seconds.
    ///
    /// # Errors
    /// The store failed.
    pub fn retain(&self, now_ms: i64) -> Result<(), LogError> {
        self.queue().ask(|reply| Request::Retain { now_ms, reply })
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("the queue is there until drop")
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread panicked");
        }
    }
}

/// One user of an [`Embedded`] log.
pub struct EmbeddedLog {
    log: Arc<Embedded>,
    /// The number that the last [`Log::recover`] gave this handle; only the handle with the latest number may commit.
    epoch: u64,
    assigned: Assigned,
    /// The change of ownership that [`Log::join`] brought, until the worker asks for it.
    joined: Option<Ownership>,
}

impl EmbeddedLog {
    fn take(&mut self, max: usize) -> Result<Vec<Record>, LogError> {
        let store = &self.log.store;
        self.assigned.read_in_turn(max, |at, position, max| {
            if position.0 == store.state(at)?.end {
                return Ok(Batch {
                    records: Vec::new(),
                    next: position,
                });
            }
            store.read(at, position, max)
        })
    }
}

impl ReadLog for EmbeddedLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        Ok(self.log.partitions(topic))
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let state = self.log.store.state(at)?;
        Ok(Extent {
            start: Position(state.start),
            end: Position(state.end),
        })
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.log.store.read(at, from, max)
    }
}

impl Log for EmbeddedLog {
    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        Ok(self.log.store.look(|visible| {
            at.iter()
                .map(|at| visible.committed.get(at).copied().map(Position))
                .collect()
        }))
    }

    fn join(&mut self) -> Result<(), LogError> {
        let inputs = crate::all_inputs(|topic| self.log.partitions(topic));
        self.joined = Some(Ownership::Assigned(inputs));
        Ok(())
    }

    fn ownership(&mut self) -> Option<Ownership> {
        self.joined.take()
    }

    /// Returns at once: nobody shares the partitions of this log, so ownership never changes.
    fn settle(&mut self, _wait: Duration) -> Result<(), LogError> {
        Ok(())
    }

    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        for (at, _) in from {
            self.log.store.state(*at)?;
        }
        self.assigned.take_over(from);
        Ok(())
    }

    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.assigned.release(at);
        Ok(())
    }

    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        let deadline = Instant::now() + wait;
        loop {
            // The version is taken before the look, so that what becomes visible meanwhile ends the wait at once.
            let seen = self.log.store.version();
            let records = self.take(max)?;
            if !records.is_empty() || !self.log.store.wait(seen, deadline) {
                return Ok(records);
            }
        }
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        self.log.queue().ask_append(records)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        let bytes = commit.records().map(writer::size).sum();
        let epoch = self.epoch;
        self.log.queue().ask(|reply| Request::Commit {
            commit,
            bytes,
            epoch,
            reply,
        })
    }

    fn recover(&mut self) -> Result<(), LogError> {
        self.epoch = self.log.queue().ask(|reply| Request::Fence { reply })?;
        Ok(())
    }

    fn trim(&mut self, before: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        before.iter().try_for_each(|&(at, position)| {
            self.log
                .queue()
                .ask(|reply| Request::Trim { at, position, reply })
        })
    }

    fn writer(&self) -> &str {
        &self.log.directory.writer
    }

    fn wall_ms(&self) -> i64 {
        wall_ms()
    }
}

/// The system's wall time, ms since the Unix epoch.
fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

//! A durable log within one process.
//!
//! Records lie in an embedded store by (topic, partition, offset). One thread writes (`writer.rs`): what waits becomes
//! one atomic batch with one fsync, and is answered and readable only then, so a commit is never ahead of raw
//! records. The log stamps append times itself, where it gives the offset: they never go back within a partition.
//! Compacted topics hold exactly the latest value of each key: the record before it goes in the same batch.
//!
//! It is not a broker: one process has the directory, there is no network, no group and no replication.

mod codec;
mod directory;
mod retention;
mod stage;
mod store;
mod writer;

pub use retention::{RAW_AGE_MAX_MS, RAW_BYTES_MAX, Retention};

use super::{Appended, Batch, Commit, Extent, Log, LogError, Ownership};
use directory::Directory;
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::Store;
use writer::{Queue, Request, Writer};

/// Free disk below which appends are refused, bytes: the store needs room for its own work, to delete too.
pub const DISK_RESERVE: u64 = 256 * 1024 * 1024;

/// How the log keeps house; the defaults are the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much of the raw topics is kept.
    pub retention: Retention,
    /// Appends are refused ([`LogError::Full`]) with less free disk than this, and commits with less than half, bytes.
    pub disk_reserve: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            disk_reserve: DISK_RESERVE,
        }
    }
}

/// The log of a data directory, open in this process.
pub struct Embedded {
    store: Arc<Store>,
    /// Taken on drop, so that the writer ends.
    queue: Option<Queue>,
    thread: Option<JoinHandle<()>>,
    /// Number of the handle that may commit; see [`Log::recover`].
    epoch: Arc<AtomicU64>,
    /// The last field: the lock goes after the store.
    directory: Directory,
}

impl Embedded {
    /// Opens the log in `dir`, which is made if it is not there; `seed` gives a fresh one its partition counts.
    ///
    /// # Errors
    /// Another process has the directory, it holds something else, or the store can't be read.
    pub fn open(dir: &Path, seed: &Seed) -> Result<Arc<Self>, LogError> {
        Self::open_with(dir, seed, Options::default())
    }

    /// [`Embedded::open`], with other limits.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with(dir: &Path, seed: &Seed, options: Options) -> Result<Arc<Self>, LogError> {
        let directory = Directory::take(dir)?;
        let store = Arc::new(Store::open(&directory.store, seed)?);
        let (queue, requests) = Queue::new();
        let epoch = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            store: Arc::clone(&store),
            dir: dir.to_owned(),
            waiting: queue.bytes(),
            epoch: Arc::clone(&epoch),
            retention: options.retention,
            reserve: options.disk_reserve,
        };
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(&requests))
            .map_err(|error| LogError::Unavailable {
                reason: format!("can't start the log's thread: {error}"),
            })?;
        Ok(Arc::new(Self {
            store,
            queue: Some(queue),
            thread: Some(thread),
            epoch,
            directory,
        }))
    }

    /// A handle for a worker or reader of its own.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> EmbeddedLog {
        let epoch = self.epoch.load(Ordering::SeqCst);
        EmbeddedLog {
            log: Arc::clone(self),
            epoch,
            assigned: Vec::new(),
            joined: None,
            turn: 0,
        }
    }

    /// How many partitions a topic has in this directory.
    #[must_use]
    pub fn partitions(&self, topic: Topic) -> i32 {
        self.store.partitions(topic)
    }

    /// Appends records; the answer comes once they are durable. Never blocks: with too much waiting it is an error.
    pub fn append_async(
        &self,
        records: Vec<NewRecord>,
    ) -> tokio::sync::oneshot::Receiver<Result<Vec<Appended>, LogError>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.queue().append(
            records,
            Box::new(move |answer| {
                // Whoever asked has gone: the records are kept all the same.
                let _ = sender.send(answer);
            }),
        );
        receiver
    }

    /// Takes in records with the offsets and append times that they carry: for comparing logs, and for tools.
    ///
    /// Offsets must ascend within a partition and not be there yet; holes are kept.
    ///
    /// # Errors
    /// An offset is taken, or the log can't write; nothing was taken in.
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
    epoch: u64,
    assigned: Vec<(TopicPartition, Position)>,
    /// What joining told, until it is asked for.
    joined: Option<Ownership>,
    /// The assigned partition that the next poll begins with: a busy one must not starve the others.
    turn: usize,
}

impl EmbeddedLog {
    fn take(&mut self, max: usize) -> Result<Vec<Record>, LogError> {
        let store = &self.log.store;
        super::read_in_turn(&mut self.assigned, &mut self.turn, max, |at, position, max| {
            if position.0 == store.part(at)?.end {
                return Ok(Batch {
                    records: Vec::new(),
                    next: position,
                });
            }
            store.read(at, position, max)
        })
    }
}

impl Log for EmbeddedLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        Ok(self.log.partitions(topic))
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let part = self.log.store.part(at)?;
        Ok(Extent {
            start: Position(part.start),
            end: Position(part.end),
        })
    }

    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        Ok(self.log.store.look(|visible| {
            at.iter()
                .map(|at| visible.positions.get(at).copied().map(Position))
                .collect()
        }))
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.log.store.read(at, from, max)
    }

    fn join(&mut self) -> Result<(), LogError> {
        let inputs = super::all_inputs(|topic| self.log.store.partitions(topic));
        self.joined = Some(Ownership::Assigned(inputs));
        Ok(())
    }

    fn ownership(&mut self) -> Option<Ownership> {
        self.joined.take()
    }

    /// Ownership never changes here.
    fn settle(&mut self, _wait: Duration) -> Result<(), LogError> {
        Ok(())
    }

    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        for (at, _) in from {
            self.log.store.part(*at)?;
        }
        super::place(&mut self.assigned, from);
        self.turn = 0;
        Ok(())
    }

    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.assigned.retain(|(taken, _)| !at.contains(taken));
        self.turn = 0;
        Ok(())
    }

    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        let deadline = Instant::now() + wait;
        loop {
            // Before looking: what becomes visible while we look ends the wait at once.
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

/// Wall time, ms since the Unix epoch.
fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

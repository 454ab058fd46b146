//! The one thread that writes: it takes the requests that wait, writes them as one atomic batch and answers them after one
//! fsync.
//!
//! While one group is being synced the next one gathers, so a busy log pays one fsync for many requests, and a lone
//! request waits for nobody.

use super::group_commit::GroupCommit;
use super::retention::Retention;
use super::store::Store;
use crate::{Appended, Commit, LogError};
use fjall::PersistMode;
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// How many requests a group holds at most. Only requests that already wait join it, so none waits for later ones.
const GROUP_REQUESTS_MAX: usize = 1024;
/// How many bytes of records a group holds at most, unless one request alone is larger.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many requests may wait in the queue.
const QUEUE_MAX: usize = 4096;
/// How many bytes of records may wait in the queue.
const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How often old records are looked for.
const RETENTION_EVERY: Duration = Duration::from_secs(10);

/// The function that takes the answer to a request.
pub(super) type Reply<T> = Box<dyn FnOnce(Result<T, LogError>) + Send>;

/// A request to the writer's thread; `reply` gets the answer.
pub(super) enum Request {
    /// See [`crate::Log::append`].
    Append {
        records: Vec<NewRecord>,
        bytes: usize,
        reply: Reply<Vec<Appended>>,
    },
    /// See [`crate::Log::commit`]; `epoch` is the number of the handle that asks.
    Commit {
        commit: Commit,
        bytes: usize,
        epoch: u64,
        reply: Reply<()>,
    },
    /// See [`super::Embedded::import`].
    Import { records: Vec<Record>, reply: Reply<()> },
    /// See [`crate::Log::trim`].
    Trim {
        at: TopicPartition,
        position: Position,
        reply: Reply<()>,
    },
    /// Makes a new epoch the only one that may commit, and answers with it: no commit of an older one is under way then.
    Fence { reply: Reply<u64> },
    /// See [`super::Embedded::retain`].
    Retain { now_ms: i64, reply: Reply<()> },
}

/// The way in for requests, bounded by their number and bytes.
pub(super) struct Queue {
    sender: SyncSender<Request>,
    /// Bytes of the appends that wait.
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    /// An empty queue, and the thread's end of it.
    pub fn new() -> (Self, Receiver<Request>) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(QUEUE_MAX);
        (
            Self {
                sender,
                bytes: Arc::default(),
            },
            receiver,
        )
    }

    /// Adds an append, or answers it at once with an error where too much waits. Never blocks.
    pub fn append(&self, records: Vec<NewRecord>, reply: Reply<Vec<Appended>>) {
        let bytes = records.iter().map(size).sum();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return reply(Err(busy("bytes", QUEUE_BYTES_MAX)));
        }
        match self.sender.try_send(Request::Append {
            records,
            bytes,
            reply,
        }) {
            Ok(()) => {}
            Err(TrySendError::Full(Request::Append { reply, .. })) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                reply(Err(busy("requests", QUEUE_MAX)));
            }
            Err(TrySendError::Disconnected(Request::Append { reply, .. })) => reply(Err(ended())),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                unreachable!("the channel gives back what it was given")
            }
        }
    }

    /// Adds an append, waiting for room in the queue, and waits for the answer.
    pub fn ask_append(&self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        let bytes = records.iter().map(size).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ask(|reply| Request::Append {
            records,
            bytes,
            reply,
        })
    }

    /// Adds a request, waiting for room in the queue, and waits for the answer.
    pub fn ask<T: Send + 'static>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LogError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let reply: Reply<T> = Box::new(move |answer| {
            // The receiver is there as long as whoever asked waits.
            let _ = sender.send(answer);
        });
        self.sender.send(request(reply)).map_err(|_| ended())?;
        receiver.recv().map_err(|_| ended())?
    }

    /// The counter of the bytes that wait, for the thread.
    pub fn bytes(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.bytes)
    }
}

/// Bytes of a record: key, value and headers.
pub(super) fn size(record: &NewRecord) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len)
        + headers
}

fn busy(what: &str, max: usize) -> LogError {
    LogError::unavailable(format!(
        "more than {max} {what} wait to be written: the disk is too slow; send again later"
    ))
}

fn ended() -> LogError {
    LogError::unavailable("the log is closed")
}

/// The writer's thread.
pub(super) struct Writer {
    pub store: Arc<Store>,
    /// The data directory, whose disk is looked at.
    pub dir: PathBuf,
    /// The queue's counter of bytes that wait.
    pub waiting: Arc<AtomicUsize>,
    /// The number of the handle that may commit.
    pub epoch: Arc<AtomicU64>,
    pub retention: Retention,
    /// Appends are refused with less free disk than this, bytes.
    pub reserve_bytes: u64,
}

/// A request of a group with its own outcome, to be answered once the group is durable.
enum Taken {
    Append(Reply<Vec<Appended>>, Result<Vec<Appended>, LogError>),
    Commit(Reply<()>, Result<(), LogError>),
}

impl Taken {
    /// Tells the outcome: the request's own error, else that of the group.
    fn tell(self, group: Result<(), LogError>) {
        match self {
            Self::Append(reply, outcome) => reply(outcome.and_then(|appended| group.map(|()| appended))),
            Self::Commit(reply, outcome) => reply(outcome.and(group)),
        }
    }
}

impl Writer {
    /// Answers requests until the queue is closed.
    pub fn run(&self, queue: &Receiver<Request>) {
        let mut next = None;
        let mut retain_at = Instant::now();
        loop {
            let request = match next.take() {
                Some(request) => Ok(request),
                None => queue.recv_timeout(retain_at.saturating_duration_since(Instant::now())),
            };
            match request {
                Ok(request @ (Request::Append { .. } | Request::Commit { .. })) => {
                    next = self.group(request, queue)
                }
                Ok(Request::Import { records, reply }) => reply(self.import(records)),
                Ok(Request::Trim { at, position, reply }) => reply(self.trim(at, position)),
                Ok(Request::Fence { reply }) => reply(Ok(self.epoch.fetch_add(1, Ordering::SeqCst) + 1)),
                Ok(Request::Retain { now_ms, reply }) => reply(self.retain_all(now_ms)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= retain_at {
                // One step of deletion between two groups, so that appends don't wait for a large one.
                let more = self.retain(super::wall_ms());
                retain_at = Instant::now() + if more { Duration::ZERO } else { RETENTION_EVERY };
            }
        }
    }

    /// Writes this request and those that wait as one group; gives back a request that can't be part of a group.
    fn group(&self, first: Request, queue: &Receiver<Request>) -> Option<Request> {
        let free = self.free_bytes();
        let mut group = GroupCommit::new(&self.store, super::wall_ms());
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut request = first;
        let rest = loop {
            match self.take(request, &mut group, free, &mut bytes) {
                Ok(request) => taken.push(request),
                Err(other) => break Some(other),
            }
            if taken.len() >= GROUP_REQUESTS_MAX || bytes >= GROUP_BYTES_MAX {
                break None;
            }
            match queue.try_recv() {
                Ok(waiting) => request = waiting,
                Err(_) => break None,
            }
        };
        let outcome = group.write(PersistMode::SyncAll);
        for request in taken {
            request.tell(outcome.clone());
        }
        rest
    }

    /// Adds a request to a group; gives it back if it is none that belongs to one. `free` is what the disk had free when
    /// the group began, `bytes` what the group brings.
    fn take(
        &self,
        request: Request,
        group: &mut GroupCommit<'_>,
        free: Option<u64>,
        bytes: &mut usize,
    ) -> Result<Taken, Request> {
        match request {
            Request::Append {
                records,
                bytes: size,
                reply,
            } => {
                self.waiting.fetch_sub(size, Ordering::Relaxed);
                *bytes += size;
                let room = self.room(free, *bytes, self.reserve_bytes);
                Ok(Taken::Append(reply, room.and_then(|()| group.append(records))))
            }
            Request::Commit {
                commit,
                bytes: size,
                epoch,
                reply,
            } => {
                *bytes += size;
                // Commits may use half the reserve, so that records that were taken in can still be folded when no more are.
                let outcome = self
                    .room(free, *bytes, self.reserve_bytes / 2)
                    .and_then(|()| self.not_fenced(epoch))
                    .and_then(|()| group.commit(commit));
                Ok(Taken::Commit(reply, outcome))
            }
            other @ (Request::Import { .. }
            | Request::Trim { .. }
            | Request::Fence { .. }
            | Request::Retain { .. }) => Err(other),
        }
    }

    fn not_fenced(&self, epoch: u64) -> Result<(), LogError> {
        let current = self.epoch.load(Ordering::SeqCst);
        if epoch == current {
            return Ok(());
        }
        Err(LogError::not_committed(format!(
            "fenced: this writer is number {epoch}, number {current} took over"
        )))
    }

    /// How much of the disk is free. A file system that can't tell counts as one with room: a lack then shows at the write.
    fn free_bytes(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.dir).ok()?;
        Some(stat.blocks_available() * stat.fragment_size())
    }

    /// Whether the disk has room for so many bytes beside a reserve.
    fn room(&self, free: Option<u64>, bytes: usize, reserve: u64) -> Result<(), LogError> {
        match free {
            Some(free) if free < reserve.saturating_add(bytes as u64) => Err(LogError::Full {
                reason: format!(
                    "{} bytes are free on the disk of {}, and {reserve} are kept back; free some or move the directory",
                    free,
                    self.dir.display()
                ),
            }),
            _ => Ok(()),
        }
    }

    fn import(&self, records: Vec<Record>) -> Result<(), LogError> {
        let mut group = GroupCommit::new(&self.store, super::wall_ms());
        group.import(records)?;
        group.write(PersistMode::SyncAll)
    }

    fn trim(&self, at: TopicPartition, position: Position) -> Result<(), LogError> {
        self.store.state(at)?;
        while self.delete_before(at, position.0)? {}
        Ok(())
    }

    fn retain_all(&self, now_ms: i64) -> Result<(), LogError> {
        while self.retain_step(now_ms)? {}
        Ok(())
    }

    /// One step of deletion by age and size; whether there is more to delete.
    fn retain(&self, now_ms: i64) -> bool {
        self.retain_step(now_ms).unwrap_or_else(|error| {
            tracing::warn!(%error, "could not delete old records");
            false
        })
    }

    fn retain_step(&self, now_ms: i64) -> Result<bool, LogError> {
        let mut more = false;
        for (at, until) in self.retention.due(&self.store, now_ms)? {
            more |= self.delete_before(at, until)?;
        }
        Ok(more)
    }

    /// One step of the deletion of a partition's records before `until`; whether there are more.
    fn delete_before(&self, at: TopicPartition, until: i64) -> Result<bool, LogError> {
        let mut group = GroupCommit::new(&self.store, 0);
        let more = group.delete_before(at, until)?;
        // Deletions are not synced: one that a power cut takes back is done again.
        group.write(PersistMode::Buffer)?;
        Ok(more)
    }
}

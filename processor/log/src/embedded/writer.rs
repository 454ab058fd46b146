//! The one thread that writes: it takes what waits, writes it as one atomic batch and answers after one fsync.
//!
//! While one group is being synced the next one gathers, so a busy log pays one fsync for many requests, and a lone
//! request waits for nobody.

use super::codec::Part;
use super::retention::Retention;
use super::stage::Stage;
use super::store::{Store, store_error};
use crate::{Appended, Commit, LogError};
use fjall::PersistMode;
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// How many requests a group holds at most; only those that already wait are added, so none waits for later ones.
const GROUP_REQUESTS_MAX: usize = 1024;
/// How many bytes of records a group holds at most, unless one request alone is larger.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many requests may wait.
const QUEUE_MAX: usize = 4096;
/// How many bytes of records may wait.
const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How often age and size are looked at.
const RETENTION_EVERY: Duration = Duration::from_secs(10);

/// Where an answer goes.
pub(super) type Reply<T> = Box<dyn FnOnce(Result<T, LogError>) + Send>;

/// What the thread is asked to do.
pub(super) enum Request {
    Append {
        records: Vec<NewRecord>,
        bytes: usize,
        reply: Reply<Vec<Appended>>,
    },
    Commit {
        commit: Commit,
        bytes: usize,
        epoch: u64,
        reply: Reply<()>,
    },
    Import {
        records: Vec<Record>,
        reply: Reply<()>,
    },
    Trim {
        at: TopicPartition,
        position: Position,
        reply: Reply<()>,
    },
    /// Makes a new epoch the only one that may commit; answered when no commit of an older one is under way.
    Fence {
        reply: Reply<u64>,
    },
    Retain {
        now_ms: i64,
        reply: Reply<()>,
    },
}

/// The way in: bounded, never blocking for appends.
pub(super) struct Queue {
    sender: SyncSender<Request>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
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

    /// Adds an append or tells it at once that too much waits.
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
            Err(_) => unreachable!("the channel gives back what it was given"),
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

    /// Asks and waits for the answer.
    pub fn ask<T: Send + 'static>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LogError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let reply: Reply<T> = Box::new(move |answer| {
            // Nobody waits any more: there is nobody to tell.
            let _ = sender.send(answer);
        });
        self.sender.send(request(reply)).map_err(|_| ended())?;
        receiver.recv().map_err(|_| ended())?
    }

    /// The counter of waiting bytes, for the thread.
    pub fn bytes(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.bytes)
    }
}

/// Bytes that a record brings.
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
    LogError::Unavailable {
        reason: format!("more than {max} {what} wait to be written: the disk is too slow; send again later"),
    }
}

fn ended() -> LogError {
    LogError::Unavailable {
        reason: "the log is closed".to_owned(),
    }
}

/// What the thread works with.
pub(super) struct Writer {
    pub store: Arc<Store>,
    pub dir: PathBuf,
    pub waiting: Arc<AtomicUsize>,
    pub epoch: Arc<AtomicU64>,
    pub retention: Retention,
    /// Appends are refused with less free disk than this, bytes.
    pub reserve: u64,
}

/// What a group has to answer once it is durable.
enum Done {
    Append(Reply<Vec<Appended>>, Result<Vec<Appended>, LogError>),
    Commit(Reply<()>, Result<(), LogError>),
}

impl Done {
    /// Tells the outcome: its own error, else the group's.
    fn tell(self, group: &Result<(), LogError>) {
        let group = group.as_ref().map_err(again);
        match self {
            Self::Append(reply, outcome) => reply(outcome.and_then(|appended| group.map(|()| appended))),
            Self::Commit(reply, outcome) => reply(outcome.and_then(|()| group.map(drop))),
        }
    }
}

/// The same error once more: each request of a group gets its own.
fn again(error: &LogError) -> LogError {
    match error {
        LogError::Full { reason } => LogError::Full {
            reason: reason.clone(),
        },
        LogError::Unavailable { reason } => LogError::Unavailable {
            reason: reason.clone(),
        },
        other => LogError::Unavailable {
            reason: other.to_string(),
        },
    }
}

impl Writer {
    /// Works until the queue is closed.
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
                // One step between two groups: appends don't wait for a large deletion.
                let more = self.retain(super::wall_ms());
                retain_at = Instant::now() + if more { Duration::ZERO } else { RETENTION_EVERY };
            }
        }
    }

    /// Writes this request and those that wait, and gives back one that does not belong to the group.
    fn group(&self, first: Request, queue: &Receiver<Request>) -> Option<Request> {
        let free = self.free_bytes();
        let mut stage = Stage::new(&self.store, super::wall_ms());
        let mut done = Vec::new();
        let mut bytes = 0;
        let mut request = first;
        let rest = loop {
            match request {
                Request::Append {
                    records,
                    bytes: size,
                    reply,
                } => {
                    self.waiting.fetch_sub(size, Ordering::Relaxed);
                    bytes += size;
                    let outcome = self
                        .room(free, bytes, self.reserve)
                        .and_then(|()| stage.append(records));
                    done.push(Done::Append(reply, outcome));
                }
                Request::Commit {
                    commit,
                    bytes: size,
                    epoch,
                    reply,
                } => {
                    bytes += size;
                    // Half the reserve: what was taken in can still be worked off when nothing more is taken in.
                    let outcome = self
                        .room(free, bytes, self.reserve / 2)
                        .and_then(|()| self.not_fenced(epoch))
                        .and_then(|()| stage.commit(commit));
                    done.push(Done::Commit(reply, outcome));
                }
                other => break Some(other),
            }
            if done.len() >= GROUP_REQUESTS_MAX || bytes >= GROUP_BYTES_MAX {
                break None;
            }
            match queue.try_recv() {
                Ok(waiting) => request = waiting,
                Err(_) => break None,
            }
        };
        let outcome = stage.write(PersistMode::SyncAll);
        for request in done {
            request.tell(&outcome);
        }
        rest
    }

    fn not_fenced(&self, epoch: u64) -> Result<(), LogError> {
        let current = self.epoch.load(Ordering::SeqCst);
        if epoch == current {
            return Ok(());
        }
        Err(LogError::NotCommitted {
            reason: format!("fenced: this writer is number {epoch}, number {current} took over"),
        })
    }

    fn free_bytes(&self) -> Option<u64> {
        // A file system that can't tell is treated as one with room: a real lack then shows at the write.
        let stat = nix::sys::statvfs::statvfs(&self.dir).ok()?;
        Some(stat.blocks_available() * stat.fragment_size())
    }

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
        let mut stage = Stage::new(&self.store, super::wall_ms());
        stage.import(records)?;
        stage.write(PersistMode::SyncAll)
    }

    fn trim(&self, at: TopicPartition, position: Position) -> Result<(), LogError> {
        self.store.part(at)?;
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

    /// Deletes up to a step's worth of records before `until`; whether there are more.
    fn delete_before(&self, at: TopicPartition, until: i64) -> Result<bool, LogError> {
        let mut stage = Stage::new(&self.store, 0);
        let more = stage.delete_before(at, until)?;
        // Not synced: a deletion that a power cut takes back is done again.
        stage.write(PersistMode::Buffer)?;
        Ok(more)
    }
}

/// All partitions as readers see them.
pub(super) fn parts(store: &Store) -> Vec<(TopicPartition, Part)> {
    store.look(|visible| visible.parts.iter().map(|(at, part)| (*at, *part)).collect())
}

/// Says what went wrong on the way to the store.
pub(super) fn stored<T>(result: Result<T, fjall::Error>) -> Result<T, LogError> {
    result.map_err(|error| store_error(&error))
}

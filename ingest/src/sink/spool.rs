//! A sink that answers from its own disk while Kafka does not.
//!
//! Requests go to Kafka directly as long as that answers. One whose records are not confirmed in time ([`AFTER_LOGS`]) is
//! written to the spool and answered after the fsync, and from then on all are, until the spool is drained.
//!
//! **Order.** If a request was answered before another one was sent, its records stand before the other's on their
//! partitions. (Requests under way at once have no order.) For that there is one mode for all:
//!
//! - *direct*: to Kafka. A request that is not confirmed in time changes the mode before it is answered.
//! - *spooling*: to the spool, in one queue. It is drained from the front, and not before all that went directly is known to
//!   be durable or given up: so nothing of the spool stands before what was answered earlier.
//! - *handover*: the spool is nearly empty, so requests wait a moment (`HANDOVER_MAX`) for it, instead of going behind it;
//!   otherwise a spool under load would never be empty. Only when all of it is durable, the mode is *direct* again.
//!
//! **Once.** A record that Kafka confirms after it was spooled is left out when the spool is drained. The drain itself makes
//! runs without a hole, as that of the inbox does, and each record has an origin `spool/<id>` and a number that rises, so
//! what is written again after a crash is dropped by the task that folds the partition. One case is left: Kafka has a
//! record, but its answer was lost, and the process never learns of it. Then the record is there twice, first directly and then
//! from the spool, and its dedup mark tells it.
//!
//! **Disk.** See `store`. Everything in it has gone through `privacy::apply`; files are for their owner only.

mod disk;
mod outlet;
mod segment;
mod store;
mod work;

use crate::sink::{Fate, HOLD_LOGS, RawRecord, Sink, SinkError, conclude, hold};
use crate::telemetry::SpoolTelemetry;
use disk::Directory;
pub use outlet::KafkaOutlet;
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use store::Store;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// So long a log request waits for Kafka before it is spooled.
pub const AFTER_LOGS: Duration = Duration::from_secs(1);
/// And one of another signal.
pub const AFTER_OTHERS: Duration = Duration::from_millis(250);
/// Smallest bound: a few of the largest requests must fit.
pub const BYTES_MIN: u64 = 256 << 20;
/// So long a request waits for the last records of the spool before it goes behind them.
const HANDOVER_MAX: Duration = Duration::from_millis(250);
/// Bytes that wait to be written, at most.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory can't be used.
    #[error("spool.directory: {path} can't be used: {source}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No thread for it.
    #[error("no thread for the spool")]
    Thread(#[source] std::io::Error),
}

/// Where records go in the end.
pub trait Upstream: Send + Sync + 'static {
    /// A record that was handed over; resolves when it is durable or given up, always.
    type Flight: Future<Output = Result<(), SinkError>> + Unpin + Send + 'static;
    /// The way for what was spooled.
    type Outlet: Outlet;

    /// Hands records over, in order, waiting for room up to that time: a fate for each.
    fn launch(
        &self,
        records: &[RawRecord],
        until: Instant,
    ) -> impl Future<Output = Vec<Fate<Self::Flight>>> + Send;
    /// Some of it failed.
    fn after_failure(&self);
    /// Whether records would be taken, as far as known.
    fn ready(&self) -> bool;
    /// The same, looked up. May block for seconds.
    fn look_again(&self) -> bool;
    /// A new way for what was spooled.
    ///
    /// # Errors
    /// There is none now.
    fn outlet(&self) -> Result<Self::Outlet, String>;
}

/// The way for what was spooled: makes runs without a hole on each partition.
pub trait Outlet {
    /// Returns once all of the numbered records are durable. Blocks for as long as it takes, or until `stop`.
    ///
    /// # Errors
    /// Some may not be: this outlet must not be used again.
    fn write(&mut self, source: &str, records: &[(u64, RawRecord)], stop: &AtomicBool) -> Result<(), String>;
}

/// Which way requests go: see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Direct,
    Spooling,
    Handover,
}

/// Records of one request that are to be written.
struct Job {
    bodies: Vec<Vec<u8>>,
    bytes: usize,
    /// The number of the first one.
    done: oneshot::Sender<Result<u64, SinkError>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Jobs were taken out that are not written yet.
    is_writing: bool,
    /// Requests that went directly and whose fate is not known yet.
    direct: usize,
    /// Spooled records that Kafka has all the same.
    delivered: HashSet<u64>,
}

/// What the threads and the requests share.
struct Core<U> {
    upstream: U,
    store: Mutex<Store<Directory>>,
    queue: Mutex<Queue>,
    /// The queue changed, or it is the end.
    changed: Condvar,
    /// Changed only with the queue locked.
    mode: watch::Sender<Mode>,
    ending: AtomicBool,
    /// The last request found no room, or the volume failed.
    is_refusing: AtomicBool,
    /// When the oldest record that waits was written, ms; 0: none waits.
    oldest_ms: AtomicI64,
    telemetry: SpoolTelemetry,
}

/// A directory that was taken, with what is in it; opened before there is a cluster to send it to.
pub struct Taken {
    store: Store<Directory>,
    path: PathBuf,
}

impl Taken {
    /// Takes a directory, and looks at what an earlier process left in it.
    ///
    /// # Errors
    /// It can't be made, read or written, or another process has it.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, SpoolError> {
        let fault = |source| SpoolError::Directory {
            path: path.to_owned(),
            source,
        };
        let directory = Directory::take(path).map_err(fault)?;
        let store = Store::open(directory, bytes_max, uuid::Uuid::new_v4().to_string()).map_err(fault)?;
        if store.records() > 0 {
            tracing::warn!(
                records = store.records(),
                bytes = store.bytes(),
                "the spool holds records of an earlier run"
            );
        }
        Ok(Self {
            store,
            path: path.to_owned(),
        })
    }

    /// Records that an earlier process left in it.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.store.records()
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A sink over another one, with a spool. Ends its threads when dropped.
pub struct Spooled<U: Upstream> {
    core: Arc<Core<U>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<U: Upstream> Spooled<U> {
    /// Begins; what an earlier run left is drained first. Its metrics carry the prefix of the topics. Call it after a metrics recorder is installed.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(taken: Taken, upstream: U, prefix: &str) -> Result<Self, SpoolError> {
        let telemetry = SpoolTelemetry::new(prefix);
        telemetry.lost.increment(taken.store.lost_at_start());
        let mode = if taken.store.records() > 0 {
            Mode::Spooling
        } else {
            Mode::Direct
        };
        let core = Arc::new(Core {
            upstream,
            store: Mutex::new(taken.store),
            queue: Mutex::default(),
            changed: Condvar::new(),
            mode: watch::Sender::new(mode),
            ending: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            oldest_ms: AtomicI64::new(0),
            telemetry,
        });
        let spawn = |name: &str, work: fn(&Core<U>)| {
            let core = Arc::clone(&core);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work(&core))
                .map_err(SpoolError::Thread)
        };
        let threads = vec![
            spawn("spool-write", Core::write_all)?,
            spawn("spool-drain", Core::drain_all)?,
        ];
        Ok(Self {
            core,
            threads: Mutex::new(threads),
        })
    }

    /// Where records go in the end.
    #[must_use]
    pub fn upstream(&self) -> &U {
        &self.core.upstream
    }

    /// Whether requests go through the spool now.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self.core.mode.borrow() != Mode::Direct
    }

    /// Shows in metrics what is there; call it every few seconds.
    pub fn observe(&self) {
        self.core.observe();
    }

    /// Writes what waits to the spool, ends what is being drained where it is, and waits for that. What is left is drained by
    /// the next process that takes the directory. Blocks.
    pub fn end(&self) {
        self.core.ending.store(true, Ordering::Relaxed);
        // Whoever is about to wait holds the lock until it does.
        drop(self.core.lock());
        self.core.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl<U: Upstream> Drop for Spooled<U> {
    fn drop(&mut self) {
        self.core.ending.store(true, Ordering::Relaxed);
        drop(self.core.lock());
        self.core.changed.notify_all();
    }
}

/// A request that goes directly, until its fate is known.
struct Direct<U: Upstream>(Arc<Core<U>>);

impl<U: Upstream> Drop for Direct<U> {
    fn drop(&mut self) {
        self.0.lock().direct -= 1;
        self.0.changed.notify_all();
    }
}

impl<U: Upstream> Core<U> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which way a request goes: directly, or none.
    async fn enter(self: &Arc<Self>) -> Option<Direct<U>> {
        loop {
            let mut mode = {
                let mut queue = self.lock();
                match *self.mode.borrow() {
                    Mode::Spooling => return None,
                    Mode::Direct => {
                        queue.direct += 1;
                        return Some(Direct(Arc::clone(self)));
                    }
                    Mode::Handover => self.mode.subscribe(),
                }
            };
            let is_over = tokio::time::timeout(HANDOVER_MAX, mode.wait_for(|mode| *mode != Mode::Handover))
                .await
                .is_ok();
            if !is_over {
                self.turn(Mode::Handover, Mode::Spooling);
            }
        }
    }

    /// From one mode to another, if it is that one.
    fn turn(&self, from: Mode, to: Mode) {
        let _queue = self.lock();
        self.mode.send_if_modified(|mode| {
            let is_it = *mode == from;
            if is_it {
                *mode = to;
            }
            is_it
        });
    }

    /// Resolves with the number of the first record, once all are durable in the spool.
    async fn spool(&self, bodies: Vec<Vec<u8>>) -> Result<u64, SinkError> {
        let bytes = bodies.iter().map(Vec::len).sum();
        let (done, written) = oneshot::channel();
        {
            let mut queue = self.lock();
            if self.ending.load(Ordering::Relaxed) {
                return Err(SinkError::Unavailable("the process is ending".to_owned()));
            }
            if queue.bytes + bytes > QUEUE_BYTES_MAX && queue.bytes > 0 {
                self.telemetry.full.increment(1);
                return Err(SinkError::Full(
                    "too much waits to be written to the spool".to_owned(),
                ));
            }
            queue.bytes += bytes;
            queue.jobs.push_back(Job { bodies, bytes, done });
            // Before it is answered, so that nothing that follows it goes past it.
            if *self.mode.borrow() != Mode::Spooling {
                tracing::warn!("Kafka does not confirm in time: requests are spooled");
                self.mode.send_replace(Mode::Spooling);
            }
        }
        self.changed.notify_all();
        written
            .await
            .unwrap_or_else(|_| Err(SinkError::Unavailable("the spool has ended".to_owned())))
    }

    /// Spools what Kafka did not confirm in time, and goes on to listen whether it does.
    async fn spool_rest(
        self: Arc<Self>,
        records: Vec<RawRecord>,
        mut fates: Vec<Fate<U::Flight>>,
        until: Instant,
        answer: oneshot::Sender<Result<(), SinkError>>,
        direct: Direct<U>,
    ) {
        let open: Vec<usize> = (0..fates.len())
            .filter(|&index| !fates[index].is_durable())
            .collect();
        let now_ms = work::now_ms();
        let bodies = open
            .iter()
            .map(|&index| segment::encode(&records[index], now_ms))
            .collect();
        match self.spool(bodies).await {
            Ok(first) => {
                let _ = answer.send(Ok(()));
                for (number, index) in (first..).zip(open) {
                    fates[index].wait(until + HOLD_LOGS).await;
                    if fates[index].is_durable() {
                        self.lock().delivered.insert(number);
                    }
                }
            }
            // Kafka may still come in time.
            Err(refused) => {
                for fate in &mut fates {
                    fate.wait(until).await;
                }
                let _ = answer.send(conclude(&records, &fates).map_err(|_| refused));
            }
        }
        self.upstream.after_failure();
        drop(direct);
    }
}

impl<U: Upstream> Sink for Spooled<U> {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        let began = Instant::now();
        let (hold, core) = (hold(&records), &self.core);
        let Some(direct) = core.enter().await else {
            let now_ms = work::now_ms();
            return core
                .spool(
                    records
                        .iter()
                        .map(|record| segment::encode(record, now_ms))
                        .collect(),
                )
                .await
                .map(drop);
        };
        let patience = began
            + if hold == HOLD_LOGS {
                AFTER_LOGS
            } else {
                AFTER_OTHERS
            };
        let mut fates = core.upstream.launch(&records, patience).await;
        for fate in &mut fates {
            fate.wait(patience).await;
        }
        if fates.iter().all(Fate::is_durable) {
            return Ok(());
        }
        if fates
            .iter()
            .any(|fate| matches!(fate, Fate::Known(Err(SinkError::TooLarge(_)))))
        {
            return conclude(&records, &fates);
        }
        let (answer, answered) = oneshot::channel();
        // Goes on whether the client waits or not.
        tokio::spawn(Arc::clone(core).spool_rest(records, fates, began + hold, answer, direct));
        answered
            .await
            .unwrap_or_else(|_| Err(SinkError::Unavailable("the spool has ended".to_owned())))
    }

    fn ready(&self) -> bool {
        let core = &self.core;
        !core.ending.load(Ordering::Relaxed)
            && (core.upstream.ready() || !core.is_refusing.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;

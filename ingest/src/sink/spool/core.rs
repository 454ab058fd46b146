//! Decides which way a request goes, and holds what requests and the two threads of a spool share.

use super::disk::Directory;
use super::segment;
use super::store::Store;
use super::telemetry::SpoolTelemetry;
use super::upstream::Upstream;
use crate::sink::{Fate, HOLD_LOGS, RawRecord, SinkError, conclude};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// How long a request waits for the last records of the spool before it goes behind them.
const HANDOVER_MAX: Duration = Duration::from_millis(250);
/// How many bytes may wait to be written to the spool.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The way that requests take: to Kafka, to the spool, or waiting between the two ([`crate::sink::spool`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Direct,
    Spooling,
    Handover,
}

/// The records of one request that are to be written.
pub(super) struct Job {
    /// The bodies of the records, as segments hold them.
    pub bodies: Vec<Vec<u8>>,
    /// The size of all bodies together.
    pub bytes: usize,
    /// Takes the number of the first record once all are durable.
    pub done: oneshot::Sender<Result<u64, SinkError>>,
}

/// What changes with requests, under one lock.
#[derive(Default)]
pub(super) struct Queue {
    pub jobs: VecDeque<Job>,
    /// The size of all jobs together.
    pub bytes: usize,
    /// Whether jobs were taken out that are not written yet.
    pub is_writing: bool,
    /// How many requests went directly and have a fate that is not known yet.
    pub direct: usize,
    /// The numbers of spooled records that Kafka has all the same.
    pub delivered: HashSet<u64>,
}

/// What the requests and the threads of a spool share.
pub(super) struct Core<U> {
    pub upstream: U,
    store: Mutex<Store<Directory>>,
    queue: Mutex<Queue>,
    /// Is notified when the queue changes, and at the end.
    pub changed: Condvar,
    /// The mode, which is changed only while the queue is locked.
    pub mode: watch::Sender<Mode>,
    pub ending: AtomicBool,
    /// Whether the last request found no room, or the volume failed.
    pub is_refusing: AtomicBool,
    /// When the oldest record that waits was written, ms since the Unix epoch; 0: none waits.
    pub oldest_ms: AtomicI64,
    pub telemetry: SpoolTelemetry,
}

/// Wall time, in ms since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The bodies of records that are spooled now.
pub(super) fn bodies(records: &[RawRecord]) -> Vec<Vec<u8>> {
    let now_ms = now_ms();
    records
        .iter()
        .map(|record| segment::encode(record, now_ms))
        .collect()
}

/// A request that goes directly, until this is dropped because its fate is known.
pub(super) struct Direct<U: Upstream>(Arc<Core<U>>);

impl<U: Upstream> Drop for Direct<U> {
    fn drop(&mut self) {
        self.0.lock().direct -= 1;
        self.0.changed.notify_all();
    }
}

impl<U: Upstream> Core<U> {
    pub fn new(upstream: U, store: Store<Directory>, mode: Mode, telemetry: SpoolTelemetry) -> Self {
        Self {
            upstream,
            store: Mutex::new(store),
            queue: Mutex::default(),
            changed: Condvar::new(),
            mode: watch::Sender::new(mode),
            ending: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            oldest_ms: AtomicI64::new(0),
            telemetry,
        }
    }

    /// Locks the store, which only the two threads do, never a request.
    pub fn store(&self) -> MutexGuard<'_, Store<Directory>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Lets the threads end.
    pub fn request_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        // A thread that is about to wait holds the lock until it waits, so it does not miss the notification.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Waits for a change of the queue, or the end.
    pub fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows in metrics what is in the spool.
    pub fn observe(&self) {
        if let Ok(store) = self.store.try_lock() {
            // Sizes are far below 2^53.
            self.telemetry.bytes.set(store.bytes() as f64);
            self.telemetry.records.set(store.records() as f64);
        }
        let oldest_ms = self.oldest_ms.load(Ordering::Relaxed);
        let age_ms = if oldest_ms == 0 {
            0
        } else {
            now_ms().saturating_sub(oldest_ms).max(0)
        };
        self.telemetry.age.set(age_ms as f64 / 1e3);
        self.telemetry
            .active
            .set(f64::from(u8::from(*self.mode.borrow() != Mode::Direct)));
    }

    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in, after a wait during a handover. None: the request goes to the spool.
    pub async fn enter(self: &Arc<Self>) -> Option<Direct<U>> {
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

    /// Changes the mode from one to another, if it is the one.
    pub fn turn(&self, from: Mode, to: Mode) {
        let _queue = self.lock();
        self.mode.send_if_modified(|mode| {
            let is_it = *mode == from;
            if is_it {
                *mode = to;
            }
            is_it
        });
    }

    /// Spools records; resolves with the number of the first one, once all are durable.
    pub async fn spool(&self, bodies: Vec<Vec<u8>>) -> Result<u64, SinkError> {
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
            // The mode changes before the request is answered, so that no later one goes past it.
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

    /// Spools the records that Kafka did not confirm in time, answers, and goes on to wait for their fates.
    pub async fn spool_rest(
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
        let now_ms = now_ms();
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
            // Kafka may still confirm the records in time.
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

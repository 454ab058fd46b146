//! A sink that answers from its own disk while Kafka does not.
//!
//! ```text
//!  direct ── a request is not confirmed in time ──► spooling ── few records left ──► handover ── all is durable ──► direct
//!                                                      ▲ a request waited too long, or the drain failed │
//!                                                      └─────────────────────────────────────────────────┘
//! ```
//!
//! Requests go to Kafka directly as long as that answers. One whose records are not confirmed in time
//! ([`AFTER_LOGS`]) is written to the spool and answered after the fsync, and from then on all are, until the
//! spool is drained.
//!
//! **Order.** If a request was answered before another one was sent, its records stand before the other's on
//! their partitions. (Requests under way at once have no order.) For that there is one mode for all:
//!
//! - *direct*: to Kafka. A request that is not confirmed in time changes the mode before it is answered.
//! - *spooling*: to the spool, in one queue. It is drained from the front, and not before all that went
//!   directly is known to be durable or given up: so nothing of the spool stands before what was answered
//!   earlier.
//! - *handover*: the spool is nearly empty, with 2,000 records left at most, so requests wait a moment
//!   (`HANDOVER_MAX`) for it, instead of going behind it; otherwise a spool under load would never be empty.
//!   Only when all of it is durable, the mode is *direct* again.
//!
//! **Once.** A record that Kafka confirms after it was spooled is left out when the spool is drained. The
//! drain itself makes runs without a hole, as that of the inbox does, and each record has an origin
//! `spool/<id>` and a number that rises, so what is written again after a crash is dropped by the task that
//! folds the partition. One case is left: Kafka has a record, but its answer was lost, and the process never
//! learns of it. Then the record is in the raw topic twice, first directly and then from the spool, and its
//! dedup mark tells it, for as long as marks live (an hour of the partition's clock). A record that brokers
//! refuse for its size stops the drain, loudly, until the topic takes it.
//!
//! **Disk.** Everything in the spool has gone through `privacy::apply`; files are for their owner only.
//! Beside the segments is `control.json`: the seed and the last privacy policy, for a start without Kafka.
//! One directory belongs to one process, one sink and one prefix. See `store`.
//!
//! Clients, a Kafka that comes and goes, and restarts are in the tests beside this module; real brokers in
//! `tests/it/outage.rs`.

mod core;
mod disk;
mod drain;
mod outlet;
mod segment;
mod store;
mod telemetry;
mod upstream;
mod write;

use self::core::{Core, Mode};
use crate::sink::{Fate, HOLD_LOGS, RawRecord, Sink, SinkError, conclude, hold};
use disk::Directory;
pub use outlet::KafkaOutlet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use store::Store;
use telemetry::SpoolTelemetry;
use tokio::sync::oneshot;
use tokio::time::Instant;
pub use upstream::{Outlet, OutletError, Upstream};

/// How long a log request waits for Kafka before it is spooled.
pub const AFTER_LOGS: Duration = Duration::from_secs(1);
/// How long a trace or metric request waits for Kafka before it is spooled.
pub const AFTER_OTHERS: Duration = Duration::from_millis(250);
/// Smallest bound of a spool's size, in bytes: a few of the largest requests must fit.
pub const BYTES_MIN: u64 = 256 << 20;

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory can't be used.
    #[error("spool.directory: {path} can't be used: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// A thread of the spool can't be started.
    #[error("no thread for the spool")]
    Thread(#[source] std::io::Error),
}

/// A spool's directory that this process holds, with the records in it. It is opened before there is a cluster to send them
/// to.
pub struct Taken {
    store: Store<Directory>,
    path: PathBuf,
}

impl Taken {
    /// Takes a directory, makes it if it is not there, and looks at what an earlier process left in it.
    ///
    /// # Errors
    /// The directory can't be made, read or written, or another process holds it.
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

    /// How many records an earlier process left in the directory.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.store.records()
    }

    /// The directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A sink over another one, with a spool. Its threads end when it is dropped.
pub struct Spooled<U: Upstream> {
    core: Arc<Core<U>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<U: Upstream> Spooled<U> {
    /// Starts the threads of the spool; what an earlier process left is drained first. `prefix` is that of the topics, and a
    /// label of the spool's metrics. It must be called after the metrics recorder is installed.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn start(taken: Taken, upstream: U, prefix: &str) -> Result<Self, SpoolError> {
        let telemetry = SpoolTelemetry::new(prefix);
        telemetry.lost.increment(taken.store.lost_at_start());
        let mode = if taken.store.records() > 0 {
            Mode::Spooling
        } else {
            Mode::Direct
        };
        let core = Arc::new(Core::new(upstream, taken.store, mode, telemetry));
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

    /// The sink behind the spool.
    #[must_use]
    pub fn upstream(&self) -> &U {
        &self.core.upstream
    }

    /// Whether requests go through the spool now.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self.core.mode.borrow() != Mode::Direct
    }

    /// Shows in metrics what is in the spool; to be called every few seconds.
    pub fn observe(&self) {
        self.core.observe();
    }

    /// Writes what waits to the spool and stops draining where it is. The next process that takes the directory drains what is
    /// left. Blocks until the threads have ended.
    pub fn end(&self) {
        self.core.request_end();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has logged it.
            let _ = thread.join();
        }
    }
}

impl<U: Upstream> Drop for Spooled<U> {
    fn drop(&mut self) {
        self.core.request_end();
    }
}

impl<U: Upstream> Sink for Spooled<U> {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        let began = Instant::now();
        let (hold, core) = (hold(&records), &self.core);
        let Some(direct) = core.enter().await else {
            return core.spool(self::core::bodies(&records)).await.map(drop);
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
        // The task goes on whether the client waits or not.
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

//! How workers are doing: alive, ready, and whether what they show may still be shown.
//!
//! What a worker shows is a lease. It ends when the partition is revoked or lost, when state is dropped, and
//! when the last success is older than half the session timeout; after that only a commit or a restore renews
//! it. A process that was stopped polls before it hears that others have its partitions, so the end of the
//! lease can't wait for news.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The age of a heartbeat from which on a worker is taken for hanging, and `/livez` fails. A commit that the brokers do not
/// answer, its abort and the fencing after it take half as long, so they do not make a worker seem to hang.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// The status of one worker, which the worker itself updates at least every few seconds.
#[derive(Debug)]
pub struct Status {
    started: Instant,
    /// Milliseconds from `started` to the last heartbeat.
    heartbeat: AtomicU64,
    ready: AtomicBool,
    /// How long results may be shown after the last success.
    lease: Duration,
    /// Milliseconds from `started` to the last success.
    success: AtomicU64,
}

impl Default for Status {
    fn default() -> Self {
        Self::new(Duration::MAX)
    }
}

impl Status {
    /// The status of a worker whose results may be shown for `lease` after its last success: half the session timeout in a
    /// group, [`Duration::MAX`] where no other worker can take over.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self {
            started: Instant::now(),
            heartbeat: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            lease,
            success: AtomicU64::new(0),
        }
    }

    /// Records a heartbeat. The worker calls it in each turn of its loop, and while it restores.
    pub fn beat(&self) {
        self.heartbeat.store(self.age_ms(), Ordering::Relaxed);
    }

    /// Sets whether the worker has restored all partitions that it owns.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Whether the worker has restored all partitions that it owns.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether the last heartbeat is at most [`HEARTBEAT_MAX`] old.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.is_alive_at(self.started.elapsed())
    }

    fn is_alive_at(&self, age: Duration) -> bool {
        age.saturating_sub(Duration::from_millis(self.heartbeat.load(Ordering::Relaxed))) <= HEARTBEAT_MAX
    }

    /// Records the success of a commit or a restore, by which the log has confirmed that the worker owns its partitions. Renews
    /// the lease.
    pub fn confirmed(&self) {
        self.success.store(self.age_ms(), Ordering::Release);
    }

    /// Records the success of a poll with nothing to commit. Renews the lease unless it has run out: a process that was stopped
    /// for long polls before it hears that other workers have its partitions.
    pub fn polled(&self) {
        if self.is_shown() {
            self.confirmed();
        }
    }

    /// Whether the results of the worker may be shown: its lease has not run out.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.started
            .elapsed()
            .saturating_sub(Duration::from_millis(self.success.load(Ordering::Acquire)))
            <= self.lease
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The status of all workers of a process.
#[derive(Debug, Default)]
pub struct Health {
    /// The status of each worker.
    pub workers: Vec<Arc<Status>>,
}

impl Health {
    /// The health of a process with one worker.
    #[must_use]
    pub fn of(status: &Arc<Status>) -> Self {
        Self {
            workers: vec![Arc::clone(status)],
        }
    }

    /// Whether all workers have restored all partitions that they own.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.workers.iter().all(|status| status.is_ready())
    }

    /// Whether no worker hangs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.workers.iter().all(|status| status.is_alive())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_alive_for_a_while_after_its_heartbeat() {
        let status = Status::default();
        status.beat();
        assert!(status.is_alive_at(HEARTBEAT_MAX));
        assert!(!status.is_alive_at(HEARTBEAT_MAX + Duration::from_secs(60)));
    }

    #[test]
    fn a_lease_that_ran_out_is_renewed_by_the_log_only() {
        let status = Status::new(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!status.is_shown());
        status.polled();
        assert_eq!(
            status.success.load(Ordering::Acquire),
            0,
            "a poll renewed a lease that had run out"
        );
        status.confirmed();
        assert!(status.success.load(Ordering::Acquire) >= 2);
        assert!(Status::default().is_shown());
    }
}

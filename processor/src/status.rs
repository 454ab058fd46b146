//! How workers are doing: alive, ready, and whether what they show may still be shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A heartbeat older than that means that the worker hangs: `/livez` says so. A commit that the brokers do not answer,
/// its abort and the fencing after it take half of that: being alive does not depend on them.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// How one worker is doing; it says so itself, at least every few seconds.
#[derive(Debug)]
pub struct Status {
    started: Instant,
    /// Milliseconds from `started` to the last heartbeat.
    heartbeat: AtomicU64,
    ready: AtomicBool,
    /// How long what was committed may be shown after the last success.
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
    /// Of a worker whose results may be shown for `lease` after its last success: half the session timeout in a group,
    /// [`Duration::MAX`] where nobody else can take over.
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

    /// Says that the worker is alive: call it in each round of its loop, and while it restores.
    pub fn beat(&self) {
        self.heartbeat.store(self.age_ms(), Ordering::Relaxed);
    }

    /// Says whether all state of the partitions that it owns is restored.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Whether all state is restored.
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

    /// A commit succeeded, or a restore: the log has confirmed that the partitions are this worker's.
    pub fn confirmed(&self) {
        self.success.store(self.age_ms(), Ordering::Release);
    }

    /// A poll succeeded, with nothing to commit. Once the lease has run out only [`Status::confirmed`] renews it: a
    /// process that was stopped for long polls before it hears that others have its partitions.
    pub fn polled(&self) {
        if self.is_shown() {
            self.confirmed();
        }
    }

    /// Whether what this worker has committed may be shown: its last success is recent enough.
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

/// How all workers of a process are doing.
#[derive(Debug, Default)]
pub struct Health {
    /// One for each worker.
    pub workers: Vec<Arc<Status>>,
}

impl Health {
    /// Of one worker.
    #[must_use]
    pub fn of(status: &Arc<Status>) -> Self {
        Self {
            workers: vec![Arc::clone(status)],
        }
    }

    /// Whether all state of all workers is restored.
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
            "a poll proves nothing then"
        );
        status.confirmed();
        assert!(status.success.load(Ordering::Acquire) >= 2);
        assert!(Status::default().is_shown());
    }
}

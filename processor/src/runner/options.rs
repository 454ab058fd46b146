//! The options of a worker.

use std::time::Duration;

/// When a worker commits, how much it polls, and what it writes beside derived topics.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shortest time between the beginnings of two commits, and the longest time for which a folded
    /// record waits for one. A record that comes after a pause waits for a tenth of it.
    pub commit_interval: Duration,
    /// The commit interval while the folded records are old: larger commits let a worker that is behind catch
    /// up sooner. It is also the longest interval while polls are full.
    pub behind_interval: Duration,
    /// The most records that are folded before a commit.
    pub records_max: usize,
    /// The most records of one poll.
    pub poll_max: usize,
    /// Whether the worker appends ticks to raw partitions, those that start epochs included, and writes what
    /// can't be folded to the quarantine topic. One derivation of a log does both. It is off for a further
    /// derivation, and where a recorded log is replayed unchanged.
    pub ticks: bool,
    /// The prefix of derived topics. The id of the derivation depends on it
    /// ([`schemas::settings::Seed::derivation_id`]).
    pub derived_prefix: String,
    /// How long the worker waits after a failure of the log before it recovers.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(250),
            behind_interval: BEHIND_INTERVAL_MAX,
            records_max: 300_000,
            poll_max: 1_000,
            ticks: true,
            derived_prefix: String::new(),
            backoff: Duration::from_millis(500),
        }
    }
}

/// The longest time between two commits of a worker that is behind. It must be well below the lease for which
/// results are shown without a further commit ([`crate::status::Status::is_shown`]).
pub const BEHIND_INTERVAL_MAX: Duration = Duration::from_secs(3);

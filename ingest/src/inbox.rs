//! Drains the inbox topics, which foreign writers fill, through the same steps as requests of clients into the raw topics.
//!
//! ```text
//! codex.inbox.* ─group─► batch ─prepare─► raw records ─outlet─► codex.raw.*, codex.quarantine.v1
//!                  ▲                                     │
//!                  └────── positions are committed ◄─────┘ once everything is durable
//! ```
//!
//! **Invariant:** positions are committed only when every part of the records before them is durable, so what a crash leaves
//! undone is done again: at least once. Each raw record names its origin ([`schemas::origin::Origin`]), and the task that folds
//! its partition drops what is not above the last one taken of that source. Together that is exactly once, if on every raw
//! partition the parts of one source come in order and without a hole, by whomever they are written:
//!
//! - A drainer takes a partition over at the group's position. Everything before it is durable, so the parts that the drainer
//!   writes begin at or before the first one that is missing.
//! - A drainer writes through an idempotent producer of its own, which never gives a record up (`message.timeout.ms=0`), has one
//!   request in flight, and ends at the first record that fails (`enable.gapless.guarantee`). What comes out on a partition is
//!   a run without a hole. There is one request in flight because brokers take any first sequence number of a producer that
//!   they do not know: of several requests, the second could be taken where the first was turned down.
//! - After any failure producer and consumer are dropped, and draining begins anew at the group's positions.
//! - A drainer that was stopped, and whose partitions others have by now, goes on with its own run when it wakes up. Each of
//!   its records is below the task's mark, or the next one.
//! - The conversations of a record, their order and their partitions follow from its bytes, whatever the privacy policy keeps.
//!   A part's number is the rank of its last item. Only where a request over 8 MiB is cut depends on what is kept. If it is
//!   drained again under another policy, a part that reaches further is taken whole, so that nothing is lost; of what was taken
//!   before, records are recognized by their dedup marks, and only records without marks are counted again.
//! - Routes are settings of a process. While ingests with other routes drain the same inbox, as during an update, a record
//!   that is drained twice can end up in two environments.
//!
//! What can't become raw records (no OTLP, or too large) goes to `codex.quarantine.v1` through the same producer, and is then
//! passed: see `quarantine`. `tacho quarantine retry` puts it into the inbox again.
//!
//! Memory: one batch, the parts of one record, and the producer's queue.

mod drain;
mod group;
mod outlet;
mod quarantine;
mod telemetry;

use crate::control::policy::Policies;
use crate::prepare::config::Config;
use drain::Drain;
use processor_log::cluster::Cluster;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a member of the group may be silent before it loses its partitions, unless set otherwise.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long between two looks whether the thread has ended.
const END_PAUSE: Duration = Duration::from_millis(5);

/// What to drain, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster, with the prefix of the inbox topics and of the main raw topics.
    pub cluster: Cluster,
    /// The pinned number of raw partitions.
    pub raw_partitions: i32,
    /// The raw topics of the environments of [`Config::routes`], in order.
    pub others: Vec<Target>,
    /// Limits and routes, the same as for requests of clients.
    pub config: Config,
    /// The privacy policy in force, the same as for requests of clients.
    pub policies: Arc<Policies>,
    /// How long a member of the group may be silent before it loses its partitions.
    pub session_timeout: Duration,
}

/// The raw topics of another environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The prefix of the topics' names.
    pub prefix: String,
    /// The pinned number of raw partitions.
    pub raw_partitions: i32,
}

/// The thread that drains the inbox.
pub struct Inbox {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Inbox {
    /// Joins the group of those who share the inbox, as soon as there are inbox topics. It must be called after the metrics
    /// recorder is installed.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("inbox".to_owned())
            .spawn(move || Drain::new(settings, stopped).run())?;
        Ok(Self { stop, thread })
    }

    /// Finishes the batch in flight, commits and leaves the group. Blocks for `wait` at most; false when it has not ended by
    /// then.
    #[must_use]
    pub fn end(self, wait: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + wait;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(END_PAUSE);
        }
        self.thread.is_finished()
    }
}

//! What to do about a dead worker's open transaction: it holds up every reader behind it, until it times out.
//!
//! The first record that a transaction writes to a partition names its writer in header `tacho-writer`. A
//! reader, at work or at a restore, that has waited at one last stable offset for 1.5 s, and for five of its
//! own commits, reads that record, uncommitted, and fences the writer: a producer with the writer's id ends
//! the transaction. Where the reader's own commits are slow, so are those of others, which is why they count.
//! Fencing is done on a thread of its own, and is safe whoever it hits: a worker that is merely slow
//! restores.

use super::clients::{self, EndIsNoError, EndingConsumer};
use super::names::Names;
use super::transactions::fencing_producer;
use crate::LogError;
use crate::cluster::Cluster;
use crate::error::chain;
use crate::telemetry;
use rdkafka::consumer::Consumer;
use schemas::id::{Position, TopicPartition};
use schemas::record::HEADER_WRITER;
use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a reader waits behind one transaction at least; a commit takes some 100 ms.
const WAIT_MIN: Duration = Duration::from_millis(1500);
/// How long a reader waits behind one transaction at most: nearly as long as the brokers themselves keep one open.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// How many times as long as its own slowest commit a worker waits: where its own take long, others are slow and not dead.
const WAIT_COMMITS: u32 = 5;
/// How long the first record behind the last stable offset may take to come.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Since when readers wait behind open transactions, and at which offset.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The last stable offset that the reader of each partition waits at, and since when.
    since: BTreeMap<TopicPartition, (i64, Instant)>,
}

impl Waiting {
    /// Notes how far a partition is readable (`stable`) and written (`end`); unknown offsets are negative.
    pub fn look(&mut self, at: TopicPartition, stable: i64, end: i64) {
        if stable < 0 || end <= stable {
            self.since.remove(&at);
        } else if self.since.get(&at).is_none_or(|(waiting, _)| *waiting != stable) {
            self.since.insert(at, (stable, Instant::now()));
        }
    }

    /// Forgets partitions that nobody reads any more.
    pub fn keep(&mut self, reads: impl Fn(TopicPartition) -> bool) {
        self.since.retain(|at, _| reads(*at));
    }

    /// Lets every wait begin now.
    pub fn begin_anew(&mut self) {
        self.since
            .values_mut()
            .for_each(|(_, since)| *since = Instant::now());
    }

    /// Where the reader of a partition has waited for longer than `patience`; the wait then begins anew.
    pub fn stuck(&mut self, at: TopicPartition, patience: Duration) -> Option<Position> {
        let (stable, _) = *self
            .since
            .get(&at)
            .filter(|(_, since)| since.elapsed() >= patience)?;
        self.since.remove(&at);
        Some(Position(stable))
    }
}

/// How long a worker waits behind one transaction, by how long its own commits take.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How long the slowest commit of late took; each later commit takes a quarter off.
    slowest_commit: Duration,
}

impl Patience {
    /// Takes note of how long a commit of this worker took.
    pub fn committed(&mut self, took: Duration) {
        self.slowest_commit = took.max(self.slowest_commit * 3 / 4);
    }

    /// How long to wait now, from [`WAIT_MIN`] to [`WAIT_MAX`].
    pub fn wait(&self) -> Duration {
        (self.slowest_commit * WAIT_COMMITS).clamp(WAIT_MIN, WAIT_MAX)
    }
}

/// Ends transactions of dead workers, one at a time.
///
/// Each is ended on a thread of its own: the brokers end a transaction at the client's first request, but answer only its
/// second, half a second later.
pub(super) struct Fencer {
    /// Where to look for a writer, and who must not be fenced.
    look: Look,
    /// The thread that ends a transaction; it may have finished.
    running: Option<JoinHandle<()>>,
}

/// What is needed to find the writer of a transaction.
#[derive(Clone)]
struct Look {
    cluster: Cluster,
    group: String,
    names: Names,
    /// The transactional id of the worker that asks: it is never fenced.
    own: String,
}

impl Fencer {
    pub fn new(cluster: &Cluster, group: &str, names: &Names, own: &str) -> Self {
        let look = Look {
            cluster: cluster.clone(),
            group: group.to_owned(),
            names: names.clone(),
            own: own.to_owned(),
        };
        Self { look, running: None }
    }

    /// Begins to end the transaction that begins at that offset of a partition, unless it is the worker's own, or another
    /// one is being ended. What goes wrong on the way is logged: whoever waits asks again.
    ///
    /// # Errors
    /// The system gives no thread for it.
    pub fn end_transaction(&mut self, at: TopicPartition, from: Position) -> Result<(), LogError> {
        if self
            .running
            .as_ref()
            .is_some_and(|running| !running.is_finished())
        {
            return Ok(());
        }
        let look = self.look.clone();
        let work = move || {
            if let Err(error) = look.end_transaction(at, from) {
                tracing::warn!(
                    error = chain(&error),
                    "a dead worker's transaction could not be ended; trying again while readers wait"
                );
            }
        };
        let thread = std::thread::Builder::new().name("fence".to_owned()).spawn(work);
        self.running =
            Some(thread.map_err(|error| LogError::failed("no thread to end a transaction", error))?);
        Ok(())
    }
}

impl Look {
    fn end_transaction(&self, at: TopicPartition, from: Position) -> Result<(), LogError> {
        let Some(writer) = self.writer_at(at, from)? else {
            tracing::warn!(
                %at,
                offset = from.0,
                "readers wait behind a transaction that names no writer: it ends by its timeout"
            );
            return Ok(());
        };
        if writer == self.own {
            return Ok(());
        }
        tracing::warn!(%at, offset = from.0, writer, "readers wait behind a dead worker's transaction: ending it");
        let fenced = fencing_producer(&self.cluster, &writer);
        drop(fenced.map_err(|error| LogError::failed(format!("ending the transaction of {writer}"), error))?);
        telemetry::writer_fenced();
        Ok(())
    }

    /// The writer named in the first record from that offset on, committed or not.
    fn writer_at(&self, at: TopicPartition, from: Position) -> Result<Option<String>, LogError> {
        let mut config = clients::consumer(&self.cluster, &self.group);
        config.set("isolation.level", "read_uncommitted");
        let looking =
            |error| LogError::failed(format!("looking behind the last stable offset of {at}"), error);
        let reader: EndingConsumer = config.create_with_context(EndIsNoError).map_err(looking)?;
        reader.assign(&self.names.list(&[(at, from)])).map_err(looking)?;
        match reader.poll(LOOK_MAX) {
            Some(Ok(message)) => {
                let record = self.names.record(&message);
                let writer = record.as_ref().and_then(|record| record.header(HEADER_WRITER));
                Ok(writer
                    .and_then(|writer| std::str::from_utf8(writer).ok())
                    .map(str::to_owned))
            }
            Some(Err(error)) => Err(looking(error)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::topic::Topic;

    #[test]
    fn slow_commits_make_patient() {
        let mut patience = Patience::default();
        assert_eq!(patience.wait(), WAIT_MIN);
        patience.committed(Duration::from_secs(1));
        assert_eq!(patience.wait(), Duration::from_secs(5));
        patience.committed(Duration::from_secs(60));
        assert_eq!(patience.wait(), WAIT_MAX);
        for _ in 0..20 {
            patience.committed(Duration::from_millis(100));
        }
        assert_eq!(patience.wait(), WAIT_MIN, "it was a moment");
    }

    #[test]
    fn only_who_waits_at_one_offset_for_long_is_stuck() {
        let at = |partition| TopicPartition {
            topic: Topic::Deltas,
            partition,
        };
        let mut waiting = Waiting::default();
        waiting.look(at(0), 5, 9);
        waiting.look(at(1), 5, 5);
        waiting.look(at(2), -1001, 9);
        assert_eq!(waiting.since.len(), 1);
        assert_eq!(waiting.stuck(at(0), WAIT_MIN), None, "not yet");
        let long_ago = Instant::now()
            .checked_sub(WAIT_MIN)
            .expect("the machine runs for longer than that");
        waiting.since.insert(at(0), (5, long_ago));
        waiting.look(at(0), 5, 12);
        assert_eq!(
            (waiting.stuck(at(1), WAIT_MIN), waiting.stuck(at(0), WAIT_MIN)),
            (None, Some(Position(5)))
        );
        waiting.since.insert(at(0), (5, long_ago));
        waiting.look(at(0), 6, 12);
        assert_eq!(waiting.stuck(at(0), WAIT_MIN), None, "it moved");
        waiting.since.insert(at(0), (6, long_ago));
        waiting.begin_anew();
        assert_eq!(waiting.stuck(at(0), WAIT_MIN), None, "it waits anew");
    }
}

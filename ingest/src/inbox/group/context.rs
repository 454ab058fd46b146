//! Takes what the consumer's client tells from within a poll: changes of who has which partitions, and statistics.

use metrics::Gauge;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Partition;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Statistics, TopicPartitionList};
use schemas::signal::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A change of who has which partitions.
pub(super) enum Change {
    /// These partitions are ours from now on.
    Assigned(TopicPartitionList),
    /// These partitions are ours no more: revoked or lost.
    Gone(TopicPartitionList),
}

/// The next offset to read of each partition that is ours.
pub(super) type Positions = BTreeMap<(Signal, i32), i64>;

/// What the client and the group share.
pub(super) struct GroupContext {
    /// Changes that are not answered yet, in order.
    changes: Mutex<VecDeque<Change>>,
    /// Whether the consumer is being closed, so that nobody answers changes any more.
    closing: AtomicBool,
    /// The names of the inbox topics, in the order of [`Signal::ALL`].
    pub names: [String; 3],
    lags: [Gauge; 3],
    positions: Mutex<Positions>,
}

impl GroupContext {
    pub fn new(names: [String; 3], lags: [Gauge; 3]) -> Self {
        Self {
            changes: Mutex::default(),
            closing: AtomicBool::new(false),
            names,
            lags,
            positions: Mutex::default(),
        }
    }

    /// The signal of an inbox topic, by its full name; none for any other topic.
    pub fn signal(&self, topic: &str) -> Option<Signal> {
        Signal::ALL
            .into_iter()
            .zip(&self.names)
            .find(|(_, name)| *name == topic)
            .map(|(signal, _)| signal)
    }

    pub fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next change that is not answered yet.
    pub fn next_change(&self) -> Option<Change> {
        self.changes().pop_front()
    }

    /// Whether a change waits for its answer.
    pub fn has_changes(&self) -> bool {
        !self.changes().is_empty()
    }

    /// From now on rebalances are answered within the poll that tells of them.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "inbox consumer error");
    }

    fn stats(&self, statistics: Statistics) {
        let positions = self.positions();
        for ((signal, name), lag) in Signal::ALL.into_iter().zip(&self.names).zip(&self.lags) {
            let Some(topic) = statistics.topics.get(name) else {
                continue;
            };
            // The client's own lag counts from its last commit, after which another member may have committed.
            let behind = |(partition, state): (&i32, &Partition)| {
                positions
                    .get(&(signal, *partition))
                    .map_or(0, |position| (state.ls_offset - position).max(0))
            };
            let records: i64 = topic.partitions.iter().map(behind).sum();
            lag.set(f64::from(u32::try_from(records).unwrap_or(u32::MAX)));
        }
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            let answered = if assigned {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance at the end could not be answered");
            }
            return;
        }
        let change = if assigned {
            Change::Assigned(list.clone())
        } else {
            Change::Gone(list.clone())
        };
        self.changes().push_back(change);
    }
}

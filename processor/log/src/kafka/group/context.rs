//! What librdkafka says of the group from within a poll: rebalances, and how far partitions are readable.

use crate::Ownership;
use crate::kafka::fence::Waiting;
use crate::kafka::names::Names;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use schemas::id::TopicPartition;
use schemas::topic::Topic;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The context of the group's consumer: notes what the client says from within a poll.
pub(in crate::kafka) struct GroupContext {
    names: Names,
    /// Changes of ownership that the worker was not told of yet.
    changes: Mutex<VecDeque<Ownership>>,
    /// Readers of `tacho.deltas` that wait behind an open transaction.
    waiting: Mutex<Waiting>,
    /// Whether the consumer is being closed: no worker answers a rebalance any more, so it is answered here.
    closing: AtomicBool,
}

impl GroupContext {
    pub fn new(names: Names) -> Self {
        Self {
            names,
            changes: Mutex::default(),
            waiting: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// The changes of ownership, in order.
    pub fn changes(&self) -> MutexGuard<'_, VecDeque<Ownership>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The readers that wait behind an open transaction.
    pub fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that the consumer is being closed: rebalances are answered here from now on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let of = |topic: &str, partition| {
            Some(TopicPartition {
                topic: self.names.topic(topic)?,
                partition,
            })
        };
        list.elements()
            .iter()
            .filter_map(|element| of(element.topic(), element.partition()))
            .collect()
    }
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "consumer error");
    }

    /// Notes how far partitions are readable, as of the last fetch: the client says so nowhere else.
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.names.name(Topic::Deltas)) else {
            return;
        };
        let mut waiting = self.waiting();
        for (partition, state) in &topic.partitions {
            waiting.look(
                TopicPartition {
                    topic: Topic::Deltas,
                    partition: *partition,
                },
                state.ls_offset,
                state.hi_offset,
            );
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
                tracing::warn!(%error, "a rebalance at the end could not be answered");
            }
            return;
        }
        let partitions = self.partitions(list);
        let change = match assigned {
            true => Ownership::Assigned(partitions),
            false if consumer.assignment_lost() => Ownership::Lost(partitions),
            false => Ownership::Revoked(partitions),
        };
        self.changes().push_back(change);
    }
}

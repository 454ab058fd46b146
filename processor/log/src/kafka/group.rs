//! The consumer that shares the input partitions with its group: classic protocol, cooperative-sticky.
//!
//! librdkafka tells of a rebalance within a poll, and then waits until the partitions are assigned or unassigned. So
//! the change is only noted here; the worker restores or commits first, and answers by [`Group::take_over`] or
//! [`Group::release`]. Meanwhile the client gives out nothing, and keeps up the heartbeat on a thread of its own.

use super::clients::{self, failed, out_of_range, passing};
use super::fence::Waiting;
use super::name::Name;
use super::names::{Names, size};
use super::offsets;
use crate::{Extent, LogError, Ownership};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use schemas::id::{Position, TopicPartition};
use schemas::record::{Offered, Record};
use schemas::topic::Topic;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many bytes of records one poll gives out at most, unless its first record alone is larger.
const POLL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long one look for records takes, so that a change of ownership is seen soon.
const SLICE: Duration = Duration::from_millis(20);

/// How many records are kept while news about ownership is waited for.
const STASH_MAX: usize = 20_000;

/// What the client tells from within a poll.
pub(super) struct Told {
    names: Names,
    changes: Mutex<VecDeque<Ownership>>,
    /// Readers of `tacho.deltas` behind an open transaction.
    waiting: Mutex<Waiting>,
    /// The consumer is being closed: nobody answers any more.
    closing: AtomicBool,
}

impl Told {
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

impl ClientContext for Told {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "consumer error");
    }

    /// How far the partitions are readable, as of the last fetch: the only place where the client tells.
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.names.name(Topic::Deltas)) else {
            return;
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
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

impl ConsumerContext for Told {
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
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(change);
    }
}

/// A consumer and what it was given.
pub(super) struct Group {
    consumer: BaseConsumer<Told>,
    /// For a new consumer.
    config: rdkafka::ClientConfig,
    names: Names,
    /// Of a static member.
    name: Option<Name>,
    /// The consumer is new, since the one before was fenced, and has not joined.
    is_outside: bool,
    /// Given to the consumer before: to be told as lost, or told and not answered.
    before: Option<Vec<TopicPartition>>,
    /// Where the poll of each taken partition goes on.
    taken: BTreeMap<TopicPartition, Position>,
    /// Told to the worker, and not answered yet.
    open: Option<Ownership>,
    /// Came while news about ownership was waited for.
    stash: VecDeque<Record>,
    /// Met behind records that were given out first.
    error: Option<LogError>,
}

impl Group {
    /// `name`: of a static member.
    pub fn new(config: rdkafka::ClientConfig, names: Names, name: Option<Name>) -> Result<Self, LogError> {
        let told = Told {
            names: names.clone(),
            changes: Mutex::default(),
            waiting: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let consumer = config
            .create_with_context(told)
            .map_err(|error| failed("making a consumer", &error))?;
        Ok(Self {
            consumer,
            config,
            names,
            name,
            is_outside: false,
            before: None,
            taken: BTreeMap::new(),
            open: None,
            stash: VecDeque::new(),
            error: None,
        })
    }

    pub const fn consumer(&self) -> &BaseConsumer<Told> {
        &self.consumer
    }

    /// Who we are in the group now: a commit under an older generation is refused by the brokers.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    pub fn join(&self) -> Result<(), LogError> {
        let inputs = [self.names.name(Topic::RawLogs), self.names.name(Topic::Deltas)];
        self.consumer
            .subscribe(&[&inputs[0], &inputs[1]])
            .map_err(|error| failed("joining the group", &error))
    }

    /// The next change, and the one to be answered.
    pub fn ownership(&mut self) -> Option<Ownership> {
        if self.open.is_some() {
            return None;
        }
        self.open = match &self.before {
            Some(at) => Some(Ownership::Lost(at.clone())),
            None => self
                .consumer
                .context()
                .changes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front(),
        };
        self.open.clone()
    }

    fn is_told(&self) -> bool {
        !self
            .consumer
            .context()
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Whether somebody took our name: nothing can be done with this consumer any more.
    fn check(&self) -> Result<(), LogError> {
        match self.consumer.client().fatal_error() {
            None => Ok(()),
            Some((code, reason)) => Err(self.fenced(format!("{code}: {reason}"))),
        }
    }

    /// For a static member only [`Group::recover`] can tell whether another process has the name.
    const fn fenced(&self, reason: String) -> LogError {
        match self.name {
            Some(_) => LogError::Unavailable { reason },
            None => LogError::Fenced { reason },
        }
    }

    /// Joins again with a new consumer if this one was fenced, once nobody has our name; then tells all partitions as lost.
    ///
    /// # Errors
    /// See [`Name::regain`].
    pub fn recover(&mut self) -> Result<(), LogError> {
        if !self.is_outside
            && let Err(error) = self.check()
        {
            let Some(mut name) = self.name.clone() else {
                return Err(error);
            };
            name.lose()?;
            tracing::warn!(%error, "somebody has our name in the group");
            // The fenced one goes: from now on we are silent.
            self.begin_anew(Some(name))?;
            self.is_outside = true;
        }
        if self.is_outside
            && let Some(name) = self.name.as_mut()
        {
            name.regain(&self.consumer)?;
            self.join()?;
            self.is_outside = false;
        }
        Ok(())
    }

    /// Joins again with a new consumer, as a worker does that was restarted, since this one reaches no broker any more; then
    /// tells all partitions as lost.
    pub fn replace(&mut self) -> Result<(), LogError> {
        self.begin_anew(self.name.clone())?;
        self.join()
    }

    /// A new consumer, outside of the group, in the place of this one. What this one was given is to be told as lost.
    fn begin_anew(&mut self, name: Option<Name>) -> Result<(), LogError> {
        let new = Self::new(self.config.clone(), self.names.clone(), name)?;
        let mut old = std::mem::replace(self, new);
        let mut before: Vec<TopicPartition> = old.taken.keys().copied().collect();
        if let Some(Ownership::Assigned(at)) = &old.open {
            before.extend(at);
        }
        before.extend(old.before.take().unwrap_or_default());
        self.before = Some(before);
        drop(clients::drop_aside(old));
        Ok(())
    }

    pub fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let again: Vec<TopicPartition> = from
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| self.taken.contains_key(at))
            .collect();
        if !again.is_empty() {
            self.unassign(&again)?;
        }
        let answers = matches!(self.open, Some(Ownership::Assigned(_)));
        if !from.is_empty() || answers {
            let list = self.names.list(from);
            self.consumer
                .incremental_assign(&list)
                .map_err(|error| failed("taking partitions over", &error))?;
        }
        if answers {
            self.open = None;
        }
        self.taken.extend(from.iter().copied());
        self.error = None;
        Ok(())
    }

    pub fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        let answers = matches!(self.open, Some(Ownership::Revoked(_) | Ownership::Lost(_)));
        if self.before.is_some() && answers {
            (self.before, self.open) = (None, None);
            return Ok(());
        }
        // What a consumer before this one was given is not this one's.
        let held: Vec<TopicPartition> = at
            .iter()
            .copied()
            .filter(|at| answers || self.taken.contains_key(at))
            .collect();
        if held.is_empty() && !answers {
            return Ok(());
        }
        self.unassign(&held)?;
        if answers {
            self.open = None;
        }
        Ok(())
    }

    fn unassign(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.taken.retain(|taken, _| !at.contains(taken));
        self.stash.retain(|record| !at.contains(&record.from));
        let list = self.names.unset(at);
        self.consumer
            .incremental_unassign(&list)
            .map_err(|error| failed("releasing partitions", &error))
    }

    /// A lost connection is no error here: the client connects again, and appends and commits tell.
    pub fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        show: &mut dyn FnMut(Offered<'_>),
    ) -> Result<usize, LogError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let kept = self.stash.len().min(max);
        self.stash
            .drain(..kept)
            .for_each(|record| record.offer(&mut *show));
        self.look(kept, max, wait, show)
    }

    /// Waits for a change of ownership, keeping what comes in meanwhile.
    pub fn settle(&mut self, wait: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + wait;
        while !self.is_told()
            && self.open.is_none()
            && self.stash.len() < STASH_MAX
            && Instant::now() < deadline
        {
            self.check()?;
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            let mut found = None;
            self.look(0, 1, SLICE, &mut |record| found = Some(record.to_record()))?;
            self.stash.extend(found);
        }
        Ok(())
    }

    /// Shows what the client has, after `count` records were shown; how many were shown then.
    fn look(
        &mut self,
        mut count: usize,
        max: usize,
        wait: Duration,
        show: &mut dyn FnMut(Offered<'_>),
    ) -> Result<usize, LogError> {
        let deadline = Instant::now() + wait;
        let mut bytes = 0;
        while count < max && bytes < POLL_BYTES_MAX && !self.is_told() {
            // The clock is not asked for each record.
            let left = if count == 0 {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            let slice = left.min(SLICE);
            let error = match self.consumer.poll(slice) {
                Some(Ok(message)) => {
                    let Self { names, taken, .. } = self;
                    names.offer(&message, |record| {
                        bytes += size(record.key, record.value);
                        taken.insert(record.from, Position::after(record.offset));
                        count += 1;
                        show(record);
                    });
                    continue;
                }
                None if count > 0 || left.is_zero() => break,
                None => continue,
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => self.fenced(code.to_string()),
                Some(Err(error)) if passing(&error) => {
                    tracing::warn!(%error, "the consumer lost a broker; it connects again");
                    continue;
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::PollExceeded))) => {
                    tracing::warn!(
                        "this worker was stopped for so long that it left the group; it joins again"
                    );
                    continue;
                }
                Some(Err(error)) if out_of_range(&error) => self.gone(),
                Some(Err(error)) => failed("polling", &error),
            };
            if count == 0 {
                return Err(error);
            }
            self.error = Some(error);
            break;
        }
        Ok(count)
    }

    /// Which of the taken partitions no longer has its position.
    fn gone(&self) -> LogError {
        for (&at, &wanted) in &self.taken {
            match offsets::extent(&self.consumer, &self.names, at) {
                Ok(Extent { start, end }) if wanted < start || wanted > end => {
                    return LogError::OutOfRange {
                        at,
                        wanted: wanted.0,
                        start: start.0,
                    };
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        LogError::Unavailable {
            reason: "a position was out of range, and is not any more: take over again".to_owned(),
        }
    }

    /// A partition of `tacho.deltas` whose reader has waited behind one open transaction for too long, and from where.
    pub fn stuck(&self, patience: Duration) -> Option<(TopicPartition, Position)> {
        let mut waiting = self
            .consumer
            .context()
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.keep(|at| self.taken.contains_key(&at));
        self.taken
            .keys()
            .find_map(|&at| Some((at, waiting.stuck(at, patience)?)))
    }

    /// After a transaction was ended: what waits elsewhere may have waited behind the same one.
    pub fn wait_anew(&self) {
        self.consumer
            .context()
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .begin_anew();
    }
}

impl Drop for Group {
    /// The client's own close waits until every rebalance is answered.
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        let pending = std::mem::take(
            &mut *self
                .consumer
                .context()
                .changes
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let open = self.open.take().filter(|_| self.before.is_none());
        for change in open.into_iter().chain(pending) {
            let answered = match change {
                Ownership::Assigned(_) => self.consumer.incremental_assign(&TopicPartitionList::new()),
                Ownership::Revoked(at) | Ownership::Lost(at) => {
                    self.consumer.incremental_unassign(&self.names.unset(&at))
                }
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance at the end could not be answered");
            }
        }
    }
}

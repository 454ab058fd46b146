//! The consumer that shares the input partitions of all stages with its group: classic protocol,
//! cooperative-sticky, static membership by name unless configured otherwise.
//!
//! librdkafka tells of a rebalance within a poll, and then waits until the partitions are assigned or
//! unassigned. The context only notes the change; the worker restores or commits first, and answers by
//! [`Group::take_over`] or [`Group::release`]. Meanwhile the client gives out nothing, and keeps up the
//! heartbeat on a thread of its own. Heartbeats go every 100 ms, so that members hear of a change soon.
//!
//! The classic protocol is used, and not KIP-848: with librdkafka 2.12.1 on Kafka 4.4.0 a killed static
//! member has its partitions back 0.1 s after it joins again by the classic one, and is refused for 42 s by
//! the new one, whose session timeout is the broker's.

mod context;

use super::clients::{self, REQUEST_MAX, out_of_range, passing};
use super::name::Name;
use super::names::{Names, size};
use super::offsets;
use crate::{Extent, LogError, Ownership};
use context::GroupContext;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use schemas::id::{Position, TopicPartition};
use schemas::record::{Offered, Record};
use schemas::stage::Stage;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use strum::VariantArray;

/// How many bytes of records one poll gives out at most, unless its first record alone is larger.
const POLL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long one look for records takes, so that a change of ownership is seen soon.
const SLICE: Duration = Duration::from_millis(20);
/// How many records are kept while news about ownership is waited for.
const STASH_MAX: usize = 20_000;

/// A member of the group: its consumer, and the partitions that it has.
pub(super) struct Group {
    consumer: BaseConsumer<GroupContext>,
    /// The settings of the consumer, for a new one in its place.
    config: rdkafka::ClientConfig,
    names: Names,
    /// The name of a static member; none for a dynamic one.
    name: Option<Name>,
    /// Whether the consumer has not joined: it is new, since the one before was fenced.
    is_outside: bool,
    /// Partitions of the consumer before this one, until the worker has answered their loss.
    before: Option<Vec<TopicPartition>>,
    /// The partitions that were taken over, and where the poll of each goes on.
    taken: BTreeMap<TopicPartition, Position>,
    /// The change of ownership that the worker was told of and has not answered yet.
    open: Option<Ownership>,
    /// Records that came while news about ownership was waited for.
    stash: VecDeque<Record>,
    /// An error that was met behind records that were given out first.
    error: Option<LogError>,
}

impl Group {
    /// A member that has not joined yet; `name` is that of a static member.
    ///
    /// # Errors
    /// The client can't be made.
    pub fn new(config: rdkafka::ClientConfig, names: Names, name: Option<Name>) -> Result<Self, LogError> {
        let consumer = config
            .create_with_context(GroupContext::new(names.clone()))
            .map_err(|error| LogError::failed("making a consumer", error))?;
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

    /// The member's client.
    pub const fn consumer(&self) -> &BaseConsumer<GroupContext> {
        &self.consumer
    }

    /// Who this member is in the group now: the brokers refuse a commit under an older generation.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    /// See [`crate::Log::join`].
    pub fn join(&self) -> Result<(), LogError> {
        let inputs: Vec<String> = Stage::VARIANTS
            .iter()
            .map(|stage| self.names.name(stage.def().input))
            .collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.consumer
            .subscribe(&inputs)
            .map_err(|error| LogError::failed("joining the group", error))
    }

    /// See [`crate::Log::ownership`].
    pub fn ownership(&mut self) -> Option<Ownership> {
        if self.open.is_some() {
            return None;
        }
        self.open = match &self.before {
            Some(at) => Some(Ownership::Lost(at.clone())),
            None => self.consumer.context().changes().pop_front(),
        };
        self.open.clone()
    }

    /// Whether there is a change of ownership that the worker was not told of.
    fn has_news(&self) -> bool {
        !self.consumer.context().changes().is_empty()
    }

    /// An error if somebody took this member's name: its consumer is of no use any more.
    fn check(&self) -> Result<(), LogError> {
        match self.consumer.client().fatal_error() {
            None => Ok(()),
            Some((code, reason)) => Err(self.fenced(format!("{code}: {reason}"))),
        }
    }

    /// The error of a consumer that the brokers fenced. Whether another process has the name of a static member is found
    /// out by [`Group::recover`] alone.
    fn fenced(&self, reason: String) -> LogError {
        match self.name {
            Some(_) => LogError::unavailable(reason),
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
            // The fenced consumer goes, and with it every sign of life under that name.
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

    /// Joins again with a new consumer, as a restarted worker does, since this one reaches no broker any more; then tells
    /// all partitions as lost.
    pub fn replace(&mut self) -> Result<(), LogError> {
        self.begin_anew(self.name.clone())?;
        self.join()
    }

    /// Puts a new consumer, outside of the group, in the place of this one. All partitions of this one are told as lost.
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

    /// See [`crate::Log::take_over`].
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
                .map_err(|error| LogError::failed("taking partitions over", error))?;
        }
        if answers {
            self.open = None;
        }
        self.taken.extend(from.iter().copied());
        self.error = None;
        Ok(())
    }

    /// See [`crate::Log::release`].
    pub fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        let answers = matches!(self.open, Some(Ownership::Revoked(_) | Ownership::Lost(_)));
        if self.before.is_some() && answers {
            (self.before, self.open) = (None, None);
            return Ok(());
        }
        // Partitions of a consumer before this one are not this one's to give back.
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
            .and_then(|()| clients::wait_for_stops(&self.consumer))
            .map_err(|error| LogError::failed("releasing partitions", error))
    }

    /// See [`crate::Log::poll_each`]. A lost connection is no error here: the client connects again, and appends and
    /// commits tell of one that lasts.
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

    /// See [`crate::Log::settle`].
    pub fn settle(&mut self, wait: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + wait;
        while !self.has_news()
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

    /// Shows records that the client has, where `count` were shown before; how many were shown in all.
    fn look(
        &mut self,
        mut count: usize,
        max: usize,
        wait: Duration,
        show: &mut dyn FnMut(Offered<'_>),
    ) -> Result<usize, LogError> {
        let deadline = Instant::now() + wait;
        let mut bytes = 0;
        while count < max && bytes < POLL_BYTES_MAX && !self.has_news() {
            // Only the first record is waited for, so the clock is not asked for each.
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
                Some(Err(error)) => LogError::failed("polling", error),
            };
            if count == 0 {
                return Err(error);
            }
            self.error = Some(error);
            break;
        }
        Ok(count)
    }

    /// The error that names the taken partition whose position is gone.
    fn gone(&self) -> LogError {
        for (&at, &wanted) in &self.taken {
            match offsets::extent(&self.consumer, &self.names, at, REQUEST_MAX) {
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
        LogError::unavailable("a position was out of range, and is not any more: take over again")
    }

    /// A partition of `tacho.deltas` whose reader has waited behind one open transaction for too long, and from where.
    pub fn stuck(&self, patience: Duration) -> Option<(TopicPartition, Position)> {
        let mut waiting = self.consumer.context().waiting();
        waiting.keep(|at| self.taken.contains_key(&at));
        self.taken
            .keys()
            .find_map(|&at| Some((at, waiting.stuck(at, patience)?)))
    }

    /// Lets every wait begin anew, after a transaction was ended: readers of other partitions may have waited behind the
    /// same one.
    pub fn wait_anew(&self) {
        self.consumer.context().waiting().begin_anew();
    }
}

impl Drop for Group {
    /// Answers every rebalance, for which the client's own close waits.
    fn drop(&mut self) {
        self.consumer.context().close();
        let pending = std::mem::take(&mut *self.consumer.context().changes());
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

//! One user of the simulated log: a worker, an ingest or a reader.

use super::group::Heard;
use super::{Brokers, SimCluster};
use crate::assigned::Assigned;
use crate::{Appended, Batch, Commit, Extent, Log, LogError, Ownership, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::topic::Topic;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// One user of a [`SimCluster`]; a member of its group once it has joined. Dropped, it is silent, as a process that died.
pub struct SimLog {
    cluster: SimCluster,
    /// The identity that commits and fences, and the name in the group.
    writer: String,
    /// The number of this handle among all of the cluster.
    handle: u64,
    /// The number that the last [`Log::recover`] gave this handle; only the handle with the writer's latest number may commit.
    epoch: u64,
    /// Whether a commit failed since the last [`Log::recover`].
    failed: bool,
    assigned: Assigned,
    has_joined: bool,
    /// The generation of the group that this member knows of; none before it has joined, and while it is expelled.
    generation: Option<u64>,
    /// Changes of ownership that came from the group, and that the worker was not told of yet.
    news: VecDeque<Ownership>,
    /// The change of ownership that the worker was told of and has not answered yet.
    open: Option<Ownership>,
    /// Partitions that the worker was told to have, and has not let go.
    held: BTreeSet<TopicPartition>,
}

impl SimLog {
    pub(super) fn new(cluster: SimCluster, writer: &str, handle: u64, epoch: u64) -> Self {
        Self {
            cluster,
            writer: writer.to_owned(),
            handle,
            epoch,
            failed: false,
            assigned: Assigned::default(),
            has_joined: false,
            generation: None,
            news: VecDeque::new(),
            open: None,
            held: BTreeSet::new(),
        }
    }

    /// Leaves the group in good order.
    pub fn leave(&mut self) {
        self.cluster.brokers().leave(&self.writer, self.handle);
        self.generation = None;
    }

    /// Fetches news of the group; unless `surely`, they may come late.
    fn hear(&mut self, surely: bool) {
        if self.generation.is_none() {
            return;
        }
        let mut brokers = self.cluster.brokers();
        let late = brokers.faults.news_late;
        if !surely && brokers.random.chance(late) {
            return;
        }
        match brokers.group.hear(&self.writer, self.handle) {
            Heard::Member(generation, news) => {
                self.generation = Some(generation);
                self.news.extend(news);
            }
            Heard::Expelled => {
                drop(brokers);
                // The member joins again once the worker has answered the loss.
                self.generation = None;
                self.news.clear();
                self.news
                    .push_back(Ownership::Lost(self.held.iter().copied().collect()));
            }
        }
    }

    /// Refuses a commit of positions that the group gave to another member.
    fn check_owner(&self, brokers: &Brokers, commit: &Commit) -> Result<(), LogError> {
        let inputs = commit.parts.iter().map(|part| part.input);
        for at in inputs.filter(|_| self.has_joined) {
            let owner = brokers.group.owner(at);
            if owner != Some(&self.writer) {
                let reason = format!(
                    "{} commits a position, but the group gave it to {owner:?}",
                    self.writer
                );
                return Err(LogError::corrupt(at.to_string(), reason));
            }
        }
        Ok(())
    }

    fn try_commit(&self, brokers: &mut Brokers, commit: Commit) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::not_committed("an earlier commit failed: recover first"));
        }
        if self.epoch != brokers.epochs.get(&self.writer).copied().unwrap_or(0) {
            return Err(LogError::not_committed(format!(
                "fenced: {} is in use by a later handle",
                self.writer
            )));
        }
        let touched = commit
            .records()
            .map(|record| record.to)
            .chain(commit.parts.iter().map(|part| part.input));
        for at in touched {
            brokers
                .check(at)
                .map_err(|error| LogError::not_committed(error.to_string()))?;
        }
        if self.has_joined && self.generation != Some(brokers.group.generation) {
            brokers.happened.aborted += 1;
            return Err(LogError::Aborted {
                reason: "simulated: an old generation".to_owned(),
                source: None,
                commit: Box::new(commit),
            });
        }
        self.check_owner(brokers, &commit)?;
        let faults = brokers.faults;
        brokers.complete(&self.writer);
        let transaction = brokers.begin(&self.writer, commit.clone())?;
        if brokers.random.chance(faults.commit_lost) {
            return Err(LogError::not_committed("simulated: the commit was lost"));
        }
        let is_committed = !brokers.random.chance(faults.commit_aborted);
        brokers.decide(transaction, is_committed);
        if !is_committed {
            brokers.happened.aborted += 1;
            return Err(LogError::Aborted {
                reason: "simulated: a send failed".to_owned(),
                source: None,
                commit: Box::new(commit),
            });
        }
        if brokers.random.chance(faults.commit_unanswered) {
            return Err(LogError::not_committed("simulated: the commit's answer was lost"));
        }
        Ok(())
    }
}

impl Drop for SimLog {
    fn drop(&mut self) {
        self.cluster
            .brokers()
            .group
            .set_silent(&self.writer, Some(self.handle), true);
    }
}

impl ReadLog for SimLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        Ok(self.cluster.brokers().count(topic))
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let mut brokers = self.cluster.brokers();
        let partition = brokers.partition(at)?;
        Ok(Extent {
            start: Position(partition.start),
            end: Position(partition.end),
        })
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.cluster.brokers().partition(at)?.read(at, from, max)
    }

    fn read_all(&mut self, at: &[TopicPartition], take: &mut dyn FnMut(Record)) -> Result<(), LogError> {
        for &at in at {
            let mut brokers = self.cluster.brokers();
            brokers.wait_for_partition(at)?;
            let partition = brokers.partition(at)?;
            partition
                .read(at, Position(partition.start), usize::MAX)?
                .records
                .into_iter()
                .for_each(&mut *take);
        }
        Ok(())
    }
}

impl Log for SimLog {
    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let mut brokers = self.cluster.brokers();
        brokers.wait_for_positions(at);
        Ok(at.iter().map(|at| brokers.positions.get(at).copied()).collect())
    }

    fn join(&mut self) -> Result<(), LogError> {
        let mut brokers = self.cluster.brokers();
        brokers.join(&self.writer, self.handle);
        self.has_joined = true;
        self.generation = Some(brokers.group.generation);
        drop(brokers);
        self.hear(true);
        Ok(())
    }

    fn ownership(&mut self) -> Option<Ownership> {
        if self.open.is_some() {
            return None;
        }
        self.open = self.news.pop_front();
        if let Some(Ownership::Assigned(new)) = &self.open {
            self.held.extend(new);
        }
        self.open.clone()
    }

    fn settle(&mut self, _wait: Duration) -> Result<(), LogError> {
        self.hear(true);
        Ok(())
    }

    fn take_over(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let brokers = self.cluster.brokers();
        for (at, _) in from {
            brokers.check(*at)?;
        }
        drop(brokers);
        self.assigned.take_over(from);
        if matches!(self.open, Some(Ownership::Assigned(_))) {
            self.open = None;
        }
        Ok(())
    }

    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.assigned.release(at);
        self.held.retain(|held| !at.contains(held));
        match self.open.take() {
            Some(Ownership::Revoked(_)) if self.generation.is_some() => {
                let mut brokers = self.cluster.brokers();
                let own: Vec<_> = at
                    .iter()
                    .copied()
                    .filter(|at| brokers.group.owner(*at) == Some(&self.writer))
                    .collect();
                brokers.let_go(&own);
            }
            Some(Ownership::Lost(_)) => self.join()?,
            Some(open @ Ownership::Assigned(_)) => self.open = Some(open),
            Some(Ownership::Revoked(_)) | None => {}
        }
        Ok(())
    }

    /// Returns at once: time is virtual, and passes by [`SimCluster::advance`] only.
    fn poll(&mut self, max: usize, _wait: Duration) -> Result<Vec<Record>, LogError> {
        self.hear(false);
        if !self.news.is_empty() {
            return Ok(Vec::new());
        }
        let mut brokers = self.cluster.brokers();
        self.assigned.read_in_turn(max, |at, position, max| {
            brokers.partition(at)?.read(at, position, max)
        })
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        let lost = |what: &str| LogError::unavailable(format!("simulated: the append{what} was lost"));
        let mut brokers = self.cluster.brokers();
        for record in &records {
            brokers.check(record.to)?;
        }
        let faults = brokers.faults;
        if brokers.random.chance(faults.append_lost) {
            return Err(lost(""));
        }
        let now = brokers.wall_ms;
        let appended = records
            .into_iter()
            .map(|record| Ok(brokers.partition(record.to)?.put(record, now, None)))
            .collect::<Result<_, _>>()?;
        if brokers.random.chance(faults.append_unanswered) {
            return Err(lost("'s answer"));
        }
        Ok(appended)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        if commit == Commit::default() {
            return Ok(());
        }
        let result = self.try_commit(&mut self.cluster.clone().brokers(), commit);
        self.failed = matches!(result, Err(LogError::NotCommitted { .. }));
        result
    }

    fn recover(&mut self) -> Result<(), LogError> {
        let mut brokers = self.cluster.brokers();
        self.epoch = brokers.fence(&self.writer);
        brokers.complete(&self.writer);
        self.failed = false;
        Ok(())
    }

    fn trim(&mut self, before: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let mut brokers = self.cluster.brokers();
        for &(at, position) in before {
            brokers.partition(at)?.trim(position.0);
        }
        Ok(())
    }

    fn writer(&self) -> &str {
        &self.writer
    }

    fn wall_ms(&self) -> i64 {
        self.cluster.wall_ms()
    }
}

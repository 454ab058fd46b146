//! One user of the simulated log: a worker, an ingest, a reader.

use super::group::Heard;
use super::{SimCluster, State};
use crate::{Appended, Batch, Commit, Extent, Log, LogError, Ownership, place, read_in_turn};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::topic::Topic;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// One user of a [`SimCluster`]; a member of its group once it has joined. Dropped, it is silent, as a process that died.
pub struct SimLog {
    cluster: SimCluster,
    writer: String,
    handle: u64,
    epoch: u64,
    /// Set by a failed commit, until [`Log::recover`].
    failed: bool,
    assigned: Vec<(TopicPartition, Position)>,
    turn: usize,
    has_joined: bool,
    /// The generation of the group that it knows of; none before it has joined, and while it is out.
    generation: Option<u64>,
    /// Heard, and not told yet.
    news: VecDeque<Ownership>,
    /// Told, and not answered yet.
    open: Option<Ownership>,
    /// What it was told to have, and has not let go.
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
            assigned: Vec::new(),
            turn: 0,
            has_joined: false,
            generation: None,
            news: VecDeque::new(),
            open: None,
            held: BTreeSet::new(),
        }
    }

    /// Leaves the group in good order.
    pub fn leave(&mut self) {
        self.cluster.state().leave(&self.writer, self.handle);
        self.generation = None;
    }

    /// Hears of the group, at once if `surely`.
    fn hear(&mut self, surely: bool) {
        if self.generation.is_none() {
            return;
        }
        let mut state = self.cluster.state();
        let late = state.faults.news_late;
        if !surely && state.random.chance(late) {
            return;
        }
        match state.group.hear(&self.writer, self.handle) {
            Heard::Member(generation, news) => {
                self.generation = Some(generation);
                self.news.extend(news);
            }
            Heard::Expelled => {
                drop(state);
                // It joins again once the loss is answered.
                self.generation = None;
                self.news.clear();
                self.news
                    .push_back(Ownership::Lost(self.held.iter().copied().collect()));
            }
        }
    }

    /// Whether the brokers take a commit of these positions from it.
    fn check(&self, state: &State, commit: &Commit) -> Result<(), LogError> {
        for at in commit
            .parts
            .iter()
            .filter(|_| self.has_joined)
            .map(|part| part.input)
        {
            let owner = state.group.owner(at);
            if owner != Some(&self.writer) {
                let reason = format!(
                    "{} commits a position, but the group gave it to {owner:?}",
                    self.writer
                );
                return Err(LogError::Corrupt {
                    at: at.to_string(),
                    reason,
                });
            }
        }
        Ok(())
    }

    fn try_commit(&self, state: &mut State, commit: Commit) -> Result<(), LogError> {
        let failed = |reason: String| LogError::NotCommitted { reason };
        if self.failed {
            return Err(failed("an earlier commit failed: recover first".to_owned()));
        }
        if self.epoch != state.epochs.get(&self.writer).copied().unwrap_or(0) {
            return Err(failed(format!(
                "fenced: {} is in use by a later handle",
                self.writer
            )));
        }
        let places = commit
            .records()
            .map(|record| record.to)
            .chain(commit.parts.iter().map(|part| part.input));
        for at in places {
            state.check(at).map_err(|error| failed(error.to_string()))?;
        }
        if self.has_joined && self.generation != Some(state.group.generation) {
            state.happened.aborted += 1;
            return Err(LogError::Aborted {
                reason: "simulated: an old generation".to_owned(),
                commit: Box::new(commit),
            });
        }
        self.check(state, &commit)?;
        let faults = state.faults;
        state.complete(&self.writer);
        let transaction = state.begin(&self.writer, commit.clone())?;
        if state.random.chance(faults.commit_lost) {
            return Err(failed("simulated: the commit was lost".to_owned()));
        }
        let is_committed = !state.random.chance(faults.commit_aborted);
        state.decide(transaction, is_committed);
        if !is_committed {
            state.happened.aborted += 1;
            return Err(LogError::Aborted {
                reason: "simulated: a send failed".to_owned(),
                commit: Box::new(commit),
            });
        }
        if state.random.chance(faults.commit_unanswered) {
            return Err(failed("simulated: the commit's answer was lost".to_owned()));
        }
        Ok(())
    }
}

impl Drop for SimLog {
    fn drop(&mut self) {
        self.cluster
            .state()
            .group
            .set_silent(&self.writer, Some(self.handle), true);
    }
}

impl Log for SimLog {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        Ok(self.cluster.state().count(topic))
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        let mut state = self.cluster.state();
        let partition = state.partition(at)?;
        Ok(Extent {
            start: Position(partition.start),
            end: Position(partition.end),
        })
    }

    fn committed(&mut self, at: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let mut state = self.cluster.state();
        state.wait_for_positions(at);
        Ok(at.iter().map(|at| state.positions.get(at).copied()).collect())
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.cluster.state().partition(at)?.read(at, from, max)
    }

    fn read_all(&mut self, at: &[TopicPartition], take: &mut dyn FnMut(Record)) -> Result<(), LogError> {
        for &at in at {
            let mut state = self.cluster.state();
            state.wait_for_partition(at)?;
            let partition = state.partition(at)?;
            partition
                .read(at, Position(partition.start), usize::MAX)?
                .records
                .into_iter()
                .for_each(&mut *take);
        }
        Ok(())
    }

    fn join(&mut self) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        state.join(&self.writer, self.handle);
        self.has_joined = true;
        self.generation = Some(state.group.generation);
        drop(state);
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
        let state = self.cluster.state();
        for (at, _) in from {
            state.check(*at)?;
        }
        drop(state);
        place(&mut self.assigned, from);
        self.turn = 0;
        if matches!(self.open, Some(Ownership::Assigned(_))) {
            self.open = None;
        }
        Ok(())
    }

    fn release(&mut self, at: &[TopicPartition]) -> Result<(), LogError> {
        self.assigned.retain(|(taken, _)| !at.contains(taken));
        self.turn = 0;
        self.held.retain(|held| !at.contains(held));
        match self.open.take() {
            Some(Ownership::Revoked(_)) if self.generation.is_some() => {
                let mut state = self.cluster.state();
                let own: Vec<_> = at
                    .iter()
                    .copied()
                    .filter(|at| state.group.owner(*at) == Some(&self.writer))
                    .collect();
                state.let_go(&own);
            }
            Some(Ownership::Lost(_)) => self.join()?,
            Some(open @ Ownership::Assigned(_)) => self.open = Some(open),
            Some(Ownership::Revoked(_)) | None => {}
        }
        Ok(())
    }

    /// Never waits: time is virtual, and passes by [`SimCluster::advance`] only.
    fn poll(&mut self, max: usize, _wait: Duration) -> Result<Vec<Record>, LogError> {
        self.hear(false);
        if !self.news.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.cluster.state();
        read_in_turn(&mut self.assigned, &mut self.turn, max, |at, position, max| {
            state.partition(at)?.read(at, position, max)
        })
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Appended>, LogError> {
        let lost = |what: &str| LogError::Unavailable {
            reason: format!("simulated: the append{what} was lost"),
        };
        let mut state = self.cluster.state();
        for record in &records {
            state.check(record.to)?;
        }
        let faults = state.faults;
        if state.random.chance(faults.append_lost) {
            return Err(lost(""));
        }
        let now = state.wall_ms;
        let appended = records
            .into_iter()
            .map(|record| Ok(state.partition(record.to)?.put(record, now, None)))
            .collect::<Result<_, _>>()?;
        if state.random.chance(faults.append_unanswered) {
            return Err(lost("'s answer"));
        }
        Ok(appended)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), LogError> {
        if commit == Commit::default() {
            return Ok(());
        }
        let result = self.try_commit(&mut self.cluster.clone().state(), commit);
        self.failed = matches!(result, Err(LogError::NotCommitted { .. }));
        result
    }

    fn recover(&mut self) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        self.epoch = state.fence(&self.writer);
        state.complete(&self.writer);
        self.failed = false;
        Ok(())
    }

    fn trim(&mut self, before: &[(TopicPartition, Position)]) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        for &(at, position) in before {
            state.partition(at)?.trim(position.0);
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

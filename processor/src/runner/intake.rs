//! Polls records, and folds them into tasks.

use super::{Options, RunError, Work, control};
use crate::telemetry;
use processor_core::{Applied, Input};
use processor_log::Log;
use schemas::id::TopicPartition;
use schemas::record::Offered;
use schemas::stage::Stage;
use std::time::Duration;

impl Work {
    /// Polls, and gives how many records were folded or put into the backlog.
    ///
    /// Records are folded in the memory of the client, since a copy of each would cost as much as its scan.
    /// Once the next commit is full, or a tick starts an epoch that is not known yet, that record and all
    /// after it are copied into the backlog, which is folded before anything else is polled.
    pub fn poll<L: Log>(&mut self, log: &mut L, options: &Options) -> Result<usize, RunError> {
        let from_backlog = self.fold_backlog(log)?;
        if from_backlog > 0 || !self.backlog.is_empty() {
            self.pace.polled(log.wall_ms());
            return Ok(from_backlog);
        }
        let mut result = Ok(());
        // The ticked partitions that got records other than ticks, one entry for each run of records of one
        // partition.
        let mut data: Vec<TopicPartition> = Vec::new();
        let wait = self.pace.wait(self.now());
        let mut now: Option<Duration> = None;
        let count = log.poll_each(options.poll_max, wait, &mut |record| {
            let input = Input::of(&record);
            if is_ticked(record.from) && !input.tick && data.last() != Some(&record.from) {
                data.push(record.from);
            }
            let is_known = input.epoch.is_none_or(|epoch| self.rules.knows(epoch));
            if !self.backlog.is_empty() || self.pace.is_full() || !is_known {
                self.backlog.push_back(record.to_record());
            } else if result.is_ok() {
                let now = *now.get_or_insert_with(|| self.began.elapsed());
                result = self.fold(record.from, input, now);
            }
        })?;
        result?;
        // One wall time for the whole poll is exact enough.
        let wall_ms = log.wall_ms();
        for at in data {
            self.ticks.saw_data(at, wall_ms);
        }
        self.pace.polled(wall_ms);
        Ok(count)
    }

    /// Folds records of the backlog until the next commit is full, and gives how many were folded.
    fn fold_backlog<L: Log>(&mut self, log: &mut L) -> Result<usize, RunError> {
        let mut count = 0;
        while !self.pace.is_full() {
            let Some(record) = self.backlog.pop_front() else {
                break;
            };
            record.offer(|record| self.fold_waiting(log, record))?;
            count += 1;
        }
        Ok(count)
    }

    /// Folds a record of the backlog. A tick that starts an unknown epoch waits until the epoch is known.
    fn fold_waiting<L: Log>(&mut self, log: &mut L, record: Offered<'_>) -> Result<(), RunError> {
        let input = Input::of(&record);
        if let Some(epoch) = input.epoch.filter(|_| is_ticked(record.from)) {
            control::wait_for(self, log, epoch)?;
        }
        let now = self.now();
        self.fold(record.from, input, now)
    }

    /// Folds a record at `now` of [`Pace`](super::pace::Pace).
    fn fold(&mut self, at: TopicPartition, input: Input<'_>, now: Duration) -> Result<(), RunError> {
        let Some(held) = self.tasks.get_mut(at) else {
            // The partition was given away meanwhile, and its next owner folds the record.
            return Ok(());
        };
        let before = held.task.pending();
        let applied = held
            .task
            .apply(input, &self.rules)
            .map_err(|source| RunError::Halt {
                at,
                offset: input.offset,
                source,
            })?;
        match applied {
            Applied::Folded => {}
            Applied::Duplicate => telemetry::delta_duplicate(),
        }
        let raw = is_ticked(at).then_some(input.appended);
        self.pace.folded(now, raw, before, held.task.pending());
        Ok(())
    }
}

/// Whether a partition is input of a stage whose input is ticked.
pub(super) fn is_ticked(at: TopicPartition) -> bool {
    Stage::of_input(at.topic).is_some_and(|stage| stage.def().ticked)
}

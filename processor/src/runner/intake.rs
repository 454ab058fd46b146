//! What a poll shows, into the tasks.

use super::{LAG_MS, Options, RunError, State, control};
use crate::telemetry;
use processor_core::Input;
use processor_core::series::Merged;
use processor_log::Log;
use schemas::id::TopicPartition;
use schemas::topic::Topic;
use std::time::Instant;

impl State {
    /// Polls and folds; how many records there were.
    ///
    /// They are folded where they are in the client's memory: to copy each one first costs as much as to scan it. Only
    /// where a tick starts an epoch that is not known yet, it and those after it are copied, until the log was asked.
    pub fn take_in<L: Log>(&mut self, log: &mut L, options: &Options) -> Result<usize, RunError> {
        let (mut later, mut result) = (Vec::new(), Ok(()));
        // Raw partitions with data, one for each run of their records.
        let mut data: Vec<i32> = Vec::new();
        let count = log.poll_each(options.poll_max, self.wait(options), &mut |record| {
            let input = Input::of(&record);
            if record.from.topic == Topic::RawLogs
                && !input.tick
                && data.last() != Some(&record.from.partition)
            {
                data.push(record.from.partition);
            }
            if !later.is_empty() || input.epoch.is_some_and(|epoch| !self.rules.knows(epoch)) {
                later.push(record.to_record());
            } else if result.is_ok() {
                result = self.fold(record.from, input);
            }
        })?;
        result?;
        // The wall time of the batch: near enough, and not asked for each record.
        let now = log.wall_ms();
        data.into_iter()
            .for_each(|partition| self.ticks.saw_data(partition, now));
        self.lags = self
            .newest
            .is_some_and(|newest| now.saturating_sub(newest) >= LAG_MS);
        for record in &later {
            record.offer(|record| {
                let input = Input::of(&record);
                if let Some(epoch) = input.epoch.filter(|_| record.from.topic == Topic::RawLogs) {
                    control::wait_for(self, log, epoch)?;
                }
                self.fold(record.from, input)
            })?;
        }
        Ok(count)
    }

    fn fold(&mut self, at: TopicPartition, input: Input<'_>) -> Result<(), RunError> {
        match at.topic {
            Topic::RawLogs => {
                let Some(task) = self.sessions.get_mut(&at.partition) else {
                    return Ok(());
                };
                task.apply(input, &self.rules);
                self.newest = self.newest.max(Some(input.appended));
            }
            Topic::Deltas => self.merge(at, input)?,
            _ => {
                return Err(RunError::Foreign {
                    at,
                    offset: input.offset,
                });
            }
        }
        self.pending += 1;
        self.pending_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn merge(&mut self, at: TopicPartition, input: Input<'_>) -> Result<(), RunError> {
        let Some(task) = self.series.get_mut(&at.partition) else {
            return Ok(());
        };
        match task.apply(input.offset, input.appended, input.value, &self.rules) {
            Merged::Applied => Ok(()),
            Merged::Duplicate => {
                telemetry::delta_duplicate();
                Ok(())
            }
            Merged::Undecodable => Err(RunError::Foreign {
                at,
                offset: input.offset,
            }),
            Merged::Gap {
                source,
                have,
                previous,
            } => Err(RunError::Gap {
                at,
                source_partition: source,
                have,
                previous,
            }),
        }
    }
}
